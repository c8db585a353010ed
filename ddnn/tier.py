"""The engine of a node: members' messages in, requests and decisions out.

Pure: no clock, socket, disk or log. The shell passes the time in with every call and carries out
the actions that come back. One frame's way, from top to bottom:

1. `on_summary` opens the slot with the first member's report. The summary stage ends when every
   member believed alive has reported, or `summary_wait_s` after the slot opened.
2. The local exit judges the scores of the members that saw something. Sure: decided.
3. Otherwise those members are asked for their features, and only those. The stage ends when all
   have answered, or after `features_wait_s`.
4. The edge section judges the features. Sure: decided. Otherwise its own features go to the
   cloud (without an edge section: the members' features).
5. The cloud's answer decides. If it does not come within `answer_wait_s`, the best answer so far
   is decided, marked degraded with the reason.

Every slot ends exactly once: decided, decided degraded, or expired when no exit could say
anything. `counts` holds the ledger: opened = decided + degraded + expired + still open.

A decision is made of one bundle only: a frame with another tag is counted and dropped. What the
engine keeps is bounded: at most `max_open_slots` slots (the oldest is decided early, degraded)
and the numbers of the last `remembered_slots` closed ones, to know a late frame from a new slot.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from typing import Literal, Protocol

import msgspec
import numpy as np
import numpy.typing as npt

from ddnn import wire
from ddnn.errors import WireError
from ddnn.exit_rule import Verdict, exits, judge
from ddnn.wire import Flag, Frame, Kind

U8 = npt.NDArray[np.uint8]
I32 = npt.NDArray[np.int32]
ExitName = Literal["local", "edge", "cloud"]
Stage = Literal["summaries", "features", "answer"]


class NodeSections(Protocol):
    """The sections a node runs; `ddnn.node.GatewaySections` is one of a bundle.

    Attributes:
        tag: bundle tag of all of them.
        members: how many members the node has.
        classes: K, score bytes of a summary.
        feature_bytes: B, length of one member's packed features.
        thresholds: of the local and edge exits.
        scales: logit scale of each exit.
        has_local, has_edge, has_cloud: which exits exist.
    """

    tag: int
    members: int
    classes: int
    feature_bytes: int
    thresholds: dict[ExitName, float]
    scales: dict[ExitName, float]
    has_local: bool
    has_edge: bool
    has_cloud: bool

    def local(self, scores: U8, mask: U8) -> I32:
        """Scores (M, K) and mask (M,) -> logits (K,)."""
        ...

    def edge(self, features: U8, mask: U8) -> tuple[I32, bytes]:
        """Features (M, B) and mask (M,) -> logits (K,), packed edge features."""
        ...


class TierConfig(msgspec.Struct, frozen=True, kw_only=True):
    """Times in seconds and bounds of one engine.

    A member that misses `silent_after_slots` slots in a row is not waited for until it reports
    again, whatever its status says: a hung camera costs a few deadlines, not one per slot.
    """

    summary_wait_s: float = 0.5
    features_wait_s: float = 1.0
    answer_wait_s: float = 2.0
    silent_after_slots: int = 3
    max_open_slots: int = 256
    remembered_slots: int = 4096


class Decision(msgspec.Struct, frozen=True, kw_only=True):
    """What the site says of one slot.

    Attributes:
        slot: whole slot number.
        label: class index; None when no member saw anything.
        exit: whose answer it is; None when nobody saw anything.
        used, absent, missing: member numbers: in the answer; reported an empty view; silent.
        degraded: None, or why a deeper exit did not decide.
        stage_s: seconds spent in each stage.
        payload_bytes: frame payload bytes received from members for this slot.
    """

    slot: int
    tag: int
    label: int | None
    probability: float | None
    entropy: float | None
    threshold: float | None
    exit: ExitName | None
    used: tuple[int, ...]
    absent: tuple[int, ...]
    missing: tuple[int, ...]
    degraded: str | None
    stage_s: dict[Stage, float]
    payload_bytes: int


class Request(msgspec.Struct, frozen=True):
    """Ask `member` for its features of `slot`."""

    member: int
    slot: int


class Escalate(msgspec.Struct, frozen=True):
    """Ask the cloud about `slot`; `body` is an ESCALATION body."""

    slot: int
    body: bytes


Action = Request | Escalate | Decision


class _Slot:
    """What is known of one open slot."""

    __slots__ = (
        "absent", "asked", "best", "boots", "deadline", "features", "gone", "payload_bytes",
        "scores", "stage", "stage_began", "stage_s",
    )  # fmt: skip

    def __init__(self, now: float, deadline: float) -> None:
        self.stage: Stage = "summaries"
        self.stage_began = now
        self.deadline = deadline
        self.stage_s: dict[Stage, float] = {}
        self.scores: dict[int, bytes] = {}
        self.absent: set[int] = set()
        self.boots: dict[int, int] = {}
        self.asked: set[int] = set()
        self.features: dict[int, bytes] = {}
        self.gone: set[int] = set()
        self.best: tuple[ExitName, Verdict, tuple[int, ...]] | None = None
        self.payload_bytes = 0

    def enter(self, stage: Stage, now: float, wait_s: float) -> None:
        self.stage_s[self.stage] = now - self.stage_began
        self.stage, self.stage_began, self.deadline = stage, now, now + wait_s


class Tier:
    """The engine of one node over one bundle's sections.

    Every `on_...` method takes `now` (seconds, monotonic) and returns the actions to carry out,
    in order. Nothing that arrives raises; what is not understood is counted.
    """

    def __init__(self, sections: NodeSections, config: TierConfig | None = None) -> None:
        self.sections = sections
        self.config = config or TierConfig()
        self.counts: Counter[str] = Counter()
        self._open: OrderedDict[int, _Slot] = OrderedDict()
        self._closed: OrderedDict[int, None] = OrderedDict()
        self._up: dict[int, bool] = {}
        self._misses: dict[int, int] = {}

    # -- members ---------------------------------------------------------------------------

    def on_member(self, member: int, up: bool, now: float) -> list[Action]:
        """A member's availability changed (birth or will)."""
        if not 0 <= member < self.sections.members:
            self.counts["unknown_member"] += 1
            return []
        self._up[member] = up
        if up:
            self._misses[member] = 0
            return []
        actions: list[Action] = []
        for slot in list(self._open):
            actions += self._advance(slot, now)
        return actions

    def alive(self) -> set[int]:
        """Members worth waiting for: known, not known to be down, not silent of late."""
        return {
            member
            for member, misses in self._misses.items()
            if self._up.get(member, True) and misses < self.config.silent_after_slots
        }

    # -- messages --------------------------------------------------------------------------

    def on_summary(self, member: int, slot: int, frame: Frame, now: float) -> list[Action]:
        """A member reports on `slot`."""
        if not self._acceptable(member, frame, Kind.SUMMARY):
            return []
        absent = bool(frame.flags & Flag.ABSENT)
        wanted = self.sections.classes if self.sections.has_local and not absent else 0
        if len(frame.body) != wanted:
            self.counts["malformed"] += 1
            return []
        self._misses[member] = 0
        if slot in self._closed:
            self.counts["late"] += 1
            return []
        actions: list[Action] = []
        state = self._open.get(slot)
        if state is None:
            actions += self._make_room(now)
            state = _Slot(now, now + self.config.summary_wait_s)
            self._open[slot] = state
            self.counts["opened"] += 1
        elif member in state.boots:
            self.counts["duplicate"] += 1
            return []
        elif state.stage != "summaries":
            self.counts["late"] += 1
            return []
        state.boots[member] = frame.boot
        state.payload_bytes += wire.HEADER_BYTES + len(frame.body)
        if absent:
            state.absent.add(member)
        else:
            state.scores[member] = frame.body
        return actions + self._advance(slot, now)

    def on_features(self, member: int, slot: int, frame: Frame, now: float) -> list[Action]:
        """A member sends the features it was asked for."""
        if not self._acceptable(member, frame, Kind.FEATURES):
            return []
        gone = bool(frame.flags & Flag.ABSENT)  # asked too late: the member's ring has moved on
        if len(frame.body) != (0 if gone else self.sections.feature_bytes):
            self.counts["malformed"] += 1
            return []
        state = self._open.get(slot)
        if state is None or state.stage != "features":
            self.counts["late" if slot in self._closed or state else "unasked"] += 1
            return []
        if member not in state.asked or state.boots[member] != frame.boot:
            self.counts["unasked"] += 1
            return []
        if member in state.features or member in state.gone:
            self.counts["duplicate"] += 1
            return []
        if gone:
            state.gone.add(member)
        else:
            state.features[member] = frame.body
        state.payload_bytes += wire.HEADER_BYTES + len(frame.body)
        return self._advance(slot, now)

    def on_answer(self, slot: int, frame: Frame, now: float) -> list[Action]:
        """The cloud answers an escalation."""
        if frame.kind is not Kind.ANSWER or frame.tag != self.sections.tag:
            self.counts["wrong_tag" if frame.kind is Kind.ANSWER else "malformed"] += 1
            return []
        state = self._open.get(slot)
        if state is None or state.stage != "answer":
            self.counts["late"] += 1
            return []
        if frame.flags & Flag.UNSERVED:
            return self._decide_best(slot, "cloud_lacks_bundle", now)
        try:
            logits = wire.unpack_logits(frame.body, self.sections.classes)
        except WireError:
            self.counts["malformed"] += 1
            return []
        verdict = judge(logits, self.sections.scales["cloud"])
        state.best = ("cloud", verdict, tuple(sorted(state.features)))
        return self._decide_best(slot, None, now)

    # -- time ------------------------------------------------------------------------------

    def next_deadline(self) -> float | None:
        """When `on_time` has something to do next, or None."""
        return min((state.deadline for state in self._open.values()), default=None)

    def on_time(self, now: float) -> list[Action]:
        """Move on every slot whose stage has run out of time."""
        actions: list[Action] = []
        for slot in [s for s, state in self._open.items() if state.deadline <= now]:
            actions += self._advance(slot, now)
        return actions

    def close(self, reason: str, now: float) -> list[Action]:
        """End every open slot with the best answer so far (shutdown, change of bundle)."""
        actions: list[Action] = []
        for slot in list(self._open):
            actions += self._cut_short(slot, reason, now)
        return actions

    @property
    def open_slots(self) -> int:
        """Slots that are not yet decided or expired."""
        return len(self._open)

    # -- the stages ------------------------------------------------------------------------

    def _advance(self, slot: int, now: float) -> list[Action]:
        """Take `slot` as far as it can go now."""
        state = self._open.get(slot)
        if state is None:
            return []
        out_of_time = now >= state.deadline
        if state.stage == "summaries":
            if not out_of_time and self.alive() - state.boots.keys():
                return []
            return self._after_summaries(slot, state, now)
        if state.stage == "features":
            waiting = state.asked - state.features.keys() - state.gone
            waiting = {member for member in waiting if self._up.get(member, True)}
            if waiting and not out_of_time:
                return []
            return self._after_features(slot, state, now)
        return self._decide_best(slot, "cloud_timeout", now) if out_of_time else []

    def _after_summaries(self, slot: int, state: _Slot, now: float) -> list[Action]:
        if not state.scores:
            return self._decide(slot, state, None, None, now)
        if self.sections.has_local:
            used = tuple(sorted(state.scores))
            self._judge_local(state)
            assert state.best is not None
            verdict = state.best[1]
            last = not (self.sections.has_edge or self.sections.has_cloud)
            if last or exits(verdict.entropy, self.sections.thresholds["local"]):
                return self._decide(slot, state, ("local", verdict, used), None, now)
        state.asked = set(state.scores)
        state.enter("features", now, self.config.features_wait_s)
        return [Request(member, slot) for member in sorted(state.asked)]

    def _judge_local(self, state: _Slot) -> None:
        scores = np.zeros((self.sections.members, self.sections.classes), np.uint8)
        mask = np.zeros(self.sections.members, np.uint8)
        for member, body in state.scores.items():
            scores[member] = np.frombuffer(body, np.uint8)
            mask[member] = 1
        verdict = judge(self.sections.local(scores, mask), self.sections.scales["local"])
        state.best = ("local", verdict, tuple(sorted(state.scores)))

    def _after_features(self, slot: int, state: _Slot, now: float) -> list[Action]:
        if not state.features:
            return self._decide_best(slot, "features_missing", now)
        used = tuple(sorted(state.features))
        bits = sum(1 << member for member in used)
        if not self.sections.has_edge:
            body = wire.pack_escalation(bits, [state.features[m] for m in used])
            state.enter("answer", now, self.config.answer_wait_s)
            return [Escalate(slot, body)]
        features = np.zeros((self.sections.members, self.sections.feature_bytes), np.uint8)
        mask = np.zeros(self.sections.members, np.uint8)
        for member in used:
            features[member] = np.frombuffer(state.features[member], np.uint8)
            mask[member] = 1
        logits, edge_features = self.sections.edge(features, mask)
        verdict = judge(logits, self.sections.scales["edge"])
        state.best = ("edge", verdict, used)
        if not self.sections.has_cloud or exits(verdict.entropy, self.sections.thresholds["edge"]):
            return self._decide_best(slot, None, now)
        state.enter("answer", now, self.config.answer_wait_s)
        return [Escalate(slot, wire.pack_escalation(1, [edge_features]))]

    # -- the ends --------------------------------------------------------------------------

    def _decide_best(self, slot: int, reason: str | None, now: float) -> list[Action]:
        state = self._open[slot]
        if state.best is None:
            self.counts["expired"] += 1
            self.counts[f"expired.{reason}"] += 1
            self._forget(slot)
            return []
        if reason is None and state.asked - state.features.keys():
            reason = "features_missing"
        return self._decide(slot, state, state.best, reason, now)

    def _decide(
        self,
        slot: int,
        state: _Slot,
        best: tuple[ExitName, Verdict, tuple[int, ...]] | None,
        degraded: str | None,
        now: float,
    ) -> list[Action]:
        state.stage_s[state.stage] = now - state.stage_began
        exit_name, verdict, used = best if best else (None, None, ())
        reported = state.boots.keys()
        decision = Decision(
            slot=slot,
            tag=self.sections.tag,
            label=verdict.label if verdict else None,
            probability=verdict.probability if verdict else None,
            entropy=verdict.entropy if verdict else None,
            threshold=self.sections.thresholds.get(exit_name) if exit_name else None,
            exit=exit_name,
            used=used,
            absent=tuple(sorted(state.absent)),
            missing=tuple(m for m in range(self.sections.members) if m not in reported),
            degraded=degraded,
            stage_s=state.stage_s,
            payload_bytes=state.payload_bytes,
        )
        self.counts["degraded" if degraded else "decided"] += 1
        self.counts[f"exit.{exit_name or 'nothing_seen'}"] += 1
        if degraded:
            self.counts[f"degraded.{degraded}"] += 1
        self._forget(slot)
        return [decision]

    def _cut_short(self, slot: int, reason: str, now: float) -> list[Action]:
        """Decide with whatever is there; used when there is no room or no time left."""
        state = self._open[slot]
        if state.stage == "summaries" and state.scores and self.sections.has_local:
            self._judge_local(state)
        if not state.scores:
            return self._decide(slot, state, None, reason, now)
        return self._decide_best(slot, reason, now)

    def _make_room(self, now: float) -> list[Action]:
        if len(self._open) < self.config.max_open_slots:
            return []
        return self._cut_short(next(iter(self._open)), "overload", now)

    def _forget(self, slot: int) -> None:
        reported = self._open.pop(slot).boots
        for member in self._misses.keys() - reported.keys():
            self._misses[member] += 1
        self._closed[slot] = None
        while len(self._closed) > self.config.remembered_slots:
            self._closed.popitem(last=False)

    def _acceptable(self, member: int, frame: Frame, kind: Kind) -> bool:
        if frame.kind is not kind:
            self.counts["malformed"] += 1
        elif not 0 <= member < self.sections.members:
            self.counts["unknown_member"] += 1
        elif frame.tag != self.sections.tag:
            self.counts["wrong_tag"] += 1
        else:
            return True
        return False
