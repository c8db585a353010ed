"""The rules of one gateway around the engine: messages in, effects out. No I/O.

The site's gateway decides. Where a site has several edges its members are edge gateways instead of
cameras; those run the same rules, and report upwards where the site's would decide (`ddnn.place`).

One message's way, from top to bottom: `on_message` sorts by topic; `_on_frame` checks the slot
against the window, hands the frame to the engine and keeps what the engine took; `_carry_out`
turns the engine's actions into messages; `_end` writes a slot's end into the journal before its
decision may leave.

What survives kill -9 is `ddnn.journal.Memory`. After a restart the frames of slots that had not
ended are fed to the engine again (`activate`), and decisions that the broker had not acknowledged
are published again, byte for byte. A slot that has ended is never opened again, over restarts and
changes of bundle: (site, slot) is the consumer's key.

While the site changes to another bundle there are two engines, each with slots of its own
(`edge_gateway.engines`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from ddnn import summaries, topics, tuning, wire
from ddnn.audit import Audit, EarlyExit
from ddnn.audit import encode as encode_audit
from ddnn.breaker import Breaker
from ddnn.budget import Curve, TrafficBudget
from ddnn.clock import ClockMonitor
from ddnn.decisions import describe, encode
from ddnn.drift import Expected
from ddnn.errors import ConfigError
from ddnn.journal import Accepted, Ended, Memory, Record, Sent
from ddnn.journal import encode as encode_record
from ddnn.journal import read as read_journal
from ddnn.message import Message, Publish
from ddnn.outbox import Outbox
from ddnn.place import Place
from ddnn.tier import (
    Action,
    Decision,
    Escalate,
    Expired,
    Failed,
    Feed,
    NodeSections,
    Passed,
    Report,
    Request,
    Tier,
    TierConfig,
)
from ddnn.wire import Flag, Frame, Kind
from edge_gateway.audits import AuditAction, AuditRules, Audits, Chosen, lacks_features
from edge_gateway.effects import Effect, Fault, Keep
from edge_gateway.engines import Engine, Engines
from edge_gateway.frames import FrameReader, MemberFrame, Sender, decoded, senders
from edge_gateway.metrics import Tally
from edge_gateway.presence import Presence
from edge_gateway.probation import Probation
from edge_gateway.recall import Recalls
from edge_gateway.trial import Trial, TrialRules
from edge_gateway.upward import upward
from edge_gateway.wishes import as_calibrated, means_of

#: Shortest time between two estimates.
ESTIMATE_EVERY_S = 1.0
#: The engine's counters that `Memory.counts` holds across restarts instead.
_LEDGER = ("opened", "decided", "degraded", "expired", "passed", "exit")


class GatewayRules(msgspec.Struct, frozen=True, kw_only=True):
    """What a gateway must know of its site.

    Attributes:
        window_s: how far a frame's slot may be from this clock.
        outbox_bytes, outbox_age_s: decisions kept for a broker that is away.
        recall_decisions: how many past decisions are kept for consumers that missed some.
        audits: which decisions are looked at again.
        summary_delay_s: how long cameras may hold summaries back to send several together.
    """

    site: str
    period_s: float
    window_s: float = 30.0
    tier: TierConfig = TierConfig()
    outbox_bytes: int = 16_000_000
    outbox_age_s: float = 86_400.0
    recall_decisions: int = 1024
    audits: AuditRules = AuditRules()
    summary_delay_s: float = 0.0


class Gateway:
    """One site's gateway.

    Every method that takes `now` (monotonic seconds) and `wall` (seconds since 1970) returns the
    effects to carry out, as `edge_gateway.effects.in_order` says. Nothing that arrives raises.

    What is to be done is noted as soon as the state that goes with it has changed. So an error in
    the middle of a call takes nothing with it that was decided before: it is an effect itself.

    Args:
        rules: of the site.
        boot: boot id of this process.
        journal: what the journal of the process before holds.
        now: monotonic seconds.
    """

    def __init__(
        self, rules: GatewayRules, boot: int, journal: bytes = b"", now: float = 0.0
    ) -> None:
        self.rules = rules
        self.boot = boot
        self.counts: Counter[str] = Counter()
        self.clock = ClockMonitor()
        self.breaker = Breaker()
        self.engines = Engines()
        self.tally = Tally()
        self.trial: Trial | None = None
        self.probation: Probation | None = None
        self.settings_in_force = tuning.Tuning()
        self.connected = False
        self._effects: list[Effect] = []
        self._doing = ""
        self._frame_topics = tuple(f"{rules.site}/{letter}/" for letter in "sfSF")
        self._senders = senders(rules.site)
        self._window = max(1, round(rules.window_s / rules.period_s))
        # A frame of a closed slot must be known as late for as long as it can arrive.
        remembered = 2 * self._window + rules.tier.max_open_slots
        together = summaries.slots_per_message(rules.summary_delay_s, rules.period_s)
        self._tier_config = msgspec.structs.replace(
            rules.tier,
            remembered_slots=remembered,
            # One message that is lost is so many slots.
            silent_after_slots=rules.tier.silent_after_slots * together,
        )
        self.memory = Memory(remembered, rules.recall_decisions)
        self.outbox = Outbox(
            max_bytes=rules.outbox_bytes, max_age_s=rules.outbox_age_s, counts=self.counts
        )
        self.audits = Audits(rules.site, rules.period_s, rules.audits, self.counts)
        self._next_estimate = 0.0
        self._tuning = tuning.Tuning()
        self._refused: str | None = None
        self._misfit: str | None = None
        self._budget: TrafficBudget | None = None
        self._received_bytes = 0
        self.presence = Presence(rules.site, self.counts)
        self._recalls = Recalls(self.counts)
        self._reader = FrameReader(rules.period_s, self._window, self.counts)
        self._read(journal, now)

    @property
    def tier(self) -> Tier | None:
        """The newest bundle's engine."""
        newest = self.engines.newest
        return newest.tier if newest else None

    # -- messages --------------------------------------------------------------------------

    def on_message(self, message: Message, now: float, wall: float) -> list[Effect]:
        """Anything the gateway subscribes to."""
        self._doing = f"handling a message on {message.topic}"
        self._attempt("", self._on_message, message, now, wall)
        return self._take_effects()

    def _on_message(self, message: Message, now: float, wall: float) -> None:
        topic, site = message.topic, self.rules.site
        if topic.startswith(self._frame_topics):
            self._on_frame(message, now, wall)
        elif topic.startswith(f"{site}/Q/"):
            self._on_parent_request(message, now, wall)
        elif topic == topics.answer(site):
            self._on_answer(message, now, wall)
        elif topic.startswith("ddnn/_cloud/status/"):
            self._on_worker(message, now)
        elif topic.startswith(f"ddnn/{site}/status/"):
            self._on_status(message, now)
        elif topic == topics.settings(site):
            self._on_settings(message)
        elif topic == topics.recall(site):
            self._on_recall(message, now)
        else:
            self.counts["foreign"] += 1

    def _on_frame(self, message: Message, now: float, wall: float) -> None:
        received = self._reader.read(message.payload, wall)
        if received is None:
            return
        if not self.engines.all:
            self.counts["frames_without_bundle"] += 1
            return
        sender = self._senders.get(message.topic)
        if sender is None:
            self.counts["unknown_member"] += 1
            return
        frame, slot = received
        for each in self._reader.of_member(sender, message.payload, slot, frame, wall):
            try:  # as `_attempt`, for what comes all the time
                self._on_member_frame(each, now, wall)
            except Exception as error:
                self._failed(f"slot {each.slot}", error)

    def _on_member_frame(self, received: MemberFrame, now: float, wall: float) -> None:
        sender, slot, frame = received.sender, received.slot, received.frame
        engine = self.engines.of(slot)
        if engine is None or slot in self._waiting:  # of a bundle that is not here yet
            self.counts["wrong_tag"] += 1
            return
        trial = self.trial if self.trial is not None and self._is_on_trial(frame) else None
        place = trial.place if trial else engine.place
        member = place.member(sender.number)
        if member is None or sender.is_edge != (place.kind == "edges"):
            self.counts["unknown_member"] += 1
            return
        if frame.kind is Kind.FEATURES and slot in self.audits and not trial:
            self._carry_out_audits(self.audits.on_features(member, slot, frame, now))
            return
        self._received_bytes += received.head_bytes + len(frame.body)
        if trial:
            on_frame = (
                trial.tier.on_summary if frame.kind is Kind.SUMMARY else trial.tier.on_features
            )
            self._carry_out_trial(on_frame(member, slot, frame, now))
            return
        delay_s = 0.0
        if self.rules.summary_delay_s:
            # Of a camera whose clock is ahead no longer than of any other.
            age_s = max(0.0, wall - slot * self.rules.period_s)
            delay_s = max(0.0, self.rules.summary_delay_s - age_s)
        self._feed(engine, member, received, now, delay_s)

    def _feed(
        self,
        engine: Engine,
        member: int,
        received: MemberFrame,
        now: float,
        delay_s: float = 0.0,
    ) -> None:
        slot, frame, tier = received.slot, received.frame, engine.tier
        accepted = tier.counts["accepted"]
        if frame.kind is Kind.SUMMARY:
            actions = tier.on_summary(
                member, slot, frame, now, delay_s=delay_s, head_bytes=received.head_bytes
            )
        else:
            actions = tier.on_features(member, slot, frame, now)
        if tier.counts["accepted"] != accepted:
            engine.highest = max(engine.highest, slot)
            self._remember(Accepted(slot, member, received.payload))
        self._carry_out(engine, actions, now)

    def _is_on_trial(self, frame: Frame) -> bool:
        return self.trial is not None and frame.tag == self.trial.tier.sections.tag

    def _on_parent_request(self, message: Message, now: float, wall: float) -> None:
        received = self._reader.read(message.payload, wall)
        if received is None:
            return
        frame, slot = received
        engine = self.engines.of(slot)
        if engine is None or not engine.place.has_parent:
            return
        if frame.kind is not Kind.REQUEST or frame.tag != engine.tier.sections.tag:
            self.counts["requests_refused"] += 1
            return
        self._carry_out(engine, engine.tier.on_parent_request(slot, now), now)

    def _on_answer(self, message: Message, now: float, wall: float) -> None:
        received = self._reader.read(message.payload, wall)
        if received is None:
            return
        frame, slot = received
        # An answer to the process before this one, or to somebody else's question.
        if frame.boot != self.boot or message.correlation != correlation(slot):
            self.counts["foreign_answers"] += 1
        elif self.trial is not None and self._is_on_trial(frame):
            self._carry_out_trial(self.trial.tier.on_answer(slot, frame, now))
        elif slot in self.audits:
            self._carry_out_audits(self.audits.on_answer(slot, frame, now))
        elif engine := self.engines.of(slot):
            self._carry_out(engine, engine.tier.on_answer(slot, frame, now), now)

    def _on_status(self, message: Message, now: float) -> None:
        if self.presence.on_node(message):
            for engine in list(self.engines.all):
                self._tell(engine, now)

    def _tell(self, engine: Engine, now: float) -> None:
        """Tell an engine who of its members is worth waiting for."""
        is_newest = engine is self.engines.newest
        for member in range(len(engine.place.numbers)):
            node = engine.place.node(member)
            if node in self.presence.nodes:
                up = self.presence.is_worth_waiting_for(node, engine.bundle_id, is_newest=is_newest)
                self._carry_out(engine, engine.tier.on_member(member, up, now), now)

    def _on_worker(self, message: Message, now: float) -> None:
        match self.presence.on_worker(message):
            case "serves":
                self.breaker.probe_now(now)
            case "none_left":
                self.breaker.trip(now)
            case "one_less":
                # It may have taken escalations with it; the others are there to answer them.
                self._of_all(lambda tier: tier.escalate_again(), now)

    def _on_recall(self, message: Message, now: float) -> None:
        topic = topics.decision(self.rules.site)
        for payload in self._recalls.answer(message.payload, self.memory.recent, now):
            self._effects.append(Publish(topic, payload, qos=1))

    # -- time and connection ---------------------------------------------------------------

    def on_time(self, now: float, wall: float) -> list[Effect]:
        """Deadlines, the traffic budget, and what has waited for the broker too long."""
        self._doing = "looking at the time"
        self.clock.look(wall, now)
        self._attempt("deadlines", self._of_all, lambda tier: tier.on_time(now), now)
        self._attempt("the bundle on trial", self._look_at_trial, now)
        self._attempt("audits", self._look_at_audits, now)
        self._attempt("the traffic budget", self._keep_budget, now)
        self._attempt("old slots", self._let_go, now, wall)
        return self._take_effects()

    def _look_at_trial(self, now: float) -> None:
        if self.trial is not None:
            self._carry_out_trial(self.trial.tier.on_time(now))

    def _look_at_audits(self, now: float) -> None:
        for chosen in self.audits.take_chosen():
            self._attempt(
                f"the audit of slot {chosen.decision.slot}", self._begin_audit, chosen, now
            )
        self._carry_out_audits(self.audits.on_time(now))
        self._publish_estimate(now)

    def _keep_budget(self, now: float) -> None:
        if self.tier and self._budget:
            frames = self.memory.counts["opened"]
            self.tier.thresholds["local"] = self._budget.received(self._received_bytes, frames, now)

    def _let_go(self, now: float, wall: float) -> None:
        """Of restored slots, engines and decisions whose time is over."""
        if self._waiting:
            self._expire_waiting(wall)
        for engine in self.engines.done(int(wall / self.rules.period_s) - self._window):
            self._count_engine(engine)
            self.audits.give_up_all("bundle_change", engine)
        for slot in self.outbox.expire(now):
            self._remember(Sent(slot))

    def next_deadline(self) -> float:
        """When `on_time` has a slot to move on; infinite: none."""
        first = min(self.engines.next_deadline(), self.audits.next_deadline())
        return first if self.trial is None else min(first, self.trial.tier.next_deadline())

    def on_connected(self, now: float) -> list[Effect]:
        """The broker is there (again): hand over the decisions that wait for it."""
        self.connected = True
        self.breaker.probe_now(now)
        self.audits.changed = True  # a broker may have forgotten what it retained
        self._send_decisions(now)
        return self._take_effects()

    def on_disconnected(self) -> None:
        """The broker is away: decisions wait in the outbox."""
        self.connected = False

    def sent(self, slot: int, now: float) -> list[Effect]:
        """The broker has acknowledged the decision of `slot`."""
        if self.outbox.acknowledged(slot):
            self._remember(Sent(slot))
            self._send_decisions(now)
        return self._take_effects()

    def unsent(self, slot: int) -> None:
        """The client could not take the decision of `slot`: it waits for the next chance."""
        self.outbox.give_back(slot)

    def hears(self) -> dict[str, tuple[str, str]]:
        """Topics of summaries and features, by node, of all members of what runs here."""
        places = [engine.place for engine in self.engines.all]
        places += [self.trial.place] if self.trial else []
        return {
            node: pair for place in places for node, pair in place.hears(self.rules.site).items()
        }

    def close(self, reason: str, now: float) -> list[Effect]:
        """End every open slot (shutdown)."""
        self._doing = f"ending open slots ({reason})"
        self.audits.give_up_all(reason)
        self._of_all(lambda tier: tier.close(reason, now), now)
        return self._take_effects()

    # -- bundle and settings ---------------------------------------------------------------

    def activate(
        self,
        sections: NodeSections,
        classes: tuple[str, ...],
        now: float,
        wall: float,
        curve: Curve | None = None,
        place: Place | None = None,
        expected: Mapping[EarlyExit, Expected] | None = None,
        *,
        bundle_id: str = "",
        from_slot: int = 0,
        raw_bytes: tuple[int, ...] = (),
    ) -> list[Effect]:
        """Run this bundle's sections for slots from `from_slot` on.

        Slots before it, and those that have begun, end with the sections that they began with.

        Args:
            curve: for a traffic budget.
            place: whose sections these are; None: the site's, over cameras 0 to M - 1.
            raw_bytes: by member, what the raw views of its cameras would take.
            expected: how often early exits disagree at the bundle's own thresholds.
        """
        self._doing = f"changing to bundle {bundle_id[:12]}"
        if len(self.engines.all) > 1:
            oldest = self.engines.all[0]
            self._carry_out(oldest, oldest.tier.close("bundle_change", now), now)
            self.engines.all.remove(oldest)
            self._count_engine(oldest)
            self.audits.give_up_all("bundle_change", oldest)
        place = place or Place.of_cameras(sections.members)
        config = self._tier_config
        if place.has_parent:
            config = config.below_a_parent(self.rules.summary_delay_s)
        elif place.kind == "edges":
            config = config.above_nodes()
        tier = Tier(
            sections,
            config,
            breaker=self.breaker,
            closed=self.memory.closed.copy(),
            has_parent=place.has_parent,
        )
        engine = Engine(
            tier, place, bundle_id, classes, curve, from_slot,
            raw_bytes=raw_bytes, expected=expected,
        )  # fmt: skip
        self.engines.add(engine)
        if self.probation is not None:
            self.probation.changed()
        for each in self.engines.all:
            self._tell(each, now)
        self._tune(self._tuning)
        self._feed_again(engine, now, wall)
        return self._take_effects()

    def move_switch(self, bundle_id: str, from_slot: int) -> bool:
        """Set the first slot of the newest bundle anew, unless a frame of it has come.

        Returns:
            Whether `bundle_id` is the newest one here.
        """
        newest = self.engines.newest
        if newest is None or newest.bundle_id != bundle_id:
            return False
        if newest.highest < 0:
            self.engines.move(from_slot)
        return True

    def begin_trial(
        self,
        bundle_id: str,
        sections: NodeSections,
        rules: TrialRules,
        place: Place | None = None,
    ) -> None:
        """Run a staged bundle's sections in shadow; a trial of the same bundle goes on."""
        if self.trial is None or self.trial.bundle_id != bundle_id:
            place = place or Place.of_cameras(sections.members)
            self.trial = Trial(bundle_id, sections, rules, self._tier_config, place)

    def end_trial(self) -> None:
        """No bundle is on trial any more."""
        self.trial = None

    def _on_settings(self, message: Message) -> None:
        try:
            self._tune(tuning.decode(message.payload))
            self._refused = None
        except ConfigError as error:
            self.counts["settings_refused"] += 1
            self._refused = str(error)

    @property
    def settings_refused(self) -> str | None:
        """Why the settings that were published last, or those in force, are not used."""
        return self._refused or self._misfit

    def _tune(self, wanted: tuning.Tuning) -> None:
        """Apply runtime settings as a whole, or not at all.

        Raises:
            ConfigError: they are outside what this bundle was calibrated for.
        """
        newest = self.engines.newest
        if newest is None:
            self._tuning = wanted
            return
        own = as_calibrated(newest)
        try:
            means, self._misfit = means_of(wanted, newest, self.rules.period_s), None
            self.settings_in_force = wanted
        except ConfigError as error:
            if wanted is not self._tuning:
                raise
            # Settings that fitted the bundle before do not fit this one: its own are used.
            means, self._misfit = own, str(error)
            self.settings_in_force = tuning.Tuning()
        self._tuning, self._budget = wanted, means.budget
        newest.tier.thresholds = means.thresholds
        self._tune_audits(newest, wanted, as_calibrated=means == own)

    def _tune_audits(self, engine: Engine, wanted: tuning.Tuning, *, as_calibrated: bool) -> None:
        """Audit so many; begin a new estimate where the bundle or its thresholds are new."""
        share = wanted.audit_share
        thresholds = None if self._budget else tuple(engine.tier.thresholds.items())
        self.audits.judge(
            self.rules.audits.share if share is None else share,
            (engine.bundle_id, engine.tier.sections.tag, thresholds),
            engine.tier.sections,
            engine.expected if as_calibrated else None,
        )

    # -- actions -----------------------------------------------------------------------------

    def _take_effects(self) -> list[Effect]:
        """What is to be done since the last call of anything."""
        made, self._effects = self._effects, []
        return made

    def _attempt(self, what: str, call: Callable[..., None], *arguments: Any) -> None:
        """Do this; what raises becomes an effect, and what comes after it goes on."""
        try:
            call(*arguments)
        except Exception as error:
            self._failed(what, error)

    def _failed(self, what: str, error: Exception) -> None:
        self._effects.append(Fault(f"{self._doing}: {what}" if what else self._doing, error))

    def _of_all(self, call: Callable[[Tier], list[Action]], now: float) -> None:
        """Have every engine do the same."""
        for engine in list(self.engines.all):
            self._carry_out(engine, call(engine.tier), now)

    def _carry_out(self, engine: Engine, actions: list[Action], now: float) -> None:
        for action in actions:
            try:
                self._act(engine, action, now)
            except Exception as error:
                self._failed(f"slot {action.slot}", error)
                # The engine has ended it: the ledger must know, and no restart may open it again.
                is_end = isinstance(action, Decision | Expired | Passed)
                if is_end and action.slot not in self.memory.closed:
                    end = Ended(action.slot, ("expired", "expired.error"))
                    self._attempt(f"slot {action.slot}", self._remember, end)

    def _act(self, engine: Engine, action: Action, now: float) -> None:
        match action:
            case Decision():
                self._end_decided(engine, action, now)
            case Expired():
                self._remember(Ended(action.slot, ("expired", f"expired.{action.reason}")))
                self._observe(engine, action.slot, None)
            case Request() | Escalate():
                self._effects.append(self._ask(engine.tier, engine.place, action))
            case Report() | Feed():
                assert engine.place.edge is not None
                edge, tag = engine.place.edge, engine.tier.sections.tag
                self._effects.append(upward(action, self.rules.site, edge, tag, self.boot))
            case Passed():
                self._remember(Ended(action.slot, ("passed",)))
            case Failed():
                self._failed(f"slot {action.slot}", action.error)

    def _carry_out_trial(self, actions: list[Action]) -> None:
        assert self.trial is not None
        for action in self.trial.take(actions):
            if isinstance(action, Request | Escalate):
                self._effects.append(self._ask(self.trial.tier, self.trial.place, action))
            elif isinstance(action, Failed):
                self._failed(f"slot {action.slot} of the bundle on trial", action.error)

    def _ask(self, tier: Tier, place: Place, action: Request | Escalate) -> Publish:
        """The message that asks a member for features, or the cloud for an answer."""
        site = self.rules.site
        if isinstance(action, Request):
            payload = self._encode(tier, Kind.REQUEST, action.slot)
            return Publish(place.request(site, action.member), payload, qos=1)
        return Publish(
            topics.escalation(site),
            self._encode(tier, Kind.ESCALATION, action.slot, action.body),
            qos=1,
            response_topic=topics.answer(site),
            correlation=correlation(action.slot),
            expiry_s=self._tier_config.answer_wait_s,
        )

    # -- audits ------------------------------------------------------------------------------

    def _begin_audit(self, chosen: Chosen, now: float) -> None:
        """Look at a decision again, which is out by now."""
        frames = [
            (kept.member, frame) for kept in chosen.frames if (frame := decoded(kept.payload))
        ]
        strained = self._strained(chosen.engine)
        if strained is None and any(frame.flags & Flag.BACKLOG for _, frame in frames):
            strained = "backlog"
        if strained is None and self._budget and lacks_features(chosen.decision, frames):
            strained = "budget"
        self._carry_out_audits(self.audits.begin(chosen, frames, now, strained))

    def _strained(self, engine: Engine) -> str | None:
        """Why there is no room for an audit beside the real work; None: there is."""
        if not self.connected:
            return "broker_away"
        if self.outbox.waiting:
            return "unsent"
        if 2 * engine.tier.open_slots >= self._tier_config.max_open_slots:
            return "overload"
        if engine.tier.sections.has_cloud and self.breaker.state != "closed":
            return "cloud_down"
        return None

    def _carry_out_audits(self, actions: list[AuditAction]) -> None:
        for action in actions:
            if isinstance(action, Audit):
                payload = encode_audit(action)
                self._effects.append(Publish(topics.audit(self.rules.site), payload, qos=1))
                continue
            if isinstance(action, Failed):
                self._failed(f"the audit of slot {action.slot}", action.error)
                continue
            if action.slot not in self.audits:
                continue  # given up at the action before this one
            engine = self.audits.engine_of(action.slot)
            if strained := self._strained(engine):
                self.audits.give_up(action.slot, strained)
                continue
            asked = self._ask(engine.tier, engine.place, action)
            self.audits.sent(action.slot, len(asked.payload))
            self._effects.append(asked)

    def _publish_estimate(self, now: float) -> None:
        newest = self.engines.newest
        if not self.audits.changed or not self.connected or now < self._next_estimate:
            return
        if newest is None or newest.place.has_parent:
            return
        self._next_estimate = now + ESTIMATE_EVERY_S
        payload = encode_audit(self.audits.estimate())
        topic = topics.audit_estimate(self.rules.site)
        self._effects.append(Publish(topic, payload, qos=1, retain=True))

    # -- a decision's way out ----------------------------------------------------------------

    def _observe(self, engine: Engine, slot: int, decision: Decision | None) -> None:
        """For those who judge bundles: how `slot` has ended."""
        if self.trial is not None:
            self.trial.real(slot, decision)
        if self.probation is not None and engine is self.engines.newest:
            self.probation.ended(decision)

    def _end_decided(self, engine: Engine, decision: Decision, now: float) -> None:
        rules = self.rules
        kind = engine.place.kind
        payload = encode(describe(decision, rules.site, engine.classes, rules.period_s, kind))
        ended = [
            "degraded" if decision.degraded else "decided",
            f"exit.{decision.exit or 'nothing_seen'}",
        ]
        if decision.degraded:
            ended.append(f"degraded.{decision.degraded}")
        # Its frames, which the memory of a slot that has ended does not keep.
        kept = self.memory.open.get(decision.slot, [])
        # The journal first: a decision that has left must be known after a crash.
        self._remember(Ended(decision.slot, tuple(ended), payload))
        for dropped in self.outbox.put(decision.slot, payload, now):
            self._remember(Sent(dropped))
        self._send_decisions(now)
        # It is on its way: whoever only looks at it can hold it up no more.
        self._observe(engine, decision.slot, decision)
        self.tally.decided(decision, engine.raw_bytes)
        self.audits.choose(engine, decision, kept, now)

    def _send_decisions(self, now: float) -> None:
        if not self.connected or not self.outbox.waiting:
            return
        topic = topics.decision(self.rules.site)
        # Once it has one, the client keeps it until it is acknowledged, over reconnects.
        for held in self.outbox.take(now, 64):
            self._effects.append(Publish(topic, held.payload, qos=1, keep=True, receipt=held.key))

    def _encode(self, tier: Tier, kind: Kind, slot: int, body: bytes = b"") -> bytes:
        tag = tier.sections.tag
        return wire.encode(kind, tag=tag, boot=self.boot, slot=slot, body=body)

    # -- the journal -------------------------------------------------------------------------

    def snapshot(self) -> bytes:
        """The shortest journal of what this gateway must know again."""
        return b"".join(encode_record(record) for record in self.memory.records())

    def _remember(self, record: Record) -> None:
        self.memory.apply(record)
        self._effects.append(Keep(encode_record(record)))
        if isinstance(record, Ended):
            for engine in self.engines.all:
                engine.tier.ended_elsewhere(record.slot)

    def _read(self, journal: bytes, now: float) -> None:
        found = read_journal(journal)
        for record in found.records:
            self.memory.apply(record)
        if found.damaged:
            self.counts["journal_damaged"] += 1
        self._waiting = list(self.memory.open)
        for slot, payload in list(self.memory.unsent.items()):
            for dropped in self.outbox.put(slot, payload, now):
                self.memory.apply(Sent(dropped))

    def _feed_again(self, engine: Engine, now: float, wall: float) -> None:
        """Give a new engine what the process before had accepted for its bundle and not decided.

        What was of another bundle waits for that one, until it is too old.
        """
        for slot in list(self._waiting):
            frames = self.memory.open[slot]
            known = [(kept, frame) for kept in frames if (frame := decoded(kept.payload))]
            if known and known[0][1].tag != engine.tier.sections.tag:
                continue
            self._waiting.remove(slot)
            del self.memory.open[slot]
            if self.engines.of(slot) is engine and self._reader.is_near(slot, wall):
                for kept, frame in known:
                    # As backlog: it says nothing of who is alive now, and others may still report.
                    frame = frame._replace(flags=frame.flags | Flag.BACKLOG)
                    sender = Sender(kept.member, engine.place.kind == "edges")
                    received = MemberFrame(sender, slot, frame, kept.payload)
                    self._attempt(f"slot {slot}", self._feed, engine, kept.member, received, now)
            if slot not in self.memory.open and slot not in self.memory.closed:
                self._remember(Ended(slot, ("expired", "expired.restart")))
            else:
                self.counts["restored"] += 1

    def _expire_waiting(self, wall: float) -> None:
        """Let go of restored slots whose bundle did not come in time."""
        for slot in [slot for slot in self._waiting if not self._reader.is_near(slot, wall)]:
            self._waiting.remove(slot)
            self._remember(Ended(slot, ("expired", "expired.restart")))

    # -- reports -----------------------------------------------------------------------------

    def ledger(self) -> dict[str, int]:
        """Slots opened, ended how, and open, since the journal began; counters of this start."""
        counts = self.counts + Counter()
        for engine in self.engines.all:
            counts.update(_counters(engine.tier))
        counts.update(self.memory.counts)
        still_open = len(self._waiting) + self.engines.open_slots
        counts["opened"] += still_open
        counts["open"] = still_open
        counts["unsent"] = len(self.outbox)
        return dict(counts)

    def notes(self) -> dict[str, str]:
        """For the status: what a person should know; empty while all is well."""
        cloud = None if self.breaker.state == "closed" else "not answering: frames are degraded"
        found = {
            "clock": self.clock.describe(),
            "settings": self.settings_refused,
            "cloud": cloud,
            "canary": self.trial.describe() if self.trial else None,
            "drift": self.audits.describe(),
        }
        return {name: text for name, text in found.items() if text}

    def _count_engine(self, engine: Engine) -> None:
        self.counts.update(_counters(engine.tier))


def _counters(tier: Tier) -> dict[str, int]:
    """The engine's counters without the ledger's own."""
    return {n: c for n, c in tier.counts.items() if n.partition(".")[0] not in _LEDGER}


def correlation(slot: int) -> bytes:
    """MQTT 5 correlation data of an escalation: the slot as it is on the wire."""
    return (slot % wire.SLOT_MODULUS).to_bytes(4, "little")
