"""Which networks the evaluation needs."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, get_args

from ddnn.errors import ConfigError
from training.datasets.base import MultiCameraSet
from training.goal import HIGHEST_ACCURACY, Goal
from training.options import AGGREGATIONS, NetworkOptions, TrainOptions
from training.options import shape as shape_options
from training.paper.run import Run
from training.preset import presets

TableName = Literal[
    "sweep", "filters", "layout", "aggregation", "local", "cameras", "adding", "missing", "shapes"
]
TABLES: tuple[TableName, ...] = get_args(TableName)
#: What quick mode leaves out: the paper's own two-block layout.
QUICK_TABLES = tuple(name for name in TABLES if name != "layout")
#: The paper's three ways to join, in its order.
PAPER_AGGREGATIONS = ("MP", "AP", "CC")
BASE_SHAPE = "devices-edge-cloud"
BEFORE_LAST_FILTERS = 4  #: of the first block where the paper varies the second


@dataclass(frozen=True)
class Plan:
    """The runs of every experiment on one data set.

    Attributes:
        samples: for their sizes.
        changes: of NetworkOptions, from the command line.
        training: options of every run but for the seed.
        seeds: of the repetitions.
        quick: fewer runs.
        retrain: whether to train without each camera, for `missing`.
        goal: what exit thresholds are chosen for.
    """

    samples: MultiCameraSet
    changes: dict[str, Any]
    training: TrainOptions
    seeds: tuple[int, ...]
    quick: bool
    retrain: bool = True
    goal: Goal = HIGHEST_ACCURACY

    def runs(
        self, cameras: Sequence[int] | None = None, shape: str = BASE_SHAPE, **changes: Any
    ) -> list[Run]:
        """The same training with each seed.

        Args:
            cameras: which of the data set's; None: all.
            shape: name of a topology.
            changes: of NetworkOptions.

        Raises:
            ConfigError: no such network.
        """
        chosen = tuple(range(self.samples.cameras)) if cameras is None else tuple(cameras)
        height, width, channels = self.samples.image_shape
        network = NetworkOptions(
            cameras=len(chosen),
            classes=len(self.samples.classes),
            height=height,
            width=width,
            channels=channels,
            **self.changes | changes | shape_options(shape, len(chosen)),
        )
        return [Run(chosen, network, replace(self.training, seed=seed)) for seed in self.seeds]

    def base(self) -> list[Run]:
        """The network of every other comparison."""
        return self.runs()

    def filters(self) -> dict[int, list[Run]]:
        """By filters of the only device block."""
        counts = (1, 4, 8) if self.quick else (1, 2, 4, 8)
        return {f: self.runs(device_filters=(f,)) for f in counts}

    def layout(self) -> dict[int, list[Run]]:
        """By filters of the second device block, as in the paper's figure."""
        return {f: self.runs(device_filters=(BEFORE_LAST_FILTERS, f)) for f in (1, 2, 4, 8)}

    def aggregation(self) -> dict[str, list[Run]]:
        """By `local-cloud` pair; anything that training offers beyond the paper's comes last."""
        pairs = [(a, b) for a in PAPER_AGGREGATIONS for b in PAPER_AGGREGATIONS]
        if self.quick:
            pairs = [("MP", "CC"), ("AP", "CC"), ("CC", "CC"), ("MP", "MP")]
        default = self.runs()[0].network
        for extra in AGGREGATIONS:
            if extra not in PAPER_AGGREGATIONS:
                pairs += [(extra, default.feature_aggregation), (default.local_aggregation, extra)]
        found = {}
        for local, cloud in pairs:
            try:
                found[f"{local}-{cloud}"] = self.runs(
                    local_aggregation=local, feature_aggregation=cloud
                )
            except ConfigError:
                continue  # joins scores but not features, or the other way round
        return found

    def local_exits(self) -> dict[str, list[Run]]:
        """By what joins scores; features are joined as in every other comparison."""
        return {kind: self.runs(local_aggregation=kind) for kind in AGGREGATIONS}

    def adding(self, order: Sequence[int]) -> dict[int, list[Run]]:
        """By number of cameras, worst first; `order` from the worst to the best."""
        counts = range(1, len(order) + 1)
        if self.quick:
            counts = sorted({1, (len(order) + 1) // 2, len(order)})
        return {n: self.runs(tuple(sorted(order[:n]))) for n in counts}

    def retrained(self, order: Sequence[int]) -> dict[int, list[Run]]:
        """By missing camera: trained anew without it."""
        missing = order[-1:] if self.quick else order
        if len(order) < 2 or not self.retrain:
            return {}
        return {c: self.runs(tuple(sorted(set(order) - {c}))) for c in missing}

    def shapes(self, order: Sequence[int]) -> dict[str, list[Run]]:
        """By preset: the paper's six shapes, those of one camera with the best one.

        Only the shape is the preset's; all else is as in every other comparison.
        """
        found = {}
        for name, preset in presets().items():
            if preset.one_camera and self.quick:
                continue
            try:
                found[name] = self.runs(order[-1:] if preset.one_camera else None, preset.topology)
            except ConfigError:
                continue  # several edges need several cameras
        return found

    def all(self, tables: Iterable[TableName], order: Sequence[int]) -> list[Run]:
        """Every run that these tables need, the base runs first, none twice."""
        needed = list(self.base())
        experiments: dict[TableName, list[dict[Any, list[Run]]]] = {
            "filters": [self.filters()],
            "layout": [self.layout()],
            "aggregation": [self.aggregation()],
            "local": [self.local_exits()],
            "adding": [self.adding(order)],
            "missing": [self.retrained(order)],
            "shapes": [self.shapes(order)],
        }
        for name in TABLES:
            if name in tables:
                for runs in experiments.get(name, []):
                    needed += [run for group in runs.values() for run in group]
        return list(dict.fromkeys(needed))
