"""Attacks on a running site, on a real mosquitto with the generated production configuration.

Each test is named after what is tried. In each, five cameras keep deciding: every slot of the
time of the attack has its one decision, with all five in it.
"""

import contextlib
import os
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
from datetime import timedelta
from pathlib import Path

import pytest

from broker import site
from broker.pki import Authority, now_utc, read_record, write_private
from ddnn import access, topics, wire
from ddnn.access import Identity
from ddnn.errors import ConfigError, DdnnError
from ddnn.mqtt import Client
from ddnn.tls import TlsFiles
from ddnn.wire import Kind
from tests.bundles import random_bundle
from tests.security.attacker import (
    Attacker,
    connected_socket,
    context_of,
    packet,
    publish_packet,
)
from tests.security.site import HONEST, HOST, MORE_THIEVES, SITE, THIEF, files
from training.publish import publish_bundle

pytestmark = [pytest.mark.security, pytest.mark.timeout(120)]

REPOSITORY = Path(__file__).resolve().parents[2]
NODE = f"device-{THIEF}"
DENIED = "Not authorized"
#: More than the broker's limit for one packet.
OVERSIZE = 1_100_000


@pytest.fixture
def thief(secured):
    """The stolen certificate of camera 5."""
    return files(secured.folder, f"{SITE}.{NODE}")


def authority(secured):
    return Authority(secured.folder / "ca")


def credentials(folder, issued, ca):
    """Files of a certificate that the site's folder does not hold."""
    write_private(folder / "node.crt", issued.certificate)
    write_private(folder / "node.key", issued.key)
    return TlsFiles(ca, folder / "node.crt", folder / "node.key")


# -- getting in ------------------------------------------------------------------------------


def nothing(secured, _folder):
    return TlsFiles(secured.folder / "broker" / "ca.crt")


def of_another_authority(secured, folder):
    other = Authority.create(folder / "ca", "ddnn s1", now_utc())
    issued = other.issue(f"{SITE}.gateway", now_utc())
    return credentials(folder, issued, secured.folder / "broker" / "ca.crt")


def expired(secured, folder):
    issued = authority(secured).issue(f"{SITE}.{NODE}", now_utc() - timedelta(days=3), days=1)
    return credentials(folder, issued, secured.folder / "broker" / "ca.crt")


def not_yet_valid(secured, folder):
    issued = authority(secured).issue(f"{SITE}.{NODE}", now_utc() + timedelta(days=1))
    return credentials(folder, issued, secured.folder / "broker" / "ca.crt")


def revoked(secured, folder):
    """Revoked while the broker runs, which takes the list on SIGHUP."""
    own = authority(secured)
    issued = own.issue(f"{SITE}.{NODE}", now_utc())
    tls = credentials(folder, issued, secured.folder / "broker" / "ca.crt")
    with contextlib.closing(connected_socket(secured.broker.port, tls)):
        pass
    own.revoke(f"{SITE}.{NODE}", now_utc(), serial=read_record(tls.cert).serial)
    site.build(secured.folder, now_utc())
    os.kill(secured.broker.pid, signal.SIGHUP)
    time.sleep(0.3)
    return tls


def the_brokers_own(secured, _folder):
    place = secured.folder / "broker"
    return TlsFiles(place / "ca.crt", place / "broker.crt", place / "broker.key")


@pytest.mark.parametrize(
    ("certificate", "said"),
    [
        (nothing, "wants a certificate"),
        (of_another_authority, "does not know the CA"),
        (expired, "expired"),
        (not_yet_valid, "not valid yet"),
        (revoked, "revoked"),
        (the_brokers_own, "of a wrong kind"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_connecting_with_a_certificate_that_is(secured, tmp_path, certificate, said):
    with secured.nothing_lost():
        client = Client(HOST, secured.broker.port, "x", tls=certificate(secured, tmp_path))
        client.start()
        try:
            # At once, and in words that say what to do.
            with pytest.raises(DdnnError, match=said):
                client.wait_connected(10)
        finally:
            client.stop()


def test_connecting_without_tls(secured):
    client = Client(HOST, secured.broker.port, "x")
    with secured.nothing_lost():
        client.start()
        try:
            with pytest.raises(DdnnError, match="does it want TLS"):
                client.wait_connected(3)
        finally:
            client.stop()


@pytest.mark.parametrize(
    "first_bytes", [b"", b"\x16\x03\x01\x02\x00"], ids=["silent", "half_hello"]
)
def test_stranger_holds_hundreds_of_connections_open(secured, thief, first_bytes):
    """Nodes that come meanwhile get in."""
    with secured.nothing_lost(slots=20), contextlib.ExitStack() as stack:
        for _ in range(300):
            address = ("127.0.0.1", secured.broker.port)
            held = stack.enter_context(socket.create_connection(address, timeout=5))
            held.sendall(first_bytes)
        with Attacker(secured.broker.port, thief) as node:
            assert not node.reason.is_failure
            assert node.publish(topics.check(SITE, NODE)) in ("Success", "No matching subscribers")
        time.sleep(1.0)


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion:DeprecationWarning")
def test_connecting_with_an_old_tls_version(secured, thief):
    context = context_of(thief, thief.ca)
    context.minimum_version = ssl.TLSVersion.TLSv1
    context.maximum_version = ssl.TLSVersion.TLSv1_1
    context.set_ciphers("ALL:@SECLEVEL=0")
    with (
        secured.nothing_lost(),
        socket.create_connection((HOST, secured.broker.port), timeout=5) as raw,
        pytest.raises(ssl.SSLError, match=r"(?i)version"),
    ):
        context.wrap_socket(raw, server_hostname=HOST)


def test_taking_another_nodes_client_id(secured, thief):
    gateway = secured.children[f"{SITE}.gateway"].pid
    log = secured.logs / f"{SITE}.gateway.log"
    with (
        secured.nothing_lost(),
        Attacker(secured.broker.port, thief, f"{SITE}.gateway") as attacker,
    ):
        assert not attacker.reason.is_failure
        assert "connection" not in log.read_text()
    assert gateway == secured.children[f"{SITE}.gateway"].pid


# -- a false broker --------------------------------------------------------------------------


@contextlib.contextmanager
def false_broker(cert, key, ca):
    """Listens with this certificate; yields its port."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(cert, key)
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve():
            while True:
                try:
                    raw, _ = server.accept()
                except OSError:
                    return
                with contextlib.suppress(OSError), context.wrap_socket(raw, server_side=True):
                    pass

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield server.getsockname()[1]
        server.shutdown(socket.SHUT_RDWR)
    thread.join(5)


def test_broker_with_a_stolen_node_certificate_is_not_believed(thief):
    with false_broker(thief.cert, thief.key, thief.ca) as port:
        client = Client(HOST, port, "victim", tls=thief)
        client.start()
        try:
            with pytest.raises(DdnnError, match="broker's certificate"):
                client.wait_connected(5)
        finally:
            client.stop()


def test_broker_with_another_name_than_it_is_called_by_is_not_believed(secured, thief, tmp_path):
    issued = authority(secured).issue(
        f"{SITE}.elsewhere", now_utc(), kind="broker", hosts=["elsewhere.local"]
    )
    false = credentials(tmp_path, issued, thief.ca)
    with false_broker(false.cert, false.key, thief.ca) as port:
        client = Client(HOST, port, "victim", tls=thief)
        client.start()
        try:
            with pytest.raises(DdnnError, match=r"site\.toml"):
                client.wait_connected(5)
        finally:
            client.stop()


# -- writing with a stolen camera's certificate ----------------------------------------------

FORBIDDEN = {
    "summary_of_another_camera": topics.summary(SITE, 0),
    "features_of_another_camera": topics.features(SITE, 0),
    "status_of_another_camera": topics.status(SITE, "device-0"),
    "status_of_the_gateway": topics.status(SITE, "gateway"),
    "status_of_a_worker": topics.worker_status("cloud-0"),
    "decision": topics.decision(SITE),
    "ledger": topics.ledger(SITE),
    "request_to_another_camera": topics.request(SITE, 0),
    "escalation": topics.escalation(SITE),
    "answer_of_the_cloud": topics.answer(SITE),
    "model_manifest": topics.manifest(SITE),
    "model_section": topics.section(SITE, "0" * 64, 0),
    "settings": topics.settings(SITE),
    "replay": topics.replay(SITE),
    "recall": topics.recall(SITE),
    "frame_of_another_site": topics.summary("s2", THIEF),
    "camera_that_does_not_exist": topics.summary(SITE, 77),
    "check_of_another_node": topics.check(SITE, "gateway"),
    "frame_with_an_empty_level": f"{SITE}//{THIEF}",
    "frame_with_a_level_more": f"{SITE}/s/{THIEF}/0",
    "frame_with_a_dot_segment": f"{SITE}/s/{THIEF}/../0",
    "brokers_own_tree": "$SYS/broker/uptime",
    "plugin_control": "$CONTROL/dynamic-security/v1",
}


@pytest.mark.parametrize("retain", [False, True], ids=["", "retained"])
@pytest.mark.parametrize("topic", FORBIDDEN.values(), ids=FORBIDDEN)
def test_stolen_certificate_writes(secured, thief, topic, retain):
    with secured.nothing_lost(slots=4), Attacker(secured.broker.port, thief) as attacker:
        answer = attacker.publish(topic, b"{}", retain=retain)
        # Said to be refused, or the connection ended.
        assert answer in (DENIED, None)


def test_stolen_certificate_leaves_a_will_on_the_decisions(secured, thief):
    before = len(secured.consumer.decisions)
    with secured.nothing_lost():
        try:
            attacker = Attacker(
                secured.broker.port, thief, will=(topics.decision(SITE), b"forged", 1, True)
            )
        except (OSError, TimeoutError):
            return  # not even let in
        with attacker:
            attacker.raw(b"\xf0\x00")  # no such packet: the broker ends it without a DISCONNECT
            attacker.gone.wait(5)
        time.sleep(0.3)
    errors = secured.consumer.client.counts["handler_errors"]
    assert errors == 0, "a forged decision reached the consumer"
    assert len(secured.consumer.decisions) > before


@pytest.mark.parametrize("topic", ["s1/s/+", "s1/#", "#", "s1/s/\x00", "s1/s/\udcff"])
def test_wildcards_and_bad_characters_in_a_topic_name(secured, thief, topic):
    name = topic.encode("utf-8", "surrogateescape")
    body = len(name).to_bytes(2, "big") + name + b"x"
    with (
        secured.nothing_lost(slots=4),
        contextlib.closing(connected_socket(secured.broker.port, thief)) as sock,
    ):
        sock.sendall(packet(0x30, body))
        assert sock.recv(10) == b"", "the broker must end the connection"


@pytest.mark.parametrize("identity", ["s1.#", "s1.+", "s1.device-1/../gateway", "#", "s1.a b", "."])
def test_identity_that_would_be_a_pattern_is_never_issued(identity):
    with pytest.raises(ConfigError):
        access.parse(identity)


# -- reading -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "topic_filter",
    ["#", "+/+/+", f"{SITE}/#", "ddnn/#", f"ddnn/{SITE}/+", "$share/thieves/#", "$SYS/#"],
)
def test_stolen_certificate_subscribes_to(secured, thief, topic_filter):
    allowed = access.of(Identity(SITE, NODE)).reads
    with secured.nothing_lost(slots=4), Attacker(secured.broker.port, thief) as attacker:
        attacker.paho.subscribe(topic_filter, 1)
        # Frames, decisions and statuses of the others pass in this time.
        seen = {topic for topic, _ in attacker.received(0.8)}
    assert all(any(topics.matches(f, topic) for f in allowed) for topic in seen), seen


# -- what a stolen camera may write, misused ---------------------------------------------------


def old_frame(secured, age_slots):
    return wire.encode(
        Kind.SUMMARY,
        tag=secured.bundle.tag,
        boot=1,
        slot=secured.now_slot - age_slots,
        body=bytes([200, 10, 10]),
    )


@pytest.mark.parametrize("age_s", [600, 20, 5], ids=lambda age: f"{age}_s_old")
def test_replayed_frames(secured, thief, age_s):
    frames = [old_frame(secured, int(age_s * 10) + n) for n in range(40)]
    before = dict(secured.consumer.decisions)
    with secured.nothing_lost(), Attacker(secured.broker.port, thief) as attacker:
        for frame in frames:
            attacker.publish(topics.summary(SITE, THIEF), frame, qos=0)
        time.sleep(0.5)
    after = secured.consumer.decisions
    assert all(after[slot] == decision for slot, decision in before.items())


def test_garbage_as_frames_and_status(secured, thief):
    with secured.nothing_lost(), Attacker(secured.broker.port, thief) as attacker:
        for payload in (b"", b"\x00", b"{" * 5000, bytes(20_000), b"\xff" * 13):
            for topic in (
                topics.summary(SITE, THIEF),
                topics.features(SITE, THIEF),
                topics.status(SITE, NODE),
            ):
                assert attacker.publish(topic, payload) == "Success"
    assert secured.consumer.client.counts["handler_errors"] == 0


def test_oversize_retained_message(secured, thief):
    topic = topics.status(SITE, NODE)
    with (
        secured.nothing_lost(),
        contextlib.closing(connected_socket(secured.broker.port, thief)) as sock,
        contextlib.suppress(OSError),
    ):
        sock.sendall(publish_packet(topic, bytes(OVERSIZE), qos=1, retain=True))
        assert sock.recv(10) == b"", "the broker must end the connection"


FLOODS = {
    "summaries": ["--topic", "{site}/s/{n}"],
    "summaries_with_acknowledgement": ["--topic", "{site}/s/{n}", "--qos", "1"],
    "large_summaries": ["--topic", "{site}/s/{n}", "--size", "900000"],
    "retained_statuses": [
        "--topic", "ddnn/{site}/status/device-{n}", "--size", "100000", "--retain",
    ],
    "messages_that_are_refused": ["--topic", "ddnn/{site}/decision"],
    "connections": ["--connections"],
}  # fmt: skip


@pytest.mark.parametrize(
    ("camera", "how"),
    list(zip((THIEF, *MORE_THIEVES), FLOODS.values(), strict=False)),
    ids=FLOODS,
)
def test_flood_of(secured, camera, how):
    place = secured.folder / "nodes" / f"{SITE}.device-{camera}"
    command = [sys.executable, "-m", "tests.security.attacker", str(secured.broker.port)]
    command += [str(place), *(word.format(site=SITE, n=camera) for word in how)]
    # mosquitto answers acknowledged messages in batches between which others wait: decisions stay
    # at full rate with every camera, but a deeper exit can come too late.
    slow = "--qos" in how
    with secured.nothing_lost(degraded=slow):
        done = subprocess.run(
            command, cwd=REPOSITORY, capture_output=True, text=True, timeout=60, check=True
        )
    assert int(done.stdout) > 100
    resident = int(Path(f"/proc/{secured.broker.pid}/statm").read_text().split()[1]) * 4096
    assert resident < 300e6
    print(f"{done.stdout.strip()} sent by camera {camera}, broker {resident / 1e6:.0f} MB")


# -- models ------------------------------------------------------------------------------------


MALICIOUS = {
    "older_version": lambda good: random_bundle(9, cameras=6, version=1).payload,
    "not_json": lambda good: b"\x00" * 1000,
    "deeply_nested": lambda good: b"[" * 500_000,
    "huge": lambda good: good.payload[:-1] + b" " * 900_000 + b"}",
}


@pytest.mark.parametrize("make", MALICIOUS.values(), ids=MALICIOUS)
def test_malicious_manifest_with_the_publishers_stolen_certificate(secured, make):
    payload = make(secured.bundle)
    assert payload != secured.bundle.payload
    with secured.nothing_lost(), secured.client("publisher") as publisher:
        publisher.publish(topics.manifest(SITE), payload, qos=1, retain=True).wait_for_publish(5)
        time.sleep(0.5)
        publish_bundle(publisher, SITE, secured.bundle, 10)
        time.sleep(0.3)
    assert len(secured.running()) == len(HONEST) + 2


def test_section_with_other_bytes_than_its_hash(secured):
    newer = random_bundle(4, cameras=6, version=2)
    with secured.nothing_lost(), secured.client("publisher") as publisher:
        for info in newer.manifest.sections:
            data = bytearray(newer.sections[info.role])
            data[len(data) // 2] ^= 1
            topic = topics.section(SITE, info.sha256, 0)
            publisher.publish(topic, bytes(data), qos=1, retain=True)
        publisher.publish(topics.manifest(SITE), newer.payload, qos=1, retain=True)
        secured.wait(
            lambda: "hash of the manifest" in (secured.consumer.statuses["device-0"].refused or ""),
            "a refusal for its bytes",
            10,
        )
        publish_bundle(publisher, SITE, secured.bundle, 10)
    assert len(secured.running()) == len(HONEST) + 2
