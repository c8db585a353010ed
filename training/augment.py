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
    if options.colour:
        tint = options.colour * (2 * torch.rand((n * d, 1, 1, channels), generator=random) - 1)
        gain = gain * (1 + tint)
    if options.recolour and channels > 1:
        flat = _recoloured(flat.view_as(images), options.recolour, random).view_as(flat)
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


def _recoloured(images: Tensor, chance: float, random: torch.Generator) -> Tensor:
    """Samples with their colour channels mixed up, the same in all views of a sample.

    What an object is does not follow from its paint, but a network that has seen few objects
    believes that it does.
    """
    n, channels = images.shape[0], images.shape[-1]
    order = torch.rand(n, channels, generator=random).argsort(1)
    keep = torch.rand(n, 1, generator=random) >= chance
    order = torch.where(keep, torch.arange(channels), order)
    return images.gather(-1, order[:, None, None, None, :].expand_as(images))
