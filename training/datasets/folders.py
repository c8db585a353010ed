"""A folder of images, `split/class/sample/camera.png` -> MultiCameraSet."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from ddnn.errors import DataError
from training.datasets.base import MultiCameraSet

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp")


def read_folder(path: Path) -> MultiCameraSet:
    """Read `train/` and `test/`; every sample is a folder with one picture per camera.

    Cameras and classes are the sorted names that occur anywhere; a camera without a file has an
    absent view. All pictures must be of one size.

    Raises DataError for another structure, an unreadable picture or differing sizes.
    """
    samples = [
        (split, folder.parent.name, folder)
        for split in ("train", "test")
        for folder in sorted((path / split).glob("*/*"))
        if folder.is_dir()
    ]
    views = {folder: _views(folder) for _, _, folder in samples}
    classes = sorted({label for _, label, _ in samples})
    cameras = sorted({camera for files in views.values() for camera in files}, key=_natural)
    if not samples or not cameras:
        raise DataError(f"{path} holds no pictures at train|test/<class>/<sample>/<camera>.png")
    first = _read(next(iter(next(f for f in views.values() if f).values())))
    images = np.zeros((len(samples), len(cameras), *first.shape), np.uint8)
    present = np.zeros(images.shape[:2], bool)
    for number, (_, _, folder) in enumerate(samples):
        for camera, file in views[folder].items():
            picture = _read(file)
            if picture.shape != first.shape:
                raise DataError(
                    f"{file} is {picture.shape[1]} x {picture.shape[0]} pixels; the first "
                    f"picture is {first.shape[1]} x {first.shape[0]}. All must be of one size."
                )
            images[number, cameras.index(camera)] = picture
            present[number, cameras.index(camera)] = True
    in_train = np.array([split == "train" for split, _, _ in samples])
    return MultiCameraSet(
        images=images,
        labels=np.array([classes.index(label) for _, label, _ in samples], np.int64),
        seen=present.copy(),
        present=present,
        classes=tuple(classes),
        name=path.name,
        train=np.flatnonzero(in_train).astype(np.int64),
        test=np.flatnonzero(~in_train).astype(np.int64),
    )


def _views(folder: Path) -> dict[str, Path]:
    return {f.stem: f for f in sorted(folder.iterdir()) if f.suffix.lower() in SUFFIXES}


def _natural(name: str) -> tuple[int, str]:
    """camera2 before camera10."""
    digits = "".join(c for c in name if c.isdigit())
    return (int(digits) if digits else -1, name)


def _read(file: Path) -> NDArray[np.uint8]:
    """A picture as (H, W, 3) uint8."""
    try:
        with Image.open(file) as picture:
            return np.asarray(picture.convert("RGB"))
    except (OSError, UnidentifiedImageError) as error:
        raise DataError(f"cannot read picture {file}: {error}") from error
