"""Decision <-> row of the table, and which decisions can be a row at all. Pure.

A row holds a decision whole: `decision_of(row_of(d)) == d` for every decision that passes
`check`, times to the microsecond (a gateway writes no more). So "the same decision again" is "the
same row".
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterable, Mapping
from typing import Any

import msgspec
from sqlalchemy.engine import RowMapping

from cloud_service.records.counting import latency_bin
from ddnn.decisions import PublishedDecision
from ddnn.errors import WireError
from ddnn.topics import site_of

#: A site has at most 32 members (`ddnn.bundle.Topology`).
MAX_MEMBERS = 32
MAX_TEXT = 200
MAX_STAGES = 16
_MAX_SLOT = 10**18
_MAX_BYTES = 2**53
#: The year 2100: beyond it a clock is wrong.
_MAX_TIME_S = 4_102_444_800.0
_STAGES = msgspec.json.Decoder(dict[str, float])


def check(decision: PublishedDecision) -> None:
    """Refuse what is valid JSON of a decision and can still not be one.

    Raises:
        WireError: a number that is not finite or out of its bounds, a text too long or with a
            NUL (PostgreSQL keeps none), members that are not different and ascending.
    """
    if site_of(f"{decision.site}/") != decision.site:
        raise WireError("not a decision: its site is no site's name")
    numbers = (decision.probability, decision.entropy, decision.threshold)
    stages = decision.stage_ms
    texts = (decision.label, decision.exit, decision.degraded, *stages)
    if any(value is not None and not math.isfinite(value) for value in numbers):
        raise WireError("not a decision: a number is not finite")
    if any(text is not None and (len(text) > MAX_TEXT or "\0" in text) for text in texts):
        raise WireError("not a decision: a text is too long or has a NUL in it")
    if len(stages) > MAX_STAGES or any(not 0 <= ms < math.inf for ms in stages.values()):
        raise WireError("not a decision: its stages are no times")
    # A gateway whose clock was never set may number its slots from below 1970.
    if not (abs(decision.slot) < _MAX_SLOT and abs(decision.time_s) <= _MAX_TIME_S):
        raise WireError("not a decision: slot or time is out of bounds")
    if not (0 <= decision.payload_bytes <= _MAX_BYTES and 0 <= decision.bundle_tag < 2**16):
        raise WireError("not a decision: bytes or tag are out of bounds")
    for members in (decision.used, decision.absent, decision.missing):
        if list(members) != sorted({n for n in members if 0 <= n < MAX_MEMBERS}):
            raise WireError("not a decision: members must be different, ascending and below 32")


def time_us(time_s: float) -> int:
    """Seconds -> whole microseconds."""
    return round(time_s * 1e6)


def mask_of(members: Iterable[int]) -> int:
    """Members -> bit mask."""
    return sum(1 << member for member in members)


@functools.lru_cache(maxsize=4096)
def members_of(mask: int) -> tuple[int, ...]:
    """Bit mask -> members, ascending."""
    return tuple(n for n in range(mask.bit_length()) if mask >> n & 1)


def row_of(decision: PublishedDecision, site_id: int) -> dict[str, Any]:
    """Decision -> values of its row."""
    return {
        "site_id": site_id,
        "slot": decision.slot,
        "time_us": time_us(decision.time_s),
        "label": decision.label,
        "probability": decision.probability,
        "entropy": decision.entropy,
        "threshold": decision.threshold,
        "exit": decision.exit,
        "members": decision.members,
        "used": mask_of(decision.used),
        "absent": mask_of(decision.absent),
        "missing": mask_of(decision.missing),
        "degraded": decision.degraded,
        "stage_ms": msgspec.json.encode(decision.stage_ms, order="sorted").decode(),
        "payload_bytes": decision.payload_bytes,
        "bundle_tag": decision.bundle_tag,
        "latency_bin": latency_bin(decision.stage_ms.values()),
    }


def decision_of(row: Mapping[str, Any] | RowMapping, site: str) -> PublishedDecision:
    """Values of a row -> decision."""
    return PublishedDecision(
        site=site,
        slot=row["slot"],
        time_s=row["time_us"] / 1e6,
        label=row["label"],
        probability=row["probability"],
        entropy=row["entropy"],
        threshold=row["threshold"],
        exit=row["exit"],
        members=row["members"],
        used=members_of(row["used"]),
        absent=members_of(row["absent"]),
        missing=members_of(row["missing"]),
        degraded=row["degraded"],
        stage_ms=_STAGES.decode(row["stage_ms"]),
        payload_bytes=row["payload_bytes"],
        bundle_tag=row["bundle_tag"],
    )
