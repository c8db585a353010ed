"""The hosts of a simulated site: thin shells, as the services are, around the very same rules."""

from __future__ import annotations

import math

import msgspec

from cloud_service.worker import Worker
from ddnn import status, topics
from ddnn.bundle import chunks
from ddnn.errors import BundleError
from ddnn.journal import Ended, read
from ddnn.message import Publish
from ddnn.models import ModelFeed
from ddnn.tier import TierConfig
from ddnn.trust import Home, Trust
from device_agent.agent import Agent
from device_agent.camera import Camera, CameraRules
from device_agent.pacing import Pacer
from edge_gateway.audits import AuditRules
from edge_gateway.effects import Fault, Keep, in_order
from edge_gateway.gateway import Gateway, GatewayRules
from edge_gateway.probation import Probation
from edge_gateway.rollouts import Rollouts, announce
from edge_gateway.trial import TrialRules
from tests.simulation.bundles import (
    CLASSES,
    CloudSection,
    DeviceSection,
    GatewaySections,
    bundle,
    depth,
    view,
)
from tests.simulation.checker import Violation
from tests.simulation.network import Client, Link

SITE = "s"
EPOCH_S = 1_800_000_000.0


class Disk:
    """What a node keeps over its restarts, as `ddnn.store.BundleStore` does."""

    def __init__(self):
        self.kept = self.staged = self.record = None
        self.chunks = {}

    def load(self, roles):
        return self.kept

    def load_staged(self, roles):
        if self.staged and self.kept and self.staged.manifest.version > self.kept.manifest.version:
            return self.staged
        return None

    def stage(self, bundle):
        self.staged = bundle
        self.chunks.clear()

    def promote(self, bundle):
        self.kept, self.staged = bundle, self.kept

    def keep_chunk(self, sha256, number, data):
        self.chunks[sha256, number] = data

    def chunk(self, sha256, number):
        return self.chunks.get((sha256, number))

    def forget_chunks(self, keep):
        self.chunks = {key: data for key, data in self.chunks.items() if key[0] in keep}

    def keep_activation(self, payload):
        self.record = payload

    def activation(self):
        return self.record


class Runner:
    """What a host does with bundles."""

    def __init__(self, stage, switch, try_out=lambda complete, every: None):
        self.stage = stage
        self.switch = switch
        self.try_out = try_out

    def begun(self, complete):
        pass


class Host:
    """A machine: two clocks, a link, a disk, and a process that may die, hang and start again."""

    def __init__(self, world, name):
        self.world = world
        self.name = name
        self.link = Link()
        self.disk = Disk()
        self.wall_offset = 0.0
        self.mono_base = world.rng.random() * 1000
        self.client = None
        self.life = 0
        self.resumed_at = 0.0

    @property
    def wall(self):
        return EPOCH_S + self.world.now + self.wall_offset

    @property
    def mono(self):
        return self.world.now + self.mono_base

    @property
    def running(self):
        return self.client is not None and self.client.paused is None

    def crash(self):
        """kill -9"""
        if self.client is None:
            return
        self.life += 1
        client, self.client = self.client, None
        client.die()

    def start(self):
        if self.client is None:
            self.boot = self.world.rng.randrange(2**16)
            self.boot_up()
            if self.client:  # it may have died on the way
                self.client.start()

    def pause(self):
        if self.running:
            self.client.pause()

    def resume(self):
        if self.client is not None and self.client.paused is not None:
            self.resumed_at = self.world.now
            self.client.resume()

    def connect(self, client_id, node_topic, offline):
        self.client = Client(
            self.world,
            client_id,
            self.link,
            will=(node_topic, status.encode(offline)),
            on_up=self.guarded(self.on_up),
            on_down=self.guarded(self.on_down),
        )

    def guarded(self, function):
        """Nothing that arrives may make a node raise; a call for a life that is over is not made.

        As in the real client, an exception ends only the call.
        """
        life = self.life

        def call(*args):
            if self.life == life and self.client is not None:
                try:
                    return function(*args)
                except Violation:
                    raise
                except Exception as error:
                    self.world.violation(f"{self.name} raised {type(error).__name__}: {error}")
            return None

        return call

    def follow_models(self, roles, runner, **options):
        """What the services do: the bundle on disk, then the site's topics."""
        home = Home(SITE, "device", "simulated", "1.0.0")
        self.feed = ModelFeed(
            self.client, SITE, roles, runner, Trust(home, unsigned="it is a simulation"),
            store=self.disk, changed=self.report, wall=lambda: self.wall, **options,
        )  # fmt: skip
        for owner, name in (
            (self.feed, "on_manifest"), (self.feed, "on_active"), (self.feed.fetcher, "on_chunk"),
        ):  # fmt: skip
            setattr(owner, name, self.guarded(getattr(owner, name)))
        self.feed.start()

    def on_up(self):
        self.report()

    def on_down(self):
        pass

    def report(self):
        pass


class Device(Host):
    """A camera."""

    def __init__(self, world, number):
        super().__init__(world, f"device-{number}")
        self.number = number
        self.step_in_view = 0.0
        self.refuses = set()
        self.start()

    def boot_up(self):
        rules = self.world.options
        together = int(rules.summary_delay_s / rules.period_s)
        self.agent = Agent(self.number, self.boot, 16 + together, self.make_section)
        self.camera = Camera(
            CameraRules(
                SITE, rules.period_s, outbox_bytes=400, outbox_age_s=30.0, backlog_per_s=4.0,
                unsure_s=6.0, delay_s=rules.summary_delay_s,
            ),
            self.agent,
            Pacer(rules.period_s, live=True),
        )  # fmt: skip
        node = topics.status(SITE, self.name)
        offline = status.Status(node=self.name, state="offline", boot=self.boot)
        self.connect(self.name, node, offline)
        self.client.subscribe(topics.request(SITE, self.number), self.guarded(self.on_request))
        roles = {f"device/{self.number}"}
        self.follow_models(lambda _: roles, self.agent, period_s=rules.period_s)
        self.backlog_times = []
        self.world.after(0.01, self.guarded(self.tick))

    def make_section(self, info, data):
        section = DeviceSection(info, data)
        if section.version in self.refuses:
            raise BundleError("failed its self-test")
        return section

    def tick(self):
        if self.client.paused is not None:
            self.world.after(0.5, self.guarded(self.tick))
            return
        self.feed.on_time()
        due = self.camera.due(self.wall, self.mono)
        if due is None or due > 0.0:
            self.carry_out(self.camera.on_time(self.mono))
            self.world.after(min(1.0 if due is None else due + 1e-6, 1.0), self.guarded(self.tick))
            return
        slot = self.camera.begin(self.wall, self.mono)
        offset = self.wall_offset
        took_s = 0.02 + 0.06 * self.world.rng.random()
        if self.step_in_view:
            step, self.step_in_view = self.step_in_view, 0.0
            self.world.after(took_s / 2, setattr, self, "wall_offset", offset + step)
        self.world.after(took_s, self.guarded(self.finish), slot, offset)

    def finish(self, slot, offset):
        options = self.world.options
        # What is in the view is what the clock says when it is taken.
        shown = int(self.wall / options.period_s)
        image = None
        if self.world.rng.random() >= options.absent:
            image = view(shown, depth(shown, options.shares))
        summary = self.agent.view(slot, image)
        shadow = self.agent.shadow(slot, image)
        sent = self.camera.finish(slot, summary, self.wall, self.mono, shadow)
        if offset != self.wall_offset and any(m.receipt is None for m in sent):
            self.world.violation(f"{self.name} sent a view taken across a clock step")
        self.world.frames += 1
        self.carry_out(sent)
        self.world.checker.device(self)
        self.tick()

    def carry_out(self, messages):
        for message in messages:
            self.world.checker.recorded.append((message.topic, message.payload))
            if message.receipt is None:
                self.client.send(message)
                continue
            self.backlog_times.append(self.world.now)
            slot = message.receipt
            acknowledge = self.guarded(self.camera.sent)
            if not self.client.send(message, lambda slot=slot, f=acknowledge: f(slot)):
                self.camera.unsent(slot)

    def on_request(self, message):
        self.carry_out(self.camera.on_request(message, self.wall))

    def on_up(self):
        self.camera.on_connected()
        self.report()

    def on_down(self):
        self.camera.on_disconnected(self.mono)

    def report(self):
        if not hasattr(self, "feed") or self.client is None:
            return
        report = status.Status(
            node=self.name, state="online", boot=self.agent.boot, bundle=self.feed.bundle_id,
            staged=self.feed.staged_id, refused_id=self.feed.refused_id, refused=self.feed.refused,
        )  # fmt: skip
        topic = topics.status(SITE, self.name)
        self.client.send(Publish(topic, status.encode(report), qos=1, retain=True))


class GatewayHost(Host):
    """The gateway and its journal, which outlives it."""

    def __init__(self, world):
        super().__init__(world, "gateway")
        self.journal = bytearray()
        self.disk_full = False
        self.journal_is_behind = False
        self.rewrite_next = False
        self.journal_limit = 0
        self.crash_after_effects = None
        self.accepted = {}
        self.ended = {}
        self.acknowledged = set()
        self.start()

    def boot_up(self):
        options = self.world.options
        rules = GatewayRules(
            site=SITE,
            period_s=options.period_s,
            window_s=30.0,
            tier=TierConfig(max_open_slots=options.max_open_slots, ask_at_once=options.ask_at_once),
            outbox_bytes=60_000,
            outbox_age_s=600.0,
            recall_decisions=512,
            audits=AuditRules(share=options.audit_share, key=self.boot.to_bytes(2, "little")),
            summary_delay_s=options.summary_delay_s,
        )
        self.gateway = Gateway(rules, self.boot, bytes(self.journal), self.mono)
        self.check_restored()
        self.rewrite_next = True  # the first record writes it anew
        self.wake_at = None
        self.inbox = []
        node = topics.status(SITE, "gateway")
        self.connect("gateway", node, status.Status(node="gateway", state="offline", boot=0))
        on_message = self.guarded(self.on_message)
        for topic_filter in (
            topics.summary_filter(SITE),
            topics.features_filter(SITE),
            topics.answer(SITE),
            topics.status_filter(SITE),
            topics.worker_status_filter(),
            topics.settings(SITE),
            topics.recall(SITE),
        ):
            self.client.subscribe(topic_filter, on_message)
        self.rollouts = Rollouts(
            SITE, options.period_s, "gateway", patience_s=20.0, canary_every=options.canary_every
        )
        self.trial_rules = TrialRules(every=options.canary_every, slots=8)
        if not options.lossless:  # nobody can pass while everything breaks
            self.trial_rules = TrialRules(
                every=options.canary_every, slots=8, agreement=0.0, entropy_shift=1.0,
                slower_s=100.0, errors=1.0,
            )  # fmt: skip
        if options.canary_every:
            self.gateway.probation = Probation(self.trial_rules)
        self.staged = None
        self.follow_models(
            lambda manifest: {info.role for info in manifest.sections},
            Runner(self.stage, self.switch, self.try_out),
            period_s=options.period_s, overheard=self.rollouts.on_message,
        )  # fmt: skip
        self.guarded(self.tick)()

    def crash(self):
        if not self.disk_full and not self.journal_is_behind:
            super().crash()

    def check_restored(self):
        """What the new process knows must be what the journal was told."""
        if self.world.checker:
            self.world.checker.restored(self)

    # -- calls into the rules ----------------------------------------------------------------

    def on_message(self, message):
        self.inbox.append(message)
        if len(self.inbox) == 1:
            self.world.after(0.0, self.guarded(self.handle))

    def handle(self):
        """As `GatewayService._handle`: what comes at the same moment is one turn."""
        inbox, self.inbox = self.inbox, []
        effects = []
        for message in inbox:
            if "/status/" in message.topic:
                self.rollouts.on_message(message)
            garbage = message.payload in self.world.garbage
            before = self.fingerprint() if garbage else None
            effects += self.gateway.on_message(message, self.mono, self.wall)
            if garbage and self.fingerprint() != before:
                self.world.violation(f"garbage on {message.topic} changed more than a counter")
        self.carry_out(effects)
        for engine in self.gateway.engines.all if self.client else ():
            for slot in engine.tier._open:
                if slot not in self.accepted:
                    self.accepted[slot] = self.world.now
                    self.world.checker.opened(self, slot)
        self.after_call()

    def tick(self):
        if self.client.paused is None:
            self.carry_out(self.gateway.on_time(self.mono, self.wall))
            self.after_call()
            if self.client:
                self.conduct()
        self.world.after(1.0, self.guarded(self.tick))

    def conduct(self):
        """As `GatewayService._conduct`."""
        feed, engines = self.feed, self.gateway.engines
        feed.on_time()
        trial, probation = self.gateway.trial, self.gateway.probation
        plan = None
        if self.gateway.clock.is_set:
            plan = self.rollouts.plan(
                self.mono, self.wall, active=feed.active, staged=feed.staged, record=feed.record,
                highest_slot=engines.highest, settled=engines.settled,
                trial=(trial.bundle_id, trial.verdict()) if trial else None,
                failed=probation.verdict if probation else None,
            )  # fmt: skip
        reminders = self.rollouts.assertions(
            self.mono, active=feed.active, staged=feed.staged, record=feed.record
        )
        if plan is not None:
            feed.decide(plan)
            if self.client:
                self.client.send(announce(SITE, plan))
        for message in reminders if self.client else ():
            self.client.send(message)

    def wake(self, at):
        if at == self.wake_at:
            if self.client.paused is not None:
                self.world.after(0.2, self.guarded(self.wake), at)
                return
            self.wake_at = None
            self.carry_out(self.gateway.on_time(self.mono, self.wall))
            self.after_call()

    def after_call(self):
        if self.client is None:
            return
        deadline = self.gateway.next_deadline()
        if deadline < math.inf:
            at = deadline - self.mono_base + 1e-6
            if at <= self.world.now:
                at = self.world.now + 0.02
            if self.wake_at is None or at < self.wake_at:
                self.wake_at = at
                self.world.at(at, self.guarded(self.wake), at)
        self.world.checker.gateway(self)

    def stage(self, complete):
        self.staged = complete, GatewaySections(complete, self.world.options.cameras)

    def switch(self, complete, from_slot):
        staged, sections = self.staged
        if self.gateway.move_switch(complete.bundle_id, from_slot):
            return
        if staged.bundle_id == complete.bundle_id:
            self.carry_out(
                self.gateway.activate(
                    sections, CLASSES, self.mono, self.wall,
                    bundle_id=staged.bundle_id, from_slot=from_slot,
                )
            )  # fmt: skip
            self.after_call()

    def try_out(self, complete, every):
        if complete is None or not self.staged or self.staged[0].bundle_id != complete.bundle_id:
            self.gateway.end_trial()
        else:
            self.gateway.begin_trial(complete.bundle_id, self.staged[1], self.trial_rules)
            self.world.counts["trials"] += 1

    def on_up(self):
        self.rollouts.on_connected(self.mono)
        self.carry_out(self.gateway.on_connected(self.mono))
        self.report()

    def on_down(self):
        self.rollouts.on_disconnected()
        self.gateway.on_disconnected()

    def acknowledge(self, slot):
        self.acknowledged.add(slot)
        self.carry_out(self.gateway.sent(slot, self.mono))

    def report(self):
        if not hasattr(self, "feed") or self.client is None:
            return
        report = status.Status(
            node="gateway", state="online", boot=self.boot, bundle=self.feed.bundle_id
        )
        topic = topics.status(SITE, "gateway")
        self.client.send(Publish(topic, status.encode(report), qos=1, retain=True))

    # -- effects -----------------------------------------------------------------------------

    def carry_out(self, effects):
        """As `GatewayService._carry_out`."""
        for effect in in_order(effects):
            if self.client is None:
                return
            if self.crash_after_effects is not None:
                self.crash_after_effects -= 1
                if self.crash_after_effects < 0:
                    self.crash_after_effects = None
                    # The promise does not cover a full disk at the same time.
                    if not self.disk_full and not self.journal_is_behind:
                        if isinstance(effect, Keep) and not self.rewrite_next:
                            # Killed in the middle of a write: part of the records is there.
                            cut = self.world.rng.randrange(len(effect.data))
                            self.journal += effect.data[:cut]
                        self.crash()
                        return
            if isinstance(effect, Keep):
                self.keep(effect.data)
                continue
            if isinstance(effect, Fault):
                self.world.violation(f"{self.name}: error while {effect.what}: {effect.error!r}")
                continue
            self.world.checker.publishes(self, effect)
            if effect.receipt is None:
                self.client.send(effect)
                continue
            acknowledge = self.guarded(self.acknowledge)
            slot = effect.receipt
            if not self.client.send(effect, lambda slot=slot, f=acknowledge: f(slot)):
                self.gateway.unsent(slot)

    def keep(self, data):
        for record in read(data).records:
            if isinstance(record, Ended):
                self.world.checker.ends(self, record)
        if self.disk_full:
            self.journal_is_behind = True
        elif self.journal_is_behind or self.rewrite_next or len(self.journal) > self.journal_limit:
            self.journal = bytearray(self.gateway.snapshot())
            self.journal_limit = max(60_000, 2 * len(self.journal))
            self.journal_is_behind = self.rewrite_next = False
        else:
            self.journal += data

    def fingerprint(self):
        gateway, tier = self.gateway, self.gateway.tier
        open_slots = tuple(
            (slot, state.stage, len(state.boots), len(state.features), len(state.asked))
            for engine in gateway.engines.all
            for slot, state in engine.tier._open.items()
        )
        return (
            open_slots,
            len(gateway.memory.closed),
            len(gateway.outbox),
            gateway.breaker.state,
            tuple(sorted(tier.thresholds.items())) if tier else (),
            tuple(sorted(gateway.presence.nodes.items())),
        )


class WorkerHost(Host):
    """A cloud worker."""

    def __init__(self, world, number):
        super().__init__(world, f"cloud-{number}")
        self.start()

    def boot_up(self):
        self.worker = Worker(CloudSection)
        node = topics.worker_status(self.name)
        self.connect(self.name, node, status.Status(node=self.name, state="offline", boot=0))
        self.client.subscribe(topics.escalation_filter("cloud"), self.guarded(self.on_escalation))
        self.follow_models(
            lambda _: {"cloud"},
            Runner(
                lambda made: self.worker.stage(SITE, made),
                lambda made, from_slot: self.worker.switch(SITE, made),
            ),
        )

    def on_escalation(self, message):
        answer = self.worker.answer(SITE, message.payload)
        if answer is not None:
            delay = 0.01 + 0.05 * self.world.rng.random()
            reply = Publish(topics.answer(SITE), answer, qos=1, correlation=message.correlation)
            self.world.after(delay, self.guarded(lambda: self.client.send(reply)))

    def report(self):
        if not hasattr(self, "feed") or self.client is None:
            return
        sites = {SITE: self.feed.bundle_id} if self.feed.bundle_id else {}
        staged = {SITE: self.feed.staged_id} if self.feed.staged_id else {}
        refused = {SITE: self.feed.refused} if self.feed.refused else {}
        report = status.Status(
            node=self.name, state="online", boot=self.boot, sites=sites, sites_staged=staged,
            sites_refused=refused,
        )  # fmt: skip
        topic = topics.worker_status(self.name)
        self.client.send(Publish(topic, status.encode(report), qos=1, retain=True))


class Consumer(Host):
    """Something that wants every decision once: it recalls what it may have missed."""

    def __init__(self, world):
        super().__init__(world, "consumer")
        self.decisions = {}
        self.since = 0
        self.start()

    def boot_up(self):
        self.connect("consumer", "ddnn/s/status/consumer", status.Status(
            node="consumer", state="offline", boot=0))  # fmt: skip
        self.client.subscribe(topics.decision(SITE), self.guarded(self.on_decision))
        topic = topics.status(SITE, "gateway")
        self.client.subscribe(topic, self.guarded(self.on_gateway))

    def on_decision(self, message):
        self.world.checker.consumed(self, message.payload)

    def on_gateway(self, message):
        report = status.decode(message.payload)
        if report and report.state == "online":
            self.recall()

    def on_down(self):
        self.since = max(self.decisions, default=0) - 60

    def on_up(self):
        self.recall()

    def recall(self):
        payload = msgspec.json.encode({"from_slot": self.since})
        self.client.send(Publish(topics.recall(SITE), payload, qos=1))


class Publisher(Host):
    """Whoever pushes bundles. When the broker has forgotten them it is the gateway that knows."""

    def __init__(self, world):
        super().__init__(world, "publisher")
        self.version = 1
        self.start()

    def boot_up(self):
        self.connect("publisher", "ddnn/s/status/publisher", status.Status(
            node="publisher", state="offline", boot=0))  # fmt: skip

    def on_up(self):
        if self.world.checker is None or not self.world.gateway.disk.kept:
            self.publish(self.version)

    def publish(self, version, *, damaged=False):
        """Sections first, manifest last, all retained."""
        made = bundle(version, self.world.options.cameras)
        for info in made.manifest.sections:
            for number, data in enumerate(chunks(made.sections[info.role])):
                payload = data[:-1] + b"x" if damaged else data
                topic = topics.section(SITE, info.sha256, number)
                self.client.send(Publish(topic, payload, qos=1, retain=True, keep=True))
        topic = topics.manifest(SITE)
        self.client.send(Publish(topic, made.payload, qos=1, retain=True, keep=True))


def stranger(world):
    """A client that sends what nobody should believe."""
    client = Client(world, "stranger", Link())
    client.start()
    return client
