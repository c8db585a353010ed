"""Bugs planted on purpose, to show that the checker sees each of them.

Each is one plausible mistake in production code, made by replacing a method with pytest's
`monkeypatch`.
"""

from __future__ import annotations

from cloud_service.worker import _Served
from ddnn.breaker import Breaker
from ddnn.clock import ClockMonitor
from ddnn.journal import Ended, Memory, Sent
from ddnn.members import Members
from ddnn.models import ModelFeed
from ddnn.outbox import Outbox
from ddnn.rollout import Stager
from ddnn.slots import ClosedSlots
from ddnn.tier import Decision, Tier
from ddnn.wire import Kind
from device_agent.agent import Agent
from device_agent.camera import Camera
from edge_gateway.audits import Audits
from edge_gateway.effects import Keep, in_order
from edge_gateway.engines import Engines
from edge_gateway.frames import FrameReader
from edge_gateway.gateway import Gateway
from edge_gateway.rollouts import Rollouts
from edge_gateway.trial import Trial


def closed_slots_are_forgotten(patch):
    """A late or repeated frame opens its slot a second time."""
    patch.setattr(ClosedSlots, "__contains__", lambda self, slot: False)


def closed_slots_are_forgotten_at_a_change_of_bundle(patch):
    patch.setattr(ClosedSlots, "copy", lambda self: ClosedSlots(self._limit))


def bundle_tag_is_not_checked(patch):
    right = Tier._acceptable

    def wrong(self, member, frame, kind):
        return right(self, member, frame._replace(tag=self.sections.tag), kind)

    patch.setattr(Tier, "_acceptable", wrong)


def deadlines_are_ignored(patch):
    patch.setattr(Tier, "on_time", lambda self, now: [])


def absent_cameras_are_asked(patch):
    right = Tier._begin_asking

    def wrong(self, slot, state, now):
        for member in state.absent:
            state.scores[member] = bytes(self.sections.classes)
        return right(self, slot, state, now)

    patch.setattr(Tier, "_begin_asking", wrong)


def dead_cameras_are_waited_for(patch):
    patch.setattr(Members, "alive", lambda self: set(range(len(self._misses))))
    patch.setattr(Members, "down", lambda self, member: False)


def a_report_does_not_bring_a_camera_back(patch):
    patch.setattr(Members, "reported", lambda self, member: None)


def duplicates_are_counted_twice(patch):
    """A repeated summary is taken as one more, and its slot's ledger entry too."""
    right = Tier.on_summary

    def wrong(self, member, slot, frame, now, **options):
        state = self._open.get(slot)
        if state is not None and member in state.boots:
            self.counts["opened"] += 1
        return right(self, member, slot, frame, now, **options)

    patch.setattr(Tier, "on_summary", wrong)


def open_slots_are_not_bounded(patch):
    patch.setattr(Tier, "_is_full", lambda self, more_bytes: False)


def journal_is_not_read(patch):
    patch.setattr(Gateway, "_read", lambda self, journal, now: setattr(self, "_waiting", []))


def decisions_leave_before_they_are_journalled(patch):
    def wrong(effects):
        return sorted(in_order(effects), key=lambda effect: isinstance(effect, Keep))

    patch.setattr("tests.simulation.hosts.in_order", wrong)


def accepted_frames_are_not_journalled(patch):
    right = Gateway._remember

    def wrong(self, record):
        right(self, record)
        if not isinstance(record, (Ended, Sent)):
            self._effects.pop()

    patch.setattr(Gateway, "_remember", wrong)


def unsent_decisions_are_not_sent_after_a_reconnect(patch):
    def wrong(self, now):
        self.connected = True
        return []

    patch.setattr(Gateway, "on_connected", wrong)
    patch.setattr(Gateway, "sent", lambda self, slot, now: [])


def unsent_decisions_are_lost_at_a_restart(patch):
    right = Gateway._read

    def wrong(self, journal, now):
        right(self, journal, now)
        self.memory.unsent.clear()
        self.outbox.clear()

    patch.setattr(Gateway, "_read", wrong)


def ledger_is_lost_at_a_rotation(patch):
    right = Memory.records

    def wrong(self):
        base, *rest = right(self)
        return [type(base)({}, base.floor, base.closed), *rest]

    patch.setattr(Memory, "records", wrong)


def breaker_never_opens(patch):
    patch.setattr(Breaker, "_open", lambda self, now, pause_s: None)


def breaker_never_closes(patch):
    patch.setattr(Breaker, "take", lambda self, now: self.state == "closed")
    patch.setattr(Breaker, "succeeded", lambda self: None)


def answers_of_a_former_process_are_believed(patch):
    """And of any slot: the correlation is not looked at either."""
    right = Gateway._on_answer

    def wrong(self, message, now, wall):
        received = self._reader.read(message.payload, wall)
        if received is None or self.tier is None:
            return []
        frame, _ = received
        for engine in self.engines.all:
            for waiting, state in engine.tier._open.items():
                if state.stage == "answer":
                    actions = engine.tier.on_answer(waiting, frame, now)
                    return self._carry_out(engine, actions, now)
        return right(self, message, now, wall)

    patch.setattr(Gateway, "_on_answer", wrong)


def slot_window_is_not_checked(patch):
    """A clock that is an hour wrong fills the memory of closed slots and the site's answers."""
    patch.setattr(FrameReader, "is_near", lambda self, slot, wall: True)


def features_ring_gives_whatever_is_in_the_place(patch):
    def wrong(self, request, near):
        with self._lock:
            if request.kind is not Kind.REQUEST or request.tag != self._tag:
                return None
            from ddnn import wire

            place = (request.slot - 1) % self._ring_slots
            return wire.encode(
                Kind.FEATURES, tag=self._tag, boot=self._boot, slot=request.slot,
                body=self._ring[place].tobytes(),
            )  # fmt: skip

    patch.setattr(Agent, "features", wrong)


def clock_steps_are_not_noticed(patch):
    patch.setattr(ClockMonitor, "look", lambda self, wall, now: 0.0)
    patch.setattr(ClockMonitor, "is_set", True)


def views_across_a_clock_step_are_sent(patch):
    right = Camera._look

    def wrong(self, wall, now):
        right(self, wall, now)
        return 0.0

    patch.setattr(Camera, "_look", wrong)


def outbox_is_not_bounded(patch):
    patch.setattr(Outbox, "_pop_oldest", lambda self: _drop_nothing(self))


def _drop_nothing(outbox):
    outbox._max_bytes *= 2
    return next(iter((outbox._in_flight or outbox._waiting).values()))


def backlog_leaves_all_at_once(patch):
    right = Camera.on_time

    def wrong(self, now):
        self._allowance = 1000.0
        self.outbox._max_in_flight = 1000
        self.rules = self.rules._replace(backlog_per_s=1000.0)
        return right(self, now)

    patch.setattr(Camera, "on_time", wrong)


def older_bundle_is_taken(patch):
    right = Stager.offer_manifest

    def wrong(self, payload, signatures=()):
        if payload == self._running:
            return None
        self._running = None
        return right(self, payload)

    patch.setattr(Stager, "offer_manifest", wrong)
    patch.setattr(ModelFeed, "_highest", property(lambda self: 0, lambda self, value: None),
                  raising=False)  # fmt: skip
    follow = ModelFeed.follow

    def obey(self, record):
        self.record = None
        return follow(self, record)

    patch.setattr(ModelFeed, "follow", obey)


def cameras_change_as_soon_as_they_hear_of_it(patch):
    right = Agent.switch
    patch.setattr(Agent, "switch", lambda self, bundle, from_slot: right(self, bundle, 0))


def gateway_changes_as_soon_as_it_plans_to(patch):
    right = Engines.move
    patch.setattr(Engines, "move", lambda self, from_slot: right(self, 0))


def nobody_is_waited_for_before_a_change(patch):
    patch.setattr(Rollouts, "_not_ready", lambda self, active, staged: ([], {}))


def worker_serves_the_newest_bundle_only(patch):
    def wrong(self):
        self.sections = {t: s for t, s in self.sections.items() if t == (self.staged or t)}

    patch.setattr(_Served, "_keep_three", wrong)


def broker_is_not_reminded_of_what_it_forgot(patch):
    patch.setattr(Rollouts, "assertions", lambda self, now, **state: [])


def frames_of_a_trial_count(patch):
    """What a bundle on trial decides is published as the site's decision."""
    right = Gateway._carry_out_trial

    def wrong(self, actions):
        engine = self.engines.newest
        ended = [a for a in actions if isinstance(a, Decision)]
        right(self, actions)
        self._carry_out(engine, ended, 0.0)

    patch.setattr(Gateway, "_carry_out_trial", wrong)


def trial_never_ends(patch):
    patch.setattr(Trial, "verdict", lambda self: None)


def audits_decide(patch):
    """What the deepest exit says in an audit is published as the site's decision."""
    right = Audits._complete

    def wrong(self, slot, deeper):
        self.deeper = deeper
        return right(self, slot, deeper)

    patch.setattr(Audits, "_complete", wrong)
    publish = Gateway._carry_out_audits

    def also(self, actions):
        publish(self, actions)
        if deeper := self.audits.__dict__.pop("deeper", None):
            self._end_decided(self.engines.of(deeper.slot), deeper, 0.0)

    patch.setattr(Gateway, "_carry_out_audits", also)


def audits_come_before_their_decision(patch):
    right = Gateway._end_decided

    def wrong(self, engine, decision, now):
        before, self._effects = self._effects, []
        right(self, engine, decision, now)
        decided, self._effects = self._effects, before
        for one in self.audits.take_chosen():
            self._begin_audit(one, now)
        self._effects += decided

    patch.setattr(Gateway, "_end_decided", wrong)


def audits_go_on_with_the_newest_bundle(patch):
    right = Audits.begin
    newest = {}
    activate = Gateway.activate

    def remember(self, *args, **options):
        effects = activate(self, *args, **options)
        newest[id(self.audits)] = self.engines
        return effects

    def wrong(self, chosen, frames, now, strained):
        engine = newest[id(self)].newest
        tag = engine.tier.sections.tag
        frames = [(member, frame._replace(tag=tag)) for member, frame in frames]
        return right(self, chosen._replace(engine=engine), frames, now, strained)

    patch.setattr(Gateway, "activate", remember)
    patch.setattr(Audits, "begin", wrong)


def audits_wait_for_ever(patch):
    patch.setattr(Audits, "on_time", lambda self, now: [])


def everything_is_audited(patch):
    patch.setattr("edge_gateway.audits.is_chosen", lambda *values: True)


def answer_of_an_audit_is_taken_for_any_other(patch):
    right = Audits.on_answer

    def wrong(self, slot, frame, now):
        return right(self, next(iter(self._open)), frame, now)

    patch.setattr(Audits, "on_answer", wrong)


def staged_bundle_is_never_run(patch):
    patch.setattr(Rollouts, "plan", lambda self, now, wall, **state: None)


#: The bug, and the scenario (`tests.simulation.scenarios`) in which it must be caught.
BUGS = {
    bug.__name__: (bug, scenario)
    for bug, scenario in (
        (closed_slots_are_forgotten, "gateway"),
        (closed_slots_are_forgotten_at_a_change_of_bundle, "gateway"),
        (bundle_tag_is_not_checked, "bundles"),
        (deadlines_are_ignored, "cameras"),
        (absent_cameras_are_asked, "cameras"),
        (dead_cameras_are_waited_for, "cameras"),
        (a_report_does_not_bring_a_camera_back, "cameras"),
        (duplicates_are_counted_twice, "network"),
        (open_slots_are_not_bounded, "overload"),
        (journal_is_not_read, "gateway"),
        (decisions_leave_before_they_are_journalled, "gateway"),
        (accepted_frames_are_not_journalled, "gateway"),
        (unsent_decisions_are_not_sent_after_a_reconnect, "network"),
        (unsent_decisions_are_lost_at_a_restart, "gateway"),
        (ledger_is_lost_at_a_rotation, "gateway"),
        (breaker_never_opens, "cloud"),
        (breaker_never_closes, "cloud"),
        (answers_of_a_former_process_are_believed, "cloud"),
        (slot_window_is_not_checked, "clocks"),
        (features_ring_gives_whatever_is_in_the_place, "cameras"),
        (clock_steps_are_not_noticed, "clocks"),
        (views_across_a_clock_step_are_sent, "clocks"),
        (outbox_is_not_bounded, "network"),
        (backlog_leaves_all_at_once, "network"),
        (older_bundle_is_taken, "bundles"),
        (cameras_change_as_soon_as_they_hear_of_it, "roll-outs alone"),
        (gateway_changes_as_soon_as_it_plans_to, "roll-outs alone"),
        (nobody_is_waited_for_before_a_change, "roll-outs alone"),
        (worker_serves_the_newest_bundle_only, "roll-outs alone"),
        (broker_is_not_reminded_of_what_it_forgot, "network"),
        (staged_bundle_is_never_run, "bundles"),
        (audits_decide, "audits alone"),
        (audits_come_before_their_decision, "audits alone"),
        (audits_go_on_with_the_newest_bundle, "audits alone"),
        (audits_wait_for_ever, "audits"),
        (everything_is_audited, "everything"),
        (answer_of_an_audit_is_taken_for_any_other, "audits"),
        (frames_of_a_trial_count, "trials"),
        (trial_never_ends, "trials"),
    )
}
