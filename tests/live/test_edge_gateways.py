"""Several edges as real processes: one edge gateway killed, and back again."""

import time

import msgspec
import numpy as np
import pytest

from ddnn import topics
from ddnn.evaluate import evaluate
from ddnn.mqtt import Client, Message
from demo.observer import Observer
from demo.system import System, write_replay
from tests.arm64.bundles import random_bundle
from tests.bundles import CLASSES, every_exit_used
from training.datasets.base import MultiCameraSet
from training.publish import publish_bundle

pytestmark = pytest.mark.live
SITE = "edges"
PERIOD_S = 0.06
COUNT = 160


def scenes():
    rng = np.random.default_rng(3)
    flat = rng.integers(0, 256, (COUNT, 4, 1, 1, 3))
    noise = rng.normal(0, 60, (COUNT, 4, 16, 16, 3))
    everything = np.arange(COUNT)
    there = np.ones((COUNT, 4), bool)
    return MultiCameraSet(
        images=np.clip(flat + noise, 1, 255).astype(np.uint8),
        labels=rng.integers(0, 3, COUNT),
        seen=there,
        present=there,
        classes=CLASSES,
        name="random scenes",
        train=everything[:0],
        test=everything,
    )


def test_killed_edge_gateway_is_missing_until_it_is_back(tmp_path):
    samples = scenes()
    bundle = random_bundle(1, (16, 16, 3), (4,), ((0, 1), (2, 3)), (8,), (8,), "CC")
    bundle = every_exit_used(bundle, samples.images, samples.present)
    topology = bundle.manifest.topology
    write_replay(tmp_path / "replay.npz", samples)
    waits = ("--summary-wait-s", "1", "--features-wait-s", "1", "--answer-wait-s", "2")
    edge_ledgers = {}

    def on_edge_ledger(message: Message):
        edge_ledgers[message.topic] = msgspec.json.decode(message.payload, type=dict[str, int])

    with System(
        tmp_path / "run", tmp_path / "replay.npz", topology, site=SITE, period_s=PERIOD_S,
        gateway_options=waits,
    ) as system:  # fmt: skip
        client = Client(system.broker.host, system.broker.port, "observer")
        observer = Observer(client, SITE)
        client.subscribe(topics.edge_ledger_filter(SITE), on_edge_ledger)
        client.start()

        def ready():
            return observer.ready(SITE, topology, bundle.bundle_id)

        try:
            client.wait_connected(10)
            publish_bundle(client, SITE, bundle, 10)
            system.start_services()
            system.wait_until(ready, "starting", 60)
            first = int((time.time() + 0.5) / PERIOD_S) + 1
            payload = msgspec.json.encode({"first_slot": first})
            client.publish(topics.replay(SITE), payload, qos=1, retain=True)
            system.wait_until(lambda: len(observer.decisions) >= 40, "first decisions", 30)
            killed = system.children.pop("gateway-1")
            killed.kill()
            killed.wait(5)
            system.wait_until(lambda: not ready(), "noticing that it is gone", 10)
            system.wait_until(lambda: len(observer.decisions) >= 70, "decisions without it", 30)
            system.start_edge(1)
            system.wait_until(ready, "its return", 30)
            back = int(time.time() / PERIOD_S) + 2 - first
            system.wait_until(lambda: len(observer.decisions) >= COUNT, "all decisions", 40)
            system.wait_until(lambda: observer.ledger.get("opened") == COUNT, "the ledger", 10)
            system.wait_until(lambda: len(edge_ledgers) == 2, "the edges' ledgers", 10)
        finally:
            client.stop()

    decisions = [observer.decisions[first + i].decision for i in range(COUNT)]
    assert observer.repeats == 0
    assert {d.members for d in decisions} == {"edges"}
    assert {d.exit for d in decisions} == {"local", "edge", "cloud"}
    gone = [n for n, d in enumerate(decisions) if d.missing == (1,)]
    assert gone, "nothing was decided without the killed edge gateway"
    assert 39 <= gone[0] <= 70
    assert back < COUNT - 10, "the replay ended before it was back"
    assert not any(d.missing for d in decisions[back:])

    alone = samples.present.copy()
    alone[:, 2:] = False
    whole, half = (evaluate(bundle, samples.images, p) for p in (samples.present, alone))
    degraded = 0
    for n, decision in enumerate(decisions):
        expected = half if decision.missing else whole
        if decision.degraded:
            degraded += 1
            continue
        assert decision.used == ((0,) if decision.missing else (0, 1))
        wanted = (CLASSES[expected.label[n]], expected.exit[n])
        assert (decision.label, decision.exit) == wanted, f"sample {n}"
    # The frames in flight when it was killed may lack the features that it was asked for.
    assert degraded <= 3
    ledger = observer.ledger
    assert ledger["decided"] + ledger.get("degraded", 0) == COUNT
    for counts in edge_ledgers.values():
        assert counts["opened"] == counts["passed"] + counts["open"]
