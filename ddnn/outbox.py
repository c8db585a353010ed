"""Messages that must outlive an outage, in bounded memory.

Pure. A message is put in, handed out when there is a connection (the oldest first), and forgotten
when the broker has acknowledged it. What is over the bytes or the age is dropped, the oldest
first, and counted: `outbox.overflow`, `outbox.expired`.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from typing import NamedTuple


class Held(NamedTuple):
    """One message: `key` names it, `since` is when it was put in (monotonic seconds)."""

    key: int
    payload: bytes
    since: float


class Outbox:
    """One queue of messages by key.

    Args:
        max_bytes: of payloads, together.
        max_age_s: an older message is worth nothing.
        max_in_flight: how many may be handed out and not yet acknowledged.
        counts: where drops are counted.
    """

    def __init__(
        self,
        *,
        max_bytes: int,
        max_age_s: float,
        max_in_flight: int = 64,
        counts: Counter[str] | None = None,
    ) -> None:
        self.counts: Counter[str] = Counter() if counts is None else counts
        self.held_bytes = 0
        self._max_bytes = max_bytes
        self._max_age_s = max_age_s
        self._max_in_flight = max_in_flight
        self._waiting: OrderedDict[int, Held] = OrderedDict()
        self._in_flight: OrderedDict[int, Held] = OrderedDict()

    def __len__(self) -> int:
        return len(self._waiting) + len(self._in_flight)

    def __contains__(self, key: int) -> bool:
        return key in self._waiting or key in self._in_flight

    @property
    def waiting(self) -> int:
        """Messages not yet handed out."""
        return len(self._waiting)

    def put(self, key: int, payload: bytes, now: float) -> list[int]:
        """Take a message; one of the same key that is held already stays as it is.

        Returns:
            Keys that were dropped to make room (this one, if it alone is too big).
        """
        if key in self:
            return []
        self._waiting[key] = Held(key, payload, now)
        self.held_bytes += len(payload)
        dropped = []
        while self.held_bytes > self._max_bytes:
            held = self._pop_oldest()
            self.counts["outbox.overflow"] += 1
            dropped.append(held.key)
        return dropped

    def take(self, now: float, limit: int) -> list[Held]:
        """Hand out up to `limit` messages, the oldest first; they stay until acknowledged."""
        room = min(limit, self._max_in_flight - len(self._in_flight))
        taken: list[Held] = []
        while self._waiting and len(taken) < room:
            key, held = self._waiting.popitem(last=False)
            self._in_flight[key] = held
            taken.append(held)
        return taken

    def give_back(self, key: int) -> None:
        """A message handed out could not be sent: it waits again, as the oldest."""
        held = self._in_flight.pop(key, None)
        if held is not None:
            self._waiting[key] = held
            self._waiting.move_to_end(key, last=False)

    def acknowledged(self, key: int) -> bool:
        """Forget a message; whether it was held at all."""
        held = self._in_flight.pop(key, None) or self._waiting.pop(key, None)
        if held is None:
            return False
        self.held_bytes -= len(held.payload)
        return True

    def expire(self, now: float) -> list[int]:
        """Drop what is too old; returns its keys."""
        dropped = []
        for queue in (self._in_flight, self._waiting):
            while queue:
                held = next(iter(queue.values()))
                if now - held.since <= self._max_age_s:
                    break
                del queue[held.key]
                self.held_bytes -= len(held.payload)
                self.counts["outbox.expired"] += 1
                dropped.append(held.key)
        return dropped

    def clear(self) -> int:
        """Drop everything; returns how many there were."""
        count = len(self)
        self._waiting.clear()
        self._in_flight.clear()
        self.held_bytes = 0
        return count

    def _pop_oldest(self) -> Held:
        queue = self._in_flight or self._waiting
        _, held = queue.popitem(last=False)
        self.held_bytes -= len(held.payload)
        return held
