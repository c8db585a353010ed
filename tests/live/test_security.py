"""The production configuration on a real broker: who gets in, who may write, and how one sees it.

The quick part; `make test-security` attacks a whole running site.
"""

import contextlib
import os
import queue
import re
import signal
import socket
import ssl
import subprocess
import sys
import time

import paho.mqtt.client as paho
import pytest
from click.testing import CliRunner
from paho.mqtt.enums import CallbackAPIVersion

from broker import site
from broker.pki import Authority, now_utc, read_record, write_private
from broker.plan import BrokerPlan
from broker.site_cli import site_command, trial_broker
from ddnn import topics
from ddnn.doctor.cli import doctor
from ddnn.errors import DdnnError
from ddnn.mqtt import Client
from ddnn.tls import TlsFiles
from tests.security.site import HOST, SITE, broker_of, files, make_site

pytestmark = [pytest.mark.live, pytest.mark.timeout(60)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    place = tmp_path_factory.mktemp("production") / "site"
    make_site(place)
    return place


@pytest.fixture(scope="module")
def broker(folder):
    with broker_of(folder, site.read_plan(folder)) as running:
        yield running


@contextlib.contextmanager
def connected(broker, tls, **options):
    client = Client(HOST, broker.port, "any", tls=tls, **options)
    client.start()
    try:
        client.wait_connected(10)
        yield client
    finally:
        client.stop()


def wait_until(condition, timeout_s=8.0):
    deadline = time.monotonic() + timeout_s
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.02)
    return condition()


def test_node_with_its_certificate_gets_in_over_tls_1_3(broker, folder):
    with connected(broker, files(folder, f"{SITE}.device-0")) as client:
        assert client._client.socket().version() == "TLSv1.3"
        assert client.max_packet == 1024 * 1024


def test_nobody_gets_in_without_a_certificate_and_is_told_at_once(broker, folder):
    began = time.monotonic()
    anonymous = TlsFiles(folder / "broker" / "ca.crt")
    with pytest.raises(DdnnError, match="wants a certificate"), connected(broker, anonymous):
        pass
    assert time.monotonic() - began < 8


def test_message_that_the_access_list_refuses_is_counted_by_its_topic(broker, folder):
    with connected(broker, files(folder, f"{SITE}.device-0")) as client:
        foreign = topics.summary(SITE, 1)
        for _ in range(2):
            client.publish(foreign, b"x", qos=1).wait_for_publish(5)
        client.publish(topics.summary(SITE, 0), b"x", qos=1).wait_for_publish(5)
        assert wait_until(lambda: client.denied() == {foreign: 2})
        assert client.counts["denied"] == 2


def test_renewed_certificate_is_used_at_the_next_connection_without_a_restart(broker, folder):
    """The old one is revoked: only with the new one the node comes back."""
    tls = files(folder, f"{SITE}.device-1")
    old = read_record(tls.cert).serial
    with connected(broker, tls) as client:
        authority = Authority(folder / "ca")
        issued = authority.issue(f"{SITE}.device-1", now_utc())
        write_private(tls.key, issued.key)
        write_private(tls.cert, issued.certificate)
        authority.revoke(f"{SITE}.device-1", now_utc(), serial=old)
        site.build(folder, now_utc())
        broker.kill()
        assert wait_until(lambda: not client.connected.is_set())
        broker.start()
        assert wait_until(client.connected.is_set, 15), client.trouble.text


def test_revoked_node_cannot_come_back_and_what_it_still_holds_is_worth_nothing(broker, folder):
    tls = files(folder, f"{SITE}.device-2")
    with connected(broker, tls) as client:
        Authority(folder / "ca").revoke(f"{SITE}.device-2", now_utc())
        site.build(folder, now_utc())
        os.kill(broker.pid, signal.SIGHUP)
        # mosquitto keeps the connection; its access list has no more rights for it.
        own = topics.summary(SITE, 2)

        def is_denied():
            client.publish(own, b"x", qos=1).wait_for_publish(5)
            return client.denied()[own] > 0

        assert wait_until(is_denied)
    with pytest.raises(DdnnError, match="revoked"), connected(broker, tls):
        pass


def test_doctor_finds_a_node_well_with_its_own_settings(broker, folder, tmp_path):
    place = folder / "nodes" / f"{SITE}.device-3"
    settings = place / "device.toml"
    settings.write_text(settings.read_text().replace("port = 8883", f"port = {broker.port}"))
    result = CliRunner().invoke(doctor, ["--config", str(settings)])
    lines = {
        line.split()[1]: line.split()[0] for line in result.output.splitlines() if "->" not in line
    }
    for check in ("certificate", "key", "broker", "tls", "mqtt", "rights", "foreign", "packets"):
        assert lines[check] == "ok", result.output


def test_doctor_of_a_node_that_the_access_list_does_not_know(broker, folder, tmp_path):
    issued = Authority(folder / "ca").issue("s1.device-30", now_utc())
    place = tmp_path / "node"
    write_private(place / "node.crt", issued.certificate)
    write_private(place / "node.key", issued.key)
    write_private(place / "ca.crt", (folder / "ca" / "ca.crt").read_bytes())
    config = place / "device.toml"
    config.write_text(
        f'broker = "{HOST}"\nport = {broker.port}\n'
        'tls_ca = "ca.crt"\ntls_cert = "node.crt"\ntls_key = "node.key"\n'
    )
    result = CliRunner().invoke(doctor, ["--config", str(config)])
    assert result.exit_code == 1
    assert "FAILURE  rights" in result.output
    assert "ddnn site build" in result.output


def test_site_check_starts_mosquitto_with_the_configuration(folder):
    result = CliRunner().invoke(site_command, ["check", str(folder), "--start"])
    assert "mosquitto refuses" not in result.output
    (folder / "broker" / "broker.key").rename(folder / "broker" / "broker.key.away")
    try:
        from broker.site_cli import _start

        (finding,) = _start(folder)
        assert "mosquitto refuses it" in finding.text
    finally:
        (folder / "broker" / "broker.key.away").rename(folder / "broker" / "broker.key")


def test_from_nothing_to_a_published_bundle_as_the_documents_say(tmp_path):
    """The commands of docs/operations.md, on this machine."""
    from broker.mosquitto import free_port

    port, place = free_port(), tmp_path / "yard"
    ddnn = [sys.executable, "-m", "ddnn"]

    def run(*args):
        return subprocess.run([*ddnn, *args], capture_output=True, text=True, timeout=40)

    made = run(
        "site", "init", str(place), "--site", "s1", "--cameras", "6", "--worker", "cloud-0",
        "--host", HOST, "--bind", "127.0.0.1", "--port", str(port),
    )  # fmt: skip
    assert made.returncode == 0, made.stderr
    assert run("site", "check", str(place)).returncode == 0
    serving = subprocess.Popen(
        [*ddnn, "broker", "--site", str(place)], stdout=subprocess.PIPE, text=True
    )
    try:
        assert serving.stdout.readline().startswith(f"mqtts://127.0.0.1:{port}")
        settings = place / "nodes/s1.publisher/publish.toml"
        published = run("publish", "models/reference", "--config", str(settings))
        assert "published bundle" in published.stdout, published.stderr
        examined = run("doctor", "--config", str(place / "nodes/s1.gateway/gateway.toml"))
        assert "FAILURE" not in examined.stdout, examined.stdout
    finally:
        serving.terminate()
        assert serving.wait(10) == 0


def test_browser_gets_in_over_websockets_with_its_password_only(tmp_path):
    place, log = tmp_path / "site", tmp_path / "log"
    make_site(place, broker=BrokerPlan(names=(HOST,), websockets_port=9443))
    with trial_broker(place, log) as running:
        config = (log / "mosquitto.conf").read_text()
        port = int(re.findall(r"^listener (\d+)", config, re.MULTILINE)[1])
        password = (place / "nodes/s1.browser/password").read_text().strip()
        assert by_websockets(place, port, f"{SITE}.browser", password) == "Success"
        assert by_websockets(place, port, f"{SITE}.browser", "wrong") == "Not authorized"
        assert by_websockets(place, port, None, None) == "Not authorized"
        # The other listener goes on by certificates, and takes no password in their place.
        with connected(running, files(place, f"{SITE}.device-0")) as client:
            own, foreign = topics.summary(SITE, 0), topics.summary(SITE, 1)
            for topic in (own, foreign):
                client.publish(topic, b"x", qos=1).wait_for_publish(5)
            assert wait_until(lambda: client.denied() == {foreign: 1})
        with pytest.raises(OSError, match=r"(?i)certificate"):
            without_certificate(place, running.port)


def without_certificate(place, port):
    """Listen for what the nodes' listener says; a password would come later."""
    context = ssl.create_default_context(cafile=place / "ca" / "ca.crt")
    with (
        socket.create_connection((HOST, port), timeout=5) as raw,
        context.wrap_socket(raw, server_hostname=HOST) as sock,
    ):
        sock.recv(1)


def by_websockets(place, port, user, password):
    """What the broker answers to a browser."""
    answers = queue.Queue()
    client = paho.Client(
        CallbackAPIVersion.VERSION2, f"{SITE}.gateway", transport="websockets", protocol=paho.MQTTv5
    )
    client.tls_set(ca_certs=str(place / "ca" / "ca.crt"))
    if user:
        client.username_pw_set(user, password)
    client.on_connect = lambda *args: answers.put(str(args[3]))
    client.connect(HOST, port)
    client.loop_start()
    try:
        return answers.get(timeout=5)
    finally:
        client.disconnect()
        client.loop_stop()
