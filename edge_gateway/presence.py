"""Who is there: members and cloud workers by their status."""

from __future__ import annotations

from collections import Counter
from typing import Literal

from ddnn import status, topics
from ddnn.message import Message
from ddnn.place import gateway_node

#: Cloud workers whose availability is remembered: names come from the network.
MAX_WORKERS = 1000


class Presence:
    """What nodes said of themselves last.

    Args:
        site: whose.
        counts: where `workers_over_limit` is counted.

    Attributes:
        nodes: by name: online; running bundle; staged bundle.
        workers: by name: whether it serves this site.
    """

    def __init__(self, site: str, counts: Counter[str]) -> None:
        self.nodes: dict[str, tuple[bool, str | None, str | None]] = {}
        self.workers: dict[str, bool] = {}
        self._site = site
        self._counts = counts

    def on_node(self, message: Message) -> bool:
        """Take a member's status; whether it says anything new."""
        report = status.decode(message.payload)
        # The topic says whose status it is; a node may write to its own only.
        if report is None or message.topic != topics.status(self._site, report.node):
            return False
        # Numbers are short, so that no more than 20000 names are remembered.
        node = report.node
        number = topics.member_of(node.replace("-", "/"))
        if number is None or node not in (f"device-{number}", gateway_node(number)):
            return False
        said = (report.state == "online", report.bundle, report.staged)
        if self.nodes.get(node) == said:
            return False
        self.nodes[node] = said
        return True

    def is_worth_waiting_for(self, node: str, bundle_id: str, *, is_newest: bool) -> bool:
        """Whether a node that has said something will have frames for slots of this bundle.

        A node without the bundle is there but its frames do not count. For slots before a switch
        a node that has gone on to the next bundle still answers.

        Args:
            bundle_id: of the slots; empty: of any.
            is_newest: whether it is the one of the last switch.
        """
        online, running, staged = self.nodes[node]
        if not is_newest:
            return online
        if not bundle_id:
            return online and running is not None
        return online and bundle_id in (running, staged)

    def on_worker(self, message: Message) -> Literal["serves", "one_less", "none_left"] | None:
        """Take a cloud worker's status; what has changed by it, or None."""
        report = status.decode(message.payload)
        if report is None or message.topic != topics.worker_status(report.node):
            return None
        if report.node not in self.workers and len(self.workers) >= MAX_WORKERS:
            self._counts["workers_over_limit"] += 1
            return None
        serves = report.state == "online" and self._site in report.sites
        if self.workers.get(report.node) == serves:
            return None
        self.workers[report.node] = serves
        if serves:
            return "serves"
        return "one_less" if any(self.workers.values()) else "none_left"
