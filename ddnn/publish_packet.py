"""MQTT 5 PUBLISH packets as they are used here, to and from bytes. Pure.

paho reads and writes properties through a general class that takes longer than everything that a
gateway does with a summary, or a worker with a request. Three properties are used here; a packet
with any other one, or with anything wrong in it, is left to paho.

======  =====================================================================
0x02    message expiry interval: u32, seconds
0x08    response topic: u16 length, UTF-8
0x09    correlation data: u16 length, bytes
======  =====================================================================

Source: MQTT Version 5.0, OASIS Standard, sections 1.5, 2.1, 2.2.2 and 3.3.
"""

from __future__ import annotations

import struct
from typing import NamedTuple

from ddnn.message import Message

_PUBLISH = 3
_EXPIRY, _RESPONSE_TOPIC, _CORRELATION = 2, 8, 9
#: Characters that paho takes in no property.
_REFUSED = frozenset("\0\ufeff")
_U16, _U32 = struct.Struct(">H"), struct.Struct(">I")


class PackedProperties(NamedTuple):
    """What paho asks of the properties of a packet that it sends: their bytes."""

    data: bytes

    def pack(self) -> bytes:
        """With their length before them."""
        return self.data


def pack_properties(
    response_topic: str | None, correlation: bytes | None, expiry_s: float | None
) -> PackedProperties | None:
    """Properties of a PUBLISH; None: there are none.

    Raises:
        ValueError: topic or correlation data is longer than a packet can say.
    """
    parts = []
    if expiry_s is not None:
        parts += [b"\x02", _U32.pack(max(1, round(expiry_s)))]
    for kind, value in ((b"\x08", response_topic), (b"\x09", correlation)):
        if value:
            data = value.encode() if isinstance(value, str) else value
            if len(data) > 0xFFFF:
                raise ValueError(f"{len(data)} bytes are too many for an MQTT property")
            parts += [kind, _U16.pack(len(data)), data]
    if not parts:
        return None
    body = b"".join(parts)
    return PackedProperties(_pack_length(len(body)) + body)


class Received(NamedTuple):
    """A PUBLISH that came; `packet` is its id (0 at QoS 0), `size_bytes` that of all of it."""

    message: Message
    packet: int
    size_bytes: int


def read(data: bytes, begin: int) -> Received | None:
    """The packet at `begin`; None: it is another one, not all there, long, or left to paho."""
    if len(data) - begin < 5 or data[begin] >> 4 != _PUBLISH:
        return None
    rest, at = data[begin + 1], begin + 2
    if rest > 127:  # a second byte of length
        if data[at] > 127:
            return None
        rest += (data[at] - 1) * 128
        at += 1
    end = at + rest
    if end > len(data):
        return None
    found = decode(data[begin], data, at, end)
    return found and Received(*found, end - begin)


def decode(head: int, data: bytes | bytearray, begin: int, end: int) -> tuple[Message, int] | None:
    """What follows a PUBLISH's length -> message and packet id; None: it is left to paho.

    Args:
        head: the packet's first byte.
        data: holds the rest of the packet, from `begin` to `end`.
    """
    qos = head >> 1 & 3
    topic_at, at = begin + 2, begin + 2 + int.from_bytes(data[begin : begin + 2], "big")
    topic_end, packet = at, 0
    if qos:
        packet = int.from_bytes(data[at : at + 2], "big")
        at += 2
    # Not here: QoS 2, and properties whose length takes more than a byte.
    if qos > 1 or (qos and not packet) or at >= end or data[at] > 127:
        return None
    at, payload_at = at + 1, at + 1 + data[at]
    if payload_at > end:
        return None
    response_topic = correlation = expiry_s = None
    try:
        topic = data[topic_at:topic_end].decode()
        while at < payload_at:
            kind, value_at = data[at], at + 3
            if kind == _EXPIRY and expiry_s is None:
                (expiry_s,) = _U32.unpack_from(data, at + 1)
                at += 5
                continue
            at = value_at + _U16.unpack_from(data, at + 1)[0]
            value = bytes(data[value_at:at])
            if kind == _RESPONSE_TOPIC and response_topic is None:
                response_topic = value.decode()
                if not _REFUSED.isdisjoint(response_topic):
                    return None
            elif kind == _CORRELATION and correlation is None:
                correlation = value
            else:
                return None
    except (struct.error, UnicodeDecodeError):
        return None
    if at != payload_at:
        return None
    retain, payload = bool(head & 1), bytes(data[payload_at:end])
    return Message(topic, payload, retain, response_topic, correlation, expiry_s), packet


def _pack_length(value: int) -> bytes:
    """A variable byte integer."""
    out = bytearray()
    while True:
        value, low = value >> 7, value & 0x7F
        out.append(low | 0x80 if value else low)
        if not value:
            return bytes(out)
