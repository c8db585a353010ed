"""A learning curve by halves: would more labelled slots help?"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch

from training.datasets.base import MultiCameraSet, split_validation
from training.network import Network
from training.options import NetworkOptions, TrainOptions
from training.train import samples_of, train

#: A network is trained on every second and every fourth of so many stretches of time.
STRETCHES = 8
STEPS = (4, 2)


def learning_curve(
    data: MultiCameraSet, network: NetworkOptions, training: TrainOptions
) -> list[tuple[int, float]]:
    """Number of fitting samples and accuracy of the last exit on the test part, smallest first.

    The last point has all of them; smaller ones leave out whole stretches of time, since every
    second picture of one would be nearly the whole. A part without one of the classes is passed
    over. Samples must be in time.
    """
    fit, validation = split_validation(data)
    chunks = np.array_split(fit, STRETCHES)
    found = []
    for step in (*STEPS, 1):
        part = np.concatenate(chunks[::step])
        if len(np.unique(data.labels[part])) < len(data.classes):
            continue
        some = replace(
            data, train=np.sort(np.concatenate([part, validation])), validation=validation
        )
        found.append((len(part), _accuracy(train(some, network, training)[0], data)))
    return found


@torch.no_grad()
def _accuracy(network: Network, data: MultiCameraSet) -> float:
    samples = samples_of(data, data.test)
    last = network(samples.images, samples.present, samples.present).last()
    return float((last.argmax(1) == samples.labels).float().mean())
