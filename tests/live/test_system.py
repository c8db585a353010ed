"""The whole system over a real broker, every part a process of its own."""

import time
from contextlib import contextmanager

import msgspec
import numpy as np
import pytest
from rich.console import Console

from ddnn import topics
from ddnn.evaluate import evaluate
from ddnn.mqtt import Client
from demo.observer import Observer
from demo.run import run_demo
from demo.system import System, write_replay
from tests.bundles import CLASSES, random_bundle
from training.datasets.base import MultiCameraSet
from training.publish import publish_bundle

pytestmark = pytest.mark.live
CAMERAS = 4


def scenes(count, seed=3, size=16):
    """Noisy flat-coloured views; a third of them absent, and one sample with no view at all."""
    rng = np.random.default_rng(seed)
    flat = rng.integers(0, 256, (count, CAMERAS, 1, 1, 3))
    noise = rng.normal(0, 60, (count, CAMERAS, size, size, 3))
    images = np.clip(flat + noise, 1, 255).astype(np.uint8)
    present = rng.random((count, CAMERAS)) > 0.3
    present[5] = False
    images[~present] = 0
    everything = np.arange(count)
    return MultiCameraSet(
        images=images,
        labels=rng.integers(0, 3, count),
        seen=present.copy(),
        present=present,
        classes=CLASSES,
        name="random scenes",
        train=everything[:0],
        test=everything,
    )


def test_every_decision_equals_the_in_process_evaluation(tmp_path):
    samples = scenes(160)
    bundle = random_bundle(cameras=CAMERAS)
    expected = evaluate(bundle, samples.images, samples.present)
    assert {"local", "edge", "cloud"} == set(expected.exit), "the test must use every exit"

    report = run_demo(samples, bundle, tmp_path, 0.04, Console(quiet=True))

    assert report.matches_reference == 1.0
    assert report.frames_sent == report.decided == 160
    assert (report.degraded, report.expired, report.repeats) == (0, 0, 0)
    assert report.accuracy == report.accuracy_reference
    assert report.exits["nothing_seen"] == np.mean(~samples.present.any(axis=1))
    assert report.payload_bytes_per_camera_frame == pytest.approx(
        payload_by_hand(samples, expected)
    )
    assert report.wire_bytes_per_camera_frame > report.payload_bytes_per_camera_frame


def payload_by_hand(samples, expected):
    """10 bytes of header each; 3 of scores where present; features where the local exit failed."""
    summaries = np.where(samples.present, 13, 10).sum()
    asked = samples.present & (expected.exit != "local")[:, None]
    return (summaries + asked.sum() * (10 + expected.features.shape[2])) / samples.present.size


def ended(ledger):
    return sum(ledger.get(name, 0) for name in ("decided", "degraded", "expired"))


@contextmanager
def replaying(folder, samples, bundle, period_s):
    """A site whose replay has just begun, its observer, and the replay's first slot."""
    replay = folder / "replay.npz"
    write_replay(replay, samples)
    topology = bundle.manifest.topology
    waits = ("--summary-wait-s", "2", "--features-wait-s", "2", "--answer-wait-s", "2")
    with System(
        folder / "run", replay, topology, site="kill", period_s=period_s, gateway_options=waits
    ) as system:
        client = Client(system.broker.host, system.broker.port, "observer")
        observer = Observer(client, "kill")
        client.start()
        try:
            client.wait_connected(10)
            publish_bundle(client, "kill", bundle, 10)
            system.start_services()
            ready = (topology, bundle.bundle_id)
            system.wait_until(lambda: observer.ready("kill", *ready), "starting", 60)
            first = int((time.time() + 0.5) / period_s) + 1
            payload = msgspec.json.encode({"first_slot": first})
            client.publish(topics.replay("kill"), payload, qos=1, retain=True)
            yield system, observer, first
        finally:
            client.stop()


def test_camera_killed_mid_run_is_in_the_mask_and_every_slot_is_decided(tmp_path):
    samples = scenes(120)
    samples.present[:, 2] = True
    bundle = random_bundle(cameras=CAMERAS)
    with replaying(tmp_path, samples, bundle, 0.05) as (system, observer, first):
        system.wait_until(lambda: len(observer.decisions) >= 40, "first decisions", 30)
        system.children.pop("device-2").kill()
        system.wait_until(lambda: len(observer.decisions) >= 120, "all decisions", 40)
        system.wait_until(lambda: ended(observer.ledger) == 120, "the ledger", 10)
    decisions = [observer.decisions[first + i].decision for i in range(120)]
    missing = [d.missing for d in decisions]
    died = missing.index((2,))
    assert 30 <= died <= 80
    assert missing == [()] * died + [(2,)] * (120 - died)
    ledger = observer.ledger
    assert ledger.get("expired", 0) == 0
    # At most the frame in flight may lack the features that the dead camera was asked for.
    assert ledger.get("degraded", 0) <= 2
    after = slice(died + 3, None)
    without = samples.present.copy()
    without[:, 2] = False
    expected = evaluate(bundle, samples.images, without)
    assert [d.label for d in decisions[after]] == [
        CLASSES[label] if label >= 0 else None for label in expected.label[after]
    ]


def test_camera_killed_late_in_a_replay_and_started_again_shows_what_the_others_show(tmp_path):
    samples = scenes(220)
    samples.present[:, 2] = True
    bundle = random_bundle(cameras=CAMERAS)
    expected = evaluate(bundle, samples.images, samples.present)
    with replaying(tmp_path, samples, bundle, 0.1) as (system, observer, first):
        # So far into it that all samples until here, at once, would be a flood to the gateway.
        system.wait_until(lambda: len(observer.decisions) >= 145, "145 decisions", 40)
        system.children.pop("device-2").kill()
        system.wait_until(lambda: len(observer.decisions) >= 150, "decisions without it", 10)
        system.start_device(2)
        system.wait_until(lambda: len(observer.decisions) == 220, "all decisions", 30)
    last = [observer.decisions[first + i].decision for i in range(200, 220)]
    assert [d.missing for d in last] == [()] * 20
    assert [d.label for d in last] == [
        CLASSES[label] if label >= 0 else None for label in expected.label[200:]
    ]
