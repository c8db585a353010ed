"""Frames out of messages: which slot each is of, and what each has cost."""

from __future__ import annotations

from collections import Counter
from typing import NamedTuple

from ddnn import summaries, topics, wire
from ddnn.errors import WireError
from ddnn.wire import MAX_MEMBERS, Frame, Kind


class Sender(NamedTuple):
    """Who wrote a frame, by its topic: camera or edge gateway of this number."""

    number: int
    is_edge: bool


class MemberFrame(NamedTuple):
    """One frame of a member, alone or out of a message with several.

    Attributes:
        slot: whole slot number.
        payload: its bytes as if it had come alone.
        head_bytes: what it cost beside its body.
    """

    sender: Sender
    slot: int
    frame: Frame
    payload: bytes
    head_bytes: int = wire.HEADER_BYTES


class FrameReader:
    """Reads what is near this clock, and counts the rest.

    Args:
        window: slots that a frame's slot may be from this clock's.
        counts: where `malformed` and `out_of_window` are counted.
    """

    def __init__(self, period_s: float, window: int, counts: Counter[str]) -> None:
        self._period_s = period_s
        self._window = window
        self._counts = counts

    def is_near(self, slot: int, wall: float) -> bool:
        """Whether a slot is within the window."""
        return abs(slot - int(wall / self._period_s)) <= self._window

    def read(self, payload: bytes, wall: float) -> tuple[Frame, int] | None:
        """Frame and whole slot number, or None for what is not worth the engine's time."""
        try:
            frame = wire.decode(payload)
        except WireError:
            self._counts["malformed"] += 1
            return None
        slot = wire.unwrap_slot(frame.slot, int(wall / self._period_s))
        if not self.is_near(slot, wall):
            self._counts["out_of_window"] += 1
            return None
        return frame, slot

    def of_member(
        self, sender: Sender, payload: bytes, slot: int, frame: Frame, wall: float
    ) -> list[MemberFrame]:
        """The frames of a member's message, those with several slots as if they had come alone."""
        if frame.kind is not Kind.SUMMARIES:
            return [MemberFrame(sender, slot, frame, payload)]
        try:
            frames = summaries.split(frame)
        except WireError:
            self._counts["malformed"] += 1
            return []
        # Its own bytes are the first one's; that all of them add up is what counts.
        own = len(payload) - sum(len(each.body) for each in frames)
        found = []
        for n, each in enumerate(frames):
            its_slot = slot + (each.slot - frame.slot) % wire.SLOT_MODULUS
            if self.is_near(its_slot, wall):
                head_bytes = 0 if n else own
                found.append(MemberFrame(sender, its_slot, each, encoded(each), head_bytes))
            else:
                self._counts["out_of_window"] += 1
        return found


def senders(site: str) -> dict[str, Sender]:
    """Who writes on which topic, of all members that a site may have."""
    found: dict[str, Sender] = {}
    for n in range(MAX_MEMBERS):
        found[topics.summary(site, n)] = found[topics.features(site, n)] = Sender(n, False)
        found[topics.edge_summary(site, n)] = Sender(n, True)
        found[topics.edge_features(site, n)] = Sender(n, True)
    return found


def encoded(frame: Frame) -> bytes:
    """A frame's bytes."""
    return wire.encode(
        frame.kind,
        tag=frame.tag,
        boot=frame.boot,
        slot=frame.slot,
        flags=frame.flags,
        body=frame.body,
    )


def decoded(payload: bytes) -> Frame | None:
    """A frame kept in the journal, or None where its bytes are none."""
    try:
        return wire.decode(payload)
    except WireError:
        return None
