"""What a bundle promises at a threshold, and what the charts make of it."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloud_service import prediction
from cloud_service.pages import charts
from cloud_service.picture import bundle_view
from cloud_service.records.counting import Bucket
from cloud_service.views import CameraScores
from ddnn.measurements import Calibration
from ddnn.tuning import Tuning
from tests.pages.messages import Offer

OFFER = Offer.of()
BUNDLE = bundle_view(OFFER.manifest, OFFER.payload)
CURVE = OFFER.manifest.calibration.curve


def without_curve():
    empty = Calibration(goal="accuracy", samples=1)
    return msgspec.structs.replace(BUNDLE, calibration=empty)


@pytest.mark.parametrize("point", CURVE, ids=lambda p: f"T={p.thresholds['local']:g}")
def test_at_a_calibrated_point_the_promise_is_what_was_measured(point):
    made = prediction.at(BUNDLE, point.thresholds["local"])
    assert made.accuracy == pytest.approx(point.accuracy)
    assert made.exit_shares == pytest.approx(dict(point.exit_shares))
    assert made.frame_bytes == pytest.approx(6 * point.camera_bytes)


@given(st.floats(0, 1))
def test_between_two_points_the_promise_is_between_theirs(threshold):
    made = prediction.at(BUNDLE, threshold)
    known = [p.thresholds["local"] for p in CURVE]
    low = max(n for n in range(len(known)) if known[n] <= threshold)
    high = min(n for n in range(len(known)) if known[n] >= threshold)
    bounds = sorted(CURVE[n].accuracy for n in (low, high))
    assert bounds[0] - 1e-9 <= made.accuracy <= bounds[1] + 1e-9
    assert sum(made.exit_shares.values()) == pytest.approx(1, abs=1e-3)
    assert CURVE[high].camera_bytes * 6 - 1e-6 <= made.frame_bytes
    assert made.frame_bytes <= CURVE[low].camera_bytes * 6 + 1e-6


@pytest.mark.parametrize("threshold", [-0.1, 1.1, float("nan")])
def test_outside_the_curve_nothing_is_promised(threshold):
    assert prediction.at(BUNDLE, threshold) is None


def test_bundle_without_a_curve_promises_nothing():
    bundle = without_curve()
    assert prediction.points(bundle) == ()
    assert prediction.at(bundle, 0.5) is None
    assert prediction.for_budget(bundle, 1000.0, 0.1) is None
    assert prediction.nearest(bundle, 0.5) == 0


@given(st.floats(1, 1e9))
def test_budget_begins_at_a_promise_that_keeps_it_as_far_as_the_curve_goes(budget):
    made = prediction.for_budget(BUNDLE, budget, 0.1)
    least = 6 * CURVE[-1].camera_bytes
    assert made.frame_bytes <= max(budget * 0.1, least) + 1e-6


def test_settings_change_what_was_moved_and_keep_the_rest():
    before = Tuning(edge_threshold=0.5, budget_bytes_s=900.0, audit_share=0.1)
    moved = prediction.with_threshold(before, BUNDLE, 0.25)
    assert moved == Tuning(edge_threshold=0.5, local_threshold=0.25, audit_share=0.1)
    again = prediction.with_budget(moved, 700.0)
    assert again == Tuning(edge_threshold=0.5, budget_bytes_s=700.0, audit_share=0.1)
    assert prediction.without_changes(again) == Tuning(audit_share=0.1)


def test_threshold_in_force_is_that_of_settings_or_decisions_or_the_bundle():
    own = BUNDLE.thresholds["local"]
    assert prediction.in_force(BUNDLE, Tuning(), {"local": 0.1}) == own
    assert prediction.in_force(BUNDLE, Tuning(local_threshold=0.2), {}) == 0.2
    assert prediction.in_force(BUNDLE, Tuning(budget_bytes_s=9.0), {"local": 0.1}) == 0.1
    assert prediction.in_force(BUNDLE, Tuning(budget_bytes_s=9.0), {}) is None


def test_charts_draw_gaps_where_nothing_was_decided():
    there = Bucket(start_s=10, decided=3, degraded=1, by_exit={"local": 3, "edge": 1},
                   payload_bytes=400, latency_ms_p50=5.0, latency_ms_p99=9.0)  # fmt: skip
    buckets = [there, Bucket(start_s=20)]
    exits = {s["name"]: s["data"] for s in charts.exits(buckets, BUNDLE.exits)["series"]}
    assert exits == {
        "local": [[10_000, 75.0], [20_000, None]],
        "edge": [[10_000, 25.0], [20_000, None]],
        "cloud": [[10_000, 0.0], [20_000, None]],
    }
    sent, raw = (s["data"] for s in charts.traffic(buckets, 18_432)["series"])
    assert sent == [[10_000, 100.0], [20_000, None]]
    assert raw == [[10_000, 18_432], [20_000, None]]
    assert charts.latency(buckets)["series"][1]["data"] == [[10_000, 9.0], [20_000, None]]


def test_of_many_classes_the_clearest_are_drawn_in_their_own_order():
    scores = tuple(n / 20 for n in range(20))
    known = [CameraScores(camera=0, scores=scores, absent=False, age_s=0.0)]
    names = [f"class {n}" for n in range(20)]
    drawn = charts.scores(known, [0, 1], names)["series"]
    assert [s["name"] for s in drawn] == names[14:]
    assert drawn[0]["data"] == [0.7, None]


def test_no_colour_is_fixed_but_follows_the_readers_scheme():
    point = prediction.points(BUNDLE)[3]
    options = msgspec.json.encode(charts.curve(prediction.points(BUNDLE), point, point))
    assert b"var(--" in options
    assert b"#" not in options
