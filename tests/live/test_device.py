"""A camera's agent as a process, with a film for a camera, a real broker, and faults."""

import signal
import subprocess
import sys
import time

import av
import numpy as np
import pytest

from broker.mosquitto import LocalBroker
from ddnn import topics, wire
from ddnn.mqtt import Client
from ddnn.processes import start_child, stop_children
from ddnn.wire import Flag, Kind
from demo.observer import Observer
from tests.bundles import random_bundle
from training.publish import publish_bundle

pytestmark = pytest.mark.live
SITE = "s1"
PERIOD_S = 0.1


@pytest.fixture(scope="module")
def film(tmp_path_factory):
    """Three seconds of noise, 64 x 48, at 20 pictures a second."""
    path = tmp_path_factory.mktemp("film") / "film.mkv"
    random = np.random.default_rng(0)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("ffv1", rate=20)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "bgr0"
        for _ in range(60):
            noise = random.integers(0, 256, (48, 64, 3)).astype(np.uint8)
            for packet in stream.encode(av.VideoFrame.from_ndarray(noise, "rgb24")):
                container.mux(packet)
        for packet in stream.encode():
            container.mux(packet)
    return path


class Site:
    """A broker with a bundle on it, what comes from camera 0, and its agent."""

    def __init__(self, folder):
        self.folder = folder
        self.broker = LocalBroker(directory=folder / "broker")
        self.children = []
        self.frames = []
        self.bundle = random_bundle()

    def __enter__(self):
        self.broker.start()
        self.client = Client(self.broker.host, self.broker.port, "observer")
        self.observer = Observer(self.client, SITE)
        for topic in (topics.summary(SITE, 0), topics.features(SITE, 0)):
            self.client.subscribe(topic, lambda m: self.frames.append(wire.decode(m.payload)))
        self.client.start()
        self.client.wait_connected(10)
        publish_bundle(self.client, SITE, self.bundle, 10)
        return self

    def __exit__(self, *_):
        self.client.stop()
        stop_children(self.children)
        self.broker.stop()

    def start(self, *args):
        command = [sys.executable, "-m", "ddnn", "device", "--site", SITE, "--camera", "0"]
        command += ["--broker", self.broker.host, "--port", str(self.broker.port)]
        command += ["--period-s", str(PERIOD_S), *map(str, args)]
        child = start_child(command, {"OMP_NUM_THREADS": "1"}, self.folder / "device.log")
        self.children.append(child)
        return child

    def wait(self, condition, what, timeout_s=20):
        deadline = time.monotonic() + timeout_s
        while not condition():
            if time.monotonic() > deadline:
                log = (self.folder / "device.log").read_text()
                raise AssertionError(f"no {what}; status {self.status}; log:\n{log}")
            time.sleep(0.02)

    @property
    def status(self):
        return self.observer.devices.get("device-0")


@pytest.fixture
def site(tmp_path):
    with Site(tmp_path) as made:
        yield made


def test_films_pictures_become_summaries_in_their_slots_and_unsure_ones_are_recorded(site, film):
    folder = site.folder / "recordings"
    record = ("--record-dir", folder, "--record-unsure", "true")
    child = site.start("--source", f"file:{film}", "--loop", "true", *record)
    site.wait(lambda: len(site.frames) >= 10, "summaries")
    summaries = [f for f in site.frames if f.kind is Kind.SUMMARY]
    now = int(time.time() / PERIOD_S)
    slots = [wire.unwrap_slot(f.slot, now) for f in summaries]
    assert all(f.flags == 0 and len(f.body) == 3 for f in summaries)
    assert slots == sorted(set(slots))
    assert abs(slots[-1] - now) < 30

    request = wire.encode(Kind.REQUEST, tag=site.bundle.tag, boot=1, slot=slots[-1])
    site.client.publish(topics.request(SITE, 0), request, qos=1)
    site.wait(lambda: list(folder.glob("*/*/0.png")), "recording")
    assert [p.parent.name for p in folder.glob("*/*/0.png")] == [str(slots[-1])]

    child.send_signal(signal.SIGTERM)
    site.wait(lambda: site.status.state == "offline", "goodbye")
    assert child.wait(10) == 0
    status = site.status
    assert status.health.source == "running"
    assert status.health.versions["ddnn"]
    assert status.counts["recorded"] == 1
    assert status.at_s >= status.since_s


def test_will_of_a_killed_agent_has_the_time_stamp_of_its_birth(site, film):
    child = site.start("--source", f"file:{film}", "--loop", "true")
    site.wait(lambda: site.status and site.status.bundle, "status")
    birth = site.status
    child.kill()
    site.wait(lambda: site.status.state == "offline", "will")
    assert site.status.since_s == birth.since_s is not None
    assert site.status.health is None, "a will knows nothing of how its node did"


def test_still_picture_is_absent_once_the_gate_has_learnt_it(site, tmp_path):
    from PIL import Image

    pictures = tmp_path / "pictures"
    pictures.mkdir()
    Image.new("RGB", (64, 48), (90, 120, 60)).save(pictures / "0.png")
    gate = ("--gate", "true", "--gate-learn-s", "1.5", "--gate-hold-s", "0")
    site.start("--source", f"folder:{pictures}", "--loop", "true", *gate)
    site.wait(lambda: any(f.flags & Flag.ABSENT for f in site.frames), "absent view")
    assert not site.frames[0].flags & Flag.ABSENT, "nothing is held back while it learns"


def test_agent_whose_camera_does_not_come_back_ends_with_status_1_and_says_why(site):
    child = site.start("--source", "rtsp://user:secret@127.0.0.1:1/x", "--camera-failures", "0")
    assert child.wait(30) == 1
    site.wait(lambda: site.status and site.status.state == "offline", "goodbye")
    assert "127.0.0.1" in site.status.health.problem
    log = (site.folder / "device.log").read_text()
    assert "could not be brought back" in log
    assert "secret" not in log + site.status.health.problem
    assert "Traceback" not in log


def test_camera_that_is_not_there_is_refused_before_anything_is_started():
    command = [sys.executable, "-m", "ddnn", "device", "--camera", "0", "--source", "v4l2:/dev/no"]
    result = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    assert result.returncode == 1
    assert "/dev/v4l/by-id" in result.stderr
    assert "Traceback" not in result.stderr
