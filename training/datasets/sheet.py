"""A contact sheet: samples of a data set as one picture, for a person to look at."""

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from ddnn.errors import DataError
from training.datasets.base import MultiCameraSet

GAP_PX = 4
HEAD_PX = 18
LABEL_PX = 96
_PAPER = (245, 245, 242)
_INK = (30, 30, 30)
_FRAMES = ((220, 60, 50), (40, 150, 70), (60, 90, 210), (215, 160, 20), (150, 70, 170))


def choose(data: MultiCameraSet, rows: int, split: str, seed: int) -> NDArray[np.int64]:
    """Up to `rows` samples of a split ("train", "test" or "all"), the classes in turn.

    Raises DataError when the split is empty.
    """
    pool = {"train": data.train, "test": data.test, "all": np.arange(len(data))}[split]
    if pool.size == 0:
        raise DataError(f"{data.name} has no {split} samples to show")
    pool = np.random.default_rng(seed).permutation(pool)
    # The k-th sample of every class comes before the (k + 1)-th of any.
    turn = np.zeros(pool.size, np.int64)
    for label in np.unique(data.labels[pool]):
        members = data.labels[pool] == label
        turn[members] = np.arange(members.sum())
    order = np.lexsort((data.labels[pool], turn))
    return pool[order][:rows].astype(np.int64)


def contact_sheet(data: MultiCameraSet, index: NDArray[np.integer], view_px: int = 96) -> Image:
    """Draw one row per sample and one column per camera.

    index: (R,) samples; view_px: width of one view in the sheet. A frame in the class's colour is
    around each view that shows the object; an absent view is crossed out. Views of one channel
    are shown in gray, of more than three by their first three.
    """
    high, wide, channels = data.image_shape
    zoom = max(1, round(view_px / wide))
    step_x, step_y = wide * zoom + 2 * GAP_PX, high * zoom + 2 * GAP_PX
    size = (LABEL_PX + data.cameras * step_x + GAP_PX, HEAD_PX + len(index) * step_y + GAP_PX)
    sheet = Image.new("RGB", size, _PAPER)
    pen, font = ImageDraw.Draw(sheet), ImageFont.load_default()
    for camera in range(data.cameras):
        pen.text((LABEL_PX + camera * step_x + GAP_PX, 4), f"camera {camera}", _INK, font)
    for row, sample in enumerate(index):
        top = HEAD_PX + row * step_y
        label = int(data.labels[sample])
        colour = _FRAMES[label % len(_FRAMES)]
        pen.text((6, top + GAP_PX), data.classes[label], colour, font)
        pen.text((6, top + GAP_PX + 13), f"sample {sample}", _INK, font)
        for camera in range(data.cameras):
            left = LABEL_PX + camera * step_x
            corners = (left + 1, top + 1, left + step_x - 2, top + step_y - 2)
            if not data.present[sample, camera]:
                pen.line((left + GAP_PX, top + GAP_PX, *corners[2:]), (190, 190, 190))
                continue
            if data.seen[sample, camera]:
                pen.rectangle(corners, outline=colour, width=GAP_PX - 1)
            view = data.images[sample, camera]
            view = np.repeat(view[..., :1], 3, axis=-1) if channels < 3 else view[..., :3]
            picture = Image.fromarray(np.ascontiguousarray(view))
            picture = picture.resize((wide * zoom, high * zoom), Image.Resampling.NEAREST)
            sheet.paste(picture, (left + GAP_PX, top + GAP_PX))
    return sheet
