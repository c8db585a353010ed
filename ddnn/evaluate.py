"""A bundle on a data set, in this process: what the live system must agree with.

The same sections and the same exit rule as at run time, in batches and without a network: the
local exit judges the scores of the cameras that are there; if it is not sure the edge judges
their features; if that is not sure either the cloud does. An exit that the bundle does not have
is skipped; the last one always answers.

Where there are several edges, each quantises its own logits to score bytes, and a join of all
edges' scores is what the site's exit says, as the site's gateway does with what edge gateways
report. An edge without a camera there is masked, also in the cloud.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import msgspec
import numpy as np
import numpy.typing as npt

from ddnn.bundle import Bundle
from ddnn.exit_rule import entropies, probabilities
from ddnn.scores import quantise
from ddnn.section import Section, load_sections
from ddnn.tier import ExitName

BATCH = 64
TIERS: tuple[ExitName, ...] = ("local", "edge", "cloud")


class ExitOutcome(NamedTuple):
    """What one exit says of every sample, whether or not the sample left there.

    Attributes:
        logits: (N, K) int32.
        label: (N,) int64.
        probability, entropy: (N,) float64.
    """

    logits: npt.NDArray[np.int32]
    label: npt.NDArray[np.int64]
    probability: npt.NDArray[np.float64]
    entropy: npt.NDArray[np.float64]


class Evaluation(NamedTuple):
    """Decisions on N samples.

    Attributes:
        label: (N,) int64; -1 where no camera is there.
        exit: (N,) str: local, edge or cloud; local where no camera is there.
        probability, entropy: (N,) float64, at the exit taken.
        exits: every exit's outcome by name.
        scores: (N, D, K) uint8 of the device sections, 0 where not present.
        features: (N, D, B) uint8 of the device sections, 0 where not present.
    """

    label: npt.NDArray[np.int64]
    exit: npt.NDArray[np.str_]
    probability: npt.NDArray[np.float64]
    entropy: npt.NDArray[np.float64]
    exits: dict[ExitName, ExitOutcome]
    scores: npt.NDArray[np.uint8]
    features: npt.NDArray[np.uint8]


class Evaluator:
    """A bundle's sections, loaded once for any number of evaluations.

    Attributes:
        sections: role -> section.

    Raises:
        BundleError: a section cannot be loaded.
    """

    def __init__(self, bundle: Bundle) -> None:
        self._manifest = bundle.manifest
        self.sections = load_sections(bundle)

    def devices(
        self, images: npt.NDArray[np.uint8], present: npt.NDArray[np.bool_]
    ) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8]]:
        """Images (N, D, H, W, C) -> scores (N, D, K), features (N, D, B); 0 where absent.

        A bundle whose pictures go to the cloud has no scores: (N, D, 0).
        """
        scores, features = [], []
        for camera in range(images.shape[1]):
            got = _in_batches(
                self.sections[f"device/{camera}"],
                image=np.ascontiguousarray(images[:, camera]),
            )
            there = present[:, camera, None]
            own = got.get("scores", np.zeros((len(images), 0), np.uint8))
            scores.append(np.where(there, own, 0).astype(np.uint8))
            features.append(np.where(there, got["features"], 0).astype(np.uint8))
        return np.stack(scores, axis=1), np.stack(features, axis=1)

    def exits(
        self,
        scores: npt.NDArray[np.uint8],
        features: npt.NDArray[np.uint8],
        present: npt.NDArray[np.bool_],
    ) -> dict[ExitName, ExitOutcome]:
        """Every exit's outcome on scores (N, D, K) and features (N, D, B) of one site."""
        mask = present.astype(np.uint8)
        edges = self._manifest.topology.edges
        gateways = [list(edge) for edge in edges] or [list(range(mask.shape[1]))]
        there = np.stack([present[:, below].any(axis=1) for below in gateways], axis=1)
        outcomes: dict[ExitName, ExitOutcome] = {}
        local = [
            _in_batches(section, scores=scores[:, below], mask=mask[:, below])["logits"]
            for k, below in enumerate(gateways)
            if (section := self.sections.get(f"local/{k}"))
        ]
        if local:
            outcomes["local"] = self._exit("local", local, there)
        upward, upward_mask = features, mask
        edge = [
            _in_batches(section, features=features[:, below], mask=mask[:, below])
            for k, below in enumerate(gateways)
            if (section := self.sections.get(f"edge/{k}"))
        ]
        if edge:
            outcomes["edge"] = self._exit("edge", [got["logits"] for got in edge], there)
            upward = np.stack([got["edge_features"] for got in edge], axis=1)
            upward_mask = there.astype(np.uint8)
        if cloud := self.sections.get("cloud"):
            got = _in_batches(cloud, features=upward, mask=upward_mask)
            outcomes["cloud"] = self._outcome("cloud", got["logits"])
        return outcomes

    def evaluate(
        self,
        images: npt.NDArray[np.uint8],
        present: npt.NDArray[np.bool_],
        thresholds: dict[ExitName, float] | None = None,
    ) -> Evaluation:
        """Decide every sample.

        Args:
            images: (N, D, H, W, C) uint8.
            present: (N, D) bool: which cameras are there.
            thresholds: by exit; missing ones, and None, are the manifest's.
        """
        scores, features = self.devices(images, present)
        outcomes = self.exits(scores, features, present)
        return decide(outcomes, self._thresholds() | (thresholds or {}), present, scores, features)

    def _thresholds(self) -> dict[ExitName, float]:
        return {
            name: info.threshold
            for name, info in self._manifest.exits.items()
            if info.threshold is not None
        }

    def _exit(
        self,
        name: ExitName,
        logits: list[npt.NDArray[np.int32]],
        there: npt.NDArray[np.bool_],
    ) -> ExitOutcome:
        """What gateways with logits (N, K) each and a camera `there` (N, E) say together."""
        scales = self._manifest.edge_scales
        if scales is msgspec.UNSET:
            return self._outcome(name, logits[0])
        scale = scales[name]
        scores = np.stack([quantise(own, scale) for own in logits], axis=1)
        scores = np.where(there[:, :, None], scores, 0).astype(np.uint8)
        join = self.sections[f"join/{name}"]
        joined = _in_batches(join, scores=scores, mask=there.astype(np.uint8))
        return self._outcome(name, joined["logits"])

    def _outcome(self, name: ExitName, logits: npt.NDArray[np.int32]) -> ExitOutcome:
        scale = self._manifest.exits[name].logit_scale
        p = probabilities(logits, scale)
        label = logits.argmax(axis=1)
        probability = np.take_along_axis(p, label[:, None], axis=1)[:, 0]
        return ExitOutcome(logits, label, probability, entropies(logits, scale, p))


def decide(
    outcomes: dict[ExitName, ExitOutcome],
    thresholds: dict[ExitName, float],
    present: npt.NDArray[np.bool_],
    scores: npt.NDArray[np.uint8],
    features: npt.NDArray[np.uint8],
) -> Evaluation:
    """Take the first sure exit of each sample; the last exit takes what is left."""
    names = [name for name in TIERS if name in outcomes]
    last = outcomes[names[-1]]
    label, exit_name = last.label.copy(), np.full(len(present), names[-1], dtype="<U5")
    probability, entropy = last.probability.copy(), last.entropy.copy()
    for name in reversed(names[:-1]):
        sure = outcomes[name].entropy < thresholds[name]
        label[sure], exit_name[sure] = outcomes[name].label[sure], name
        probability[sure] = outcomes[name].probability[sure]
        entropy[sure] = outcomes[name].entropy[sure]
    nobody = ~present.any(axis=1)
    label[nobody], exit_name[nobody] = -1, "local"
    return Evaluation(label, exit_name, probability, entropy, outcomes, scores, features)


def evaluate(
    bundle: Bundle,
    images: npt.NDArray[np.uint8],
    present: npt.NDArray[np.bool_],
    thresholds: dict[ExitName, float] | None = None,
) -> Evaluation:
    """`Evaluator(bundle).evaluate(...)` for a single use."""
    return Evaluator(bundle).evaluate(images, present, thresholds)


def _in_batches(section: Section, **inputs: npt.NDArray[np.uint8]) -> dict[str, npt.NDArray[Any]]:
    """Run a section over N samples in batches of at most `BATCH`."""
    count = len(next(iter(inputs.values())))
    parts = [
        section.run_batch({name: a[i : i + BATCH] for name, a in inputs.items()})
        for i in range(0, count, BATCH)
    ]
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
