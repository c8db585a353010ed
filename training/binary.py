"""Binary layers: the sign with a straight-through estimator, and the DDNN's two blocks.

Sources: DDNN, arXiv 1709.01921, figure 3 (ConvP and FC blocks); BinaryNet, arXiv 1602.02830
(sign, straight-through estimator, clipped latent weights).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from training.ranks import summed

KERNEL = 3
#: Latent weights start within +-this. What matters is its ratio to the learning rate: with 0.5
#: and Adam at 1e-3 most weights keep the sign they were born with (docs/training.md).
LATENT_START = 0.1


class _SteSign(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return torch.where(x >= 0, 1.0, -1.0).to(x.dtype)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        return grads[0] * (x.abs() <= 1)


def ste_sign(x: Tensor) -> Tensor:
    r"""Sign of `x`, never 0, with a straight-through gradient.

    Forward and gradient:

        q(x) = +1 for x >= 0, -1 for x < 0          (so q(0) = q(-0.0) = +1)
        dq/dx = 1 for |x| <= 1, 0 for |x| > 1

    Sources: Binarized Neural Networks, https://arxiv.org/abs/1602.02830; Estimating or
    Propagating Gradients Through Stochastic Neurons, https://arxiv.org/abs/1308.3432.
    """
    result: Tensor = _SteSign.apply(x)
    return result


def ste_round(x: Tensor) -> Tensor:
    """`x` rounded to whole numbers, a half to even; the gradient passes straight through."""
    return x + (x.round() - x).detach()


class BinaryConv2d(nn.Module):
    """3 x 3 convolution, stride 1, zero padding 1, no bias, weights -1/+1 or more levels.

    The padding is 0 for raw pixels 0..255 and for -1/+1 activations alike, and a masked member's
    features are 0: sums of whole numbers, exact in float32 below 2**24.

    Args:
        levels: 1: weights are the signs of the latent ones. More: whole numbers -levels..levels,
            the latent ones times `levels`, rounded.

    Attributes:
        latent: (out, in / groups, 3, 3) float, the weights before their sign or rounding.
    """

    def __init__(self, inputs: int, outputs: int, groups: int = 1, levels: int = 1) -> None:
        super().__init__()
        self.groups, self.levels = groups, levels
        self.latent = nn.Parameter(
            torch.empty(outputs, inputs // groups, KERNEL, KERNEL).uniform_(
                -LATENT_START, LATENT_START
            )
        )

    def forward(self, x: Tensor) -> Tensor:
        """(N, in, H, W) -> (N, out, H, W)."""
        return functional.conv2d(x, self.weights(), padding=1, groups=self.groups)

    def weights(self) -> Tensor:
        """The whole-number weights, of the shape of `latent`."""
        if self.levels == 1:
            return ste_sign(self.latent)
        # In float32 whatever the module is in, so that a copy in float64 rounds alike.
        return ste_round(self.levels * self.latent.float()).to(self.latent.dtype)


class BinaryLinear(nn.Module):
    """`groups` linear maps side by side, weights -1/+1, no bias.

    Attributes:
        latent: (groups, out, in) float, the weights before their sign.
    """

    def __init__(self, inputs: int, outputs: int, groups: int = 1) -> None:
        super().__init__()
        self.latent = nn.Parameter(
            torch.empty(groups, outputs, inputs).uniform_(-LATENT_START, LATENT_START)
        )

    def forward(self, x: Tensor) -> Tensor:
        """(N, groups, in) -> (N, groups, out)."""
        return torch.einsum("ngi,goi->ngo", x, ste_sign(self.latent))


class MaskedBatchNorm(nn.Module):
    """Batch norm whose statistics come from the views that are there.

    A blank view never reaches an exit at run time, so that its zeros must not move the mean and
    variance that the others are normalised with. Channels are `groups` equal runs; `present`
    says for each sample which groups count. A channel with nothing present in a batch is
    normalised by, and leaves alone, its running statistics. Several processes that train together
    (`training.ranks`) share their statistics.
    """

    running_mean: Tensor
    running_var: Tensor

    def __init__(self, channels: int, momentum: float = 0.1, eps: float = 1e-4) -> None:
        super().__init__()
        self.momentum, self.eps = momentum, eps
        self.gamma = nn.Parameter(torch.ones(channels))
        self.beta = nn.Parameter(torch.zeros(channels))
        self.register_buffer("running_mean", torch.zeros(channels))
        self.register_buffer("running_var", torch.ones(channels))

    def forward(self, x: Tensor, present: Tensor | None = None) -> Tensor:
        """(N, channels, ...) -> the same shape; `present` (N, groups) bool or None for all."""
        shape = (1, -1, *(1 for _ in x.shape[2:]))
        if self.training:
            mean, var = self._batch_statistics(x, present)
        else:
            mean, var = self.running_mean, self.running_var
        slope = self.gamma / torch.sqrt(var + self.eps)
        return (x - mean.view(shape)) * slope.view(shape) + self.beta.view(shape)

    def _batch_statistics(self, x: Tensor, present: Tensor | None) -> tuple[Tensor, Tensor]:
        flat = x.flatten(2) if x.ndim > 2 else x.unsqueeze(2)
        if present is None:
            there = flat.new_ones(flat.shape[:2])
        else:
            there = present.to(flat.dtype)
            there = there.repeat_interleave(flat.shape[1] // there.shape[1], dim=1)
        count = summed(there.sum(0))
        weight = there / count.clamp(min=1.0)
        mean = summed((flat.mean(2) * weight).sum(0))
        var = summed(((flat - mean[:, None]).square().mean(2) * weight).sum(0))
        # One value alone has no spread to normalise with.
        usable = count * flat.shape[2] > 1
        with torch.no_grad():
            step = self.momentum * usable
            self.running_mean += step * (mean - self.running_mean)
            self.running_var += step * (var - self.running_var)
        return torch.where(usable, mean, self.running_mean), torch.where(
            usable, var, self.running_var
        )


class ConvP(nn.Module):
    """3 x 3 convolution of whole numbers, 3 x 3 max pool with stride 2, batch norm, sign."""

    def __init__(self, inputs: int, outputs: int, groups: int = 1, levels: int = 1) -> None:
        super().__init__()
        self.conv = BinaryConv2d(inputs, outputs, groups, levels)
        self.norm = MaskedBatchNorm(outputs)

    def forward(self, x: Tensor, present: Tensor | None = None) -> Tensor:
        """(N, in, H, W) -> (N, out, ceil(H / 2), ceil(W / 2)) of -1/+1."""
        # Channels last halves the time of convolution and pooling on few channels on a CPU.
        x = x.contiguous(memory_format=torch.channels_last)
        pooled = functional.max_pool2d(self.conv(x), 3, stride=2, padding=1)
        return ste_sign(self.norm(pooled.contiguous(), present))


class FC(nn.Module):
    """Exit block: binary linear map and batch norm, one logit for each class."""

    def __init__(self, inputs: int, classes: int, groups: int = 1) -> None:
        super().__init__()
        self.linear = BinaryLinear(inputs, classes, groups)
        self.norm = MaskedBatchNorm(groups * classes)

    def forward(self, x: Tensor, present: Tensor | None = None) -> Tensor:
        """(N, groups, in) of -1/+1 -> (N, groups, classes)."""
        sums = self.linear(x)
        return self.norm(sums.flatten(1), present).view_as(sums)


def pooled_size(size: int) -> int:
    """Height or width after one ConvP block."""
    return (size - 1) // 2 + 1
