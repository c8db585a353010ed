"""What goes wrong in a chaos phase: each fault begins at some time and ends by itself."""

from __future__ import annotations

from ddnn import topics, wire
from ddnn.message import Publish
from ddnn.wire import Kind
from tests.simulation.bundles import bundle
from tests.simulation.hosts import EPOCH_S, SITE, Disk

#: Promised: full service this long after any fault has ended ...
RECOVERY_S = 10.0
#: ... and after a clock was wrong, when all slots that were named by it are over.
CLOCK_RECOVERY_S = 40.0


def plan(world):
    """Draw the faults of one chaos phase.

    Returns:
        How long after the end of the phase full service is promised.
    """
    options, rng = world.options, world.rng
    names = sorted(FAULTS if options.kinds is None else options.kinds)
    worst = RECOVERY_S
    for _ in range(options.faults):
        name = rng.choice(names)
        if name.startswith("clock"):
            worst = CLOCK_RECOVERY_S
        begin = rng.random() * options.chaos_s * 0.8
        longest = options.chaos_s - begin
        world.after(begin, _begin, world, name, min(longest, 1.0 + rng.random() * 30.0))
    return worst


def _begin(world, name, seconds):
    world.counts[f"fault.{name}"] += 1
    for end in (0.0, *next((e for part, e in _ENDS.items() if part in name), ()), seconds):
        world.after(min(end, seconds), _disturbed, world)
    FAULTS[name](world, seconds)


#: Faults that end before their time is over, by part of their name.
_ENDS = {"crash": (8.0, 12.0), "broker": (20.0,), "roll": (10.0,), "1970": (1.0,)}


def _disturbed(world):
    world.checker.disturbed_at = world.now


def end_all(world):
    """The end of a chaos phase: whatever still goes wrong stops now."""
    if not world.broker.up:
        world.broker.start()
    gateway = world.gateway
    gateway.disk_full = False
    gateway.crash_after_effects = None
    for host in world.devices:
        host.step_in_view = 0.0
    for host in world.hosts:
        host.wall_offset = 0.0
        if host.link.cut:
            (host.client.heal if host.client else _just_heal(host))()
        calm(host.link)
        host.resume()
        host.start()
    _push_again_what_is_lost(world)


def _push_again_what_is_lost(world):
    """As a person does whose `ddnn publish` has said that it did not succeed.

    Only where neither the broker nor the gateway has the newest bundle any more: whatever one of
    them still has must get everywhere without help.
    """
    newest = bundle(world.publisher.version, world.options.cameras)
    offered = world.broker.retained.get(topics.manifest(SITE))
    feed = world.gateway.feed
    if offered != newest.payload and newest.bundle_id not in (feed.bundle_id, feed.staged_id):
        publish_again(world)


def _just_heal(host):
    def heal():
        host.link.cut = False

    return heal


def calm(link):
    link.loss = link.repeat = 0.0
    link.delay_s = link.jitter_s = 0.005


# -- processes -------------------------------------------------------------------------------


def crash(choose):
    def fault(world, seconds):
        host = choose(world)
        host.crash()
        world.after(min(seconds, 8.0), host.start)

    return fault


def device_dead(world, seconds):
    """A camera is away for longer than it takes to know it."""
    host = device(world)
    host.crash()
    world.after(seconds, host.start)


def crash_in_the_middle(world, seconds):
    """The gateway dies between two effects of one call."""
    world.gateway.crash_after_effects = world.rng.randrange(40)
    world.after(min(seconds, 12.0), world.gateway.start)


def hang(choose):
    def fault(world, seconds):
        host = choose(world)
        host.pause()
        world.after(seconds, host.resume)

    return fault


def no_worker(world, seconds):
    for host in world.workers:
        host.crash()
        world.after(seconds, host.start)
    world.checker.cloud_gone_from = world.now
    world.after(seconds, setattr, world.checker, "cloud_gone_from", None)


def all_workers_hang(world, seconds):
    """Nobody says that they are gone."""
    for host in world.workers:
        host.pause()
        world.after(seconds, host.resume)
    world.checker.cloud_gone_from = world.now
    world.after(seconds, setattr, world.checker, "cloud_gone_from", None)


# -- network ---------------------------------------------------------------------------------


def broker_killed(forget):
    def fault(world, seconds):
        world.broker.kill(forget_retained=forget)
        world.after(min(seconds, 20.0), world.broker.start)

    return fault


def partition(choose):
    def fault(world, seconds):
        host = choose(world)
        if host.client is None or host.link.cut:
            return
        host.client.cut()
        world.after(seconds, lambda: host.client.heal() if host.client else _just_heal(host)())

    return fault


def bad_network(world, seconds):
    """Loss, repeats, delay and overtaking on every link."""
    rng = world.rng
    loss, repeat, delay = rng.random() * 0.3, rng.random() * 0.5, rng.random() * 0.3
    for host in world.hosts:
        link = host.link
        link.loss, link.repeat = loss, repeat
        link.delay_s, link.jitter_s = delay, rng.random()
        world.after(seconds, calm, link)


# -- clocks ----------------------------------------------------------------------------------


def clock_step(choose):
    def fault(world, seconds):
        host, rng = choose(world), world.rng
        size = rng.choice([0.4, 1.5, 5.0, 20.0, 100.0, 3600.0]) * rng.choice([-1, 1])
        if host is not world.gateway and rng.random() < 0.5:
            host.step_in_view = size
        else:
            host.wall_offset += size
        world.after(seconds, setattr, host, "wall_offset", 0.0)

    return fault


def clock_at_1970(world, seconds):
    """A camera starts without a battery-backed clock; a time server comes later."""
    host = device(world)
    host.crash()
    host.wall_offset = -EPOCH_S - world.now
    world.after(1.0, host.start)
    world.after(seconds, setattr, host, "wall_offset", 0.0)


# -- bundles and others ----------------------------------------------------------------------


def roll_out(world, seconds):
    publisher = world.publisher
    publisher.version += 1
    if publisher.client:
        publisher.publish(publisher.version, damaged=world.rng.random() < 0.3)
        world.after(min(seconds, 10.0), publish_again, world)


def publish_again(world):
    """The newest bundle, whatever was published since."""
    world.publisher.publish(world.publisher.version)


def roll_out_refused_by_one(world, seconds):
    """One camera refuses a bundle (its self-test fails there): the site stays with what it runs."""
    publisher = world.publisher
    publisher.version += 1
    device(world).refuses.add(publisher.version)
    publisher.publish(publisher.version)
    world.after(min(seconds, 10.0), roll_out_well, world)


def roll_out_well(world):
    world.publisher.version += 1
    world.publisher.publish(world.publisher.version)


def device_replaced(world, seconds):
    """A camera's disk is empty after a crash."""
    host = device(world)
    host.crash()
    host.disk = Disk()
    world.checker.versions.pop(host.name, None)
    world.after(min(seconds, 8.0), host.start)


def roll_back(world, seconds):
    """Somebody offers an older bundle; nobody may take it."""
    publisher = world.publisher
    if publisher.version > 1 and publisher.client:
        old = bundle(publisher.version - 1, world.options.cameras)
        topic = topics.manifest(SITE)
        publisher.client.send(Publish(topic, old.payload, qos=1, retain=True, keep=True))
        world.after(min(seconds, 10.0), publish_again, world)


def disk_full(world, seconds):
    """The journal cannot be written. (With a crash at the same time the promise is weaker.)"""
    gateway = world.gateway
    if gateway.crash_after_effects is None:
        gateway.disk_full = True
        world.after(seconds, setattr, gateway, "disk_full", False)


def garbage(world, seconds):
    """Malformed, foreign and unknown messages on every topic of the site."""
    rng, client = world.rng, world.stranger
    slot = int((EPOCH_S + world.now) / world.options.period_s)
    tag = bundle(world.publisher.version, world.options.cameras).tag
    for _ in range(30):
        kind = rng.choice(list(Kind))
        payload = rng.choice(
            [
                rng.randbytes(rng.randrange(0, 40)),
                wire.encode(kind, tag=tag ^ 1, boot=1, slot=slot, body=bytes(5)),
                wire.encode(kind, tag=tag, boot=1, slot=slot, body=rng.randbytes(23)),
                wire.encode(Kind.SUMMARY, tag=tag, boot=1, slot=slot + 10**6, body=bytes(5)),
                wire.encode(Kind.ANSWER, tag=tag, boot=1, slot=slot, body=bytes(20)),
                b'{"node": "device-0", "state": "offline", "boot": 1',
                b'{"local_threshold": 7}',
                b"[" * 50,
            ]
        )
        topic = rng.choice(
            [f"{SITE}/s/0", f"{SITE}/s/77", f"{SITE}/s/x", f"{SITE}/f/1", f"{SITE}/a",
             "ddnn/s/status/device-1", "ddnn/s/settings", "ddnn/s/recall",
             "ddnn/_cloud/status/nobody"]
        )  # fmt: skip
        if payload:
            world.garbage.add(payload)
            client.send(Publish(topic, payload, qos=1))


def replays(world, seconds):
    """Genuine frames of the past are sent again."""
    for topic, payload in world.rng.sample(
        world.checker.recorded, min(20, len(world.checker.recorded))
    ):
        world.stranger.send(Publish(topic, payload, qos=1))


def other_bundle(world, seconds):
    """Somebody speaks for a camera, well-formed and in time, of a bundle that does not run."""
    camera = world.rng.randrange(world.options.cameras)
    version = world.publisher.version + 7
    tag = bundle(version, world.options.cameras).tag
    for n in range(10):
        world.after(n * world.options.period_s, _speak_for, world, camera, version, tag)


def _speak_for(world, camera, version, tag):
    slot = int((EPOCH_S + world.now) / world.options.period_s) + 1
    body = bytes([version % 256, camera, slot & 255, slot >> 8 & 255, 0])
    payload = wire.encode(Kind.SUMMARY, tag=tag, boot=1, slot=slot % 2**32, body=body)
    world.stranger.send(Publish(topics.summary(SITE, camera), payload, qos=1))


def device(world):
    return world.rng.choice(world.devices)


def gateway(world):
    return world.gateway


def worker(world):
    return world.rng.choice(world.workers)


def anyone(world):
    return world.rng.choice(world.hosts[:-1])


FAULTS = {
    "device_crash": crash(device),
    "device_dead": device_dead,
    "device_hang": hang(device),
    "gateway_crash": crash(gateway),
    "gateway_crash_in_the_middle": crash_in_the_middle,
    "gateway_hang": hang(gateway),
    "worker_crash": crash(worker),
    "worker_hang": hang(worker),
    "no_worker": no_worker,
    "all_workers_hang": all_workers_hang,
    "broker_killed": broker_killed(False),
    "broker_killed_and_forgetful": broker_killed(True),
    "partition": partition(anyone),
    "device_partition": partition(device),
    "gateway_partition": partition(gateway),
    "bad_network": bad_network,
    "clock_step_device": clock_step(device),
    "clock_step_gateway": clock_step(gateway),
    "clock_at_1970": clock_at_1970,
    "roll_out": roll_out,
    "roll_out_refused_by_one": roll_out_refused_by_one,
    "roll_back": roll_back,
    "device_replaced": device_replaced,
    "disk_full": disk_full,
    "garbage": garbage,
    "replays": replays,
    "other_bundle": other_bundle,
}
