"""The agent as a process: camera, clock and MQTT around `device_agent.agent`."""

from __future__ import annotations

import logging
import threading
import time
from pathlib import Path
from typing import Annotated

import msgspec

from ddnn import status, topics, wire
from ddnn.bundle import Bundle, Manifest
from ddnn.config import SiteSettings, boot_id
from ddnn.errors import ConfigError, WireError
from ddnn.models import ModelFeed
from ddnn.mqtt import Client, Message, Traffic, Will
from device_agent.agent import Agent
from device_agent.sources import ReplaySource

log = logging.getLogger(__name__)
STATUS_EVERY_S = 30.0


class DeviceSettings(SiteSettings, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Settings of `ddnn device`."""

    camera: Annotated[
        int, msgspec.Meta(ge=0, le=31, description="Number of this camera in the bundle.")
    ]
    source: Annotated[
        str, msgspec.Meta(description="Where views come from: replay:FILE.npz for a data set.")
    ]
    ring_slots: Annotated[
        int, msgspec.Meta(ge=1, le=4096, description="Slots whose features are kept for requests.")
    ] = 64


class ReplayStart(msgspec.Struct, frozen=True):
    """Retained on `ddnn/<site>/replay`: all replaying agents begin at this slot."""

    first_slot: int


def open_source(text: str, camera: int) -> ReplaySource:
    """The source that a setting names.

    Raises:
        ConfigError: unknown kind of source.
        DataError: it cannot be opened.
    """
    kind, _, rest = text.partition(":")
    if kind == "replay" and rest:
        return ReplaySource(Path(rest), camera)
    raise ConfigError(f"unknown source {text!r}; use replay:FILE.npz")


class DeviceService:
    """Runs one agent until `stop` is set."""

    def __init__(self, settings: DeviceSettings, stop: threading.Event) -> None:
        self._settings = settings
        self._stop = stop
        self._boot = boot_id()
        self._source = open_source(settings.source, settings.camera)
        self._agent = Agent(settings.camera, self._boot, settings.ring_slots)
        self._node = f"device-{settings.camera}"
        self._finished = False
        self._replay = threading.Event()
        self._traffic_before: Traffic | None = None
        self._client = Client(
            settings.broker,
            settings.port,
            f"{settings.site}-{self._node}",
            keepalive_s=settings.keepalive_s,
            will=Will(
                topics.status(settings.site, self._node),
                status.encode(status.Status(node=self._node, state="offline", boot=self._boot)),
            ),
            on_up=self._report,
        )
        self._models = ModelFeed(
            self._client,
            settings.site,
            self._roles,
            self._activate,
            store=Path(settings.store) if settings.store else None,
            changed=self._report,
        )

    def run(self) -> None:
        """Capture and publish until stopped; then say goodbye."""
        site, camera = self._settings.site, self._settings.camera
        self._client.subscribe(topics.request(site, camera), self._on_request, retained=False)
        self._client.subscribe(topics.replay(site), self._on_replay)
        self._models.start()
        self._client.start()
        try:
            self._capture()
            while not self._stop.wait(STATUS_EVERY_S):
                self._report()
        finally:
            self._report(state="offline")
            self._client.stop()

    def _capture(self) -> None:
        """One view per slot, at the slot's beginning, until the source is exhausted."""
        while not self._replay.wait(0.1):
            if self._stop.is_set():
                return
        assert self._source.first_slot is not None
        period_s = self._settings.period_s
        topic = topics.summary(self._settings.site, self._settings.camera)
        slot = self._source.first_slot
        next_report = time.monotonic() + STATUS_EVERY_S
        if self._stop.wait(max(0.0, slot * period_s - time.time())):
            return
        self._traffic_before = self._client.traffic()
        while not self._source.exhausted(slot):
            if self._stop.wait(max(0.0, slot * period_s - time.time())):
                return
            message = self._agent.view(slot, self._source.read(slot))
            if message is not None:
                self._client.publish(topic, message)
                self._agent.counts["summaries_sent"] += 1
                self._agent.counts["payload_bytes"] += len(message)
            slot += 1
            if time.monotonic() >= next_report:
                self._report()
                next_report += STATUS_EVERY_S
        # The last slots may still be asked for: count what answering them costs as well.
        self._stop.wait(2.0)
        self._finished = True
        self._report()

    def _roles(self, manifest: Manifest) -> set[str]:
        return {self._agent.role}

    def _activate(self, bundle: Bundle) -> None:
        self._agent.load(bundle)

    def _on_request(self, message: Message) -> None:
        try:
            frame = wire.decode(message.payload)
        except WireError:
            self._agent.counts["malformed"] += 1
            return
        answer = self._agent.features(frame, int(time.time() / self._settings.period_s))
        if answer is not None:
            topic = topics.features(self._settings.site, self._settings.camera)
            self._client.publish(topic, answer, qos=1)
            self._agent.counts["payload_bytes"] += len(answer)

    def _on_replay(self, message: Message) -> None:
        try:
            start = msgspec.json.decode(message.payload, type=ReplayStart)
        except msgspec.DecodeError:
            self._agent.counts["malformed"] += 1
            return
        if self._source.first_slot is None:
            self._source.first_slot = start.first_slot
            self._replay.set()

    def _report(self, state: str = "online") -> None:
        """Publish the retained status."""
        counts = dict(self._agent.counts)
        after = self._client.traffic()
        if after and self._traffic_before and self._client.counts["connects"] == 1:
            counts["wire_bytes"] = after.wire_bytes - self._traffic_before.wire_bytes
        report = status.Status(
            node=self._node,
            state="online" if state == "online" else "offline",
            boot=self._boot,
            bundle=self._models.bundle_id,
            version=self._models.version,
            refused=self._models.refused,
            counts=counts,
            finished=self._finished,
        )
        topic = topics.status(self._settings.site, self._node)
        info = self._client.publish(topic, status.encode(report), qos=1, retain=True)
        if state != "online" and self._client.connected.is_set():
            info.wait_for_publish(2.0)
