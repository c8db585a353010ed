"""Fuzzing: whatever arrives, no exception leaves a node and nothing but counters changes."""

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from cloud_service.worker import Worker
from ddnn import decisions, journal, status, tuning, wire
from ddnn.bundle import decode_manifest
from ddnn.config import convert
from ddnn.errors import BundleError, ConfigError, WireError
from ddnn.message import Message
from ddnn.wire import Kind
from device_agent.agent import Agent
from device_agent.camera import Camera, CameraRules
from device_agent.pacing import Pacer
from edge_gateway.audits import AuditRules
from edge_gateway.gateway import Gateway, GatewayRules
from tests.fakes import TAG, FakeSections, without_faults
from tests.simulation.bundles import CloudSection, DeviceSection, Mixed, bundle

WALL = 1_800_000_000.0
SLOT = 1_800_000_000
MANY = settings(max_examples=400, deadline=None)

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=8,
).map(lambda value: msgspec.json.encode(value))
DEEP = st.sampled_from(
    [b"[" * 5000, b'{"a":' * 5000, b"\xff\xfe", b"\xed\xa0\x80", b"1e999", b'"\\ud800"']
)
ANY = st.one_of(st.binary(max_size=80), JSON, DEEP)
NEARLY = st.builds(
    lambda kind, tag, boot, slot, body: wire.encode(kind, tag=tag, boot=boot, slot=slot, body=body),
    kind=st.sampled_from(Kind),
    tag=st.integers(0, 65535),
    boot=st.integers(0, 65535),
    slot=st.integers(0, 2**33),
    body=st.binary(max_size=40),
)


def mutated(data):
    """Bytes that were right, cut and with some bytes changed."""
    return st.builds(
        lambda cut, changes: bytes(
            changes.get(i, byte) for i, byte in enumerate(data[: len(data) - cut])
        ),
        st.integers(0, len(data)),
        st.dictionaries(st.integers(0, max(0, len(data) - 1)), st.integers(0, 255), max_size=3),
    )


STATUS = status.encode(
    status.Status(node="device-0", state="online", boot=1, bundle="b", counts={"a": 1})
)
MANIFEST = bundle(1, 2).payload
TUNING = b'{"local_threshold":0.5,"edge_threshold":0.25}'
JOURNAL = b"".join(
    journal.encode(record)
    for record in (
        journal.Base({"opened": 1}, 1, (5,)),
        journal.Accepted(SLOT, 0, b"frame"),
        journal.Ended(SLOT, ("decided",), b"{}"),
        journal.Sent(SLOT),
    )
)


@MANY
@given(ANY | NEARLY)
def test_wire_decoder_raises_its_own_error_only(payload):
    try:
        frame = wire.decode(payload)
    except WireError:
        return
    assert wire.encode(
        frame.kind, tag=frame.tag, boot=frame.boot, slot=frame.slot, flags=frame.flags,
        body=frame.body,
    ) == payload  # fmt: skip


@MANY
@given(ANY | mutated(STATUS))
def test_status_is_a_status_or_nothing(payload):
    report = status.decode(payload)
    assert report is None or isinstance(report, status.Status)


@MANY
@given(ANY | mutated(TUNING))
def test_settings_are_valid_or_refused(payload):
    try:
        tuned = tuning.decode(payload)
    except ConfigError:
        return
    for threshold in (tuned.local_threshold, tuned.edge_threshold):
        assert threshold is None or 0.0 <= threshold <= 1.0


@MANY
@given(ANY)
def test_decision_is_a_decision_or_refused(payload):
    try:
        decisions.decode(payload)
    except WireError:
        return


@MANY
@given(ANY | mutated(MANIFEST))
def test_manifest_is_the_very_same_or_refused(payload):
    try:
        decode_manifest(payload)
    except BundleError:
        assert payload != MANIFEST


@MANY
@given(ANY | mutated(JOURNAL))
def test_journal_is_read_as_far_as_it_is_whole(data):
    found = journal.read(data)
    assert found.damaged == (found.good_bytes < len(data))
    made = journal.Memory(10, 10)
    for record in found.records:
        made.apply(record)
    again = journal.read(b"".join(map(journal.encode, made.records())))
    assert not again.damaged


@MANY
@given(st.dictionaries(st.text(max_size=12), st.none() | st.integers() | st.text(max_size=5)))
def test_service_settings_are_valid_or_refused(values):
    from edge_gateway.service import GatewaySettings

    try:
        convert(values, GatewaySettings)
    except ConfigError:
        return


TOPICS = st.sampled_from(
    ["s/s/0", "s/s/2", "s/s/9", "s/s/", "s/s/x", "s/f/0", "s/f/99999", "s/a", "s/x", "s",
     "ddnn/s/status/device-0", "ddnn/s/status/device-x", "ddnn/s/settings", "ddnn/s/recall",
     "ddnn/_cloud/status/w", "ddnn/other/settings", "other/s/0", ""]
)  # fmt: skip


def state_of(gateway):
    tier = gateway.tier
    return (
        gateway.snapshot(),
        tier.open_slots,
        tier.held_bytes,
        dict(tier.thresholds),
        tier.alive(),
        gateway.breaker.state,
        len(gateway.outbox),
        dict(gateway.presence.workers),
        len(gateway.audits),
        gateway.counts["audit.completed"],
    )


def running_gateway():
    made = Gateway(GatewayRules(site="s", period_s=1.0, audits=AuditRules(share=1.0)), 9)
    made.activate(FakeSections(), ("a", "b", "c"), 0.0, WALL)
    made.on_connected(0.0)
    payload = wire.encode(Kind.SUMMARY, tag=TAG, boot=1, slot=SLOT, body=b"\0ab")
    made.on_message(Message("s/s/1", payload), 0.0, WALL)
    for member in range(3):  # a slot that is decided, and audited
        payload = wire.encode(Kind.SUMMARY, tag=TAG, boot=1, slot=SLOT + 1, body=b"\1ab")
        made.on_message(Message(f"s/s/{member}", payload), 0.0, WALL)
    made.on_time(0.0, WALL)
    assert SLOT + 1 in made.audits
    return made


@MANY
@given(st.lists(st.tuples(TOPICS, ANY | NEARLY, st.none() | st.binary(max_size=6)), max_size=20))
def test_no_message_makes_a_gateway_raise(messages):
    made = running_gateway()
    before = state_of(made)
    for topic, payload, correlation in messages:
        # With a tag of its own nothing of this can be a genuine frame; settings could be.
        if payload[2:4] == TAG.to_bytes(2, "little") or topic == "ddnn/s/settings":
            payload = b"\xff" + payload
        without_faults(made.on_message(Message(topic, payload, correlation=correlation), 1.0, WALL))
    assert state_of(made) == before


@MANY
@given(ANY | NEARLY)
def test_no_request_makes_a_camera_raise(payload):
    agent = Agent(1, 7, 8, DeviceSection)
    agent.load(bundle(1, 2))
    made = Camera(CameraRules("s", 1.0), agent, Pacer(1.0, live=True))
    made.on_connected()
    for message in made.on_request(Message("s/q/1", payload), WALL):
        assert wire.decode(message.payload).kind is Kind.FEATURES


@MANY
@given(ANY | NEARLY, st.booleans())
def test_no_escalation_makes_a_worker_raise(payload, known):
    worker = Worker(CloudSection)
    if known:
        worker.load("s", bundle(1, 2))
        tag = bundle(1, 2).tag.to_bytes(2, "little")
        payload = payload[:2] + tag + payload[4:]
    try:
        answer = worker.answer("s", payload)
    except Mixed:  # the stand-in section complains of what it was not made for: that is its job
        return
    assert answer is None or wire.decode(answer).kind is Kind.ANSWER
