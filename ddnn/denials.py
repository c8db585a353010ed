"""Messages that the broker refuses to take from this identity. Used from any thread."""

from __future__ import annotations

import logging
import threading
from collections import Counter

log = logging.getLogger(__name__)
#: Topics whose refusals are logged, and counted one by one.
MAX_DENIED_TOPICS = 100


class Denials:
    """Which topics' messages were refused, and how often.

    Args:
        counts: where `denied` is counted.
    """

    def __init__(self, counts: Counter[str]) -> None:
        self._counts = counts
        self._lock = threading.Lock()
        self._by_topic: Counter[str] = Counter()

    def refused(self, topic: str, reason: str) -> None:
        """The broker says that this identity may not write there."""
        with self._lock:
            self._counts["denied"] += 1
            is_new = topic not in self._by_topic and len(self._by_topic) < MAX_DENIED_TOPICS
            if is_new or topic in self._by_topic:
                self._by_topic[topic] += 1
        if is_new:  # once for each topic, and not for ever if a topic holds a number
            log.error("the broker refuses messages on %s: %s; see its access list", topic, reason)

    def by_topic(self) -> Counter[str]:
        """How many messages were refused, by topic."""
        with self._lock:
            return self._by_topic.copy()
