"""What is counted of decisions, and how counts over spans of time become buckets. Pure.

A decision's latency is the sum of its stages: from the first summary to the decision. It is
counted in bins whose edges grow by a quarter of an octave, so that a quantile is at most 19 % too
large and never too small, whatever is added up.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import msgspec

from ddnn.decisions import PublishedDecision

#: Seconds of the spans that are counted, finest first.
SPANS_S = (60, 300, 3600)
#: Bins of an octave, and the upper edge of the first bin in milliseconds.
_BINS_OF_OCTAVE = 4
_FIRST_EDGE_MS = 0.25
#: The last bin holds everything beyond about 150 s.
LAST_BIN = 77
#: Exit of a decision for which no camera saw anything; the ledger's word.
NOTHING_SEEN = "nothing_seen"


class Tally(NamedTuple):
    """Key of one count within a span: see `cloud_service.records.tables.tallies`."""

    what: str
    name: str = ""


class Bucket(msgspec.Struct, frozen=True, kw_only=True):
    """What happened from `start_s` (seconds since 1970) on, for the length that was asked for.

    Attributes:
        decided: decisions without a degraded reason.
        degraded: those with one; `by_degraded` by reason.
        by_exit: all decisions by exit; `nothing_seen` where no camera saw anything.
        by_label: all decisions by class; those without one are left out.
        expired: slots that ended without an answer, by the gateway's ledger; None: not known.
        missing: by member, how many decisions lacked it.
        reported: by member, in how many decisions it had reported.
        payload_bytes: frame payload that the gateway received from its members.
        raw_bytes: what the raw views of the members that reported are; None: not known.
        latency_ms_p50, latency_ms_p99: first summary to decision; None without decisions.
    """

    start_s: int
    decided: int = 0
    degraded: int = 0
    by_exit: dict[str, int] = {}
    by_label: dict[str, int] = {}
    by_degraded: dict[str, int] = {}
    expired: int | None = None
    missing: dict[int, int] = {}
    reported: dict[int, int] = {}
    payload_bytes: int = 0
    raw_bytes: int | None = None
    latency_ms_p50: float | None = None
    latency_ms_p99: float | None = None


def latency_bin(stage_ms: Iterable[float]) -> int:
    """The bin of a decision's latency."""
    total = sum(stage_ms)
    if total <= _FIRST_EDGE_MS:
        return 0
    return min(LAST_BIN, math.ceil(_BINS_OF_OCTAVE * math.log2(total / _FIRST_EDGE_MS)))


def latency_ms(number: int) -> float:
    """The upper edge of a bin, milliseconds."""
    return round(_FIRST_EDGE_MS * 2 ** (number / _BINS_OF_OCTAVE), 2)


def quantile(bins: dict[int, int], share: float) -> float | None:
    """Upper edge of the bin in which so great a share of the counts lies; None without any."""
    wanted = share * sum(bins.values())
    so_far = 0
    for number in sorted(bins):
        so_far += bins[number]
        if so_far >= wanted and bins[number]:
            return latency_ms(number)
    return None


def tallies_of(decision: PublishedDecision) -> Iterable[tuple[Tally, int]]:
    """What one decision adds."""
    yield Tally("degraded", decision.degraded) if decision.degraded else Tally("decided"), 1
    yield Tally("exit", decision.exit or NOTHING_SEEN), 1
    if decision.label is not None:
        yield Tally("label", decision.label), 1
    yield Tally("latency", str(latency_bin(decision.stage_ms.values()))), 1
    yield Tally("bytes"), decision.payload_bytes
    for member in decision.missing:
        yield Tally("missing", str(member)), 1
    for member in (*decision.used, *decision.absent):
        yield Tally("reported", str(member)), 1


def bucket(
    start_s: int,
    counts: Counter[Tally],
    *,
    expired: int | None = None,
    member_bytes: Sequence[int] | None = None,
) -> Bucket:
    """Counts of a span -> bucket.

    Args:
        member_bytes: what the raw views below each member are, bytes per frame.
    """

    found: dict[str, dict[str, int]] = {}
    for (what, name), count in sorted(counts.items()):
        if count:
            found.setdefault(what, {})[name] = count
    by_degraded, reported = found.get("degraded", {}), _numbered(found.get("reported", {}))
    latencies = _numbered(found.get("latency", {}))
    raw = None
    if member_bytes is not None:
        known = {n: count for n, count in reported.items() if n < len(member_bytes)}
        raw = sum(member_bytes[n] * count for n, count in known.items())
    return Bucket(
        start_s=start_s,
        decided=counts[Tally("decided")],
        degraded=sum(by_degraded.values()),
        by_exit=found.get("exit", {}),
        by_label=found.get("label", {}),
        by_degraded=by_degraded,
        expired=expired,
        missing=_numbered(found.get("missing", {})),
        reported=reported,
        payload_bytes=counts[Tally("bytes")],
        raw_bytes=raw,
        latency_ms_p50=quantile(latencies, 0.5),
        latency_ms_p99=quantile(latencies, 0.99),
    )


def _numbered(counts: dict[str, int]) -> dict[int, int]:
    return {int(name): count for name, count in counts.items()}
