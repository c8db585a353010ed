"""The thread on which a worker answers: the network thread only fills the queue."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable

import msgspec

from cloud_service.batching import Batches, BatchRules, Waiting
from cloud_service.worker import Request, Worker

log = logging.getLogger(__name__)
#: What is still waiting at the end is answered for so long at most.
FINISH_WITHIN_S = 2.0
#: Upper bounds of the counted batch sizes, and of the counted latencies in seconds.
SIZES = (1, 2, 4, 8, 16, 32, 64, 128, 256)
LATENCIES_S = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0)


class Histogram(msgspec.Struct, frozen=True):
    """Values counted by size.

    Attributes:
        bounds: upper bounds, ascending, each included.
        counts: values up to each bound and over the one before; one more for those over the last.
        total: sum of all values.
    """

    bounds: tuple[float, ...]
    counts: tuple[int, ...]
    total: float


class Stats(msgspec.Struct, frozen=True, kw_only=True):
    """How a worker is doing.

    Attributes:
        waiting: requests in the queue now.
        batch_size: requests per batch.
        latency_s: of each request from its arrival until its answer was handed to MQTT.
    """

    waiting: int
    batch_size: Histogram
    latency_s: Histogram


class _Tally:
    """Counts values into a `Histogram`."""

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self._bounds = bounds
        self._counts = [0] * (len(bounds) + 1)
        self._total = 0.0

    def add(self, value: float) -> None:
        place = next((i for i, bound in enumerate(self._bounds) if value <= bound), -1)
        self._counts[place] += 1
        self._total += value

    def read(self) -> Histogram:
        return Histogram(self._bounds, tuple(self._counts), self._total)


#: Site, correlation data, request.
_Asked = tuple[str, bytes | None, Request]
_Item = Waiting[_Asked]
#: Hands an answer to MQTT: site, ANSWER, correlation data.
Reply = Callable[[str, bytes, bytes | None], None]


class Answering:
    """Answers requests in batches, on a thread of its own.

    Args:
        worker: runs the sections.
        rules: of batching.
        reply: called with each answer, on the thread.
    """

    def __init__(self, worker: Worker, rules: BatchRules, reply: Reply) -> None:
        self._worker = worker
        self._reply = reply
        self._batches: Batches[_Asked] = Batches(rules, worker.counts)
        self._sizes, self._latencies = _Tally(SIZES), _Tally(LATENCIES_S)
        self._change = threading.Condition()
        self._stopping_at: float | None = None
        self._thread = threading.Thread(target=self._run, name="answering")

    def start(self) -> None:
        """Begin to answer."""
        self._thread.start()

    def put(
        self, site: str, request: Request, correlation: bytes | None, expiry_s: float | None
    ) -> None:
        """Have `request` answered.

        Args:
            expiry_s: for how long its asker waits; None: it does not say.
        """
        now = time.monotonic()
        expires_at = now + expiry_s if expiry_s is not None else float("inf")
        with self._change:
            if self._stopping_at is None:
                item = (site, correlation, request)
                size_bytes = request.features.nbytes
                self._batches.put(id(request.section), item, size_bytes, now, expires_at)
                self._change.notify()

    def stop(self) -> None:
        """Answer what waits, within a time, and end the thread."""
        with self._change:
            self._stopping_at = time.monotonic()
            self._change.notify()
        self._thread.join()

    def stats(self) -> Stats:
        """How it is doing."""
        with self._change:
            return Stats(
                waiting=len(self._batches),
                batch_size=self._sizes.read(),
                latency_s=self._latencies.read(),
            )

    def _run(self) -> None:
        while batch := self._next():
            self._answer(batch)
            done = time.monotonic()
            with self._change:
                self._sizes.add(len(batch))
                for one in batch:
                    self._latencies.add(done - one.came_at)

    def _answer(self, batch: list[_Item]) -> None:
        try:
            answers = self._worker.run([one.request[2] for one in batch])
            for one, answer in zip(batch, answers, strict=True):
                site, correlation, _ = one.request
                self._reply(site, answer, correlation)
        except Exception:
            if len(batch) > 1:
                # Many may ask for more memory than there is, where one does not.
                for one in batch:
                    self._answer([one])
                return
            # This asker gives up; the next ones must not suffer.
            self._worker.counts["failed"] += 1
            log.exception("answering a request of site %s", batch[0].request[0])

    def _next(self) -> list[_Item]:
        """Wait for the next batch; empty: it is over."""
        with self._change:
            while True:
                now = time.monotonic()
                stopping = self._stopping_at is not None
                if self._stopping_at is not None and now > self._stopping_at + FINISH_WITHIN_S:
                    return []
                if batch := self._batches.take(now, all_of_it=stopping):
                    return batch
                if stopping:
                    return []
                due = self._batches.next_due()
                self._change.wait(None if due is None else max(0.0, due - now))
