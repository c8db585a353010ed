"""Bundles on retained topics: pushed by command, kept on disk, refused when wrong."""

import subprocess
import sys
import time

import numpy as np
import pytest

from broker.mosquitto import LocalBroker
from ddnn import topics
from ddnn.mqtt import Client
from ddnn.processes import start_child, stop_children
from ddnn.store import write_folder
from demo.observer import Observer
from tests.bundles import random_bundle
from training.publish import publish_bundle

pytestmark = pytest.mark.live
SITE = "s1"


class Site:
    """A broker, an observer and one agent of camera 0."""

    def __init__(self, folder):
        self.folder = folder
        self.broker = LocalBroker(directory=folder / "broker")
        self.children = []
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

    def device(self):
        args = ["device", "--site", SITE, "--camera", "0", *self.address]
        args += ["--source", f"replay:{self.folder / 'replay.npz'}"]
        args += ["--store", str(self.folder / "store")]
        log = self.folder / "device.log"
        child = start_child([sys.executable, "-m", "ddnn", *args], {}, log)
        self.children.append(child)
        return child

    @property
    def address(self):
        return ["--broker", self.broker.host, "--port", str(self.broker.port)]

    def wait_status(self, condition):
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline:
            status = self.observer.devices.get("device-0")
            if status is not None and condition(status):
                return status
            time.sleep(0.02)
        log = (self.folder / "device.log").read_text()
        raise AssertionError(f"status is {status}; log:\n{log}")

    def publish(self, bundle, *options):
        folder = self.folder / f"bundle-{bundle.bundle_id[:8]}"
        write_folder(folder, bundle)
        command = [sys.executable, "-m", "ddnn", "publish", str(folder), "--site", SITE]
        return subprocess.run(
            [*command, *self.address, "--timeout-s", "15", *options],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )


@pytest.fixture
def site(tmp_path):
    with Site(tmp_path) as made:
        yield made


def test_publish_command_ends_well_when_every_node_runs_the_bundle(site):
    site.device()
    site.wait_status(lambda s: s.state == "online" and s.bundle is None)
    bundle = random_bundle()
    result = site.publish(bundle)
    assert result.returncode == 0, result.stderr
    assert "running on all 1 nodes" in result.stdout
    assert site.wait_status(lambda s: s.bundle).bundle == bundle.bundle_id


def test_older_version_is_refused_before_anything_is_overwritten(site):
    site.device()
    newer, older = random_bundle(version=2), random_bundle(seed=1, version=1)
    assert site.publish(newer).returncode == 0
    result = site.publish(older)
    assert result.returncode == 1
    assert "higher --version" in result.stderr
    assert "Traceback" not in result.stderr
    assert site.wait_status(lambda s: s.bundle).bundle == newer.bundle_id


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
    good, bad = random_bundle(version=1), random_bundle(seed=1, version=2)
    assert site.publish(good).returncode == 0
    info = bad.manifest.section("device/0")
    flipped = bytearray(bad.sections["device/0"])
    flipped[100] ^= 1
    topic = topics.section(SITE, info.sha256, 0)
    site.client.publish(topic, bytes(flipped), qos=1, retain=True).wait_for_publish(5)
    site.client.publish(topics.manifest(SITE), bad.payload, qos=1, retain=True)
    status = site.wait_status(lambda s: s.refused)
    assert "hash" in status.refused
    assert status.bundle == good.bundle_id
    # The right section arriving later completes the staged bundle.
    site.client.publish(topic, bad.sections["device/0"], qos=1, retain=True)
    assert site.wait_status(lambda s: s.bundle == bad.bundle_id).refused is None


def test_nodes_find_back_after_the_broker_was_killed(site):
    site.device()
    first, second = random_bundle(version=1), random_bundle(seed=1, version=2)
    assert site.publish(first).returncode == 0
    site.broker.kill()
    site.broker.start()
    site.client.wait_connected(15)
    publish_bundle(site.client, SITE, second, 15)
    site.wait_status(lambda s: s.bundle == second.bundle_id)


def test_publish_without_a_broker_says_what_to_do(tmp_path):
    write_folder(tmp_path / "b", random_bundle())
    command = [sys.executable, "-m", "ddnn", "publish", str(tmp_path / "b"), "--port", "1"]
    result = subprocess.run(
        [*command, "--timeout-s", "1"], capture_output=True, text=True, timeout=30, check=False
    )
    assert result.returncode == 1
    assert "ddnn broker" in result.stderr
    assert "Traceback" not in result.stderr
