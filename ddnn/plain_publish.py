"""The MQTT 5 packets that a gateway gets most of, read without a library's machinery. Pure."""

from __future__ import annotations

from typing import NamedTuple

#: First byte of a PUBLISH at QoS 0, without the bits for "retained" and "sent again".
_PUBLISH, _RETAIN, _DUP = 0x30, 0x01, 0x08


class PlainPublish(NamedTuple):
    """A PUBLISH at QoS 0 without properties; `size_bytes` is the packet's."""

    topic: str
    payload: bytes
    retain: bool
    size_bytes: int


def plain_publish(data: bytes, begin: int) -> PlainPublish | None:
    """The packet at `begin`, or None: it is another one, not all there, malformed, or long.

    Source: MQTT 5.0, sections 2.1 and 3.3.
    """
    have = len(data) - begin
    if have < 5 or data[begin] & ~(_RETAIN | _DUP) != _PUBLISH:
        return None
    rest = data[begin + 1]
    start = begin + 2
    if rest > 127:  # a second byte of length
        if data[begin + 2] > 127:
            return None
        rest += (data[begin + 2] - 1) * 128
        start = begin + 3
    end = start + rest
    topic_end = start + 2 + int.from_bytes(data[start : start + 2], "big")
    if end > len(data) or topic_end >= end or data[topic_end]:
        return None
    try:
        topic = data[start + 2 : topic_end].decode()
    except UnicodeDecodeError:
        return None
    retain = bool(data[begin] & _RETAIN)
    return PlainPublish(topic, data[topic_end + 1 : end], retain, end - begin)
