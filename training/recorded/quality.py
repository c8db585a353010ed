"""Is a camera's picture any good? Sharpness and brightness, and warnings for a person."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

#: Median brightness, 0 to 255, below and above which little can be told.
DARK = 35.0
BRIGHT = 225.0
#: A camera that has less than this share of the other cameras' median sharpness is likely out of
#: focus or dirty; one below the absolute value shows next to nothing.
BLURRED_SHARE = 0.15
BLURRED = 8.0
#: Fewer pictures say little of a camera.
JUDGED_FROM = 10


class Quality(NamedTuple):
    """One picture.

    Attributes:
        width, height: pixels.
        sharpness: variance of the Laplacian of its grey levels.
        brightness: mean grey level, 0 to 255.
    """

    width: int
    height: int
    sharpness: float
    brightness: float


def measure(path: Path) -> Quality:
    """Read a picture and judge it.

    Raises:
        OSError: it cannot be read (`PIL.UnidentifiedImageError` is one).
    """
    with Image.open(path) as picture:
        width, height = picture.size
        grey = np.asarray(picture.convert("L"), np.float32)
    return Quality(width, height, sharpness(grey), float(grey.mean()))


def sharpness(grey: NDArray[np.float32]) -> float:
    """Variance of the 4-neighbour Laplacian of a picture (H, W); 0 where it has no inside."""
    if min(grey.shape) < 3:
        return 0.0
    inner = grey[1:-1, 1:-1]
    laplacian = grey[:-2, 1:-1] + grey[2:, 1:-1] + grey[1:-1, :-2] + grey[1:-1, 2:] - 4 * inner
    return float(laplacian.var())


def warnings(sharp: Sequence[float], bright: Sequence[float], others: float) -> list[str]:
    """What a person should look at.

    Args:
        sharp, bright: of one camera's pictures.
        others: median sharpness of the other cameras' pictures; 0 where there are none.
    """
    if len(sharp) < JUDGED_FROM:
        return []
    found = []
    middle = float(np.median(sharp))
    if middle < BLURRED:
        found.append("blurred or blank: clean the lens, set the focus")
    elif middle < BLURRED_SHARE * others:
        found.append("much less sharp than the others: clean the lens, set the focus")
    light = float(np.median(bright))
    if light < DARK:
        found.append("dark: more light, or a longer exposure")
    elif light > BRIGHT:
        found.append("overexposed: less light, or no sun in the lens")
    return found
