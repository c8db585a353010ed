"""A data set shown as if it were a camera."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ddnn.errors import DataError
from device_agent.sources.base import Frame, Stored


class ReplaySource(Stored):
    """One camera's column of a replay file: sample i is shown in slot `first_slot` + i.

    The file is `.npz` with `images` uint8 (N, D, H, W, C) and `present` bool (N, D); a view that
    is not present gives a frame without an image. All agents of a site show the same sample in
    the same slot.

    Raises:
        DataError: no such file or camera, or another layout.
    """

    live = False

    def __init__(self, path: Path, camera: int) -> None:
        try:
            with np.load(path, allow_pickle=False) as arrays:
                images, present = arrays["images"], arrays["present"]
        except (OSError, ValueError, KeyError) as error:
            raise DataError(
                f"{path} is no replay file (.npz with images uint8 [N, D, H, W, C] and present "
                f"bool [N, D]): {error}"
            ) from error
        if images.dtype != np.uint8 or images.ndim != 5 or present.shape != images.shape[:2]:
            raise DataError(
                f"{path}: images are {images.dtype} {images.shape} and present is "
                f"{present.shape}; expected uint8 [N, D, H, W, C] and [N, D]"
            )
        if not 0 <= camera < images.shape[1]:
            raise DataError(f"{path} has cameras 0 to {images.shape[1] - 1}, not {camera}")
        self._images = np.ascontiguousarray(images[:, camera])
        self._present = present[:, camera].astype(bool)
        self.first_slot: int | None = None

    def __len__(self) -> int:
        return len(self._images)

    def read(self, slot: int, at_s: float) -> Frame | None:
        if self.first_slot is None or not 0 <= slot - self.first_slot < len(self._images):
            return None
        sample = slot - self.first_slot
        return Frame(self._images[sample] if self._present[sample] else None, at_s)

    def exhausted(self, slot: int) -> bool:
        return self.first_slot is not None and slot >= self.first_slot + len(self._images)
