"""The estimate of how often early exits disagree, and its alarm: right, and no crying wolf."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ddnn.drift import (
    ALARM_AT,
    FIRST,
    RECENT,
    WINDOW,
    Detector,
    Drift,
    ExitDrift,
    Expected,
    wilson,
)


@pytest.mark.parametrize(
    ("disagreed", "audited", "low", "high"),
    [
        # Newcombe, Statistics in Medicine 17 (1998), table I, method 3 (score).
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0000, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ],
)
def test_interval_is_that_of_the_literature(disagreed, audited, low, high):
    assert wilson(disagreed, audited) == pytest.approx((low, high), abs=5e-5)


@given(st.integers(0, 500).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_interval_holds_the_rate_and_is_within_0_and_1(counts):
    disagreed, audited = counts
    low, high = wilson(disagreed, audited)
    assert 0.0 <= low <= high <= 1.0
    if audited:
        assert low <= disagreed / audited <= high


def test_interval_covers_the_true_rate_in_95_of_100_cases():
    rng = random.Random(5)
    covered = trials = 0
    for rate in (0.02, 0.1, 0.3):
        for _ in range(700):
            disagreed = sum(rng.random() < rate for _ in range(150))
            low, high = wilson(disagreed, 150)
            covered += low <= rate <= high
            trials += 1
    assert 0.935 < covered / trials < 0.975


def alarms_within(audits, rate, bound, rng):
    detector = Detector(bound)
    for _ in range(audits):
        detector.add(rng.random() >= rate)
        if detector.alarms:
            return True
    return False


def test_detector_cries_wolf_no_more_often_than_it_says(monkeypatch):
    """With a lower threshold, since nobody can wait for one in 100,000."""
    monkeypatch.setattr("ddnn.drift.ALARM_AT", 400.0)
    rng = random.Random(6)
    runs, audits = 500, 40
    for bound in (0.05, 0.2):
        false = sum(alarms_within(audits, bound, bound, rng) for _ in range(runs))
        assert false / runs <= audits / 400.0


def test_no_alarm_in_ten_thousand_audits_at_the_bound():
    rng = random.Random(7)
    for bound in (0.03, 0.1, 0.3):
        assert not alarms_within(10_000, bound, bound, rng)


@pytest.mark.parametrize(("bound", "rate", "at_most"), [(0.1, 0.25, 400), (0.05, 0.5, 60)])
def test_worse_exit_is_noticed_soon(bound, rate, at_most):
    rng = random.Random(8)
    assert all(alarms_within(at_most, rate, bound, rng) for _ in range(50))


def test_drift_after_a_long_time_without_is_noticed_as_soon():
    rng = random.Random(9)
    detector = Detector(0.1)
    for _ in range(20_000):
        detector.add(rng.random() >= 0.05)
    assert not detector.alarms
    for _ in range(400):
        detector.add(rng.random() >= 0.25)
    assert detector.alarms


def test_detector_does_not_overflow():
    detector = Detector(0.01)
    for _ in range(100_000):
        detector.add(False)
    assert detector.alarms


@pytest.mark.parametrize("bound", [0.0, 1.0, float("nan")])
def test_bound_that_leaves_nothing_to_test_is_refused(bound):
    with pytest.raises(ValueError, match="leaves nothing to test"):
        Detector(bound)


def feed(exit_drift, disagreed, audited):
    """So many audits, of which the first ones disagree."""
    for number in range(audited):
        exit_drift.add("bus", number >= disagreed, True)


def test_bound_is_above_what_was_measured():
    assert Expected(100, 10).bound == pytest.approx(0.1921, abs=1e-3)
    assert Expected(10_000, 1000).bound == pytest.approx(0.107, abs=1e-3)


def test_without_calibration_the_first_audits_are_the_reference():
    one = ExitDrift("local", None)
    feed(one, 20, FIRST - 1)
    assert (one.estimate().reference, one.estimate().bound) == (None, None)
    one.add("bus", True, True)
    assert one.estimate().reference == "first audits"
    assert one.estimate().bound == pytest.approx(Expected(FIRST, 20).bound, abs=1e-6)


def test_reference_of_no_samples_is_none():
    assert ExitDrift("edge", Expected(0, 0)).estimate().reference is None


def test_exit_that_always_disagreed_cannot_get_worse():
    one = ExitDrift("local", Expected(50, 50))
    feed(one, 1000, 1000)
    assert not one.drift
    assert one.estimate().bound is None


def test_alarm_names_the_exit_and_the_numbers_and_ends_when_all_is_well_again():
    drift = Drift(("local", "edge"), {"local": Expected(200, 10), "edge": Expected(50, 10)})
    assert drift.describe() is None
    for number in range(80):
        drift.add("local", "bus", agrees=number % 2 == 0, complete=number % 4 > 0)
    said = drift.describe()
    assert "local exit" in said
    assert "40 of the last 80 audits, 20 of them with members missing" in said
    assert "edge exit" not in said
    for _ in range(RECENT - 5):
        drift.add("local", "bus", agrees=True, complete=True)
    assert drift.describe() is None
    feed(drift.exits["local"], 0, 50)
    assert not drift.exits["local"].drift


def test_estimate_counts_the_window_by_class():
    one = ExitDrift("local", None)
    for _ in range(WINDOW):
        one.add("car", False, False)
    for number in range(WINDOW):
        one.add("bus" if number % 2 else "person", number % 10 > 0, True)
    now = one.estimate()
    assert (now.total, now.all.audited, now.incomplete) == (2 * WINDOW, WINDOW, 0)
    assert now.all.disagreed == WINDOW // 10
    assert set(now.classes) == {"bus", "person"}
    assert now.classes["person"].rate == 0.2
    assert now.classes["bus"].disagreed == 0


def test_audit_of_an_exit_that_there_is_not_is_ignored():
    drift = Drift(("local",))
    drift.add("edge", "bus", agrees=False, complete=True)
    assert [one.exit for one in drift.estimates()] == ["local"]
    assert drift.estimates()[0].total == 0


def test_whole_chain_rarely_alarms_where_nothing_changes():
    """Reference from the first audits, then a thousand more at the same rate."""
    rng = random.Random(10)
    false = 0
    for _ in range(100):
        rate = rng.uniform(0.01, 0.4)
        one = ExitDrift("local", None)
        for _ in range(FIRST + 1000):
            one.add("bus", rng.random() >= rate, True)
            if one.drift:
                false += 1
                break
    # One in a hundred for an unlucky reference, and 1000 / ALARM_AT for the test itself.
    assert ALARM_AT >= 100_000
    assert false <= 4
