"""The rules around the database, without one: rows, counts, ledgers, batches, recalls."""

import math
from collections import Counter

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloud_service.records import pursuit as p
from cloud_service.records.counting import (
    LAST_BIN,
    Tally,
    bucket,
    latency_bin,
    latency_ms,
    quantile,
    tallies_of,
)
from cloud_service.records.intake import MAX_PAUSE_S, Intake, Waiting
from cloud_service.records.ledgers import Ledger, compare, decode
from cloud_service.records.pursuit import Ask, Pursuit
from cloud_service.records.rows import check, decision_of, mask_of, members_of, row_of
from cloud_service.records.writer import Heard
from ddnn.errors import WireError
from ddnn.message import Message
from tests.records import decision, decisions

# -- rows ------------------------------------------------------------------------------------


@given(decisions)
def test_row_holds_the_whole_decision(given_decision):
    check(given_decision)
    row = row_of(given_decision, 7)
    assert decision_of(row, given_decision.site) == given_decision
    assert all(-(2**63) <= row[name] < 2**63 for name in ("slot", "time_us", "payload_bytes"))


@given(st.sets(st.integers(0, 31)))
def test_mask_names_the_same_members(members):
    assert set(members_of(mask_of(members))) == members


@pytest.mark.parametrize(
    "changes",
    [
        {"site": "a/b"},
        {"site": "ddnn"},
        {"site": "x" * 33},
        {"slot": 2**63},
        {"time_s": 1e300},
        {"time_s": math.inf},
        {"label": "a\0b"},
        {"label": "x" * 201},
        {"degraded": "x" * 201},
        {"probability": math.nan},
        {"entropy": math.inf},
        {"used": (32,)},
        {"used": (-1,)},
        {"missing": (1, 1)},
        {"absent": (2, 1)},
        {"stage_ms": {"a": -1.0}},
        {"stage_ms": {"a": math.inf}},
        {"stage_ms": {str(n): 1.0 for n in range(17)}},
        {"payload_bytes": -1},
        {"bundle_tag": 2**16},
    ],
    ids=str,
)
def test_decision_that_no_gateway_makes_is_refused(changes):
    with pytest.raises(WireError):
        check(decision(**changes))


# -- counts ----------------------------------------------------------------------------------


@given(st.floats(0, 1e6))
def test_latency_is_at_most_its_bins_edge_and_not_much_below(ms):
    number = latency_bin([ms])
    assert 0 <= number <= LAST_BIN
    if number < LAST_BIN:
        assert ms <= latency_ms(number) + 0.01
    if number:
        assert ms > latency_ms(number - 1) - 0.01


@given(st.lists(st.floats(0.3, 1e5), min_size=1), st.sampled_from([0.5, 0.99]))
def test_quantile_is_at_most_a_bin_above_the_exact_one(values, share):
    found = quantile(dict(Counter(latency_bin([value]) for value in values)), share)
    exact = sorted(values)[math.ceil(share * len(values)) - 1]
    assert exact <= found + 0.01
    assert found <= exact * 2**0.25 + 0.02


def test_bucket_of_nothing_has_no_latency():
    assert bucket(0, Counter()).latency_ms_p50 is None


def test_bucket_counts_what_its_decisions_say():
    counts = Counter()
    for each in (
        decision(1),
        decision(2, exit="edge", degraded="overload", label="car", missing=()),
        decision(3, exit=None, label=None, used=(), absent=(0, 1, 2, 3), missing=()),
    ):
        for tally, count in tallies_of(each):
            counts[tally] += count
    found = bucket(300, counts, member_bytes=[10, 20, 30, 40])
    assert (found.decided, found.degraded, found.by_degraded) == (2, 1, {"overload": 1})
    assert found.by_exit == {"edge": 1, "local": 1, "nothing_seen": 1}
    assert found.by_label == {"bus": 1, "car": 1}
    assert (found.missing, found.reported) == ({3: 1}, {0: 3, 1: 3, 2: 3, 3: 1})
    assert (found.payload_bytes, found.raw_bytes) == (108, 3 * (10 + 20 + 30) + 40)
    assert counts[Tally("label", "bus")] == 1


# -- ledgers ---------------------------------------------------------------------------------


def ledger(decided, **counts):
    return Ledger(opened=decided, decided=decided, **counts)


def test_decisions_from_before_our_time_are_not_lost():
    balance, lost = compare(None, ledger(5000), 0)
    assert lost == 0
    assert compare(balance, ledger(5010), 10)[1] == 0


def test_decision_that_did_not_come_is_lost_until_it_comes():
    balance, _ = compare(None, ledger(5000), 1000)
    balance, lost = compare(balance, ledger(5010), 1007)
    assert lost == 3
    balance, lost = compare(balance, ledger(5011), 1011)
    assert lost == 0


def test_decisions_recalled_from_before_our_time_hide_no_loss_afterwards():
    balance, _ = compare(None, ledger(5000), 0)
    balance, lost = compare(balance, ledger(5000), 1024)
    assert lost == 0
    assert compare(balance, ledger(5002), 1024)[1] == 2


def test_gateway_that_lost_its_journal_begins_anew():
    balance, _ = compare(None, ledger(5000), 5000)
    balance, lost = compare(balance, ledger(3), 5003)
    assert lost == 0
    assert compare(balance, ledger(4), 5003)[1] == 1


def test_decisions_that_wait_in_the_gateway_are_not_lost():
    balance, _ = compare(None, ledger(100), 100)
    assert compare(balance, ledger(150, unsent=50), 100)[1] == 0


@given(st.lists(st.tuples(st.integers(0, 20), st.integers(0, 20)), max_size=30))
def test_lost_is_what_was_made_and_did_not_come(steps):
    """Whatever the order, once all have come nothing is lost."""
    made = come = 100
    balance, _ = compare(None, ledger(made), come)
    for more, arrives in steps:
        made += more
        come = min(made, come + arrives)
        balance, lost = compare(balance, ledger(made), come)
        assert lost == made - come
    assert compare(balance, ledger(made), made)[1] == 0


@pytest.mark.parametrize("payload", [b"", b"[]", b'{"decided":-1}', b'{"decided":1e3}', b"\xff"])
def test_malformed_ledger_is_refused(payload):
    with pytest.raises(WireError):
        decode(payload)


# -- batches ---------------------------------------------------------------------------------


def waiting(number, connection=0, since=0.0):
    return Waiting(decision(number), Message("t", b"", delivery=(connection, number)), since)


def numbers(batch):
    return [each.content.slot for each in batch]


def test_batch_is_taken_when_it_is_large_enough_or_its_first_has_waited():
    intake = Intake(3, 5, 0.2, 100)
    intake.put(waiting(1, since=10.0))
    intake.put(waiting(2, since=10.1))
    assert intake.deadline() == pytest.approx(10.2)
    assert intake.take(10.19) == []
    assert numbers(intake.take(10.2)) == [1, 2]
    intake.put(waiting(3, since=10.15))
    assert numbers(intake.take(10.15)) == [1, 2, 3]


def test_batch_that_failed_stays_and_is_tried_again_with_growing_pauses():
    intake = Intake(1, 10, 0.2, 100)
    intake.put(waiting(1))
    now, pauses = 0.0, []
    for _ in range(8):
        assert numbers(intake.take(now)) == [1]
        pauses.append(intake.failed(now))
        assert intake.take(now + pauses[-1] - 0.01) == []
        now += pauses[-1]
    assert pauses == sorted(pauses)
    assert pauses[-1] == MAX_PAUSE_S
    intake.take(now)
    intake.stored()
    assert len(intake) == 0
    intake.put(waiting(2, since=now))
    assert numbers(intake.take(now)) == [2]


def test_what_came_while_a_batch_was_stored_is_not_taken_for_stored():
    intake = Intake(1, 2, 0.2, 100)
    intake.put(waiting(1))
    intake.take(0.0)
    intake.put(waiting(2))
    intake.stored()
    assert numbers(intake.take(0.0)) == [2]


def test_without_room_the_oldest_of_an_earlier_connection_goes_but_not_the_batch_in_hand():
    intake = Intake(1, 1, 0.2, 3)
    for number in (1, 2, 3):
        intake.put(waiting(number))
    assert numbers(intake.take(0.0)) == [1]
    assert intake.put(waiting(4, connection=1))
    intake.stored()
    assert intake.put(waiting(5, connection=1))
    seen = []
    while batch := intake.take(0.0):
        seen += numbers(batch)
        intake.stored()
    assert seen == [3, 4, 5]


def test_without_room_a_message_of_this_connection_must_be_sent_again():
    intake = Intake(1, 1, 0.2, 2)
    assert intake.put(waiting(1))
    assert intake.put(waiting(2))
    assert not intake.put(waiting(3))


def test_ledgers_give_way_to_decisions():
    intake = Intake(2, 2, 0.2, 10)
    intake.put(waiting(1))
    intake.put(waiting(2))
    assert intake.put(Waiting(Heard("s1", Ledger(), 0.0), Message("t", b""), 0.0))
    assert len(intake) == 2


# -- recalls ---------------------------------------------------------------------------------

LIFE = (1, 0.0)


def asking(anchor=1000, newest=1300):
    pursuit = Pursuit()
    pursuit.gateway("s1", LIFE, online=True)
    assert pursuit.next_site() == "s1"
    assert pursuit.begin("s1", anchor, newest, 0.0) == Ask("s1", anchor)
    assert pursuit.next_site() is None
    return pursuit


def answer(pursuit, slots):
    for slot in slots:
        pursuit.stored("s1", slot)


def test_gateway_that_was_there_all_along_is_asked_once():
    pursuit = asking()
    answer(pursuit, range(1000, 1100))
    assert pursuit.on_time(p.WAIT_S) == []
    pursuit.gateway("s1", LIFE, online=True)
    assert pursuit.next_site() is None


def test_full_answer_is_asked_on_from_its_last_slot():
    pursuit = asking()
    answer(pursuit, range(1000, 1256))
    assert pursuit.on_time(p.WAIT_S) == [Ask("s1", 1255)]
    answer(pursuit, range(1255, 1301))
    assert pursuit.on_time(2 * p.WAIT_S) == []
    assert not pursuit.unanswered


def test_fresh_decisions_do_not_pass_for_an_answer():
    pursuit = asking()
    now = 0.0
    for attempt in range(1, p.ATTEMPTS):
        answer(pursuit, range(1301, 1310))
        now += p.WAIT_S * 2 ** (attempt - 1)
        assert pursuit.on_time(now) == [Ask("s1", 1000)]
    assert pursuit.on_time(now + 100) == []
    assert pursuit.unanswered == {"s1"}


@pytest.mark.parametrize("life", [(2, 0.0), (1, 5.0)])
def test_gateway_that_started_anew_is_asked(life):
    pursuit = asking()
    answer(pursuit, [1000])
    pursuit.on_time(p.WAIT_S)
    pursuit.gateway("s1", life, online=True)
    assert pursuit.next_site() == "s1"


def test_gateway_that_is_offline_is_asked_when_it_comes_back():
    pursuit = Pursuit()
    pursuit.gateway("s1", LIFE, online=False)
    assert pursuit.next_site() is None
    pursuit.gateway("s1", LIFE, online=True)
    assert pursuit.next_site() == "s1"


def test_every_gateway_is_asked_after_a_reconnect():
    pursuit = asking()
    pursuit.connected()
    assert pursuit.on_time(100.0) == []
    pursuit.gateway("s1", LIFE, online=True)
    assert pursuit.next_site() == "s1"


def test_what_the_ledger_misses_is_asked_for_once():
    pursuit = asking()
    answer(pursuit, [1000])
    pursuit.on_time(p.WAIT_S)
    pursuit.lost("s1", 3, 10.0)
    assert pursuit.next_site() is None  # it may still be on its way
    pursuit.lost("s1", 3, 10.0 + p.LOST_AFTER_S)
    assert pursuit.next_site() == "s1"
    pursuit.begin("s1", 1000, 1300, 20.0)
    answer(pursuit, [1000])
    pursuit.on_time(20.0 + p.WAIT_S)
    for now in range(30, 60):
        pursuit.lost("s1", 3, float(now))
    assert pursuit.next_site() is None  # the gateway does not have it either
    pursuit.lost("s1", 4, 60.0)
    pursuit.lost("s1", 4, 70.0)
    assert pursuit.next_site() == "s1"


def test_what_is_lost_while_an_answer_comes_is_asked_for_afterwards():
    pursuit = asking()
    pursuit.lost("s1", 10, 0.5)
    answer(pursuit, [1000])
    pursuit.on_time(p.WAIT_S)
    pursuit.lost("s1", 10, 3.0)
    pursuit.lost("s1", 10, 3.0 + p.LOST_AFTER_S)
    assert pursuit.next_site() == "s1"


def test_few_sites_are_asked_at_a_time():
    pursuit = Pursuit()
    for n in range(20):
        pursuit.gateway(f"s{n}", LIFE, online=True)
    asked = []
    while (name := pursuit.next_site()) is not None:
        asked.append(name)
        pursuit.begin(name, None, None, 0.0)
    assert len(asked) == p.MAX_AT_ONCE


def test_bucket_and_cursor_can_be_written_as_json():
    assert msgspec.json.decode(msgspec.json.encode(bucket(0, Counter())))["start_s"] == 0
