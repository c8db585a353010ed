"""The small pure parts that outages, restarts and clocks are handled with."""

import pytest

from ddnn.breaker import Breaker
from ddnn.clock import EARLIEST_WALL_S, ClockMonitor
from ddnn.members import Members
from ddnn.outbox import Outbox
from ddnn.scores import clearness, quantise
from ddnn.slots import ClosedSlots
from device_agent.pacing import Pacer

# -- breaker -----------------------------------------------------------------------------------


def opened(failures=3):
    breaker = Breaker(failures, first_pause_s=1.0, max_pause_s=4.0)
    for _ in range(failures):
        assert breaker.take(10.0)
        breaker.failed(10.0)
    return breaker


def test_breaker_opens_after_failures_in_a_row_only():
    breaker = Breaker(failures=2)
    for _ in range(5):
        breaker.failed(0.0)
        breaker.succeeded()
    assert breaker.state == "closed"
    breaker.failed(0.0)
    breaker.failed(0.0)
    assert breaker.state == "open"
    assert not breaker.permits(0.5)


def test_one_probe_at_a_time_and_its_success_closes():
    breaker = opened()
    assert not breaker.take(10.9)
    assert breaker.take(11.0)
    assert not breaker.take(11.5)
    breaker.succeeded()
    assert breaker.take(11.5)


def test_failed_probes_come_ever_less_often_up_to_a_bound():
    breaker, now, pauses = opened(), 11.0, []
    for _ in range(5):
        assert breaker.take(now)
        breaker.failed(now)
        began = now
        while not breaker.permits(now):
            now += 0.5
        pauses.append(now - began)
    assert pauses == [2.0, 4.0, 4.0, 4.0, 4.0]


def test_probe_that_is_never_heard_of_does_not_block_for_ever():
    breaker = opened()
    assert breaker.take(11.0)
    assert breaker.take(12.0)


def test_breaker_opens_at_once_when_nobody_is_there_and_probes_when_somebody_is():
    breaker = Breaker()
    breaker.trip(0.0)
    assert not breaker.take(0.1)
    breaker.probe_now(0.2)
    assert breaker.take(0.2)
    assert breaker.opened == 1


# -- clock -------------------------------------------------------------------------------------


def test_slewing_is_no_step_and_a_step_is_measured():
    clock = ClockMonitor(tolerance_s=0.25)
    wall = EARLIEST_WALL_S + 1e6
    for second in range(1000):
        assert clock.look(wall + second * 1.0005, float(second)) == 0.0
    assert clock.look(wall + 1000.5 - 7.0, 1000.0) == pytest.approx(-7.0, abs=0.01)
    assert "stepped 1 times, last by -" in clock.describe()


def test_clock_of_1970_is_not_set():
    clock = ClockMonitor()
    clock.look(12.0, 5.0)
    assert not clock.is_set
    assert "not set" in clock.describe()
    assert clock.look(EARLIEST_WALL_S + 10, 6.0) > 1e9
    assert clock.is_set


# -- outbox ------------------------------------------------------------------------------------


def box(**options):
    return Outbox(**({"max_bytes": 30, "max_age_s": 10.0, "max_in_flight": 2} | options))


def test_outbox_hands_out_the_oldest_first_and_keeps_until_acknowledged():
    outbox = box()
    for key in (3, 1, 2):
        assert outbox.put(key, b"12345", 0.0) == []
    assert [held.key for held in outbox.take(0.0, 9)] == [3, 1]
    assert outbox.take(0.0, 9) == []
    assert outbox.acknowledged(3)
    assert not outbox.acknowledged(3)
    assert [held.key for held in outbox.take(0.0, 9)] == [2]
    assert len(outbox) == 2


def test_outbox_over_its_bytes_drops_the_oldest_and_counts_it():
    outbox = box()
    dropped = [key for n in range(10) for key in outbox.put(n, bytes(10), 0.0)]
    assert dropped == list(range(7))
    assert outbox.held_bytes == 30
    assert outbox.counts["outbox.overflow"] == 7
    assert outbox.put(99, bytes(31), 0.0) == [7, 8, 9, 99]
    assert outbox.held_bytes == 0


def test_outbox_drops_what_is_too_old():
    outbox = box()
    outbox.put(1, b"a", 0.0)
    outbox.take(0.0, 1)
    outbox.put(2, b"b", 5.0)
    assert outbox.expire(10.0) == []
    assert outbox.expire(11.0) == [1]
    assert outbox.expire(16.0) == [2]
    assert (len(outbox), outbox.held_bytes, outbox.counts["outbox.expired"]) == (0, 0, 2)


def test_message_that_could_not_be_sent_is_the_next_one_again():
    outbox = box()
    outbox.put(1, b"a", 0.0)
    outbox.put(2, b"b", 0.0)
    outbox.take(0.0, 1)
    outbox.give_back(1)
    assert [held.key for held in outbox.take(0.0, 2)] == [1, 2]


def test_repeated_key_is_held_once():
    outbox = box()
    outbox.put(1, b"first", 0.0)
    outbox.put(1, b"second", 0.0)
    assert [held.payload for held in outbox.take(0.0, 5)] == [b"first"]


# -- closed slots ------------------------------------------------------------------------------


def test_closed_slots_are_bounded_and_none_is_ever_open_again():
    closed = ClosedSlots(limit=10)
    for slot in range(100, 200):
        closed.add(slot)
    assert len(closed) == 10
    assert all(slot in closed for slot in range(200))
    assert 200 not in closed
    copied = closed.copy()
    copied.add(200)
    assert 200 not in closed
    assert 150 in copied


def test_future_slot_does_not_close_those_before_it():
    closed = ClosedSlots(limit=10)
    closed.add(1000)
    assert 999 not in closed


# -- members -----------------------------------------------------------------------------------


def test_every_member_is_believed_alive_at_first():
    assert Members(3, 2).alive() == {0, 1, 2}


def test_report_brings_back_a_member_that_was_said_to_be_down():
    members = Members(2, 2)
    members.said(1, False)
    assert members.alive() == {0}
    members.reported(1)
    assert members.alive() == {0, 1}


# -- scores ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("scores", "expected"), [(b"", 0), (b"\x80", 0), (b"\x10\x80\x40", 64), (b"\xff\xff", 0)]
)
def test_clearness_is_the_lead_of_the_best_class(scores, expected):
    assert clearness(scores) == expected


def test_quantised_logits_keep_order_and_differences():
    import numpy as np

    assert quantise(np.array([0, 100, -100], np.int32), 0.01).tolist() == [239, 255, 223]
    assert quantise(np.array([[-(2**31), 2**31 - 1]], np.int32), 1.0).tolist() == [[0, 255]]


# -- pacing ------------------------------------------------------------------------------------


def test_live_source_skips_what_it_missed_and_repeats_nothing():
    pacer = Pacer(1.0, live=True)
    assert pacer.next(100.0) == (100, 0.0)
    pacer.shown(100)
    assert pacer.next(100.2) == (101, pytest.approx(0.8))
    assert pacer.next(107.1) == (107, 0.0)


def test_live_source_does_not_begin_in_the_second_half_of_a_slot():
    assert Pacer(1.0, live=True).next(100.98) == (101, pytest.approx(0.02))


def test_live_source_follows_a_clock_that_was_set_back():
    pacer = Pacer(1.0, live=True)
    pacer.shown(5000)
    pacer.clock_stepped()
    assert pacer.next(100.0) == (100, 0.0)


def test_replay_leaves_no_sample_out_however_late_it_is():
    pacer = Pacer(1.0, live=False, first_slot=100)
    shown = []
    for _ in range(3):
        slot, wait_s = pacer.next(5000.0)
        assert wait_s == 0.0
        pacer.shown(slot)
        shown.append(slot)
    assert shown == [100, 101, 102]


def test_replay_of_an_agent_that_was_killed_goes_on_where_the_others_are():
    pacer = Pacer(1.0, live=False, first_slot=100, hurry_s=5.0)
    assert pacer.next(104.9) == (100, 0.0), "a little late: it hurries"
    assert pacer.next(160.2) == (160, 0.0)
    pacer.shown(160)
    assert pacer.next(160.4) == (161, pytest.approx(0.6))
