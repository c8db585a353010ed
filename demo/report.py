"""The numbers at the end of a demo."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
import numpy as np

from ddnn.bundle import Manifest
from ddnn.evaluate import Evaluation
from ddnn.status import Status
from demo.observer import Seen

_TIERS = ("local", "edge", "cloud")


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """What `report.json` holds.

    Attributes:
        accuracy: share of samples whose decision is their label.
        exits: share of decisions by exit; `nothing_seen` where no camera delivered a view.
        frames_sent: slots that any camera reported = decided + degraded + expired.
        payload_bytes_per_camera_frame: summaries and features, both with their headers.
        wire_bytes_per_camera_frame: of the agents' connections, both directions, with TCP/IP
            headers and acknowledgements, as the kernel counted them; None where it does not.
        raw_...: the same for sending every raw view to the same broker in this run.
        latency_ms: from the beginning of the slot to the decision's arrival at a subscriber.
        matches_reference: share of decisions whose label and exit equal the in-process
            evaluation of the same bundle.
    """

    data: str
    bundle: str
    cameras: int
    samples: int
    accuracy: float
    accuracy_reference: float
    exits: dict[str, float]
    frames_sent: int
    summaries_sent: int
    decided: int
    degraded: int
    expired: int
    repeats: int
    payload_bytes_per_camera_frame: float
    wire_bytes_per_camera_frame: float | None
    raw_payload_bytes_per_camera_frame: float
    raw_wire_bytes_per_camera_frame: float | None
    latency_ms: dict[str, float]
    latency_ms_by_exit: dict[str, dict[str, float]]
    matches_reference: float
    ledger: dict[str, int]


def make_report(
    *,
    data: str,
    manifest: Manifest,
    bundle_id: str,
    labels: Sequence[int],
    reference: Evaluation,
    first_slot: int,
    decisions: dict[int, Seen],
    repeats: int,
    devices: dict[str, Status],
    ledger: dict[str, int],
    raw_wire_bytes: float | None,
) -> Report:
    """Put together what was measured; sample i was shown in slot `first_slot` + i."""
    samples = len(labels)
    classes = manifest.classes
    right = matches = 0
    exits: dict[str, int] = {"local": 0, "edge": 0, "cloud": 0, "nothing_seen": 0}
    latencies: dict[str, list[float]] = {}
    for sample in range(samples):
        seen = decisions.get(first_slot + sample)
        if seen is None:
            continue
        decision = seen.decision
        exit_name = decision.exit or "nothing_seen"
        exits[exit_name] += 1
        latencies.setdefault(exit_name, []).append(seen.latency_s * 1000)
        right += decision.label == classes[labels[sample]]
        expected = int(reference.label[sample])
        expected_label = classes[expected] if expected >= 0 else None
        expected_exit = str(reference.exit[sample]) if expected >= 0 else None
        matches += (decision.label, decision.exit) == (expected_label, expected_exit)
    cameras = manifest.topology.cameras
    summaries = [status.counts.get("summaries_sent", 0) for status in devices.values()]
    wire_bytes = [status.counts.get("wire_bytes") for status in devices.values()]
    known_wire = [count for count in wire_bytes if count is not None]
    payload = sum(status.counts.get("payload_bytes", 0) for status in devices.values())
    sent = max(1, sum(summaries))
    image = manifest.image
    return Report(
        data=data,
        bundle=bundle_id,
        cameras=cameras,
        samples=samples,
        accuracy=right / samples,
        accuracy_reference=float(np.mean(reference.label == np.asarray(labels))),
        exits={
            name: count / samples
            for name, count in exits.items()
            if count or name != "nothing_seen"
        },
        frames_sent=max(summaries, default=0),
        summaries_sent=sum(summaries),
        decided=ledger.get("decided", 0),
        degraded=ledger.get("degraded", 0),
        expired=ledger.get("expired", 0),
        repeats=repeats,
        payload_bytes_per_camera_frame=payload / sent,
        wire_bytes_per_camera_frame=(
            sum(known_wire) / sent if known_wire and len(known_wire) == len(wire_bytes) else None
        ),
        raw_payload_bytes_per_camera_frame=float(image.height * image.width * image.channels),
        raw_wire_bytes_per_camera_frame=raw_wire_bytes,
        latency_ms=_percentiles([value for values in latencies.values() for value in values]),
        latency_ms_by_exit={name: _percentiles(values) for name, values in latencies.items()},
        matches_reference=matches / samples,
        ledger=ledger,
    )


def _percentiles(values: list[float]) -> dict[str, float]:
    if not values:
        return {}
    p50, p99 = np.percentile(values, [50, 99])
    return {"p50": round(float(p50), 3), "p99": round(float(p99), 3)}


def summary_lines(report: Report) -> list[tuple[str, str]]:
    """The report for people: (what, value)."""
    balanced = report.frames_sent == report.decided + report.degraded + report.expired
    exits = "   ".join(f"{name} {share:.1%}" for name, share in report.exits.items())
    payload = report.payload_bytes_per_camera_frame
    lines = [
        ("accuracy", f"{report.accuracy:.1%} of {report.samples} samples"),
        ("exits", exits),
        (
            "same as in-process",
            f"{report.matches_reference:.1%} of the decisions (label and exit)",
        ),
        ("payload", _against_raw(payload, report.raw_payload_bytes_per_camera_frame)),
    ]
    wire_bytes, raw = report.wire_bytes_per_camera_frame, report.raw_wire_bytes_per_camera_frame
    if wire_bytes and raw:
        lines.append(("on the wire, TCP/IP", _against_raw(wire_bytes, raw)))
    if audits := report.ledger.get("audit.begun", 0):
        lines.append(
            (
                "audits",
                f"of {audits} early decisions the later exits were asked too: in these bytes",
            )
        )
    if report.latency_ms:
        lines.append(
            (
                "capture to decision",
                f"p50 {report.latency_ms['p50']:.1f} ms   p99 {report.latency_ms['p99']:.1f} ms",
            )
        )
    lines.append(
        (
            "ledger",
            f"{report.frames_sent} sent {'=' if balanced else '!='} {report.decided} decided + "
            f"{report.degraded} degraded + {report.expired} expired",
        )
    )
    return lines


def _against_raw(ours: float, raw: float) -> str:
    return (
        f"{ours:.1f} bytes per camera and frame; every raw view: {raw:.0f} "
        f"({raw / max(ours, 1e-9):.0f}x more)"
    )
