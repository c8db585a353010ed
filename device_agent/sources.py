"""Where frames come from."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt

from ddnn.errors import DataError

Image = npt.NDArray[np.uint8]


class Source(Protocol):
    """A camera, or something that stands in for one behind the same interface.

    Attributes:
        live: a live source shows now what is there now, so a slot that was missed is gone; a
            replay still has its sample, and late is better than never.
    """

    live: bool

    def read(self, slot: int) -> Image | None:
        """The view (H, W, C) uint8 of this slot, or None when there is none."""
        ...

    def exhausted(self, slot: int) -> bool:
        """Whether nothing comes from this slot on."""
        ...


class ReplaySource:
    """One camera's column of a replay file: sample i is shown in slot `first_slot` + i.

    The file is `.npz` with `images` uint8 (N, D, H, W, C) and `present` bool (N, D); a view that
    is not present gives None. All agents of a site show the same sample in the same slot.

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

    def read(self, slot: int) -> Image | None:
        if self.first_slot is None:
            return None
        sample = slot - self.first_slot
        if not 0 <= sample < len(self._images) or not self._present[sample]:
            return None
        view: Image = self._images[sample]
        return view

    def exhausted(self, slot: int) -> bool:
        return self.first_slot is not None and slot >= self.first_slot + len(self._images)
