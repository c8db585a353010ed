"""Which slot a camera shows next, and when. Pure: the caller reads the clock."""

from __future__ import annotations

import math


class Pacer:
    """One view per slot.

    A live source shows now what is there now: a slot that was missed is gone, and so is one of
    which less than half is left, or its view might be taken in the next. A replay shows sample
    after sample, each in its own slot; when it is late it hurries, and leaves none out, unless it
    is later than anybody waits for: then it goes on with what is now, as a live source does.

    Args:
        period_s: seconds per slot.
        live: which of the two.
        first_slot: of a replay.
        hurry_s: how late a replay may be and still show everything.
    """

    def __init__(
        self, period_s: float, *, live: bool, first_slot: int = 0, hurry_s: float = math.inf
    ) -> None:
        self._period_s = period_s
        self._live = live
        self._next = first_slot
        self._hurry_s = hurry_s

    def next(self, wall_s: float) -> tuple[int, float]:
        """The next slot to show and the seconds until it begins."""
        slot = self._next
        if self._live or wall_s - slot * self._period_s > self._hurry_s:
            slot = max(slot, int(wall_s / self._period_s + 0.5))
        return slot, max(0.0, slot * self._period_s - wall_s)

    def shown(self, slot: int) -> None:
        """`slot` has been shown, or it was tried."""
        self._next = slot + 1

    def clock_stepped(self) -> None:
        """Go on with the slot that the clock says now, even if its number came before."""
        if self._live:
            self._next = 0
