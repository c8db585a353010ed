"""The gateway's rules: journal before publication, restarts, settings, recall, foreign words."""

import msgspec
import numpy as np
import pytest

from ddnn import decisions, status, summaries, wire
from ddnn.budget import Curve, CurvePoint
from ddnn.journal import Ended, read
from ddnn.message import Message, Publish
from ddnn.tier import TierConfig
from ddnn.tuning import Tuning
from ddnn.wire import Flag, Kind
from edge_gateway import gateway as gateway_module
from edge_gateway.audits import AuditRules
from edge_gateway.effects import Fault, Keep
from edge_gateway.gateway import Gateway, GatewayRules
from tests.fakes import BROKEN, SURE, TAG, BrokenSections, FakeSections, without_faults

CLASSES = ("car", "bus", "person")
WALL = 1_800_000_000.0
SLOT = 1_800_000_000


def gateway(journal=b"", *, boot=9, connected=True, sections=None, **rules):
    made = Gateway(GatewayRules(site="s", period_s=1.0, **rules), boot, journal, now=0.0)
    made.journal = bytearray(journal)
    activated = made.activate(sections or FakeSections(), CLASSES, 0.0, WALL)
    made.sent_first = keep(made, activated)
    if connected:
        made.sent_first += keep(made, made.on_connected(0.0))
    return made


def keep(made, effects):
    """Carry out what goes to the journal; the messages are returned."""
    effects = without_faults(effects)
    made.journal += b"".join(effect.data for effect in effects if isinstance(effect, Keep))
    return [effect for effect in effects if isinstance(effect, Publish)]


def take(made, topic, payload, now=0.0, wall=WALL, **fields):
    return keep(made, made.on_message(Message(topic, payload, **fields), now, wall))


def summary(member, slot=SLOT, *, sure=True, boot=1, flags=0, tag=TAG):
    body = b"" if flags & Flag.ABSENT else bytes([sure, 0, 0])
    return f"s/s/{member}", wire.encode(
        Kind.SUMMARY, tag=tag, boot=boot, slot=slot, flags=flags, body=body
    )


def features(member, slot=SLOT, *, sure=True):
    body = bytes([sure, 0, 0, 0])
    return f"s/f/{member}", wire.encode(Kind.FEATURES, tag=TAG, boot=1, slot=slot, body=body)


def report_all(made, slot=SLOT, now=0.0, *, sure=True):
    return [m for n in range(3) for m in take(made, *summary(n, slot, sure=sure), now=now)]


def escalate(made, slot=SLOT):
    report_all(made, slot, sure=False)
    return [m for n in range(3) for m in take(made, *features(n, slot, sure=False))]


# -- decisions ---------------------------------------------------------------------------------


def test_decision_is_in_the_journal_before_it_is_published():
    made = gateway()
    take(made, *summary(0))
    take(made, *summary(1))
    effects = made.on_message(Message(*summary(2)), 0.0, WALL)
    kinds = [type(effect) for effect in effects]
    assert kinds == [Keep, Keep, Publish]
    (record,) = read(effects[1].data).records
    assert isinstance(record, Ended)
    assert record.decision == effects[2].payload
    assert effects[2].topic == "ddnn/s/decision"
    assert effects[2].keep


def test_decision_waits_for_the_broker_and_leaves_when_it_is_there():
    made = gateway(connected=False)
    assert report_all(made) == []
    (published,) = keep(made, made.on_connected(1.0))
    assert decisions.decode(published.payload).slot == SLOT
    assert made.ledger()["unsent"] == 1
    made.sent(SLOT, 2.0)
    assert made.ledger()["unsent"] == 0


def test_decision_that_waits_too_long_is_dropped_and_counted():
    made = gateway(connected=False, outbox_age_s=100.0)
    report_all(made)
    keep(made, made.on_time(101.0, WALL + 101))
    assert made.ledger()["outbox.expired"] == 1
    assert keep(made, made.on_connected(102.0)) == []


# -- restarts ----------------------------------------------------------------------------------


def test_restart_publishes_unacknowledged_decisions_byte_for_byte():
    before = gateway()
    (published,) = report_all(before)
    after = gateway(bytes(before.journal), boot=10)
    (again,) = after.sent_first
    assert (again.payload, again.receipt) == (published.payload, SLOT)
    keep(after, after.sent(SLOT, 1.0))
    third = gateway(bytes(after.journal), boot=11)
    assert third.sent_first == []


def test_restart_in_the_middle_of_a_slot_goes_on_with_it():
    before = gateway()
    take(before, *summary(0))
    take(before, *summary(1))
    after = gateway(bytes(before.journal), boot=10)
    assert after.ledger()["open"] == 1
    (published,) = take(after, *summary(2))
    assert decisions.decode(published.payload).used == (0, 1, 2)
    assert after.ledger()["opened"] == 1


def test_restart_while_features_are_awaited_asks_again():
    before = gateway()
    requests = report_all(before, sure=False)
    assert [m.topic for m in requests] == ["s/q/0", "s/q/1", "s/q/2"]
    after = gateway(bytes(before.journal), boot=10)
    assert [m.topic for m in after.sent_first] == ["s/q/0", "s/q/1", "s/q/2"]


def test_slot_that_was_decided_before_the_restart_stays_decided():
    before = gateway()
    report_all(before)
    after = gateway(bytes(before.journal), boot=10)
    assert report_all(after) == []
    assert after.ledger()["late"] == 3
    assert after.ledger()["opened"] == 1


def test_restart_after_the_slots_window_expires_it_in_the_ledger():
    before = gateway()
    take(before, *summary(0))
    made = Gateway(before.rules, 10, bytes(before.journal), 0.0)
    made.activate(FakeSections(), CLASSES, 0.0, WALL + 1000)
    ledger = made.ledger()
    assert (ledger["opened"], ledger["expired"], ledger["open"]) == (1, 1, 0)


def test_restart_with_another_bundle_expires_the_old_ones_frames():
    before = gateway()
    take(before, *summary(0))
    after = gateway(bytes(before.journal), boot=10, sections=FakeSections(tag=TAG + 1))
    assert after.ledger()["open"] == 1  # its own bundle may still come
    assert take(after, *summary(1, tag=TAG + 1)) == []
    keep(after, after.on_time(31.0, WALL + 31))
    ledger = after.ledger()
    assert (ledger["opened"], ledger["expired"], ledger["open"]) == (1, 1, 0)


def test_restart_without_a_bundle_lets_go_of_old_slots():
    before = gateway()
    take(before, *summary(0))
    made = Gateway(before.rules, 10, bytes(before.journal), 0.0)
    made.on_time(1.0, WALL + 1)
    assert made.ledger()["open"] == 1
    made.on_time(100.0, WALL + 100)
    assert (made.ledger()["open"], made.ledger()["expired"]) == (0, 1)


def test_ledger_balances_over_restarts_and_rotations():
    made = gateway()
    for n in range(12):
        report_all(made, SLOT + n)
        take(made, *summary(0, SLOT + 15 + n))
        if n % 3 == 0:
            journal = made.snapshot() if n % 2 else bytes(made.journal)
            made = gateway(journal, boot=n)
    made.close("shutdown", 9.0)
    ledger = made.ledger()
    ended = sum(ledger.get(name, 0) for name in ("decided", "degraded", "expired"))
    assert ledger["opened"] == ended + ledger["open"] == 24


def test_damaged_journal_is_used_as_far_as_it_goes():
    before = gateway()
    report_all(before)
    after = gateway(bytes(before.journal[:-3]) + b"xyz")
    assert after.ledger()["journal_damaged"] == 1


def test_change_of_bundle_opens_no_decided_slot_again():
    made = gateway()
    report_all(made)
    keep(made, made.activate(FakeSections(tag=TAG + 1), CLASSES, 1.0, WALL))
    assert take(made, *summary(0, tag=TAG + 1)) == []
    assert take(made, *summary(0)) == []
    assert (made.ledger()["wrong_tag"], made.ledger()["late"]) == (1, 1)


# -- from one bundle to the next ---------------------------------------------------------------

NEW = TAG + 1


def changing(at=SLOT + 2):
    """A gateway that runs bundle `old`, and bundle `new` from slot `at` on."""
    made = gateway()
    keep(made, made.activate(FakeSections(tag=NEW), CLASSES, 0.0, WALL, bundle_id="new",
                             from_slot=at))  # fmt: skip
    return made


def decide(made, slot, tag):
    """Label bundle tags by slot: every camera reports `slot` with `tag`."""
    published = [m for n in range(3) for m in take(made, *summary(n, slot, tag=tag))]
    return [decisions.decode(m.payload).bundle_tag for m in published]


def test_slots_before_the_switch_are_decided_by_the_old_bundle_and_later_ones_by_the_new():
    made = changing()
    for slot, tag in ((SLOT, TAG), (SLOT + 3, NEW), (SLOT + 1, TAG), (SLOT + 2, NEW)):
        assert decide(made, slot, tag) == [tag]
    assert "degraded" not in made.ledger()


def test_frame_of_the_other_bundle_counts_in_no_slot():
    made = changing()
    assert decide(made, SLOT + 1, NEW) == []
    assert decide(made, SLOT + 2, TAG) == []
    assert made.ledger()["wrong_tag"] == 6
    assert made.ledger()["opened"] == 0


def test_slot_that_has_begun_is_ended_by_the_bundle_that_it_began_with():
    made = gateway()
    take(made, *summary(0, SLOT + 5))
    keep(made, made.activate(FakeSections(tag=NEW), CLASSES, 0.0, WALL, bundle_id="new",
                             from_slot=SLOT + 2))  # fmt: skip
    published = [m for n in (1, 2) for m in take(made, *summary(n, SLOT + 5))]
    assert [decisions.decode(m.payload).bundle_tag for m in published] == [TAG]
    assert decide(made, SLOT + 6, NEW) == [NEW]


def test_slot_under_way_at_the_switch_goes_through_all_stages_with_the_old_bundle():
    made = changing(SLOT + 1)
    assert [m.topic for m in report_all(made, sure=False)] == ["s/q/0", "s/q/1", "s/q/2"]
    assert decide(made, SLOT + 1, NEW) == [NEW]
    for member in (0, 1):
        take(made, *features(member))
    (published,) = take(made, *features(2))
    assert decisions.decode(published.payload).exit == "edge"
    assert decisions.decode(published.payload).bundle_tag == TAG


def test_switch_can_be_moved_until_a_frame_of_it_has_come():
    made = changing(SLOT + 10)
    assert made.move_switch("new", SLOT + 1)
    assert decide(made, SLOT + 1, NEW) == [NEW]
    assert made.move_switch("new", SLOT + 9)
    assert not made.move_switch("another", SLOT)
    assert decide(made, SLOT + 2, NEW) == [NEW]


def test_old_engine_is_let_go_of_when_its_slots_can_not_come_back():
    made = changing(SLOT + 1)
    decide(made, SLOT, TAG)
    keep(made, made.on_time(1.0, WALL + 30))
    assert len(made.engines.all) == 2
    keep(made, made.on_time(2.0, WALL + 33))
    assert len(made.engines.all) == 1
    assert made.ledger()["accepted"] == 3


def test_slot_that_ended_between_plan_and_switch_is_opened_by_no_later_engine():
    made = changing(SLOT + 5)
    assert decide(made, SLOT, TAG) == [TAG]
    keep(made, made.activate(FakeSections(tag=NEW + 1), CLASSES, 0.0, WALL, bundle_id="newer",
                             from_slot=SLOT + 10))  # fmt: skip
    assert len(made.engines.all) == 2  # the first engine is gone
    assert decide(made, SLOT, NEW) == []
    assert made.ledger()["late"] == 3
    assert made.ledger()["opened"] == 1


def test_restart_at_the_switch_gives_each_bundle_its_own_frames_back():
    before = changing(SLOT + 1)
    take(before, *summary(0, SLOT))
    take(before, *summary(0, SLOT + 1, tag=NEW))
    after = gateway(bytes(before.journal), boot=10)
    keep(after, after.activate(FakeSections(tag=NEW), CLASSES, 0.0, WALL, bundle_id="new",
                               from_slot=SLOT + 1))  # fmt: skip
    assert after.ledger()["open"] == 2
    for slot, tag in ((SLOT, TAG), (SLOT + 1, NEW)):
        (published,) = [m for n in (1, 2) for m in take(after, *summary(n, slot, tag=tag))]
        assert decisions.decode(published.payload).used == (0, 1, 2)
    assert after.ledger()["opened"] == 2


def test_camera_that_runs_another_bundle_is_missing_and_not_waited_for():
    made = changing(SLOT)
    for n, bundle in enumerate(("new", "new", "old")):
        report = status.Status(node=f"device-{n}", state="online", boot=1, bundle=bundle)
        take(made, f"ddnn/s/status/device-{n}", status.encode(report))
    take(made, *summary(0, SLOT, tag=NEW))
    (published,) = take(made, *summary(1, SLOT, tag=NEW))
    decision = decisions.decode(published.payload)
    assert (decision.used, decision.missing, decision.degraded) == ((0, 1), (2,), None)


# -- the cloud ---------------------------------------------------------------------------------


def answer(slot=SLOT, boot=9):
    logits = wire.pack_logits(np.array([0, 0, SURE], np.int32))
    return wire.encode(Kind.ANSWER, tag=TAG, boot=boot, slot=slot, body=logits)


def test_escalation_says_where_to_answer_and_when_it_is_worth_nothing():
    (message,) = escalate(gateway(tier=TierConfig(answer_wait_s=2.0)))
    assert (message.topic, message.response_topic) == ("s/x", "s/a")
    assert message.correlation == (SLOT % 2**32).to_bytes(4, "little")
    assert message.expiry_s == 2.0
    assert not message.keep


@pytest.mark.parametrize(
    ("boot", "correlation"), [(8, SLOT), (9, SLOT + 1), (9, None)], ids=["boot", "slot", "none"]
)
def test_answer_to_somebody_elses_question_is_not_taken(boot, correlation):
    made = gateway()
    escalate(made)
    mark = None if correlation is None else (correlation % 2**32).to_bytes(4, "little")
    assert take(made, "s/a", answer(boot=boot), correlation=mark) == []
    assert made.ledger()["foreign_answers"] == 1
    (message,) = take(made, "s/a", answer(), correlation=(SLOT % 2**32).to_bytes(4, "little"))
    assert decisions.decode(message.payload).exit == "cloud"


def worker(name, *, online=True, sites=("s",)):
    report = status.Status(
        node=name,
        state="online" if online else "offline",
        boot=1,
        sites=dict.fromkeys(sites, "0" * 64),
    )
    return f"ddnn/_cloud/status/{name}", status.encode(report)


def test_last_workers_goodbye_opens_the_breaker_and_its_return_is_a_probe():
    made = gateway()
    take(made, *worker("a"))
    take(made, *worker("b"))
    take(made, *worker("a", online=False))
    assert made.breaker.permits(0.0)
    take(made, *worker("b", online=False))
    assert not made.breaker.permits(0.0)
    assert "cloud" in made.notes()
    (message,) = escalate(made)
    assert decisions.decode(message.payload).degraded == "cloud_down"
    take(made, *worker("a"))
    assert made.breaker.permits(0.0)


def test_death_of_one_worker_has_its_questions_asked_again():
    made = gateway()
    take(made, *worker("a"))
    take(made, *worker("b"))
    (first,) = escalate(made)
    (again,) = take(made, *worker("a", online=False))
    assert again == first


def test_worker_may_only_speak_for_itself():
    made = gateway()
    _, payload = worker("a", online=False)
    take(made, "ddnn/_cloud/status/b", payload)
    assert made.breaker.permits(0.0)


def test_workers_remembered_are_bounded():
    made = gateway()
    for n in range(1200):
        take(made, *worker(f"w{n}"))
    assert len(made.presence.workers) == 1000
    assert made.ledger()["workers_over_limit"] == 200


# -- settings ----------------------------------------------------------------------------------


def tune(made, **values):
    take(made, "ddnn/s/settings", msgspec.json.encode(values))


def curve():
    return Curve(
        [
            CurvePoint(threshold=0.2, bytes_per_frame=500.0, accuracy=0.99),
            CurvePoint(threshold=0.9, bytes_per_frame=50.0, accuracy=0.9),
        ]
    )


def test_threshold_from_the_settings_topic_counts_and_clearing_undoes_it():
    made = gateway()
    tune(made, local_threshold=0.0)
    assert all(m.topic.startswith("s/q/") for m in report_all(made))
    take(made, "ddnn/s/settings", b"")
    assert made.tier.thresholds == made.tier.sections.thresholds


def test_threshold_outside_the_calibrated_range_is_refused_with_the_range():
    made = gateway()
    made.activate(FakeSections(), CLASSES, 0.0, WALL, curve())
    tune(made, local_threshold=0.95)
    assert made.tier.thresholds["local"] == 0.5
    assert "0.2 to 0.9" in made.notes()["settings"]
    assert made.settings_in_force == Tuning()
    tune(made, local_threshold=0.85)
    assert made.tier.thresholds["local"] == 0.85
    assert made.settings_in_force == Tuning(local_threshold=0.85)
    assert "settings" not in made.notes()


def test_budget_without_a_curve_is_refused():
    made = gateway()
    tune(made, budget_bytes_s=100)
    assert "curve" in made.notes()["settings"]


def test_budget_moves_the_threshold():
    made = gateway()
    made.activate(FakeSections(), CLASSES, 0.0, WALL, curve())
    tune(made, budget_bytes_s=275)
    assert made.tier.thresholds["local"] == pytest.approx(0.55)
    for n in range(40):
        report_all(made, SLOT + n, float(n))
        keep(made, made.on_time(float(n), WALL + n))
    assert made.tier.thresholds["local"] == pytest.approx(0.2)  # much less came than was allowed


def test_settings_stay_over_a_change_of_bundle_unless_they_do_not_fit():
    made = gateway()
    tune(made, local_threshold=0.95)
    made.activate(FakeSections(tag=2), CLASSES, 0.0, WALL)
    assert made.tier.thresholds["local"] == 0.95
    assert made.settings_in_force == Tuning(local_threshold=0.95)
    made.activate(FakeSections(tag=3), CLASSES, 0.0, WALL, curve())
    assert made.tier.thresholds["local"] == 0.5
    assert "settings" in made.notes()
    assert made.settings_in_force == Tuning()
    made.activate(FakeSections(tag=4), CLASSES, 0.0, WALL)
    assert "settings" not in made.notes()  # they fit again
    assert made.settings_in_force == Tuning(local_threshold=0.95)


def test_settings_that_were_refused_stay_so_in_the_notes_over_a_change_of_bundle():
    made = gateway()
    made.activate(FakeSections(tag=2), CLASSES, 0.0, WALL, curve())
    tune(made, local_threshold=0.95)
    made.activate(FakeSections(tag=3), CLASSES, 0.0, WALL, curve())
    assert "0.95" in made.notes()["settings"]


# -- recall ------------------------------------------------------------------------------------


def recall(made, now=0.0, **values):
    return take(made, "ddnn/s/recall", msgspec.json.encode(values), now=now)


def test_recall_publishes_past_decisions_again_in_order():
    made = gateway()
    published = [report_all(made, SLOT + n)[0] for n in range(5)]
    again = recall(made, from_slot=SLOT + 2)
    assert [m.payload for m in again] == [m.payload for m in published[2:]]
    assert all(m.receipt is None and not m.keep for m in again)


def test_recall_is_rate_limited_and_bounded():
    made = gateway(recall_decisions=300)
    for n in range(400):
        for member in range(3):
            take(made, *summary(member, SLOT + n), wall=WALL + n)
        made.sent(SLOT + n, 0.0)
    again = recall(made, from_slot=0)
    slots = [decisions.decode(m.payload).slot for m in again]
    assert slots == [SLOT + n for n in range(100, 100 + 256)]
    assert recall(made, from_slot=0) == []
    assert made.ledger()["recalls_refused"] == 1
    assert len(recall(made, now=1.0, from_slot=slots[-1] + 1)) == 44


# -- words that change nothing -----------------------------------------------------------------


@pytest.mark.parametrize("distance", [-31, 31, 10**6, -(10**6)])
def test_slot_outside_the_window_is_not_opened(distance):
    made = gateway()
    assert take(made, *summary(0, SLOT + distance)) == []
    assert made.ledger()["out_of_window"] == 1
    assert made.ledger()["opened"] == 0


def test_gateway_whose_clock_is_not_set_says_so_and_decides_nothing():
    made = gateway()
    made.on_time(1.0, 100.0)
    assert "clock" in made.notes()
    assert take(made, *summary(0), wall=100.0) == []


def test_status_of_another_node_than_the_topics_is_ignored():
    made = gateway()
    report = status.Status(node="device-1", state="offline", boot=1)
    take(made, "ddnn/s/status/device-2", status.encode(report))
    assert made.tier.alive() == {0, 1, 2}
    take(made, "ddnn/s/status/device-1", status.encode(report))
    assert made.tier.alive() == {0, 2}


# -- errors --------------------------------------------------------------------------------------


def several(made, member, slots, *, broken=()):
    """A message of `member` about these slots together."""
    each = [
        wire.encode(
            Kind.SUMMARY, tag=TAG, boot=1, slot=slot,
            body=bytes([1, BROKEN if slot in broken else 0, 0]),
        )
        for slot in slots
    ]  # fmt: skip
    return Message(f"s/s/{member}", summaries.join(each))


def test_error_over_one_slot_of_a_message_takes_no_other_with_it():
    made = gateway(sections=BrokenSections())
    slots = range(SLOT, SLOT + 4)
    effects = []
    for member in range(3):
        message = several(made, member, slots, broken=[SLOT + 2])
        effects += made.on_message(message, 0.0, WALL)
    (fault,) = [effect for effect in effects if isinstance(effect, Fault)]
    assert fault.what == f"handling a message on s/s/2: slot {SLOT + 2}"
    assert isinstance(fault.error, RuntimeError)
    sent = [effect.receipt for effect in effects if isinstance(effect, Publish)]
    assert sent == [SLOT, SLOT + 1, SLOT + 3]
    ledger = made.ledger()
    assert (ledger["opened"], ledger["decided"], ledger["expired.error"]) == (4, 3, 1)
    assert ledger["open"] == 0
    assert report_all(made, SLOT + 5) != []
    # No restart opens the slot again, to raise again.
    made.journal += b"".join(effect.data for effect in effects if isinstance(effect, Keep))
    after = gateway(bytes(made.journal), boot=10, sections=BrokenSections())
    assert after.ledger()["expired"] == 1


def test_bug_while_a_decision_is_made_loses_that_slot_only(monkeypatch):
    made = gateway(connected=False)
    for slot in (SLOT, SLOT + 1, SLOT + 2):
        take(made, *summary(0, slot))
    right = gateway_module.describe

    def wrong(decision, *rest):
        if decision.slot == SLOT + 1:
            raise ZeroDivisionError("a bug")
        return right(decision, *rest)

    monkeypatch.setattr(gateway_module, "describe", wrong)
    made.connected = True
    effects = made.on_time(10.0, WALL + 10)
    (fault,) = [effect for effect in effects if isinstance(effect, Fault)]
    assert fault.what == f"looking at the time: slot {SLOT + 1}"
    sent = [e.receipt for e in effects if isinstance(e, Publish) and e.receipt is not None]
    assert sent == [SLOT, SLOT + 2]
    ledger = made.ledger()
    assert (ledger["decided"], ledger["expired.error"], ledger["open"]) == (2, 1, 0)


@pytest.mark.parametrize("who", ["tally.decided", "audits.choose"])
def test_bug_in_what_only_looks_at_a_decision_does_not_hold_it_up(monkeypatch, who):
    made = gateway()
    take(made, *summary(0))
    take(made, *summary(1))
    owner, name = who.split(".")
    monkeypatch.setattr(getattr(made, owner), name, lambda *values: 1 / 0)
    effects = made.on_message(Message(*summary(2)), 0.0, WALL)
    assert [type(effect) for effect in effects] == [Keep, Keep, Publish, Fault]
    assert made.ledger()["decided"] == 1


def test_bug_in_one_look_at_the_time_leaves_the_others(monkeypatch):
    made = gateway(connected=False, outbox_age_s=100.0)
    report_all(made)
    monkeypatch.setattr(made.audits, "on_time", lambda now: 1 / 0)
    effects = made.on_time(101.0, WALL + 101)
    assert [type(effect) for effect in effects] == [Fault, Keep]
    assert made.ledger()["outbox.expired"] == 1


def test_section_that_raises_in_an_audit_ends_the_audit_and_is_told():
    made = gateway(sections=BrokenSections(), audits=AuditRules(share=1.0))
    report_all(made)
    asked = keep(made, made.on_time(0.0, WALL))
    assert [m.topic for m in asked if m.topic.startswith("s/q/")] == ["s/q/0", "s/q/1", "s/q/2"]
    effects = []
    for member in range(3):
        payload = wire.encode(
            Kind.FEATURES, tag=TAG, boot=1, slot=SLOT, body=bytes([1, BROKEN, 0, 0])
        )
        effects += made.on_message(Message(f"s/f/{member}", payload), 0.0, WALL)
    (fault,) = effects
    assert fault.what == f"handling a message on s/f/2: the audit of slot {SLOT}"
    assert made.counts["audit.given_up.error"] == 1
    assert len(made.audits) == 0
