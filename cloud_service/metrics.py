"""A cloud worker's counters as samples. Pure."""

from __future__ import annotations

from cloud_service.worker import Worker
from ddnn import metrics
from ddnn.metrics import Sample

_RESULTS = {name: name for name in ("answered", "unserved", "malformed")}


def samples(worker: Worker) -> list[Sample]:
    """Everything but the connection and the bundles."""
    counts = worker.counts.copy()
    found = metrics.counters("ddnn_worker_requests_total", counts, _RESULTS)
    return found + metrics.others(counts, _RESULTS)
