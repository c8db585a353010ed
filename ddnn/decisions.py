"""A decision as people and tools read it: JSON on `ddnn/<site>/decision`."""

from __future__ import annotations

import msgspec

from ddnn.errors import WireError
from ddnn.place import MemberKind
from ddnn.tier import Decision


class PublishedDecision(msgspec.Struct, frozen=True, kw_only=True):
    """One decision. (site, slot) names it: a second one with the same key is a repeat.

    Attributes:
        time_s: begin of the slot, seconds since 1970.
        label: class name; None when no camera saw anything.
        exit: `local`, `edge` or `cloud`; None when no camera saw anything.
        entropy, threshold: normalised entropy at that exit and what it was compared with (None
            at the last exit, which always answers).
        members: what the next three count: `cameras`, or `edges` of a site with several.
        used, absent, missing: members in the answer; with an empty view; silent.
        degraded: None, or why a deeper exit did not decide.
        stage_ms: time spent in each stage, milliseconds.
        payload_bytes: frame payload received from the members for this slot.
        bundle_tag: tag of the bundle that decided.
    """

    site: str
    slot: int
    time_s: float
    label: str | None
    probability: float | None
    entropy: float | None
    threshold: float | None
    exit: str | None
    members: MemberKind
    used: tuple[int, ...]
    absent: tuple[int, ...]
    missing: tuple[int, ...]
    degraded: str | None
    stage_ms: dict[str, float]
    payload_bytes: int
    bundle_tag: int


#: Made once: see `ddnn.bundle`.
_DECODER = msgspec.json.Decoder(PublishedDecision)


def describe(
    decision: Decision,
    site: str,
    classes: tuple[str, ...],
    period_s: float,
    members: MemberKind = "cameras",
) -> PublishedDecision:
    """An engine's decision with names and times."""

    def short(value: float | None) -> float | None:
        return None if value is None else round(value, 6)

    return PublishedDecision(
        site=site,
        slot=decision.slot,
        time_s=round(decision.slot * period_s, 6),
        label=None if decision.label is None else classes[decision.label],
        probability=short(decision.probability),
        entropy=short(decision.entropy),
        threshold=decision.threshold,
        exit=decision.exit,
        members=members,
        used=decision.used,
        absent=decision.absent,
        missing=decision.missing,
        degraded=decision.degraded,
        stage_ms={stage: round(s * 1000, 3) for stage, s in decision.stage_s.items()},
        payload_bytes=decision.payload_bytes,
        bundle_tag=decision.tag,
    )


def encode(decision: PublishedDecision) -> bytes:
    """PublishedDecision -> JSON."""
    return msgspec.json.encode(decision)


def decode(payload: bytes) -> PublishedDecision:
    """JSON -> PublishedDecision.

    Raises:
        WireError: it is not one.
    """
    try:
        return _DECODER.decode(payload)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise WireError(f"not a decision: {error}") from error
