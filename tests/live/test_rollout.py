"""Three roll-outs under full load: one good, one that a camera refuses, one that fails its trial.

Six cameras at ten frames a second. Every decision is compared with what the bundle whose tag it
carries decides in this process; the ledger must balance, and no decision may lack a camera.
"""

import time

import msgspec
import numpy as np
import pytest

from ddnn import status, topics
from ddnn.activation import decode as decode_record
from ddnn.bundle import assemble, encode_manifest
from ddnn.evaluate import evaluate
from ddnn.key_files import write_keys
from ddnn.mqtt import Client
from ddnn.trust import KeySet
from demo.observer import Observer
from demo.system import System, write_replay
from tests.bundles import CLASSES, random_bundle
from tests.signing import KEY, trusted
from training.datasets.base import MultiCameraSet
from training.publish import publish_bundle, signed

pytestmark = pytest.mark.live
CAMERAS, PERIOD_S, SAMPLES, SITE = 6, 0.1, 1200, "r"
WAITS = ("--summary-wait-s", "2", "--features-wait-s", "2", "--answer-wait-s", "2")
CANARY = ("--canary-every", "2", "--canary-slots", "25", "--activation-lead-s", "1")


def scenes():
    rng = np.random.default_rng(3)
    flat = rng.integers(0, 256, (SAMPLES, CAMERAS, 1, 1, 3))
    images = np.clip(flat + rng.normal(0, 60, (SAMPLES, CAMERAS, 16, 16, 3)), 1, 255)
    present = rng.random((SAMPLES, CAMERAS)) > 0.2
    images[~present] = 0
    return MultiCameraSet(
        images=images.astype(np.uint8), labels=np.zeros(SAMPLES, int), seen=present,
        present=present, classes=CLASSES, name="random scenes", train=np.arange(0),
        test=np.arange(SAMPLES),
    )  # fmt: skip


def with_threshold(bundle, version, threshold):
    """The same network with another local threshold: it decides alike, often at another exit."""
    exits = dict(bundle.manifest.exits)
    exits["local"] = msgspec.structs.replace(exits["local"], threshold=threshold)
    manifest = msgspec.structs.replace(bundle.manifest, version=version, exits=exits)
    return assemble(encode_manifest(manifest), bundle.sections)


class PickySystem(System):
    """A site in which the last camera has a file of trusted keys of its own."""

    def start(self, name, *args):
        before = self._trust
        if name == f"device-{CAMERAS - 1}":
            self._trust = ("--trusted-keys", str(self.folder / "picky.json"))
        super().start(name, *args)
        self._trust = before


class Watch:
    """Statuses and activation records as they come."""

    def __init__(self, client):
        self.records, self.statuses = [], {}
        client.subscribe("ddnn/r/status/+", self.on_status)
        client.subscribe(topics.active(SITE), self.on_record)

    def on_status(self, message):
        report = status.decode(message.payload)
        self.statuses[report.node] = report

    def on_record(self, message):
        record = decode_record(message.payload)
        if record not in self.records:
            self.records.append(record)

    def switched_at(self, bundle):
        return next((r.from_slot for r in self.records if r.bundle == bundle.bundle_id), None)


def test_three_rollouts_at_full_frame_rate_cost_no_frame_and_mix_no_decision(tmp_path):
    samples = scenes()
    folder = tmp_path / "run"
    folder.mkdir()
    for name in ("trusted.json", "picky.json"):
        write_keys(folder / name, KeySet(keys=(trusted(),)))
    first = signed(random_bundle(cameras=CAMERAS), KEY)
    topology = first.manifest.topology
    good = signed(with_threshold(first, 2, 0.80), KEY)
    refused = signed(with_threshold(first, 3, 0.85), KEY)
    worse = random_bundle(seed=5, cameras=CAMERAS, version=4)
    worse = signed(worse, KEY)
    replay = tmp_path / "replay.npz"
    write_replay(replay, samples)
    with PickySystem(
        folder, replay, topology, site=SITE, period_s=PERIOD_S,
        gateway_options=(*WAITS, *CANARY), trusted_keys=folder / "trusted.json",
    ) as system:  # fmt: skip
        client = Client(system.broker.host, system.broker.port, "observer")
        observer, watch = Observer(client, SITE), None
        client.start()
        try:
            client.wait_connected(10)
            publish_bundle(client, SITE, first, 10)
            system.start_services()
            system.wait_until(lambda: observer.ready(SITE, topology, first.bundle_id), "start", 60)
            # A client of its own: the observer listens to the same topics.
            other = Client(system.broker.host, system.broker.port, "watch")
            watch = Watch(other)
            other.start()
            start = int((time.time() + 1.0) / PERIOD_S) + 1
            payload = msgspec.json.encode({"first_slot": start})
            client.publish(topics.replay(SITE), payload, qos=1, retain=True)
            system.wait_until(lambda: len(observer.decisions) > 20, "first decisions", 20)

            publish_bundle(client, SITE, good, 10)
            system.wait_until(lambda: watch.switched_at(good), "the good roll-out", 40)
            assert watch.records[-2].shadow.bundle == good.bundle_id  # it was tried before
            system.wait_until(lambda: observer.ready(SITE, topology, good.bundle_id), "change", 20)

            gone = KeySet(keys=(trusted(revoked="stolen"),))
            write_keys(folder / "picky.json", gone)
            publish_bundle(client, SITE, refused, 10)

            def held():
                return "device-5 refuses it" in watch.statuses["gateway"].notes.get("rollout", "")

            system.wait_until(held, "a refusal that holds the roll-out up", 20)
            assert "revoked" in watch.statuses["device-5"].refused
            assert watch.statuses["device-5"].bundle == good.bundle_id

            write_keys(folder / "picky.json", KeySet(keys=(trusted(),)))
            publish_bundle(client, SITE, worse, 10)

            def rejected():
                report = watch.statuses["gateway"]
                return report.refused_id == worse.bundle_id and "trial" in report.refused

            system.wait_until(rejected, "a trial that fails", 40)
            many = len(observer.decisions)
            system.wait_until(lambda: len(observer.decisions) > many + 30, "going on", 20)
            last = max(observer.decisions)
            system.wait_until(lambda: observer.ledger.get("open") == 0, "the ledger", 10)
            switch = watch.switched_at(good)
            print(
                f"{last - start + 1} slots, changed over at number {switch - start}; "
                f"gateway: {watch.statuses['gateway'].refused}"
            )
            other.stop()
        finally:
            client.stop()
    check(samples, observer, (first, good), start, switch, last)


def check(samples, observer, bundles, start, switch, last):
    decisions = {slot: seen.decision for slot, seen in observer.decisions.items()}
    assert sorted(decisions)[: last - start + 1] == list(range(start, last + 1))
    assert observer.repeats == 0
    ledger = observer.ledger
    assert ledger.get("degraded", 0) == ledger.get("expired", 0) == 0
    assert ledger["opened"] == ledger["decided"] + ledger["open"]
    expected = {b.tag: evaluate(b, samples.images, samples.present) for b in bundles}
    old, new = (bundle.tag for bundle in bundles)
    assert (expected[old].exit != expected[new].exit).any(), "the bundles must be told apart"
    for slot in range(start, last + 1):
        decision, n = decisions[slot], slot - start
        assert decision.bundle_tag == (old if slot < switch else new), f"slot {n}"
        assert decision.missing == (), f"slot {n}"
        assert decision.degraded is None
        theirs = expected[decision.bundle_tag]
        label = CLASSES[theirs.label[n]] if theirs.label[n] >= 0 else None
        assert decision.label == label, f"slot {n}"
        if label is not None:
            assert decision.exit == theirs.exit[n], f"slot {n}"
