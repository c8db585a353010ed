"""Measuring a bundle with its exported sections: accuracy, trade-off curve, missing cameras."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import combinations
from typing import Literal

import numpy as np
import numpy.typing as npt

from ddnn.bundle import Bundle, Manifest
from ddnn.evaluate import Evaluation, Evaluator, ExitOutcome, decide
from ddnn.measurements import (
    EXITS,
    MAX_CURVE_POINTS,
    Accuracy,
    Calibration,
    CurvePoint,
    ExitDisagreement,
    ExitKey,
    MissingCameras,
    MissingTable,
)
from training.calibrate import Cases, Choice, calibrate, candidates, cases_of, with_missing
from training.datasets.base import MultiCameraSet, evenly
from training.goal import Goal
from training.traffic import camera_bytes, cloud_bytes, sizes_of

#: Of a larger split an even sample of this many is measured with cameras missing.
MISSING_SAMPLES = 2000
#: Up to this many cameras every set of missing ones is measured, beyond it singles and pairs.
ALL_SETS_UP_TO = 6
DIGITS = 4
Bools = npt.NDArray[np.bool_]


class Measured:
    """What every exit says of N samples, for any set of cameras: device sections run once.

    Args:
        bundle: its thresholds are not used.
        data: of the same cameras and classes.
        index: the N samples.
    """

    def __init__(self, bundle: Bundle, data: MultiCameraSet, index: npt.NDArray[np.int64]) -> None:
        self.manifest: Manifest = bundle.manifest
        self.sizes = sizes_of(bundle.manifest)
        self.labels = data.labels[index]
        self.present = data.present[index]
        self._evaluator = Evaluator(bundle)
        self.scores, self.features = self._evaluator.devices(data.images[index], self.present)
        self._known: dict[tuple[int, ...], dict[ExitKey, ExitOutcome]] = {}

    def without(self, missing: Iterable[int] = ()) -> tuple[dict[ExitKey, ExitOutcome], Bools]:
        """Outcomes with the cameras `missing` blanked, and who is present then (N, D)."""
        key = tuple(sorted(missing))
        present = self.present.copy()
        present[:, list(key)] = False
        if key not in self._known:
            self._known[key] = self._evaluator.exits(self.scores, self.features, present)
        return self._known[key], present

    def decided(
        self, thresholds: dict[ExitKey, float], missing: Iterable[int] = ()
    ) -> tuple[Evaluation, Bools]:
        """Decisions at these thresholds, and who is present (N, D)."""
        outcomes, present = self.without(missing)
        return decide(outcomes, thresholds, present, self.scores, self.features), present


def choose(measured: Measured, goal: Goal) -> Choice:
    """Thresholds for `goal` from validation samples, also with each camera missing.

    Raises:
        GoalError: the goal cannot be reached.
    """
    return calibrate(calibration_cases(measured), goal)


def calibration_cases(measured: Measured) -> Cases:
    """The cases that thresholds are chosen on."""

    def cases(missing: tuple[int, ...]) -> Cases:
        outcomes, present = measured.without(missing)
        return cases_of(outcomes, measured.labels, present, measured.sizes)

    cameras = measured.present.shape[1]
    lost = [cases((camera,)) for camera in range(cameras)] if cameras > 1 else []
    return with_missing(cases(()), lost)


def point(measured: Measured, thresholds: dict[ExitKey, float]) -> CurvePoint:
    """What the bundle does at these thresholds.

    Samples that no camera sees do not count for accuracy and shares, but for traffic.
    """
    result, present = measured.decided(thresholds)
    seen = present.any(axis=1)
    exits = result.exit[seen]
    asked = seen & (result.exit != "local")
    if set(result.exits) == {"local"}:
        asked = np.zeros_like(seen)
    to_cloud = seen & (result.exit == "cloud")
    right = result.label[seen] == measured.labels[seen]
    return CurvePoint(
        thresholds=thresholds,
        exit_shares={name: _share(exits == name) for name in result.exits},
        accuracy=_share(right),
        camera_bytes=_mean(camera_bytes(measured.sizes, present, asked)),
        cloud_bytes=_mean(cloud_bytes(measured.sizes, present, to_cloud)),
    )


def curve(measured: Measured, thresholds: dict[ExitKey, float]) -> tuple[CurvePoint, ...]:
    """The curve of `Calibration`, through the chosen thresholds.

    Args:
        thresholds: the chosen ones, of every exit but the last; all but the first stay.
    """
    if not thresholds:
        return ()
    outcomes, present = measured.without()
    first = next(name for name in EXITS if name in thresholds)
    entropy = np.sort(outcomes[first].entropy[present.any(axis=1)])
    # Evenly spaced by how many samples leave, since steps in T alone may change nothing.
    steps = candidates(entropy, MAX_CURVE_POINTS - 3)
    values = sorted({*steps, thresholds[first]})
    points = [point(measured, thresholds | {first: value}) for value in values]
    kept = [
        p
        for p, before in zip(points, [None, *points], strict=False)
        if before is None
        or p.exit_shares != before.exit_shares
        or p.thresholds[first] in (thresholds[first], 1.0)
    ]
    return tuple(kept)


def calibration(measured: Measured, goal: Goal, choice: Choice) -> Calibration:
    """What the manifest says of the choice made on `measured`."""
    return Calibration(
        goal=str(goal), samples=len(measured.labels), curve=curve(measured, choice.thresholds)
    )


def disagreement(
    measured: Measured, thresholds: dict[ExitKey, float]
) -> dict[Literal["local", "edge"], ExitDisagreement]:
    """Of each exit but the last: how many samples leave there, and are judged otherwise last."""
    result, present = measured.decided(thresholds)
    seen = present.any(axis=1)
    last = next(name for name in reversed(EXITS) if name in result.exits)
    early: tuple[Literal["local", "edge"], ...] = ("local", "edge")
    found = {}
    for name in early:
        if name in result.exits and name != last:
            left = seen & (result.exit == name)
            differs = left & (result.label != result.exits[last].label)
            found[name] = ExitDisagreement(answered=int(left.sum()), disagreed=int(differs.sum()))
    return found


def accuracy(measured: Measured, thresholds: dict[ExitKey, float]) -> Accuracy:
    """Accuracy of all exits, each alone and together; a sample that nobody sees is wrong."""
    result, _ = measured.decided(thresholds)
    return Accuracy(
        samples=len(measured.labels),
        overall=float(np.mean(result.label == measured.labels)),
        exits={n: float(np.mean(e.label == measured.labels)) for n, e in result.exits.items()},
        exit_shares={name: float(np.mean(result.exit == name)) for name in result.exits},
    )


def missing_sets(cameras: int) -> list[tuple[int, ...]]:
    """The sets of missing cameras that are measured, by size: all, or none, singles and pairs."""
    largest = cameras if cameras <= ALL_SETS_UP_TO else 2
    return [each for size in range(largest + 1) for each in combinations(range(cameras), size)]


def missing_entry(
    measured: Measured, thresholds: dict[ExitKey, float], missing: tuple[int, ...]
) -> MissingCameras:
    """Accuracy with the cameras `missing` blanked."""
    result, present = measured.decided(thresholds, missing)
    seen = present.any(axis=1)
    last = next(name for name in reversed(EXITS) if name in result.exits)

    def alone(name: ExitKey) -> float:
        return _share((result.exits[name].label == measured.labels) & seen)

    return MissingCameras(
        cameras=missing,
        answered=_share(seen),
        overall=_share(result.label == measured.labels),
        local=alone("local") if "local" in result.exits else None,
        last=alone(last),
    )


def missing_table(
    bundle: Bundle, data: MultiCameraSet, validation: npt.NDArray[np.int64]
) -> MissingTable:
    """`missing_entry` of every set, on the test split, or without one on validation samples."""
    index = evenly(data.test if len(data.test) else validation, MISSING_SAMPLES)
    measured = Measured(bundle, data, index)
    thresholds = thresholds_of(bundle.manifest)
    return MissingTable(
        split="test" if len(data.test) else "validation",
        samples=len(index),
        sets=tuple(
            missing_entry(measured, thresholds, missing) for missing in missing_sets(data.cameras)
        ),
    )


def thresholds_of(manifest: Manifest) -> dict[ExitKey, float]:
    """The manifest's thresholds, of every exit but the last."""
    return {n: e.threshold for n, e in manifest.exits.items() if e.threshold is not None}


def _share(mask: Bools) -> float:
    return round(float(mask.mean()), DIGITS) if mask.size else 0.0


def _mean(values: npt.NDArray[np.float64]) -> float:
    return round(float(values.mean()), DIGITS) if values.size else 0.0
