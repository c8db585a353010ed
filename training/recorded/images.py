"""The pictures of slots as arrays, as the sections take them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image, UnidentifiedImageError

from ddnn.errors import DataError
from training.recorded.views import View


class Pictures(NamedTuple):
    """N slots seen by D cameras.

    Attributes:
        slots: (N,) int64, in the order of their times.
        times_s: (N,) float64, when each began.
        images: (N, D, H, W, C) uint8, zero where not present.
        present: (N, D) bool.
        resized: how many pictures were of another size.
    """

    slots: npt.NDArray[np.int64]
    times_s: npt.NDArray[np.float64]
    images: npt.NDArray[np.uint8]
    present: npt.NDArray[np.bool_]
    resized: int


def load_pictures(
    folder: Path,
    views: Sequence[View],
    slots: Sequence[int],
    cameras: int,
    shape: tuple[int, int, int],
) -> Pictures:
    """Read the views of `slots` by cameras 0 to `cameras` - 1.

    A picture of another size than `shape` (H, W, C) is averaged down or scaled up to it, from the
    region at the camera's resolution where there is one, as the camera's own framing does.

    Raises:
        DataError: a picture is missing or damaged.
    """
    by_slot: dict[int, list[View]] = {slot: [] for slot in slots}
    for view in views:
        if view.slot in by_slot and view.state == "present" and view.camera < cameras:
            by_slot[view.slot].append(view)
    times = {view.slot: view.time_s for view in views}
    order = sorted(by_slot, key=lambda slot: (times.get(slot, 0.0), slot))
    images = np.zeros((len(order), cameras, *shape), np.uint8)
    present = np.zeros((len(order), cameras), bool)
    resized = 0
    for number, slot in enumerate(order):
        for view in by_slot[slot]:
            same = (view.height, view.width) == shape[:2]
            images[number, view.camera] = _read(folder / view.file, shape, same)
            present[number, view.camera] = True
            resized += not same
    # An all-black picture is to every reader of a data set one that is not there.
    present &= images.any(axis=(2, 3, 4))
    return Pictures(
        np.array(order, np.int64),
        np.array([times.get(slot, 0.0) for slot in order], np.float64),
        images,
        present,
        resized,
    )


def _read(path: Path, shape: tuple[int, int, int], same: bool) -> npt.NDArray[np.uint8]:
    if not same and (region := path.parent / "region" / path.name).is_file():
        path = region
    try:
        with Image.open(path) as file:
            picture: Image.Image = file.convert("L" if shape[2] == 1 else "RGB")
            if picture.size != (shape[1], shape[0]):
                picture = picture.resize((shape[1], shape[0]), Image.Resampling.BOX)
            return np.asarray(picture, np.uint8).reshape(shape)
    except (OSError, UnidentifiedImageError) as error:
        raise DataError(
            f"{path} cannot be read ({error}); `ddnn collect` with the same --out makes the list "
            "of pictures anew"
        ) from error
