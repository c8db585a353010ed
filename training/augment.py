"""Changes to training pictures that leave their meaning alone.

What happens to a sample happens to all its views alike where views must agree (the mirror), and
to each view on its own where real cameras differ (aim, exposure, noise). Blank views stay blank.
"""

from __future__ import annotations

import torch
from torch import Tensor

from training.options import TrainOptions


def augment(
    images: Tensor, present: Tensor, options: TrainOptions, random: torch.Generator
) -> Tensor:
    """images (N, D, H, W, C) float of 0..255, present (N, D) bool -> the same shape and range.

    Values stay whole numbers, as a camera gives them.
    """
    n, d, height, width, channels = images.shape
    if options.flip:
        turned = torch.rand(n, generator=random) < 0.5
        images = torch.where(turned[:, None, None, None, None], images.flip(3), images)
    flat = images.reshape(n * d, height, width, channels)
    if options.shift_px:
        flat = _shifted(flat, options.shift_px, random)
    shape = (n * d, 1, 1, 1)
    gain = 1 + options.contrast * (2 * torch.rand(shape, generator=random) - 1)
    offset = options.brightness * (2 * torch.rand(shape, generator=random) - 1)
    # Contrast turns around mid-grey, so that it is not one more brightness.
    flat = (flat - 128) * gain + 128 + offset
    if options.noise:
        strength = options.noise * torch.rand(shape, generator=random)
        flat = flat + strength * torch.randn(flat.shape, generator=random)
    flat = flat.round().clamp(0, 255)
    return flat.view_as(images) * present[:, :, None, None, None]


def _shifted(images: Tensor, largest: int, random: torch.Generator) -> Tensor:
    """Each picture moved by up to `largest` pixels either way; edges repeat."""
    count, height, width, _ = images.shape
    moves = torch.randint(-largest, largest + 1, (count, 2), generator=random)
    rows = (torch.arange(height)[None] + moves[:, :1]).clamp(0, height - 1)
    columns = (torch.arange(width)[None] + moves[:, 1:]).clamp(0, width - 1)
    which = torch.arange(count)[:, None, None]
    return images[which, rows[:, :, None], columns[:, None, :]]


def drop_cameras(present: Tensor, chance: float, random: torch.Generator) -> Tensor:
    """present (N, D) bool -> a mask of the cameras that take part; one at least stays."""
    draw = torch.rand(present.shape, generator=random)
    kept = present & (draw >= chance)
    # Where all were dropped the present camera with the luckiest draw stays.
    luckiest = torch.where(present, draw, torch.full_like(draw, -1.0)).argmax(1, keepdim=True)
    lonely = ~kept.any(1, keepdim=True)
    one = torch.zeros_like(present).scatter(1, luckiest, True)
    return torch.where(lonely, one & present, kept)
