"""Which slots are shown, and in which order. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple

Show = Literal["unlabelled", "uncertain", "labelled", "all", "doubtful"]
Order = Literal["uncertain", "time"]
#: A label that the network contradicts with at least this probability is worth a second look.
DOUBT = 0.8
#: From this entropy on the bundle is uncertain.
UNCERTAIN = 0.5


class Suggestion(NamedTuple):
    """What a bundle makes of a slot.

    Attributes:
        label: its class.
        probability: of that class.
        entropy: 0 to 1, of the exit that answered.
    """

    label: str
    probability: float
    entropy: float


class Wanted(NamedTuple):
    """A person's choice of slots.

    Attributes:
        show: uncertain: not labelled, and the bundle cannot tell; doubtful: labelled otherwise
            than the bundle is sure of.
        label: only slots of this label, or without one of this suggestion; None: any.
        camera: only slots with a picture of this camera; None: any.
        order: uncertain: those first of which the bundle is least sure.
    """

    show: Show = "unlabelled"
    label: str | None = None
    camera: int | None = None
    order: Order = "time"


def queue(
    slots: Sequence[int],
    cameras: Mapping[int, frozenset[int]],
    labels: Mapping[int, str],
    suggestions: Mapping[int, Suggestion],
    wanted: Wanted,
) -> list[int]:
    """The slots to show.

    Args:
        slots: all of them in time.
        cameras: slot -> the cameras with a picture.
        labels: slot -> label.
        suggestions: slot -> suggestion, perhaps not of all slots.
    """
    chosen = [
        slot
        for slot in slots
        if _shown(labels.get(slot), suggestions.get(slot), wanted.show)
        and wanted.label in (None, labels.get(slot, _suggested(suggestions.get(slot))))
        and (wanted.camera is None or wanted.camera in cameras.get(slot, frozenset()))
    ]
    if wanted.order == "uncertain":
        # Of what the bundle says nothing, nothing is known: that comes first.
        chosen.sort(key=lambda slot: -(s.entropy if (s := suggestions.get(slot)) else 2.0))
    return chosen


def is_doubtful(label: str | None, suggestion: Suggestion | None) -> bool:
    """Whether the bundle is sure of another label than the person's."""
    return (
        label is not None
        and suggestion is not None
        and suggestion.label != label
        and suggestion.probability >= DOUBT
    )


def _suggested(suggestion: Suggestion | None) -> str | None:
    return suggestion.label if suggestion else None


def _shown(label: str | None, suggestion: Suggestion | None, show: Show) -> bool:
    if show == "doubtful":
        return is_doubtful(label, suggestion)
    if show == "uncertain":
        return label is None and (suggestion is None or suggestion.entropy >= UNCERTAIN)
    return show == "all" or (label is not None) == (show == "labelled")


#: Keys of classes, in order; x, u, the arrows, space and ? have a meaning of their own.
KEYS = "123456789qwertyiopasdfghjklzcvbnm"


def key_of(number: int) -> str:
    """The key of the class of that number; empty: it has none, and is chosen by mouse."""
    return KEYS[number] if number < len(KEYS) else ""
