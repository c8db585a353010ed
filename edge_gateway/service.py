"""The gateway as a process: MQTT, clocks and a journal around `edge_gateway.gateway`.

Messages are handled on the network thread, deadlines on this one; one lock around the gateway
makes them take turns. Effects are carried out under that lock, so that they leave in order.
"""

from __future__ import annotations

import logging
import threading
import time
from pathlib import Path
from typing import Annotated

import msgspec

from ddnn import status, topics
from ddnn.budget import Curve
from ddnn.bundle import Bundle, Manifest
from ddnn.config import SiteSettings, boot_id
from ddnn.errors import ConfigError
from ddnn.journal_file import JournalFile
from ddnn.models import ModelFeed
from ddnn.mqtt import Client, Message, Publish, Receipt, Will
from ddnn.node import GatewaySections
from ddnn.place import Place, gateway_node
from ddnn.tier import TierConfig
from edge_gateway.gateway import Effect, Gateway, GatewayRules, Keep
from edge_gateway.intake import Intake

log = logging.getLogger(__name__)
LEDGER_EVERY_S = 1.0


class GatewaySettings(SiteSettings, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Settings of `ddnn gateway`.

    Above edge gateways the waits for summaries and features are doubled, since edge gateways wait
    that long themselves: the same settings are right for all gateways of a site.
    """

    edge: (
        Annotated[
            int,
            msgspec.Meta(
                ge=0,
                le=31,
                description="Number of this edge gateway in a bundle of several edges: it reports "
                "to the site's gateway. Left out: this is the site's gateway, which decides.",
            ),
        ]
        | None
    ) = None
    summary_wait_s: Annotated[
        float,
        msgspec.Meta(ge=0.001, le=60, description="Longest wait for a slot's summaries, seconds."),
    ] = 0.5
    features_wait_s: Annotated[
        float, msgspec.Meta(ge=0.001, le=60, description="Longest wait for features, seconds.")
    ] = 1.0
    answer_wait_s: Annotated[
        float, msgspec.Meta(ge=0.001, le=60, description="Longest wait for the cloud, seconds.")
    ] = 2.0
    silent_after_slots: Annotated[
        int,
        msgspec.Meta(ge=1, le=1000, description="Missed slots after which none is waited for."),
    ] = 3
    max_open_slots: Annotated[
        int, msgspec.Meta(ge=1, le=100_000, description="Slots held open at once.")
    ] = 256
    slot_window_s: Annotated[
        float,
        msgspec.Meta(
            ge=0.1, le=600, description="How far a frame's slot may be from the gateway's clock."
        ),
    ] = 30.0
    ask_at_once: Annotated[
        int,
        msgspec.Meta(ge=0, le=32, description="Cameras asked for features at once; 0: all."),
    ] = 0
    journal: Annotated[
        str,
        msgspec.Meta(description="Folder for the journal, for example in /run; empty: --store."),
    ] = ""
    journal_bytes: Annotated[
        int, msgspec.Meta(ge=10_000, le=10**9, description="Size at which it is written anew.")
    ] = 4_000_000
    outbox_bytes: Annotated[
        int,
        msgspec.Meta(ge=1000, le=10**9, description="Decisions kept while the broker is away."),
    ] = 16_000_000
    outbox_age_s: Annotated[
        float, msgspec.Meta(ge=1, le=10**7, description="How long they are kept, seconds.")
    ] = 86_400.0


class GatewayService:
    """Runs one gateway until `stop` is set: the site's, or that of one of several edges."""

    def __init__(self, settings: GatewaySettings, stop: threading.Event) -> None:
        self._settings = settings
        self._stop = stop
        self._wake = threading.Condition(threading.Lock())
        self._receipts: dict[int, Receipt] = {}
        self._edge = settings.edge
        self._node = gateway_node(self._edge)
        folder = settings.journal or settings.store
        self._journal: JournalFile | None = None
        if folder:
            name = settings.site if self._edge is None else f"{settings.site}-{self._node}"
            self._journal = JournalFile(
                Path(folder) / f"{name}.journal",
                self._snapshot,
                max_bytes=settings.journal_bytes,
            )
        before = self._journal.read() if self._journal else b""
        self._gateway = Gateway(_rules(settings), boot_id(), before, time.monotonic())
        if self._journal:
            self._journal.counts = self._gateway.counts
        boot = self._gateway.boot
        self._client = Client(
            settings.broker,
            settings.port,
            f"{settings.site}-{self._node}",
            keepalive_s=settings.keepalive_s,
            will=Will(
                topics.status(settings.site, self._node),
                status.encode(status.Status(node=self._node, state="offline", boot=boot)),
            ),
            on_up=self._connected,
            on_down=self._disconnected,
            tls=settings.tls,
        )
        self._intake = Intake(
            self._client,
            settings.site,
            settings.period_s,
            # A broker waits for one and a half keepalives.
            1.5 * settings.keepalive_s,
            self._on_message,
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
        """Decide until stopped; then close what is open and say goodbye."""
        site = self._settings.site
        self._intake.start()
        own = [
            topics.answer(site),
            topics.worker_status_filter(),
            topics.settings(site),
            topics.recall(site),
        ]
        if self._edge is not None:
            own = [topics.edge_request(site, self._edge)]
        for topic in own:
            self._client.subscribe(topic, self._on_message)
        self._models.start()
        self._client.start()
        try:
            self._keep_time()
        finally:
            with self._wake:
                self._carry_out(self._gateway.close("shutdown", time.monotonic()))
            self._publish_ledger()
            self._report("offline")
            with self._wake:
                self._hear_receipts(time.monotonic())
            self._client.stop()

    def _keep_time(self) -> None:
        """Wake the gateway at its deadlines, hear of acknowledgements, publish the ledger."""
        next_ledger = time.monotonic() + LEDGER_EVERY_S
        last: dict[str, int] = {}
        while not self._stop.is_set():
            with self._wake:
                now = time.monotonic()
                self._carry_out(self._gateway.on_time(now, time.time()))
                self._hear_receipts(now)
                self._intake.on_time(now)
                deadline = self._gateway.next_deadline()
                until = min(next_ledger, deadline) if deadline is not None else next_ledger
                # A deadline set meanwhile by a message is at least a stage's wait away, so that
                # looking again after 50 ms at the latest needs no notification per message.
                self._wake.wait(min(max(until - now, 0.0), 0.05))
                ledger = self._gateway.ledger() if now >= next_ledger else last
            if now >= next_ledger:
                next_ledger = now + LEDGER_EVERY_S
                if ledger != last and self._client.connected.is_set():
                    last = ledger
                    self._publish_ledger()

    # -- on the network thread ---------------------------------------------------------------

    def _on_message(self, message: Message) -> None:
        with self._wake:
            now = time.monotonic()
            if self._intake.admits(message, now):
                self._carry_out(self._gateway.on_message(message, now, time.time()))

    def _connected(self) -> None:
        with self._wake:
            self._carry_out(self._gateway.on_connected(time.monotonic()))
        self._report()
        self._publish_ledger()

    def _disconnected(self) -> None:
        with self._wake:
            self._gateway.on_disconnected()

    def _roles(self, manifest: Manifest) -> set[str]:
        return Place.of(manifest.topology, self._edge).roles(manifest)

    def _activate(self, bundle: Bundle) -> None:
        manifest = bundle.manifest
        place = Place.of(manifest.topology, self._edge)
        sections = GatewaySections(bundle, place)
        try:
            curve = Curve.of(manifest.calibration, manifest.topology.cameras)
        except ConfigError as error:
            log.warning("the bundle's curve is of no use: %s", error)
            curve = None
        with self._wake:
            now, wall = time.monotonic(), time.time()
            activated = self._gateway.activate(sections, manifest.classes, now, wall, curve, place)
            self._carry_out(activated)
        self._intake.follow(place.hears(self._settings.site))

    # -- effects -----------------------------------------------------------------------------

    def _carry_out(self, effects: list[Effect]) -> None:
        for effect in effects:
            match effect:
                case Keep():
                    if self._journal:
                        self._journal.append(effect.data)
                case Publish():
                    info = self._client.send(effect)
                    if effect.receipt is None:
                        continue
                    if info is None:
                        self._gateway.unsent(effect.receipt)
                    else:
                        self._receipts[effect.receipt] = info

    def _hear_receipts(self, now: float) -> None:
        """Tell the gateway what the broker has acknowledged.

        Polled and not called back: paho calls back with its own locks held.
        """
        for slot in [slot for slot, info in self._receipts.items() if info.is_published()]:
            del self._receipts[slot]
            self._carry_out(self._gateway.sent(slot, now))

    def _snapshot(self) -> bytes:
        return self._gateway.snapshot()

    # -- reports -----------------------------------------------------------------------------

    def _publish_ledger(self) -> None:
        with self._wake:
            ledger = self._gateway.ledger()
        payload = msgspec.json.encode(ledger, order="sorted")
        site = self._settings.site
        topic = topics.ledger(site)
        if self._edge is not None:
            topic = topics.edge_ledger(site, self._edge)
        self._client.send(Publish(topic, payload, qos=1, retain=True))

    def _report(self, state: str = "online") -> None:
        with self._wake:
            notes = self._gateway.notes() | self._intake.notes() | self._client.certificate_note()
        report = status.Status(
            node=self._node,
            state="online" if state == "online" else "offline",
            boot=self._gateway.boot,
            bundle=self._models.bundle_id,
            version=self._models.version,
            refused=self._models.refused,
            notes=notes,
        )
        topic = topics.status(self._settings.site, self._node)
        info = self._client.send(Publish(topic, status.encode(report), qos=1, retain=True))
        if state != "online" and info is not None and self._client.connected.is_set():
            info.wait_for_publish(2.0)


def _rules(settings: GatewaySettings) -> GatewayRules:
    return GatewayRules(
        site=settings.site,
        period_s=settings.period_s,
        window_s=settings.slot_window_s,
        tier=TierConfig(
            summary_wait_s=settings.summary_wait_s,
            features_wait_s=settings.features_wait_s,
            answer_wait_s=settings.answer_wait_s,
            silent_after_slots=settings.silent_after_slots,
            ask_at_once=settings.ask_at_once,
            max_open_slots=settings.max_open_slots,
        ),
        outbox_bytes=settings.outbox_bytes,
        outbox_age_s=settings.outbox_age_s,
    )
