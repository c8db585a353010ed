"""Audits: of some slots that an early exit has decided, the later exits are asked all the same.

Nobody on a site knows the right answers; audits say how often the deepest exit of the same bundle
contradicts the early ones, on what the cameras see today. One audit's way:

1. A decision is out. It was an early exit's, it lacks nothing, and its slot is one of the share
   that is chosen by a keyed hash (`is_chosen`): not by what is in the slot, so that the share is a
   fair sample, and not by chance, so that the same key gives the same audits. `choose` only
   puts it aside: the decision leaves without waiting for anything of this.
2. When the gateway next looks at the time, `begin` opens an engine of its own for this one slot
   (`ddnn.tier.Tier`), whose exits are never sure, gives it the frames that the slot was decided by,
   and lets it ask for what else it needs. So an audit is what would have happened if the early
   exit had not been sure.
3. The features and the answer that it waits for come to `on_features` and `on_answer`. When its
   engine has decided, the result is an `Audit`. Where anything is missing it is given up.

An audit never changes a decision, nor the ledger: it has an engine, waits, breaker and counters of
its own, and what it asks for leaves after the decision. It gives way to real work: `begin` refuses
while `max_open` others are under way or the cloud does not answer audits; the gateway refuses for
other reasons. At most `max_open` slots' frames are held.

The estimate (`ddnn.drift`) is of one bundle with the same thresholds; whatever changes them begins
a new one, and audits that began before are not counted in it.
"""

from __future__ import annotations

import hashlib
import math
from collections import Counter, OrderedDict, deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal, NamedTuple, cast

import msgspec

from ddnn import wire
from ddnn.actions import Action, Decision, Escalate, Expired, Failed, NodeSections, Request
from ddnn.audit import Audit, EarlyExit, Estimate, ExitSaid
from ddnn.breaker import Breaker
from ddnn.drift import WINDOW, Drift, Expected
from ddnn.exit_rule import Verdict
from ddnn.journal import Accepted
from ddnn.tier import Tier
from ddnn.wire import Frame, Kind
from edge_gateway.engines import Engine

#: What an audit's engine counts of messages that it could not use.
_COUNTED = ("malformed", "wrong_tag", "unknown_member", "unasked", "duplicate")

AuditAction = Request | Escalate | Audit | Failed


class AuditRules(msgspec.Struct, frozen=True, kw_only=True):
    """What is audited.

    Attributes:
        share: of the decisions of early exits, 0 to 1; 0: none.
        key: of the hash that chooses; up to 64 bytes. Kept secret, so that no camera can know
            which of its frames will be looked at.
        max_open: audits under way at once.
    """

    share: float = 0.0
    key: bytes = b""
    max_open: int = 8


def is_chosen(share: float, key: bytes, site: str, slot: int) -> bool:
    """Whether this slot is one of the share to be audited.

    With a higher share the same slots are chosen, and more.
    """
    digest = hashlib.blake2b(f"{site}/{slot}".encode(), key=key, digest_size=8).digest()
    return int.from_bytes(digest, "little") < share * 2**64


def early_exits(sections: NodeSections) -> tuple[EarlyExit, ...]:
    """The exits that have another one after them."""
    early: list[EarlyExit] = []
    if sections.has_local and (sections.has_edge or sections.has_cloud):
        early.append("local")
    if sections.has_edge and sections.has_cloud:
        early.append("edge")
    return tuple(early)


def lacks_features(decision: Decision, frames: Iterable[tuple[int, Frame]]) -> bool:
    """Whether the audit of a decision made of these frames must ask members for something."""
    saw = {member for member, frame in frames if frame.kind is Kind.SUMMARY} - {*decision.absent}
    return bool(saw - {member for member, frame in frames if frame.kind is Kind.FEATURES})


@dataclass
class _Open:
    """One audit under way: its engine, the decision that it is about, and what it has cost."""

    engine: Engine
    tier: Tier
    decision: Decision
    estimated: Drift
    payload_bytes: int = 0


class Chosen(NamedTuple):
    """A decision that is to be audited, the frames that it was made of, and since when.

    `estimated`: the estimate that it belongs to, if it is of this bundle.
    """

    engine: Engine
    decision: Decision
    frames: list[Accepted]
    since: float
    estimated: Drift


class Audits:
    """The audits of one gateway, and the estimate that they make.

    Args:
        site, period_s: of the gateway.
        rules: what is audited.
        counts: where `audit.begun`, `.completed`, `.given_up.<reason>`, `.skipped.<reason>` and
            `.payload_bytes` are counted.

    Attributes:
        share: the one in force.
        changed: whether the estimate has changed since `estimate` was last called.
    """

    def __init__(
        self,
        site: str,
        period_s: float,
        rules: AuditRules,
        counts: Counter[str],
    ) -> None:
        self.share = rules.share
        self.changed = True
        self._site = site
        self._period_s = period_s
        self._rules = rules
        self._counts = counts
        self._breaker = Breaker()
        self._chosen: deque[Chosen] = deque()
        self._open: OrderedDict[int, _Open] = OrderedDict()
        self._estimated_key: object = None
        self._tag = 0
        self._drift = Drift(())

    def __len__(self) -> int:
        return len(self._open)

    def __contains__(self, slot: int) -> bool:
        return slot in self._open

    # -- an audit, from its beginning to its end ---------------------------------------------

    def choose(
        self, engine: Engine, decision: Decision, frames: list[Accepted], now: float
    ) -> None:
        """Put this decision aside, made of these frames, if it is to be audited."""
        if (
            engine.place.has_parent
            or decision.degraded is not None
            or decision.exit not in early_exits(engine.tier.sections)
            or not is_chosen(self.share, self._rules.key, self._site, decision.slot)
        ):
            return
        if len(self._chosen) < self._rules.max_open:
            self._chosen.append(Chosen(engine, decision, frames, now, self._drift))
        else:
            self._skip("busy")

    def take_chosen(self) -> list[Chosen]:
        """What has been put aside; it is to be begun now."""
        chosen = list(self._chosen)
        self._chosen.clear()
        return chosen

    def _skip(self, reason: str) -> None:
        self._counts[f"audit.skipped.{reason}"] += 1
        self.changed = True

    def begin(
        self,
        chosen: Chosen,
        frames: list[tuple[int, Frame]],
        now: float,
        strained: str | None,
    ) -> list[AuditAction]:
        """Audit a decision that has been published.

        Args:
            chosen: what was put aside.
            frames: of it, by member, in their order.
            strained: why there is no room for it beside the real work; None: there is.
        """
        engine, decision = chosen.engine, chosen.decision
        if strained is None and len(self._open) >= self._rules.max_open:
            strained = "busy"
        if strained is None and engine.tier.sections.has_cloud and not self._breaker.take(now):
            strained = "cloud_down"
        if strained is not None:
            self._skip(strained)
            return []
        config = msgspec.structs.replace(engine.tier.config, ask_at_once=0, remembered_slots=1)
        tier = Tier(engine.tier.sections, config)
        tier.thresholds = dict.fromkeys(tier.thresholds, 0.0)
        self._open[decision.slot] = _Open(engine, tier, decision, chosen.estimated)
        self._counts["audit.begun"] += 1
        found = self._take(decision.slot, _replay(tier, decision, frames, now), now)
        if not tier.open_slots:  # what it was decided by does not make a slot here
            self.give_up(decision.slot, "frames_missing")
        return found

    def on_features(self, member: int, slot: int, frame: Frame, now: float) -> list[AuditAction]:
        """Features of a slot whose audit is under way."""
        one = self._open[slot]
        accepted = one.tier.counts["accepted"]
        actions = one.tier.on_features(member, slot, frame, now)
        if one.tier.counts["accepted"] != accepted:
            one.payload_bytes += wire.HEADER_BYTES + len(frame.body)
        return self._take(slot, actions, now)

    def on_answer(self, slot: int, frame: Frame, now: float) -> list[AuditAction]:
        """The cloud's answer to a slot whose audit is under way."""
        return self._take(slot, self._open[slot].tier.on_answer(slot, frame, now), now)

    def on_time(self, now: float) -> list[AuditAction]:
        """Give up what has waited for too long."""
        found: list[AuditAction] = []
        for slot, one in list(self._open.items()):
            found += self._take(slot, one.tier.on_time(now), now)
        return found

    def next_deadline(self) -> float:
        """When something is to be begun or given up; infinite: nothing."""
        if not self._open and not self._chosen:
            return math.inf
        deadlines = [one.tier.next_deadline() for one in self._open.values()]
        return min(deadlines + [chosen.since for chosen in self._chosen])

    def sent(self, slot: int, payload_bytes: int) -> None:
        """A message of this audit has left."""
        self._open[slot].payload_bytes += payload_bytes

    def engine_of(self, slot: int) -> Engine:
        """The engine whose decision is being audited."""
        return self._open[slot].engine

    def give_up(self, slot: int, reason: str) -> None:
        """End an audit without a result; one that is not under way is ignored."""
        if one := self._open.pop(slot, None):
            self._end(one)
            self._counts[f"audit.given_up.{reason}"] += 1

    def give_up_all(self, reason: str, engine: Engine | None = None) -> None:
        """End the audits of this engine, or of all, without a result."""
        for slot, one in list(self._open.items()):
            if engine is None or one.engine is engine:
                self.give_up(slot, reason)
        for chosen in self.take_chosen():
            if engine is None or chosen.engine is engine:
                self._skip(reason)
            else:
                self._chosen.append(chosen)

    def _take(self, slot: int, actions: list[Action], now: float) -> list[AuditAction]:
        """Turn what an audit's engine wants into what is to be done."""
        left: list[AuditAction] = []
        for action in actions:
            match action:
                case Request() | Escalate() | Failed():
                    left.append(action)
                case Expired():
                    self.give_up(slot, action.reason)
                case Decision():
                    self._hear_of_cloud(action, now)
                    if action.degraded:
                        self.give_up(slot, action.degraded)
                    else:
                        left.append(self._complete(slot, action))
        return left

    def _hear_of_cloud(self, deeper: Decision, now: float) -> None:
        if deeper.exit == "cloud":
            self._breaker.succeeded()
        elif deeper.degraded in ("cloud_timeout", "cloud_lacks_bundle"):
            self._breaker.failed(now)

    def _complete(self, slot: int, deeper: Decision) -> Audit:
        one = self._open.pop(slot)
        self._end(one)
        self._counts["audit.completed"] += 1
        result = _describe(one, deeper, self._site, self._period_s)
        # While a site changes over, slots of the bundle before are still decided.
        if one.estimated is self._drift and one.decision.tag == self._tag:
            complete = not deeper.missing
            self._drift.add(result.exit, result.label, agrees=result.agrees, complete=complete)
        return result

    def _end(self, one: _Open) -> None:
        self._counts["audit.payload_bytes"] += one.payload_bytes
        for name in _COUNTED:
            self._counts[name] += one.tier.counts[name]
        self.changed = True

    # -- the estimate ------------------------------------------------------------------------

    def judge(
        self,
        share: float,
        key: object,
        sections: NodeSections,
        expected: Mapping[EarlyExit, Expected] | None,
    ) -> None:
        """Audit so many, and say what the estimate is about from now on.

        Args:
            share: of the early decisions.
            key: stands for a bundle and its thresholds; with the same as before the estimate goes
                on.
            sections: of that bundle.
            expected: by calibration, if it has measured these thresholds.
        """
        self.changed |= (share, key) != (self.share, self._estimated_key)
        self.share = share
        if key != self._estimated_key:
            self._estimated_key, self._tag = key, sections.tag
            self._drift = Drift(early_exits(sections), expected)

    def estimate(self) -> Estimate:
        """How often early exits disagree, as far as is known."""
        self.changed = False
        return Estimate(
            site=self._site,
            bundle_tag=self._tag,
            share=self.share,
            window=WINDOW,
            exits=self._drift.estimates(),
            begun=self._counts["audit.begun"],
            completed=self._counts["audit.completed"],
            given_up=self._by_reason("given_up"),
            skipped=self._by_reason("skipped"),
            payload_bytes=self._counts["audit.payload_bytes"],
        )

    def describe(self) -> str | None:
        """The alarm for people; None: there is none."""
        return self._drift.describe()

    def _by_reason(self, what: str) -> dict[str, int]:
        start = f"audit.{what}."
        return {n.removeprefix(start): c for n, c in self._counts.items() if n.startswith(start)}


def _replay(
    tier: Tier, decision: Decision, frames: list[tuple[int, Frame]], now: float
) -> list[Action]:
    """Give an audit's engine what its slot was decided by.

    Returns:
        What it wants beyond that.
    """
    slot = decision.slot
    for member in decision.missing:  # the summaries that there are end the first stage
        tier.on_member(member, False, now)
    actions: list[Action] = []
    has_features: set[int] = set()
    for kind in (Kind.SUMMARY, Kind.FEATURES):
        for member, frame in frames:
            if frame.kind is kind is Kind.SUMMARY:
                actions += tier.on_summary(member, slot, frame, now)
            elif frame.kind is kind:
                has_features.add(member)
                actions += tier.on_features(member, slot, frame, now)
    return [a for a in actions if not (isinstance(a, Request) and a.member in has_features)]


def _describe(one: _Open, deeper: Decision, site: str, period_s: float) -> Audit:
    """The result of an audit whose engine has decided."""
    decision, classes = one.decision, one.engine.classes
    assert decision.exit is not None
    assert deeper.exit is not None
    assert decision.label is not None
    said = {decision.exit: decision.verdicts[decision.exit]} | {
        name: verdict
        for name, verdict in deeper.verdicts.items()
        if (decision.exit, name) in (("local", "edge"), ("local", "cloud"), ("edge", "cloud"))
    }
    return Audit(
        site=site,
        slot=decision.slot,
        time_s=round(decision.slot * period_s, 6),
        bundle_tag=decision.tag,
        exit=cast(EarlyExit, decision.exit),
        label=classes[decision.label],
        deepest=cast(Literal["edge", "cloud"], deeper.exit),
        agrees=deeper.label == decision.label,
        exits={name: _said(verdict, classes) for name, verdict in said.items()},
        members=one.engine.place.kind,
        used=deeper.used,
        absent=deeper.absent,
        missing=deeper.missing,
        payload_bytes=one.payload_bytes,
    )


def _said(verdict: Verdict, classes: tuple[str, ...]) -> ExitSaid:
    return ExitSaid(
        label=classes[verdict.label],
        probability=round(verdict.probability, 6),
        entropy=round(verdict.entropy, 6),
    )
