"""The cloud worker as a process: MQTT around `cloud_service.worker`.

Any number of workers may run: escalations come by a shared subscription, each to one of them. The
network thread reads all that has come and fills a queue with it, which another one answers in
batches.
"""

from __future__ import annotations

import logging
import threading
import time
from pathlib import Path
from typing import Annotated

import msgspec

from cloud_service.answering import Answering, Asked
from cloud_service.batching import BatchRules
from cloud_service.metrics import samples
from cloud_service.worker import Request, Worker
from ddnn import status, topics
from ddnn.access import CLOUD
from ddnn.background import Background
from ddnn.bundle import Bundle, Manifest
from ddnn.config import NodeSettings, boot_id
from ddnn.key_files import check_keys, trust_of
from ddnn.metrics import MAX_SITES as MAX_METRIC_SITES
from ddnn.metrics import Sample
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
from ddnn.mqtt import Client, Message, Publish, Will
from ddnn.notify import Notifier

log = logging.getLogger(__name__)
STATUS_EVERY_S = 30.0
#: A worker follows at most so many sites: topic names come from the network.
MAX_SITES = 10_000
#: Refusals and notes in its status.
MAX_TEXTS = 100


class _SiteRunner:
    """One site's bundles in the worker."""

    def __init__(self, worker: Worker, site: str) -> None:
        self._worker = worker
        self._site = site

    def stage(self, bundle: Bundle) -> None:
        self._worker.stage(self._site, bundle)

    def switch(self, bundle: Bundle, from_slot: int) -> None:
        """The worker answers by tag: to it a slot makes no difference."""
        self._worker.switch(self._site, bundle)

    def try_out(self, bundle: Bundle | None, every: int) -> None:
        """What is staged is served anyway."""

    def begun(self, bundle: Bundle) -> None:
        """Nothing changes for a worker."""


class CloudSettings(NodeSettings, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Settings of `ddnn cloud`."""

    worker: Annotated[
        str, msgspec.Meta(description="Name of this worker, one of its own for each.")
    ] = "cloud-0"
    group: Annotated[
        str, msgspec.Meta(description="Workers of one group share the escalations.")
    ] = "cloud"
    batch_size: Annotated[
        int, msgspec.Meta(ge=1, le=1024, description="Escalations answered at once, at most.")
    ] = 32
    batch_delay_s: Annotated[
        float,
        msgspec.Meta(
            ge=0,
            le=1,
            description="How long one waits for others to share its batch, seconds. 0: only while "
            "the worker is busy.",
        ),
    ] = 0.0
    batch_waiting: Annotated[
        int,
        msgspec.Meta(
            ge=1, le=1_000_000, description="Escalations that wait; the oldest one gives way."
        ),
    ] = 4096
    metrics_port: MetricsPort = 0
    metrics_host: MetricsHost = "127.0.0.1"
    metrics_cert: MetricsCert = ""
    metrics_key: MetricsKey = ""
    metrics_ca: MetricsCa = ""
    metrics_token: MetricsToken = ""

    def __post_init__(self) -> None:
        topics.check_name(self.worker, "worker")
        topics.check_name(self.group, "group")


class CloudService:
    """Runs one worker until `stop` is set.

    Attributes:
        answering: how it is doing (`stats`).
    """

    def __init__(self, settings: CloudSettings, stop: threading.Event) -> None:
        check_keys(settings)
        self._settings = settings
        self._stop = stop
        self._boot = boot_id()
        self._since_s = round(time.time(), 3)
        self._notifier = Notifier()
        self._worker = Worker()
        self.answering = Answering(
            self._worker,
            BatchRules(settings.batch_size, settings.batch_delay_s, settings.batch_waiting),
            self._reply,
        )
        self._inbox: list[Asked] = []
        self._feeds: dict[str, ModelFeed] = {}
        self._background = Background("models")
        self._client = Client(
            settings.broker,
            settings.port,
            settings.worker,
            keepalive_s=settings.keepalive_s,
            will=Will(topics.worker_status(settings.worker), self._status("offline")),
            on_up=self._report,
            on_handled=self._ask,
            tls=settings.tls,
        )
        self._metrics = open_metrics(settings, CLOUD, settings.worker, self.metrics)

    def run(self) -> None:
        """Answer until stopped; then say goodbye."""
        group = self._settings.group
        self._client.subscribe(topics.active_filter(), self._on_active)
        self._client.subscribe(topics.manifest_filter(), self._on_manifest)
        self._client.subscribe(topics.escalation_filter(group), self._on_escalation)
        self.answering.start()
        self._client.start()
        if self._metrics:
            self._metrics.start()
        self._notifier.ready()
        try:
            next_report = time.monotonic() + STATUS_EVERY_S
            while not self._stop.wait(1.0):
                for feed in list(self._feeds.values()):
                    feed.on_time()
                # A section that hangs keeps this waiting, and systemd starts the worker again.
                self._worker.wait_idle()
                self._notifier.alive(time.monotonic())
                if time.monotonic() >= next_report:
                    next_report = time.monotonic() + STATUS_EVERY_S
                    self._report()
        finally:
            self._notifier.stopping()
            self._client.unsubscribe(topics.escalation_filter(group))
            self.answering.stop()
            self._report("offline")
            self._client.stop()
            if self._metrics:
                self._metrics.stop()

    def _on_manifest(self, message: Message) -> None:
        if feed := self._feed(message.topic):
            feed.on_manifest(message)

    def _on_active(self, message: Message) -> None:
        if feed := self._feed(message.topic):
            feed.on_active(message)

    def _feed(self, topic: str) -> ModelFeed | None:
        site = topics.site_of(topic)
        if site is None:
            return None
        feed = self._feeds.get(site)
        if feed is None:
            if len(self._feeds) >= MAX_SITES:
                self._worker.counts["sites_over_limit"] += 1
                return None
            feed = self._feeds[site] = self._follow(site)
        return feed

    def _follow(self, site: str) -> ModelFeed:
        store = Path(self._settings.store) / site if self._settings.store else None
        feed = ModelFeed(
            self._client,
            site,
            _cloud_role,
            _SiteRunner(self._worker, site),
            trust_of(self._settings, site, "cloud"),
            later=self._background,
            store=store,
            changed=self._report,
        )
        feed.restore()
        return feed

    def _on_escalation(self, message: Message) -> None:
        site = topics.site_of(message.topic)
        # Only the site's own answer topic: a response topic is the asker's word, not to be
        # believed, or any node could make the worker write anywhere.
        if site is None or message.response_topic != topics.answer(site):
            self._worker.counts["malformed"] += 1
            return
        accepted = self._worker.accept(site, message.payload)
        if isinstance(accepted, Request):
            self._inbox.append(Asked(site, accepted, message.correlation, message.expiry_s))
        elif accepted is not None:
            self._reply(site, accepted, message.correlation)

    def _ask(self) -> None:
        """All that one wake-up of the network thread has brought."""
        if self._inbox:
            inbox, self._inbox = self._inbox, []
            self.answering.put(inbox)

    def _reply(self, site: str, answer: bytes, correlation: bytes | None) -> None:
        # Without a connection it is too late for an answer: it is not kept.
        self._client.send(Publish(topics.answer(site), answer, qos=1, correlation=correlation))

    def metrics(self) -> list[Sample]:
        """Everything that `/metrics` shows; on the threads of its server."""
        feeds = list(self._feeds.values())
        found = [Sample("ddnn_worker_sites", len(feeds))]
        for feed in feeds[:MAX_METRIC_SITES]:
            found += feed.metrics()
        return (
            found
            + samples(self._worker.counts.copy(), self.answering.stats())
            + self._client.metrics()
        )

    def _status(self, state: str) -> bytes:
        feeds = list(self._feeds.items())
        # A few are enough for a person to look, and a status must fit into a message.
        notes: dict[str, str] = {}
        refused: dict[str, str] = {}
        for site, feed in feeds:
            if feed.refused and len(refused) < MAX_TEXTS:
                refused[site] = feed.refused
            for name, text in feed.notes().items() if len(notes) < MAX_TEXTS else ():
                notes[name if name == "trust" else f"{site}.{name}"] = text
        return status.encode(
            status.Status(
                node=self._settings.worker,
                state="online" if state == "online" else "offline",
                boot=self._boot,
                since_s=self._since_s,
                at_s=round(time.time(), 3) if state == "online" else None,
                every_s=STATUS_EVERY_S,
                counts=dict(self._worker.counts),
                sites={s: f.bundle_id for s, f in feeds if f.bundle_id},
                sites_staged={s: f.staged_id for s, f in feeds if f.staged_id},
                sites_refused=refused,
                notes=notes | self._client.certificate_note() if state == "online" else {},
            )
        )

    def _report(self, state: str = "online") -> None:
        topic = topics.worker_status(self._settings.worker)
        info = self._client.send(Publish(topic, self._status(state), qos=1, retain=True))
        if state != "online" and info is not None and self._client.connected.is_set():
            info.wait_for_publish(2.0)


def _cloud_role(manifest: Manifest) -> set[str]:
    return {"cloud"}
