"""Consumers that missed decisions ask for them again, on `ddnn/<site>/recall`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

import msgspec

#: Decisions sent again for one recall, and the shortest time between two of them.
RECALL_LIMIT = 256
RECALL_EVERY_S = 0.5


class Recall(msgspec.Struct, frozen=True):
    """A consumer's request: publish these slots' decisions again."""

    from_slot: int
    to_slot: int = 2**63 - 1


#: Made once: see `ddnn.bundle`.
_DECODER = msgspec.json.Decoder(Recall)


class Recalls:
    """Answers such requests, not too many of them.

    Args:
        counts: where `recalls`, `recalls_refused` and `malformed` are counted.
    """

    def __init__(self, counts: Counter[str]) -> None:
        self._counts = counts
        self._next = 0.0

    def answer(self, payload: bytes, recent: Mapping[int, bytes], now: float) -> list[bytes]:
        """The decisions asked for, in order.

        Args:
            recent: the last decisions by slot.
            now: monotonic seconds.
        """
        try:
            recall = _DECODER.decode(payload)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            self._counts["malformed"] += 1
            return []
        if now < self._next:
            self._counts["recalls_refused"] += 1
            return []
        self._next = now + RECALL_EVERY_S
        self._counts["recalls"] += 1
        wanted = sorted(slot for slot in recent if recall.from_slot <= slot <= recall.to_slot)
        return [recent[slot] for slot in wanted[:RECALL_LIMIT]]
