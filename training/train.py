"""Joint training of all exits: one loss, one optimizer, model chosen on validation samples."""

from __future__ import annotations

import copy
import os
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from training import ranks
from training.augment import Draws, augment, cameras_left, drop_cameras
from training.binary import MaskedBatchNorm
from training.checkpoint import Checkpoint
from training.datasets.base import MultiCameraSet, evenly, split_validation
from training.network import Answers, Network
from training.options import NetworkOptions, TrainOptions

#: Of a larger fitting part so many samples, always the same, give the batch norms' statistics
#: at its end; of a larger validation part so many choose the model. Both took
#: half of an epoch of MNIST before.
SETTLED_SAMPLES, VALIDATED_SAMPLES = 4096, 2048


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


def samples_of(
    data: MultiCameraSet, index: np.ndarray, device: torch.device | None = None
) -> Samples:
    """The samples `index` of a data set as tensors."""
    parts = (data.images[index], data.labels[index], data.seen[index], data.present[index])
    images, *others = (torch.from_numpy(part).to(device) for part in parts)
    return Samples(images.float(), *others)


def train(
    data: MultiCameraSet,
    network_options: NetworkOptions,
    options: TrainOptions,
    report: Callable[[EpochResult], None] = lambda _: None,
    *,
    checkpoint: Checkpoint | None = None,
    device: torch.device | None = None,
) -> tuple[Network, np.ndarray]:
    """Train on the training split alone.

    Same data, options, machine and number of processes: same network, bit for bit, however often
    the training was killed and went on from its checkpoint.

    Args:
        report: called after every epoch, also of those that a checkpoint has done.
        checkpoint: written after every epoch, by the first process; gone on from if there is one.
        device: where to train; None: the CPU.

    Returns:
        The network on the CPU with its score scale set, and the indices of the validation samples.
    """
    fit_index, validation_index = split_validation(
        data, share=options.validation_share, seed=options.seed
    )
    device = device or torch.device("cpu")
    fit = samples_of(data, fit_index, device)
    validation = samples_of(data, evenly(validation_index, VALIDATED_SAMPLES), device)
    _be_deterministic()
    training = _Training(network_options, options, device, len(fit))
    if checkpoint is not None and (state := checkpoint.load()) is not None:
        training.load_state(state)
    for result in training.history:
        report(result)
    while not training.ended():
        loss = training.epoch(fit)
        training.judge(_validate(training.network, validation, len(training.history) + 1, loss))
        if checkpoint is not None and ranks.rank() == 0:
            checkpoint.save(training.state())
        report(training.history[-1])
    network = training.chosen()
    set_score_scale(network, fit)
    return network.cpu(), validation_index


class _Training:
    """A training between two epochs.

    Attributes:
        network: as the last step left it.
        history: what each epoch so far did.
    """

    def __init__(
        self,
        network_options: NetworkOptions,
        options: TrainOptions,
        device: torch.device,
        samples: int,
    ) -> None:
        torch.manual_seed(options.seed)
        self._options = options
        self._random = torch.Generator(device).manual_seed(options.seed)
        # Drawn on the CPU, so that a seed means the same weights on every device.
        self.network = Network(network_options).to(device)
        self._optimizer = torch.optim.Adam(self.network.parameters(), lr=options.learning_rate)
        steps = options.epochs * len(list(_batches(samples, options.batch, self._random)))
        self._schedule = torch.optim.lr_scheduler.CosineAnnealingLR(self._optimizer, steps)
        self.history: list[EpochResult] = []
        self._best: dict[str, Tensor] = {}
        self._best_epoch = 0

    def ended(self) -> bool:
        """Whether all epochs are done, or `patience` of them brought nothing better."""
        done, patience = len(self.history), self._options.patience
        return done >= self._options.epochs or bool(
            patience and self._best and done - self._best_epoch >= patience
        )

    def epoch(self, fit: Samples) -> float:
        """One pass over the fitting samples; the mean loss."""
        options, network = self._options, self.network
        network.train()
        total = torch.zeros((), dtype=torch.float64, device=self._random.device)
        for index in _batches(len(fit), options.batch, self._random):
            batch = fit.batch(index[ranks.own()])
            loss = step_loss(network, batch, options, Draws(self._random, len(index), ranks.own()))
            self._optimizer.zero_grad()
            loss.backward()
            ranks.sum_gradients(network.parameters())
            self._optimizer.step()
            network.keep_trainable(options.hold_gamma)
            self._schedule.step()
            total += loss.detach().double() * len(index)
        if self._may_choose(len(self.history) + 1):
            settle(network, fit, options)
        return float(ranks.summed(total)) / len(fit)

    def _may_choose(self, epoch: int) -> bool:
        """Whether the network may be that of this epoch."""
        # While the learning rate is high a good validation result is luck.
        return epoch > self._options.epochs // 2

    def judge(self, result: EpochResult) -> None:
        """Keep the network if it is the best so far."""
        best = self.history[self._best_epoch - 1].score if self._best else -1.0
        self.history.append(result)
        if result.score >= best and self._may_choose(result.epoch):
            self._best = copy.deepcopy(self.network.state_dict())
            self._best_epoch = result.epoch

    def chosen(self) -> Network:
        """The best network, in eval mode."""
        self.network.load_state_dict(self._best)
        return self.network.eval()

    def state(self) -> dict[str, Any]:
        """All of it, for a checkpoint."""
        return {
            "network": self.network.state_dict(),
            "optimizer": self._optimizer.state_dict(),
            "schedule": self._schedule.state_dict(),
            "random": self._random.get_state(),
            "torch_random": torch.get_rng_state(),
            "history": [result._asdict() for result in self.history],
            "best": self._best,
            "best_epoch": self._best_epoch,
        }

    def load_state(self, state: dict[str, Any]) -> None:
        """Go on from what `state` gave."""
        self.network.load_state_dict(state["network"])
        self._optimizer.load_state_dict(state["optimizer"])
        self._schedule.load_state_dict(state["schedule"])
        self._random.set_state(state["random"])
        torch.set_rng_state(state["torch_random"])
        self.history = [EpochResult(**result) for result in state["history"]]
        self._best, self._best_epoch = state["best"], state["best_epoch"]


def _be_deterministic() -> None:
    # cuBLAS reads it when it is first used.
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(True)
    # Only hides reads of uninitialised memory, at a tenth of the time.
    torch.utils.deterministic.fill_uninitialized_memory = False
    # Sums of whole numbers are exact in float32, not in TF32.
    torch.backends.cudnn.allow_tf32 = False


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
    random = torch.Generator(samples.labels.device).manual_seed(options.seed)
    size = max(options.batch, 64)
    network.train()
    for number, index in enumerate(_batches(len(samples), size, random)):
        if number * size >= SETTLED_SAMPLES:
            break
        for norm in norms:
            norm.momentum = 1 / (number + 1)  # the plain mean over the batches
        part = samples.batch(index[ranks.own()])
        draws = Draws(random, len(index), ranks.own())
        network(
            part.images, drop_cameras(part.present, options.camera_dropout, draws), part.present
        )
    for norm, momentum in zip(norms, usual, strict=True):
        norm.momentum = momentum
    network.eval()


def _batches(count: int, size: int, random: torch.Generator | None) -> Iterator[Tensor]:
    if random is None:
        order = torch.arange(count)
    else:
        order = torch.randperm(count, generator=random, device=random.device)
    for begin in range(0, count, size):
        part = order[begin : begin + size]
        # In training, one sample alone has no batch statistics.
        if len(part) > 1 or random is None:
            yield part


def step_loss(network: Network, batch: Samples, options: TrainOptions, draws: Draws) -> Tensor:
    """The joint loss of one step's samples, or this process's share of it."""
    images = augment(batch.images, batch.present, options, draws)
    mask = drop_cameras(batch.present, options.camera_dropout, draws)
    answers = network(images, mask, batch.present)
    loss = joint_loss(answers, batch, mask, network.options, options)
    if network.locals and options.local_masks:
        masks = [cameras_left(batch.present, draws) for _ in range(options.local_masks)]
        loss = loss + sum(_local_loss(network, answers, batch, m) for m in masks) / len(masks)
    return loss


def _local_loss(network: Network, answers: Answers, batch: Samples, mask: Tensor) -> Tensor:
    """Cross-entropy of all local exits with the cameras of `mask`."""
    losses = []
    for exit_, gateway in zip(network.locals, map(list, network.options.gateways), strict=True):
        there = mask[:, gateway]
        logits = exit_(answers.devices[:, gateway], there)
        losses.append(_cross_entropy(logits, batch.labels, there.any(1)))
    return torch.stack(losses).sum()


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
            loss = loss + options.distillation * _mean(apart, there)
    return loss


def _cross_entropy(logits: Tensor, labels: Tensor, there: Tensor) -> Tensor:
    return _mean(functional.cross_entropy(logits, labels, reduction="none"), there)


def _mean(each: Tensor, counted: Tensor) -> Tensor:
    """Mean (N,) -> () of those counted, by all processes; this one's share of it."""
    return (each * counted).sum() / ranks.summed(counted.sum()).clamp(min=1)


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
