"""The agent as a process: a source of views, clocks and MQTT around `device_agent.camera`."""

from __future__ import annotations

import logging
import threading
import time
from pathlib import Path
from typing import Annotated

import msgspec

from ddnn import status, topics, wire
from ddnn.background import Background
from ddnn.bundle import Manifest
from ddnn.config import FactoryBundle, boot_id
from ddnn.errors import DataError
from ddnn.health import Health, Telling
from ddnn.key_files import check_keys, trust_of
from ddnn.metrics import SECONDS, Histogram, Sample
from ddnn.metrics_settings import (
    MetricsCa,
    MetricsCert,
    MetricsHost,
    MetricsKey,
    MetricsPort,
    MetricsToken,
    open_metrics,
)
from ddnn.models import ModelFeed
from ddnn.mqtt import Client, Message, Publish, Traffic, Will
from ddnn.notify import Notifier
from device_agent.agent import Agent
from device_agent.camera import Camera, CameraRules
from device_agent.health import MachineWatch, with_camera
from device_agent.metrics import samples
from device_agent.pacing import Pacer
from device_agent.recording import Recorder
from device_agent.settings import CameraSettings
from device_agent.sources import ReplaySource, open_source
from device_agent.viewer import make_viewer

log = logging.getLogger(__name__)
HEALTH_EVERY_S = 2.0
#: Longest sleep between two looks at the clock: a step must not be slept through.
LOOK_EVERY_S = 0.2
#: A replaying agent that was killed and started again, or stopped for a while, joins the others
#: where they are: slots that are over are decided, and all of them at once would be a flood, which
#: gateways shut out (`ddnn.flood`; they take at least ten seconds' worth).
REPLAY_HURRY_S = 5.0


class DeviceSettings(CameraSettings, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Settings of `ddnn device`."""

    ring_slots: Annotated[
        int,
        msgspec.Meta(
            ge=1,
            le=4096,
            description="Slots whose features are kept for requests; those of summary_delay_s "
            "are added.",
        ),
    ] = 64
    factory_bundle: FactoryBundle = ""
    summary_delay_s: Annotated[
        float,
        msgspec.Meta(
            ge=0,
            le=10,
            description="How long a summary may wait to share a message with others, seconds; the "
            "same for a site's nodes. 0: each is sent at once.",
        ),
    ] = 0.0
    send_images: Annotated[
        bool,
        msgspec.Meta(
            description="Accept a bundle that sends raw pictures to the cloud (shape cloud only)."
        ),
    ] = False
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
        float,
        msgspec.Meta(
            ge=0.1,
            le=10_000,
            description="How many of them leave per second; a gateway takes far more than a "
            "camera's own rate for a flood.",
        ),
    ] = 20.0
    status_every_s: Annotated[
        float,
        msgspec.Meta(
            ge=5, le=3600, description="Seconds between two statuses while nothing changes."
        ),
    ] = 60.0

    metrics_port: MetricsPort = 0
    metrics_host: MetricsHost = "127.0.0.1"
    metrics_cert: MetricsCert = ""
    metrics_key: MetricsKey = ""
    metrics_ca: MetricsCa = ""
    metrics_token: MetricsToken = ""


class ReplayStart(msgspec.Struct, frozen=True):
    """Retained on `ddnn/<site>/replay`: all replaying agents begin at this slot."""

    first_slot: int


#: Made once: see `ddnn.bundle`.
_REPLAY = msgspec.json.Decoder(ReplayStart)


class DeviceService:
    """Runs one agent until `stop` is set."""

    def __init__(self, settings: DeviceSettings, stop: threading.Event) -> None:
        check_keys(settings)
        self._settings = settings
        self._stop = stop
        self._source = open_source(settings)
        self._viewer = make_viewer(settings, self._source)
        rules = CameraRules(
            site=settings.site,
            period_s=settings.period_s,
            outbox_bytes=settings.outbox_bytes,
            outbox_age_s=settings.outbox_age_s,
            backlog_per_s=settings.backlog_per_s,
            unsure_s=1.5 * settings.keepalive_s,
            delay_s=settings.summary_delay_s,
        )
        self._agent = Agent(
            settings.camera,
            boot_id(),
            # Features are asked for when the summary has come.
            settings.ring_slots + rules.slots_per_message,
            send_images=settings.send_images,
        )
        self._camera = Camera(
            rules,
            self._agent,
            Pacer(settings.period_s, live=self._source.live),
        )
        self._recorder = Recorder(settings, self._viewer.framing) if settings.record_dir else None
        # Around the camera's rules; a request for features does not wait for it.
        self._lock = threading.Lock()
        self._node = f"device-{settings.camera}"
        self._finished = False
        self._next_look = 0.0
        self._notifier = Notifier()
        self._telling = Telling(settings.status_every_s)
        self._machine = MachineWatch(Path(settings.store or "/"))
        self._since_s = round(time.time(), 3)
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
                    status.Status(
                        node=self._node,
                        state="offline",
                        boot=self._agent.boot,
                        since_s=self._since_s,
                    )
                ),
            ),
            on_up=self._connected,
            on_down=self._disconnected,
            tls=settings.tls,
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
            factory=Path(settings.factory_bundle) if settings.factory_bundle else None,
            changed=self._report,
        )
        self._view_s = Histogram(SECONDS)
        self._metrics = open_metrics(settings, settings.site, self._node, self.metrics)

    def run(self) -> None:
        """Capture and publish until stopped; then say goodbye."""
        site, camera = self._settings.site, self._settings.camera
        self._client.subscribe(topics.request(site, camera), self._on_request, retained=False)
        self._client.subscribe(topics.replay(site), self._on_replay)
        self._models.start()
        self._client.start()
        self._machine.start()
        if self._metrics:
            self._metrics.start()
        self._notifier.ready()
        try:
            if self._source.live or self._wait_for_replay():
                self._show()
            while not self._stop.is_set():
                self._wait(LOOK_EVERY_S)
        finally:
            self._notifier.stopping()
            with self._lock:
                self._send(self._camera.close(time.monotonic()))
            self._report(state="offline")
            self._client.stop()
            if self._metrics:
                self._metrics.stop()
            self._machine.stop()
            self._source.close()
            if self._recorder:
                self._recorder.close()

    def _wait_for_replay(self) -> bool:
        """Wait until it is known in which slot a replay begins; False: stopped instead."""
        log.info("waiting for %s to say when the replay begins", topics.replay(self._settings.site))
        while not self._replay.is_set():
            if self._stop.is_set():
                return False
            self._wait(0.1)
        assert isinstance(self._source, ReplaySource)
        first_slot = self._source.first_slot
        assert first_slot is not None
        with self._lock:
            self._camera.pacer = Pacer(
                self._settings.period_s,
                live=False,
                first_slot=first_slot,
                hurry_s=REPLAY_HURRY_S,
            )
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
            began = time.monotonic()
            summary, shadow = self._take(slot)
            self._view_s.add(time.monotonic() - began)
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

    def _take(self, slot: int) -> tuple[bytes | None, bytes | None]:
        """Summaries of what the camera shows in `slot`, by the running bundle and one on trial.

        None: there is nothing to send.
        """
        shape = self._agent.view_shape(slot)
        if shape is None:
            if not self._recorder:
                self._agent.counts["views_without_bundle"] += 1
                return None, None
            # Pictures for the site's first bundle, or the first that knows this camera.
            shape = self._settings.record_shape
        begin_s = time.monotonic() - (time.time() - slot * self._settings.period_s)
        try:
            view = self._viewer.view(slot, begin_s, shape)
        except (DataError, ValueError) as error:
            if not self._agent.counts["views_unusable"]:  # a line per slot would fill the journal
                log.warning("slot %d cannot be shown: %s; others like it are counted", slot, error)
            self._agent.counts["views_unusable"] += 1
            return None, None
        if view is None:
            self._agent.counts["views_missing"] += 1
            return None, None
        if self._recorder:
            self._recorder.saw(slot, view, begin_s, time.monotonic())
        return self._agent.view(slot, view.image), self._agent.shadow(slot, view.image)

    def _wait(self, seconds: float) -> None:
        self._stop.wait(seconds)
        now = time.monotonic()
        with self._lock:
            self._send(self._camera.on_time(now))
        self._look_after(now)

    def _look_after(self, now: float) -> None:
        """Hear of acknowledgements; tend the camera and the bundle; report from time to time."""
        self._notifier.alive(now)
        self._source.tend(now)
        self._models.on_time()
        with self._lock:
            for slot in self._client.take_acknowledged():
                self._camera.sent(slot)
        if now >= self._next_look:
            self._next_look = now + HEALTH_EVERY_S
            if self._telling.due(self._health(now), now):
                self._report()

    def _send(self, messages: list[Publish]) -> None:
        for message in messages:
            info = self._client.send(message)
            if info is None and message.receipt is not None:
                self._camera.unsent(message.receipt)

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
            if self._recorder:
                slot = wire.unwrap_slot(wire.decode(answer.payload).slot, self._present_slot())
                self._recorder.asked(slot, time.monotonic())

    def _present_slot(self) -> int:
        return int(time.time() / self._settings.period_s)

    def _on_replay(self, message: Message) -> None:
        try:
            start = _REPLAY.decode(message.payload)
        except msgspec.DecodeError:
            self._agent.counts["malformed"] += 1
            return
        if isinstance(self._source, ReplaySource) and self._source.first_slot is None:
            self._source.first_slot = start.first_slot
            self._replay.set()

    def _health(self, now: float) -> Health:
        return with_camera(self._machine.latest, self._source.health(now), self._viewer.gate)

    def metrics(self) -> list[Sample]:
        """Everything that `/metrics` shows; on the threads of its server."""
        counts = self._agent.counts.copy()
        counts.update(self._recorder.counts if self._recorder else {})
        health = self._health(time.monotonic())
        with self._lock:
            found = samples(counts, self._camera.outbox, health, self._agent.raw_bytes)
        found.append(Sample("ddnn_view_seconds", self._view_s.copy()))
        return found + self._client.metrics() + self._models.metrics()

    def _report(self, state: str = "online") -> None:
        """Publish the retained status."""
        now = time.monotonic()
        health = self._health(now)
        self._telling.told(health, now)
        counts = dict(self._agent.counts)
        counts |= {name: n for name, n in self._client.counts.items() if name.startswith("dropped")}
        counts |= self._recorder.counts if self._recorder else {}
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
            since_s=self._since_s,
            at_s=round(time.time(), 3),
            every_s=self._settings.status_every_s,
            health=health,
            notes=({"clock": clock} if clock else {})
            | self._models.notes()
            | self._client.certificate_note(),
        )
        topic = topics.status(self._settings.site, self._node)
        info = self._client.send(Publish(topic, status.encode(report), qos=1, retain=True))
        if state != "online" and info is not None and self._client.connected.is_set():
            info.wait_for_publish(2.0)
