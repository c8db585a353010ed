"""Checks of certificate, broker, access rights and packet limit."""

from __future__ import annotations

import queue
import socket
import ssl
import time
from collections.abc import Iterator
from datetime import datetime

from ddnn import access, topics
from ddnn.access import Identity
from ddnn.bundle import MAX_MANIFEST_BYTES, WHOLE_SECTION_BYTES
from ddnn.doctor.finding import Finding
from ddnn.errors import ConfigError, DdnnError
from ddnn.mqtt import PORT, TLS_PORT, Client, Message
from ddnn.tls import Certificate, Credentials, TlsFiles, explain, readable_by_others

#: What MQTT 5 adds to a payload at most: topic, properties, header.
_OVERHEAD_BYTES = 1024


def check_certificate(tls: TlsFiles | None, now: datetime) -> Iterator[Finding]:
    """Whether this node's files fit each other, are valid, and are its own alone."""
    if tls is None:
        yield Finding(
            "certificate",
            "warning",
            "none: the connection is not encrypted and anybody can take part",
            "use TLS wherever others reach the broker: `ddnn site init`",
        )
        return
    try:
        credentials = Credentials(tls)
    except ConfigError as error:
        yield Finding("certificate", "failure", str(error), "copy the node's folder here again")
        return
    certificate = credentials.certificate
    if certificate is None:
        yield Finding(
            "certificate",
            "warning",
            "a CA alone: this node stays anonymous",
            "give tls_cert and tls_key",
        )
        return
    yield _validity(certificate, now)
    assert tls.key
    if readable_by_others(tls.key):
        yield Finding(
            "key",
            "failure",
            f"{tls.key} can be read by everybody",
            f"chmod 600 {tls.key}; if others could have read it, renew it",
        )
    else:
        yield Finding("key", "ok", f"{tls.key} fits the certificate and is private")


def _validity(certificate: Certificate, now: datetime) -> Finding:
    said = f"{certificate.name}, until {certificate.not_after:%Y-%m-%d}"
    note = certificate.note(now)
    if note is None:
        return Finding("certificate", "ok", said)
    is_valid = certificate.not_before <= now < certificate.not_after
    return Finding(
        "certificate",
        "warning" if is_valid else "failure",
        f"{said}: {note}",
        "set the clock" if now < certificate.not_before else "ddnn site build",
    )


def check_reachable(host: str, port: int, tls: TlsFiles | None) -> Finding:
    """Whether somebody listens, without a word of MQTT."""
    port = port or (TLS_PORT if tls else PORT)
    began = time.monotonic()
    try:
        with socket.create_connection((host, port), timeout=5.0):
            took_ms = 1000 * (time.monotonic() - began)
    except OSError as error:
        why, _ = explain(error)
        return Finding(
            "broker", "failure", f"{host}:{port}: {why}", "is it started, and is the name right?"
        )
    return Finding("broker", "ok", f"{host}:{port} answers in {took_ms:.1f} ms")


def check_broker_certificate(host: str, port: int, tls: TlsFiles, now: datetime) -> Finding:
    """Whether the broker is believed, and for how long."""
    try:
        context = Credentials(tls).context
        with (
            socket.create_connection((host, port or TLS_PORT), timeout=5.0) as raw,
            context.wrap_socket(raw, server_hostname=host) as sock,
        ):
            version = sock.version()
            fields = sock.getpeercert() or {}
    except ConfigError as error:
        return Finding("tls", "skipped", str(error))
    except OSError as error:
        return Finding("tls", "failure", explain(error)[0])
    until = str(fields.get("notAfter", ""))
    days = int((ssl.cert_time_to_seconds(until) - now.timestamp()) // 86_400)
    text = f"{version}, the broker's certificate holds {host} and {days} more days"
    if days < 30:
        return Finding("tls", "warning", text, "ddnn site build, and reload the broker")
    return Finding("tls", "ok", text)


def identity_of(tls: TlsFiles | None, site: str) -> Identity:
    """Who this node is to the broker; without a certificate just somebody."""
    if tls is not None and tls.cert is not None:
        certificate = Credentials(tls).certificate
        assert certificate
        return access.parse(certificate.name)
    return Identity(site, "doctor")


def check_session(
    host: str, port: int, tls: TlsFiles | None, site: str, timeout_s: float = 10.0
) -> Iterator[Finding]:
    """One MQTT connection: access rights there and back, and the packet limit."""
    try:
        identity = identity_of(tls, site)
        client = Client(host, port, f"{site}-doctor", tls=tls)
    except DdnnError as error:
        yield Finding("mqtt", "failure", str(error))
        return
    came: queue.Queue[bytes] = queue.Queue()
    own = topics.check(identity.site, identity.node)
    client.subscribe(own, lambda message: _keep(came, message), retained=False)
    client.start()
    try:
        client.wait_connected(timeout_s)
        yield Finding("mqtt", "ok", f"connected as {identity}")
        yield _round_trip(client, own, came)
        yield _refusal(client, identity, is_open=tls is None)
        yield _packet_limit(client.max_packet)
    except DdnnError as error:
        yield Finding("mqtt", "failure", str(error))
    finally:
        client.stop()


def _keep(came: queue.Queue[bytes], message: Message) -> None:
    came.put(message.payload)


def _round_trip(client: Client, own: str, came: queue.Queue[bytes]) -> Finding:
    """A message to itself: writing and reading are both allowed."""
    began = time.monotonic()
    payload = f"{began}".encode()
    client.publish(own, payload, qos=1)
    try:
        while came.get(timeout=3.0) != payload:
            pass
    except queue.Empty:
        why = "refused by" if client.denied()[own] else "lost by"
        return Finding(
            "rights",
            "failure",
            f"a message on {own} is {why} the broker",
            "its access list does not know this node: ddnn site build, copy the folder "
            "`broker`, reload the broker",
        )
    return Finding(
        "rights",
        "ok",
        f"writes and reads its own, {1000 * (time.monotonic() - began):.1f} ms there and back",
    )


def _refusal(client: Client, identity: Identity, *, is_open: bool) -> Finding:
    """A message where this node must not write."""
    other = topics.check(identity.site, "another-node")
    sent = client.publish(other, b"", qos=1)
    deadline = time.monotonic() + 3.0
    while not sent.is_published() and time.monotonic() < deadline:
        time.sleep(0.01)
    if client.denied()[other]:
        return Finding("foreign", "ok", "writing in another node's name is refused")
    if is_open:
        return Finding(
            "foreign",
            "warning",
            "anybody may write everything here",
            "fine on a machine of its own; else `ddnn site init`",
        )
    return Finding(
        "foreign",
        "failure",
        f"may write to {other}",
        "the access list is too wide: ddnn site check",
    )


def _packet_limit(limit: int | None) -> Finding:
    if limit is None:
        return Finding(
            "packets",
            "warning",
            "the broker has no limit for one packet",
            "set max_packet_size: a single message could take all its memory",
        )
    if limit < WHOLE_SECTION_BYTES + _OVERHEAD_BYTES:
        return Finding(
            "packets",
            "failure",
            f"at most {limit} bytes: too few for a section",
            f"max_packet_size {MAX_MANIFEST_BYTES + _OVERHEAD_BYTES}",
        )
    return Finding("packets", "ok", f"up to {limit} bytes")
