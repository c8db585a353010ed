"""The thread on which a worker answers: the network thread only fills the queue."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

from cloud_service.batching import Batches, BatchRules, Waiting
from cloud_service.worker import Request, Worker
from ddnn.metrics import BATCH, SECONDS, Histogram

log = logging.getLogger(__name__)
#: What is still waiting at the end is answered for so long at most.
FINISH_WITHIN_S = 2.0


class Stats(NamedTuple):
    """How a worker is doing.

    Attributes:
        waiting: requests in the queue now.
        batch_size: requests per batch.
        latency_s: of each request from its arrival until its answer was handed to MQTT.
    """

    waiting: int
    batch_size: Histogram
    latency_s: Histogram


class Asked(NamedTuple):
    """A request, and where its answer goes.

    Attributes:
        expiry_s: for how long its asker waits; None: it does not say.
    """

    site: str
    request: Request
    correlation: bytes | None
    expiry_s: float | None


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
        self._batches: Batches[Asked] = Batches(rules, worker.counts)
        self._sizes, self._latencies = Histogram(BATCH), Histogram(SECONDS)
        self._change = threading.Condition()
        self._stopping_at: float | None = None
        self._thread = threading.Thread(target=self._run, name="answering")

    def start(self) -> None:
        """Begin to answer."""
        self._thread.start()

    def put(self, asked: Sequence[Asked]) -> None:
        """Have these answered: all that came at once, so that they can share a batch."""
        now = time.monotonic()
        with self._change:
            if self._stopping_at is not None:
                return
            for one in asked:
                request = one.request
                expires_at = now + one.expiry_s if one.expiry_s is not None else float("inf")
                size_bytes = len(request.frame.body)
                self._batches.put(id(request.section), one, size_bytes, now, expires_at)
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
                batch_size=self._sizes.copy(),
                latency_s=self._latencies.copy(),
            )

    def _run(self) -> None:
        while batch := self._next():
            self._answer(batch)
            done = time.monotonic()
            with self._change:
                self._sizes.add(len(batch))
                for one in batch:
                    self._latencies.add(done - one.came_at)

    def _answer(self, batch: list[Waiting[Asked]]) -> None:
        try:
            answers = self._worker.run([one.request.request for one in batch])
            for one, answer in zip(batch, answers, strict=True):
                self._reply(one.request.site, answer, one.request.correlation)
        except Exception:
            if len(batch) > 1:
                # Many may ask for more memory than there is, where one does not.
                for one in batch:
                    self._answer([one])
                return
            # This asker gives up; the next ones must not suffer.
            self._worker.counts["failed"] += 1
            log.exception("answering a request of site %s", batch[0].request.site)

    def _next(self) -> list[Waiting[Asked]]:
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
