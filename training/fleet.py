"""What a site's nodes say of bundles, for the commands that push them and ask for them."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, NamedTuple

import msgspec

from ddnn import activation, config, topics
from ddnn.activation import Activation
from ddnn.bundle import Manifest, bundle_id, decode_manifest
from ddnn.errors import BundleError
from ddnn.mqtt import Client, Message
from ddnn.signing import unseal
from ddnn.status import Status
from ddnn.status import decode as decode_status

#: What is retained arrives right after subscribing.
HEAR_S = 0.3


class FleetSettings(config.SiteSettings, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Settings of the commands that talk to a site's nodes."""

    timeout_s: Annotated[
        float, msgspec.Meta(ge=0.1, le=3600, description="Longest wait for the broker and nodes.")
    ] = 90.0


class Node(NamedTuple):
    """One node's word on bundles.

    Attributes:
        online: whether it is there.
        bundle, staged: ids of what runs and of what is ready.
        refused: why the last one offered was refused.
        refused_id: which one that was, where the node can tell.
    """

    name: str
    online: bool
    bundle: str | None
    staged: str | None
    refused: str | None
    refused_id: str | None
    notes: dict[str, str]

    def on(self, wanted: str) -> str:
        """How far it is with bundle `wanted`, in words."""
        if not self.online:
            return "offline"
        if self.bundle == wanted:
            return "active"
        if self.refused and self.refused_id == wanted:
            return f"refused: {self.refused}"
        if self.staged == wanted:
            return "staged"
        if self.refused and self.refused_id is None:
            return f"refused: {self.refused}"
        return f"runs {self.bundle[:12]}" if self.bundle else "has no bundle"


class Fleet:
    """One site as seen by a bystander on the broker."""

    def __init__(self, site: str) -> None:
        self.site = site
        self.offered: bytes | None = None
        self.record: Activation | None = None
        self._reports: dict[str, Status] = {}
        self._lock = threading.Lock()

    @property
    def nodes(self) -> dict[str, Node]:
        """Cameras and gateways of the site, and cloud workers that know it, by name."""
        with self._lock:
            reports = sorted(self._reports.items())
        found = {}
        for topic, report in reports:
            if topic.startswith("ddnn/_cloud/"):
                node = Node(
                    report.node,
                    report.state == "online",
                    report.sites.get(self.site),
                    report.sites_staged.get(self.site),
                    report.sites_refused.get(self.site),
                    None,
                    report.notes,
                )
                if not (node.bundle or node.staged or node.refused) and node.online:
                    continue
            elif report.node.startswith(("device-", "gateway")):
                node = Node(
                    report.node,
                    report.state == "online",
                    report.bundle,
                    report.staged,
                    report.refused,
                    report.refused_id,
                    report.notes,
                )
            else:
                continue
            found[report.node] = node
        return found

    def behind(self, wanted: str) -> dict[str, str]:
        """Nodes that are online and do not run bundle `wanted`, with how far they are."""
        return {
            name: node.on(wanted)
            for name, node in self.nodes.items()
            if node.online and node.bundle != wanted
        }

    def online(self) -> int:
        """How many nodes are there."""
        return sum(node.online for node in self.nodes.values())

    def newest(self) -> tuple[str, Manifest] | None:
        """Id and manifest of the newest bundle that the broker retains; None: there is none."""
        found = []
        for message in (self.offered, self.record.manifest if self.record else None):
            if message:
                try:
                    payload = unseal(message).payload
                    found.append((bundle_id(payload), decode_manifest(payload)))
                except BundleError:
                    continue  # what is there is no usable manifest: nothing to protect
        return max(found, key=lambda one: one[1].version, default=None)

    def on_manifest(self, message: Message) -> None:
        self.offered = message.payload or None

    def on_active(self, message: Message) -> None:
        try:
            self.record = activation.decode(message.payload) if message.payload else None
        except BundleError:
            self.record = None

    def on_status(self, message: Message) -> None:
        report = decode_status(message.payload)
        with self._lock:
            if report is not None:
                self._reports[message.topic] = report
            else:
                self._reports.pop(message.topic, None)


@contextmanager
def connected(settings: FleetSettings) -> Iterator[tuple[Client, Fleet]]:
    """A connection, and what the site says on it; what is retained has been heard.

    Raises:
        DdnnError: there is no broker.
    """
    fleet = Fleet(settings.site)
    site = settings.site
    client = Client(
        settings.broker, settings.port, f"{site}-operator-{config.boot_id()}", tls=settings.tls
    )
    client.subscribe(topics.manifest(site), fleet.on_manifest)
    client.subscribe(topics.active(site), fleet.on_active)
    client.subscribe(topics.status_filter(site), fleet.on_status)
    client.subscribe(topics.worker_status_filter(), fleet.on_status)
    client.start()
    try:
        client.wait_connected(settings.timeout_s)
        time.sleep(HEAR_S)
        yield client, fleet
    finally:
        client.stop()
