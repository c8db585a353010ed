"""Audits over a real broker, every part a process of its own: they say what the evaluation says."""

import threading
import time

import msgspec
import pytest

from ddnn import audit, topics
from ddnn.evaluate import evaluate
from ddnn.mqtt import Client
from demo.observer import Observer
from demo.system import System, write_replay
from tests.bundles import CLASSES, random_bundle
from tests.live.test_system import CAMERAS, ended, scenes
from tests.schemas import problems
from training.publish import publish_bundle

pytestmark = pytest.mark.live
SITE, FRAMES, PERIOD_S = "audited", 70, 0.1


class Auditor:
    """Collects audits and estimates as a dashboard would."""

    def __init__(self, client):
        self.audits, self.estimates, self.wrong = [], [], []
        self._lock = threading.Lock()
        client.subscribe(topics.audit(SITE), self._on_audit)
        client.subscribe(topics.audit_estimate(SITE), self._on_estimate)

    def _on_audit(self, message):
        with self._lock:
            self.wrong += problems("audit", message.payload)
            self.audits.append(audit.decode(message.payload))

    def _on_estimate(self, message):
        with self._lock:
            self.wrong += problems("audit-estimate", message.payload)
            self.estimates.append(audit.decode_estimate(message.payload))


def test_every_early_decision_is_looked_at_again_and_stays_what_it_is(tmp_path):
    samples, bundle = scenes(FRAMES), random_bundle(cameras=CAMERAS)
    expected = evaluate(bundle, samples.images, samples.present)
    assert {"local", "edge", "cloud"} == set(expected.exit), "the test must use every exit"
    replay = tmp_path / "replay.npz"
    write_replay(replay, samples)
    waits = ("--summary-wait-s", "10", "--features-wait-s", "10", "--answer-wait-s", "10")
    with System(
        tmp_path / "run",
        replay,
        bundle.manifest.topology,
        site=SITE,
        period_s=PERIOD_S,
        gateway_options=("--audit-share", "1", *waits),
    ) as system:
        client = Client(system.broker.host, system.broker.port, "observer")
        observer, auditor = Observer(client, SITE), Auditor(client)
        client.start()
        try:
            client.wait_connected(10)
            publish_bundle(client, SITE, bundle, 10)
            system.start_services()
            system.wait_until(
                lambda: observer.ready(SITE, bundle.manifest.topology, bundle.bundle_id),
                "starting",
                60,
            )
            first = int((time.time() + 0.5) / PERIOD_S) + 1
            payload = msgspec.json.encode({"first_slot": first})
            client.publish(topics.replay(SITE), payload, qos=1, retain=True)
            system.wait_until(lambda: ended(observer.ledger) == FRAMES, "all decisions", 40)
            system.wait_until(lambda: settled(auditor, observer), "all audits", 15)
        finally:
            client.stop()
    assert auditor.wrong == []
    last, ledger = auditor.estimates[-1], observer.ledger
    assert ledger["audit.begun"] == ledger["audit.completed"] == len(auditor.audits)
    assert (ledger.get("degraded", 0), ledger.get("expired", 0)) == (0, 0)
    decided = {slot - first: seen.decision for slot, seen in observer.decisions.items()}
    for n, decision in decided.items():  # audits have changed none of them
        if decision.label is not None:
            assert decision.label == CLASSES[expected.label[n]]
            assert decision.exit == expected.exit[n]
    early = sum(decision.exit in ("local", "edge") for decision in decided.values())
    assert early == last.begun + sum(last.skipped.values())
    assert len(auditor.audits) > 0.5 * early  # a slow machine has some of them skipped as busy
    for found in auditor.audits:
        n = found.slot - first
        assert (found.label, found.exit) == (decided[n].label, decided[n].exit)
        for name, said in found.exits.items():
            assert said.label == CLASSES[expected.exits[name].label[n]]
            assert said.entropy == round(float(expected.exits[name].entropy[n]), 6)
    assert len({found.slot for found in auditor.audits}) == len(auditor.audits)
    for one in last.exits:
        mine = [found for found in auditor.audits if found.exit == one.exit]
        assert one.all.audited == len(mine)
        assert one.all.disagreed == sum(not found.agrees for found in mine)


def settled(auditor, observer):
    """No audit is under way, and the last estimate has arrived."""
    early = sum(observer.ledger.get(f"exit.{name}", 0) for name in ("local", "edge"))
    if not auditor.estimates:
        return False
    last = auditor.estimates[-1]
    under_way = last.begun - last.completed - sum(last.given_up.values())
    return early == last.begun + sum(last.skipped.values()) and under_way == 0
