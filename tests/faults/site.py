"""A whole site of real processes, each behind a proxy of its own, and a consumer that counts."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
import time

import msgspec
import numpy as np

from broker.mosquitto import LocalBroker
from ddnn import status, topics
from ddnn.decisions import decode
from ddnn.mqtt import Client, Publish
from ddnn.processes import start_child, stop_children
from tests.bundles import random_bundle
from tests.faults.delay_line import FAR
from tests.faults.proxy import HOST, Proxy
from training.publish import publish_bundle

SITE = "f"
CAMERAS = 3
PERIOD_S = 0.1
#: Promised: full service within this time after any fault has ended.
RECOVERY_S = 10.0
#: Full service is so many slots in a row that lack nothing.
IN_A_ROW = 10


class Consumer:
    """Takes every decision once, by its key, and asks again for what it may have missed."""

    def __init__(self, port):
        self.lock = threading.Lock()
        self.decisions = {}
        self.arrived = {}
        self.conflicts = []
        self.ledger = {}
        self.statuses = {}
        self.client = Client(HOST, port, "consumer", on_up=self.recall, keepalive_s=5)
        self.client.subscribe(topics.decision(SITE), self._on_decision)
        self.client.subscribe(topics.ledger(SITE), self._on_ledger)
        self.client.subscribe(topics.status_filter(SITE), self._on_status)
        self.client.subscribe(topics.worker_status_filter(), self._on_status)
        self.client.start()

    def recall(self, count=200):
        since = max(self.decisions, default=count) - count
        payload = msgspec.json.encode({"from_slot": since})
        self.client.send(Publish(topics.recall(SITE), payload, qos=1))

    def _on_decision(self, message):
        decision = decode(message.payload)
        with self.lock:
            before = self.decisions.setdefault(decision.slot, decision)
            if before != decision:
                self.conflicts.append((before, decision))
            self.arrived.setdefault(decision.slot, time.time())

    def _on_ledger(self, message):
        self.ledger = msgspec.json.decode(message.payload, type=dict[str, int])

    def _on_status(self, message):
        report = status.decode(message.payload)
        if report is not None:
            self.statuses[report.node] = report
            if report.node == "gateway" and report.state == "online":
                self.recall()

    def since(self, slot):
        """Decisions of slots from `slot` on, in order."""
        with self.lock:
            return [self.decisions[s] for s in sorted(self.decisions) if s >= slot]


class Site:
    """Broker, gateway, cameras and workers; `samples` slots of replay.

    Nodes named in `far` live at the near end of a delay line, the broker beyond its far end.
    """

    def __init__(self, folder, samples=8000, workers=1, far=None):
        self.far = far or {}
        self.folder = folder
        self.workers = workers
        self.broker = LocalBroker(directory=folder / "broker", persistence_dir=folder / "database")
        self.children = {}
        self.proxies = {}
        rng = np.random.default_rng(3)
        flat = rng.integers(0, 256, (samples, CAMERAS, 1, 1, 3))
        noise = rng.normal(0, 60, (samples // 10, CAMERAS, 16, 16, 3))
        images = np.clip(flat + np.tile(noise, (10, 1, 1, 1, 1)), 1, 255).astype(np.uint8)
        self.replay = folder / "replay.npz"
        np.savez(self.replay, images=images, present=np.ones((samples, CAMERAS), bool))
        self.bundle = random_bundle(cameras=CAMERAS)
        self.stack = contextlib.ExitStack()

    # -- life ------------------------------------------------------------------------------

    def __enter__(self):
        self.broker.start()
        self.stack.callback(self.broker.stop)
        self.consumer = Consumer(self.broker.port)
        self.stack.callback(self.consumer.client.stop)
        self.consumer.client.wait_connected(10)
        self.stack.callback(lambda: stop_children(self.children.values()))
        publish_bundle(self.consumer.client, SITE, self.bundle, 10)
        for name in self.names:
            listening = self.far[name].listen() if name in self.far else None
            self.proxies[name] = self.stack.enter_context(Proxy(self.broker.port, listening))
            self.start(name)
        self.wait(lambda: len(self.running()) == len(self.names), "starting", 60)
        self.first_slot = int((time.time() + 0.5) / PERIOD_S) + 1
        self.publish_start()
        self.wait_full_service("the beginning", 30)
        return self

    def __exit__(self, *_):
        for name in list(self.children):
            self.signal(name, signal.SIGCONT)
        self.stack.close()

    @property
    def names(self):
        cameras = [f"device-{n}" for n in range(CAMERAS)]
        return ["gateway", *cameras, *(f"cloud-{n}" for n in range(self.workers))]

    def running(self):
        return [
            s
            for s in self.consumer.statuses.values()
            if s.state == "online" and self.bundle.bundle_id in (s.bundle, s.sites.get(SITE))
        ]

    def publish_start(self):
        payload = msgspec.json.encode({"first_slot": self.first_slot})
        self.consumer.client.publish(topics.replay(SITE), payload, qos=1, retain=True)

    def publish_again(self):
        """What an operator does after the broker has lost its database."""
        publish_bundle(self.consumer.client, SITE, self.bundle, 10)
        self.publish_start()

    def start(self, name):
        """Start (again) one process."""
        host = FAR if name in self.far else HOST
        address = ["--broker", host, "--port", str(self.proxies[name].port), "--keepalive-s", "5"]
        address += ["--store", str(self.folder / "stores" / name)]
        common = ["--site", SITE, "--period-s", str(PERIOD_S)]
        kind, _, number = name.partition("-")
        args = {
            "gateway": ["gateway", *common, "--answer-wait-s", "1.5"],
            "device": [
                "device", *common, "--camera", number, "--source", f"replay:{self.replay}",
                "--ring-slots", "512",
            ],
            "cloud": ["cloud", "--worker", name],
        }[kind]  # fmt: skip
        command = [sys.executable, "-m", "ddnn", *args, *address]
        if name in self.far:
            command += ["--allow-unsigned", "true"]  # its broker is not on the loopback
            command = self.far[name].command(*command)
        self.children[name] = start_child(
            command,
            {"OMP_NUM_THREADS": "1"},
            self.folder / f"{name}.log",
        )

    def signal(self, name, number):
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.children[name].pid, number)

    def kill(self, name):
        """kill -9"""
        self.signal(name, signal.SIGKILL)
        self.children[name].wait(5)

    def log(self, name):
        return (self.folder / f"{name}.log").read_text(errors="replace")

    # -- what is promised ------------------------------------------------------------------

    @property
    def now_slot(self):
        return int(time.time() / PERIOD_S)

    def wait(self, condition, what, timeout_s):
        deadline = time.monotonic() + timeout_s
        while not condition():
            if time.monotonic() > deadline:
                tails = [f"{n}: {self.log(n)[-600:]}" for n in self.children]
                recent = self.consumer.since(self.now_slot - 12)
                raise AssertionError(
                    f"{what}: not within {timeout_s:g} s\n{self.consumer.ledger}\n"
                    + "\n".join(map(str, recent)) + "\n" + "\n".join(tails)
                )  # fmt: skip
            time.sleep(0.02)

    def wait_full_service(self, after, timeout_s=RECOVERY_S):
        """Wait until so many slots in a row lack nothing; returns how long that took (s).

        Only slots that began after this call count, so that what is measured is the recovery.
        """
        began, first = time.monotonic(), self.now_slot

        def is_full():
            row = 0
            for decision in self.consumer.since(first):
                well = decision.degraded is None and not decision.missing
                row = row + 1 if well else 0
            return row >= IN_A_ROW

        self.wait(is_full, f"full service after {after}", timeout_s + IN_A_ROW * PERIOD_S)
        took_s = max(0.0, time.monotonic() - began - IN_A_ROW * PERIOD_S)
        print(f"full service {took_s:.1f} s after {after}")
        return took_s

    def wait_balanced(self):
        """The public ledger adds up, and no decision waits."""

        def balanced():
            c = self.consumer.ledger
            ended = sum(c.get(name, 0) for name in ("decided", "degraded", "expired", "open"))
            return ended == c.get("opened") and c.get("unsent") == 0

        self.wait(balanced, "a balanced ledger", 10)
        assert not self.consumer.conflicts, self.consumer.conflicts[:2]
