"""A candidate in shadow: what is compared, when it passes, and that nothing of it counts."""

import math

import pytest

from ddnn import wire
from ddnn.actions import Decision, Expired, Request
from ddnn.place import Place
from ddnn.tier import TierConfig
from ddnn.wire import Kind
from edge_gateway.trial import MAX_WAITING, Trial, TrialRules
from tests.fakes import FakeSections
from tests.unit.test_gateway import NEW, SLOT, TAG, gateway, keep, report_all, summary, take
from tests.unit.test_rollouts import NEW as NEW_BUNDLE
from tests.unit.test_rollouts import Site

RULES = TrialRules(every=2, slots=20)


def decision(slot, label=0, *, entropy=0.2, degraded=None, took_s=0.1):
    return Decision(
        slot=slot, tag=1, label=label, probability=0.9, entropy=entropy, threshold=0.5,
        exit="local", used=(0,), absent=(), missing=(), degraded=degraded,
        stage_s={"summaries": took_s}, payload_bytes=3,
    )  # fmt: skip


def trial(**rules):
    return Trial("a" * 64, FakeSections(tag=NEW), TrialRules(every=2, slots=20, **rules),
                 TierConfig(), Place.of_cameras(3))  # fmt: skip


def run(made, slots=20, **mine):
    """The running bundle decides slots 0, 2, ...; the candidate does, with what differs."""
    for slot in range(0, 2 * slots, 2):
        made.real(slot, decision(slot))
        made.take([decision(slot, **mine)])
    return made


def test_candidate_that_decides_alike_passes():
    assert run(trial()).verdict() == ""


def test_nothing_is_said_before_enough_slots_were_compared():
    assert run(trial(), 19).verdict() is None


@pytest.mark.parametrize(
    ("mine", "reason"),
    [
        ({"label": 1}, "agreement 0.000"),
        ({"label": None}, "agreement 0.000"),
        ({"entropy": 0.5}, "entropy moved by +0.300"),
        ({"entropy": 0.05}, "entropy moved by -0.150"),
        ({"took_s": 0.2}, "100.0 ms slower"),
        ({"degraded": "cloud_timeout"}, "errors in 1.000"),
    ],
)
def test_candidate_that_decides_otherwise_fails_with_the_number(mine, reason):
    assert reason in run(trial(), **mine).verdict()


def test_slots_that_the_candidate_lets_expire_are_errors():
    made = trial()
    for slot in range(0, 40, 2):
        made.real(slot, decision(slot))
        made.take([Expired(slot, "cloud_down")])
    assert "errors in 1.000" in made.verdict()


def test_slots_that_the_running_bundle_could_not_decide_say_nothing():
    made = trial()
    for slot in range(0, 40, 2):
        made.real(slot, decision(slot, degraded="cloud_down"))
        made.take([decision(slot)])
    assert made.compared == 0


def test_slots_in_which_nobody_saw_anything_are_not_counted():
    made = trial()
    for slot in range(0, 40, 2):
        made.real(slot, decision(slot, label=None))
        made.take([decision(slot, label=None)])
    assert made.compared == 0


def test_slots_that_wait_for_the_other_decision_are_bounded():
    made = trial()
    for slot in range(0, 4 * MAX_WAITING, 2):
        made.take([decision(slot)])
        made.real(slot + 2 * MAX_WAITING * 10, decision(slot))
    assert len(made._mine) == len(made._real) == MAX_WAITING


def test_requests_of_a_trial_are_left_to_be_carried_out():
    assert trial().take([Request(1, 2), decision(4)]) == [Request(1, 2)]


# -- in the gateway ----------------------------------------------------------------------------


def on_trial(rules=RULES):
    made = gateway()
    made.begin_trial("new", FakeSections(tag=NEW), rules)
    return made


def test_frames_of_a_candidate_are_compared_and_nothing_of_them_is_published():
    made = on_trial()
    before = bytes(made.journal)
    shadows = [m for n in range(3) for m in take(made, *summary(n, tag=NEW))]
    assert shadows == []
    assert bytes(made.journal) == before
    assert made.trial.compared == 0
    report_all(made)
    assert made.trial.compared == 1
    assert "1 of 20" in made.notes()["canary"]


def test_candidate_asks_for_features_under_its_own_tag():
    made = on_trial()
    asked = [m for n in range(3) for m in take(made, *summary(n, sure=False, tag=NEW))]
    assert [m.topic for m in asked] == ["s/q/0", "s/q/1", "s/q/2"]
    assert {wire.decode(m.payload).tag for m in asked} == {NEW}
    features = wire.encode(Kind.FEATURES, tag=NEW, boot=1, slot=SLOT, body=bytes([1, 0, 0, 0]))
    for member in range(3):
        assert take(made, f"s/f/{member}", features) == []
    report_all(made)
    assert made.trial.compared == 1


def test_ledger_knows_nothing_of_a_trial():
    made = on_trial()
    for n in range(3):
        take(made, *summary(n, tag=NEW))
    assert made.ledger()["opened"] == 0
    made.end_trial()
    assert take(made, *summary(0, tag=NEW)) == []
    assert made.ledger()["wrong_tag"] == 1


def test_running_bundle_decides_the_slots_of_a_trial_as_ever():
    made = on_trial()
    for n in range(3):
        take(made, *summary(n, tag=NEW, sure=False))
    (published,) = report_all(made)
    assert published.topic == "ddnn/s/decision"
    assert made.next_deadline() < math.inf
    keep(made, made.on_time(100.0, SLOT))
    assert made.ledger()["decided"] == 1
    assert TAG != NEW


# -- in the roll-out ---------------------------------------------------------------------------


def trying():
    site = Site(canary_every=2)
    begin = site.plan()
    assert (begin.bundle, begin.shadow.bundle) == (site.record.bundle, NEW_BUNDLE.bundle_id)
    site.record = begin
    return site


def test_trial_begins_when_every_node_is_ready_and_the_change_waits_for_its_verdict():
    site = trying()
    assert site.plan(trial=(NEW_BUNDLE.bundle_id, None)) is None
    plan = site.plan(trial=(NEW_BUNDLE.bundle_id, ""))
    assert (plan.bundle, plan.shadow) == (NEW_BUNDLE.bundle_id, None)


def test_candidate_that_fails_its_trial_is_rejected_and_tried_no_more():
    site = trying()
    end = site.plan(trial=(NEW_BUNDLE.bundle_id, "agreement 0.5 is under 0.95"))
    assert (end.bundle, end.shadow) == (site.record.bundle, None)
    site.record = end
    assert "agreement" in site.rollouts.rejected[1]
    assert site.plan(trial=None) is None
    site.plan(staged=None)
    assert site.rollouts.rejected is None


def test_camera_that_is_lost_during_the_trial_does_not_stop_it():
    site = trying()
    site.camera(1, staged=None, state="offline")
    assert site.plan(trial=(NEW_BUNDLE.bundle_id, "")) is not None
