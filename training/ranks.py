"""Data-parallel training: which process of `torchrun` this one is, and sums over all of them.

Each process takes every world-th sample of a batch. Whatever a step divides by (samples that count
for a loss, views that count for a batch norm) is summed over the processes first, so that a step
is the one that a single process makes with the whole batch, to within rounding. Gradients of such
shares of one loss are added up, which is their mean for batch-mean losses.

Without torchrun there is one process and every function here gives back what it was given.
"""

from __future__ import annotations

import datetime
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from ddnn.errors import ConfigError, DdnnError

#: A process that is this late is taken for lost; the slowest wait is for another's data set.
LATE = datetime.timedelta(minutes=10)


class _Sum(torch.autograd.Function):
    """y = sum of x over the processes. Each process's loss depends on every x through y, so that
    dL/dx is the sum of their gradients of y."""

    @staticmethod
    def forward(_ctx: Any, x: Tensor) -> Tensor:
        total = x.clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(_ctx: Any, *grads: Tensor) -> Tensor:
        total = grads[0].clone()
        dist.all_reduce(total)
        return total


def world() -> int:
    """Number of processes that train together."""
    return dist.get_world_size() if _joined() else 1


def rank() -> int:
    """Number of this process, from 0; the first one writes the results."""
    return dist.get_rank() if _joined() else 0


def _joined() -> bool:
    return dist.is_available() and dist.is_initialized()


def own() -> slice:
    """Which samples of a batch are this process's."""
    return slice(rank(), None, world())


def summed(x: Tensor) -> Tensor:
    """`x` added up over all processes; gradients are too, on the way back."""
    if world() == 1:
        return x
    total: Tensor = _Sum.apply(x)
    return total


@torch.no_grad()
def sum_gradients(parameters: Iterable[nn.Parameter]) -> None:
    """Replace each gradient by its sum over all processes, in one message."""
    if world() == 1:
        return
    gradients = [p.grad for p in parameters if p.grad is not None]
    flat = torch.cat([gradient.flatten() for gradient in gradients])
    dist.all_reduce(flat)
    parts = flat.split([gradient.numel() for gradient in gradients])
    for gradient, part in zip(gradients, parts, strict=True):
        gradient.copy_(part.view_as(gradient))


def device_of(name: str) -> torch.device:
    """`auto`, `cpu` or `cuda` -> where this process trains; of several GPUs its own.

    Raises:
        ConfigError: `cuda` where there is none.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name == "cpu":
        return torch.device("cpu")
    if not torch.cuda.is_available():
        raise ConfigError("--device cuda: this machine, or this PyTorch, has no usable GPU")
    number = int(os.environ.get("LOCAL_RANK", "0"))
    count = torch.cuda.device_count()
    if number >= count:
        raise ConfigError(f"torchrun starts more processes here than there are GPUs ({count})")
    return torch.device("cuda", number)


@contextmanager
def together(device: torch.device) -> Iterator[None]:
    """Within it, the processes that torchrun started train as one; alone it does nothing.

    Raises:
        DdnnError: another process of the training has ended or does not answer.
    """
    if "TORCHELASTIC_RUN_ID" not in os.environ:
        yield
        return
    try:
        if device.type == "cuda":
            torch.cuda.set_device(device)
        dist.init_process_group("nccl" if device.type == "cuda" else "gloo", timeout=LATE)
        yield
    except RuntimeError as error:
        # gloo's errors are plain RuntimeErrors.
        if isinstance(error, dist.DistError) or "gloo" in str(error).lower():
            raise DdnnError(
                f"process {os.environ.get('RANK')} stops: another process of this training has "
                f"ended or does not answer ({str(error).splitlines()[0]})"
            ) from error
        raise
    finally:
        if _joined():
            dist.destroy_process_group()
