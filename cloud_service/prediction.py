"""What a bundle promises at a threshold, before anybody sets it. Pure.

Between calibrated points everything is taken as linear; outside them nothing is promised.
"""

from __future__ import annotations

from itertools import pairwise

import msgspec

from cloud_service.views import BundleView
from ddnn.budget import Curve
from ddnn.errors import ConfigError
from ddnn.measurements import CurvePoint
from ddnn.tuning import Tuning


class Prediction(msgspec.Struct, frozen=True, kw_only=True):
    """Of one threshold of the first exit.

    Attributes:
        accuracy, exit_shares: 0..1.
        frame_bytes: payload that all cameras send together for one frame.
        cloud_bytes: payload that the site sends to the cloud for one frame.
    """

    threshold: float
    accuracy: float
    exit_shares: dict[str, float]
    frame_bytes: float
    cloud_bytes: float


def points(bundle: BundleView) -> tuple[Prediction, ...]:
    """The calibrated points by rising threshold; () where the bundle has no curve."""
    if bundle.calibration is None:
        return ()
    return tuple(_prediction(bundle, point) for point in bundle.calibration.curve)


def at(bundle: BundleView, threshold: float) -> Prediction | None:
    """The promise at `threshold`; None outside the calibrated range."""
    known = points(bundle)
    if known and threshold == known[0].threshold:
        return known[0]
    for low, high in pairwise(known):
        if low.threshold <= threshold <= high.threshold:
            return _between(low, high, threshold)
    return None


def nearest(bundle: BundleView, threshold: float) -> int:
    """Index of the calibrated point that is nearest to `threshold`; 0 without a curve."""
    known = points(bundle)
    return min(range(len(known)), key=lambda n: abs(known[n].threshold - threshold), default=0)


def for_budget(bundle: BundleView, bytes_per_s: float, period_s: float) -> Prediction | None:
    """Where a traffic budget begins; None where the bundle has no curve to keep it with."""
    try:
        curve = Curve.of(bundle.calibration, bundle.cameras)
    except ConfigError:
        return None
    return at(bundle, curve.threshold_for(bytes_per_s * period_s)) if curve else None


def with_threshold(before: Tuning, bundle: BundleView, threshold: float) -> Tuning:
    """`before` with another threshold of the bundle's first exit, and no budget."""
    first = bundle.exits[0]
    if first == "local":
        return msgspec.structs.replace(before, local_threshold=threshold, budget_bytes_s=None)
    return msgspec.structs.replace(before, edge_threshold=threshold, budget_bytes_s=None)


def with_budget(before: Tuning, bytes_per_s: float) -> Tuning:
    """`before` with a traffic budget, which chooses the local threshold."""
    return msgspec.structs.replace(before, local_threshold=None, budget_bytes_s=bytes_per_s)


def without_changes(before: Tuning) -> Tuning:
    """`before` with the bundle's own thresholds."""
    return msgspec.structs.replace(
        before, local_threshold=None, edge_threshold=None, budget_bytes_s=None
    )


def in_force(bundle: BundleView, taken: Tuning, seen: dict[str, float]) -> float | None:
    """The first exit's threshold in force: of the settings, of the decisions, or the bundle's."""
    first = bundle.exits[0]
    wanted = taken.local_threshold if first == "local" else taken.edge_threshold
    if wanted is not None:
        return wanted
    if taken.budget_bytes_s is not None:
        return seen.get(first)
    return bundle.thresholds.get(first)


def _prediction(bundle: BundleView, point: CurvePoint) -> Prediction:
    return Prediction(
        threshold=point.thresholds[bundle.exits[0]],
        accuracy=point.accuracy,
        exit_shares={str(name): point.exit_shares[name] for name in bundle.exits},
        frame_bytes=point.camera_bytes * bundle.cameras,
        cloud_bytes=point.cloud_bytes,
    )


def _between(low: Prediction, high: Prediction, threshold: float) -> Prediction:
    part = (threshold - low.threshold) / (high.threshold - low.threshold)

    def mix(first: float, second: float) -> float:
        return first + part * (second - first)

    return Prediction(
        threshold=threshold,
        accuracy=mix(low.accuracy, high.accuracy),
        exit_shares={
            name: mix(share, high.exit_shares[name]) for name, share in low.exit_shares.items()
        },
        frame_bytes=mix(low.frame_bytes, high.frame_bytes),
        cloud_bytes=mix(low.cloud_bytes, high.cloud_bytes),
    )
