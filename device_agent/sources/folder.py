"""A folder of pictures, shown one per slot."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ddnn.errors import DataError
from device_agent.sources.base import Frame, Image, Stored

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp")


class FolderSource(Stored):
    """The pictures of a folder in the order of their names.

    In a loop slot s shows picture s modulo their number, so that cameras with folders of one size
    show the same number in the same slot without a word. Else the first slot that is read shows
    the first picture, and after the last one the source is exhausted.

    Raises:
        DataError: no such folder, or no picture in it.
    """

    def __init__(self, path: Path, *, loop: bool) -> None:
        if not path.is_dir():
            raise DataError(f"there is no folder of pictures at {path}")
        self._files = sorted(f for f in path.iterdir() if f.suffix.lower() in SUFFIXES)
        if not self._files:
            raise DataError(f"{path} holds no pictures ({', '.join(SUFFIXES)})")
        self._first: int | None = 0 if loop else None
        self._loop = loop

    def __len__(self) -> int:
        return len(self._files)

    def read(self, slot: int, at_s: float) -> Frame | None:
        """The picture of `slot`.

        Raises:
            DataError: it cannot be read.
        """
        if self._first is None:
            self._first = slot
        number = slot - self._first
        if self._loop:
            number %= len(self._files)
        elif not 0 <= number < len(self._files):
            return None
        return Frame(read_picture(self._files[number]), at_s)

    def exhausted(self, slot: int) -> bool:
        ends = self._first is not None and not self._loop
        return ends and slot >= (self._first or 0) + len(self._files)


def read_picture(path: Path) -> Image:
    """A picture file as (H, W, 3) uint8.

    Raises:
        DataError: it cannot be read.
    """
    from PIL import Image as Pillow  # a camera's agent does without it

    try:
        with Pillow.open(path) as picture:
            return np.asarray(picture.convert("RGB"))
    except OSError as error:
        raise DataError(f"cannot read picture {path}: {error}") from error
