"""Joint training of all exits: one loss, one optimizer, model chosen on validation samples."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from training.augment import augment, drop_cameras
from training.binary import MaskedBatchNorm
from training.datasets.base import MultiCameraSet, split_validation
from training.network import Answers, Network
from training.options import NetworkOptions, TrainOptions


class Samples(NamedTuple):
    """Tensors of N samples: images (N, D, H, W, C) float 0..255, labels, seen and present."""

    images: Tensor
    labels: Tensor
    seen: Tensor
    present: Tensor

    def __len__(self) -> int:
        return len(self.labels)

    def batch(self, index: Tensor) -> Samples:
        """The samples of that index."""
        return Samples(*(part[index] for part in self))


class EpochResult(NamedTuple):
    """What one epoch did; accuracies are shares 0..1 on the validation samples.

    Attributes:
        epoch: from 1.
        loss: mean over the fitting samples.
        exits: by exit name, with every camera that is there.
        lost_camera: the same with one camera at a time left out, mean over the cameras.
        score: what the model is chosen by.
    """

    epoch: int
    loss: float
    exits: dict[str, float]
    lost_camera: dict[str, float]
    score: float


def samples_of(data: MultiCameraSet, index: np.ndarray) -> Samples:
    """The samples `index` of a data set as tensors."""
    return Samples(
        torch.from_numpy(data.images[index]).float(),
        torch.from_numpy(data.labels[index]),
        torch.from_numpy(data.seen[index]),
        torch.from_numpy(data.present[index]),
    )


def train(
    data: MultiCameraSet,
    network_options: NetworkOptions,
    options: TrainOptions,
    report: Callable[[EpochResult], None] = lambda _: None,
) -> tuple[Network, np.ndarray]:
    """Train on the training split alone.

    Same data, options and machine: same network, bit for bit.

    Args:
        report: called after every epoch.

    Returns:
        The network with its score scale set, and the indices of the validation samples.
    """
    fit_index, validation_index = split_validation(
        data, share=options.validation_share, seed=options.seed
    )
    fit, validation = samples_of(data, fit_index), samples_of(data, validation_index)
    torch.use_deterministic_algorithms(True)
    # Only hides reads of uninitialised memory, at a tenth of the time.
    torch.utils.deterministic.fill_uninitialized_memory = False
    torch.manual_seed(options.seed)
    random = torch.Generator().manual_seed(options.seed)
    network = Network(network_options)
    optimizer = torch.optim.Adam(network.parameters(), lr=options.learning_rate)
    steps = options.epochs * len(list(_batches(len(fit), options.batch, random)))
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    best, best_score = network, -1.0
    for epoch in range(1, options.epochs + 1):
        network.train()
        total = 0.0
        for index in _batches(len(fit), options.batch, random):
            batch = fit.batch(index)
            loss = _step_loss(network, batch, options, random)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            network.keep_trainable()
            schedule.step()
            total += float(loss.detach()) * len(index)
        settle(network, fit, options)
        result = _validate(network, validation, epoch, total / len(fit))
        report(result)
        # While the learning rate is high a good validation result is luck.
        if result.score >= best_score and epoch > options.epochs // 2:
            best, best_score = copy.deepcopy(network), result.score
    best.eval()
    set_score_scale(best, fit)
    return best, validation_index


@torch.no_grad()
def settle(network: Network, samples: Samples, options: TrainOptions) -> None:
    """Take the batch norms' statistics anew from these samples, with the weights as they are.

    Near a sign a step of the optimizer flips bits, which moves every statistic above it; the
    running average lags behind that, and an exported network has nothing but the average.
    Cameras are dropped as in training: a network that must answer for every set of cameras is
    not to be tuned to the full one.
    """
    norms = [module for module in network.modules() if isinstance(module, MaskedBatchNorm)]
    usual = [norm.momentum for norm in norms]
    random = torch.Generator().manual_seed(options.seed)
    network.train()
    for number, index in enumerate(_batches(len(samples), max(options.batch, 64), random)):
        for norm in norms:
            norm.momentum = 1 / (number + 1)  # the plain mean over the batches
        part = samples.batch(index)
        mask = drop_cameras(part.present, options.camera_dropout, random)
        network(part.images, mask, part.present)
    for norm, momentum in zip(norms, usual, strict=True):
        norm.momentum = momentum
    network.eval()


def _batches(count: int, size: int, random: torch.Generator | None) -> Iterator[Tensor]:
    order = torch.arange(count) if random is None else torch.randperm(count, generator=random)
    for begin in range(0, count, size):
        part = order[begin : begin + size]
        # In training, one sample alone has no batch statistics.
        if len(part) > 1 or random is None:
            yield part


def _step_loss(
    network: Network, batch: Samples, options: TrainOptions, random: torch.Generator
) -> Tensor:
    images = augment(batch.images, batch.present, options, random)
    mask = drop_cameras(batch.present, options.camera_dropout, random)
    return joint_loss(network(images, mask, batch.present), batch, mask, network.options, options)


def joint_loss(
    answers: Answers,
    batch: Samples,
    mask: Tensor,
    network_options: NetworkOptions,
    options: TrainOptions,
) -> Tensor:
    """Cross-entropy of all exits with equal weights, plus the devices' own.

    A gateway or edge without any camera there is not asked, so that its loss does not count.
    """
    losses = []
    below = [mask[:, list(gateway)].any(1) for gateway in network_options.gateways]
    for logits, there in [*zip(answers.local, below, strict=False)]:
        losses.append(_cross_entropy(logits, batch.labels, there))
    for logits, there in zip(answers.edge, below, strict=False):
        losses.append(_cross_entropy(logits, batch.labels, there))
    for logits in answers.joined.values():
        losses.append(_cross_entropy(logits, batch.labels, mask.any(1)))
    if answers.cloud is not None:
        losses.append(_cross_entropy(answers.cloud, batch.labels, mask.any(1)))
    loss = torch.stack(losses).sum()
    if options.device_loss:
        labels = batch.labels[:, None].expand(batch.seen.shape).reshape(-1)
        own = _cross_entropy(answers.devices.flatten(0, 1), labels, batch.seen.reshape(-1))
        loss = loss + options.device_loss * own
    if options.distillation and answers.local:
        teacher = functional.softmax(answers.last().detach(), 1)
        for logits, there in zip(answers.local, below, strict=False):
            apart = functional.kl_div(
                functional.log_softmax(logits, 1), teacher, reduction="none"
            ).sum(1)
            loss = loss + options.distillation * (apart * there).sum() / there.sum().clamp(min=1)
    return loss


def _cross_entropy(logits: Tensor, labels: Tensor, there: Tensor) -> Tensor:
    each = functional.cross_entropy(logits, labels, reduction="none")
    return (each * there).sum() / there.sum().clamp(min=1)


@torch.no_grad()
def _validate(network: Network, samples: Samples, epoch: int, loss: float) -> EpochResult:
    network.eval()
    scores, features = [], []
    for index in _batches(len(samples), 256, None):
        part = network.devices(samples.images[index], samples.present[index])
        scores.append(part[0])
        features.append(part[1])
    scores_all, features_all = torch.cat(scores), torch.cat(features)
    set_score_scale_from(network, scores_all, samples.present)
    exits = _accuracies(network.fuse(scores_all, features_all, samples.present), samples)
    lost: dict[str, list[float]] = {name: [] for name in exits}
    cameras = samples.present.shape[1]
    for camera in range(cameras if cameras > 1 else 0):
        mask = samples.present.clone()
        mask[:, camera] = False
        answers = network.fuse(scores_all, features_all, mask)
        for name, value in _accuracies(answers, samples, mask.any(1)).items():
            lost[name].append(value)
    lost_camera = {name: float(np.mean(values)) for name, values in lost.items() if values}
    score = float(np.mean([*exits.values(), *lost_camera.values()]))
    return EpochResult(epoch, loss, exits, lost_camera, score)


def _accuracies(
    answers: Answers, samples: Samples, counted: Tensor | None = None
) -> dict[str, float]:
    found = {f"local/{k}": logits for k, logits in enumerate(answers.local)}
    found |= {f"edge/{k}": logits for k, logits in enumerate(answers.edge)}
    found |= {f"join/{tier}": logits for tier, logits in answers.joined.items()}
    if answers.cloud is not None:
        found["cloud"] = answers.cloud
    result = {}
    for name, logits in found.items():
        right = (logits.argmax(1) == samples.labels).float()
        right = right if counted is None else right[counted]
        result[name] = float(right.mean()) if len(right) else 0.0
    return result


@torch.no_grad()
def set_score_scale(network: Network, samples: Samples) -> None:
    """Fit the byte range of the devices' scores to what they give on `samples`."""
    scores = [
        network.devices(samples.images[index], samples.present[index])[0]
        for index in _batches(len(samples), 256, None)
    ]
    set_score_scale_from(network, torch.cat(scores), samples.present)


def set_score_scale_from(network: Network, scores: Tensor, present: Tensor) -> None:
    """The same from scores (N, D, K) of views present (N, D)."""
    network.set_score_scale(scores[present])
