"""Bundles on retained topics: pushed by command, changed over to, refused when wrong."""

import re
import shutil
import subprocess
import sys
import time

import numpy as np
import pytest

from broker.mosquitto import LocalBroker, render_config
from ddnn import topics
from ddnn.errors import DdnnError
from ddnn.key_files import read_secret
from ddnn.mqtt import Client
from ddnn.processes import start_child, stop_children
from ddnn.rollout import offer
from ddnn.store import write_folder
from demo.observer import Observer
from tests.bundles import random_bundle
from training.publish import publish_bundle, signed

pytestmark = pytest.mark.live
SITE = "s1"


class Site:
    """A broker, an observer, a gateway and one agent of camera 0, which trust one key."""

    def __init__(self, folder):
        self.folder = folder
        self.broker = LocalBroker(directory=folder / "broker")
        self.children = []
        self.key = folder / "keys" / "operator.key"
        self.trusted = folder / "keys" / "trusted.json"
        self.ddnn("keys", "new", str(self.key))
        self.ddnn("keys", "trust", str(self.trusted), f"{self.key}.pub")
        np.savez(
            folder / "replay.npz",
            images=np.zeros((5, 3, 16, 16, 3), np.uint8),
            present=np.ones((5, 3), bool),
        )

    def __enter__(self):
        self.broker.start()
        self.client = Client(self.broker.host, self.broker.port, "observer")
        self.observer = Observer(self.client, SITE)
        self.client.start()
        self.client.wait_connected(10)
        return self

    def __exit__(self, *_):
        self.client.stop()
        stop_children(self.children)
        self.broker.stop()

    def ddnn(self, *args):
        return subprocess.run(
            [sys.executable, "-m", "ddnn", *args],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    def node(self, name, *args):
        args = [*args, "--site", SITE, *self.address, "--trusted-keys", str(self.trusted)]
        args += ["--store", str(self.folder / "stores" / name)]
        log = self.folder / f"{name}.log"
        child = start_child([sys.executable, "-m", "ddnn", *args], {}, log)
        self.children.append(child)
        return child

    def device(self):
        source = f"replay:{self.folder / 'replay.npz'}"
        return self.node("device", "device", "--camera", "0", "--source", source)

    def gateway(self):
        return self.node("gateway", "gateway", "--activation-lead-s", "0.5")

    @property
    def address(self):
        return ["--broker", self.broker.host, "--port", str(self.broker.port)]

    def wait_status(self, condition):
        deadline = time.monotonic() + 20
        status = None
        while time.monotonic() < deadline:
            status = self.observer.devices.get("device-0")
            if status is not None and condition(status):
                return status
            time.sleep(0.02)
        raise AssertionError(f"status is {status}; {self.logs()}")

    def publish(self, bundle, *options):
        folder = self.folder / f"bundle-{bundle.bundle_id[:8]}"
        write_folder(folder, bundle)
        return self.operate("publish", str(folder), "--key", str(self.key), *options)

    def operate(self, *args):
        if args[0] in ("publish", "rollback"):
            args = (*args, "--registry", str(self.folder / "registry"))
        return self.ddnn(*args, "--site", SITE, *self.address, "--timeout-s", "20")

    def logs(self):
        logs = [f"{path.name}:\n{path.read_text()}" for path in self.folder.glob("*.log")]
        return "\n".join(logs)


@pytest.fixture
def site(tmp_path):
    with Site(tmp_path) as made:
        yield made


def test_bundles_are_pushed_changed_over_to_rolled_back_and_retired_by_command(site):
    site.device()
    site.gateway()
    site.wait_status(lambda s: s.state == "online" and s.bundle is None)
    first, second = random_bundle(version=1), random_bundle(seed=1, version=2)
    result = site.publish(first)
    assert result.returncode == 0, result.stderr
    assert "running on all 2 nodes" in result.stdout

    result = site.publish(second)
    assert result.returncode == 0, result.stderr + result.stdout
    shown = [line.split() for line in result.stdout.splitlines() if line.startswith("  ")]
    for node in ("device-0", "gateway"):
        assert [line[1] for line in shown if line[0] == node][-2:] == ["staged", "active"]
    assert site.wait_status(lambda s: s.bundle == second.bundle_id).version == 2

    result = site.publish(random_bundle(seed=2, version=1))
    assert result.returncode == 1
    assert "higher --version" in result.stderr
    assert "Traceback" not in result.stderr

    result = site.operate("rollback", "--key", str(site.key))
    assert result.returncode == 0, result.stderr + result.stdout
    assert site.wait_status(lambda s: s.version == 3).refused is None

    result = site.operate("models")
    assert result.stdout.count("version 3, signed by") == 2, result.stdout
    result = site.operate("retire")
    sections = len({info.sha256 for info in first.manifest.sections})
    both = {i.sha256 for bundle in (first, second) for i in bundle.manifest.sections}
    assert f"cleared {len(both) - sections} of {len(both)}" in result.stdout, result.stdout
    assert "cleared 0 of" in site.operate("retire").stdout


def test_device_starts_with_the_bundle_on_its_disk(site):
    child = site.device()
    bundle = random_bundle()
    assert site.publish(bundle).returncode == 0
    child.kill()
    site.wait_status(lambda s: s.state == "offline")
    site.client.publish(topics.manifest(SITE), b"", qos=1, retain=True).wait_for_publish(5)
    site.device()
    assert site.wait_status(lambda s: s.state == "online").bundle == bundle.bundle_id


def test_bundle_with_a_wrong_section_is_refused_and_the_running_one_stays(site):
    site.device()
    site.gateway()
    good, bad = random_bundle(version=1), random_bundle(seed=1, version=2)
    result = site.publish(good)
    assert result.returncode == 0, result.stderr + result.stdout
    bad = signed(bad, read_secret(site.key))
    *sections, manifest = offer(SITE, bad)
    info = bad.manifest.section("device/0")
    topic = topics.section(SITE, info.sha256, 0)
    for message in (*sections, manifest):
        payload = message.payload
        if message.topic == topic:
            payload = payload[:100] + bytes([payload[100] ^ 1]) + payload[101:]
        site.client.publish(message.topic, payload, qos=1, retain=True)
    status = site.wait_status(lambda s: s.refused)
    assert "hash" in status.refused
    assert status.bundle == good.bundle_id
    # The right section arriving later completes the bundle, and the site changes over.
    site.client.publish(topic, bad.sections["device/0"], qos=1, retain=True)
    assert site.wait_status(lambda s: s.bundle == bad.bundle_id).refused is None


def test_unsigned_bundle_and_one_of_another_key_are_refused_live(site):
    site.device()
    site.gateway()
    good = random_bundle(version=1)
    result = site.publish(good)
    assert result.returncode == 0, result.stderr + result.stdout
    site.ddnn("keys", "new", str(site.folder / "evil.key"))
    evil = random_bundle(seed=1, version=2)
    folder = site.folder / "evil"
    write_folder(folder, evil)
    result = site.operate("publish", str(folder), "--key", str(site.folder / "evil.key"))
    assert result.returncode == 1
    assert "device-0: refused: signed by key" in result.stderr
    assert "2 of 2 nodes do not run it" in result.stderr
    status = site.wait_status(lambda s: s.refused)
    assert status.bundle == good.bundle_id
    publish_bundle(site.client, SITE, random_bundle(seed=2, version=3), 15)
    assert site.wait_status(lambda s: "not signed" in s.refused).bundle == good.bundle_id


def test_broker_that_forgot_everything_is_told_again_by_the_gateway(site):
    site.device()
    site.gateway()
    first, second = random_bundle(version=1), random_bundle(seed=1, version=2)
    assert site.publish(first).returncode == 0
    site.broker.kill()
    site.broker.start()
    site.client.wait_connected(15)
    # A camera whose disk is empty needs the manifest and the sections.
    shutil.rmtree(site.folder / "stores" / "device")
    site.children[0].kill()
    site.device()
    site.wait_status(lambda s: s.state == "online" and s.bundle == first.bundle_id)
    result = site.publish(second)
    assert result.returncode == 0, result.stderr
    site.wait_status(lambda s: s.bundle == second.bundle_id)


def publish_under(limit_bytes, bundle, folder):
    """What an onlooker hears of a bundle that is published where packets have this limit."""

    def config(port):
        own = "max_packet_size 2097152"
        assert own in render_config(port)
        return render_config(port).replace(own, f"max_packet_size {limit_bytes}")

    heard = []
    with LocalBroker(directory=folder, config=config) as broker:
        client = Client(broker.host, broker.port, "publisher")
        client.subscribe("#", heard.append)
        client.start()
        try:
            client.wait_connected(10)
            publish_bundle(client, SITE, bundle, 10)
        except DdnnError as error:
            return heard, str(error)
        finally:
            client.stop()
    return heard, None


def test_bundle_over_the_brokers_packet_limit_is_refused_and_the_limit_it_needs_named(tmp_path):
    bundle = random_bundle()
    heard, error = publish_under(1500, bundle, tmp_path)
    assert heard == [], "nothing was sent"
    enough = int(re.search(r"max_packet_size must be (\d+) or more", error)[1])
    _, error = publish_under(enough, bundle, tmp_path)
    assert error is None


def test_publish_without_a_broker_says_what_to_do(tmp_path):
    write_folder(tmp_path / "b", random_bundle())
    command = [sys.executable, "-m", "ddnn", "publish", str(tmp_path / "b"), "--port", "1"]
    result = subprocess.run(
        [*command, "--timeout-s", "1"], capture_output=True, text=True, timeout=30, check=False
    )
    assert result.returncode == 1
    assert "ddnn broker" in result.stderr
    assert "Traceback" not in result.stderr
