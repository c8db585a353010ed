"""A folder of `ddnn collect` and `ddnn label` -> MultiCameraSet, split by time."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ddnn.errors import DataError
from training.datasets.base import MultiCameraSet
from training.recorded.labelled import Labelled, read_labelled
from training.recorded.split import Parts, by_time

#: Less than this carries no model that is worth running.
LEAST_SAMPLES = 40
LEAST_OF_A_CLASS = 10


def read_recorded(folder: Path) -> MultiCameraSet:
    """The labelled slots of `folder` as a data set.

    Raises:
        DataError: nothing is labelled, or what is labelled carries no model, and why.
    """
    return as_data_set(folder.resolve().name, read_labelled(folder))[0]


def as_data_set(name: str, labelled: Labelled) -> tuple[MultiCameraSet, Parts]:
    """A labelled recording as a data set, and how it was split.

    Raises:
        DataError: it carries no model, and why.
    """
    if reasons := refusals(labelled):
        raise DataError(f"{name} cannot be trained on yet: " + "; ".join(reasons))
    pictures, labels = labelled.pictures, labelled.labels
    parts = by_time(pictures.times_s, labelled.own)
    lacking = sorted(set(labels.tolist()) - set(labels[parts.fit].tolist()))
    if lacking or not parts.validation.size:
        names = ", ".join(labelled.classes[k] for k in lacking) or "some class"
        raise DataError(
            f"{name} cannot be trained on yet: {names} was recorded in one short stretch of time, "
            "of which nothing is left beside a test; record it at other times, too"
        )
    data = MultiCameraSet(
        images=pictures.images,
        labels=labels,
        seen=pictures.present.copy(),
        present=pictures.present,
        classes=labelled.classes,
        name=name,
        train=np.sort(np.concatenate([parts.fit, parts.validation])),
        test=parts.test,
        validation=parts.validation,
    )
    return data, parts


def refusals(labelled: Labelled) -> list[str]:
    """Why these labels carry no model; empty: they may."""
    reasons = []
    counts = np.bincount(labelled.labels, minlength=len(labelled.classes))
    if len(labelled.classes) < 2:
        only = labelled.classes[0]
        reasons.append(
            f"every label is {only!r}: a network tells two or more classes apart (an empty scene "
            "may be one)"
        )
    if counts.sum() < LEAST_SAMPLES:
        reasons.append(f"{counts.sum()} slots are labelled: {LEAST_SAMPLES} is the least")
    for name, count in zip(labelled.classes, counts, strict=True):
        if count < LEAST_OF_A_CLASS:
            reasons.append(f"{name} has {count} slots: {LEAST_OF_A_CLASS} is the least")
    for camera in np.flatnonzero(~labelled.pictures.present.any(axis=0)):
        reasons.append(
            f"camera {camera} has no picture in any labelled slot: record with it, or number "
            "the site's cameras without a gap"
        )
    return reasons
