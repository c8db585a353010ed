"""Which members of a node are worth waiting for.

Pure, and without a clock: a member is believed alive until its status says otherwise or it has
missed `silent_after_slots` slots in a row; a report brings it back at once. Every member of the
bundle is believed alive at first: a gateway that has just started knows no status yet, and must
not decide on the first camera's word alone.
"""

from __future__ import annotations

from collections.abc import Collection


class Members:
    """Liveness of members 0 to `count` - 1."""

    def __init__(self, count: int, silent_after_slots: int) -> None:
        self._silent_after = silent_after_slots
        self._down: set[int] = set()
        self._misses = [0] * count
        self._alive: frozenset[int] | None = None

    def said(self, member: int, up: bool) -> None:
        """A status or will says that `member` is there or not."""
        if up:
            self.reported(member)
        else:
            self._down.add(member)
            self._alive = None

    def reported(self, member: int) -> None:
        """A report came from `member`: it lives, whatever was said of it."""
        if self._misses[member] or member in self._down:
            self._down.discard(member)
            self._misses[member] = 0
            self._alive = None

    def slot_ended(self, reported: Collection[int]) -> None:
        """A slot ended with the reports of these members only."""
        for member in range(len(self._misses)):
            if member not in reported:
                self._misses[member] += 1
                self._alive = None

    def down(self, member: int) -> bool:
        """Whether it is said to be down."""
        return member in self._down

    def alive(self) -> frozenset[int]:
        """Members worth waiting for."""
        if self._alive is None:  # asked for with every message, and hardly ever another answer
            self._alive = frozenset(
                member
                for member, misses in enumerate(self._misses)
                if misses < self._silent_after and member not in self._down
            )
        return self._alive
