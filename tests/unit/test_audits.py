"""Audits in the gateway's rules: what is asked, what is published, and when it gives way."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ddnn import audit, decisions, status, wire
from ddnn.budget import Curve, CurvePoint
from ddnn.drift import FIRST, Expected
from ddnn.journal import read
from ddnn.message import Message, Publish
from ddnn.place import Place
from ddnn.tier import TierConfig
from ddnn.wire import Flag, Kind
from edge_gateway.audits import AuditRules, is_chosen
from edge_gateway.effects import Keep
from edge_gateway.gateway import Gateway, GatewayRules
from edge_gateway.trial import TrialRules
from tests.fakes import TAG, FakeSections, without_faults
from tests.schemas import problems

CLASSES = ("car", "bus", "person")
WALL = 1_800_000_000.0
SLOT = 1_800_000_000


class Bench:
    """A gateway, and what it has sent."""

    def __init__(self, *, share=1.0, sections=None, place=None, expected=None, **rules):
        self.now = 0.0
        self.sent = []
        self.journal = b""
        rules = GatewayRules(site="s", period_s=1.0, audits=AuditRules(share=share), **rules)
        self.gateway = Gateway(rules, 9, b"", now=0.0)
        self.sections = sections or FakeSections()
        self.do(self.activate(self.sections, place=place, expected=expected))
        self.do(self.gateway.on_connected(0.0))
        self.do(self.gateway.on_time(0.0, self.wall))
        self.sent.clear()

    def activate(self, sections, **more):
        return self.gateway.activate(sections, CLASSES, self.now, self.wall, **more)

    @property
    def wall(self):
        return WALL + self.now

    def do(self, effects):
        for effect in without_faults(effects):
            if isinstance(effect, Keep):
                self.journal += effect.data
            else:
                self.sent.append(effect)
                if effect.receipt is not None:
                    self.do(self.gateway.sent(effect.receipt, self.now))

    def take(self, topic, payload, **fields):
        self.do(self.gateway.on_message(Message(topic, payload, **fields), self.now, self.wall))
        self.do(self.gateway.on_time(self.now, self.wall))  # as the service does soon after

    def wait(self, seconds):
        self.now += seconds
        self.do(self.gateway.on_time(self.now, self.wall))

    def summaries(self, slot=SLOT, *, sure=True, members=range(3), flags=0, tag=TAG):
        for member in members:
            body = bytes([sure, 0, 0]) if self.sections.has_local else b""
            body = b"" if flags & Flag.ABSENT else body
            self.take(f"s/s/{member}", frame(Kind.SUMMARY, slot, body, flags=flags, tag=tag))

    def features(self, slot=SLOT, *, sure=False, members=range(3), flags=0, tag=TAG):
        for member in members:
            body = b"" if flags & Flag.ABSENT else bytes([sure, 0, 0, 0])
            self.take(f"s/f/{member}", frame(Kind.FEATURES, slot, body, flags=flags, tag=tag))

    def answer(self, slot=SLOT, label=2, *, boot=9, flags=0, tag=TAG):
        logits = [0, 0, 0]
        logits[label] = 1000
        body = b"" if flags else wire.pack_logits(np.array(logits, np.int32))
        payload = frame(Kind.ANSWER, slot, body, boot=boot, flags=flags, tag=tag)
        self.take("s/a", payload, correlation=slot.to_bytes(4, "little"))

    def topics(self):
        """Of all but estimates, which are published when there is time."""
        return [m.topic for m in self.sent if not m.topic.endswith("estimate")]

    def estimates(self):
        return len(self.sent) - len(self.topics())

    def decisions(self):
        return [m.payload for m in self.sent if m.topic == "ddnn/s/decision"]

    def audits(self):
        sent = [m.payload for m in self.sent if m.topic == "ddnn/s/audit"]
        assert not [wrong for payload in sent for wrong in problems("audit", payload)]
        return [audit.decode(payload) for payload in sent]

    def estimate(self):
        self.gateway.on_disconnected()
        self.do(self.gateway.on_connected(self.now))  # then it is published in any case
        self.wait(2.0)
        last = [m for m in self.sent if m.topic == "ddnn/s/audit/estimate"][-1]
        assert (last.qos, last.retain) == (1, True)
        assert problems("audit-estimate", last.payload) == []
        return audit.decode_estimate(last.payload)

    def ledger(self):
        """The audits' counters, without their common beginning."""
        ledger = self.gateway.ledger()
        return {n.removeprefix("audit."): c for n, c in ledger.items() if n.startswith("audit.")}


def frame(kind, slot, body=b"", *, boot=1, flags=0, tag=TAG):
    return wire.encode(kind, tag=tag, boot=boot, slot=slot, flags=flags, body=body)


# -- which -----------------------------------------------------------------------------------------


@given(st.floats(0, 1), st.floats(0, 1), st.binary(max_size=64), st.integers(0, 2**40))
def test_higher_share_chooses_the_same_slots_and_more(one, other, key, slot):
    low, high = sorted((one, other))
    assert is_chosen(low, key, "s", slot) <= is_chosen(high, key, "s", slot)
    assert not is_chosen(0.0, key, "s", slot)
    assert is_chosen(1.0, key, "s", slot)


@settings(max_examples=20, deadline=None)
@given(st.binary(min_size=1, max_size=64), st.integers(1, 7), st.sampled_from([0.05, 0.3, 0.7]))
def test_choice_is_the_share_of_any_regular_choice_of_slots(key, every, share):
    """A scene that repeats itself every few slots is sampled as fairly as any other."""
    slots = range(SLOT, SLOT + 2000 * every, every)
    chosen = sum(is_chosen(share, key, "s", slot) for slot in slots)
    deviation = (2000 * share * (1 - share)) ** 0.5
    assert abs(chosen - 2000 * share) < 6 * deviation


def test_another_key_or_site_chooses_other_slots():
    def chosen(key, site):
        return {n for n in range(1000) if is_chosen(0.1, key, site, n)}

    assert chosen(b"a", "s") != chosen(b"b", "s")
    assert chosen(b"a", "s") != chosen(b"a", "t")


# -- one audit -------------------------------------------------------------------------------------


def test_local_decision_is_published_first_and_then_looked_at_by_edge_and_cloud():
    bench = Bench()
    bench.summaries()
    assert bench.topics() == ["ddnn/s/decision", "s/q/0", "s/q/1", "s/q/2"]
    bench.features(sure=True)  # the edge exit is sure, and the cloud is asked all the same
    assert bench.topics()[4:] == ["s/x"]
    bench.answer(label=2)
    assert bench.topics()[5:] == ["ddnn/s/audit"]
    (result,) = [message for message in bench.sent if message.topic == "ddnn/s/audit"]
    assert (result.qos, result.retain) == (1, False)
    (found,) = bench.audits()
    assert (found.slot, found.bundle_tag, found.exit, found.deepest) == (
        SLOT,
        TAG,
        "local",
        "cloud",
    )
    assert (found.label, found.agrees) == ("car", False)
    assert {name: said.label for name, said in found.exits.items()} == {
        "local": "car",
        "edge": "bus",
        "cloud": "person",
    }
    assert (found.used, found.absent, found.missing) == ((0, 1, 2), (), ())
    asked, sent, escalated = 3 * 10, 3 * 14, 14 + len(b"edge")
    assert found.payload_bytes == asked + sent + escalated
    assert bench.ledger() == {"begun": 1, "completed": 1, "payload_bytes": found.payload_bytes}


def test_edge_decision_costs_an_escalation_and_asks_no_camera_again():
    bench = Bench()
    bench.summaries(sure=False)
    bench.features(sure=True)
    assert bench.topics() == ["s/q/0", "s/q/1", "s/q/2", "ddnn/s/decision", "s/x"]
    bench.answer(label=1)
    (found,) = bench.audits()
    assert (found.exit, found.label, found.agrees) == ("edge", "bus", True)
    assert set(found.exits) == {"edge", "cloud"}
    assert found.payload_bytes == 14 + len(b"edge")


def test_edge_decision_of_a_few_cameras_asks_the_others_for_its_audit():
    bench = Bench(tier=TierConfig(ask_at_once=1))
    bench.summaries(sure=False)
    bench.features(sure=True, members=[0])
    assert bench.topics() == ["s/q/0", "ddnn/s/decision", "s/q/1", "s/q/2"]
    bench.features(sure=True, members=[1, 2])
    bench.answer()
    assert bench.audits()[0].used == (0, 1, 2)


def test_cameras_that_saw_nothing_or_are_missing_are_not_asked_by_an_audit():
    bench = Bench()
    bench.summaries(members=[0])
    bench.summaries(members=[1], flags=Flag.ABSENT)
    bench.wait(0.6)
    assert [topic for topic in bench.topics() if "/q/" in topic] == ["s/q/0"]
    bench.features(members=[0])
    bench.answer()
    (found,) = bench.audits()
    assert (found.used, found.absent, found.missing) == ((0,), (1,), (2,))
    assert bench.estimate().exits[0].incomplete == 1


def test_without_a_cloud_the_edge_is_the_deepest():
    bench = Bench(sections=FakeSections(cloud=False))
    bench.summaries()
    bench.features()
    (found,) = bench.audits()
    assert (found.deepest, set(found.exits)) == ("edge", {"local", "edge"})
    bench.summaries(SLOT + 1, sure=False)
    bench.features(SLOT + 1, sure=True)
    assert len(bench.audits()) == bench.ledger()["begun"] == 1


def test_without_an_edge_the_cloud_is_asked_for_the_members_features():
    bench = Bench(sections=FakeSections(edge=False))
    bench.summaries()
    bench.features()
    bench.answer(label=0)
    (found,) = bench.audits()
    assert (found.deepest, found.agrees, set(found.exits)) == ("cloud", True, {"local", "cloud"})


@pytest.mark.parametrize(
    "exits", [{"edge": False, "cloud": False}, {"local": False, "edge": False}], ids=str
)
def test_last_exit_is_not_audited(exits):
    bench = Bench(sections=FakeSections(**exits))
    bench.summaries()
    bench.features()
    bench.answer()
    assert len(bench.decisions()) == 1
    assert bench.ledger() == {}
    assert bench.estimate().exits == ()


def test_cloud_decision_degraded_one_and_empty_scene_are_not_audited():
    bench = Bench()
    bench.summaries(sure=False)
    bench.features()
    bench.answer()
    bench.summaries(SLOT + 1, flags=Flag.ABSENT)
    bench.summaries(SLOT + 2, sure=False)
    bench.wait(1.1)  # no features: degraded, the local exit's answer
    assert len(bench.decisions()) == 3
    assert bench.ledger() == {}


def test_gateway_above_edges_audits_through_them():
    sections = FakeSections(members=2)
    sections.feature_bytes = 3 + 4
    bench = Bench(sections=sections, place=Place(None, "edges", (0, 1)))
    for edge in (0, 1):
        bench.take(f"s/S/{edge}", frame(Kind.SUMMARY, SLOT, b"\1\0\0"))
    assert bench.topics() == ["ddnn/s/decision", "s/Q/0", "s/Q/1"]
    for edge in (0, 1):
        bench.take(f"s/F/{edge}", frame(Kind.FEATURES, SLOT, bytes(7)))
    bench.answer()
    assert bench.audits()[0].members == "edges"


def test_edge_gateway_audits_nothing():
    sections = FakeSections(members=2)
    bench = Bench(sections=sections, place=Place(1, "cameras", (0, 1)))
    bench.summaries(members=[0, 1])
    bench.wait(10.0)
    assert bench.ledger() == {}
    assert not [topic for topic in bench.topics() if "audit" in topic]


# -- giving way ------------------------------------------------------------------------------------


def test_share_of_0_audits_nothing():
    bench = Bench(share=0.0)
    bench.summaries()
    assert bench.topics() == ["ddnn/s/decision"]
    assert bench.ledger() == {}


def test_no_audit_while_the_cloud_does_not_answer_real_frames():
    bench = Bench()
    for slot in range(SLOT, SLOT + 3):
        bench.summaries(slot, sure=False)
        bench.features(slot)
        bench.wait(2.1)
    assert bench.gateway.breaker.state == "open"
    bench.summaries(SLOT + 8)
    assert bench.ledger() == {"skipped.cloud_down": 1}


def test_cloud_that_answers_no_audit_is_left_alone_and_nobody_else_notices():
    bench = Bench()
    for slot in range(SLOT, SLOT + 4):
        bench.summaries(slot)
        bench.features(slot)
        bench.wait(2.1)
    assert bench.ledger()["given_up.cloud_timeout"] == 3
    assert bench.ledger()["skipped.cloud_down"] == 1
    assert bench.gateway.breaker.state == "closed"
    bench.wait(1.0)
    bench.summaries(SLOT + 9)
    bench.features(SLOT + 9)
    bench.answer(SLOT + 9)
    assert bench.ledger()["completed"] == 1


def test_no_audit_while_half_of_all_slots_are_open():
    bench = Bench(tier=TierConfig(max_open_slots=4))
    for slot in (SLOT + 1, SLOT + 2):
        bench.summaries(slot, members=[0])
    bench.summaries(SLOT)
    assert bench.ledger() == {"skipped.overload": 1}


def test_audit_under_way_is_given_up_before_it_escalates_into_an_overload():
    bench = Bench(tier=TierConfig(max_open_slots=4))
    bench.summaries(SLOT)
    for slot in (SLOT + 1, SLOT + 2):
        bench.summaries(slot, members=[0])
    bench.features(SLOT)
    assert "s/x" not in bench.topics()
    assert bench.ledger()["given_up.overload"] == 1


def test_only_so_many_audits_are_under_way_at_once():
    bench = Bench()
    for slot in range(SLOT, SLOT + 10):
        bench.summaries(slot)
    assert bench.ledger() == {"begun": 8, "skipped.busy": 2}
    assert len(bench.decisions()) == 10


def test_no_audit_of_what_was_sent_late():
    bench = Bench()
    bench.summaries(flags=Flag.BACKLOG)
    assert bench.ledger() == {"skipped.backlog": 1}


def test_no_audit_while_decisions_wait_for_the_broker(monkeypatch):
    bench = Bench()
    monkeypatch.setattr(bench.gateway, "sent", lambda slot, now: [])
    for slot in range(SLOT, SLOT + 70):
        bench.wait(1.0)
        bench.summaries(slot)
    assert bench.gateway.outbox.waiting == 6
    assert bench.ledger()["skipped.unsent"] == 6


def test_no_audit_while_the_broker_is_away():
    bench = Bench()
    bench.gateway.on_disconnected()
    bench.summaries()
    assert bench.ledger() == {"skipped.broker_away": 1}


def test_budget_of_the_cameras_is_not_spent_on_audits():
    points = [(0.0, 60.0), (0.5, 30.0), (1.0, 10.0)]
    curve = Curve([CurvePoint(threshold=t, bytes_per_frame=b, accuracy=0.9) for t, b in points])
    bench = Bench()
    bench.do(bench.activate(FakeSections(tag=TAG + 1), curve=curve, bundle_id="c"))
    bench.take("ddnn/s/settings", b'{"budget_bytes_s": 30}')
    assert bench.gateway.settings_refused is None
    bench.summaries(tag=TAG + 1)
    assert bench.ledger() == {"skipped.budget": 1}
    bench.summaries(SLOT + 1, sure=False, tag=TAG + 1)
    bench.features(SLOT + 1, sure=True, tag=TAG + 1)  # the edge's audit asks no camera
    assert bench.ledger() == {"skipped.budget": 1, "begun": 1}


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        (lambda bench: bench.wait(1.1), "features_missing"),
        (lambda bench: (bench.features(members=[0, 1]), bench.wait(1.1), bench.answer()),
         "features_missing"),
        (lambda bench: bench.features(flags=Flag.ABSENT), "features_missing"),
        (lambda bench: (bench.features(), bench.wait(2.1)), "cloud_timeout"),
        (lambda bench: (bench.features(), bench.answer(flags=Flag.UNSERVED)),
         "cloud_lacks_bundle"),
        (lambda bench: bench.do(bench.gateway.close("shutdown", 0.0)), "shutdown"),
    ],
    ids=["silent", "one camera silent", "too late for the ring", "cloud silent", "cloud lacks it",
         "shutdown"],
)  # fmt: skip
def test_audit_that_comes_to_nothing_is_counted_and_changes_nothing(fault, reason):
    bench = Bench()
    bench.summaries()
    before = bench.decisions()
    fault(bench)
    assert bench.audits() == []
    assert bench.ledger()[f"given_up.{reason}"] == 1
    assert bench.decisions() == before
    assert bench.gateway.ledger()["decided"] == bench.gateway.ledger()["opened"] == 1
    assert bench.gateway.next_deadline() == math.inf
    assert bench.estimate().given_up == {reason: 1}


def test_answer_to_another_process_or_bundle_ends_no_audit():
    bench = Bench()
    bench.summaries()
    bench.features()
    bench.answer(boot=8)
    bench.answer(tag=TAG + 1)
    assert bench.audits() == []
    bench.answer()
    assert len(bench.audits()) == 1


def test_repeated_features_and_answers_make_no_second_audit():
    bench = Bench()
    bench.summaries()
    for _ in range(2):
        bench.features()
    for _ in range(2):
        bench.answer()
        bench.summaries()
    assert len(bench.audits()) == len(bench.decisions()) == 1


# -- changes of bundle -----------------------------------------------------------------------------


def test_audit_ends_with_the_bundle_of_its_slot_and_counts_for_no_other():
    bench = Bench()
    bench.summaries()
    bench.do(bench.activate(FakeSections(tag=TAG + 1), bundle_id="next", from_slot=SLOT + 5))
    bench.features()
    bench.answer()
    (found,) = bench.audits()
    assert found.bundle_tag == TAG
    now = bench.estimate()
    assert (now.bundle_tag, now.exits[0].total, now.completed) == (TAG + 1, 0, 1)


def test_slot_before_the_change_counts_for_no_bundle_after_it():
    bench = Bench()
    bench.do(bench.activate(FakeSections(tag=TAG + 1), bundle_id="next", from_slot=SLOT + 5))
    audited(bench, SLOT + 1, 2)
    assert [found.bundle_tag for found in bench.audits()] == [TAG]
    now = bench.estimate()
    assert (now.bundle_tag, now.exits[0].total, now.completed) == (TAG + 1, 0, 1)


def test_decision_chosen_before_the_change_and_audited_after_it_counts_for_none():
    bench = Bench()
    bench.gateway.on_time = lambda now, wall: []
    bench.summaries()
    del bench.gateway.on_time
    assert "s/q/0" not in bench.topics()  # it is out, and its audit has not begun
    bench.take("ddnn/s/settings", b'{"local_threshold": 0.6}')
    bench.features()
    bench.answer()
    assert len(bench.audits()) == 1
    assert bench.estimate().exits[0].total == 0


def test_audit_of_a_bundle_that_is_gone_is_given_up():
    bench = Bench()
    bench.summaries()
    for number in (1, 2):
        bench.do(bench.activate(FakeSections(tag=TAG + number), bundle_id=str(number)))
    assert bench.ledger()["given_up.bundle_change"] == 1
    assert len(bench.gateway.audits) == 0


def test_bundle_on_trial_is_not_audited_and_its_answers_are_its_own():
    bench = Bench()
    candidate = FakeSections(tag=TAG + 1)
    bench.gateway.begin_trial("b", candidate, TrialRules(every=1))
    bench.summaries()
    bench.summaries(tag=TAG + 1, sure=False)
    bench.features(tag=TAG + 1)
    bench.features()
    bench.answer(tag=TAG + 1, label=0)
    assert bench.audits() == []
    bench.answer(label=1)
    (found,) = bench.audits()
    assert found.exits["cloud"].label == "bus"


# -- the estimate ----------------------------------------------------------------------------------


def audited(bench, slot, label):
    bench.summaries(slot)
    bench.features(slot)
    bench.answer(slot, label)


def many(bench, count, label):
    for _ in range(count):
        bench.wait(1.0)
        audited(bench, SLOT + int(bench.now), label)


def test_estimate_is_retained_and_counts_by_exit_and_class():
    bench = Bench()
    many(bench, 3, 0)
    many(bench, 1, 2)
    now = bench.estimate()
    assert (now.site, now.bundle_tag, now.share) == ("s", TAG, 1.0)
    assert [one.exit for one in now.exits] == ["local", "edge"]
    assert (now.exits[0].all.audited, now.exits[0].all.disagreed) == (4, 1)
    assert now.exits[0].classes["car"].rate == 0.25
    assert now.exits[1].all.rate is None
    assert (now.begun, now.completed) == (4, 4)


def test_estimate_is_published_again_to_a_broker_that_may_have_forgotten_it():
    bench = Bench()
    bench.wait(1.0)
    bench.sent.clear()
    bench.wait(5.0)
    assert bench.estimates() == 0
    bench.gateway.on_disconnected()
    bench.do(bench.gateway.on_connected(bench.now))
    bench.wait(0.1)
    assert bench.estimates() == 1


def test_estimate_is_published_once_a_second_at_most():
    bench = Bench(share=1.0)
    for n in range(50):
        audited(bench, SLOT - 25 + n, 0)
        bench.wait(0.1)
    assert len(bench.audits()) == 50
    assert 4 <= bench.estimates() <= 6


def test_drift_against_what_calibration_expects_is_an_alarm_in_the_status():
    bench = Bench(expected={"local": Expected(400, 20)})
    many(bench, 20, 0)
    assert "drift" not in bench.gateway.notes()
    many(bench, 40, 2)
    assert "the local exit disagrees with the deepest one in 40" in bench.gateway.notes()["drift"]
    assert bench.estimate().exits[0].drift
    many(bench, 100, 0)
    assert "drift" not in bench.gateway.notes()


def test_thresholds_other_than_the_bundles_begin_a_new_estimate_without_its_expectation():
    bench = Bench(expected={"local": Expected(400, 20)})
    many(bench, 3, 0)
    assert bench.estimate().exits[0].reference == "manifest"
    bench.take("ddnn/s/settings", b'{"local_threshold": 0.6}')
    many(bench, 2, 0)
    now = bench.estimate().exits[0]
    assert (now.total, now.reference) == (2, None)
    bench.take("ddnn/s/settings", b'{"local_threshold": 0.6}')  # as after each reconnect
    assert bench.estimate().exits[0].total == 2
    many(bench, FIRST, 0)
    assert bench.estimate().exits[0].reference == "first audits"
    bench.take("ddnn/s/settings", b"")
    assert bench.estimate().exits[0].reference == "manifest"


def test_share_can_be_set_while_the_site_runs_and_keeps_the_estimate():
    bench = Bench(share=0.0)
    bench.take("ddnn/s/settings", b'{"audit_share": 1.0}')
    many(bench, 2, 0)
    assert bench.estimate().exits[0].total == 2
    bench.take("ddnn/s/settings", b'{"audit_share": 0.0}')
    many(bench, 2, 0)
    now = bench.estimate()
    assert (now.share, now.exits[0].total) == (0.0, 2)
    bench.take("ddnn/s/settings", b'{"audit_share": 1.5}')
    assert "audit_share" in bench.gateway.settings_refused


# -- nothing else notices --------------------------------------------------------------------------

SLOTS = st.integers(0, 5)
EVENTS = st.lists(
    st.one_of(
        st.tuples(st.just("summary"), SLOTS, st.integers(0, 2), st.booleans(), st.booleans()),
        st.tuples(st.just("features"), SLOTS, st.integers(0, 2), st.booleans(), st.booleans()),
        st.tuples(st.just("answer"), SLOTS, st.integers(0, 2), st.booleans()),
        st.tuples(st.just("member"), st.integers(0, 2), st.booleans()),
        st.tuples(st.just("worker"), st.booleans()),
        st.tuples(st.just("time"), st.sampled_from([0.1, 0.6, 1.1, 2.1])),
        st.tuples(st.just("bundle")),
    ),
    max_size=80,
)


def play(bench, what, *values):
    tag = bench.gateway.engines.newest.tier.sections.tag
    match what, values:
        case "summary", (slot, member, sure, absent):
            flags = Flag.ABSENT if absent else 0
            bench.summaries(SLOT + slot, sure=sure, members=[member], flags=flags, tag=tag)
        case "features", (slot, member, sure, gone):
            flags = Flag.ABSENT if gone else 0
            bench.features(SLOT + slot, sure=sure, members=[member], flags=flags, tag=tag)
        case "answer", (slot, label, unserved):
            flags = Flag.UNSERVED if unserved else 0
            bench.answer(SLOT + slot, label, flags=flags, tag=tag)
        case "member", (member, up):
            report = status.Status(
                node=f"device-{member}", state="online" if up else "offline", boot=1, bundle="b"
            )
            bench.take(f"ddnn/s/status/device-{member}", status.encode(report))
        case "worker", (up,):
            report = status.Status(
                node="w", state="online" if up else "offline", boot=1, sites={"s": "b"}
            )
            bench.take("ddnn/_cloud/status/w", status.encode(report))
        case "time", (seconds,):
            bench.wait(seconds)
        case "bundle", ():
            if bench.now < 3.0:
                sections = FakeSections(tag=tag + 1)
                bench.do(bench.activate(sections, bundle_id=str(tag), from_slot=SLOT + 3))


@settings(max_examples=150, deadline=None)
@given(EVENTS, st.sampled_from([{}, {"edge": False}, {"cloud": False}]))
def test_audits_change_no_decision_no_journal_and_no_ledger(events, exits):
    """Two gateways hear the same, one of them audits whatever it can."""
    plain = Bench(share=0.0, sections=FakeSections(**exits))
    auditing = Bench(share=1.0, sections=FakeSections(**exits))
    for event in events:
        for bench in (plain, auditing):
            play(bench, *event)
        audits = auditing.ledger()
        given_up = sum(count for name, count in audits.items() if name.startswith("given_up"))
        under_way = len(auditing.gateway.audits)
        assert under_way <= 8
        assert audits.get("begun", 0) == audits.get("completed", 0) + given_up + under_way
        assert auditing.journal == plain.journal
    for bench in (plain, auditing):
        for _ in range(4):
            bench.wait(10.0)
    assert auditing.decisions() == plain.decisions()
    assert auditing.journal == plain.journal
    mine, other = auditing.gateway.ledger(), plain.gateway.ledger()
    for name in mine.keys() | other.keys():
        if name.partition(".")[0] in ("opened", "decided", "degraded", "expired", "open", "exit"):
            assert mine.get(name, 0) == other.get(name, 0), name
    assert len(auditing.gateway.audits) == 0
    assert auditing.gateway.next_deadline() == math.inf
    by_slot = {decisions.decode(payload).slot: payload for payload in auditing.decisions()}
    audited_slots = [found.slot for found in auditing.audits()]
    assert len(set(audited_slots)) == len(audited_slots)
    for found in auditing.audits():
        decision = decisions.decode(by_slot[found.slot])
        assert (found.label, found.exit) == (decision.label, decision.exit)
        assert (found.bundle_tag, decision.degraded) == (decision.bundle_tag, None)
    assert read(auditing.journal).damaged is False
    assert all(isinstance(message, Publish) for message in auditing.sent)
