"""A labelled recording: pictures and what they show. No torch."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from ddnn.errors import DataError
from training.recorded.images import Pictures, load_pictures
from training.recorded.labels import LEFT_OUT, read_classes, read_labels
from training.recorded.views import View, read_views


class Labelled(NamedTuple):
    """The labelled slots of one data set.

    Attributes:
        pictures: of N slots in time.
        labels: (N,) int64, index into `classes`.
        classes: in the order of their keys, those with a label.
        own: (N,) int64, the same labels by the folder's own order of classes, whatever `classes`
            are: so that a split by them is the same for every bundle.
        unlabelled, left_out: how many other slots there are.
    """

    pictures: Pictures
    labels: npt.NDArray[np.int64]
    classes: tuple[str, ...]
    own: npt.NDArray[np.int64]
    unlabelled: int
    left_out: int


def read_labelled(
    folder: Path,
    classes: Sequence[str] | None = None,
    cameras: int | None = None,
    shape: tuple[int, int, int] | None = None,
) -> Labelled:
    """Read the labelled slots of a folder of `ddnn collect` and `ddnn label`.

    Args:
        classes: the only ones that may occur, in their order; None: those that occur.
        cameras: how many; None: up to the highest number with a picture.
        shape: (H, W, C) of the pictures; None: the commonest size, in colour.

    Raises:
        DataError: there is nothing labelled, a label that is none of `classes`, or a file that
            cannot be read.
    """
    views = read_views(folder)
    named = read_labels(folder)
    slots = {view.slot for view in views if view.state == "present"}
    chosen = {slot: named[slot] for slot in slots if named.get(slot, LEFT_OUT) != LEFT_OUT}
    if not chosen:
        raise DataError(f"nothing in {folder} is labelled yet: ddnn label {folder}")
    used = set(chosen.values())
    known = [*read_classes(folder), *sorted(used)]
    own = [name for name in dict.fromkeys(known) if name in used]
    if classes is None:
        classes = own
    elif strange := used - set(classes):
        raise DataError(
            f"{folder} has labels {', '.join(sorted(strange))}; the bundle's classes are "
            f"{', '.join(classes)}"
        )
    pictures = load_pictures(
        folder,
        views,
        sorted(chosen),
        cameras or 1 + max(view.camera for view in views if view.state == "present"),
        shape or (*_size([view for view in views if view.slot in chosen]), 3),
    )
    said = [chosen[int(slot)] for slot in pictures.slots]
    return Labelled(
        pictures,
        np.array([classes.index(label) for label in said], np.int64),
        tuple(classes),
        np.array([own.index(label) for label in said], np.int64),
        sum(slot not in named for slot in slots),
        sum(named.get(slot) == LEFT_OUT for slot in slots),
    )


def _size(views: Sequence[View]) -> tuple[int, int]:
    """(H, W) of most pictures."""
    sizes = Counter((view.height, view.width) for view in views if view.state == "present")
    return max(sizes, key=lambda size: (sizes[size], size))
