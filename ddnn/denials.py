"""Messages that the broker refuses to take from this identity. Used from any thread."""

from __future__ import annotations

import logging
import threading
from collections import Counter

log = logging.getLogger(__name__)
#: Topics whose refusals are logged, and counted one by one.
MAX_DENIED_TOPICS = 100


class Denials:
    """Which topics messages are on their way to at QoS 1, and which were refused.

    Args:
        counts: where `denied` is counted.
    """

    def __init__(self, counts: Counter[str]) -> None:
        self._counts = counts
        self._lock = threading.Lock()
        # By packet id; ids are used again, so that there are never more than 65535.
        self._in_flight: dict[int, str] = {}
        self._refused_early: dict[int, str] = {}
        self._by_topic: Counter[str] = Counter()

    def sent(self, packet: int, topic: str) -> None:
        """A message has been handed to the network."""
        with self._lock:
            refusal = self._refused_early.pop(packet, None)
            if refusal is None:
                self._in_flight[packet] = topic
        if refusal is not None:
            self._deny(topic, refusal)

    def answered(self, packet: int, refusal: str | None) -> None:
        """The broker has taken a message (None), or says that this identity may not write there."""
        with self._lock:
            topic = self._in_flight.pop(packet, None)
            if topic is None and refusal is not None:  # faster than `sent` could note it
                self._refused_early[packet] = refusal
        if topic is not None and refusal is not None:
            self._deny(topic, refusal)

    def by_topic(self) -> Counter[str]:
        """How many messages were refused, by topic."""
        with self._lock:
            return self._by_topic.copy()

    def _deny(self, topic: str, refusal: str) -> None:
        with self._lock:
            self._counts["denied"] += 1
            is_new = topic not in self._by_topic and len(self._by_topic) < MAX_DENIED_TOPICS
            if is_new or topic in self._by_topic:
                self._by_topic[topic] += 1
        if is_new:  # once for each topic, and not for ever if a topic holds a number
            log.error("the broker refuses messages on %s: %s; see its access list", topic, refusal)
