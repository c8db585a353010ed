"""The promises, held against everything that happens, after every step."""

from __future__ import annotations

import json
from collections import deque

from ddnn import topics
from ddnn.decisions import decode
from tests.simulation.audits import AuditChecker
from tests.simulation.bundles import CLASSES, EXIT, label

#: Longest stay of a slot in the engine: its waits, one step, and what a busy node adds.
LONGEST_SLOT_S = 3.0 + 1.0 + 2.0 + 0.5
#: In a quiet phase: from a slot's beginning to its decision.
QUIET_LATENCY_S = 1.5


class Violation(Exception):
    """A promise was broken; the text begins with the seed."""


class Checker:
    """Sees every step of one world.

    Attributes:
        quiet_from: in a quiet phase: from when on full service is promised.
        cloud_gone_from: since when no worker can answer.
    """

    def __init__(self, world):
        self.world = world
        self.quiet_from = None
        self.cloud_gone_from = None
        self.disturbed_at = 0.0
        self.recorded = deque(maxlen=400)
        self.versions = {}
        self.audits = AuditChecker(self)
        self._ledger = {}
        self._cloud_waits = []

    def fail(self, what):
        self.world.violation(what)

    # -- the gateway, after each call --------------------------------------------------------

    def gateway(self, host):
        gateway = host.gateway
        engines = gateway.engines
        if not engines.all:
            return
        self.audits.gateway(host)
        if len(engines.all) > 2:
            self.fail("a third engine is kept")
        for engine in engines.all:
            self._engine(engine)
        if gateway.memory.counts["opened"] != len(host.ended):
            self.fail(
                f"the ledger says {gateway.memory.counts['opened']} slots ended; "
                f"{len(host.ended)} did"
            )
        limit = self.world.options.max_open_slots
        bound = limit * len(engines.all)
        if len(gateway.memory.open) > bound + len(gateway._waiting):
            self.fail(f"{len(gateway.memory.open)} slots are open; the bound is {bound}")
        if gateway.outbox.held_bytes > 60_000 or len(gateway.memory.recent) > 512:
            self.fail("the outbox or the recall memory is over its bound")
        if len(gateway.memory.closed) > 60 + limit + 1 or len(gateway.presence.workers) > 1000:
            self.fail("the memory of closed slots or workers is over its bound")
        deadline = gateway.next_deadline()
        awake_s = self.world.now - host.resumed_at
        if awake_s > 1.1 and deadline < host.mono - 1.1:
            self.fail(f"a slot is {host.mono - deadline:.3f} s over its deadline")

    def _engine(self, engine):
        tier = engine.tier
        counts = tier.counts
        ended = counts["decided"] + counts["degraded"] + counts["expired"]
        if counts["opened"] != ended + tier.open_slots:
            self.fail(f"the engine's ledger does not balance: {dict(counts)}")
        if tier.open_slots > self.world.options.max_open_slots:
            self.fail(f"{tier.open_slots} slots are open in one engine")
        if tier.held_bytes != sum(s.held_bytes for s in tier._open.values()):
            self.fail("the engine has lost count of its bytes")

    def opened(self, host, slot):
        """The engine has taken a frame of a slot that it had not heard of."""
        away_s = abs(slot * self.world.options.period_s - host.wall)
        if away_s > 30.0 + 1.0:
            self.fail(f"slot {slot} was opened, {away_s:.0f} s from the gateway's clock")

    def publishes(self, host, message):
        topic = message.topic
        if topic == topics.decision("s"):
            decision = decode(message.payload)
            if host.ended.get(decision.slot, (None,))[0] != message.payload:
                self.fail(f"slot {decision.slot} is published otherwise than it was decided")
        elif topic.startswith("s/q/"):
            member = int(topic.rpartition("/")[2])
            slot = int.from_bytes(message.payload[6:10], "little")
            state = host.gateway.engines.of(slot).tier._open.get(slot)
            if state is not None and member in state.absent:
                self.fail(f"camera {member} saw nothing in slot {slot} and is asked for features")
        self.audits.publishes(host, message)
        self.recorded.append((topic, message.payload))

    def ends(self, host, record):
        slot = record.slot
        if slot in host.ended:
            self.fail(f"slot {slot} ended twice")
        host.ended[slot] = (record.decision, self.world.now)
        if record.decision is None:
            return
        decision = decode(record.decision)
        if decision.label is not None:
            expected = CLASSES[label(slot, EXIT[decision.exit])]
            if decision.label != expected:
                self.fail(f"slot {slot} was decided as {decision.label}: another slot's views")
        self._check_stages(decision)
        lacks = decision.degraded or decision.missing
        if self.world.options.lossless and self.world.now > 10.0 and lacks:
            self.fail(f"a roll-out alone has cost something: {decision}")

    def _check_stages(self, decision):
        waited = sum(decision.stage_ms.values()) / 1000
        was_stopped = self.world.now - waited <= self.world.gateway.resumed_at
        if waited > LONGEST_SLOT_S + self.world.options.summary_delay_s and not was_stopped:
            self.fail(f"slot {decision.slot} stayed open for {waited:.1f} s")
        self._check_nobody_waits_for_the_dead(decision)
        gone = self.cloud_gone_from
        if gone is None or any(host.running for host in self.world.workers):
            self._cloud_waits.clear()
        elif "answer" in decision.stage_ms:
            self._cloud_waits.append(decision.slot)
            # What was under way, the failures that open the breaker, and probes.
            if len(self._cloud_waits) > 8 + (self.world.now - gone) / 3.0:
                self.fail("the cloud is dead and frames still wait for it")

    def _check_nobody_waits_for_the_dead(self, decision):
        """Known dead for a while, and nothing else going on: its slots complete at once."""
        devices, now = self.world.devices, self.world.now
        if now - self.disturbed_at < 8.0 or not decision.missing:
            return
        if any(device.link.jitter_s > 0.1 for device in devices):
            return  # a living one can be as late as that
        if all(not devices[member].running for member in decision.missing):
            waited_ms = decision.stage_ms["summaries"]
            # Its deadline was reached: a slow camera that did come completes it before that.
            if 499.0 < waited_ms < 600.0:  # backlog waits longer
                self.fail(f"slot {decision.slot} waited {waited_ms:.0f} ms for dead cameras")

    # -- over restarts -----------------------------------------------------------------------

    def restored(self, host):
        """A gateway has started from its journal; nothing that counts may be gone."""
        memory = host.gateway.memory
        if memory.counts["opened"] != len(host.ended):
            self.fail(
                f"after a restart the ledger says {memory.counts['opened']} slots ended; "
                f"{len(host.ended)} did"
            )
        for slot in host.accepted:
            if slot not in host.ended and slot not in memory.open:
                self.fail(f"slot {slot} was accepted, and a restart has forgotten it")
        for slot, (decision, _) in list(host.ended.items())[-100:]:
            if slot not in memory.closed:
                self.fail(f"slot {slot} has ended, and a restart has forgotten it")
            if decision and slot not in host.acknowledged and slot not in memory.unsent:
                self.fail(f"the decision of slot {slot} was not acknowledged and is forgotten")

    # -- others ------------------------------------------------------------------------------

    def consumed(self, consumer, payload):
        decision = decode(payload)
        before = consumer.decisions.setdefault(decision.slot, payload)
        if before != payload:
            self.fail(f"a consumer was told two different decisions for slot {decision.slot}")

    def device(self, host):
        """After each view."""
        box = host.camera.outbox
        if box.held_bytes > 400 or len(box) > 40 or len(host.camera._recent) > 20:
            self.fail(f"{host.name} keeps more than its bounds allow")
        times = host.backlog_times
        while times and times[0] < self.world.now - 2.0:
            times.pop(0)
        if len(times) > 2 * 4 + 5:
            self.fail(f"{host.name} sent {len(times)} backlog messages in two seconds")
        running = host.feed.version
        if running is not None and host.feed.record is not None:
            if running < self.versions.get(host.name, 0):
                self.fail(f"{host.name} went back to bundle version {running}")
            self.versions[host.name] = running

    # -- the end of a quiet phase ------------------------------------------------------------

    def all_is_well(self):
        world = self.world
        host, period_s = world.gateway, world.options.period_s
        version = world.publisher.version
        for one in (host, *world.devices, *world.workers):
            if one.feed.version != version:
                self.fail(f"{one.name} runs version {one.feed.version}, not {version}")
        begun = 10.0 if world.options.lossless else self.quiet_from + 1.0
        first = int((1_800_000_000.0 + begun) / period_s)
        last = int((1_800_000_000.0 + world.now - 5.0 - world.options.summary_delay_s) / period_s)
        everyone = set(range(world.options.cameras))
        for slot in range(first, last):
            payload, at = host.ended.get(slot, (None, None))
            if payload is None:
                self.fail(f"slot {slot} of a quiet phase was not decided")
            said = json.loads(payload)
            if said["degraded"] or set(said["used"]) | set(said["absent"]) != everyone:
                if not said["degraded"] and said["exit"] == "edge":
                    continue  # not all need be asked when a few are enough
                self.fail(f"slot {slot} of a quiet phase lacks something: {payload.decode()}")
            took = at - (slot * period_s - 1_800_000_000.0)
            if took > QUIET_LATENCY_S + world.options.summary_delay_s:
                self.fail(f"slot {slot} of a quiet phase took {took:.2f} s")
        for slot, at in host.accepted.items():
            if (
                slot not in host.ended
                and world.now - at > LONGEST_SLOT_S + 1.0 + world.options.summary_delay_s
            ):
                self.fail(f"slot {slot} was accepted and neither decided nor expired")
        for slot, (payload, at) in host.ended.items():
            if payload is not None and world.now - at > 5.0:
                if slot not in host.acknowledged:
                    self.fail(f"the decision of slot {slot} never reached the broker")
                if slot not in world.consumer.decisions:
                    self.fail(f"the decision of slot {slot} never reached the consumer")
        self.audits.all_is_well(host)
        # Bounded memory for the checker as well: what is settled is not looked at again.
        host.accepted.clear()
