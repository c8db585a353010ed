"""What has come and is not stored yet: batches by size and delay, pauses while nothing goes. Pure.

Bounded by the broker, which should send no more than the session's receive maximum without an
acknowledgement, and bounded here, since not every broker does. Whatever is dropped was not
acknowledged: what an earlier connection has left comes again on the present one, and goes first.
"""

from __future__ import annotations

from collections import Counter, deque
from typing import NamedTuple

from cloud_service.records.writer import Heard
from ddnn.decisions import PublishedDecision
from ddnn.message import Message

#: The first pause after a failure, and the longest.
FIRST_PAUSE_S = 0.5
MAX_PAUSE_S = 10.0


class Waiting(NamedTuple):
    """One message.

    Attributes:
        content: what to store; None: nothing, it was malformed.
        message: to acknowledge, once all before it are done with.
        since: when it came, monotonic seconds.
    """

    content: PublishedDecision | Heard | None
    message: Message
    since: float


class Intake:
    """The queue in front of the database.

    Args:
        size: messages that are stored without delay.
        max_batch: messages of a batch at most.
        delay_s: how long the first message of a batch waits for others.
        max_waiting: messages here at most.

    Attributes:
        counts: dropped, ledgers_left_out.
    """

    def __init__(self, size: int, max_batch: int, delay_s: float, max_waiting: int) -> None:
        self.counts: Counter[str] = Counter()
        self._size = size
        self._max_batch = max_batch
        self._delay_s = delay_s
        self._max_waiting = max_waiting
        self._waiting: deque[Waiting] = deque()
        self._pause_s = 0.0
        self._paused_till = 0.0
        self._taken = 0

    def __len__(self) -> int:
        return len(self._waiting)

    @property
    def is_paused(self) -> bool:
        """Whether the last batch failed."""
        return self._pause_s > 0

    @property
    def is_full(self) -> bool:
        """Whether `put` has to drop something."""
        return len(self._waiting) >= self._max_waiting

    def put(self, waiting: Waiting) -> bool:
        """Take a message in.

        Returns:
            False: there was no room for it, and the broker must send it again.
        """
        if isinstance(waiting.content, Heard) and len(self._waiting) >= self._size:
            # The next one comes within a second and says more; decisions go first.
            self.counts["ledgers_left_out"] += 1
            return True
        if self.is_full:
            self.counts["dropped"] += 1
            oldest = self._waiting[self._taken] if self._taken < len(self._waiting) else None
            if oldest is None or not _is_older(oldest.message, waiting.message):
                return False
            del self._waiting[self._taken]
        self._waiting.append(waiting)
        return True

    def deadline(self) -> float | None:
        """When `take` has a batch, monotonic seconds; None: there is nothing."""
        if not self._waiting:
            return None
        first = self._waiting[0].since
        due = first if len(self._waiting) >= self._size else first + self._delay_s
        return max(due, self._paused_till)

    def take(self, now: float) -> list[Waiting]:
        """The next batch, empty before its time. It stays here until `stored` or `failed`."""
        deadline = self.deadline()
        if deadline is None or now < deadline:
            return []
        batch = [self._waiting[n] for n in range(min(self._max_batch, len(self._waiting)))]
        self._taken = len(batch)
        return batch

    def stored(self) -> None:
        """The batch is committed."""
        for _ in range(self._taken):
            self._waiting.popleft()
        self._taken = 0
        self._pause_s = self._paused_till = 0.0

    def failed(self, now: float) -> float:
        """The batch is not: it is taken again after a pause, each time a longer one.

        Returns:
            The pause in seconds.
        """
        self._taken = 0
        self._pause_s = min(MAX_PAUSE_S, max(FIRST_PAUSE_S, 2 * self._pause_s))
        self._paused_till = now + self._pause_s
        return self._pause_s


def _is_older(one: Message, other: Message) -> bool:
    """Whether `one` is a ledger, or came on an earlier connection."""
    if one.delivery is None or other.delivery is None:
        return one.delivery is None
    return one.delivery[0] < other.delivery[0]
