"""A camera's counters and health as samples. Pure."""

from __future__ import annotations

from collections.abc import Mapping

from ddnn import metrics
from ddnn.health import Health
from ddnn.metrics import Sample
from ddnn.outbox import Outbox

_LOST = {
    "views_without_bundle": "without_bundle",
    "views_unusable": "unusable",
    "views_missing": "missing",
    "views_of_wrong_size": "of_wrong_size",
    "dropped_clock_step": "clock_step",
}
_SUMMARIES = {"summaries_sent": "sent", "put_aside": "put_aside", "backlog_sent": "sent_late"}
_REFUSED = {name: name for name in ("malformed", "requests_refused", "requests_too_late")}
_DROPPED = {f"outbox.{name}": name for name in ("overflow", "expired", "relabelled")}
_KNOWN = (
    *("features_sent", "payload_bytes", "absent", "outbox."),
    *(*_LOST, *_SUMMARIES, *_REFUSED),
)
_MB = 1_000_000


def samples(
    counts: Mapping[str, int], outbox: Outbox, health: Health, raw_view_bytes: int
) -> list[Sample]:
    """Everything but the connection and the bundle.

    Args:
        raw_view_bytes: what one raw view would take.
    """
    views = counts.get("summaries_sent", 0) + counts.get("put_aside", 0)
    found = [
        Sample("ddnn_features_sent_total", counts.get("features_sent", 0)),
        Sample("ddnn_views_absent_total", counts.get("absent", 0)),
        Sample("ddnn_payload_bytes_total", counts.get("payload_bytes", 0)),
        Sample("ddnn_raw_offload_bytes_total", views * raw_view_bytes),
        Sample("ddnn_outbox_messages", len(outbox)),
        Sample("ddnn_outbox_bytes", outbox.held_bytes),
        Sample("ddnn_throttled", len(health.throttled)),
        Sample("ddnn_camera_restarts_total", health.restarts),
    ]
    found += metrics.counters("ddnn_views_lost_total", counts, _LOST)
    found += metrics.counters("ddnn_summaries_total", counts, _SUMMARIES)
    found += metrics.counters("ddnn_messages_refused_total", counts, _REFUSED)
    found += metrics.counters("ddnn_outbox_dropped_total", counts, _DROPPED)
    found += metrics.others(counts, _KNOWN)
    known = {
        "ddnn_camera_running": None if health.source is None else health.source == "running",
        "ddnn_camera_frames_per_second": health.fps,
        "ddnn_temperature_celsius": health.temperature_c,
        "ddnn_memory_available_bytes": None if not health.memory_mb else health.memory_mb * _MB,
        "ddnn_disk_available_bytes": None if not health.disk_mb else health.disk_mb * _MB,
        "ddnn_clock_synchronised": health.clock_synchronised,
        "ddnn_clock_offset_seconds": health.clock_offset_s,
    }
    return found + [Sample(name, float(v)) for name, v in known.items() if v is not None]
