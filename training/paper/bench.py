"""Exported sections on the test split: what every table is made of."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import combinations
from typing import Any

import numpy as np

from ddnn.evaluate import Evaluation
from ddnn.measurements import EXITS, CurvePoint, ExitKey, MissingCameras
from training.datasets.base import MultiCameraSet
from training.goal import HIGHEST_ACCURACY, Goal, GoalError
from training.measure import Measured, choose, missing_entry, point, thresholds_of
from training.options import NetworkOptions
from training.paper import figures
from training.paper.plan import Plan
from training.paper.run import Cache, Run, validation_part
from training.paper.table import Cell, Column, Number
from training.sections import pooled
from training.traffic import edge_bytes, paper_bytes

Row = dict[str, Cell]
EXIT_COLUMNS = [
    Column("local", "local", "%"),
    Column("edge", "edge", "%"),
    Column("cloud", "cloud", "%"),
    Column("overall", "overall", "%"),
]


class Tested:
    """One trained network's sections on test samples (or validation samples).

    Attributes:
        run: what it was.
        cameras: which of the data set's its own cameras are.
        thresholds: calibrated for `goal`, of every exit but the last; where that cannot be
            reached, for the highest accuracy.
    """

    def __init__(
        self,
        run: Run,
        cache: Cache,
        samples: MultiCameraSet,
        *,
        goal: Goal = HIGHEST_ACCURACY,
        validation: bool = False,
    ) -> None:
        self.run = run
        self.cameras = run.cameras
        own = samples.select_cameras(list(run.cameras))
        bundle = cache.bundle(run)
        self.manifest = bundle.manifest
        self.thresholds = thresholds_of(bundle.manifest)
        held_out = validation_part(run, own)
        if goal != HIGHEST_ACCURACY and self.thresholds:
            with contextlib.suppress(GoalError):
                self.thresholds = choose(Measured(bundle, own, held_out), goal).thresholds
        index = held_out if validation else own.test
        self.measured = Measured(bundle, own, index)
        self.seen = own.seen[index]
        self._entries: dict[tuple[int, ...], MissingCameras] = {}

    def at(self, **thresholds: float) -> CurvePoint:
        """Shares, accuracy and traffic with some thresholds changed."""
        changed = {name: thresholds[name] for name in EXITS if name in thresholds}
        return point(self.measured, self.thresholds | changed)

    def decided(self, missing: Iterable[int] = ()) -> Evaluation:
        """Decisions with the cameras `missing` (numbers of the data set) blanked."""
        own = [self.cameras.index(camera) for camera in missing]
        return self.measured.decided(self.thresholds, own)[0]

    def overall(self, missing: Iterable[int] = ()) -> float:
        """Accuracy of whichever exit answers; a sample that nobody sees is wrong."""
        return self._entry(missing).overall

    def answered(self, missing: Iterable[int] = ()) -> float:
        """Share of samples that some camera sees."""
        return self._entry(missing).answered

    def of_seen(self, missing: Iterable[int] = ()) -> float:
        """Accuracy of whichever exit answers, of the samples that some camera sees."""
        entry = self._entry(missing)
        return entry.overall / entry.answered if entry.answered else 0.0

    def _entry(self, missing: Iterable[int]) -> MissingCameras:
        own = tuple(sorted(self.cameras.index(camera) for camera in missing))
        if own not in self._entries:
            self._entries[own] = missing_entry(self.measured, self.thresholds, own)
        return self._entries[own]

    def alone(self, exit_: ExitKey, missing: Iterable[int] = ()) -> float | None:
        """Accuracy of one exit on all samples; None where there is no such exit."""
        result = self.decided(missing)
        if exit_ not in result.exits:
            return None
        # With nobody there (label -1) whatever the section says is wrong.
        right = (result.exits[exit_].label == self.measured.labels) & (result.label >= 0)
        return float(right.mean())

    def alone_of_seen(self, exit_: ExitKey, missing: Iterable[int] = ()) -> float | None:
        """Accuracy of one exit, of the samples that some camera sees; None without that exit."""
        alone, answered = self.alone(exit_, missing), self.answered(missing)
        return None if alone is None or not answered else alone / answered

    def individual(self, camera: int) -> tuple[float, float]:
        """Accuracy of one camera's own scores: of all samples, of those that it sees.

        What a camera does not see it gets wrong.
        """
        own = self.cameras.index(camera)
        right = self.measured.scores[:, own].argmax(axis=1) == self.measured.labels
        seen = self.seen[:, own]
        return float((right & seen).mean()), float(right[seen].mean()) if seen.any() else 0.0

    def paper_bytes(self, local_share: float) -> float:
        """Traffic by the paper's formula at a share of local exits."""
        return paper_bytes(self.measured.sizes.classes, local_share, feature_bits(self.run.network))

    def edge_bytes(self) -> float | None:
        """Mean payload that one of several edges sends up for one frame; None with one or none."""
        if len(self.measured.sizes.edges) < 2:
            return None
        result = self.decided()
        present = self.measured.present
        asked = present.any(axis=1) & (result.exit != "local")
        return float(edge_bytes(self.measured.sizes, present, asked).mean())

    def device_file_bytes(self) -> int:
        """Size of a device section's file."""
        return max(s.size_bytes for s in self.manifest.sections if s.role.startswith("device/"))


def over(tested: Sequence[Tested], measure: Callable[[Tested], float | None]) -> Number | None:
    """`measure` of each seed's network; None where it does not apply."""
    values = [value for each in tested if (value := measure(each)) is not None]
    return Number.of(values) if values else None


def feature_bits(network: NetworkOptions) -> int:
    """f o: bits of one camera's features."""
    return network.device_filters[-1] * _pixels_after(network, len(network.device_filters))


def weight_bits(network: NetworkOptions) -> int:
    """Binary weights of one device section: its convolutions and its exit."""
    inputs, bits = network.channels, 0
    for filters in network.device_filters:
        bits += 9 * inputs * filters
        inputs = filters
    return bits + feature_bits(network) * network.classes


def paper_memory_bits(network: NetworkOptions) -> int:
    """The authors' memory formula: a bit for each weight, 32 for each batch norm layer.

    With two blocks of 4 and f filters on 32 x 32 x 3 and three classes: 204 + 228 f.
    Source: `get_device_memory_cost` in https://github.com/kunglab/ddnn.
    """
    return weight_bits(network) + 32 * (len(network.device_filters) + 1)


def sets_of(cameras: Sequence[int], size: int) -> list[tuple[int, ...]]:
    """All sets of `size` of these cameras."""
    return list(combinations(sorted(cameras), size))


def _pixels_after(network: NetworkOptions, blocks: int) -> int:
    height, width = network.height, network.width
    for _ in range(blocks):
        height, width = pooled(height), pooled(width)
    return height * width


def worst_to_best(tested: Sequence[Tested]) -> list[int]:
    """Cameras by individual accuracy, the mean over these networks; ties by number."""
    cameras = tested[0].cameras
    mean = {c: np.mean([each.individual(c)[0] for each in tested]) for c in cameras}
    return sorted(cameras, key=lambda camera: (round(float(mean[camera]), 9), camera))


class Bench:
    """What the tables are made from: the plan's networks, loaded once.

    Attributes:
        like_the_paper: whether the paper's figures are of a set like this; next to another they
            would say nothing.
        order: cameras from the worst to the best by individual accuracy on validation samples.
    """

    def __init__(self, plan: Plan, cache: Cache, samples: MultiCameraSet) -> None:
        self.plan = plan
        self._cache = cache
        self.samples = samples
        self._known: dict[Run, Tested] = {}
        self.order = worst_to_best(
            [Tested(run, cache, samples, validation=True) for run in plan.base()]
        )
        self.like_the_paper = (samples.cameras, len(samples.classes)) == (
            figures.CAMERAS,
            figures.CLASSES,
        )

    def tested(self, runs: Sequence[Run]) -> list[Tested]:
        """The networks of these runs, loaded once."""
        for run in runs:
            if run not in self._known:
                self._known[run] = Tested(run, self._cache, self.samples, goal=self.plan.goal)
        return [self._known[run] for run in runs]

    def exits(self, runs: list[Run]) -> Row:
        """Accuracy of each exit alone, of all together, and of those seen with one blanked."""
        tested = self.tested(runs)
        cameras = runs[0].cameras
        return {
            "local": over(tested, lambda t: t.alone("local")),
            "edge": over(tested, lambda t: t.alone("edge")),
            "cloud": over(tested, lambda t: t.alone("cloud")),
            "overall": over(tested, lambda t: t.overall()),
            "one_missing": over(tested, lambda t: float(np.mean([t.of_seen([c]) for c in cameras])))
            if len(cameras) > 1
            else None,
        }

    def has(self, runs: Sequence[Run]) -> bool:
        """Whether all these trainings are done."""
        return all(self._cache.has(run) for run in runs)

    def figure(self, name: str) -> list[dict[str, Any]]:
        """Rows of the paper's figure, none where the data set is not like the paper's."""
        return figures.rows(name) if self.like_the_paper else []


def paper_columns(row: Mapping[str, Any] | None, *keys: str) -> Row:
    """The paper's values under `paper_<key>`, None where it has none."""
    return {f"paper_{key}": row[key] if row else None for key in keys}
