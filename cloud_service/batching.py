"""Which escalations are answered together, and which not at all. Pure.

Requests wait in one queue, in groups: those of one group go to one section and can run as one
batch. A group is due when it fills a batch, or when its oldest request has waited `delay_s`; of
several, the one whose oldest request has waited longest. With a delay of 0 a request goes as soon
as the one who answers is free, together with those that came meanwhile: a quiet worker answers at
once, a busy one in batches.

The queue is bounded: when it is full the oldest request is dropped, since its asker is the next to
give up. So is a request whose asker has given up by the time that its turn comes.
"""

from __future__ import annotations

from collections import Counter, OrderedDict, deque
from collections.abc import Hashable
from typing import Generic, NamedTuple, TypeVar

T = TypeVar("T")


class BatchRules(NamedTuple):
    """Bounds.

    Attributes:
        size: requests in a batch, at most.
        delay_s: how long a request may wait for others to share its batch.
        waiting, waiting_bytes: what is in the queue, at most.
    """

    size: int = 32
    delay_s: float = 0.0
    waiting: int = 4096
    waiting_bytes: int = 64_000_000


class Waiting(NamedTuple, Generic[T]):
    """One request in the queue.

    Attributes:
        group: what it can share a batch with.
        came_at: when it was put into the queue.
        expires_at: from when on nobody wants its answer.
    """

    group: Hashable
    request: T
    size_bytes: int
    came_at: float
    expires_at: float


class Batches(Generic[T]):
    """The queue. Times are monotonic seconds and never go back from call to call.

    Args:
        rules: bounds.
        counts: gets `dropped_full` and `dropped_expired`.

    Attributes:
        held_bytes: sizes of what waits.
    """

    def __init__(self, rules: BatchRules, counts: Counter[str]) -> None:
        self.rules = rules
        self._counts = counts
        self.held_bytes = 0
        self._number = 0
        self._all: OrderedDict[int, Waiting[T]] = OrderedDict()
        self._groups: dict[Hashable, deque[int]] = {}
        self._full: dict[Hashable, None] = {}

    def __len__(self) -> int:
        return len(self._all)

    def put(
        self, group: Hashable, request: T, size_bytes: int, now: float, expires_at: float
    ) -> None:
        """Add a request; the oldest ones give way when there is no room."""
        while self._all and (
            len(self._all) >= self.rules.waiting
            or self.held_bytes + size_bytes > self.rules.waiting_bytes
        ):
            self._take_from(next(iter(self._all.values())).group, 1)
            self._counts["dropped_full"] += 1
        self._number += 1
        self._all[self._number] = Waiting(group, request, size_bytes, now, expires_at)
        self.held_bytes += size_bytes
        numbers = self._groups.get(group)
        if numbers is None:
            numbers = self._groups[group] = deque()
        numbers.append(self._number)
        if len(numbers) >= self.rules.size:
            self._full[group] = None

    def next_due(self) -> float | None:
        """When the next batch is due (it may be already); None: nothing waits."""
        if not self._all:
            return None
        oldest = next(iter(self._all.values())).came_at
        return oldest if self._full else oldest + self.rules.delay_s

    def take(self, now: float, *, all_of_it: bool = False) -> list[Waiting[T]]:
        """The next batch: requests of one group, oldest first; empty: none is due.

        Args:
            all_of_it: whatever waits is due (at the end of the process).
        """
        while self._all:
            oldest = next(iter(self._all.values()))
            if all_of_it or now >= oldest.came_at + self.rules.delay_s:
                group = oldest.group
            elif self._full:
                group = next(iter(self._full))
            else:
                return []
            taken = self._take_from(group, self.rules.size)
            batch = [one for one in taken if now < one.expires_at]
            if late := len(taken) - len(batch):
                self._counts["dropped_expired"] += late
            if batch:
                return batch
        return []

    def _take_from(self, group: Hashable, count: int) -> list[Waiting[T]]:
        """Remove the oldest `count` requests of a group."""
        numbers = self._groups[group]
        taken = [self._all.pop(numbers.popleft()) for _ in range(min(count, len(numbers)))]
        self.held_bytes -= sum([one.size_bytes for one in taken])
        if len(numbers) < self.rules.size:
            self._full.pop(group, None)
        if not numbers:
            del self._groups[group]
        return taken
