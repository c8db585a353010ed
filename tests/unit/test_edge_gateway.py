"""The gateway's rules where a site has several edges: below, reports; above, edges as members."""

import pytest

from ddnn import decisions, status, wire
from ddnn.journal import Ended, read
from ddnn.message import Message, Publish
from ddnn.place import Place
from ddnn.wire import Flag, Kind
from edge_gateway.effects import Keep
from edge_gateway.gateway import Gateway, GatewayRules
from tests.fakes import TAG, FakeSections, without_faults

CLASSES = ("car", "bus", "person")
WALL = 1_800_000_000.0
SLOT = 1_800_000_000
BELOW = Place(1, "cameras", (2, 5))
ABOVE = Place(None, "edges", (0, 1))


def gateway(place, journal=b"", *, boot=9, **rules):
    made = Gateway(GatewayRules(site="s", period_s=1.0, **rules), boot, journal, now=0.0)
    sections = FakeSections(members=2)
    if place is ABOVE:
        sections.feature_bytes = 3 + 4
    made.journal = bytearray(journal)
    made.first = keep(made, made.activate(sections, CLASSES, 0.0, WALL, place=place))
    keep(made, made.on_connected(0.0))
    return made


def keep(made, effects):
    effects = without_faults(effects)
    made.journal += b"".join(effect.data for effect in effects if isinstance(effect, Keep))
    return [effect for effect in effects if isinstance(effect, Publish)]


def take(made, topic, payload, now=0.0):
    return keep(made, made.on_message(Message(topic, payload), now, WALL))


def frame(kind, body=b"", *, boot=1, flags=0, tag=TAG, slot=SLOT):
    return wire.encode(kind, tag=tag, boot=boot, slot=slot, flags=flags, body=body)


def report_up(made, *, sure=False, **fields):
    return [
        m
        for n in (2, 5)
        for m in take(made, f"s/s/{n}", frame(Kind.SUMMARY, bytes([sure, 0, 0]), **fields))
    ]


# -- below ---------------------------------------------------------------------------------------


def test_edge_gateway_sends_its_scores_as_a_summary_of_its_own():
    (sent,) = report_up(gateway(BELOW), sure=True)
    assert (sent.topic, sent.qos, sent.keep) == ("s/S/1", 0, False)
    summary = wire.decode(sent.payload)
    assert summary[:5] == (Kind.SUMMARY, 0, TAG, 9, SLOT)
    assert summary.body == bytes([255, 95, 95])  # 1000 steps of 0.01 ahead: 10 nats, 160 steps


def test_edge_gateway_ignores_cameras_of_another_edge():
    made = gateway(BELOW)
    for topic in ("s/s/0", "s/s/4", "s/S/5"):
        assert take(made, topic, frame(Kind.SUMMARY, b"\0\0\0")) == []
    assert made.ledger()["unknown_member"] == 3
    assert made.ledger()["opened"] == 0


def test_request_from_above_goes_down_to_the_cameras_and_their_answer_comes_up():
    made = gateway(BELOW)
    report_up(made)
    asked = take(made, "s/Q/1", frame(Kind.REQUEST, boot=77))
    assert [m.topic for m in asked] == ["s/q/2", "s/q/5"]
    take(made, "s/f/2", frame(Kind.FEATURES, b"\1\0\0\0"))
    (sent,) = take(made, "s/f/5", frame(Kind.FEATURES, b"\1\0\0\0"))
    assert (sent.topic, sent.qos) == ("s/F/1", 1)
    assert wire.decode(sent.payload).body == bytes([95, 255, 95]) + b"edge"
    ledger = made.ledger()
    assert (ledger["opened"], ledger["passed"], ledger["open"]) == (1, 1, 0)


def test_camera_that_keeps_its_features_makes_the_answer_partial():
    made = gateway(BELOW)
    report_up(made)
    take(made, "s/Q/1", frame(Kind.REQUEST))
    take(made, "s/f/2", frame(Kind.FEATURES, b"\1\0\0\0"))
    (sent,) = take(made, "s/f/5", frame(Kind.FEATURES, flags=Flag.ABSENT))
    assert wire.decode(sent.payload).flags == Flag.PARTIAL


@pytest.mark.parametrize(
    "request_", [frame(Kind.REQUEST, tag=TAG + 1), frame(Kind.FEATURES), b"", b"junk" * 9]
)
def test_request_from_above_that_is_none_changes_nothing(request_):
    made = gateway(BELOW)
    report_up(made)
    assert take(made, "s/Q/1", request_) == []
    assert made.ledger()["open"] == 1


def test_sites_gateway_takes_no_requests():
    made = gateway(ABOVE)
    assert take(made, "s/Q/1", frame(Kind.REQUEST)) == []


def test_slot_that_was_passed_on_is_in_the_journal_and_is_not_opened_again():
    made = gateway(BELOW)
    report_up(made)
    keep(made, made.on_time(100.0, WALL))
    (ended,) = [r for r in read(bytes(made.journal)).records if isinstance(r, Ended)]
    assert (ended.slot, ended.counts, ended.decision) == (SLOT, ("passed",), None)
    after = gateway(BELOW, bytes(made.journal), boot=10)
    assert report_up(after) == []
    assert after.ledger()["passed"] == 1


def test_restart_reports_again_what_the_site_may_still_wait_for():
    before = gateway(BELOW)
    take(before, "s/s/2", frame(Kind.SUMMARY, b"\1\0\0"))
    after = gateway(BELOW, bytes(before.journal), boot=10)
    (sent,) = take(after, "s/s/5", frame(Kind.SUMMARY, b"\1\0\0"))
    summary = wire.decode(sent.payload)
    assert (summary.boot, summary.flags, summary.slot) == (10, Flag.BACKLOG, SLOT)


# -- above ---------------------------------------------------------------------------------------


def up(made, kind, body, *, flags=0):
    topic = {Kind.SUMMARY: "S", Kind.FEATURES: "F"}[kind]
    return [m for k in (0, 1) for m in take(made, f"s/{topic}/{k}", frame(kind, body, flags=flags))]


def test_sites_gateway_decides_on_what_its_edges_say():
    made = gateway(ABOVE)
    (sent,) = up(made, Kind.SUMMARY, b"\1\0\0")
    decided = decisions.decode(sent.payload)
    assert (decided.exit, decided.members, decided.used) == ("local", "edges", (0, 1))


def test_sites_gateway_asks_its_edges_and_then_the_cloud():
    made = gateway(ABOVE)
    asked = up(made, Kind.SUMMARY, b"\0\0\0")
    assert [m.topic for m in asked] == ["s/Q/0", "s/Q/1"]
    (escalation,) = up(made, Kind.FEATURES, b"\0\0\0edge")
    assert escalation.topic == "s/x"


def test_sites_gateway_waits_longer_than_its_edges_do():
    made = gateway(ABOVE)
    take(made, "s/S/0", frame(Kind.SUMMARY, b"\1\0\0"))
    below = gateway(BELOW)
    take(below, "s/s/2", frame(Kind.SUMMARY, b"\1\0\0"))
    assert made.next_deadline() > below.next_deadline()


def test_dead_edge_gateway_is_not_waited_for():
    made = gateway(ABOVE)
    take(made, "s/S/0", frame(Kind.SUMMARY, b"\1\0\0"))
    for name in ("device-1", "gateway-01", "gateway-x", "gateway"):
        report = status.encode(status.Status(node=name, state="offline", boot=1))
        assert take(made, f"ddnn/s/status/{name}", report) == []
    gone = status.encode(status.Status(node="gateway-1", state="offline", boot=1))
    (sent,) = take(made, "ddnn/s/status/gateway-1", gone)
    assert decisions.decode(sent.payload).missing == (1,)


def test_cameras_summaries_mean_nothing_above_the_edges():
    made = gateway(ABOVE)
    assert take(made, "s/s/0", frame(Kind.SUMMARY, b"\1\0\0")) == []
    assert made.ledger()["unknown_member"] == 1


def test_traffic_budget_is_refused_where_cameras_are_not_heard():
    made = gateway(ABOVE)
    take(made, "ddnn/s/settings", b'{"budget_bytes_s": 2000}')
    assert "edge gateways" in made.notes()["settings"]


def test_status_heard_before_the_bundle_counts_for_the_members_it_names():
    made = Gateway(GatewayRules(site="s", period_s=1.0), 9)
    gone = status.encode(status.Status(node="gateway-1", state="offline", boot=1))
    made.on_message(Message("ddnn/s/status/gateway-1", gone), 0.0, WALL)
    made.activate(FakeSections(members=2), CLASSES, 0.0, WALL, place=ABOVE)
    assert made.tier.alive() == {0}
    made.activate(FakeSections(members=2), CLASSES, 0.0, WALL, place=BELOW)
    assert made.tier.alive() == {0, 1}


@pytest.mark.parametrize("name", ["device-a-1", "gateway-1-1", "device-01", "camera-1", "device-"])
def test_status_of_a_name_that_no_member_can_have_is_not_remembered(name):
    made = gateway(BELOW)
    report = status.encode(status.Status(node=name, state="offline", boot=1))
    assert take(made, f"ddnn/s/status/{name}", report) == []
    assert made.presence.nodes == {}
