"""The engine of a node: members' messages in, requests and decisions out.

Pure: no clock, socket, disk or log. The shell passes the time in with every call and carries out
the actions that come back. One frame's way, from top to bottom:

1. `on_summary` opens the slot with the first member's report. The summary stage ends when every
   member believed alive has reported, or `summary_wait_s` after the slot opened; that much later
   as members may hold reports back to send several in one message.
2. The local exit judges the scores of the members that saw something. Sure: decided.
3. Otherwise those members are asked for their features, and only those: all at once, or a few at
   a time, the ones with the clearest scores first, until the edge exit is sure. The stage ends
   when all who were asked have answered, or after `features_wait_s`.
4. The edge section judges the features. Sure: decided. Otherwise its own features go to the
   cloud (without an edge section: the members' features), if the breaker permits.
5. The cloud's answer decides. If it does not come within `answer_wait_s`, the best answer so far
   is decided, marked degraded with the reason.

Every slot ends exactly once: decided, decided degraded, expired when no exit could say anything,
or passed on to the parent (`Passed`). `counts` holds the ledger:
opened = decided + degraded + expired + passed + still open.

A node with a parent is a member of it and decides nothing: after step 1 it reports its own scores
(`Report`), and when the parent asks (`on_parent_request`) it goes through step 3, runs its edge
section and hands up its edge exit's scores and its features (`Feed`), by which the parent judges
its own edge exit before it calls the cloud. So nodes can be stacked to any depth.

A decision is made of one bundle only: a frame with another tag is counted and dropped. What the
engine keeps is bounded: `max_open_slots` slots and `max_open_bytes` of frames (the oldest slot is
decided early, degraded), and the numbers of the last `remembered_slots` closed ones, to know a
late frame from a new slot.

Where a section raises, its slot ends at once with the best answer so far, degraded `error`, or
expired; `Failed` tells of it. No other slot feels it.

A BACKLOG frame (sent late, after an outage) may open or complete a slot like any other, as long as
that slot has not ended; it never costs a fresh slot its place, and what is missing in such a slot
says nothing of who is alive.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Callable, Iterable
from typing import Any

from ddnn import wire
from ddnn.actions import (
    I32,
    Action,
    Decision,
    Escalate,
    ExitName,
    Expired,
    Failed,
    Feed,
    NodeSections,
    Passed,
    Report,
    Request,
    Stage,
    TierConfig,
)
from ddnn.breaker import Breaker
from ddnn.deadlines import Deadlines
from ddnn.errors import WireError
from ddnn.exit_rule import Verdict, exits, judge
from ddnn.members import Members
from ddnn.scores import clearness, quantise
from ddnn.slots import ClosedSlots
from ddnn.wire import Flag, Frame, Kind

__all__ = [
    "I32",
    "Action",
    "Decision",
    "Escalate",
    "ExitName",
    "Expired",
    "Failed",
    "Feed",
    "NodeSections",
    "Passed",
    "Report",
    "Request",
    "Tier",
    "TierConfig",
]

#: As plain integers: an operation on an enumeration's member costs a microsecond per frame.
_ABSENT, _BACKLOG, _UNSERVED = int(Flag.ABSENT), int(Flag.BACKLOG), int(Flag.UNSERVED)
_PARTIAL = int(Flag.PARTIAL)

Best = tuple[ExitName, Verdict, tuple[int, ...]]


class _Slot:
    """What is known of one open slot."""

    __slots__ = (
        "absent", "asked", "best", "boots", "escalation", "features", "gone",
        "held_bytes", "late", "partial", "payload_bytes", "scores", "stage", "stage_began",
        "stage_s", "step", "steps_left", "verdicts",
    )  # fmt: skip

    def __init__(self, now: float, *, late: bool) -> None:
        self.stage: Stage = "summaries"
        self.stage_began = now
        self.stage_s: dict[Stage, float] = {}
        self.late = late
        self.scores: dict[int, bytes] = {}
        self.absent: set[int] = set()
        self.boots: dict[int, int] = {}
        self.asked: set[int] = set()
        self.step: set[int] = set()
        self.steps_left: list[list[int]] = []
        self.features: dict[int, bytes] = {}
        self.gone: set[int] = set()
        self.partial = False
        self.best: Best | None = None
        self.verdicts: dict[ExitName, Verdict] = {}
        self.escalation = b""
        self.payload_bytes = 0
        self.held_bytes = 0

    def say(self, exit_name: ExitName, verdict: Verdict, used: Iterable[int]) -> None:
        """An exit has judged: the deepest one so far is the best."""
        self.best = exit_name, verdict, tuple(sorted(used))
        self.verdicts[exit_name] = verdict

    def enter(self, stage: Stage, now: float) -> None:
        self.stage_s[self.stage] = now - self.stage_began
        self.stage, self.stage_began = stage, now


class Tier:
    """The engine of one node over one bundle's sections.

    Every `on_...` method takes `now` (seconds, monotonic) and returns the actions to carry out,
    in order. Nothing that arrives raises; what is not understood is counted.

    Args:
        sections: of one bundle.
        config: times and bounds.
        breaker: asked before each escalation, told of each outcome; None: always escalate.
        closed: slots that have ended before, shared with whoever else remembers them.
        has_parent: whether this node reports to another one.

    Attributes:
        counts: ledger and counters. `accepted` counts the frames that changed anything.
        thresholds: of the local and edge exits; may be changed at any time.
    """

    def __init__(
        self,
        sections: NodeSections,
        config: TierConfig | None = None,
        *,
        breaker: Breaker | None = None,
        closed: ClosedSlots | None = None,
        has_parent: bool = False,
    ) -> None:
        self.sections = sections
        self.config = config or TierConfig()
        self.counts: Counter[str] = Counter()
        self.thresholds: dict[ExitName, float] = dict(sections.thresholds)
        self.held_bytes = 0
        self._breaker = breaker or Breaker(failures=2**62)
        self._closed = ClosedSlots(self.config.remembered_slots) if closed is None else closed
        self._has_parent = has_parent
        self._open: OrderedDict[int, _Slot] = OrderedDict()
        self._deadlines = Deadlines()
        self._members = Members(sections.members, self.config.silent_after_slots)

    # -- members ---------------------------------------------------------------------------

    def on_member(self, member: int, up: bool, now: float) -> list[Action]:
        """A member's availability changed (birth or will)."""
        if not 0 <= member < self.sections.members:
            self.counts["unknown_member"] += 1
            return []
        self._members.said(member, up)
        if up:
            return []
        actions: list[Action] = []
        for slot in list(self._open):
            actions += self._advance(slot, now)
        return actions

    def alive(self) -> frozenset[int]:
        """Members worth waiting for."""
        return self._members.alive()

    # -- messages --------------------------------------------------------------------------

    def on_summary(
        self,
        member: int,
        slot: int,
        frame: Frame,
        now: float,
        *,
        delay_s: float = 0.0,
        head_bytes: int = wire.HEADER_BYTES,
    ) -> list[Action]:
        """A member reports on `slot`.

        Args:
            delay_s: how much longer other members may hold their reports back.
            head_bytes: what it cost beside its body.
        """
        if not self._acceptable(member, frame, Kind.SUMMARY):
            return []
        absent = bool(frame.flags & _ABSENT)
        backlog = bool(frame.flags & _BACKLOG)
        wanted = 0 if absent else self.sections.score_bytes
        if len(frame.body) != wanted:
            self.counts["malformed"] += 1
            return []
        if not backlog:
            self._members.reported(member)
        if slot in self._closed:
            self.counts["late_backlog" if backlog else "late"] += 1
            return []
        actions: list[Action] = []
        state = self._open.get(slot)
        if state is None:
            actions += self._make_room(len(frame.body), now, backlog=backlog)
            if backlog and self._is_full(len(frame.body)):
                self.counts["backlog_refused"] += 1
                return actions
            wait_s = self.config.backlog_wait_s if backlog else self.config.summary_wait_s + delay_s
            state = _Slot(now, late=backlog)
            self._open[slot] = state
            self._deadlines.set(slot, now + wait_s)
            self.counts["opened"] += 1
        elif member in state.boots:
            self.counts["duplicate"] += 1
            return []
        elif state.stage != "summaries":
            self.counts["late_backlog" if backlog else "late"] += 1
            return []
        state.boots[member] = frame.boot
        if absent:
            state.absent.add(member)
        else:
            state.scores[member] = frame.body
        self._accepted(state, frame, head_bytes)
        return actions + self._shed(now) + self._advance(slot, now)

    def on_features(self, member: int, slot: int, frame: Frame, now: float) -> list[Action]:
        """A member sends the features it was asked for."""
        if not self._acceptable(member, frame, Kind.FEATURES):
            return []
        gone = bool(frame.flags & _ABSENT)  # asked too late: the member's ring has moved on
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
            state.partial |= bool(frame.flags & _PARTIAL)
        self._accepted(state, frame, wire.HEADER_BYTES)
        return self._shed(now) + self._advance(slot, now)

    def on_answer(self, slot: int, frame: Frame, now: float) -> list[Action]:
        """The cloud answers an escalation."""
        if frame.kind is not Kind.ANSWER or frame.tag != self.sections.tag:
            self.counts["wrong_tag" if frame.kind is Kind.ANSWER else "malformed"] += 1
            return []
        state = self._open.get(slot)
        if state is None or state.stage != "answer":
            self.counts["late"] += 1
            return []
        if frame.flags & _UNSERVED:
            # It lives, but until it has the bundle every call would be in vain.
            self._breaker.failed(now)
            return self._decide_best(slot, "cloud_lacks_bundle", now)
        try:
            logits = wire.unpack_logits(frame.body, self.sections.classes)
        except WireError:
            self.counts["malformed"] += 1
            return []
        self._breaker.succeeded()
        return self._guarded(self._after_answer, slot, state, logits, now)

    def escalate_again(self) -> list[Action]:
        """Ask the cloud again what it has not answered: the worker that was asked has died.

        The deadlines stay; a second answer is late and does no harm.
        """
        return [
            Escalate(slot, state.escalation)
            for slot, state in self._open.items()
            if state.stage == "answer"
        ]

    def on_parent_request(self, slot: int, now: float) -> list[Action]:
        """The parent asks for this node's features of `slot`."""
        state = self._open.get(slot)
        if state is None:
            self.counts["late" if slot in self._closed else "unasked"] += 1
            return [Feed(slot, None)] if self._has_parent and slot in self._closed else []
        if state.stage != "parent":
            self.counts["duplicate"] += 1
            return []
        return self._begin_asking(slot, state, now)

    # -- time ------------------------------------------------------------------------------

    def next_deadline(self) -> float:
        """When `on_time` has something to do next; infinite: nothing."""
        return self._deadlines.next()

    def on_time(self, now: float) -> list[Action]:
        """Move on every slot whose stage has run out of time."""
        actions: list[Action] = []
        for slot in self._deadlines.over(now):
            actions += self._advance(slot, now)
        return actions

    def close(self, reason: str, now: float) -> list[Action]:
        """End every open slot with the best answer so far (shutdown, change of bundle)."""
        actions: list[Action] = []
        for slot in list(self._open):
            actions += self._guarded(self._cut_short, slot, reason, now)
        return actions

    def ended_elsewhere(self, slot: int) -> None:
        """Another engine has ended `slot`: a late frame of it opens nothing here."""
        self._closed.add(slot)

    @property
    def open_slots(self) -> int:
        """Slots that have not ended."""
        return len(self._open)

    # -- the stages ------------------------------------------------------------------------

    def _guarded(self, step: Callable[..., list[Action]], slot: int, *rest: Any) -> list[Action]:
        """Do this with `slot`. What raises ends it, and nothing else.

        A step makes its actions at its end, so that none is lost. Left open, the slot would raise
        again at each look at the deadlines, and after each restart.
        """
        try:
            return step(slot, *rest)
        except Exception as error:
            return [Failed(slot, error), *self._give_up(slot, rest[-1])]

    def _give_up(self, slot: int, now: float) -> list[Action]:
        state = self._open.get(slot)
        if state is None:
            return []
        if self._has_parent:
            return self._pass_on(slot, Feed(slot, None) if state.stage == "features" else None)
        return self._decide_best(slot, "error", now)

    def _advance(self, slot: int, now: float) -> list[Action]:
        """Take `slot` as far as it can go now."""
        return self._guarded(self._next_step, slot, now) if slot in self._open else []

    def _next_step(self, slot: int, now: float) -> list[Action]:
        state = self._open[slot]
        out_of_time = self._deadlines.is_over(slot, now)
        if state.stage == "summaries":
            if not out_of_time and not self.alive() <= state.boots.keys():
                return []
            return self._after_summaries(slot, state, now)
        if state.stage == "features":
            waiting = state.step - state.features.keys() - state.gone
            if not out_of_time and any(not self._members.down(member) for member in waiting):
                return []
            return self._after_step(slot, state, now)
        if not out_of_time:
            return []
        if state.stage == "parent":
            return self._pass_on(slot, None)
        self._breaker.failed(now)
        return self._decide_best(slot, "cloud_timeout", now)

    def _after_summaries(self, slot: int, state: _Slot, now: float) -> list[Action]:
        if self._has_parent:
            return self._report(slot, state, now)
        if not state.scores:
            return self._decide(slot, state, None, None, now)
        if self.sections.has_local:
            self._judge_local(state)
            assert state.best is not None
            last = not (self.sections.has_edge or self.sections.has_cloud)
            if last or exits(state.best[1].entropy, self.thresholds["local"]):
                return self._decide(slot, state, state.best, None, now)
        if not self.sections.has_edge and not self._breaker.permits(now):
            # Features have nowhere to go: asking for them would be traffic for nothing.
            return self._decide_best(slot, "cloud_down", now)
        return self._begin_asking(slot, state, now)

    def _judge_local(self, state: _Slot) -> None:
        logits = self._local_logits(state)
        verdict = judge(logits, self.sections.scales["local"])
        state.say("local", verdict, state.scores)

    def _local_logits(self, state: _Slot) -> I32:
        return self.sections.local(*self._rows(state.scores, self.sections.classes))

    def _rows(self, bodies: dict[int, bytes], size: int) -> tuple[bytes, bytes]:
        """Members' bodies of `size` bytes -> (M, size), 0 where there is none; mask (M,)."""
        members = range(self.sections.members)
        nothing = bytes(size)
        joined = b"".join([bodies.get(member, nothing) for member in members])
        return joined, bytes([member in bodies for member in members])

    def _begin_asking(self, slot: int, state: _Slot, now: float) -> list[Action]:
        state.enter("features", now)
        order = sorted(state.scores)
        at_once = self.config.ask_at_once
        if at_once and self.sections.has_edge and not self._has_parent:
            order.sort(key=lambda member: -clearness(state.scores[member]))
            state.steps_left = [order[i : i + at_once] for i in range(0, len(order), at_once)]
        else:
            state.steps_left = [order]
        return self._ask_next(slot, state, now)

    def _ask_next(self, slot: int, state: _Slot, now: float) -> list[Action]:
        """Ask the next step's members. The steps left share the time left evenly."""
        end = state.stage_began + self.config.features_wait_s
        self._deadlines.set(slot, now + max(0.0, end - now) / len(state.steps_left))
        # Only these are waited for; those of the step before have had their time.
        state.step = set(state.steps_left.pop(0))
        state.asked |= state.step
        return [Request(member, slot) for member in sorted(state.step)]

    def _after_step(self, slot: int, state: _Slot, now: float) -> list[Action]:
        """All asked so far have answered, or this step's time is over."""
        if state.steps_left and now < state.stage_began + self.config.features_wait_s:
            if state.features:
                self._judge_edge(state)
                assert state.best is not None
                if exits(state.best[1].entropy, self.thresholds["edge"]):
                    return self._decide_best(slot, None, now)
            return self._ask_next(slot, state, now)
        return self._after_features(slot, state, now)

    def _after_features(self, slot: int, state: _Slot, now: float) -> list[Action]:
        if not state.features:
            if self._has_parent:
                return self._pass_on(slot, Feed(slot, None))
            return self._decide_best(slot, "features_missing", now)
        if not self.sections.has_edge:
            used = sorted(state.features)
            body = wire.pack_escalation(
                sum(1 << member for member in used), [state.features[m] for m in used]
            )
            return self._escalate(slot, state, body, now)
        logits, upward = self._judge_edge(state)
        if self._has_parent:
            scores = quantise(logits, self.sections.scales["edge"]).tobytes()
            partial = state.partial or bool(state.asked - state.features.keys())
            return self._pass_on(slot, Feed(slot, scores + upward[0], partial))
        assert state.best is not None
        if not self.sections.has_cloud or exits(state.best[1].entropy, self.thresholds["edge"]):
            return self._decide_best(slot, None, now)
        members = sorted(upward)
        body = wire.pack_escalation(sum(1 << m for m in members), [upward[m] for m in members])
        return self._escalate(slot, state, body, now)

    def _judge_edge(self, state: _Slot) -> tuple[I32, dict[int, bytes]]:
        rows = self._rows(state.features, self.sections.feature_bytes)
        logits, upward = self.sections.edge(*rows)
        verdict = judge(logits, self.sections.scales["edge"])
        state.say("edge", verdict, state.features)
        return logits, upward

    def _after_answer(self, slot: int, state: _Slot, logits: I32, now: float) -> list[Action]:
        verdict = judge(logits, self.sections.scales["cloud"])
        state.say("cloud", verdict, state.features)
        return self._decide_best(slot, None, now)

    def _escalate(self, slot: int, state: _Slot, body: bytes, now: float) -> list[Action]:
        if not self._breaker.take(now):
            return self._decide_best(slot, "cloud_down", now)
        state.enter("answer", now)
        self._deadlines.set(slot, now + self.config.answer_wait_s)
        state.escalation = body
        return [Escalate(slot, body)]

    # -- with a parent ---------------------------------------------------------------------

    def _report(self, slot: int, state: _Slot, now: float) -> list[Action]:
        if not state.scores:
            return self._pass_on(slot, Report(slot, None, state.late))
        scores = b""
        if self.sections.has_local:
            logits = self._local_logits(state)
            scores = quantise(logits, self.sections.scales["local"]).tobytes()
        wait_s = self.config.parent_wait_s + state.late * self.config.backlog_wait_s
        state.enter("parent", now)
        self._deadlines.set(slot, now + wait_s)
        return [Report(slot, scores, state.late)]

    def _pass_on(self, slot: int, action: Action | None) -> list[Action]:
        """End a slot whose decision is the parent's."""
        self.counts["passed"] += 1
        self._forget(slot)
        return [action, Passed(slot)] if action else [Passed(slot)]

    # -- the ends --------------------------------------------------------------------------

    def _decide_best(self, slot: int, reason: str | None, now: float) -> list[Action]:
        state = self._open[slot]
        if state.best is None:
            assert reason is not None
            self.counts["expired"] += 1
            self.counts[f"expired.{reason}"] += 1
            self._forget(slot)
            return [Expired(slot, reason)]
        if reason is None and (state.partial or state.asked - state.features.keys()):
            reason = "features_missing"
        return self._decide(slot, state, state.best, reason, now)

    def _decide(
        self, slot: int, state: _Slot, best: Best | None, degraded: str | None, now: float
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
            threshold=self.thresholds.get(exit_name) if exit_name else None,
            exit=exit_name,
            used=used,
            absent=tuple(sorted(state.absent)),
            missing=tuple(m for m in range(self.sections.members) if m not in reported),
            degraded=degraded,
            stage_s=state.stage_s,
            payload_bytes=state.payload_bytes,
            verdicts=state.verdicts,
        )
        self.counts["degraded" if degraded else "decided"] += 1
        self.counts[f"exit.{exit_name or 'nothing_seen'}"] += 1
        if degraded:
            self.counts[f"degraded.{degraded}"] += 1
        self._forget(slot)
        return [decision]

    def _cut_short(self, slot: int, reason: str, now: float) -> list[Action]:
        """End it with whatever is there; used when there is no room or no time left."""
        state = self._open[slot]
        if self._has_parent:
            if state.stage == "summaries" and state.scores:
                return [*self._report(slot, state, now), *self._pass_on(slot, None)]
            feed = Feed(slot, None) if state.stage == "features" else None
            return self._pass_on(slot, feed)
        if state.stage == "summaries" and state.scores and self.sections.has_local:
            self._judge_local(state)
        if not state.scores:
            return self._decide(slot, state, None, reason, now)
        return self._decide_best(slot, reason, now)

    # -- bounds ----------------------------------------------------------------------------

    def _is_full(self, more_bytes: int) -> bool:
        return (
            len(self._open) >= self.config.max_open_slots
            or self.held_bytes + more_bytes > self.config.max_open_bytes
        )

    def _make_room(self, more_bytes: int, now: float, *, backlog: bool) -> list[Action]:
        """End the oldest slots until one more fits; a backlog slot ends no fresh one."""
        actions: list[Action] = []
        while self._open and self._is_full(more_bytes):
            victim = self._victim()
            if backlog and not self._open[victim].late:
                break
            actions += self._guarded(self._cut_short, victim, "overload", now)
        return actions

    def _shed(self, now: float) -> list[Action]:
        """End the oldest slots until what is held is within its bound again."""
        actions: list[Action] = []
        while self._open and self.held_bytes > self.config.max_open_bytes:
            actions += self._guarded(self._cut_short, self._victim(), "overload", now)
        return actions

    def _victim(self) -> int:
        """The slot to end early: the oldest backlog, else the oldest."""
        late = (slot for slot, state in self._open.items() if state.late)
        return next(late, next(iter(self._open)))

    def _accepted(self, state: _Slot, frame: Frame, head_bytes: int) -> None:
        state.payload_bytes += head_bytes + len(frame.body)
        state.held_bytes += len(frame.body)
        self.held_bytes += len(frame.body)
        self.counts["accepted"] += 1

    def _forget(self, slot: int) -> None:
        state = self._open.pop(slot)
        self._deadlines.drop(slot)
        self.held_bytes -= state.held_bytes
        if not state.late:
            self._members.slot_ended(state.boots.keys())
        self._closed.add(slot)

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
