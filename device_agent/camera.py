"""The rules of one camera: when a view is taken, what of it is sent, and what waits. No I/O.

One view's way, from top to bottom: `due` says when; `begin` names its slot; the agent makes its
summary; `finish` sends it, or puts it aside while the broker is away, and hands out a few of those
that were put aside.

**Delay.** With `delay_s` a summary waits for others, and those of several slots leave in one
message (`ddnn.summaries`). Slots are grouped by their numbers, so that all cameras of a site send
at the same time and its gateway has a slot's reports together. A group leaves when its last slot
has been shown, at the latest when its time is over.

**Outages.** A summary that could not be sent goes to a bounded outbox and is sent afterwards,
flagged BACKLOG, acknowledged (QoS 1), at most `backlog_per_s` a second, after the fresh one. When
a connection is lost, the summaries of the last `unsure_s` seconds join them: QoS 0 does not tell
which of those arrived, and the gateway knows a repeat when it sees one.

**Clocks.** While the clock is not set nothing is shown. When it steps, slot numbers from before
mean something else: the agent takes a new boot id and an empty ring, so that a request for an old
slot cannot be answered with a new view; what waits is dropped; a view that was taken across the
step is dropped. All of it is counted.
"""

from __future__ import annotations

from collections import deque
from typing import NamedTuple

from ddnn import summaries, topics, wire
from ddnn.clock import ClockMonitor
from ddnn.errors import WireError
from ddnn.message import Message, Publish
from ddnn.outbox import Outbox
from ddnn.wire import Flag
from device_agent.agent import Agent
from device_agent.pacing import Pacer


class CameraRules(NamedTuple):
    """What a camera must know.

    Attributes:
        outbox_bytes, outbox_age_s: summaries kept while the broker is away. Older ones than the
            gateway's slot window would be refused.
        backlog_per_s: how fast they leave afterwards.
        unsure_s: how long a summary may have been on a dead connection without notice.
        delay_s: how long one may wait for others to share its message.
    """

    site: str
    period_s: float
    outbox_bytes: int = 65_536
    outbox_age_s: float = 30.0
    backlog_per_s: float = 20.0
    unsure_s: float = 10.0
    delay_s: float = 0.0

    @property
    def slots_per_message(self) -> int:
        """How many slots' summaries share a message."""
        return summaries.slots_per_message(self.delay_s, self.period_s)


class Camera:
    """One camera's rules around its agent.

    Methods other than `on_request` must not be called from two threads at once.

    Args:
        rules: of the site.
        agent: makes summaries and features.
        pacer: names the slots.
    """

    def __init__(self, rules: CameraRules, agent: Agent, pacer: Pacer) -> None:
        self.rules = rules
        self.agent = agent
        self.pacer = pacer
        self.clock = ClockMonitor(tolerance_s=max(0.05, min(0.25, rules.period_s / 2)))
        self.connected = False
        self.outbox = Outbox(
            max_bytes=rules.outbox_bytes,
            max_age_s=rules.outbox_age_s,
            max_in_flight=max(1, int(rules.backlog_per_s)),
            counts=agent.counts,
        )
        self._topic = topics.summary(rules.site, agent.camera)
        self._recent: deque[tuple[float, int, bytes]] = deque()
        self._allowance = 0.0
        self._allowed_at: float | None = None
        self._group = rules.slots_per_message
        self._held: list[tuple[int, bytes]] = []
        self._held_until = 0.0

    # -- views -----------------------------------------------------------------------------

    def due(self, wall: float, now: float) -> float | None:
        """Seconds until the next view; None while the clock is not set."""
        self._look(wall, now)
        if not self.clock.is_set:
            return None
        return self.pacer.next(wall)[1]

    def begin(self, wall: float, now: float) -> int:
        """The slot of the view that is taken now."""
        self._look(wall, now)
        slot, _ = self.pacer.next(wall)
        self.pacer.shown(slot)
        return slot

    def finish(
        self, slot: int, summary: bytes | None, wall: float, now: float, shadow: bytes | None = None
    ) -> list[Publish]:
        """The view of `slot` gave this summary (None: none); what is to be sent now.

        Args:
            shadow: the summary of a bundle on trial: sent now or not at all.
        """
        if self._look(wall, now):
            self.agent.counts["dropped_clock_step"] += 1
            return []
        sent: list[Publish] = []
        if summary is not None:
            if self.connected:
                sent += self._hold(slot, summary, wall, now)
            else:
                self._put_aside(slot, summary, now)
        if shadow is not None and self.connected:
            sent.append(Publish(self._topic, shadow))
        while self._recent and now - self._recent[0][0] > self.rules.unsure_s:
            self._recent.popleft()
        return sent + self.on_time(now)

    def _hold(self, slot: int, summary: bytes, wall: float, now: float) -> list[Publish]:
        """Let a summary wait for others of its group; the messages that are due now."""
        sent: list[Publish] = []
        if self._held and not self._shares(slot, summary):
            sent += self._let_go(now)
        if not self._held:
            over = (slot // self._group + 1) * self._group * self.rules.period_s
            self._held_until = now + max(0.0, over - wall)
        self._held.append((slot, summary))
        return sent + (self._let_go(now) if (slot + 1) % self._group == 0 else [])

    def _shares(self, slot: int, summary: bytes) -> bool:
        """Whether it can share a message with those that are held: group, bundle and boot."""
        last, held = self._held[-1]
        same = held[2:6] == summary[2:6]  # bundle tag and boot id
        return same and slot > last and slot // self._group == last // self._group

    def _let_go(self, now: float) -> list[Publish]:
        """Send what is held."""
        held, self._held = self._held, []
        message = summaries.join([summary for _, summary in held])
        self._recent.extend((now, slot, summary) for slot, summary in held)
        self.agent.counts["summaries_sent"] += len(held)
        self.agent.counts["payload_bytes"] += len(message)
        return [Publish(self._topic, message)]

    def close(self, now: float) -> list[Publish]:
        """Send what is held (the process ends)."""
        return self._let_go(now) if self._held and self.connected else []

    def on_request(self, message: Message, wall: float) -> list[Publish]:
        """The gateway asks for features. May be called while a view is taken."""
        try:
            frame = wire.decode(message.payload)
        except WireError:
            self.agent.counts["malformed"] += 1
            return []
        answer = self.agent.features(frame, int(wall / self.rules.period_s))
        if answer is None:
            return []
        self.agent.counts["payload_bytes"] += len(answer)
        return [Publish(topics.features(self.rules.site, self.agent.camera), answer, qos=1)]

    # -- outages ---------------------------------------------------------------------------

    def on_connected(self) -> None:
        """The broker is there (again)."""
        self.connected = True

    def on_disconnected(self, now: float) -> None:
        """The connection was lost, perhaps some time ago."""
        if self.connected:
            for sent_at, slot, summary in self._recent:
                if now - sent_at <= self.rules.unsure_s:
                    self._put_aside(slot, summary, now)
            for slot, summary in self._held:
                self._put_aside(slot, summary, now)
        self._held.clear()
        self._recent.clear()
        self.connected = False

    def on_time(self, now: float) -> list[Publish]:
        """Hand out what waits: a group whose time is over; backlog as slowly as the rules say."""
        sent = self._let_go(now) if self._held and now >= self._held_until else []
        before = now if self._allowed_at is None else self._allowed_at
        self._allowed_at = now
        allowance = self._allowance + (now - before) * self.rules.backlog_per_s
        self._allowance = min(allowance, self.rules.backlog_per_s)
        self.outbox.expire(now)
        if not self.connected or self._allowance < 1.0:
            return sent
        held = self.outbox.take(now, int(self._allowance))
        self._allowance -= len(held)
        for one in held:
            self.agent.counts["backlog_sent"] += 1
            self.agent.counts["payload_bytes"] += len(one.payload)
        return sent + [
            Publish(self._topic, one.payload, qos=1, keep=True, receipt=one.key) for one in held
        ]

    def sent(self, slot: int) -> None:
        """The broker has acknowledged the backlog summary of `slot`."""
        self.outbox.acknowledged(slot)

    def unsent(self, slot: int) -> None:
        """The client could not take the backlog summary of `slot`: it waits again."""
        self.outbox.give_back(slot)

    def _put_aside(self, slot: int, summary: bytes, now: float) -> None:
        flagged = summary[:1] + bytes([summary[1] | Flag.BACKLOG]) + summary[2:]
        self.agent.counts["put_aside"] += 1
        self.outbox.put(slot, flagged, now)

    # -- clocks ----------------------------------------------------------------------------

    def _look(self, wall: float, now: float) -> float:
        step = self.clock.look(wall, now)
        if step:
            self.agent.counts["clock_steps"] += 1
            self.agent.restart()
            self.agent.counts["outbox.relabelled"] += self.outbox.clear()
            self._recent.clear()
            self.agent.counts["dropped_clock_step"] += len(self._held)
            self._held.clear()
            self.pacer.clock_stepped()
        return step
