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
"""

from __future__ import annotations

from collections import Counter
from typing import NamedTuple

import msgspec

from ddnn import status, topics, tuning, wire
from ddnn.breaker import Breaker
from ddnn.budget import Curve, TrafficBudget
from ddnn.clock import ClockMonitor
from ddnn.decisions import describe, encode
from ddnn.errors import ConfigError, WireError
from ddnn.journal import Accepted, Ended, Memory, Record, Sent
from ddnn.journal import encode as encode_record
from ddnn.journal import read as read_journal
from ddnn.message import Message, Publish
from ddnn.outbox import Outbox
from ddnn.place import Place, gateway_node
from ddnn.tier import (
    Action,
    Decision,
    Escalate,
    ExitName,
    Expired,
    Feed,
    NodeSections,
    Passed,
    Report,
    Request,
    Tier,
    TierConfig,
)
from ddnn.wire import Flag, Frame, Kind
from edge_gateway.upward import upward

#: Cloud workers whose availability is remembered: names come from the network.
MAX_WORKERS = 1000
#: Decisions sent again for one recall, and the shortest time between two of them.
RECALL_LIMIT = 256
RECALL_EVERY_S = 0.5
#: The engine's counters that `Memory.counts` holds across restarts instead.
_LEDGER = ("opened", "decided", "degraded", "expired", "passed", "exit")


class GatewayRules(msgspec.Struct, frozen=True, kw_only=True):
    """What a gateway must know of its site.

    Attributes:
        window_s: how far a frame's slot may be from this clock.
        outbox_bytes, outbox_age_s: decisions kept for a broker that is away.
        recall_decisions: how many past decisions are kept for consumers that missed some.
    """

    site: str
    period_s: float
    window_s: float = 30.0
    tier: TierConfig = TierConfig()
    outbox_bytes: int = 16_000_000
    outbox_age_s: float = 86_400.0
    recall_decisions: int = 1024


class Keep(NamedTuple):
    """Effect: append these bytes to the journal, before any effect after it is carried out."""

    data: bytes


Effect = Publish | Keep


class Recall(msgspec.Struct, frozen=True):
    """A consumer's request on `ddnn/<site>/recall`: publish these slots' decisions again."""

    from_slot: int
    to_slot: int = 2**63 - 1


class Gateway:
    """One site's gateway.

    Every method that takes `now` (monotonic seconds) and `wall` (seconds since 1970) returns the
    effects to carry out, in order. Nothing that arrives raises.

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
        self.tier: Tier | None = None
        self.settings_refused: str | None = None
        self.connected = False
        self._window = max(1, round(rules.window_s / rules.period_s))
        # A frame of a closed slot must be known as late for as long as it can arrive.
        remembered = 2 * self._window + rules.tier.max_open_slots
        self._tier_config = msgspec.structs.replace(rules.tier, remembered_slots=remembered)
        self.memory = Memory(remembered, rules.recall_decisions)
        self.outbox = Outbox(
            max_bytes=rules.outbox_bytes, max_age_s=rules.outbox_age_s, counts=self.counts
        )
        self.place = Place(None, "cameras", ())
        self._classes: tuple[str, ...] = ()
        self._curve: Curve | None = None
        self._tuning = tuning.Tuning()
        self._budget: TrafficBudget | None = None
        self._received_bytes = 0
        self._up: dict[str, bool] = {}
        self._workers: dict[str, bool] = {}
        self._next_recall = 0.0
        self._restored = False
        self._read(journal, now)

    # -- messages --------------------------------------------------------------------------

    def on_message(self, message: Message, now: float, wall: float) -> list[Effect]:
        """Anything the gateway subscribes to."""
        topic, site = message.topic, self.rules.site
        if topic.startswith((f"{site}/s/", f"{site}/f/", f"{site}/S/", f"{site}/F/")):
            return self._on_frame(message, now, wall)
        if topic.startswith(f"{site}/Q/"):
            return self._on_parent_request(message, now, wall)
        if topic == topics.answer(site):
            return self._on_answer(message, now, wall)
        if topic.startswith("ddnn/_cloud/status/"):
            return self._on_worker(message, now)
        if topic.startswith(f"ddnn/{site}/status/"):
            return self._on_status(message, now)
        if topic == topics.settings(site):
            return self._on_settings(message)
        if topic == topics.recall(site):
            return self._on_recall(message, now)
        self.counts["foreign"] += 1
        return []

    def _on_frame(self, message: Message, now: float, wall: float) -> list[Effect]:
        received = self._decode(message, wall)
        if received is None:
            return []
        frame, slot = received
        number = topics.member_of(message.topic)
        if self.tier is None:
            self.counts["frames_without_bundle"] += 1
            return []
        if number is None:
            self.counts["malformed"] += 1
            return []
        edges = message.topic[len(self.rules.site) + 1] in "SF"
        member = self.place.member(number)
        if member is None or edges != (self.place.kind == "edges"):
            self.counts["unknown_member"] += 1
            return []
        self._received_bytes += len(message.payload)
        return self._feed(member, slot, frame, message.payload, now)

    def _feed(
        self, member: int, slot: int, frame: Frame, payload: bytes, now: float
    ) -> list[Effect]:
        assert self.tier is not None
        accepted = self.tier.counts["accepted"]
        if frame.kind is Kind.SUMMARY:
            actions = self.tier.on_summary(member, slot, frame, now)
        else:
            actions = self.tier.on_features(member, slot, frame, now)
        effects: list[Effect] = []
        if self.tier.counts["accepted"] != accepted:
            effects = self._remember(Accepted(slot, member, payload))
        return effects + self._carry_out(actions, now)

    def _on_parent_request(self, message: Message, now: float, wall: float) -> list[Effect]:
        received = self._decode(message, wall)
        if received is None or self.tier is None or not self.place.has_parent:
            return []
        frame, slot = received
        if frame.kind is not Kind.REQUEST or frame.tag != self.tier.sections.tag:
            self.counts["requests_refused"] += 1
            return []
        return self._carry_out(self.tier.on_parent_request(slot, now), now)

    def _on_answer(self, message: Message, now: float, wall: float) -> list[Effect]:
        received = self._decode(message, wall)
        if received is None or self.tier is None:
            return []
        frame, slot = received
        # An answer to the process before this one, or to somebody else's question.
        if frame.boot != self.boot or message.correlation != correlation(slot):
            self.counts["foreign_answers"] += 1
            return []
        return self._carry_out(self.tier.on_answer(slot, frame, now), now)

    def _on_status(self, message: Message, now: float) -> list[Effect]:
        report = status.decode(message.payload)
        # The topic says whose status it is; a node may write to its own only.
        if report is None or message.topic != topics.status(self.rules.site, report.node):
            return []
        # Numbers are short, so that no more than 20000 names are remembered.
        number = topics.member_of(report.node.replace("-", "/"))
        if number is None or report.node not in (f"device-{number}", gateway_node(number)):
            return []
        # A node without a bundle is there but cannot report: not worth waiting for.
        up = report.state == "online" and report.bundle is not None
        if self._up.get(report.node) == up:
            return []
        self._up[report.node] = up
        member = self.place.member(number)
        if self.tier is None or member is None or self.place.node(member) != report.node:
            return []
        return self._carry_out(self.tier.on_member(member, up, now), now)

    def _on_worker(self, message: Message, now: float) -> list[Effect]:
        report = status.decode(message.payload)
        if report is None or message.topic != topics.worker_status(report.node):
            return []
        if report.node not in self._workers and len(self._workers) >= MAX_WORKERS:
            self.counts["workers_over_limit"] += 1
            return []
        serves = report.state == "online" and self.rules.site in report.sites
        if self._workers.get(report.node) == serves:
            return []
        self._workers[report.node] = serves
        if serves:
            self.breaker.probe_now(now)
        elif not any(self._workers.values()):
            self.breaker.trip(now)
        elif self.tier:
            # It may have taken escalations with it; the others are there to answer them.
            return self._carry_out(self.tier.escalate_again(), now)
        return []

    def _on_recall(self, message: Message, now: float) -> list[Effect]:
        try:
            recall = msgspec.json.decode(message.payload, type=Recall)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            self.counts["malformed"] += 1
            return []
        if now < self._next_recall:
            self.counts["recalls_refused"] += 1
            return []
        self._next_recall = now + RECALL_EVERY_S
        topic = topics.decision(self.rules.site)
        wanted = [
            (slot, payload)
            for slot, payload in self.memory.recent.items()
            if recall.from_slot <= slot <= recall.to_slot
        ]
        self.counts["recalls"] += 1
        return [Publish(topic, payload, qos=1) for _, payload in sorted(wanted)[:RECALL_LIMIT]]

    def _decode(self, message: Message, wall: float) -> tuple[Frame, int] | None:
        """Frame and whole slot number, or None for what is not worth the engine's time."""
        try:
            frame = wire.decode(message.payload)
        except WireError:
            self.counts["malformed"] += 1
            return None
        near = int(wall / self.rules.period_s)
        slot = wire.unwrap_slot(frame.slot, near)
        if abs(slot - near) > self._window:
            self.counts["out_of_window"] += 1
            return None
        return frame, slot

    # -- time and connection ---------------------------------------------------------------

    def on_time(self, now: float, wall: float) -> list[Effect]:
        """Deadlines, the traffic budget, and what has waited for the broker too long."""
        self.clock.look(wall, now)
        effects: list[Effect] = []
        if self.tier:
            effects += self._carry_out(self.tier.on_time(now), now)
            if self._budget:
                frames = self.memory.counts["opened"]
                self.tier.thresholds["local"] = self._budget.received(
                    self._received_bytes, frames, now
                )
        elif not self._restored:
            effects += self._expire_waiting(wall)
        for slot in self.outbox.expire(now):
            effects += self._remember(Sent(slot))
        return effects

    def next_deadline(self) -> float | None:
        """When `on_time` has a slot to move on, or None."""
        return self.tier.next_deadline() if self.tier else None

    def on_connected(self, now: float) -> list[Effect]:
        """The broker is there (again): hand over the decisions that wait for it."""
        self.connected = True
        self.breaker.probe_now(now)
        return self._send_decisions(now)

    def on_disconnected(self) -> None:
        """The broker is away: decisions wait in the outbox."""
        self.connected = False

    def sent(self, slot: int, now: float) -> list[Effect]:
        """The broker has acknowledged the decision of `slot`."""
        if not self.outbox.acknowledged(slot):
            return []
        return self._remember(Sent(slot)) + self._send_decisions(now)

    def unsent(self, slot: int) -> None:
        """The client could not take the decision of `slot`: it waits for the next chance."""
        self.outbox.give_back(slot)

    def close(self, reason: str, now: float) -> list[Effect]:
        """End every open slot (shutdown)."""
        return self._carry_out(self.tier.close(reason, now), now) if self.tier else []

    # -- bundle and settings ---------------------------------------------------------------

    def activate(
        self,
        sections: NodeSections,
        classes: tuple[str, ...],
        now: float,
        wall: float,
        curve: Curve | None = None,
        place: Place | None = None,
    ) -> list[Effect]:
        """Run this bundle's sections from now on; what is open is ended with the old ones.

        Args:
            curve: for a traffic budget.
            place: whose sections these are; None: the site's, over cameras 0 to M - 1.
        """
        effects = self.close("bundle_change", now)
        self._count_engine()
        self.place = place or Place(None, "cameras", tuple(range(sections.members)))
        config = self._tier_config
        if self.place.has_parent:
            config = config.below_a_parent()
        elif self.place.kind == "edges":
            config = config.above_nodes()
        self.tier = Tier(
            sections,
            config,
            breaker=self.breaker,
            closed=self.memory.closed.copy(),
            has_parent=self.place.has_parent,
        )
        self._classes, self._curve = classes, curve
        for member in range(len(self.place.numbers)):
            if (up := self._up.get(self.place.node(member))) is not None:
                self.tier.on_member(member, up, now)
        self._tune(self._tuning)
        if not self._restored:
            self._restored = True
            effects += self._feed_again(now, wall)
        return effects

    def _on_settings(self, message: Message) -> list[Effect]:
        try:
            self._tune(tuning.decode(message.payload))
            self.settings_refused = None
        except ConfigError as error:
            self.counts["settings_refused"] += 1
            self.settings_refused = str(error)
        return []

    def _tune(self, wanted: tuning.Tuning) -> None:
        """Apply runtime settings as a whole, or not at all.

        Raises:
            ConfigError: they are outside what this bundle was calibrated for.
        """
        if self.tier is None:
            self._tuning = wanted
            return
        thresholds: dict[ExitName, float] = dict(self.tier.sections.thresholds)
        budget = None
        try:
            if wanted.local_threshold is not None:
                thresholds["local"] = self._calibrated("local", wanted.local_threshold)
            if wanted.edge_threshold is not None:
                thresholds["edge"] = self._calibrated("edge", wanted.edge_threshold)
            if wanted.budget_bytes_s is not None:
                if self.place.kind == "edges":
                    raise ConfigError("this gateway hears edge gateways, not what cameras send")
                if self._curve is None:
                    raise ConfigError("the running bundle has no curve to keep a budget with")
                budget = TrafficBudget(
                    self._curve, wanted.budget_bytes_s, 1.0 / self.rules.period_s
                )
                thresholds["local"] = budget.threshold
        except ConfigError as error:
            if wanted is not self._tuning:
                raise
            # Settings that fitted the bundle before do not fit this one: its own are used.
            self.settings_refused = str(error)
            thresholds, budget = dict(self.tier.sections.thresholds), None
        self._tuning, self._budget = wanted, budget
        self.tier.thresholds = thresholds

    def _calibrated(self, name: ExitName, threshold: float) -> float:
        assert self.tier is not None
        if name not in self.tier.sections.thresholds:
            raise ConfigError(f"the running bundle has no {name} exit with a threshold")
        if name == "local" and self._curve is not None:
            lowest, highest = self._curve.lowest, self._curve.highest
            if not lowest <= threshold <= highest:
                raise ConfigError(
                    f"local_threshold {threshold:g} is outside the calibrated range "
                    f"{lowest:g} to {highest:g}"
                )
        return threshold

    # -- actions -----------------------------------------------------------------------------

    def _carry_out(self, actions: list[Action], now: float) -> list[Effect]:
        effects: list[Effect] = []
        for action in actions:
            match action:
                case Decision():
                    effects += self._end_decided(action, now)
                case Expired():
                    ended = ("expired", f"expired.{action.reason}")
                    effects += self._remember(Ended(action.slot, ended))
                case Request():
                    payload = self._encode(Kind.REQUEST, action.slot)
                    topic = self.place.request(self.rules.site, action.member)
                    effects.append(Publish(topic, payload, qos=1))
                case Report() | Feed():
                    assert self.tier is not None
                    assert self.place.edge is not None
                    tag = self.tier.sections.tag
                    effects.append(upward(action, self.rules.site, self.place.edge, tag, self.boot))
                case Passed():
                    effects += self._remember(Ended(action.slot, ("passed",)))
                case Escalate():
                    effects.append(
                        Publish(
                            topics.escalation(self.rules.site),
                            self._encode(Kind.ESCALATION, action.slot, action.body),
                            qos=1,
                            response_topic=topics.answer(self.rules.site),
                            correlation=correlation(action.slot),
                            expiry_s=self._tier_config.answer_wait_s,
                        )
                    )
        return effects

    def _end_decided(self, decision: Decision, now: float) -> list[Effect]:
        rules = self.rules
        described = describe(decision, rules.site, self._classes, rules.period_s, self.place.kind)
        payload = encode(described)
        ended = [
            "degraded" if decision.degraded else "decided",
            f"exit.{decision.exit or 'nothing_seen'}",
        ]
        if decision.degraded:
            ended.append(f"degraded.{decision.degraded}")
        # The journal first: a decision that has left must be known after a crash.
        effects = self._remember(Ended(decision.slot, tuple(ended), payload))
        for dropped in self.outbox.put(decision.slot, payload, now):
            effects += self._remember(Sent(dropped))
        return effects + self._send_decisions(now)

    def _send_decisions(self, now: float) -> list[Effect]:
        if not self.connected:
            return []
        topic = topics.decision(self.rules.site)
        # Once it has one, the client keeps it until it is acknowledged, over reconnects.
        return [
            Publish(topic, held.payload, qos=1, keep=True, receipt=held.key)
            for held in self.outbox.take(now, 64)
        ]

    def _encode(self, kind: Kind, slot: int, body: bytes = b"") -> bytes:
        assert self.tier is not None
        tag = self.tier.sections.tag
        return wire.encode(kind, tag=tag, boot=self.boot, slot=slot, body=body)

    # -- the journal -------------------------------------------------------------------------

    def snapshot(self) -> bytes:
        """The shortest journal of what this gateway must know again."""
        return b"".join(encode_record(record) for record in self.memory.records())

    def _remember(self, record: Record) -> list[Effect]:
        self.memory.apply(record)
        return [Keep(encode_record(record))]

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

    def _feed_again(self, now: float, wall: float) -> list[Effect]:
        """Give the engine what the process before had accepted and not decided."""
        effects: list[Effect] = []
        frames_by_slot = [(slot, self.memory.open.pop(slot)) for slot in self._waiting]
        self._waiting = []
        near = int(wall / self.rules.period_s)
        for slot, frames in frames_by_slot:
            assert self.tier is not None
            for kept in frames if abs(slot - near) <= self._window else ():
                try:
                    frame = wire.decode(kept.payload)
                except WireError:
                    continue
                # As backlog: it says nothing of who is alive now, and others may still report.
                frame = frame._replace(flags=frame.flags | Flag.BACKLOG)
                effects += self._feed(kept.member, slot, frame, kept.payload, now)
            if slot not in self.memory.open and slot not in self.memory.closed:
                effects += self._remember(Ended(slot, ("expired", "expired.restart")))
            else:
                self.counts["restored"] += 1
        return effects

    def _expire_waiting(self, wall: float) -> list[Effect]:
        """Before there is a bundle: let go of restored slots that have become too old."""
        near = int(wall / self.rules.period_s)
        effects: list[Effect] = []
        for slot in [slot for slot in self._waiting if abs(slot - near) > self._window]:
            self._waiting.remove(slot)
            effects += self._remember(Ended(slot, ("expired", "expired.restart")))
        return effects

    # -- reports -----------------------------------------------------------------------------

    def ledger(self) -> dict[str, int]:
        """Slots opened, ended how, and open, since the journal began; counters of this start."""
        counts = self.counts + Counter()
        if self.tier:
            counts.update(_counters(self.tier))
        counts.update(self.memory.counts)
        still_open = len(self._waiting) + (self.tier.open_slots if self.tier else 0)
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
        }
        return {name: text for name, text in found.items() if text}

    def _count_engine(self) -> None:
        if self.tier:
            self.counts.update(_counters(self.tier))


def _counters(tier: Tier) -> dict[str, int]:
    """The engine's counters without the ledger's own."""
    return {n: c for n, c in tier.counts.items() if n.partition(".")[0] not in _LEDGER}


def correlation(slot: int) -> bytes:
    """MQTT 5 correlation data of an escalation: the slot as it is on the wire."""
    return (slot % wire.SLOT_MODULUS).to_bytes(4, "little")
