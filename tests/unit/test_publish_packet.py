"""The short way of PUBLISH packets does what paho does, or leaves them to paho."""

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st
from paho.mqtt import _packet
from paho.mqtt.client import MQTTv5
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from ddnn import publish_packet

TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=12)
TOPIC = TEXT.filter(bool)
EXPIRY = st.none() | st.integers(1, 2**32 - 1)
CORRELATION = st.none() | st.binary(min_size=1, max_size=200)


def properties_of(response_topic, correlation, expiry_s):
    made = Properties(PacketTypes.PUBLISH)
    if response_topic:
        made.ResponseTopic = response_topic
    if correlation:
        made.CorrelationData = correlation
    if expiry_s is not None:
        made.MessageExpiryInterval = expiry_s
    return made


def packet(topic, properties, payload, number=0):
    name = topic.encode()
    mid = struct.pack("!H", number) if number else b""
    return struct.pack("!H", len(name)) + name + mid + properties + payload


@given(st.none() | TOPIC, CORRELATION, EXPIRY)
def test_properties_are_packed_as_paho_packs_them(response_topic, correlation, expiry_s):
    packed = publish_packet.pack_properties(response_topic, correlation, expiry_s)
    expected = properties_of(response_topic, correlation, expiry_s).pack()
    assert (packed.pack() if packed else b"\0") == expected


@given(
    TOPIC, st.none() | TOPIC, CORRELATION, EXPIRY, st.binary(max_size=40), st.booleans(),
    st.integers(0, 65535),
)  # fmt: skip
def test_message_is_what_paho_reads(
    topic, response_topic, correlation, expiry_s, payload, retain, number
):
    properties = properties_of(response_topic, correlation, expiry_s).pack()
    data = packet(topic, properties, payload, number)
    head = 0x30 | bool(number) << 1 | retain
    found = publish_packet.decode(head, bytearray(data), 0, len(data))
    if len(properties) > 128:  # their length takes two bytes
        assert found is None
        return
    message, mid = found
    assert mid == number
    assert message == (topic, payload, retain, response_topic, correlation, expiry_s, None)
    whole = bytes([head, *length_of(len(data))]) + data
    ahead = b"before" + whole + b"after"
    assert publish_packet.read(ahead, 6) == (message, mid, len(whole))
    for end in range(6, 6 + len(whole)):  # not all there yet
        assert publish_packet.read(ahead[:end], 6) is None


def length_of(size):
    """MQTT's variable byte integer."""
    found = []
    while size > 127:
        found.append(size & 127 | 128)
        size >>= 7
    return [*found, size]


SENT = packet("s1/c", properties_of("s1/a", b"1234", 7).pack(), b"payload", 9)


@given(
    st.integers(0, len(SENT)),
    st.dictionaries(st.integers(0, len(SENT) - 1), st.integers(0, 255), max_size=3),
    st.sampled_from([0x30, 0x31, 0x32, 0x33, 0x3A, 0x34, 0x36]),
)
def test_cut_or_changed_packet_is_read_as_paho_reads_it_or_left_to_paho(length, changes, head):
    data = bytes(changes.get(i, byte) for i, byte in enumerate(SENT[:length]))
    found = publish_packet.decode(head, data, 0, len(data))
    if found is None:
        return
    message, mid = found
    theirs = _packet.decode_publish(head, data, MQTTv5)
    assert (message.topic.encode(), message.payload) == (theirs.topic, theirs.payload)
    assert (mid, message.retain) == (theirs.mid, theirs.retain)
    for ours, name in (
        (message.response_topic, "ResponseTopic"),
        (message.correlation, "CorrelationData"),
        (message.expiry_s, "MessageExpiryInterval"),
    ):
        assert ours == getattr(theirs.properties, name, None)


@pytest.mark.parametrize(
    ("head", "properties", "why"),
    [
        (0x34, b"\0", "QoS 2"),
        (0x30, b"\2\1\1", "a property that is not used here"),
        (0x30, b"\x0a\2\0\0\0\1\2\0\0\0\1", "a property twice"),
        (0x30, b"\x06\2\0\0\0\1\0", "a length that does not fit"),
    ],
)
def test_what_is_not_used_here_is_left_to_paho(head, properties, why):
    data = packet("s1/c", properties, b"", 9 if head & 6 else 0)
    assert publish_packet.decode(head, data, 0, len(data)) is None, why
    assert publish_packet.read(bytes([head, len(data)]) + data, 0) is None, why


@pytest.mark.parametrize(
    "packet",
    [
        b"\x20\2\0\0", b"\x40\2\0\1", b"\xd0\0", b"\x30\7\0\3\xff\xfe\xfd\0a",
        b"\x30\4\0\x09abcdefghij", b"\x30\2\0\0", b"\x32\6\0\1a\0\0\0",
    ],
    ids=[
        "connected", "acknowledgement", "ping", "topic not UTF-8", "topic longer than the packet",
        "no room for properties", "QoS 1 without a packet id",
    ],
)  # fmt: skip
def test_other_or_malformed_packet_is_left_to_paho(packet):
    assert publish_packet.read(packet + b"\0" * 9, 0) is None


def test_packet_over_16_kb_is_left_to_paho():
    for size, is_read in ((16_300, True), (16_400, False)):
        data = packet("s/s/0", b"\0", bytes(size))
        whole = bytes([0x30, *length_of(len(data))]) + data
        assert (publish_packet.read(whole, 0) is not None) == is_read


@given(st.binary(max_size=60), st.sampled_from([0x30, 0x31, 0x32, 0x39]), st.integers(0, 60))
def test_whatever_is_read_of_noise_paho_reads_the_same(noise, head, claimed):
    found = publish_packet.read(bytes([head, claimed]) + noise, 0)
    if found is None:
        return
    theirs = _packet.decode_publish(head, bytearray(noise[:claimed]), MQTTv5)
    assert (found.message.topic.encode(), found.message.payload) == (theirs.topic, theirs.payload)
    assert (found.packet, found.size_bytes) == (theirs.mid, 2 + claimed)


def test_correlation_data_that_no_packet_can_hold_is_refused():
    with pytest.raises(ValueError, match="65536 bytes"):
        publish_packet.pack_properties(None, bytes(65536), None)
