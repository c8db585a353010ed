"""A cloud worker's counters as samples. Pure."""

from __future__ import annotations

from collections.abc import Mapping

from cloud_service.answering import Stats
from ddnn import metrics
from ddnn.metrics import Sample

_RESULTS = {name: name for name in ("answered", "unserved", "malformed", "failed")}
_RESULTS |= {"dropped_full": "dropped", "dropped_expired": "expired"}


def samples(counts: Mapping[str, int], stats: Stats) -> list[Sample]:
    """Everything but the connection and the bundles."""
    return [
        Sample("ddnn_worker_queue", stats.waiting),
        Sample("ddnn_worker_batch_size", stats.batch_size),
        Sample("ddnn_worker_answer_seconds", stats.latency_s),
        *metrics.counters("ddnn_worker_requests_total", counts, _RESULTS),
        *metrics.others(counts, _RESULTS),
    ]
