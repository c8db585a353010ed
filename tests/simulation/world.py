"""One simulated site in virtual time: hosts, faults, and quiet phases in which all must be well."""

from __future__ import annotations

import heapq
import logging
import random
from collections import Counter
from dataclasses import dataclass

from tests.simulation import faults
from tests.simulation.checker import Checker, Violation
from tests.simulation.hosts import Consumer, Device, GatewayHost, Publisher, WorkerHost, stranger
from tests.simulation.network import Broker

logging.getLogger("ddnn").setLevel(logging.CRITICAL)


@dataclass(frozen=True)
class Options:
    """What is simulated.

    Attributes:
        shares: of the scenes that the local exit and the edge exit are sure of.
        absent: how often a camera sees nothing.
        chaos_s, quiet_s: length of the two phases of an episode.
        faults: how many are begun in a chaos phase.
        kinds: names of faults to choose from; None: all.
        canary_every: which slots a candidate is tried on; 0: it is not.
        audit_share: of the early decisions that the gateway audits.
        lossless: whether no decision may lack anything at any time.
        summary_delay_s: how long cameras may hold summaries back to send several together.
    """

    cameras: int = 6
    workers: int = 2
    period_s: float = 1.0
    shares: tuple[float, float] = (0.5, 0.25)
    absent: float = 0.15
    episodes: int = 5
    chaos_s: float = 90.0
    quiet_s: float = 75.0
    faults: int = 5
    kinds: tuple[str, ...] | None = None
    canary_every: int = 0
    audit_share: float = 0.2
    lossless: bool = False
    ask_at_once: int = 0
    max_open_slots: int = 40
    summary_delay_s: float = 0.0


class World:
    """Virtual time, and everything in it. The same seed gives the same history."""

    def __init__(self, seed, options=None):
        self.seed = seed
        self.options = options or Options()
        self.rng = random.Random(seed)
        self.now = 0.0
        self.frames = 0
        self.counts = Counter()
        self.garbage = set()
        self._queue = []
        self._number = 0
        self.checker = None
        self.broker = Broker(self)
        self.publisher = Publisher(self)
        self.checker = Checker(self)
        self.consumer = Consumer(self)
        self.gateway = GatewayHost(self)
        self.devices = [Device(self, n) for n in range(self.options.cameras)]
        self.workers = [WorkerHost(self, n) for n in range(self.options.workers)]
        self.stranger = stranger(self)

    @property
    def hosts(self):
        return [self.gateway, *self.devices, *self.workers, self.consumer, self.publisher]

    # -- time ------------------------------------------------------------------------------

    def at(self, when, function, *args):
        self._number += 1
        heapq.heappush(self._queue, (when, self._number, function, args))

    def after(self, seconds, function, *args):
        self.at(self.now + seconds, function, *args)

    def run_until(self, end):
        queue = self._queue
        while queue and queue[0][0] <= end:
            self.now, _, function, args = heapq.heappop(queue)
            function(*args)
        self.now = end

    # -- a run -----------------------------------------------------------------------------

    def run(self):
        """All episodes; raises `Violation` at the first broken promise."""
        options = self.options
        self.run_until(5.0)
        for _ in range(options.episodes):
            worst = faults.plan(self)
            self.run_until(self.now + options.chaos_s)
            faults.end_all(self)
            began = self.now
            self.checker.quiet_from = max(began + worst, self._last_decided())
            self.run_until(began + options.quiet_s)
            self.checker.all_is_well()
            self.checker.quiet_from = None

    def _last_decided(self):
        """When the last slot begins that has been decided by now.

        Where the clocks of gateway and camera were wrong alike, that is yet to come, and a slot is
        not decided twice.
        """
        return max(self.gateway.ended, default=0) * self.options.period_s - faults.EPOCH_S

    @property
    def device_hours(self):
        return self.now * self.options.cameras / 3600

    def violation(self, what):
        raise Violation(f"seed {self.seed}, {self.now:.3f} s: {what}")
