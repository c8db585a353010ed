"""Several edges as real processes: a gateway killed, and back again."""

import time
from contextlib import contextmanager

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
WAITS = ("--summary-wait-s", "1", "--features-wait-s", "1", "--answer-wait-s", "2")


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


class Running:
    """A site of two edges that replays `samples`; slots count from the first one shown."""

    def __init__(self, system, observer, bundle, samples):
        self.system, self.observer = system, observer
        self.bundle, self.samples = bundle, samples
        self.edge_ledgers = {}
        self.first = None

    def on_edge_ledger(self, message: Message):
        counts = msgspec.json.decode(message.payload, type=dict[str, int])
        self.edge_ledgers[message.topic] = counts

    def ready(self):
        topology = self.bundle.manifest.topology
        return self.observer.ready(SITE, topology, self.bundle.bundle_id)

    def wait(self, condition, what, timeout_s=40):
        self.system.wait_until(condition, what, timeout_s)

    def decided(self):
        return {slot - self.first: s.decision for slot, s in self.observer.decisions.items()}

    def kill(self, name):
        child = self.system.children.pop(name)
        child.kill()
        child.wait(5)

    def next_slot(self):
        return int(time.time() / PERIOD_S) + 2 - self.first

    def assert_right(self):
        """Every decision that is not degraded is the evaluation's, with the edges it names."""
        alone = self.samples.present.copy()
        alone[:, 2:] = False
        images = self.samples.images
        whole, half = (evaluate(self.bundle, images, p) for p in (self.samples.present, alone))
        for n, decision in self.decided().items():
            if decision.degraded:
                continue
            expected = half if decision.missing else whole
            assert decision.used == ((0,) if decision.missing else (0, 1))
            wanted = (CLASSES[expected.label[n]], expected.exit[n])
            assert (decision.label, decision.exit) == wanted, f"sample {n}"


@contextmanager
def running(folder):
    samples = scenes()
    bundle = random_bundle(1, (16, 16, 3), (4,), ((0, 1), (2, 3)), (8,), (8,), "CC")
    bundle = every_exit_used(bundle, samples.images, samples.present)
    replay = folder / "replay.npz"
    write_replay(replay, samples)
    topology = bundle.manifest.topology
    with System(
        folder / "run", replay, topology, site=SITE, period_s=PERIOD_S, gateway_options=WAITS
    ) as system:
        client = Client(system.broker.host, system.broker.port, "observer")
        made = Running(system, Observer(client, SITE), bundle, samples)
        client.subscribe(topics.edge_ledger_filter(SITE), made.on_edge_ledger)
        client.start()
        try:
            client.wait_connected(10)
            publish_bundle(client, SITE, bundle, 10)
            system.start_services()
            made.wait(made.ready, "starting", 60)
            made.first = int((time.time() + 0.5) / PERIOD_S) + 1
            payload = msgspec.json.encode({"first_slot": made.first})
            client.publish(topics.replay(SITE), payload, qos=1, retain=True)
            made.wait(lambda: len(made.decided()) >= 40, "first decisions")
            yield made
        finally:
            client.stop()


def test_killed_edge_gateway_is_missing_until_it_is_back(tmp_path):
    with running(tmp_path) as site:
        site.kill("gateway-1")
        site.wait(lambda: not site.ready(), "noticing that it is gone")
        site.wait(lambda: len(site.decided()) >= 70, "decisions without it")
        site.system.start_gateway(1)
        site.wait(site.ready, "its return")
        back = site.next_slot()
        site.wait(lambda: len(site.decided()) >= COUNT, "all decisions")
        site.wait(lambda: site.observer.ledger.get("opened") == COUNT, "the ledger")
        site.wait(lambda: len(site.edge_ledgers) == 2, "the edges' ledgers")

    decisions = [site.decided()[n] for n in range(COUNT)]
    assert site.observer.repeats == 0
    assert {d.members for d in decisions} == {"edges"}
    assert {d.exit for d in decisions} == {"local", "edge", "cloud"}
    gone = [n for n, d in enumerate(decisions) if d.missing == (1,)]
    assert gone, "nothing was decided without the killed edge gateway"
    assert 39 <= gone[0] <= 70
    assert back < COUNT - 10, "the replay ended before it was back"
    assert not any(d.missing for d in decisions[back:])
    site.assert_right()
    ledger = site.observer.ledger
    # The frames in flight when it was killed may lack the features that it was asked for.
    assert ledger.get("degraded", 0) <= 3
    assert ledger["decided"] + ledger.get("degraded", 0) == COUNT
    for counts in site.edge_ledgers.values():
        assert counts["opened"] == counts["passed"] + counts["open"]


def test_killed_gateway_above_the_edges_goes_on_with_its_ledger(tmp_path):
    with running(tmp_path) as site:
        site.kill("gateway")
        site.wait(lambda: not site.ready(), "noticing that it is gone")
        before = site.decided()
        site.system.start_gateway()
        site.wait(site.ready, "its return")
        back = site.next_slot()
        site.wait(lambda: COUNT - 1 in site.decided(), "the last decision")
        every = range(back, COUNT)
        site.wait(lambda: site.decided().keys() >= set(every), "all decisions since its return")

        def balanced():
            ledger = site.observer.ledger
            ended = sum(ledger.get(n, 0) for n in ("decided", "degraded", "expired"))
            return ended == ledger["opened"] >= len(site.decided()) and not ledger["unsent"]

        site.wait(balanced, "a balanced ledger")

    decisions = site.decided()
    assert before.items() <= decisions.items(), "a decision was taken back"
    assert back < COUNT - 10, "the replay ended before it was back"
    assert all(not decisions[n].missing and not decisions[n].degraded for n in every)
    site.assert_right()
