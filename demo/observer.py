"""What a bystander on the broker sees of a site: decisions, ledger, statuses."""

from __future__ import annotations

import threading
import time
from typing import NamedTuple

import msgspec

from ddnn import activation, status, topics
from ddnn.bundle import Topology
from ddnn.decisions import PublishedDecision, decode
from ddnn.errors import WireError
from ddnn.mqtt import Client, Message
from ddnn.place import edge_gateways
from ddnn.status import Status


class Seen(NamedTuple):
    """A decision and when it arrived here (seconds since 1970)."""

    decision: PublishedDecision
    arrived_s: float

    @property
    def latency_s(self) -> float:
        """From the beginning of the slot, when the views are taken, to its arrival here."""
        return self.arrived_s - self.decision.time_s


class Observer:
    """Collects what a site publishes; every method may be called from any thread."""

    def __init__(self, client: Client, site: str) -> None:
        self.repeats = 0
        self._lock = threading.Lock()
        self._decisions: dict[int, Seen] = {}
        self._new: list[Seen] = []
        self._statuses: dict[str, Status] = {}
        self._ledger: dict[str, int] = {}
        self._activated = ""
        client.subscribe(topics.decision(site), self._on_decision)
        client.subscribe(topics.ledger(site), self._on_ledger)
        client.subscribe(topics.active(site), self._on_active)
        client.subscribe(topics.status_filter(site), self._on_status)
        client.subscribe(topics.status_filter("_cloud"), self._on_status)

    def take_new(self) -> list[Seen]:
        """Decisions that came since the last call."""
        with self._lock:
            new, self._new = self._new, []
            return new

    @property
    def decisions(self) -> dict[int, Seen]:
        """Every decision by slot."""
        with self._lock:
            return dict(self._decisions)

    @property
    def ledger(self) -> dict[str, int]:
        """The gateway's counts, as last published."""
        with self._lock:
            return dict(self._ledger)

    @property
    def statuses(self) -> dict[str, Status]:
        """The last status of every node by name."""
        with self._lock:
            return dict(self._statuses)

    @property
    def devices(self) -> dict[str, Status]:
        """Statuses of the camera agents by node name."""
        return {n: s for n, s in self.statuses.items() if n.startswith("device-")}

    def ready(self, site: str, topology: Topology, bundle_id: str) -> bool:
        """Whether all agents, all gateways and a worker run this bundle, and are told to."""
        with self._lock:
            running = [
                s.node
                for s in self._statuses.values()
                if s.state == "online" and bundle_id in (s.bundle, s.sites.get(site))
            ]
            activated = self._activated == bundle_id
        return activated and len(running) == topology.cameras + 2 + len(edge_gateways(topology))

    def _on_decision(self, message: Message) -> None:
        try:
            seen = Seen(decode(message.payload), time.time())
        except WireError:
            return
        with self._lock:
            if seen.decision.slot in self._decisions:
                self.repeats += 1
                return
            self._decisions[seen.decision.slot] = seen
            self._new.append(seen)

    def _on_ledger(self, message: Message) -> None:
        with self._lock:
            self._ledger = msgspec.json.decode(message.payload, type=dict[str, int])

    def _on_active(self, message: Message) -> None:
        with self._lock:
            self._activated = activation.decode(message.payload).bundle

    def _on_status(self, message: Message) -> None:
        report = status.decode(message.payload)
        if report is not None:
            with self._lock:
                self._statuses[report.node] = report
