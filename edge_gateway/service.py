"""The gateway as a process: MQTT and a clock around `ddnn.tier`.

Messages are handled on the network thread, deadlines on this one; one lock around the engine
makes them take turns. Actions are carried out under that lock, so that they leave in order.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Annotated

import msgspec

from ddnn import status, topics, wire
from ddnn.bundle import Bundle
from ddnn.config import SiteSettings, boot_id
from ddnn.decisions import describe, encode
from ddnn.errors import DdnnError, WireError
from ddnn.models import ModelFeed
from ddnn.mqtt import Client, Message, Will
from ddnn.node import GatewaySections, gateway_roles
from ddnn.tier import Action, Decision, Escalate, Request, Tier, TierConfig
from ddnn.wire import Frame, Kind

log = logging.getLogger(__name__)
LEDGER_EVERY_S = 1.0
NODE = "gateway"


class GatewaySettings(SiteSettings, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Settings of `ddnn gateway`."""

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


class GatewayService:
    """Runs one site's gateway until `stop` is set."""

    def __init__(self, settings: GatewaySettings, stop: threading.Event) -> None:
        self._settings = settings
        self._stop = stop
        self._boot = boot_id()
        self._wake = threading.Condition(threading.Lock())
        self._tier: Tier | None = None
        self._classes: tuple[str, ...] = ()
        self._up: dict[int, bool] = {}
        self._counts: Counter[str] = Counter()
        self._window = max(1, round(settings.slot_window_s / settings.period_s))
        self._client = Client(
            settings.broker,
            settings.port,
            f"{settings.site}-{NODE}",
            keepalive_s=settings.keepalive_s,
            will=Will(
                topics.status(settings.site, NODE),
                status.encode(status.Status(node=NODE, state="offline", boot=self._boot)),
            ),
            on_up=self._report,
        )
        self._models = ModelFeed(
            self._client,
            settings.site,
            gateway_roles,
            self._activate,
            store=Path(settings.store) if settings.store else None,
            changed=self._report,
        )

    def run(self) -> None:
        """Decide until stopped; then close what is open and say goodbye."""
        site = self._settings.site
        self._client.subscribe(topics.summary_filter(site), self._on_frame, qos=0)
        self._client.subscribe(topics.features_filter(site), self._on_frame)
        self._client.subscribe(topics.answer(site), self._on_answer)
        self._client.subscribe(topics.status_filter(site), self._on_status)
        self._models.start()
        self._client.start()
        try:
            self._keep_time()
        finally:
            with self._wake:
                if self._tier:
                    self._carry_out(self._tier.close("shutdown", time.monotonic()))
            self._publish_ledger()
            self._report("offline")
            self._client.stop()

    # -- time ------------------------------------------------------------------------------

    def _keep_time(self) -> None:
        """Wake the engine at its deadlines and publish the ledger when it has changed."""
        next_ledger = time.monotonic() + LEDGER_EVERY_S
        last: dict[str, int] = {}
        while not self._stop.is_set():
            with self._wake:
                now = time.monotonic()
                if self._tier:
                    self._carry_out(self._tier.on_time(now))
                deadline = self._tier.next_deadline() if self._tier else None
                until = min(next_ledger, deadline) if deadline is not None else next_ledger
                # A deadline set meanwhile by a message is at least a stage's wait away, so that
                # looking again after 50 ms at the latest needs no notification per message.
                self._wake.wait(min(max(until - now, 0.0), 0.05))
            if time.monotonic() >= next_ledger:
                next_ledger = time.monotonic() + LEDGER_EVERY_S
                ledger = self._ledger()
                if ledger != last:
                    last = ledger
                    self._publish_ledger()

    # -- messages, on the network thread ------------------------------------------------------

    def _on_frame(self, message: Message) -> None:
        received = self._decode(message)
        if received is None:
            return
        frame, slot = received
        member = topics.member_of(message.topic)
        with self._wake:
            if self._tier is None:
                self._counts["frames_without_bundle"] += 1
            elif member is None:
                self._counts["malformed"] += 1
            elif frame.kind is Kind.SUMMARY:
                self._carry_out(self._tier.on_summary(member, slot, frame, time.monotonic()))
            else:
                self._carry_out(self._tier.on_features(member, slot, frame, time.monotonic()))

    def _on_answer(self, message: Message) -> None:
        received = self._decode(message)
        if received is None:
            return
        frame, slot = received
        if frame.boot != self._boot or message.correlation != _correlation(slot):
            self._counts["foreign_answers"] += 1
            return
        with self._wake:
            if self._tier:
                self._carry_out(self._tier.on_answer(slot, frame, time.monotonic()))

    def _on_status(self, message: Message) -> None:
        report = status.decode(message.payload)
        if report is None or not report.node.startswith("device-"):
            return
        member = topics.member_of(report.node.replace("-", "/"))
        if member is None:
            return
        # A device without a bundle is there but cannot report: not worth waiting for.
        up = report.state == "online" and report.bundle is not None
        with self._wake:
            if self._up.get(member) == up:
                return
            self._up[member] = up
            if self._tier:
                self._carry_out(self._tier.on_member(member, up, time.monotonic()))

    def _decode(self, message: Message) -> tuple[Frame, int] | None:
        """Frame and whole slot number, or None for what is not worth the engine's time."""
        try:
            frame = wire.decode(message.payload)
        except WireError:
            self._counts["malformed"] += 1
            return None
        near = int(time.time() / self._settings.period_s)
        slot = wire.unwrap_slot(frame.slot, near)
        if abs(slot - near) > self._window:
            self._counts["out_of_window"] += 1
            return None
        return frame, slot

    # -- actions -----------------------------------------------------------------------------

    def _carry_out(self, actions: list[Action]) -> None:
        site = self._settings.site
        for action in actions:
            match action:
                case Decision():
                    payload = encode(describe(action, site, self._classes, self._settings.period_s))
                    self._client.publish(topics.decision(site), payload, qos=1)
                case Request():
                    assert self._tier is not None
                    frame = wire.encode(
                        Kind.REQUEST,
                        tag=self._tier.sections.tag,
                        boot=self._boot,
                        slot=action.slot,
                    )
                    self._client.publish(topics.request(site, action.member), frame, qos=1)
                case Escalate():
                    assert self._tier is not None
                    frame = wire.encode(
                        Kind.ESCALATION,
                        tag=self._tier.sections.tag,
                        boot=self._boot,
                        slot=action.slot,
                        body=action.body,
                    )
                    try:
                        self._client.publish(
                            topics.escalation(site),
                            frame,
                            qos=1,
                            response_topic=topics.answer(site),
                            correlation=_correlation(action.slot),
                            expiry_s=self._settings.answer_wait_s,
                        )
                    except DdnnError as error:  # over the packet limit: decided at the deadline
                        self._counts["escalations_refused"] += 1
                        log.error("%s", error)

    def _activate(self, bundle: Bundle) -> None:
        sections = GatewaySections(bundle)
        settings = self._settings
        config = TierConfig(
            summary_wait_s=settings.summary_wait_s,
            features_wait_s=settings.features_wait_s,
            answer_wait_s=settings.answer_wait_s,
            silent_after_slots=settings.silent_after_slots,
            max_open_slots=settings.max_open_slots,
            # A frame of a closed slot must be known as late for as long as it can arrive.
            remembered_slots=2 * self._window + settings.max_open_slots,
        )
        with self._wake:
            now = time.monotonic()
            if self._tier:
                self._carry_out(self._tier.close("bundle_change", now))
                self._counts.update(self._tier.counts)
            self._tier = Tier(sections, config)
            self._classes = bundle.manifest.classes
            for member, up in self._up.items():
                self._tier.on_member(member, up, now)

    # -- reports -----------------------------------------------------------------------------

    def _ledger(self) -> dict[str, int]:
        with self._wake:
            counts = Counter(self._counts)
            if self._tier:
                counts.update(self._tier.counts)
                counts["open"] = self._tier.open_slots
            return dict(counts)

    def _publish_ledger(self) -> None:
        payload = msgspec.json.encode(self._ledger(), order="sorted")
        self._client.publish(topics.ledger(self._settings.site), payload, qos=1, retain=True)

    def _report(self, state: str = "online") -> None:
        report = status.Status(
            node=NODE,
            state="online" if state == "online" else "offline",
            boot=self._boot,
            bundle=self._models.bundle_id,
            version=self._models.version,
            refused=self._models.refused,
        )
        topic = topics.status(self._settings.site, NODE)
        info = self._client.publish(topic, status.encode(report), qos=1, retain=True)
        if state != "online" and self._client.connected.is_set():
            info.wait_for_publish(2.0)


def _correlation(slot: int) -> bytes:
    """MQTT 5 correlation data of an escalation: the slot as it is on the wire."""
    return (slot % wire.SLOT_MODULUS).to_bytes(4, "little")
