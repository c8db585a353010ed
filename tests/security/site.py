"""A site on its generated production configuration: real broker, real nodes, every one with its
own certificate. Cameras 5 to 11 have a certificate and no agent: they are the attacker's.
"""

from __future__ import annotations

import contextlib
import getpass
import sys
import threading
import time
from datetime import UTC, datetime

import msgspec
import numpy as np

from broker import lint, site
from broker.mosquitto import LocalBroker
from broker.pki import now_utc
from broker.plan import BrokerPlan, Plan
from broker.production import render_config
from ddnn import status, topics
from ddnn.decisions import decode
from ddnn.mqtt import Client
from ddnn.processes import start_child, stop_children
from ddnn.tls import TlsFiles
from tests.bundles import random_bundle
from training.publish import publish_bundle

HOST = "localhost"
SITE = "s1"
CAMERAS = 6
#: Cameras with an agent, which must keep deciding whatever is done.
HONEST = tuple(range(CAMERAS - 1))
THIEF = CAMERAS - 1
#: Stolen as well, one for each flood, since a gateway does not listen to the same one twice.
MORE_THIEVES = tuple(range(CAMERAS, CAMERAS + 6))
PERIOD_S = 0.1


def make_site(folder, **changes):
    """A site's folder as `ddnn site init` makes it, on this machine."""
    fields = {
        "site": SITE,
        "period_s": PERIOD_S,
        "cameras": (*range(CAMERAS), *MORE_THIEVES),
        "workers": ("cloud-0",),
        "broker": BrokerPlan(names=(HOST, "127.0.0.1"), bind="127.0.0.1", user=getpass.getuser()),
    }
    plan = Plan(**(fields | changes))
    site.init(folder, plan)
    site.build(folder, now_utc())
    return plan


def broker_of(folder, plan, extra="", **options):
    """The site's broker with exactly what was generated, but for its port and `extra` lines."""

    def config(port):
        here = str((folder / "broker").resolve())
        moved = msgspec.structs.replace(plan.broker, port=port)
        return render_config(msgspec.structs.replace(plan, broker=moved), here) + extra

    return LocalBroker(directory=folder / "log", config=config, **options)


def files(folder, identity):
    """TLS files of a node."""
    place = folder / "nodes" / identity
    return TlsFiles(place / "ca.crt", place / "node.crt", place / "node.key")


class Consumer:
    """A dashboard that takes every decision once."""

    def __init__(self, folder, port, identity=f"{SITE}.dashboard", address=HOST):
        self.lock = threading.Lock()
        self.decisions = {}
        self.ledger = {}
        self.statuses = {}
        self.client = Client(address, port, "any", tls=files(folder, identity))
        self.client.subscribe(topics.decision(SITE), self._on_decision)
        self.client.subscribe(topics.ledger(SITE), self._on_ledger)
        self.client.subscribe(topics.status_filter(SITE), self._on_status)
        self.client.subscribe(topics.worker_status_filter(), self._on_status)
        self.client.start()
        self.client.wait_connected(10)

    def _on_decision(self, message):
        decision = decode(message.payload)
        with self.lock:
            self.decisions.setdefault(decision.slot, decision)

    def _on_ledger(self, message):
        self.ledger = msgspec.json.decode(message.payload, type=dict[str, int])

    def _on_status(self, message):
        report = status.decode(message.payload)
        if report is not None:
            self.statuses[report.node] = report

    def recall(self, from_slot):
        """Ask for decisions again."""
        payload = msgspec.json.encode({"from_slot": from_slot})
        self.client.publish(topics.recall(SITE), payload, qos=1)

    def between(self, first, last):
        """Decisions of slots `first` to `last`."""
        with self.lock:
            return [self.decisions[s] for s in sorted(self.decisions) if first <= s <= last]


class SecuredSite:
    """Broker, gateway, cloud worker and the honest cameras."""

    def __init__(self, folder, samples=6000, extra=""):
        self.folder = folder / "site"
        self.logs = folder / "logs"
        self.logs.mkdir()
        self.plan = self.make()
        self.broker = broker_of(self.folder, self.plan, extra)
        self.children = {}
        self.stack = contextlib.ExitStack()
        self.bundle = random_bundle(cameras=CAMERAS)
        rng = np.random.default_rng(3)
        flat = rng.integers(0, 256, (samples, CAMERAS, 1, 1, 3))
        noise = rng.normal(0, 60, (samples // 10, CAMERAS, 16, 16, 3))
        images = np.clip(flat + np.tile(noise, (10, 1, 1, 1, 1)), 1, 255).astype(np.uint8)
        self.replay = folder / "replay.npz"
        np.savez(self.replay, images=images, present=np.ones((samples, CAMERAS), bool))

    def make(self):
        return make_site(self.folder)

    def __enter__(self):
        self.broker.start()
        self.stack.callback(self.broker.stop)
        self.consumer = Consumer(self.folder, self.broker.port)
        self.stack.callback(self.consumer.client.stop)
        self.stack.callback(lambda: stop_children(self.children.values()))
        with self.client("publisher") as publisher:
            publish_bundle(publisher, SITE, self.bundle, 10)
        waits = ("--summary-wait-s", "3", "--features-wait-s", "3", "--answer-wait-s", "3")
        self.start(f"{SITE}.gateway", "gateway", *waits, "--audit-share", "0.2")
        self.start("_cloud.cloud-0", "cloud")
        for camera in HONEST:
            self.start(f"{SITE}.device-{camera}", "device", "--source", f"replay:{self.replay}")
        self.wait(lambda: len(self.running()) == len(HONEST) + 2, "starting", 60)
        first = int((time.time() + 0.5) / PERIOD_S) + 1
        with self.client("operator") as operator:
            payload = msgspec.json.encode({"first_slot": first})
            operator.publish(topics.replay(SITE), payload, qos=1, retain=True).wait_for_publish(5)
        self.wait(lambda: len(self.consumer.between(first, first + 10**6)) > 5, "deciding", 20)
        return self

    def __exit__(self, *_):
        self.stack.close()

    def start(self, identity, command, *options, folder=None, broker=None):
        """Start a node with the folder that the site made for it and nothing else."""
        place = (folder or self.folder) / "nodes" / identity
        port = (broker or self.broker).port
        self.children[identity] = start_child(
            [
                sys.executable, "-m", "ddnn", command, "--config", str(place / f"{command}.toml"),
                "--port", str(port), *options,
            ],
            {"OMP_NUM_THREADS": "1"},
            self.logs / f"{identity}.log",
        )  # fmt: skip

    @contextlib.contextmanager
    def client(self, node, **options):
        """A connected client of one of the site's identities."""
        tls = files(self.folder, f"{SITE}.{node}")
        client = Client(HOST, self.broker.port, "any", tls=tls, **options)
        client.start()
        try:
            client.wait_connected(10)
            yield client
        finally:
            client.stop()

    def running(self):
        return [
            s
            for s in list(self.consumer.statuses.values())
            if s.state == "online" and self.bundle.bundle_id in (s.bundle, s.sites.get(SITE))
        ]

    def findings(self):
        return lint.check(self.folder, datetime.now(UTC))

    def wait(self, condition, what, timeout_s):
        deadline = time.monotonic() + timeout_s
        while not condition():
            if time.monotonic() > deadline:
                tails = [f"{p.name}: {p.read_text()[-600:]}" for p in self.logs.glob("*.log")]
                raise AssertionError(
                    f"{what}: not within {timeout_s:g} s\n{self.consumer.ledger}\n"
                    + "\n".join(tails)
                    + self.broker.log_tail(20)
                )
            time.sleep(0.02)

    @property
    def now_slot(self):
        return int(time.time() / PERIOD_S)

    @contextlib.contextmanager
    def nothing_lost(self, slots=10, degraded=False):
        """Whatever happens inside: every slot is decided, with every honest camera.

        Args:
            slots: at least so many are looked at.
            degraded: whether some may lack the answer of a deeper exit.
        """
        first = self.now_slot - 2
        yield
        last = max(self.now_slot, first + slots)
        wanted = last - first + 1
        self.wait(lambda: len(self.consumer.between(first, last)) == wanted, "every slot", 20)
        for decision in self.consumer.between(first, last):
            assert set(HONEST) <= {*decision.used, *decision.absent} or degraded, decision
            assert not set(HONEST) & {*decision.missing}, decision
            assert decision.degraded is None or degraded, decision
