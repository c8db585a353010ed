"""From a camera's picture to what the section takes: region, masks, area-averaging. Pure.

Every pixel of the section's picture is the mean of the part of the region that it covers, with
pixels at its border counted by their share. Where a mask touches it, it is mid-grey: augmentation
turns contrast around that value, so that to a network it is the most neutral one.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

Image = npt.NDArray[np.uint8]
Region = tuple[float, float, float, float]
Polygons = Sequence[Sequence[tuple[float, float]]]

WHOLE: Region = (0.0, 0.0, 1.0, 1.0)
MASKED = 128
#: Rows of a picture below which cameras' scalers get into trouble.
LEAST_HEIGHT = 96
#: A pixel is masked when one of so many by so many points in it is.
MASK_SAMPLES = 4
_LUMA = np.array([0.299, 0.587, 0.114], np.float32)


class Framing:
    """Region and masks of one camera.

    Args:
        region: left, top, right, bottom as shares of the picture.
        mask: polygons of (x, y) as shares of the whole picture.
    """

    def __init__(self, region: Region = WHOLE, mask: Polygons = ()) -> None:
        self.region = region
        self.mask = mask
        self._shapes: tuple[tuple[int, ...], tuple[int, ...]] | None = None
        self._scaling: _Scaling | None = None
        self._cut_masked: npt.NDArray[np.bool_] | None = None
        self._masked: npt.NDArray[np.bool_] | None = None

    def height_for(self, rows: int) -> int:
        """Rows of a whole picture that give a section of `rows` rows two for each of its own."""
        return max(LEAST_HEIGHT, int(np.ceil(2 * rows / (self.region[3] - self.region[1]))))

    def view(self, picture: Image, shape: tuple[int, ...]) -> Image:
        """What a section that takes `shape` (H, W, C) sees of a picture (h, w, 3 or C).

        A picture of that very shape with nothing to cut and to mask is given back as it is.

        Raises:
            ValueError: C is neither the picture's channels nor 1.
        """
        if self._shapes != (picture.shape, shape):
            self._prepare(picture.shape, shape)
        view = picture if self._scaling is None else self._scaling.apply(picture)
        if view.shape[2] != shape[2]:
            view = np.rint(view @ _LUMA).astype(np.uint8)[..., None]
        if self._masked is not None:
            view = view.copy() if view is picture else view
            view[self._masked] = MASKED
        return view

    def cut(self, picture: Image) -> Image:
        """The region of a picture (h, w, C), masked, pixel for pixel."""
        left, top, right, bottom = pixel_box(self.region, picture.shape)
        part = picture[top:bottom, left:right].copy()
        if self.mask:
            if self._cut_masked is None or self._cut_masked.shape != part.shape[:2]:
                self._cut_masked = covered(self.mask, self.region, *part.shape[:2])
            part[self._cut_masked] = MASKED
        return part

    def _prepare(self, picture: tuple[int, ...], shape: tuple[int, ...]) -> None:
        if shape[2] not in (1, picture[2]):
            raise ValueError(f"a picture of {picture[2]} channels has no view of {shape[2]}")
        same = picture[:2] == shape[:2] and tuple(self.region) == WHOLE
        self._scaling = None if same else _Scaling(picture, shape, self.region)
        self._masked = None
        if self.mask:
            masked = covered(self.mask, self.region, shape[0], shape[1])
            self._masked = masked if masked.any() else None
        self._shapes = (picture, shape)


class _Scaling:
    """Area-averaging as two matrix products: rows first, then columns."""

    def __init__(self, picture: tuple[int, ...], shape: tuple[int, ...], region: Region) -> None:
        left, top, right, bottom = region
        height, width, channels = picture
        rows, self._rows = _weights(top * height, bottom * height, shape[0])
        columns, self._columns = _weights(left * width, right * width, shape[1])
        self._down, self._across = rows, columns.T.copy()
        self._channels = channels

    def apply(self, picture: Image) -> Image:
        """(h, w, C) uint8 -> (H, W, C) uint8."""
        part = picture[self._rows, self._columns]
        flat = part.reshape(part.shape[0], -1).astype(np.float32)
        lines = (self._down @ flat).reshape(-1, part.shape[1], self._channels)
        # Columns last, so that one product serves all rows and channels.
        mean = np.ascontiguousarray(lines.transpose(0, 2, 1)) @ self._across
        mean += 0.5
        return np.ascontiguousarray(mean.astype(np.uint8).transpose(0, 2, 1))


def _weights(low: float, high: float, cells: int) -> tuple[npt.NDArray[np.float32], slice]:
    """Share of each pixel between `low` and `high` in each of `cells` cells, (cells, pixels)."""
    first, last = int(np.floor(low + 1e-9)), int(np.ceil(high - 1e-9))
    edges = np.linspace(low, high, cells + 1)
    pixels = np.arange(first, last)
    overlap = np.minimum(edges[1:, None], pixels + 1) - np.maximum(edges[:-1, None], pixels)
    weights = np.clip(overlap, 0.0, None)
    weights /= weights.sum(axis=1, keepdims=True)
    return weights.astype(np.float32), slice(first, last)


def pixel_box(region: Region, shape: tuple[int, ...]) -> tuple[int, int, int, int]:
    """The region of a picture of `shape` in whole pixels: left, top, right, bottom."""
    left, top, right, bottom = region
    height, width = shape[0], shape[1]
    return (
        int(np.floor(left * width + 1e-9)),
        int(np.floor(top * height + 1e-9)),
        int(np.ceil(right * width - 1e-9)),
        int(np.ceil(bottom * height - 1e-9)),
    )


def covered(polygons: Polygons, region: Region, height: int, width: int) -> npt.NDArray[np.bool_]:
    """Pixels of the region's view, (height, width), that a polygon touches.

    A point is inside a polygon when a line from it crosses the border an odd number of times.
    """
    left, top, right, bottom = region
    steps = (np.arange(max(height, width) * MASK_SAMPLES) + 0.5) / MASK_SAMPLES
    x = left + (right - left) * steps[: width * MASK_SAMPLES] / width
    y = top + (bottom - top) * steps[: height * MASK_SAMPLES] / height
    inside = np.zeros((y.size, x.size), bool)
    for polygon in polygons:
        odd = np.zeros_like(inside)
        for (x0, y0), (x1, y1) in zip(polygon, [*polygon[1:], polygon[0]], strict=True):
            if y0 == y1:
                continue
            crosses = (y0 > y) != (y1 > y)
            border = x0 + (y - y0) * (x1 - x0) / (y1 - y0)
            odd ^= crosses[:, None] & (x[None, :] < border[:, None])
        inside |= odd
    blocks = inside.reshape(height, MASK_SAMPLES, width, MASK_SAMPLES)
    return np.asarray(blocks.any(axis=(1, 3)))
