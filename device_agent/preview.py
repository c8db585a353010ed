"""A picture for whoever sets a camera up: where the region and masks are, what the section sees."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np

from ddnn.errors import DdnnError, SourceError
from device_agent.framing import Framing, Image, pixel_box
from device_agent.sources import Frame, LiveSource, ReplaySource, Source

#: Rows of the picture that is shown, pixels.
SHOWN_HEIGHT = 480
#: A camera's exposure and white balance take so long to find themselves.
SETTLE_S = 1.5
FIRST_FRAME_S = 30.0
REGION_COLOUR, MASK_COLOUR = (255, 220, 0), (220, 0, 0)


def take_one(source: Source, height: int, timeout_s: float = FIRST_FRAME_S) -> Image:
    """One picture (h, w, 3) of a source, a camera's after it has settled.

    Raises:
        SourceError: there is none.
    """
    if isinstance(source, ReplaySource):
        source.first_slot = 0
    source.want(height)
    started = time.monotonic()
    first_s: float | None = None
    frame: Frame | None = None
    while (now := time.monotonic()) - started < timeout_s:
        source.tend(now)
        # Slot 0 stands for whatever is shown first; a camera goes by the time alone.
        frame = source.read(0, now) or frame
        if frame is not None and first_s is None:
            first_s = now
        settled = first_s is not None and now - first_s >= SETTLE_S
        if frame is not None and (settled or not isinstance(source, LiveSource)):
            break
        if source.exhausted(0):
            break
        time.sleep(0.05)
    if frame is None or frame.image is None:
        health = source.health(time.monotonic())
        reason = (health and health.problem) or "it delivers none"
        raise SourceError(f"no picture from this source: {reason}")
    return frame.image


def draw(picture: Image, framing: Framing, shape: tuple[int, ...]) -> Image:
    """The picture with region and masks on the left, the section's view enlarged on the right.

    Args:
        picture: (h, w, 3) uint8.
        framing: whose region and masks.
        shape: (H, W, C) that the section takes.

    Returns:
        (h', w', 3) uint8.
    """
    from PIL import Image as Pillow
    from PIL import ImageDraw

    view = framing.view(picture, shape)
    # From pictures as small as a section's, too, something is to be seen.
    times = max(1, SHOWN_HEIGHT // picture.shape[0])
    whole = Pillow.fromarray(enlarged(picture, times))
    height, width = picture.shape[0] * times, picture.shape[1] * times
    shade = Pillow.new("RGBA", whole.size)
    pen = ImageDraw.Draw(shade)
    for polygon in framing.mask:
        corners = [(x * width, y * height) for x, y in polygon]
        pen.polygon(corners, fill=(*MASK_COLOUR, 110), outline=(*MASK_COLOUR, 255))
    left, top, right, bottom = pixel_box(framing.region, (height, width))
    pen.rectangle((left, top, right - 1, bottom - 1), outline=(*REGION_COLOUR, 255), width=2)
    whole = Pillow.alpha_composite(whole.convert("RGBA"), shade).convert("RGB")
    seen = enlarged(np.repeat(view, 3, axis=2) if shape[2] == 1 else view, height // shape[0] or 1)
    rows = max(height, seen.shape[0])
    sheet = np.zeros((rows, width + 8 + seen.shape[1], 3), np.uint8)
    sheet[:height, :width] = np.asarray(whole)
    sheet[: seen.shape[0], width + 8 :] = seen
    return sheet


def enlarged(picture: Image, times: int) -> Image:
    """Every pixel as a square of `times` by `times`."""
    return picture.repeat(times, axis=0).repeat(times, axis=1)


def write_png(path: Path, picture: Image) -> None:
    """Write (h, w, 3) or (h, w, 1) uint8 as PNG.

    Raises:
        DdnnError: it cannot be written.
    """
    from PIL import Image as Pillow

    try:
        Pillow.fromarray(picture[..., 0] if picture.shape[2] == 1 else picture).save(path, "PNG")
    except OSError as error:
        raise DdnnError(f"cannot write {path}: {error}") from error
