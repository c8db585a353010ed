"""What somebody with a stolen certificate, or none, has: sockets and a general MQTT client.

As a program (`python -m tests.security.attacker`) it floods a broker from a process of its own.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import queue
import socket
import ssl
import struct
import threading
import time
from pathlib import Path

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion

from ddnn.tls import TlsFiles

HOST = "localhost"


def context_of(files: TlsFiles | None, ca: Path) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=ca)
    if files and files.cert and files.key:
        context.load_cert_chain(files.cert, files.key)
    return context


class Attacker:
    """A connected MQTT 5 client that remembers every answer of the broker."""

    def __init__(self, port, files, client_id="thief", will=None):
        self.messages = queue.Queue()
        self.reasons = {}
        self.connack = queue.Queue()
        self.gone = threading.Event()
        self._answered = threading.Condition()
        self.paho = paho.Client(CallbackAPIVersion.VERSION2, client_id, protocol=paho.MQTTv5)
        self.paho.tls_set_context(context_of(files, files.ca))
        self.paho.on_connect = lambda *args: self.connack.put(args[3])
        self.paho.on_disconnect = lambda *_: self.gone.set()
        self.paho.on_message = lambda *args: self.messages.put((args[2].topic, args[2].payload))
        self.paho.on_publish = self._published
        if will:
            self.paho.will_set(*will)
        self.paho.connect(HOST, port)
        self.paho.loop_start()
        self.reason = self.connack.get(timeout=5)

    def _published(self, _client, _data, mid, reason, _properties):
        with self._answered:
            self.reasons[mid] = reason
            self._answered.notify_all()

    def publish(self, topic, payload=b"x", qos=1, retain=False):
        """Send, and return the broker's answer as text, or None if it ended the connection."""
        info = self.paho.publish(topic, payload, qos, retain)
        with self._answered:
            self._answered.wait_for(lambda: info.mid in self.reasons or self.gone.is_set(), 5)
            return str(self.reasons[info.mid]) if info.mid in self.reasons else None

    def raw(self, packet):
        """Bytes that no library would send."""
        self.paho.socket().setblocking(True)
        self.paho.socket().sendall(packet)

    def received(self, seconds):
        """Everything that comes in so many seconds."""
        found = []
        until = time.monotonic() + seconds
        with contextlib.suppress(queue.Empty):
            while True:
                found.append(self.messages.get(timeout=max(0.0, until - time.monotonic())))
        return found

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.paho.disconnect()
        self.paho.loop_stop()


def _string(text):
    data = text.encode()
    return struct.pack(">H", len(data)) + data


def packet(kind, body):
    """An MQTT packet from its first byte and its body."""
    size, length = b"", len(body)
    while True:
        length, digit = divmod(length, 128)
        size += bytes([digit | (0x80 if length else 0)])
        if not length:
            return bytes([kind]) + size + body


CONNECT = packet(0x10, _string("MQTT") + b"\x04\x02\x00\x3c" + _string("thief"))


def publish_packet(topic, payload, qos=0, mid=1, retain=False):
    body = _string(topic) + (struct.pack(">H", mid) if qos else b"") + payload
    return packet(0x30 | qos << 1 | retain, body)


def connected_socket(port, files):
    """A TLS socket on which CONNECT (MQTT 3.1.1) was accepted."""
    raw = socket.create_connection((HOST, port), timeout=5)
    sock = context_of(files, files.ca).wrap_socket(raw, server_hostname=HOST)
    sock.sendall(CONNECT)
    assert sock.recv(4) == b"\x20\x02\x00\x00"
    return sock


def _flood(port, files, args):
    """Send as fast as the broker takes it; returns how many messages went out."""
    # An attacker has a machine of its own: it must not take the nodes' time on this one.
    os.nice(10)
    until = time.monotonic() + args.seconds
    payload = bytes(args.size)
    count = 0
    if args.connections:
        while time.monotonic() < until:
            with contextlib.suppress(OSError):
                connected_socket(port, files).close()
                count += 1
        return count
    batch = max(1, 60_000 // max(1, args.size))
    sock = connected_socket(port, files)
    if args.qos:
        threading.Thread(target=_drain, args=(sock,), daemon=True).start()
    data = b"".join(
        publish_packet(args.topic, payload, args.qos, 1 + n % 65535, args.retain)
        for n in range(batch)
    )
    with contextlib.suppress(OSError):
        while time.monotonic() < until:
            sock.sendall(data)
            count += batch
    return count


def _drain(sock):
    with contextlib.suppress(OSError):
        while sock.recv(65536):
            pass


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("port", type=int)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--topic", default="s1/s/5")
    parser.add_argument("--size", type=int, default=13)
    parser.add_argument("--qos", type=int, default=0)
    parser.add_argument("--retain", action="store_true")
    parser.add_argument("--connections", action="store_true")
    parser.add_argument("--seconds", type=float, default=4.0)
    given = parser.parse_args()
    place = given.folder
    own = TlsFiles(place / "ca.crt", place / "node.crt", place / "node.key")
    print(_flood(given.port, own, given), flush=True)
