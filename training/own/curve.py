"""A learning curve by halves: would more labelled slots help?"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch

from training.datasets.base import MultiCameraSet, split_validation
from training.network import Network
from training.options import TrainOptions
from training.train import samples_of, train

#: A network is trained on every second and every fourth of so many stretches of time.
STRETCHES = 8
STEPS = (4, 2)


def learning_curve(
    data: MultiCameraSet, network: Network, training: TrainOptions
) -> list[tuple[int, float]]:
    """Number of fitting samples and accuracy on the test part, smallest first.

    Of the exit that is best on validation samples: few samples carry a small section before a
    deep one. Smaller parts leave out whole stretches of time, since every second picture of one
    would be nearly the whole. A part without one of the classes is passed over.

    Args:
        data: the samples in time.
        network: trained on all fitting samples; the others are made like it.
    """
    fit, validation = split_validation(data)
    chunks = np.array_split(fit, STRETCHES)
    found = []
    for step in STEPS:
        part = np.concatenate(chunks[::step])
        if len(np.unique(data.labels[part])) == len(data.classes):
            whole = np.sort(np.concatenate([part, validation]))
            some = replace(data, train=whole, validation=validation)
            trained, _ = train(some, network.options, training)
            found.append((len(part), _accuracy(trained, data, validation)))
    return [*found, (len(fit), _accuracy(network, data, validation))]


def _accuracy(network: Network, data: MultiCameraSet, validation: np.ndarray) -> float:
    judged, wanted = _exits(network, data, validation), _exits(network, data, data.test)
    return wanted[int(np.argmax(judged))]


@torch.no_grad()
def _exits(network: Network, data: MultiCameraSet, index: np.ndarray) -> list[float]:
    """Accuracy of every exit that has all cameras below it."""
    samples = samples_of(data, index)
    answers = network.eval()(samples.images, samples.present, samples.present)
    whole = list(answers.joined.values()) or [*answers.local, *answers.edge]
    whole += [] if answers.cloud is None else [answers.cloud]
    return [float((logits.argmax(1) == samples.labels).float().mean()) for logits in whole]
