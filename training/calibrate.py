"""Choosing exit thresholds for a stated goal, on validation samples alone.

A validation part has about a hundred samples, so that one sample is a whole percent and the best
thresholds of it are half luck. Two things make the choice one that lasts:

- Every validation sample counts with all its cameras, and again, together as much as once more,
  with each camera missing: thresholds that only work while no camera is missing lose here what
  they would lose in the field.
- Settings whose accuracy is within `TOLERANCE` of a sample of the best are equally good. Of
  these the one with the least traffic is taken.

Accuracy is a step function of the thresholds. Every step is tried, by counting the samples into a
grid of entropies once, so that the time does not depend on steps times samples.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from ddnn.evaluate import ExitOutcome
from ddnn.measurements import EXITS, ExitKey
from training.goal import HIGHEST_ACCURACY, Goal, GoalError
from training.traffic import Sizes, camera_bytes

#: Of one validation sample: accuracies closer than this to the best are as good.
TOLERANCE = 0.5
#: Thresholds that are tried for each exit.
MAX_CANDIDATES = 200
F64 = npt.NDArray[np.float64]


class Cases(NamedTuple):
    """What all exits say of S cases: samples, some of them several times with other cameras.

    Attributes:
        exits: names, in the order in which they are asked.
        right: (E, S) bool, whether each exit's answer is right.
        entropy: (E, S) float64.
        weight: (S,) float64, how much a case counts for accuracy.
        answered_bytes, asked_bytes: (S,) float64, bytes per camera where the local exit answers
            and where it does not.
        traffic_weight: (S,) float64, how much a case counts for traffic.
    """

    exits: tuple[ExitKey, ...]
    right: npt.NDArray[np.bool_]
    entropy: F64
    weight: F64
    answered_bytes: F64
    asked_bytes: F64
    traffic_weight: F64


class Choice(NamedTuple):
    """Thresholds, and what they give on the cases that they were chosen on."""

    thresholds: dict[ExitKey, float]
    accuracy: float
    camera_bytes: float


def cases_of(
    outcomes: Mapping[ExitKey, ExitOutcome],
    labels: npt.NDArray[np.int64],
    present: npt.NDArray[np.bool_],
    sizes: Sizes,
) -> Cases:
    """Cases of N samples with the cameras `present` (N, D); those that nobody sees are left out.

    A sample weighs 1 for accuracy and for traffic.
    """
    seen = present.any(axis=1)
    names = tuple(name for name in EXITS if name in outcomes)
    asked = np.ones(len(labels), bool)
    # Without a local exit features are always asked for, with nothing above it never.
    cheapest = camera_bytes(sizes, present, asked & ("local" not in names))
    dearest = camera_bytes(sizes, present, asked & (names != ("local",)))
    ones = np.ones(int(seen.sum()))
    return Cases(
        names,
        np.stack([outcomes[name].label == labels for name in names])[:, seen],
        np.stack([outcomes[name].entropy for name in names])[:, seen],
        ones,
        cheapest[seen],
        dearest[seen],
        ones,
    )


def with_missing(full: Cases, missing: Sequence[Cases]) -> Cases:
    """`full` and, weighing as much all together, the cases with some camera missing.

    Traffic is that of `full` alone.
    """
    total = sum(len(part.weight) for part in missing)
    if not total:
        return full
    scale = len(full.weight) / total
    parts = [
        full,
        *(p._replace(weight=p.weight * scale, traffic_weight=p.weight * 0) for p in missing),
    ]
    return Cases(
        full.exits,
        np.concatenate([p.right for p in parts], axis=1),
        np.concatenate([p.entropy for p in parts], axis=1),
        *(np.concatenate([getattr(p, name) for p in parts]) for name in Cases._fields[3:]),
    )


def calibrate(cases: Cases, goal: Goal = HIGHEST_ACCURACY, tolerance: float = TOLERANCE) -> Choice:
    """Thresholds of the exits before the last.

    Equally good settings: the least traffic from cameras, which is the most local exits; then
    the most local exits with a camera missing; then what `_Grid.cheapest` says of the edge exit;
    then the lowest thresholds, so that a sample less sure than any so far is passed on.

    Args:
        tolerance: in samples; accuracies this close to the best count as the best.

    Raises:
        GoalError: the goal cannot be reached.
    """
    early = cases.exits[:-1]
    if not len(cases.weight):
        return Choice(dict.fromkeys(early, 0.0), 0.0, 0.0)
    grid = _Grid(cases)
    slack = tolerance / float(cases.traffic_weight.sum())
    allowed = np.ones_like(grid.accuracy, dtype=bool)
    if goal.kind == "bytes":
        allowed = grid.camera_bytes <= goal.value
        if not allowed.any():
            raise GoalError(
                f"goal {goal} cannot be reached: with every frame answered at once a camera "
                f"sends {grid.camera_bytes.min():.2f} bytes per frame"
            )
    if goal.kind == "accuracy>":
        allowed = grid.accuracy >= goal.value
        if not allowed.any():
            raise GoalError(
                f"goal {goal} cannot be reached: the highest accuracy on the validation samples "
                f"is {grid.accuracy.max():.4f}"
            )
    else:
        best = grid.accuracy[allowed].max()
        allowed &= grid.accuracy >= best - slack - 1e-12
    return grid.cheapest(allowed, slack + 1e-12)


class _Grid:
    """Accuracy, traffic and early answers of every pair of thresholds; arrays are (I, J).

    With fewer than two exits before the last a threshold of 0, which nothing passes, stands in.
    """

    def __init__(self, cases: Cases) -> None:
        self.exits = cases.exits
        early = len(cases.exits) - 1
        count = len(cases.weight)
        never = np.ones(count)
        entropies = [cases.entropy[e] if e < early else never for e in range(2)]
        self.candidates = [
            np.array(candidates(entropies[e]) if e < early else [0.0]) for e in range(2)
        ]
        # A case leaves at exit e from this candidate on.
        first, second = (
            np.searchsorted(c, e, side="right")
            for c, e in zip(self.candidates, entropies, strict=True)
        )
        shape = (len(self.candidates[0]), len(self.candidates[1]))
        right = [cases.right[min(e, early)] for e in range(3)]

        def count_into(weight: F64) -> F64:
            """Sum of weights by (first, second) bin, one bin more than candidates."""
            cells = np.zeros((shape[0] + 1, shape[1] + 1))
            np.add.at(cells, (first, second), weight)
            return cells

        def up_to(weight: F64) -> tuple[F64, F64, F64]:
            """Sums over those that leave first, second, last: each (I, J)."""
            cells = count_into(weight)
            left_first = cells.sum(axis=1).cumsum()[:-1, None]
            here = cells.cumsum(axis=0).cumsum(axis=1)
            left_second = (here[-1:, :] - here)[:-1, :-1]
            rest = cells.sum() - left_first - left_second
            return left_first + 0 * rest, left_second, rest

        weight = cases.weight
        total = float(weight.sum())
        self.accuracy: F64 = (
            up_to(weight * right[0])[0] + up_to(weight * right[1])[1] + up_to(weight * right[2])[2]
        ) / total
        traffic = float(cases.traffic_weight.sum())
        answered, *asked = (
            up_to(cases.traffic_weight * cases.answered_bytes),
            up_to(cases.traffic_weight * cases.asked_bytes),
        )
        self.camera_bytes: F64 = (answered[0] + asked[0][1] + asked[0][2]) / traffic
        #: Share that the first exit answers, cases with a missing camera included.
        self.leaves_first: F64 = up_to(weight)[0] / total
        leaves = up_to(cases.traffic_weight)
        self.leaves_early: F64 = (leaves[0] + leaves[1]) / traffic

    def cheapest(self, allowed: npt.NDArray[np.bool_], slack: float) -> Choice:
        """The allowed setting with the least traffic; of several, the best second exit.

        Where the first exit answers nearly everything the second one's threshold hardly matters
        here. It will once the first one's is lowered, so that it is chosen as if no sample left
        at the first exit: accuracy within `slack` of the best, then the most early exits.
        """
        alone = self.accuracy[0] >= self.accuracy[0].max() - slack
        i, j = np.nonzero(allowed)
        order = np.lexsort(
            (
                self.candidates[1][j],
                self.candidates[0][i],
                -self.leaves_early[0, j].round(12),
                -self.leaves_early[i, j].round(12),
                ~alone[j],
                -self.leaves_first[i, j].round(12),
                self.camera_bytes[i, j].round(9),
            )
        )
        a, b = int(i[order[0]]), int(j[order[0]])
        values = (float(self.candidates[0][a]), float(self.candidates[1][b]))
        return Choice(
            dict(zip(self.exits[:-1], values, strict=False)),
            float(self.accuracy[a, b]),
            float(self.camera_bytes[a, b]),
        )


def candidates(entropy: F64, limit: int = MAX_CANDIDATES) -> list[float]:
    """Thresholds 0..1, rising, that part the given entropies, midway between neighbours.

    Of more than `limit`, evenly spaced ones by rank.
    """
    values = np.unique(np.concatenate([[0.0], entropy, [1.0]]))
    between = (values[1:] + values[:-1]) / 2
    if len(between) > limit:
        between = between[np.linspace(0, len(between) - 1, limit).astype(int)]
    return sorted({0.0, 1.0, *(float(round(v, 6)) for v in between)})
