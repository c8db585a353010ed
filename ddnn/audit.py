"""What an audit found, as people and tools read it: JSON on `ddnn/<site>/audit`.

An audit takes a slot that an early exit has decided, and asks the exits after it all the same:
what would they have said? The decision is out by then and stays what it is. One `Audit` is
published for each, and an `Estimate` of how often early exits disagree with the deepest one, kept
retained on `ddnn/<site>/audit/estimate`. `ddnn.drift` makes the estimate.
"""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

from ddnn.decisions import (
    Absent,
    Bytes,
    CountedMembers,
    Entropy,
    Missing,
    Probability,
    SiteName,
    Slot,
    Tag,
    Time,
    Used,
)
from ddnn.errors import WireError

#: Exits that another one may come after.
EarlyExit = Literal["local", "edge"]
Rate = Annotated[float, msgspec.Meta(ge=0.0, le=1.0)]
Count = Annotated[int, msgspec.Meta(ge=0, le=2**53)]
Reference = Literal["manifest", "first audits"]


class ExitSaid(msgspec.Struct, frozen=True, kw_only=True):
    """What one exit says of a slot."""

    label: Annotated[str, msgspec.Meta(description="Class name.")]
    probability: Probability
    entropy: Entropy


class Audit(msgspec.Struct, frozen=True, kw_only=True):
    """One audit. (site, slot) names it, and the decision that it looked at."""

    site: SiteName
    slot: Slot
    time_s: Time
    bundle_tag: Tag
    exit: Annotated[EarlyExit, msgspec.Meta(description="The exit that decided.")]
    label: Annotated[str, msgspec.Meta(description="What it decided: a class name.")]
    deepest: Annotated[
        Literal["edge", "cloud"],
        msgspec.Meta(description="The bundle's last exit, by which the decision is measured."),
    ]
    agrees: Annotated[
        bool, msgspec.Meta(description="Whether the deepest exit says the same label.")
    ]
    exits: Annotated[
        dict[Literal["local", "edge", "cloud"], ExitSaid],
        msgspec.Meta(description="What the exit that decided says, and each one after it."),
    ]
    members: CountedMembers
    used: Used
    absent: Absent
    missing: Missing
    payload_bytes: Annotated[
        Bytes,
        msgspec.Meta(
            description="Frame payload that this audit has cost: requests, features, and what "
            "went to the cloud."
        ),
    ]


class Disagreement(msgspec.Struct, frozen=True, kw_only=True):
    """How often the deepest exit says otherwise, of the audits in the window."""

    audited: Annotated[Count, msgspec.Meta(description="Audits in the window.")]
    disagreed: Annotated[
        Count, msgspec.Meta(description="Of these, where the deepest exit said another label.")
    ]
    rate: Annotated[
        Rate | None, msgspec.Meta(description="disagreed / audited; null without audits.")
    ]
    low: Annotated[
        Rate, msgspec.Meta(description="Lower end of the 95 % confidence interval (Wilson).")
    ]
    high: Annotated[Rate, msgspec.Meta(description="Its upper end.")]


class ExitEstimate(msgspec.Struct, frozen=True, kw_only=True):
    """Of one early exit."""

    exit: Annotated[EarlyExit, msgspec.Meta(description="Its name.")]
    total: Annotated[
        Count, msgspec.Meta(description="Audits since the bundle, or its thresholds, changed.")
    ]
    incomplete: Annotated[
        Count, msgspec.Meta(description="Audits in the window whose slot lacked a member.")
    ]
    all: Annotated[Disagreement, msgspec.Meta(description="Of all classes.")]
    classes: Annotated[
        dict[str, Disagreement],
        msgspec.Meta(description="By the label that the early exit decided, where any was audited"),
    ]
    reference: Annotated[
        Reference | None,
        msgspec.Meta(description="What the bound is made of; null: it is not known yet."),
    ]
    bound: Annotated[
        Rate | None, msgspec.Meta(description="The highest rate that is to be expected.")
    ]
    drift: Annotated[
        bool, msgspec.Meta(description="The alarm: whether the rate has risen above the bound.")
    ]


class Estimate(msgspec.Struct, frozen=True, kw_only=True):
    """How often a site's early exits disagree with the deepest one, as far as audits tell."""

    site: SiteName
    bundle_tag: Tag
    share: Annotated[Rate, msgspec.Meta(description="Of the early decisions that are audited.")]
    window: Annotated[
        Count, msgspec.Meta(description="How many audits of each exit are counted, at most.")
    ]
    exits: Annotated[
        tuple[ExitEstimate, ...],
        msgspec.Meta(max_length=2, description="The exits that have another one after them."),
    ]
    begun: Annotated[Count, msgspec.Meta(description="Audits since the gateway started.")]
    completed: Annotated[Count, msgspec.Meta(description="Of these, with a result.")]
    given_up: Annotated[
        dict[str, Count], msgspec.Meta(description="Of these, without a result, by reason.")
    ]
    skipped: Annotated[
        dict[str, Count],
        msgspec.Meta(description="Chosen slots that real work left no room for, by reason."),
    ]
    payload_bytes: Annotated[
        Bytes,
        msgspec.Meta(description="Frame payload that all audits have cost since then."),
    ]


#: Made once: see `ddnn.bundle`.
_AUDIT = msgspec.json.Decoder(Audit)
_ESTIMATE = msgspec.json.Decoder(Estimate)


def encode(message: Audit | Estimate) -> bytes:
    """Audit or Estimate -> JSON."""
    return msgspec.json.encode(message)


def decode(payload: bytes) -> Audit:
    """JSON -> Audit.

    Raises:
        WireError: it is not one.
    """
    try:
        return _AUDIT.decode(payload)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise WireError(f"not an audit: {error}") from error


def decode_estimate(payload: bytes) -> Estimate:
    """JSON -> Estimate.

    Raises:
        WireError: it is not one.
    """
    try:
        return _ESTIMATE.decode(payload)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise WireError(f"not an estimate of audits: {error}") from error
