"""The numbers of slots that have ended, in bounded memory.

The last `limit` numbers are kept one by one; below them there is a floor, and everything at or
under the floor counts as ended. So a slot can never be opened twice, whatever arrives late: when
in doubt a frame is late. The floor only rises when more than `limit` slots have ended, and then to
the lowest of them, so that it stays behind the window in which frames are accepted at all.

The price: a site whose clocks are set back decides nothing until they have passed the last slot
that it decided, since those numbers are taken.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable


class ClosedSlots:
    """A set of slot numbers that forgets the lowest ones into a floor.

    Args:
        limit: how many numbers are kept.
    """

    def __init__(self, limit: int = 4096) -> None:
        self.floor = -1
        self._limit = limit
        self._numbers: set[int] = set()
        self._lowest: list[int] = []

    def __contains__(self, slot: int) -> bool:
        return slot <= self.floor or slot in self._numbers

    def __len__(self) -> int:
        return len(self._numbers)

    def add(self, slot: int) -> None:
        """`slot` has ended."""
        if slot in self:
            return
        self._numbers.add(slot)
        heapq.heappush(self._lowest, slot)
        while len(self._numbers) > self._limit:
            self.floor = heapq.heappop(self._lowest)
            self._numbers.remove(self.floor)

    def copy(self) -> ClosedSlots:
        """Another set of the same."""
        other = ClosedSlots(self._limit)
        other.restore(*self.dump())
        return other

    def dump(self) -> tuple[int, tuple[int, ...]]:
        """Floor and numbers, for `restore`."""
        return self.floor, tuple(sorted(self._numbers))

    def restore(self, floor: int, slots: Iterable[int]) -> None:
        """Add what `dump` gave."""
        self.floor = max(self.floor, floor)
        for slot in slots:
            self.add(slot)
