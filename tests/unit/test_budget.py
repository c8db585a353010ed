"""The traffic budget: a stated bytes/s is held along the curve; wrong settings are refused."""

import random

import pytest

from ddnn.budget import Curve, CurvePoint, TrafficBudget
from ddnn.errors import ConfigError
from ddnn.tuning import Tuning, decode


def curve(*points):
    return Curve(
        [CurvePoint(threshold=t, bytes_per_frame=b, accuracy=0.9) for t, b in points]
        or [
            CurvePoint(threshold=t / 10, bytes_per_frame=800 - 72 * t, accuracy=0.97)
            for t in range(11)
        ]
    )


def test_lowest_threshold_that_costs_no_more():
    line = curve((0.0, 100.0), (0.5, 50.0), (1.0, 10.0))
    assert line.threshold_for(200.0) == 0.0
    assert line.threshold_for(75.0) == pytest.approx(0.25)
    assert line.threshold_for(30.0) == pytest.approx(0.75)
    assert line.threshold_for(1.0) == 1.0


@pytest.mark.parametrize(
    "points", [[(0.5, 5.0)], [(0.5, 5.0), (0.5, 4.0)], [(0.1, 5.0), (0.5, 6.0)]]
)
def test_curve_that_is_none_is_refused(points):
    with pytest.raises(ConfigError):
        curve(*points)


def run(budget, *, harder, frames_per_s=10.0, windows=60, start=0.0):
    """A scene whose frames cost `harder` times what the curve says; bytes/s of the last ten."""
    line, rng = curve(), random.Random(1)
    now, total, frames, rates = start, 0, 0, []
    threshold = budget.received(0, 0, now)
    for _ in range(windows):
        got = 0
        for _ in range(int(5 * frames_per_s)):
            share = (threshold - line.lowest) / (line.highest - line.lowest)
            per_frame = 800 - share * 720
            got += int(harder * per_frame * rng.uniform(0.7, 1.3))
            frames += 1
        now += 5.0
        total += got
        rates.append(got / 5.0)
        threshold = budget.received(total, frames, now)
    return sum(rates[-10:]) / 10


@pytest.mark.parametrize("harder", [0.5, 1.0, 2.0])
@pytest.mark.parametrize("wanted", [2000.0, 3000.0])
def test_budget_is_held_although_the_curve_is_wrong(harder, wanted):
    budget = TrafficBudget(curve(), wanted, 10.0)
    assert run(budget, harder=harder) == pytest.approx(wanted, rel=0.05)


def test_budget_that_cannot_be_held_takes_the_cheapest_and_comes_back_soon():
    budget = TrafficBudget(curve(), 3000.0, 10.0)
    assert run(budget, harder=8.0, windows=200) > 3000.0
    assert budget.threshold == 1.0
    assert run(budget, harder=1.0, windows=12, start=5000.0) == pytest.approx(3000.0, rel=0.25)


def test_no_frames_move_nothing():
    budget = TrafficBudget(curve(), 3000.0, 10.0)
    before = budget.threshold
    for now in range(0, 100, 5):
        assert budget.received(0, 0, float(now)) == before


@pytest.mark.parametrize(
    "payload",
    [
        b"{",
        b"[]",
        b'{"local_threshold": 1.5}',
        b'{"local_threshold": NaN}',
        b'{"local_treshold": 0.5}',
        b'{"budget_bytes_s": 0}',
        b'{"local_threshold": 0.5, "budget_bytes_s": 100}',
        b"\xff",
        b"[" * 10_001,
    ],
)
def test_wrong_settings_are_refused(payload):
    with pytest.raises(ConfigError):
        decode(payload)


def test_cleared_settings_are_the_bundles_own():
    assert decode(b"") == Tuning()
    assert decode(b'{"edge_threshold": 0.5}').edge_threshold == 0.5
