"""The short way of frame messages: the same as paho's, or not at all."""

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st
from paho.mqtt._packet import decode_publish
from paho.mqtt.enums import MQTTProtocolVersion

from ddnn.plain_publish import plain_publish

TOPICS = st.text(st.characters(codec="utf-8"), min_size=1, max_size=60)


def length(size):
    """MQTT's variable byte integer."""
    found = bytearray()
    while True:
        size, digit = divmod(size, 128)
        found.append(digit | 128 * bool(size))
        if not size:
            return bytes(found)


def publish(topic, payload, *, head=0x30, properties=b"\0", packet_id=b""):
    name = topic.encode()
    rest = struct.pack("!H", len(name)) + name + packet_id + properties + payload
    return bytes([head]) + length(len(rest)) + rest


@given(TOPICS, st.binary(max_size=300), st.booleans(), st.binary(max_size=20))
def test_message_is_read_whatever_stands_around_it(topic, payload, retain, around):
    packet = publish(topic, payload, head=0x30 | retain)
    found = plain_publish(around + packet + around, len(around))
    assert found == (topic, payload, retain, len(packet))


@given(TOPICS, st.binary(max_size=200))
def test_message_that_is_not_all_there_waits(topic, payload):
    packet = publish(topic, payload)
    assert all(plain_publish(packet[:cut], 0) is None for cut in range(len(packet)))


@pytest.mark.parametrize(
    "packet",
    [
        publish("s/s/0", b"abc", head=0x32, packet_id=b"\0\1"),
        publish("s/s/0", b"abc", head=0x34, packet_id=b"\0\1"),
        publish("s/s/0", b"abc", properties=b"\2\1\1"),
        b"\x40\2\0\1",
        b"\xd0\0",
        b"\x30\7\0\3\xff\xfe\xfdab",
        b"\x30\4\0\x09abcdefghij",
        b"\x30\2\0\0",
    ],
    ids=[
        "QoS 1", "QoS 2", "with properties", "acknowledgement", "ping", "topic not UTF-8",
        "topic longer than the packet", "no room for properties",
    ],
)  # fmt: skip
def test_other_packet_is_left_to_paho(packet):
    assert plain_publish(packet + b"\0" * 9, 0) is None


def test_packet_over_16_kb_is_left_to_paho():
    assert plain_publish(publish("s/s/0", bytes(16_300)), 0) is not None
    assert plain_publish(publish("s/s/0", bytes(16_400)), 0) is None


@given(st.binary(max_size=60), st.sampled_from([0x30, 0x31, 0x38, 0x39]), st.integers(0, 60))
def test_whatever_is_read_paho_reads_the_same(noise, head, claimed):
    found = plain_publish(bytes([head]) + length(claimed) + noise, 0)
    if found is None:
        return
    theirs = decode_publish(head, bytearray(noise[:claimed]), MQTTProtocolVersion.MQTTv5)
    assert (found.topic.encode(), found.payload) == (theirs.topic, theirs.payload)
    assert (found.retain, found.size_bytes) == (theirs.retain, 2 + claimed)
