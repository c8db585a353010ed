"""Which slot runs out of time next, whatever their number: a heap that forgets lazily."""

from __future__ import annotations

import heapq
import math

#: The heap is made anew when it is so many times longer than what it is about.
SLACK = 4


class Deadlines:
    """One deadline for each slot."""

    def __init__(self) -> None:
        self._at: dict[int, float] = {}
        # What is not in `_at` any more, or with another time there, is passed over.
        self._heap: list[tuple[float, int]] = []

    def set(self, slot: int, at: float) -> None:
        """`slot` runs out of time then, and no longer when it would have."""
        self._at[slot] = at
        heapq.heappush(self._heap, (at, slot))
        if len(self._heap) > SLACK * len(self._at) + 64:
            self._heap = [(at, slot) for slot, at in self._at.items()]
            heapq.heapify(self._heap)

    def drop(self, slot: int) -> None:
        """`slot` has ended."""
        self._at.pop(slot, None)

    def is_over(self, slot: int, now: float) -> bool:
        """Whether a slot that has a deadline has run out of time."""
        return now >= self._at[slot]

    def next(self) -> float:
        """The first deadline; infinite: there is none."""
        heap = self._heap
        while heap:
            at, slot = heap[0]
            if self._at.get(slot) == at:
                return at
            heapq.heappop(heap)
        return math.inf

    def over(self, now: float) -> list[int]:
        """Slots that have run out of time, the first one first."""
        due: dict[int, None] = {}
        while self._heap and self._heap[0][0] <= now:
            at, slot = heapq.heappop(self._heap)
            if self._at.get(slot) == at:
                due[slot] = None
        for slot in due:  # they are over until something else is set
            heapq.heappush(self._heap, (self._at[slot], slot))
        return list(due)
