"""MQTT messages as plain values, for code that decides what to send and never sends."""

from __future__ import annotations

from typing import NamedTuple

#: The longest packet that any of our clients takes, and a broker is asked to send: anything longer
#: is nobody's who means well. The largest that is sent is a frame of `ddnn.wire.MAX_BODY_BYTES`,
#: with topic and properties; every node must be able to take an activation record, which is nearly
#: as large (`ddnn.activation.MAX_RECORD_BYTES`), so that one limit is right for all.
MAX_PACKET_BYTES = 2 * 1024 * 1024


class Message(NamedTuple):
    """One message from the broker.

    Attributes:
        expiry_s: for how long its sender still wants it to be heard; None: it does not say.
        delivery: connection and packet id, for a client that acknowledges by itself; None where
            there is nothing to acknowledge.
    """

    topic: str
    payload: bytes
    retain: bool = False
    response_topic: str | None = None
    correlation: bytes | None = None
    expiry_s: float | None = None
    delivery: tuple[int, int] | None = None


class Publish(NamedTuple):
    """One message for the broker.

    Attributes:
        keep: whether the client keeps it while the broker is away. Frame traffic that answers a
            deadline is worthless afterwards and would only delay fresh frames: it is not kept.
        receipt: if given, whoever carries this out reports the broker's acknowledgement (PUBACK)
            under this number.
        expiry_s: the broker drops it undelivered after so many seconds.
    """

    topic: str
    payload: bytes
    qos: int = 0
    retain: bool = False
    response_topic: str | None = None
    correlation: bytes | None = None
    expiry_s: float | None = None
    keep: bool = False
    receipt: int | None = None
