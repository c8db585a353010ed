"""What a person should know of a network trained on their own recording. Numbers, then words."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from ddnn.bundle import Bundle
from ddnn.measurements import ExitKey
from training.comparing import Interval, compare, wilson
from training.datasets.base import MultiCameraSet, split_validation
from training.measure import Measured, point, thresholds_of

#: Good: right this often, and surely this often.
GOOD, SURELY_GOOD = 0.9, 0.8
#: Usable: surely better than always naming the commonest class by this much.
BETTER_THAN_GUESSING = 0.1
#: Below this a test says little.
SMALL_TEST = 50
#: A class is short of samples below this, or below this share of the largest class.
FEW, FEW_SHARE = 60, 0.34
#: Doubling the data has brought this much at last: it may well again.
STILL_GROWING = 0.02
SELDOM = 0.05
FEW_DAYS = 3
MOST_MISTAKES = 12

Verdict = Literal["good", "usable", "not yet"]


class CameraFinding(NamedTuple):
    """One camera's part in the answers on the test samples.

    Attributes:
        share: of all labelled slots in which it has a picture.
        alone: accuracy where only it is there, of the samples that it sees; None: it sees none.
        without: accuracy of the others without it.
        loss: what is lost without it, and whether that is more than chance.
        matters: the loss is beyond chance.
    """

    camera: int
    share: float
    alone: Interval | None
    without: float
    loss: Interval
    matters: bool


class Confusion(NamedTuple):
    """Two classes taken for each other: how often, of how many of either."""

    first: str
    second: str
    mistakes: int
    samples: int


class Mistake(NamedTuple):
    """One wrong answer: a sample of the data set, what it is, what was said."""

    sample: int
    label: str
    answer: str
    probability: float


class Findings(NamedTuple):
    """The report's numbers, all on test samples where nothing else is said.

    Attributes:
        guess: accuracy of always naming the commonest class.
        counts: class -> slots for fitting, validation, test.
        per_class: class -> accuracy on its test samples; None: it has none.
        curve: fitting samples and accuracy of networks trained on parts of the recording, the
            whole last; empty: not made.
    """

    verdict: Verdict
    accuracy: Interval
    guess: float
    counts: dict[str, tuple[int, int, int]]
    per_class: dict[str, float | None]
    cameras: tuple[CameraFinding, ...]
    confusions: tuple[Confusion, ...]
    mistakes: tuple[Mistake, ...]
    exits: dict[str, float]
    camera_bytes: float
    curve: tuple[tuple[int, float], ...]


def find(bundle: Bundle, data: MultiCameraSet, curve: Sequence[tuple[int, float]] = ()) -> Findings:
    """Ask the bundle about the test part.

    Raises:
        BundleError: a section cannot be loaded.
    """
    measured = Measured(bundle, data, data.test)
    thresholds = thresholds_of(bundle.manifest)
    decided, _ = measured.decided(thresholds)
    labels = measured.labels
    right = decided.label == labels
    accuracy = wilson(right)
    by_class = np.bincount(labels, minlength=len(data.classes))
    guess = float(by_class.max() / max(len(labels), 1))
    fit, validation = split_validation(data)
    parts = [
        np.bincount(data.labels[i], minlength=len(data.classes))
        for i in (fit, validation, data.test)
    ]
    whole = point(measured, thresholds)
    return Findings(
        verdict=_verdict(accuracy, guess),
        accuracy=accuracy,
        guess=guess,
        counts={
            name: (int(parts[0][k]), int(parts[1][k]), int(parts[2][k]))
            for k, name in enumerate(data.classes)
        },
        per_class={
            name: float(right[labels == k].mean()) if by_class[k] else None
            for k, name in enumerate(data.classes)
        },
        cameras=tuple(
            _camera(measured, thresholds, camera, right, data) for camera in range(data.cameras)
        ),
        confusions=_confusions(labels, decided.label, data.classes),
        mistakes=tuple(
            Mistake(
                int(data.test[n]),
                data.classes[labels[n]],
                data.classes[decided.label[n]] if decided.label[n] >= 0 else "nothing seen",
                float(decided.probability[n]),
            )
            # The surest of the wrong ones tell most.
            for n in sorted(np.flatnonzero(~right), key=lambda n: -decided.probability[n])[
                :MOST_MISTAKES
            ]
        ),
        exits={str(name): share for name, share in whole.exit_shares.items()},
        camera_bytes=whole.camera_bytes,
        curve=tuple(curve),
    )


def advice(findings: Findings, days: int, unlabelled: int) -> list[str]:
    """What would help most, in sentences; the most useful first."""
    said: list[str] = []
    if days < FEW_DAYS:
        only = "one day" if days == 1 else f"{days} days"
        said.append(
            f"Everything was recorded on {only}. Another day has other light and weather, and this "
            f"test knows nothing of it: record on {FEW_DAYS} days or more, mornings and evenings."
        )
    totals = {name: sum(parts) for name, parts in findings.counts.items()}
    largest = max(totals.values())
    for name, total in totals.items():
        if total < FEW or total < FEW_SHARE * largest:
            said.append(f"There are only {total} slots of {name}: record and label more of them.")
        if findings.per_class[name] is None:
            said.append(
                f"No {name} is in the test: it was recorded in too few stretches of time. Record "
                "it at several times of the day."
            )
    test = sum(parts[2] for parts in findings.counts.values())
    if test < SMALL_TEST:
        said.append(
            f"The test has only {test} slots; that is why the accuracy may as well be "
            f"{findings.accuracy.low:.0%} or {findings.accuracy.high:.0%}."
        )
    if len(findings.curve) > 1:
        (less, before), (more, after) = findings.curve[-2:]
        gain = after - before
        if gain > STILL_GROWING:
            said.append(
                f"From {less} to {more} slots the accuracy rose by {100 * gain:.0f} points: more "
                "labelled slots will likely raise it further."
            )
        else:
            said.append(
                f"From {less} to {more} slots the accuracy changed by {100 * gain:+.0f} points: "
                "more of the same will help little. Other days, other light, larger objects in the "
                "picture (the setting region) may."
            )
    if findings.confusions:
        worst = findings.confusions[0]
        said.append(
            f"{worst.first} and {worst.second} are taken for each other most often "
            f"({worst.mistakes} of {worst.samples}): look whether their labels are right "
            "(ddnn label, show: bundle disagrees), and record more of both."
        )
    for camera in findings.cameras:
        if camera.share < SELDOM:
            said.append(
                f"Camera {camera.camera} has a picture in {camera.share:.0%} of the slots: aim "
                "it where things happen, or look at its gate."
            )
    if unlabelled > 0.2 * sum(totals.values()):
        said.append(f"{unlabelled} recorded slots are not labelled yet.")
    return said


def _verdict(accuracy: Interval, guess: float) -> Verdict:
    if accuracy.value >= GOOD and accuracy.low >= SURELY_GOOD and accuracy.low > guess:
        return "good"
    return "usable" if accuracy.low > guess + BETTER_THAN_GUESSING else "not yet"


def _camera(
    measured: Measured,
    thresholds: dict[ExitKey, float],
    camera: int,
    right: npt.NDArray[np.bool_],
    data: MultiCameraSet,
) -> CameraFinding:
    others = [other for other in range(data.cameras) if other != camera]
    share = float(data.present[np.concatenate([data.train, data.test]), camera].mean())
    sees = measured.present[:, camera]
    alone = without = None
    if others:
        alone = measured.decided(thresholds, others)[0].label == measured.labels
        without = measured.decided(thresholds, (camera,))[0].label == measured.labels
    else:
        alone, without = right, np.zeros_like(right)
    pair = compare(without, right)
    return CameraFinding(
        camera,
        share,
        wilson(alone[sees]) if sees.any() else None,
        float(without.mean()),
        pair.difference,
        pair.p < 0.05 and pair.difference.value > 0,
    )


def _confusions(
    labels: npt.NDArray[np.int64], answers: npt.NDArray[np.int64], classes: tuple[str, ...]
) -> tuple[Confusion, ...]:
    found = []
    for a in range(len(classes)):
        for b in range(a + 1, len(classes)):
            wrong = ((labels == a) & (answers == b)) | ((labels == b) & (answers == a))
            if wrong.any():
                both = int(((labels == a) | (labels == b)).sum())
                found.append(Confusion(classes[a], classes[b], int(wrong.sum()), both))
    return tuple(sorted(found, key=lambda c: -c.mistakes)[:5])
