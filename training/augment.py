"""Changes to training pictures that leave their meaning alone.

What happens to a sample happens to all its views alike where views must agree (the mirror), and
to each view on its own where real cameras differ (aim, exposure, noise). Blank views stay blank.
"""

from __future__ import annotations

import torch
from torch import Tensor

from training.options import TrainOptions


class Draws:
    """Random numbers for some samples of a batch.

    Processes that train together draw the whole batch's numbers and keep those of their own
    samples, so that what happens to a sample does not depend on how many processes there are.

    Args:
        random: where the numbers come from.
        batch: samples in the whole batch.
        own: which of them are drawn for.
    """

    def __init__(self, random: torch.Generator, batch: int, own: slice = slice(None)) -> None:
        self._random, self._batch, self._own = random, batch, own
        self.device = random.device

    def rand(self, *shape: int) -> Tensor:
        """(N, *shape) in 0..1, for the N own samples."""
        whole = (self._batch, *shape)
        return torch.rand(whole, generator=self._random, device=self.device)[self._own]

    def randn(self, *shape: int) -> Tensor:
        """(N, *shape), normally distributed."""
        whole = (self._batch, *shape)
        return torch.randn(whole, generator=self._random, device=self.device)[self._own]

    def integers(self, low: int, high: int, *shape: int) -> Tensor:
        """(N, *shape) of low..high."""
        whole = (self._batch, *shape)
        random, device = self._random, self.device
        return torch.randint(low, high + 1, whole, generator=random, device=device)[self._own]


def augment(images: Tensor, present: Tensor, options: TrainOptions, draws: Draws) -> Tensor:
    """images (N, D, H, W, C) float of 0..255, present (N, D) bool -> the same shape and range.

    Values stay whole numbers, as a camera gives them.
    """
    d, height, width, channels = images.shape[1:]
    if options.flip:
        turned = draws.rand() < 0.5
        images = torch.where(turned[:, None, None, None, None], images.flip(3), images)
    if options.shift_px:
        images = _shifted(images, options.shift_px, draws)
    gain = 1 + options.contrast * (2 * draws.rand(d, 1, 1, 1) - 1)
    offset = options.brightness * (2 * draws.rand(d, 1, 1, 1) - 1)
    if options.colour:
        gain = gain * (1 + options.colour * (2 * draws.rand(d, 1, 1, channels) - 1))
    if options.recolour and channels > 1:
        images = _recoloured(images, options.recolour, draws)
    # Contrast turns around mid-grey, so that it is not one more brightness.
    images = (images - 128) * gain + 128 + offset
    if options.noise:
        strength = options.noise * draws.rand(d, 1, 1, 1)
        images = images + strength * draws.randn(d, height, width, channels)
    return images.round().clamp(0, 255) * present[:, :, None, None, None]


def _shifted(images: Tensor, largest: int, draws: Draws) -> Tensor:
    """Each picture moved by up to `largest` pixels either way; edges repeat."""
    n, d, height, width, channels = images.shape
    flat = images.reshape(n * d, height, width, channels)
    moves = draws.integers(-largest, largest, d, 2).reshape(n * d, 2)
    down, right = (torch.arange(size, device=draws.device)[None] for size in (height, width))
    rows = (down + moves[:, :1]).clamp(0, height - 1)
    columns = (right + moves[:, 1:]).clamp(0, width - 1)
    which = torch.arange(n * d, device=draws.device)[:, None, None]
    return flat[which, rows[:, :, None], columns[:, None, :]].view_as(images)


def drop_cameras(present: Tensor, chance: float, draws: Draws) -> Tensor:
    """present (N, D) bool -> a mask of the cameras that take part; one at least stays."""
    draw = draws.rand(present.shape[1])
    kept = present & (draw >= chance)
    # Where all were dropped the present camera with the luckiest draw stays.
    luckiest = torch.where(present, draw, torch.full_like(draw, -1.0)).argmax(1, keepdim=True)
    lonely = ~kept.any(1, keepdim=True)
    one = torch.zeros_like(present).scatter(1, luckiest, True)
    return torch.where(lonely, one & present, kept)


def cameras_left(present: Tensor, draws: Draws) -> Tensor:
    """present (N, D) bool -> a mask with as many cameras as chance has it, 1 to all, each equally.

    Where every camera is lost with the same chance, sets of one or two hardly ever come up; here
    they do as often as those of all.
    """
    cameras = present.shape[1]
    rank = draws.rand(cameras).masked_fill(~present, 2.0).argsort(1).argsort(1)
    left = (draws.rand(1) * present.sum(1, keepdim=True)).floor() + 1
    return present & (rank < left)


def _recoloured(images: Tensor, chance: float, draws: Draws) -> Tensor:
    """Samples with their colour channels mixed up, the same in all views of a sample.

    What an object is does not follow from its paint, but a network that has seen few objects
    believes that it does.
    """
    channels = images.shape[-1]
    order = draws.rand(channels).argsort(1)
    keep = draws.rand(1) >= chance
    order = torch.where(keep, torch.arange(channels, device=draws.device), order)
    return images.gather(-1, order[:, None, None, None, :].expand_as(images))
