"""The network's sections as anyone would write them in torch, with the weights of a trained one.

Ordinary layers, weights already -1 and +1, batch norm in float, the sign by comparison: what a
person gets who takes the network from torch to `torch.onnx.export` without further thought. The
picture comes as the camera gives it, so that every contender starts from the same array.
"""

from __future__ import annotations

import io
import warnings
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional


class Block(nn.Module):
    """Convolution, max pool, batch norm, sign."""

    def __init__(self, trained: Any, run: slice) -> None:
        super().__init__()
        weight = _signs(trained.conv.latent[run])
        self.conv = nn.Conv2d(weight.shape[1], weight.shape[0], 3, padding=1, bias=False)
        self.conv.weight.data = weight
        self.norm = _batch_norm(nn.BatchNorm2d, trained.norm, run)

    def forward(self, x: Tensor) -> Tensor:
        x = functional.max_pool2d(self.conv(x), 3, stride=2, padding=1)
        return torch.where(self.norm(x) >= 0, 1.0, -1.0)


class Exit(nn.Module):
    """Linear map and batch norm: logits."""

    def __init__(self, trained: Any, group: int) -> None:
        super().__init__()
        weight = _signs(trained.linear.latent[group])
        classes = len(weight)
        self.linear = nn.Linear(weight.shape[1], classes, bias=False)
        self.linear.weight.data = weight
        run = slice(group * classes, (group + 1) * classes)
        self.norm = _batch_norm(nn.BatchNorm1d, trained.norm, run)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.linear(x.flatten(1)))


class Device(nn.Module):
    """image (N, H, W, C) uint8 -> scores (N, K), features (N, f, h, w) float."""

    def __init__(self, bank: Any, camera: int) -> None:
        super().__init__()
        filters = bank.options.device_filters
        self.blocks = nn.Sequential(
            *(
                Block(block, slice(camera * f, (camera + 1) * f))
                for block, f in zip(bank.blocks, filters, strict=True)
            )
        )
        self.exit = Exit(bank.exit, camera)

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        x = self.blocks(image.permute(0, 3, 1, 2).float())
        return self.exit(x), x


class Upper(nn.Module):
    """features (N, M, f, h, w) float -> logits (N, K), own features; members side by side (CC)."""

    def __init__(self, fusion: Any) -> None:
        super().__init__()
        self.blocks = nn.Sequential(*(Block(block, slice(None)) for block in fusion.blocks))
        self.exit = Exit(fusion.exit, 0)

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        x = self.blocks(features.flatten(1, 2))
        return self.exit(x), x


def export(module: nn.Module, example: Tensor) -> bytes:
    """`torch.onnx.export` with nothing but a free batch size asked for."""
    file = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter that needs no further package is deprecated
        torch.onnx.export(
            module.eval(),
            (example,),
            file,
            input_names=["x"],
            output_names=["logits", "features"],
            dynamic_axes={"x": {0: "N"}},
            dynamo=False,
            opset_version=18,
        )
    return file.getvalue()


def _signs(latent: Tensor) -> Tensor:
    return torch.where(latent.detach() >= 0, 1.0, -1.0)


def _batch_norm(kind: Any, trained: Any, run: slice) -> Any:
    norm = kind(len(trained.gamma[run]), eps=trained.eps)
    norm.weight.data = trained.gamma.detach()[run].clone()
    norm.bias.data = trained.beta.detach()[run].clone()
    norm.running_mean = trained.running_mean[run].clone()
    norm.running_var = trained.running_var[run].clone()
    return norm
