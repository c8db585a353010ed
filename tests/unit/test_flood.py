"""A member that floods is left out; one that only catches up is not."""

from hypothesis import given, settings
from hypothesis import strategies as st

from ddnn import topics
from ddnn.flood import FIRST_S, LONGEST_S, FloodGuard
from ddnn.message import Message
from edge_gateway.intake import Intake

PERIOD_S = 0.1
STALL_S = 15.0


def flood(guard, node, now, count=1000, size=13):
    """True if so many messages at once were too many."""
    return sum(guard.on_message(node, size, now) for _ in range(count)) > 0


@settings(deadline=None)
@given(period_s=st.floats(0.01, 60), hours=st.integers(1, 3))
def test_camera_that_sends_two_frames_per_slot_is_never_shut_out(period_s, hours):
    guard = FloodGuard(period_s, STALL_S)
    now = 0.0
    for _ in range(hours * 300):
        now += period_s
        assert not guard.on_message("device-0", 13, now)
        assert not guard.on_message("device-0", 4000, now)


def test_camera_that_catches_up_after_an_outage_is_not_shut_out():
    guard = FloodGuard(PERIOD_S, STALL_S)
    # A second's worth at once, then 20 per second beside the fresh ones.
    assert not flood(guard, "device-0", 0.0, count=20)
    for tick in range(1000):
        now = tick * 0.05
        assert not guard.on_message("device-0", 13, now)
        if tick % 2:
            assert not guard.on_message("device-0", 13, now)


@settings(deadline=None)
@given(period_s=st.floats(0.02, 1.0), stall_s=st.floats(3.0, 90.0), members=st.integers(1, 6))
def test_gateway_that_stood_still_shuts_nobody_out(period_s, stall_s, members):
    """Everything that the cameras sent meanwhile comes at once, and then goes on as ever."""
    guard = FloodGuard(period_s, stall_s)
    slots = int(stall_s / period_s)
    for slot in range(slots + 20):
        now = 100.0 + max(0, slot - slots) * period_s
        for member in range(members):
            assert not guard.on_message(f"device-{member}", 13, now)
            assert not guard.on_message(f"device-{member}", 2000, now)


@settings(deadline=None)
@given(period_s=st.floats(0.02, 1.0), stall_s=st.floats(3.0, 90.0))
def test_camera_whose_network_stood_still_is_not_shut_out(period_s, stall_s):
    """Its summaries come at once while the others send as ever."""
    guard = FloodGuard(period_s, stall_s)
    for slot in range(50):
        for member in (1, 2):
            assert not guard.on_message(f"device-{member}", 13, 100.0 + slot * period_s)
    now = 100.0 + 50 * period_s
    assert not any(
        guard.on_message("device-0", 13, now) for _ in range(int(stall_s / period_s) - 1)
    )


def test_flood_beside_other_cameras_is_found_sooner():
    guard = FloodGuard(PERIOD_S, STALL_S)
    guard.on_message("device-1", 13, 0.0)
    said = [guard.on_message("device-3", 13, 0.0) for _ in range(1000)]
    assert said.index(True) == int(guard.burst_alone) < guard.burst / 2


def test_flood_of_messages_is_found_within_a_burst():
    guard = FloodGuard(PERIOD_S, STALL_S)
    allowed = int(guard.burst)
    assert not flood(guard, "device-3", 0.0, count=allowed)
    assert guard.on_message("device-3", 13, 0.0)
    assert guard.shut_out == ["device-3"]
    assert not guard.is_out("device-2")


def test_flood_of_bytes_is_found():
    guard = FloodGuard(PERIOD_S, STALL_S)
    assert flood(guard, "device-1", 0.0, count=5, size=int(guard.burst_bytes / 2))


def test_shut_out_is_said_once():
    guard = FloodGuard(PERIOD_S, STALL_S)
    said = [guard.on_message("device-3", 13, 0.0) for _ in range(1000)]
    assert sum(said) == 1


def test_each_further_flood_costs_twice_as_long_up_to_a_limit():
    guard = FloodGuard(PERIOD_S, STALL_S)
    now, times = 0.0, []
    for _ in range(10):
        assert flood(guard, "device-3", now)
        began = now
        while guard.shut_out:
            now += 30.0
            guard.on_time(now)
        times.append(now - began)
    assert times[:3] == [FIRST_S, 2 * FIRST_S, 4 * FIRST_S]
    assert times[-1] == LONGEST_S


class Broker:
    def __init__(self):
        self.filters = set()
        self.packets = []

    def subscribe(self, topic_filter, handler, *, qos=1):
        self.filters.add(topic_filter)

    def unsubscribe(self, *topic_filters):
        self.filters -= set(topic_filters)
        self.packets.append(topic_filters)


def test_gateway_stops_listening_to_the_flooding_camera_alone_and_later_listens_again():
    broker = Broker()
    intake = Intake(broker, "s1", PERIOD_S, STALL_S, lambda message: None)
    intake.start()
    members = {f"device-{n}": (topics.summary("s1", n), topics.features("s1", n)) for n in range(6)}
    intake.follow(members)
    everything = set(broker.filters)
    own = {
        topics.summary("s1", 5), topics.features("s1", 5), topics.status("s1", "device-5"),
    }  # fmt: skip
    admitted = [intake.admits(Message(topics.summary("s1", 5), b"x"), 1.0) for _ in range(1000)]
    assert not all(admitted)
    assert broker.filters == everything - own
    assert [set(packet) for packet in broker.packets] == [own]
    assert "5" in intake.notes()["flood"]
    assert intake.admits(Message(topics.summary("s1", 4), b"x"), 1.0)
    assert not intake.admits(Message(topics.status("s1", "device-5"), b"x"), 1.0)
    intake.on_time(1.0 + FIRST_S)
    assert broker.filters == everything
    assert intake.notes() == {}


def test_gateway_hears_the_members_of_its_bundle_and_nobody_else():
    broker = Broker()
    intake = Intake(broker, "s1", PERIOD_S, STALL_S, lambda message: None)
    intake.start()
    statuses = set(broker.filters)
    assert topics.status("s1", "gateway-1") in statuses
    intake.follow({"device-0": ("s1/s/0", "s1/f/0"), "device-1": ("s1/s/1", "s1/f/1")})
    intake.follow({"device-1": ("s1/s/1", "s1/f/1"), "gateway-0": ("s1/S/0", "s1/F/0")})
    assert broker.filters - statuses == {"s1/s/1", "s1/f/1", "s1/S/0", "s1/F/0"}


def test_flooding_camera_stays_shut_out_over_a_change_of_bundle():
    broker = Broker()
    intake = Intake(broker, "s1", PERIOD_S, STALL_S, lambda message: None)
    pair = ("s1/s/5", "s1/f/5")
    intake.follow({"device-5": pair})
    while intake.admits(Message("s1/s/5", b"x"), 1.0):
        pass
    intake.follow({})
    intake.follow({"device-5": pair})
    assert not broker.filters & set(pair)
    intake.on_time(1.0 + FIRST_S)
    assert set(pair) <= broker.filters


def test_what_is_not_of_a_member_is_always_admitted():
    intake = Intake(Broker(), "s1", PERIOD_S, STALL_S, lambda message: None)
    for topic in (topics.answer("s1"), topics.settings("s1"), topics.status("s1", "gateway"),
                  "s1/s/x", "s1/s/99999", "s1/s/32"):  # fmt: skip
        assert all(intake.admits(Message(topic, b"x"), 0.0) for _ in range(1000))
