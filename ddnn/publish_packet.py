"""MQTT 5 PUBLISH packets as they are used here, to and from bytes. Pure.

paho reads and writes properties through a general class that takes longer than everything that a
worker does with a request. Three properties are used here; a packet with any other one, or with
anything wrong in it, is left to paho.

======  =====================================================================
0x02    message expiry interval: u32, seconds
0x08    response topic: u16 length, UTF-8
0x09    correlation data: u16 length, bytes
======  =====================================================================

Source: MQTT Version 5.0, OASIS Standard, sections 1.5, 2.2.2 and 3.3.
"""

from __future__ import annotations

import struct
from typing import NamedTuple

from ddnn.message import Message

_EXPIRY, _RESPONSE_TOPIC, _CORRELATION = 2, 8, 9
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


def decode(head: int, packet: bytes | bytearray) -> tuple[Message, int] | None:
    """A PUBLISH -> the message and its packet id (0 at QoS 0); None: it is left to paho.

    Args:
        head: the packet's first byte.
        packet: what follows its length.
    """
    qos = head >> 1 & 3
    if qos > 1:
        return None
    at = 2 + int.from_bytes(packet[:2], "big")
    raw_topic, number = packet[2:at], 0
    if qos:
        number = int.from_bytes(packet[at : at + 2], "big")
        at += 2
        if not number:
            return None
    if at >= len(packet):
        return None
    length = packet[at]
    at += 1
    if length > 127:  # of two bytes or more
        return None
    end = at + length
    if end > len(packet):
        return None
    response_topic = correlation = expiry_s = None
    try:
        while at < end:
            kind = packet[at]
            if kind == _EXPIRY and expiry_s is None:
                (expiry_s,) = _U32.unpack_from(packet, at + 1)
                at += 5
                continue
            value_at = at + 3
            at = value_at + _U16.unpack_from(packet, at + 1)[0]
            value = bytes(packet[value_at:at])
            if kind == _RESPONSE_TOPIC and response_topic is None:
                response_topic = value.decode()
            elif kind == _CORRELATION and correlation is None:
                correlation = value
            else:
                return None
        topic = raw_topic.decode()
    except (struct.error, UnicodeDecodeError):
        return None
    if at != end:
        return None
    payload = bytes(packet[end:])
    return (
        Message(topic, payload, bool(head & 1), response_topic, correlation, expiry_s),
        number,
    )


def _pack_length(value: int) -> bytes:
    """A variable byte integer."""
    out = bytearray()
    while True:
        value, low = value >> 7, value & 0x7F
        out.append(low | 0x80 if value else low)
        if not value:
            return bytes(out)
