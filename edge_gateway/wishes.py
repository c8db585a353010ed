"""What a site's settings mean for the bundle that runs."""

from __future__ import annotations

from typing import NamedTuple

from ddnn.actions import ExitName
from ddnn.budget import TrafficBudget
from ddnn.errors import ConfigError
from ddnn.tuning import Tuning
from edge_gateway.engines import Engine


class Means(NamedTuple):
    """Thresholds by exit, and the budget that moves the local one, if there is one."""

    thresholds: dict[ExitName, float]
    budget: TrafficBudget | None = None


def as_calibrated(engine: Engine) -> Means:
    """The bundle's own."""
    return Means(dict(engine.tier.sections.thresholds))


def means_of(wanted: Tuning, engine: Engine, period_s: float) -> Means:
    """What `wanted` means for this engine.

    Raises:
        ConfigError: it is outside what this bundle was calibrated for.
    """
    thresholds, budget = as_calibrated(engine)
    if wanted.local_threshold is not None:
        thresholds["local"] = _calibrated(engine, "local", wanted.local_threshold)
    if wanted.edge_threshold is not None:
        thresholds["edge"] = _calibrated(engine, "edge", wanted.edge_threshold)
    if wanted.budget_bytes_s is not None:
        if engine.place.kind == "edges":
            raise ConfigError("this gateway hears edge gateways, not what cameras send")
        if engine.curve is None:
            raise ConfigError("the running bundle has no curve to keep a budget with")
        budget = TrafficBudget(engine.curve, wanted.budget_bytes_s, 1.0 / period_s)
        thresholds["local"] = budget.threshold
    return Means(thresholds, budget)


def _calibrated(engine: Engine, name: ExitName, threshold: float) -> float:
    if name not in engine.tier.sections.thresholds:
        raise ConfigError(f"the running bundle has no {name} exit with a threshold")
    if name == "local" and engine.curve is not None:
        lowest, highest = engine.curve.lowest, engine.curve.highest
        if not lowest <= threshold <= highest:
            raise ConfigError(
                f"local_threshold {threshold:g} is outside the calibrated range "
                f"{lowest:g} to {highest:g}"
            )
    return threshold
