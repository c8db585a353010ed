"""What a gateway measures beyond its counters, and all of it as samples. Pure.

A gateway counts its slots' ends anyway; histograms of its decisions are kept here, in one place
that is told of each decision once.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from ddnn import metrics
from ddnn.metrics import Histogram, Sample
from ddnn.tier import Decision

if TYPE_CHECKING:
    from edge_gateway.gateway import Gateway

EXITS = ("local", "edge", "cloud")
STAGES = ("summaries", "parent", "features", "answer")
ENDS = {name: name for name in ("decided", "degraded", "expired", "passed")}
#: Counters of messages that changed nothing.
REFUSED = {
    name: name
    for name in (
        "backlog_refused", "duplicate", "foreign", "foreign_answers", "frames_without_bundle",
        "late", "late_backlog", "malformed", "out_of_window", "recalls_refused",
        "requests_refused", "settings_refused", "unasked", "unknown_member", "wrong_tag",
    )
}  # fmt: skip
_DROPPED = {"outbox.overflow": "overflow", "outbox.expired": "expired"}
_KNOWN = (
    *("opened", "open", "unsent", "journal_errors", "exit.", "outbox.", "audit."),
    *("degraded.", "expired.", *ENDS, *REFUSED),
)


class Tally:
    """Distributions of a gateway's decisions since its start."""

    def __init__(self) -> None:
        self.entropy = {name: Histogram(metrics.ENTROPY) for name in EXITS}
        self.stage_s = {name: Histogram(metrics.SECONDS) for name in STAGES}
        self.decision_s = Histogram(metrics.SECONDS)
        self.payload_bytes = 0
        self.raw_bytes = 0

    def decided(self, decision: Decision, raw_bytes: tuple[int, ...]) -> None:
        """A slot ended with this decision.

        Args:
            raw_bytes: what the raw views of each member would take.
        """
        if decision.exit is not None and decision.entropy is not None:
            self.entropy[decision.exit].add(decision.entropy)
        for stage, seconds in decision.stage_s.items():
            self.stage_s[stage].add(seconds)
        self.decision_s.add(sum(decision.stage_s.values()))
        self.payload_bytes += decision.payload_bytes
        missing = set(decision.missing)
        self.raw_bytes += sum(size for n, size in enumerate(raw_bytes) if n not in missing)


def samples(gateway: Gateway) -> list[Sample]:
    """Everything but the connection and the bundle; call it under the gateway's lock."""
    counts, tally = gateway.ledger(), gateway.tally
    found = [
        Sample("ddnn_slots_opened_total", counts["opened"]),
        Sample("ddnn_slots_open", counts["open"]),
        Sample("ddnn_outbox_messages", len(gateway.outbox)),
        Sample("ddnn_outbox_bytes", gateway.outbox.held_bytes),
        Sample("ddnn_journal_errors_total", counts.get("journal_errors", 0)),
        Sample("ddnn_cloud_up", float(gateway.breaker.state == "closed")),
        Sample("ddnn_payload_bytes_total", tally.payload_bytes),
        Sample("ddnn_raw_offload_bytes_total", tally.raw_bytes),
        Sample("ddnn_decision_seconds", tally.decision_s.copy()),
    ]
    found += metrics.counters("ddnn_slots_ended_total", counts, ENDS)
    exits = {f"exit.{name}": name for name in (*EXITS, "nothing_seen")}
    found += metrics.counters("ddnn_decisions_total", counts, exits)
    found += metrics.prefixed("ddnn_decisions_degraded_total", counts, "degraded.")
    found += metrics.prefixed("ddnn_slots_expired_total", counts, "expired.")
    found += metrics.counters("ddnn_messages_refused_total", counts, REFUSED)
    found += metrics.counters("ddnn_outbox_dropped_total", counts, _DROPPED)
    found += metrics.others(counts, _KNOWN)
    found += _distributions("ddnn_decision_entropy_ratio", tally.entropy)
    found += _distributions("ddnn_stage_seconds", tally.stage_s)
    found += _audits(gateway, counts)
    newest = gateway.engines.newest
    if newest is not None:
        alive = newest.tier.alive()
        found += [
            Sample("ddnn_exit_threshold_ratio", threshold, (name,))
            for name, threshold in newest.tier.thresholds.items()
        ]
        found += [
            Sample("ddnn_member_up", float(member in alive), (newest.place.node(member),))
            for member in range(len(newest.place.numbers))
        ]
    return found


def _audits(gateway: Gateway, counts: Mapping[str, int]) -> list[Sample]:
    audits = {name: n for name, n in counts.items() if name != "audit.payload_bytes"}
    found = metrics.prefixed("ddnn_audits_total", audits, "audit.")
    cost = counts.get("audit.payload_bytes", 0)
    found.append(Sample("ddnn_audit_payload_bytes_total", cost))
    changed = gateway.audits.changed
    estimate = gateway.audits.estimate()
    gateway.audits.changed = changed  # it is still to be published
    for each in estimate.exits:
        ends = {"rate": each.all.rate, "low": each.all.low, "high": each.all.high}
        found += [
            Sample("ddnn_audit_disagreement_ratio", value, (each.exit, end))
            for end, value in ends.items()
            if value is not None
        ]
        found.append(Sample("ddnn_audit_drift", float(each.drift), (each.exit,)))
    return found


def _distributions(name: str, histograms: Mapping[str, Histogram]) -> list[Sample]:
    return [Sample(name, histogram.copy(), (label,)) for label, histogram in histograms.items()]
