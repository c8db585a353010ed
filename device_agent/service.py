"""The agent as a process: a source of views, clocks and MQTT around `device_agent.camera`."""

from __future__ import annotations

import logging
import threading
import time
from pathlib import Path
from typing import Annotated

import msgspec

from ddnn import status, topics
from ddnn.background import Background
from ddnn.bundle import Manifest
from ddnn.config import SiteSettings, boot_id
from ddnn.errors import ConfigError
from ddnn.key_files import check_keys, trust_of
from ddnn.models import ModelFeed
from ddnn.mqtt import Client, Message, Publish, Receipt, Traffic, Will
from device_agent.agent import Agent
from device_agent.camera import Camera, CameraRules
from device_agent.pacing import Pacer
from device_agent.sources import ReplaySource

log = logging.getLogger(__name__)
STATUS_EVERY_S = 30.0
#: Longest sleep between two looks at the clock: a step must not be slept through.
LOOK_EVERY_S = 0.2


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
    outbox_bytes: Annotated[
        int,
        msgspec.Meta(ge=0, le=10**9, description="Summaries kept while the broker is away, bytes."),
    ] = 65_536
    outbox_age_s: Annotated[
        float,
        msgspec.Meta(
            ge=0,
            le=86_400,
            description="How long they are kept; more than the gateway's window is in vain.",
        ),
    ] = 30.0
    backlog_per_s: Annotated[
        float, msgspec.Meta(ge=0.1, le=10_000, description="How many of them leave per second.")
    ] = 20.0


class ReplayStart(msgspec.Struct, frozen=True):
    """Retained on `ddnn/<site>/replay`: all replaying agents begin at this slot."""

    first_slot: int


#: Made once: see `ddnn.bundle`.
_REPLAY = msgspec.json.Decoder(ReplayStart)


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
        check_keys(settings)
        self._settings = settings
        self._stop = stop
        self._source = open_source(settings.source, settings.camera)
        self._agent = Agent(settings.camera, boot_id(), settings.ring_slots)
        self._camera = Camera(
            CameraRules(
                site=settings.site,
                period_s=settings.period_s,
                outbox_bytes=settings.outbox_bytes,
                outbox_age_s=settings.outbox_age_s,
                backlog_per_s=settings.backlog_per_s,
                unsure_s=1.5 * settings.keepalive_s,
            ),
            self._agent,
            Pacer(settings.period_s, live=self._source.live),
        )
        # Around the camera's rules; a request for features does not wait for it.
        self._lock = threading.Lock()
        self._receipts: dict[int, Receipt] = {}
        self._node = f"device-{settings.camera}"
        self._finished = False
        self._next_report = 0.0
        self._replay = threading.Event()
        self._traffic_before: Traffic | None = None
        self._client = Client(
            settings.broker,
            settings.port,
            f"{settings.site}-{self._node}",
            keepalive_s=settings.keepalive_s,
            will=Will(
                topics.status(settings.site, self._node),
                status.encode(
                    status.Status(node=self._node, state="offline", boot=self._agent.boot)
                ),
            ),
            on_up=self._connected,
            on_down=self._disconnected,
        )
        self._models = ModelFeed(
            self._client,
            settings.site,
            self._roles,
            self._agent,
            trust_of(settings, settings.site, "device"),
            period_s=settings.period_s,
            later=Background("models"),
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
            if self._source.live or self._wait_for_replay():
                self._show()
            while not self._stop.is_set():
                self._wait(LOOK_EVERY_S)
        finally:
            self._report(state="offline")
            self._client.stop()

    def _wait_for_replay(self) -> bool:
        """Wait until it is known in which slot a replay begins; False: stopped instead."""
        while not self._replay.is_set():
            if self._stop.is_set():
                return False
            self._wait(0.1)
        first_slot = self._source.first_slot
        assert first_slot is not None
        with self._lock:
            self._camera.pacer = Pacer(self._settings.period_s, live=False, first_slot=first_slot)
        return True

    def _show(self) -> None:
        """One view per slot, at the slot's beginning, until the source is exhausted."""
        self._traffic_before = self._client.traffic()
        while not self._stop.is_set():
            with self._lock:
                wait_s = self._camera.due(time.time(), time.monotonic())
            if wait_s is None or wait_s > 0.0:
                self._wait(LOOK_EVERY_S if wait_s is None else min(wait_s, LOOK_EVERY_S))
                continue
            with self._lock:
                slot = self._camera.begin(time.time(), time.monotonic())
            if self._source.exhausted(slot):
                break
            image = self._source.read(slot)
            summary, shadow = self._agent.view(slot, image), self._agent.shadow(slot, image)
            with self._lock:
                now = time.monotonic()
                self._send(self._camera.finish(slot, summary, time.time(), now, shadow))
            self._look_after(now)
        # The last slots may still be asked for: count what answering them costs as well.
        until = time.monotonic() + 2.0
        while time.monotonic() < until and not self._stop.is_set():
            self._wait(LOOK_EVERY_S)
        self._finished = True
        self._report()

    def _wait(self, seconds: float) -> None:
        self._stop.wait(seconds)
        now = time.monotonic()
        with self._lock:
            self._send(self._camera.on_time(now))
        self._look_after(now)

    def _look_after(self, now: float) -> None:
        """Hear of acknowledgements; change over to the next bundle; report from time to time."""
        self._models.on_time()
        with self._lock:
            for slot in [slot for slot, info in self._receipts.items() if info.is_published()]:
                del self._receipts[slot]
                self._camera.sent(slot)
        if now >= self._next_report:
            self._report()

    def _send(self, messages: list[Publish]) -> None:
        for message in messages:
            info = self._client.send(message)
            if message.receipt is None:
                continue
            if info is None:
                self._camera.unsent(message.receipt)
            else:
                self._receipts[message.receipt] = info

    def _connected(self) -> None:
        with self._lock:
            self._camera.on_connected()
        self._report()

    def _disconnected(self) -> None:
        with self._lock:
            self._camera.on_disconnected(time.monotonic())

    def _roles(self, manifest: Manifest) -> set[str]:
        return {self._agent.role}

    def _on_request(self, message: Message) -> None:
        for answer in self._camera.on_request(message, time.time()):
            self._client.send(answer)

    def _on_replay(self, message: Message) -> None:
        try:
            start = _REPLAY.decode(message.payload)
        except msgspec.DecodeError:
            self._agent.counts["malformed"] += 1
            return
        if self._source.first_slot is None:
            self._source.first_slot = start.first_slot
            self._replay.set()

    def _report(self, state: str = "online") -> None:
        """Publish the retained status."""
        self._next_report = time.monotonic() + STATUS_EVERY_S
        counts = dict(self._agent.counts)
        counts |= {name: n for name, n in self._client.counts.items() if name.startswith("dropped")}
        clock = self._camera.clock.describe()
        after = self._client.traffic()
        if after and self._traffic_before and self._client.counts["connects"] == 1:
            counts["wire_bytes"] = after.wire_bytes - self._traffic_before.wire_bytes
        report = status.Status(
            node=self._node,
            state="online" if state == "online" else "offline",
            boot=self._agent.boot,
            bundle=self._models.bundle_id,
            version=self._models.version,
            staged=self._models.staged_id,
            refused=self._models.refused,
            refused_id=self._models.refused_id,
            counts=counts,
            finished=self._finished,
            notes=({"clock": clock} if clock else {}) | self._models.notes(),
        )
        topic = topics.status(self._settings.site, self._node)
        info = self._client.send(Publish(topic, status.encode(report), qos=1, retain=True))
        if state != "online" and info is not None and self._client.connected.is_set():
            info.wait_for_publish(2.0)
