"""What a gateway hears of other nodes: frames and statuses, and of whom nothing.

One topic for each thing that each node writes, and no wildcard: so that a node that floods can be
left out at once, by one packet.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Protocol

from ddnn import topics
from ddnn.flood import FloodGuard
from ddnn.message import Message
from ddnn.place import gateway_node
from ddnn.summaries import reports_in
from ddnn.wire import MAX_MEMBERS

log = logging.getLogger(__name__)


class Subscriber(Protocol):
    """What is needed of a `ddnn.mqtt.Client`."""

    def subscribe(
        self, topic_filter: str, handler: Callable[[Message], None], /, *, qos: int = 1
    ) -> None: ...
    def unsubscribe(self, *topic_filters: str) -> None: ...


class Intake:
    """Subscriptions to a site's nodes behind a flood guard.

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
        self._handler = handler
        self._guard = FloodGuard(period_s, stall_s)
        nodes = [f"device-{n}" for n in range(MAX_MEMBERS)]
        nodes += [gateway_node(k) for k in range(MAX_MEMBERS)]
        self._status = {node: topics.status(site, node) for node in nodes}
        self._frames: dict[str, tuple[str, str]] = {}
        self._node_of = {topic: node for node, topic in self._status.items()}

    def start(self) -> None:
        """Listen to every node's status."""
        for topic in self._status.values():
            self._client.subscribe(topic, self._handler)

    def follow(self, members: Mapping[str, tuple[str, str]]) -> None:
        """Listen to these members' frames, and to nobody else's.

        Args:
            members: topics of summaries and features, by node.
        """
        if members == self._frames:
            return
        before, self._frames = self._frames, dict(members)
        gone = [topic for node in before.keys() - members.keys() for topic in before[node]]
        if gone:
            self._client.unsubscribe(*gone)
        self._node_of = {topic: node for node, topic in self._status.items()}
        self._node_of |= {topic: node for node, pair in members.items() for topic in pair}
        for node in members.keys() - before.keys():
            if not self._guard.is_out(node):
                self._hear_frames(node)

    def admits(self, message: Message, now: float) -> bool:
        """Whether to look at a message; stops listening to a node that sends too much."""
        node = self._node_of.get(message.topic)
        if node is None:
            return True
        payload = message.payload
        if not self._guard.on_message(node, len(payload), now, reports_in(payload)):
            # Else it was still on its way when its node was shut out.
            return not self._guard.is_out(node)
        log.error("%s sends far too much: not listened to for a while", node)
        # All in one packet: each one more would wait its turn behind the flood.
        self._client.unsubscribe(*self._frames.get(node, ()), self._status[node])
        return False

    def on_time(self, now: float) -> None:
        """Listen again to nodes whose time is over."""
        if over := self._guard.on_time(now):
            log.warning("listening again to %s", ", ".join(over))
            for node in over:
                self._client.subscribe(self._status[node], self._handler)
                self._hear_frames(node)

    def notes(self) -> dict[str, str]:
        """For the status; empty while nobody floods."""
        out = ", ".join(self._guard.shut_out)
        return {"flood": f"sends far too much, not listened to: {out}"} if out else {}

    def _hear_frames(self, node: str) -> None:
        if pair := self._frames.get(node):
            summary, features = pair
            self._client.subscribe(summary, self._handler, qos=0)
            self._client.subscribe(features, self._handler)
