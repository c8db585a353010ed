"""What a gateway hears of its members: frames and statuses, and of whom nothing.

Three topics for each member that there can be, and no wildcard: so that a member that floods can be
left out at once, by one packet.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Protocol

from ddnn import topics
from ddnn.flood import FloodGuard
from ddnn.message import Message
from ddnn.wire import MAX_MEMBERS

log = logging.getLogger(__name__)
_DEVICE = "device-"


class Subscriber(Protocol):
    """What is needed of a `ddnn.mqtt.Client`."""

    def subscribe(
        self, topic_filter: str, handler: Callable[[Message], None], /, *, qos: int = 1
    ) -> None: ...
    def unsubscribe(self, *topic_filters: str) -> None: ...


class Intake:
    """Subscriptions to a site's members behind a flood guard.

    Args:
        client: the gateway's connection.
        site, period_s: of the gateway.
        stall_s: how long the gateway may stand still before its broker gives it up.
        handler: gets every message; it asks `admits` whether to look at it.
    """

    def __init__(
        self,
        client: Subscriber,
        site: str,
        period_s: float,
        stall_s: float,
        handler: Callable[[Message], None],
    ) -> None:
        self._client = client
        self._site = site
        self._handler = handler
        self._guard = FloodGuard(period_s, stall_s)

    def start(self) -> None:
        """Listen to everybody."""
        for member in range(MAX_MEMBERS):
            self._listen(member)

    def admits(self, message: Message, now: float) -> bool:
        """Whether to look at a message; stops listening to a member who sends too much."""
        member = _member(message.topic, self._site)
        if member is None:
            return True
        if self._guard.is_out(member):
            return False  # still on its way when it was shut out
        if not self._guard.on_message(member, len(message.payload), now):
            return True
        log.error("camera %d sends far too much: not listened to for a while", member)
        # All in one packet: each one more would wait its turn behind the flood.
        self._client.unsubscribe(*(topic for topic, _ in self._topics(member)))
        return False

    def on_time(self, now: float) -> None:
        """Listen again to members whose time is over."""
        if over := self._guard.on_time(now):
            log.warning("listening again to cameras %s", over)
            for member in over:
                self._listen(member)

    def notes(self) -> dict[str, str]:
        """For the status; empty while nobody floods."""
        out = self._guard.shut_out
        return {"flood": f"cameras {out} send far too much: not listened to"} if out else {}

    def _listen(self, member: int) -> None:
        for topic, qos in self._topics(member):
            self._client.subscribe(topic, self._handler, qos=qos)

    def _topics(self, member: int) -> list[tuple[str, int]]:
        """With their QoS."""
        return [
            (topics.summary(self._site, member), 0),
            (topics.features(self._site, member), 1),
            (topics.status(self._site, f"{_DEVICE}{member}"), 1),
        ]


def _member(topic: str, site: str) -> int | None:
    """Whose message it is, if a member's."""
    if topic.startswith((f"{site}/s/", f"{site}/f/")):
        member = topics.member_of(topic)
    elif topic.startswith(topics.status(site, _DEVICE)):
        member = topics.member_of(topic.replace("-", "/"))
    else:
        return None
    return member if member is not None and member < MAX_MEMBERS else None
