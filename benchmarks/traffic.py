"""Recorded summaries, and a generator that sends them as fast as a benchmark wants.

The generator writes MQTT packets that were made before it starts: with a client library it would
be as busy as what it measures.
"""

from __future__ import annotations

import socket
import struct
import time
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ddnn import summaries, topics, wire
from ddnn.bundle import Bundle
from ddnn.evaluate import Evaluator
from ddnn.wire import Flag, Kind
from training.datasets.load import load


@dataclass(frozen=True)
class Recorded:
    """Summaries of real frames.

    Attributes:
        scores: (N, D, K) uint8; present: (N, D) bool.
    """

    scores: NDArray[np.uint8]
    present: NDArray[np.bool_]

    @property
    def cameras(self) -> int:
        """D."""
        return self.scores.shape[1]

    def payload(self, slot: int, camera: int, tag: int) -> bytes:
        """A camera's SUMMARY in `slot`."""
        sample = slot % len(self.scores)
        there = bool(self.present[sample, camera])
        body = self.scores[sample, camera].tobytes() if there else b""
        flags = 0 if there else int(Flag.ABSENT)
        return wire.encode(Kind.SUMMARY, tag=tag, boot=camera, slot=slot, flags=flags, body=body)

    def messages(self, count: int, first_slot: int, tag: int) -> list[tuple[str, bytes]]:
        """Topics and payloads of all cameras in `count` slots."""
        return [
            (topics.summary("s1", camera), self.payload(slot, camera, tag))
            for slot in range(first_slot, first_slot + count)
            for camera in range(self.cameras)
        ]


def recorded(bundle: Bundle) -> Recorded:
    """What the bundle's devices say of the built-in test samples that exit locally."""
    data = load("generated")
    data = data.subset(data.test)
    result = Evaluator(bundle).evaluate(data.images, data.present)
    local = result.exit == "local"
    return Recorded(result.scores[local], data.present[local])


def publish_packet(topic: str, payload: bytes) -> bytes:
    """An MQTT 5 PUBLISH at QoS 0 without properties."""
    name = topic.encode()
    rest = struct.pack("!H", len(name)) + name + b"\0" + payload
    if len(rest) > 127:
        raise ValueError("only short packets are made here")
    return bytes([0x30, len(rest)]) + rest


def connect(port: int, client_id: str) -> socket.socket:
    """A connection to a local broker that will only write. (MQTT 5, no keepalive.)"""
    sock = socket.create_connection(("127.0.0.1", port))
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    name = client_id.encode()
    rest = b"\0\4MQTT\5\2\0\0\0" + struct.pack("!H", len(name)) + name
    sock.sendall(bytes([0x10, len(rest)]) + rest)
    head = sock.recv(2)
    answer = sock.recv(head[1]) if len(head) == 2 else b""
    if head[:1] != b"\x20" or answer[1:2] != b"\0":
        raise SystemExit(f"the broker refused the generator: {(head + answer).hex()}")
    return sock


def send(
    port: int,
    site: str,
    tag: int,
    data: Recorded,
    rate: float,
    seconds: float,
    period_s: float,
    together: int = 1,
) -> int:
    """Send `rate` slots a second of one site from the present one on; how many summaries.

    Slots follow each other; with a rate under 1 / period they fall behind the clock.

    Args:
        together: slots in a message.
    """
    groups = int(rate * seconds / together)
    first = int(time.time() / period_s)
    names = [topics.summary(site, camera) for camera in range(data.cameras)]

    def packet(group: int) -> bytes:
        slots = range(first + group * together, first + (group + 1) * together)
        return b"".join(
            publish_packet(
                name, summaries.join([data.payload(slot, camera, tag) for slot in slots])
            )
            for camera, name in enumerate(names)
        )

    packets = [packet(group) for group in range(groups)]
    with connect(port, f"{site}-generator") as sock:
        began = time.monotonic()
        for number, packet in enumerate(packets):
            wait_s = began + number * together / rate - time.monotonic()
            if wait_s > 0:
                time.sleep(wait_s)
            sock.sendall(packet)
    return groups * together * data.cameras
