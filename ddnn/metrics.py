"""What services count and measure, for Prometheus: one table, and samples of it. Pure.

`TABLE` names every metric that any process of this project has. docs/metrics.md is made from it,
the alert rules and the Grafana dashboard are checked against it, and `ddnn.metrics_server` refuses
a sample that is not in it. Services keep counters anyway (`counts`); what they add for this are
histograms, since a distribution cannot be read off a counter.

Every sample carries `site` and `node`. The values of the other labels are words of this program or
nodes of a bundle, never text that came from the network, so that their number is bounded.

Source: https://prometheus.io/docs/practices/naming/
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Mapping
from typing import Literal, NamedTuple

Kind = Literal["counter", "gauge", "histogram"]
#: Sites of which a process that serves many says something one by one.
MAX_SITES = 1000


class Metric(NamedTuple):
    """One metric.

    Attributes:
        name: with the unit and `_total` at its end, as Prometheus wants it.
        who: which processes have it: device, gateway, worker, dashboard.
        help: one sentence; the labels' meaning where they have any.
        labels: beside `site` and `node`.
    """

    name: str
    kind: Kind
    who: tuple[str, ...]
    help: str
    labels: tuple[str, ...] = ()


class Histogram:
    """How many values fell below each bound. Not thread-safe.

    Args:
        bounds: upper bounds, ascending; what is over the last one is counted, too.
    """

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.sum = 0.0

    def add(self, value: float) -> None:
        """Count a value."""
        self.counts[bisect_left(self.bounds, value)] += 1
        self.sum += value

    def copy(self) -> Histogram:
        """As it is now, for another thread to read."""
        copy = Histogram(self.bounds)
        copy.counts, copy.sum = self.counts.copy(), self.sum
        return copy


class Sample(NamedTuple):
    """The value of one metric with one set of labels.

    Attributes:
        labels: values, in the order of the metric's.
        site: which one it is about; None: the process's own.
    """

    name: str
    value: float | Histogram
    labels: tuple[str, ...] = ()
    site: str | None = None


#: Upper bounds in seconds: from a section's run to the longest wait for a cloud.
SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
#: Of normalised entropy, 0..1; finer where thresholds are.
ENTROPY = (0.01, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)
#: Requests that one run of a section answers.
BATCH = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0)

_ALL = ("device", "gateway", "worker", "dashboard")
_NODES = ("device", "gateway", "worker")

_METRICS = (
    # -- every process
    Metric("ddnn_build_info", "gauge", _ALL, "Always 1; the installed version.", ("version",)),
    Metric("ddnn_broker_connected", "gauge", _ALL, "1 while connected to the broker."),
    Metric("ddnn_broker_connects_total", "counter", _ALL, "Connections made to the broker."),
    Metric(
        "ddnn_broker_taken_over_total",
        "counter",
        _ALL,
        "Connections that another client with the same id seems to have ended.",
    ),
    Metric(
        "ddnn_mqtt_wire_bytes_total",
        "counter",
        _ALL,
        "Bytes of the present connection to the broker, both ways, with TCP and IP headers.",
    ),
    Metric("ddnn_mqtt_received_total", "counter", _ALL, "MQTT messages received."),
    Metric("ddnn_mqtt_published_total", "counter", _ALL, "MQTT messages handed to the client."),
    Metric(
        "ddnn_mqtt_dropped_total",
        "counter",
        _ALL,
        "MQTT messages that did not leave, by reason: offline, stuck (network), size (over the "
        "broker's limit), unsent, denied (by the broker's access list).",
        ("reason",),
    ),
    Metric(
        "ddnn_mqtt_handler_errors_total",
        "counter",
        _ALL,
        "Errors of this program while it handled a message; each one is in the log.",
    ),
    Metric(
        "ddnn_certificate_expiry_timestamp_seconds",
        "gauge",
        _ALL,
        "When the node's certificate expires, seconds since 1970.",
    ),
    # -- bundles
    Metric(
        "ddnn_bundle_info",
        "gauge",
        _NODES,
        "Always 1; the bundle that runs, or that is staged, by the first 12 characters of its id.",
        ("state", "bundle", "version"),
    ),
    Metric("ddnn_bundle_version", "gauge", _NODES, "Version of the running bundle."),
    Metric("ddnn_bundle_refused", "gauge", _NODES, "1 while the last bundle offered is refused."),
    Metric(
        "ddnn_rollout_state",
        "gauge",
        ("gateway",),
        "1 for the state that the site's roll-out is in: settled, staged (here), waiting (for "
        "other nodes), trial, refused.",
        ("state",),
    ),
    # -- a gateway's slots and decisions
    Metric("ddnn_slots_opened_total", "counter", ("gateway",), "Slots that any member reported."),
    Metric(
        "ddnn_slots_ended_total",
        "counter",
        ("gateway",),
        "Slots by their end: decided, degraded, expired, passed (on to the site's gateway).",
        ("end",),
    ),
    Metric("ddnn_slots_open", "gauge", ("gateway",), "Slots that have not ended."),
    Metric(
        "ddnn_decisions_total",
        "counter",
        ("gateway",),
        "Decisions by the exit that answered: local, edge, cloud, or nothing_seen.",
        ("exit",),
    ),
    Metric(
        "ddnn_decisions_degraded_total",
        "counter",
        ("gateway",),
        "Decisions that a deeper exit should have made, by reason.",
        ("reason",),
    ),
    Metric(
        "ddnn_slots_expired_total",
        "counter",
        ("gateway",),
        "Slots without a decision, by reason.",
        ("reason",),
    ),
    Metric(
        "ddnn_decision_entropy_ratio",
        "histogram",
        ("gateway",),
        "Normalised entropy (0 to 1) of decisions, by the exit that answered.",
        ("exit",),
    ),
    Metric(
        "ddnn_exit_threshold_ratio",
        "gauge",
        ("gateway",),
        "Threshold in force: an exit answers where the entropy is below it.",
        ("exit",),
    ),
    Metric(
        "ddnn_stage_seconds",
        "histogram",
        ("gateway",),
        "Time that decisions spent in each stage: summaries, parent, features, answer.",
        ("stage",),
    ),
    Metric(
        "ddnn_decision_seconds",
        "histogram",
        ("gateway",),
        "Time from a slot's first report to its decision.",
    ),
    Metric(
        "ddnn_payload_bytes_total",
        "counter",
        ("device", "gateway"),
        "Frame payload: sent by a camera, or received for decisions by a gateway.",
    ),
    Metric(
        "ddnn_raw_offload_bytes_total",
        "counter",
        ("device", "gateway"),
        "What the raw views of the same cameras and slots would have taken.",
    ),
    Metric(
        "ddnn_messages_refused_total",
        "counter",
        ("device", "gateway"),
        "Messages that changed nothing, by reason.",
        ("reason",),
    ),
    Metric(
        "ddnn_events_total",
        "counter",
        _ALL,
        "Everything else that the process counts, by its name in the status.",
        ("event",),
    ),
    Metric(
        "ddnn_member_up",
        "gauge",
        ("gateway",),
        "1 for a camera (or edge gateway) of the running bundle that is waited for, else 0.",
        ("member",),
    ),
    Metric(
        "ddnn_cloud_up", "gauge", ("gateway",), "1 while the cloud answers, as far as is known."
    ),
    Metric(
        "ddnn_outbox_messages",
        "gauge",
        ("device", "gateway"),
        "Messages that wait for the broker, or for its acknowledgement.",
    ),
    Metric("ddnn_outbox_bytes", "gauge", ("device", "gateway"), "Their payload."),
    Metric(
        "ddnn_outbox_dropped_total",
        "counter",
        ("device", "gateway"),
        "Messages lost from it, by reason: overflow, expired, relabelled (the clock stepped).",
        ("reason",),
    ),
    Metric("ddnn_journal_bytes", "gauge", ("gateway",), "Size of the gateway's journal."),
    Metric("ddnn_journal_errors_total", "counter", ("gateway",), "Writes to it that failed."),
    Metric(
        "ddnn_audits_total",
        "counter",
        ("gateway",),
        "Early decisions looked at again: begun, completed, given_up.REASON, skipped.REASON.",
        ("result",),
    ),
    Metric("ddnn_audit_payload_bytes_total", "counter", ("gateway",), "What audits have cost."),
    Metric(
        "ddnn_audit_disagreement_ratio",
        "gauge",
        ("gateway",),
        "How often the deepest exit says otherwise than an early one: rate, and the low and high "
        "end of its 95 % confidence interval.",
        ("exit", "end"),
    ),
    Metric(
        "ddnn_audit_drift",
        "gauge",
        ("gateway",),
        "1 while that is more than the bundle, or its first audits, let expect.",
        ("exit",),
    ),
    # -- a camera
    Metric(
        "ddnn_summaries_total",
        "counter",
        ("device",),
        "Summaries by what became of them: sent, put_aside (broker away), sent_late.",
        ("result",),
    ),
    Metric("ddnn_features_sent_total", "counter", ("device",), "Features sent on request."),
    Metric("ddnn_views_absent_total", "counter", ("device",), "Views with nothing in them."),
    Metric(
        "ddnn_views_lost_total",
        "counter",
        ("device",),
        "Slots without a summary, by reason: without_bundle, unusable, missing, of_wrong_size, "
        "clock_step.",
        ("reason",),
    ),
    Metric(
        "ddnn_view_seconds",
        "histogram",
        ("device",),
        "Time from the beginning of a view to its summary: gate, picture and section.",
    ),
    Metric("ddnn_camera_running", "gauge", ("device",), "1 while the camera gives pictures."),
    Metric("ddnn_camera_frames_per_second", "gauge", ("device",), "Pictures that it gives."),
    Metric("ddnn_camera_restarts_total", "counter", ("device",), "How often it was reopened."),
    Metric("ddnn_temperature_celsius", "gauge", ("device",), "Temperature of the processor."),
    Metric(
        "ddnn_throttled",
        "gauge",
        ("device",),
        "Complaints of the Pi's firmware about supply and cooling.",
    ),
    Metric("ddnn_memory_available_bytes", "gauge", ("device",), "Memory left on the machine."),
    Metric("ddnn_disk_available_bytes", "gauge", ("device",), "Room left on the node's disk."),
    Metric(
        "ddnn_clock_synchronised", "gauge", ("device",), "1 while a time server sets the clock."
    ),
    Metric(
        "ddnn_clock_offset_seconds", "gauge", ("device",), "How far off it was last; late is > 0."
    ),
    # -- a cloud worker
    Metric("ddnn_worker_sites", "gauge", ("worker",), "Sites whose bundles the worker follows."),
    Metric(
        "ddnn_worker_requests_total",
        "counter",
        ("worker",),
        "Escalations by what became of them: answered, unserved (no such bundle), malformed, "
        "dropped (queue full), expired, failed.",
        ("result",),
    ),
    Metric("ddnn_worker_queue", "gauge", ("worker",), "Escalations that wait for their turn."),
    Metric(
        "ddnn_worker_batch_size",
        "histogram",
        ("worker",),
        "Escalations answered by one run of a section.",
    ),
    Metric(
        "ddnn_worker_answer_seconds",
        "histogram",
        ("worker",),
        "Time from an escalation's arrival to its answer.",
    ),
    # -- the dashboard
    Metric("ddnn_dashboard_sites", "gauge", ("dashboard",), "Sites that it has heard of."),
    Metric("ddnn_dashboard_database_up", "gauge", ("dashboard",), "1 while the database works."),
    Metric(
        "ddnn_dashboard_database_bytes",
        "gauge",
        ("dashboard",),
        "Size of the database, where it can be told.",
    ),
    Metric(
        "ddnn_dashboard_waiting",
        "gauge",
        ("dashboard",),
        "Decisions received and not yet in the database (nor acknowledged).",
    ),
    Metric(
        "ddnn_dashboard_newest_decision_timestamp_seconds",
        "gauge",
        ("dashboard",),
        "Begin of the newest decision's slot in the database, seconds since 1970.",
    ),
    Metric(
        "ddnn_dashboard_requests_total",
        "counter",
        ("dashboard",),
        "HTTP requests by the first digit of the answer's status.",
        ("status",),
    ),
    Metric(
        "ddnn_dashboard_refused_total",
        "counter",
        ("dashboard",),
        "Requests refused for safety, by reason: host, origin, csrf, login, rate, session, role.",
        ("reason",),
    ),
    Metric(
        "ddnn_dashboard_sockets",
        "gauge",
        ("dashboard",),
        "Browsers that are connected at the moment.",
    ),
    Metric("ddnn_dashboard_sessions", "gauge", ("dashboard",), "People who are logged in."),
    # -- a site, as the dashboard hears of it
    Metric(
        "ddnn_node_up",
        "gauge",
        ("dashboard",),
        "1 for a node of the site that lives, by its status and that one's age.",
        ("member",),
    ),
)

TABLE: dict[str, Metric] = {metric.name: metric for metric in _METRICS}


def counters(
    name: str, counts: Mapping[str, int], labels: Mapping[str, str], site: str | None = None
) -> list[Sample]:
    """Samples of a counter with one label, from a service's own counters.

    Args:
        labels: label by the name in `counts`; one that is not there is 0.
    """
    return [Sample(name, counts.get(own, 0), (label,), site=site) for own, label in labels.items()]


def prefixed(name: str, counts: Mapping[str, int], prefix: str) -> list[Sample]:
    """Samples of a counter from those of `counts` that begin with `prefix`; the rest is label."""
    return [
        Sample(name, count, (own.removeprefix(prefix),))
        for own, count in sorted(counts.items())
        if own.startswith(prefix)
    ]


def others(counts: Mapping[str, int], known: Iterable[str]) -> list[Sample]:
    """What is counted and has no metric of its own, so that nothing stays unseen.

    Args:
        known: names, or prefixes that end in a dot, of what has one.
    """
    known = frozenset(known)
    return [
        Sample("ddnn_events_total", count, (own,))
        for own, count in sorted(counts.items())
        if own not in known and own.partition(".")[0] + "." not in known
    ]
