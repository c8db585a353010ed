"""A decision as people and tools read it: JSON on `ddnn/<site>/decision`."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

from ddnn.errors import WireError
from ddnn.place import MemberKind
from ddnn.tier import Decision
from ddnn.wire import MAX_MEMBERS

#: What decisions and audits are made of; the JSON Schemas in docs/ are made of these.
SiteName = Annotated[
    str, msgspec.Meta(pattern="^[A-Za-z0-9][A-Za-z0-9_-]{0,31}$", description="Name of the site.")
]
Slot = Annotated[
    int,
    msgspec.Meta(ge=-(2**53), le=2**53, description="Slot number: floor(time / period)."),
]
Time = Annotated[float, msgspec.Meta(description="Begin of the slot, seconds since 1970.")]
Tag = Annotated[int, msgspec.Meta(ge=0, le=0xFFFF, description="First 16 bits of the bundle's id.")]
Probability = Annotated[
    float, msgspec.Meta(ge=0.0, le=1.0, description="Of the label, at that exit.")
]
Entropy = Annotated[
    float, msgspec.Meta(ge=0.0, le=1.0, description="Normalised entropy at that exit.")
]
Number = Annotated[int, msgspec.Meta(ge=0, lt=MAX_MEMBERS)]
Used = Annotated[
    tuple[Number, ...],
    msgspec.Meta(max_length=MAX_MEMBERS, description="Members in the answer."),
]
Absent = Annotated[
    tuple[Number, ...],
    msgspec.Meta(max_length=MAX_MEMBERS, description="Members with an empty view."),
]
Missing = Annotated[
    tuple[Number, ...], msgspec.Meta(max_length=MAX_MEMBERS, description="Members that are silent.")
]
CountedMembers = Annotated[
    MemberKind,
    msgspec.Meta(
        description="What used, absent and missing count: cameras, or edges of a site with several."
    ),
]
Bytes = Annotated[int, msgspec.Meta(ge=0, le=2**53)]


class PublishedDecision(msgspec.Struct, frozen=True, kw_only=True):
    """One decision. (site, slot) names it: a second one with the same key is a repeat."""

    site: SiteName
    slot: Slot
    time_s: Time
    label: Annotated[
        str | None, msgspec.Meta(description="Class name; null when no camera saw anything.")
    ]
    probability: Probability | None
    entropy: Entropy | None
    threshold: Annotated[
        Annotated[float, msgspec.Meta(ge=0.0, le=1.0)] | None,
        msgspec.Meta(
            description="What the entropy was compared with; null at the last exit, which always "
            "answers."
        ),
    ]
    exit: Annotated[
        Literal["local", "edge", "cloud"] | None,
        msgspec.Meta(description="Whose answer it is; null when no camera saw anything."),
    ]
    members: CountedMembers
    used: Used
    absent: Absent
    missing: Missing
    degraded: Annotated[
        str | None, msgspec.Meta(description="Null, or why a deeper exit did not decide.")
    ]
    stage_ms: Annotated[
        dict[str, Annotated[float, msgspec.Meta(ge=0.0)]],
        msgspec.Meta(description="Time spent in each stage, milliseconds."),
    ]
    payload_bytes: Annotated[
        Bytes,
        msgspec.Meta(description="Frame payload received from the members for this slot."),
    ]
    bundle_tag: Tag


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
