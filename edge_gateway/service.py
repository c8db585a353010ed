"""The gateway as a process: MQTT, clocks and a journal around `edge_gateway.gateway`.

Messages are handled on the network thread, deadlines on this one; one lock around the gateway
makes them take turns. Effects are carried out under that lock, so that they leave in order.

All that one wake-up of the network thread brings is one turn: messages wait in the inbox until the
last of them is read, and what they make the gateway do is written to the journal at once, before
anything is published and before the broker may forget the messages.
"""

from __future__ import annotations

import logging
import secrets
import threading
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, NamedTuple

import msgspec

from ddnn import status, topics
from ddnn.audit import EarlyExit
from ddnn.background import Background
from ddnn.budget import Curve
from ddnn.bundle import Bundle, Manifest
from ddnn.config import FactoryBundle, SiteSettings, boot_id
from ddnn.drift import Expected, expected_of
from ddnn.errors import BundleError, ConfigError
from ddnn.fair_lock import FairLock
from ddnn.journal_file import JournalFile
from ddnn.key_files import check_keys, trust_of
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
from ddnn.node import GatewaySections
from ddnn.notify import Notifier
from ddnn.place import Place, gateway_node
from ddnn.tier import TierConfig
from ddnn.tuning import Tuning
from edge_gateway.audits import AuditRules
from edge_gateway.effects import Effect, Fault, Keep, in_order
from edge_gateway.gateway import Gateway, GatewayRules
from edge_gateway.home_assistant import HomeAssistant
from edge_gateway.intake import Intake
from edge_gateway.metrics import samples
from edge_gateway.probation import Probation
from edge_gateway.rollouts import Rollouts, announce
from edge_gateway.trial import TrialRules

log = logging.getLogger(__name__)
LEDGER_EVERY_S = 1.0
LOOK_AT_ROLLOUTS_EVERY_S = 0.2
ROLLOUT_STATES = ("settled", "staged", "waiting", "trial", "refused")
#: At the latest: a reader knows by it that this gateway lives, even where no will can say so.
STATUS_EVERY_S = 30.0


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
    factory_bundle: FactoryBundle = ""
    summary_wait_s: Annotated[
        float,
        msgspec.Meta(ge=0.001, le=60, description="Longest wait for a slot's summaries, seconds."),
    ] = 0.5
    summary_delay_s: Annotated[
        float,
        msgspec.Meta(
            ge=0,
            le=10,
            description="How long cameras may hold summaries back to send several together, "
            "seconds: the longest of their summary_delay_s.",
        ),
    ] = 0.0
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
    activation_lead_s: Annotated[
        float,
        msgspec.Meta(
            ge=0.1, le=600, description="How far ahead a change of bundle is planned, seconds."
        ),
    ] = 3.0
    staging_patience_s: Annotated[
        float,
        msgspec.Meta(
            ge=1, le=86_400, description="How long a silent node holds up a change, seconds."
        ),
    ] = 60.0

    audit_share: Annotated[
        float,
        msgspec.Meta(
            ge=0,
            le=1,
            description="Share of early decisions for which the later exits are asked as well, "
            "afterwards, to see how often they disagree; 0: none.",
        ),
    ] = 0.01
    home_assistant: Annotated[
        bool,
        msgspec.Meta(description="Whether Home Assistant is told of the site (MQTT discovery)."),
    ] = False
    home_assistant_prefix: Annotated[
        str,
        msgspec.Meta(
            pattern="^[A-Za-z0-9_-]{1,64}$", description="Its discovery prefix: one topic level."
        ),
    ] = "homeassistant"
    canary_every: Annotated[
        int,
        msgspec.Meta(
            ge=0,
            le=10_000,
            description="Try a new bundle in shadow on every so-manieth slot first; 0: do not.",
        ),
    ] = 0
    canary_slots: Annotated[
        int, msgspec.Meta(ge=1, le=10**6, description="Slots compared before it is judged.")
    ] = 100
    canary_agreement: Annotated[
        float, msgspec.Meta(ge=0, le=1, description="Smallest share of equal labels.")
    ] = 0.95
    canary_entropy_shift: Annotated[
        float, msgspec.Meta(ge=0, le=1, description="Largest change of the mean entropy.")
    ] = 0.1
    canary_slower_s: Annotated[
        float,
        msgspec.Meta(ge=0, le=60, description="How much longer a decision may take, seconds."),
    ] = 0.05
    canary_errors: Annotated[
        float, msgspec.Meta(ge=0, le=1, description="Largest share of degraded or lost slots.")
    ] = 0.02

    metrics_port: MetricsPort = 0
    metrics_host: MetricsHost = "127.0.0.1"
    metrics_cert: MetricsCert = ""
    metrics_key: MetricsKey = ""
    metrics_ca: MetricsCa = ""
    metrics_token: MetricsToken = ""

    def __post_init__(self) -> None:
        super().__post_init__()
        topics.check_prefix(self.home_assistant_prefix, self.site)


class _Staged(NamedTuple):
    """A bundle that is ready to run."""

    bundle_id: str
    sections: GatewaySections
    classes: tuple[str, ...]
    curve: Curve | None
    place: Place
    raw_bytes: tuple[int, ...]
    expected: dict[EarlyExit, Expected]


class GatewayService:
    """Runs one gateway until `stop` is set: the site's, or that of one of several edges."""

    def __init__(self, settings: GatewaySettings, stop: threading.Event) -> None:
        check_keys(settings)
        self._settings = settings
        self._stop = stop
        self._turn = FairLock()
        self._inbox: list[Message] = []
        self._alarm = threading.Event()
        self._sleeps_until = 0.0
        self._notifier = Notifier()
        self._edge = settings.edge
        self._node = gateway_node(self._edge)
        self._since_s = round(time.time(), 3)
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
        if settings.canary_every:
            self._gateway.probation = Probation(_trial_rules(settings))
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
                status.encode(
                    status.Status(
                        node=self._node, state="offline", boot=boot, since_s=self._since_s
                    )
                ),
            ),
            on_up=self._connected,
            on_down=self._disconnected,
            on_handled=self._handle,
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
            self,
            trust_of(settings, settings.site, "edge"),
            period_s=settings.period_s,
            later=Background("models"),
            store=Path(settings.store) if settings.store else None,
            factory=Path(settings.factory_bundle) if settings.factory_bundle else None,
            changed=self._report,
            overheard=self._overheard,
        )
        self._staged: _Staged | None = None
        self._reported: tuple[dict[str, str], Tuning] | None = None
        self._report_by = 0.0
        self._home_assistant = HomeAssistant(
            settings.site,
            settings.home_assistant_prefix
            if settings.home_assistant and self._edge is None
            else "",
            version("ddnn"),
            Path(settings.store) if settings.store and self._edge is None else None,
        )
        self._home_assistant_lock = threading.Lock()
        self._rollouts_lock = threading.Lock()
        self._rollouts = Rollouts(
            settings.site,
            settings.period_s,
            self._node,
            lead_s=settings.activation_lead_s,
            patience_s=settings.staging_patience_s,
            canary_every=settings.canary_every,
        )
        self._metrics = open_metrics(settings, settings.site, self._node, self.metrics)

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
        if birth := self._home_assistant.birth_topic:
            self._client.subscribe(birth, self._on_birth)
        self._models.start()
        self._client.start()
        if self._metrics:
            self._metrics.start()
        self._notifier.ready()
        try:
            self._keep_time()
        finally:
            self._notifier.stopping()
            with self._turn:
                self._carry_out(self._gateway.close("shutdown", time.monotonic()))
            self._publish_ledger()
            self._report("offline")
            self._client.stop()
            if self._metrics:
                self._metrics.stop()

    def _keep_time(self) -> None:
        """Wake the gateway at its deadlines, publish the ledger, look after the bundle."""
        next_ledger = time.monotonic() + LEDGER_EVERY_S
        next_look = 0.0
        last: dict[str, int] = {}
        while not self._stop.is_set():
            self._alarm.clear()
            with self._turn:
                now = time.monotonic()
                looks, reports = now >= next_look, now >= next_ledger
                next_look = now + LOOK_AT_ROLLOUTS_EVERY_S if looks else next_look
                next_ledger = now + LEDGER_EVERY_S if reports else next_ledger
                self._carry_out(self._gateway.on_time(now, time.time()))
                self._intake.on_time(now)
                ledger = self._gateway.ledger() if reports else last
                deadline = self._gateway.next_deadline()
                self._sleeps_until = min(deadline, next_look, next_ledger)
            # Whoever hangs with the gateway's lock, on whichever thread, keeps this unsaid.
            self._notifier.alive(now)
            if looks:
                self._conduct(now)
            if reports:
                if now >= self._report_by or self._reportable() != self._reported:
                    self._report()
                if ledger != last and self._client.connected.is_set():
                    last = ledger
                    self._publish_ledger()
            self._alarm.wait(max(0.0, self._sleeps_until - time.monotonic()))

    # -- on the network thread ---------------------------------------------------------------

    def _on_message(self, message: Message) -> None:
        self._inbox.append(message)

    def _handle(self) -> None:
        """All that has come in this wake-up, in its order; then what has been acknowledged."""
        inbox, self._inbox = self._inbox, []
        admitted: list[Message] = []
        effects: list[Effect] = []
        with self._turn:
            now, wall = time.monotonic(), time.time()
            for message in inbox:
                try:
                    if self._intake.admits(message, now):
                        admitted.append(message)
                        effects += self._gateway.on_message(message, now, wall)
                except Exception as error:  # the others' effects must be carried out
                    self._log_error(f"handling a message on {message.topic}", error)
            for slot in self._client.take_acknowledged():
                effects += self._gateway.sent(slot, now)
            self._carry_out(effects)
            deadline = self._gateway.next_deadline()
        if deadline < self._sleeps_until:
            self._alarm.set()
        for message in admitted:
            if "/status/" in message.topic:
                self._overheard(message)

    def _connected(self) -> None:
        with self._rollouts_lock:
            self._rollouts.on_connected(time.monotonic())
        with self._turn:
            self._carry_out(self._gateway.on_connected(time.monotonic()))
        self._report()
        self._publish_ledger()
        self._tell(self._home_assistant.on_connected)

    def _on_birth(self, message: Message) -> None:
        self._tell(lambda: self._home_assistant.on_birth(message.payload))

    def _tell(self, messages: Callable[[], list[Publish]]) -> None:
        """Home Assistant is told of on both threads, one after the other."""
        with self._home_assistant_lock:
            for message in messages():
                self._client.send(message)

    def _disconnected(self) -> None:
        with self._rollouts_lock:
            self._rollouts.on_disconnected()
        with self._turn:
            self._gateway.on_disconnected()

    # -- bundles (called by the model feed, on either thread) --------------------------------

    def _roles(self, manifest: Manifest) -> set[str]:
        """What is fetched: the site's gateway can give a broker what it has forgotten."""
        own = Place.of(manifest.topology, self._edge).roles(manifest)
        return own if self._edge is not None else {info.role for info in manifest.sections}

    def stage(self, bundle: Bundle) -> None:
        """Load and test this gateway's sections next to those that run.

        Raises:
            BundleError: they cannot be used.
        """
        manifest = bundle.manifest
        place = Place.of(manifest.topology, self._edge)
        own = {role: bundle.sections[role] for role in place.roles(manifest)}
        sections = GatewaySections(msgspec.structs.replace(bundle, sections=own), place)
        try:
            curve = Curve.of(manifest.calibration, manifest.topology.cameras)
        except ConfigError as error:
            log.warning("the bundle's curve is of no use: %s", error)
            curve = None
        self._staged = _Staged(
            bundle.bundle_id,
            sections,
            manifest.classes,
            curve,
            place,
            place.raw_bytes(manifest),
            expected_of(manifest),
        )

    def switch(self, bundle: Bundle, from_slot: int) -> None:
        """Run the staged sections for slots from `from_slot` on."""
        self._tell(lambda: self._home_assistant.on_bundle(bundle.manifest))
        staged = self._staged
        with self._turn:
            if self._gateway.move_switch(bundle.bundle_id, from_slot):
                return
            if staged is None or staged.bundle_id != bundle.bundle_id:
                return
            self._carry_out(
                self._gateway.activate(
                    staged.sections,
                    staged.classes,
                    time.monotonic(),
                    time.time(),
                    staged.curve,
                    staged.place,
                    staged.expected,
                    bundle_id=staged.bundle_id,
                    from_slot=from_slot,
                    raw_bytes=staged.raw_bytes,
                )
            )
            self._intake.follow(self._gateway.hears())

    def try_out(self, bundle: Bundle | None, every: int) -> None:
        """Run the staged sections in shadow, or no more."""
        staged = self._staged
        with self._turn:
            if bundle is None or staged is None or staged.bundle_id != bundle.bundle_id:
                self._gateway.end_trial()
                return
            rules = msgspec.structs.replace(_trial_rules(self._settings), every=every)
            self._gateway.begin_trial(staged.bundle_id, staged.sections, rules, staged.place)
            self._intake.follow(self._gateway.hears())

    def begun(self, bundle: Bundle) -> None:
        """The engines go by slot: nothing is left to do."""

    def _overheard(self, message: Message) -> None:
        with self._rollouts_lock:
            self._rollouts.on_message(message)

    def _conduct(self, now: float) -> None:
        """Change over to the next bundle when it is time; remind a broker that has forgotten.

        Edge gateways follow what the site's gateway announces.
        """
        models = self._models
        models.on_time()
        with self._turn:
            self._intake.follow(self._gateway.hears())
            highest, settled = self._gateway.engines.highest, self._gateway.engines.settled
            clock_is_set = self._gateway.clock.is_set
            trial = self._gateway.trial
            tried = (trial.bundle_id, trial.verdict()) if trial else None
            probation = self._gateway.probation
            failed = probation.verdict if probation else None
        if self._edge is not None:
            return
        with self._rollouts_lock:
            active, staged, record = models.active, models.staged, models.record
            plan = None
            if clock_is_set:
                plan = self._rollouts.plan(
                    now, time.time(), active=active, staged=staged, record=record,
                    highest_slot=highest, settled=settled, trial=tried, failed=failed,
                )  # fmt: skip
            reminders = self._rollouts.assertions(now, active=active, staged=staged, record=record)
        if plan is not None:
            try:
                models.decide(plan)
            except BundleError as error:
                log.error("the site does not change its bundle: %s", error)
                self._rollouts.waiting = str(error)
            else:
                self._client.send(announce(self._settings.site, plan))
        for message in reminders:
            log.warning("the broker has forgotten %s; publishing it again", message.topic)
            self._client.send(message)

    # -- effects -----------------------------------------------------------------------------

    def _carry_out(self, effects: list[Effect]) -> None:
        for effect in in_order(effects):
            if isinstance(effect, Keep):
                if self._journal:
                    self._journal.append(effect.data)
            elif isinstance(effect, Fault):
                self._log_error(effect.what, effect.error)
            elif not self._send(effect) and effect.receipt is not None:
                self._gateway.unsent(effect.receipt)

    def _send(self, message: Publish) -> bool:
        """Whether the client has taken it; the next message's turn comes in any case."""
        try:
            return self._client.send(message) is not None
        except Exception as error:
            self._log_error(f"publishing on {message.topic}", error)
            return False

    def _log_error(self, what: str, error: Exception) -> None:
        self._client.counts["handler_errors"] += 1
        log.error("error while %s", what, exc_info=error)

    def _snapshot(self) -> bytes:
        return self._gateway.snapshot()

    # -- metrics (on the threads of their server) --------------------------------------------

    def metrics(self) -> list[Sample]:
        """Everything that `/metrics` shows."""
        with self._turn:
            found = samples(self._gateway)
        if self._journal:
            found.append(Sample("ddnn_journal_bytes", self._journal.size_bytes))
        found += self._client.metrics() + self._models.metrics()
        if self._edge is None:
            state = self._rollout_state()
            found += [
                Sample("ddnn_rollout_state", float(each == state), (each,))
                for each in ROLLOUT_STATES
            ]
        return found

    def _rollout_state(self) -> str:
        if self._rollouts.rejected or self._models.refused:
            return "refused"
        if self._gateway.trial is not None:
            return "trial"
        if self._rollouts.waiting:
            return "waiting"
        return "staged" if self._models.staged_id else "settled"

    # -- reports -----------------------------------------------------------------------------

    def _publish_ledger(self) -> None:
        with self._turn:
            ledger = self._gateway.ledger()
        payload = msgspec.json.encode(ledger, order="sorted")
        site = self._settings.site
        topic = topics.ledger(site)
        if self._edge is not None:
            topic = topics.edge_ledger(site, self._edge)
        self._client.send(Publish(topic, payload, qos=1, retain=True))

    def _notes(self) -> dict[str, str]:
        with self._turn:
            notes = self._gateway.notes() | self._intake.notes() | self._client.certificate_note()
        notes |= self._models.notes()
        if waiting := self._rollouts.waiting:
            notes["rollout"] = waiting
        if rejected := self._rollouts.rejected:
            notes["rollout"] = f"bundle {rejected[0][:12]} {rejected[1]}"
        return notes

    def _reportable(self) -> tuple[dict[str, str], Tuning]:
        """What a change of is told at once."""
        return self._notes(), self._gateway.settings_in_force

    def _report(self, state: str = "online") -> None:
        notes, settings = self._reported = self._reportable()
        self._report_by = time.monotonic() + STATUS_EVERY_S
        refused_id, refused = self._models.refused_id, self._models.refused
        if self._rollouts.rejected:
            refused_id, refused = self._rollouts.rejected
        report = status.Status(
            node=self._node,
            state="online" if state == "online" else "offline",
            boot=self._gateway.boot,
            bundle=self._models.bundle_id,
            version=self._models.version,
            staged=self._models.staged_id,
            refused=refused,
            refused_id=refused_id,
            since_s=self._since_s,
            at_s=round(time.time(), 3),
            every_s=STATUS_EVERY_S,
            settings=settings if self._edge is None else None,
            notes=notes,
        )
        topic = topics.status(self._settings.site, self._node)
        info = self._client.send(Publish(topic, status.encode(report), qos=1, retain=True))
        if state != "online" and info is not None and self._client.connected.is_set():
            info.wait_for_publish(2.0)


def _trial_rules(settings: GatewaySettings) -> TrialRules:
    return TrialRules(
        every=settings.canary_every,
        slots=settings.canary_slots,
        agreement=settings.canary_agreement,
        entropy_shift=settings.canary_entropy_shift,
        slower_s=settings.canary_slower_s,
        errors=settings.canary_errors,
    )


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
        audits=AuditRules(share=settings.audit_share, key=secrets.token_bytes(16)),
        summary_delay_s=settings.summary_delay_s,
    )
