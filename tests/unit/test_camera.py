"""The camera's rules: outages, clocks, and nothing mislabelled."""

import numpy as np
import pytest

from ddnn import wire
from ddnn.message import Message
from ddnn.wire import Flag, Kind
from device_agent.agent import Agent
from device_agent.camera import Camera, CameraRules
from device_agent.pacing import Pacer
from tests.simulation.bundles import DeviceSection, bundle, view

WALL = 1_800_000_000.0
BUNDLE = bundle(1, 2)


def camera(**rules):
    agent = Agent(1, 7, 8, DeviceSection)
    agent.load(BUNDLE)
    made = Camera(CameraRules("s", 1.0, **rules), agent, Pacer(1.0, live=True))
    made.on_connected()
    return made


def show(made, now, *, step=0.0, offset=0.0):
    """One view at monotonic `now`; the wall clock steps by `step` in the middle of it."""
    wall = WALL + now + offset
    assert made.due(wall, now) is not None
    slot = made.begin(wall, now)
    summary = made.agent.view(slot, view(slot, 0))
    return slot, made.finish(slot, summary, wall + 0.01 + step, now + 0.01)


def test_view_is_sent_at_once_at_qos_0():
    slot, (message,) = show(camera(), 5.0)
    frame = wire.decode(message.payload)
    assert (message.topic, message.qos, message.keep) == ("s/s/1", 0, False)
    assert (frame.kind, frame.slot, frame.flags) == (Kind.SUMMARY, slot, 0)


def test_views_of_an_outage_are_sent_afterwards_as_backlog_behind_the_fresh_one():
    made = camera(backlog_per_s=2.0)
    made.on_disconnected(0.0)
    slots = [show(made, float(n))[0] for n in range(5)]
    made.on_connected()
    _, messages = show(made, 5.0)
    frames = [wire.decode(m.payload) for m in messages]
    assert frames[0].flags == 0
    assert [(f.slot, f.flags) for f in frames[1:]] == [(s, Flag.BACKLOG) for s in slots[:2]]
    assert all(m.qos == 1 and m.keep and m.receipt == f.slot for m, f in
               zip(messages[1:], frames[1:], strict=True))  # fmt: skip


def test_backlog_is_acknowledged_one_by_one():
    made = camera(backlog_per_s=100.0)
    made.on_disconnected(0.0)
    slot, _ = show(made, 0.0)
    made.on_connected()
    assert len(made.on_time(1.0)) == 1
    assert made.on_time(2.0) == []
    made.unsent(slot)
    assert len(made.on_time(3.0)) == 1
    made.sent(slot)
    assert len(made.outbox) == 0


def test_backlog_older_than_the_gateways_window_is_dropped():
    made = camera(outbox_age_s=30.0)
    made.on_disconnected(0.0)
    show(made, 0.0)
    made.on_time(31.0)
    assert made.agent.counts["outbox.expired"] == 1


def test_summaries_that_a_dead_connection_may_have_swallowed_are_sent_again():
    made = camera(unsure_s=2.5)
    slots = [show(made, float(n))[0] for n in range(5)]
    made.on_disconnected(4.1)
    made.on_connected()
    again = [wire.decode(m.payload).slot for m in made.on_time(5.0)]
    assert again == slots[2:]


def test_view_taken_across_a_clock_step_is_dropped_and_counted():
    made = camera()
    show(made, 0.0)
    _, messages = show(made, 1.0, step=50.0)
    assert messages == []
    assert made.agent.counts["dropped_clock_step"] == 1


@pytest.mark.parametrize("step", [-3600.0, -3.0, 3.0, 3600.0])
def test_after_a_clock_step_slots_go_on_with_another_boot_id(step):
    made = camera()
    _, (before,) = show(made, 0.0)
    slot, (after,) = show(made, 1.0, offset=step)
    assert slot == int(WALL + 1.0 + step)
    assert wire.decode(after.payload).boot != wire.decode(before.payload).boot
    assert made.agent.counts["clock_steps"] == 1


def test_request_for_a_slot_from_before_a_step_gets_no_features():
    made = camera()
    slot, _ = show(made, 0.0)
    show(made, 1.0, offset=-3600.0)
    request = wire.encode(Kind.REQUEST, tag=BUNDLE.tag, boot=1, slot=slot)
    (answer,) = made.on_request(Message("s/q/1", request), WALL)
    assert wire.decode(answer.payload).flags == Flag.ABSENT


def test_nothing_is_shown_while_the_clock_is_not_set():
    made = camera()
    assert made.due(100.0, 5.0) is None
    assert "not set" in made.clock.describe()
    assert made.due(WALL, 6.0) is not None


def test_malformed_request_is_counted():
    made = camera()
    assert made.on_request(Message("s/q/1", b"\xff"), WALL) == []
    assert made.agent.counts["malformed"] == 1


def test_features_are_what_the_view_gave():
    made = camera()
    slot, _ = show(made, 0.0)
    request = wire.encode(Kind.REQUEST, tag=BUNDLE.tag, boot=1, slot=slot)
    (answer,) = made.on_request(Message("s/q/1", request), WALL)
    body = np.frombuffer(wire.decode(answer.payload).body, np.uint8)
    assert body.tolist() == [1, 1, slot & 255, slot >> 8 & 255, slot >> 16 & 255, 0]
