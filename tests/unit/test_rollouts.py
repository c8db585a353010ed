"""The gateway's rules of a roll-out: when a site changes over, and what it reminds a broker of."""

import pytest

from ddnn import status, topics
from ddnn.activation import decode, encode
from ddnn.message import Message
from ddnn.rollout import offer
from edge_gateway.rollouts import HEAR_S, Rollouts, announce
from tests import bundles
from tests.arm64.bundles import random_bundle
from tests.signing import message, signed
from training.publish import with_version

OLD, NEW = signed(bundles.bundle(version=1)), signed(bundles.bundle(version=2, marker=b"x"))
WALL = 1_800_000_000.0
SLOT = 1_800_000_000


class Site:
    """A gateway that runs `OLD` and has staged `NEW`; cameras and a worker as told."""

    def __init__(self, cameras=2, **options):
        self.rollouts = Rollouts("s", 1.0, "gateway", lead_s=3.0, patience_s=60.0, **options)
        self.rollouts.on_connected(0.0)
        self.hear_manifest()
        self.record = None
        self.record = self.plan(0.1, staged=None)
        for n in range(cameras):
            self.camera(n)
        self.worker()

    def hear_manifest(self):
        self.rollouts.on_message(Message(topics.manifest("s"), message(OLD)))

    def say(self, topic, **fields):
        report = status.Status(**({"state": "online", "boot": 1} | fields))
        self.rollouts.on_message(Message(topic, status.encode(report)))

    def camera(self, number, bundle=OLD, staged=NEW, **fields):
        self.say(
            topics.status("s", f"device-{number}"), node=f"device-{number}",
            bundle=bundle and bundle.bundle_id, staged=staged and staged.bundle_id, **fields,
        )  # fmt: skip

    def worker(self, bundle=OLD, staged=NEW, **fields):
        self.say(
            topics.worker_status("w"), node="w", sites={"s": bundle.bundle_id},
            sites_staged={"s": staged.bundle_id} if staged else {}, **fields,
        )  # fmt: skip

    def plan(self, now=10.0, *, wall=None, staged=NEW, **state):
        fields = {"active": OLD, "record": self.record, "highest_slot": 0, "settled": True} | state
        return self.rollouts.plan(now, WALL if wall is None else wall, staged=staged, **fields)

    def assertions(self, now=10.0, **state):
        fields = {"active": OLD, "staged": None, "record": self.record} | state
        return self.rollouts.assertions(now, **fields)


def test_first_bundle_is_recorded_from_slot_0_on():
    site = Site()
    assert (site.record.bundle, site.record.from_slot) == (OLD.bundle_id, 0)
    assert decode(encode(site.record)) == site.record


def test_change_is_planned_ahead_when_every_node_is_ready():
    plan = Site().plan()
    assert (plan.bundle, plan.version, plan.from_slot) == (NEW.bundle_id, 2, SLOT + 3)
    assert plan.manifest == message(NEW)


def test_change_comes_after_every_slot_that_has_begun():
    assert Site().plan(highest_slot=SLOT + 20).from_slot == SLOT + 21


@pytest.mark.parametrize("who", ["camera", "worker"])
def test_silent_node_is_waited_for_and_then_treated_as_missing(who):
    site = Site()
    site.camera(1, staged=None) if who == "camera" else site.worker(staged=None)
    assert site.plan(10.0) is None
    assert "not ready" in site.rollouts.waiting
    assert site.plan(69.9) is None
    assert site.plan(70.1) is not None


def test_refusal_of_one_node_holds_the_change_up_until_it_is_gone():
    site = Site()
    site.camera(1, staged=None, refused="failed its self-test", refused_id=NEW.bundle_id)
    assert site.plan(10.0) is None
    assert site.plan(1000.0) is None
    assert "device-1 refuses it: failed its self-test" in site.rollouts.waiting
    site.camera(1, staged=None, state="offline")
    assert site.plan(1001.0) is not None
    assert site.rollouts.waiting is None


def edges_bundle(version):
    """Cameras 0 to 3 below two edges."""
    made = random_bundle(1, (6, 5, 3), (2,), ((0, 1), (2, 3)), (3,), (4,), "CC")
    return signed(with_version(made, version))


def test_edge_gateway_that_the_next_bundle_has_no_use_for_is_not_asked():
    site, several = Site(cameras=0), edges_bundle(1)
    for k in range(2):
        site.say(
            topics.status("s", f"gateway-{k}"), node=f"gateway-{k}", bundle=several.bundle_id,
            refused="no place in this bundle", refused_id=NEW.bundle_id,
        )  # fmt: skip
    site.camera(3, bundle=several, refused="no section for this camera", refused_id=NEW.bundle_id)
    assert site.plan(active=several) is not None


def test_edge_gateway_that_the_next_bundle_needs_is_waited_for():
    site, several = Site(cameras=0), edges_bundle(2)
    site.worker(staged=several)
    site.say(topics.status("s", "gateway-1"), node="gateway-1")
    assert site.plan(staged=several) is None
    assert "gateway-1 not ready" in site.rollouts.waiting
    site.say(topics.status("s", "gateway-1"), node="gateway-1", staged=several.bundle_id)
    assert site.plan(staged=several) is not None


def test_refusal_of_another_bundle_holds_nothing_up():
    site = Site()
    site.camera(1, staged=NEW, refused="too old", refused_id="0" * 64)
    assert site.plan() is not None


def test_refusing_worker_holds_the_change_up():
    site = Site()
    site.worker(staged=None, sites_refused={"s": "failed its self-test"})
    assert site.plan(1000.0) is None


@pytest.mark.parametrize("bundle", [None, NEW])
def test_node_that_does_not_run_the_present_bundle_is_not_waited_for(bundle):
    site = Site()
    site.camera(1, bundle=bundle, staged=None)
    assert site.plan() is not None


def test_status_under_another_nodes_topic_is_not_believed():
    site = Site()
    site.say(topics.status("s", "device-1"), node="device-7", bundle=OLD.bundle_id)
    assert site.plan() is not None


def test_nothing_is_planned_before_the_broker_has_said_what_it_retains():
    site = Site()
    site.rollouts.on_connected(20.0)
    assert site.plan(20.0 + HEAR_S - 0.1) is None
    assert site.plan(20.0 + HEAR_S) is not None
    site.rollouts.on_disconnected()
    assert site.plan(100.0) is None


def test_change_waits_until_the_slots_of_the_one_before_are_over():
    assert Site().plan(settled=False) is None


def test_change_planned_by_a_wrong_clock_is_planned_again():
    site = Site()
    wrong = site.plan(wall=WALL + 3600)
    assert site.plan(record=wrong, wall=WALL + 3600) is None
    assert site.plan(record=wrong).from_slot == SLOT + 3
    # And when this gateway has changed over already, by its wrong clock.
    again = site.plan(record=wrong, active=NEW, staged=None)
    assert (again.bundle, again.from_slot) == (NEW.bundle_id, SLOT + 3)


def test_broker_that_forgot_everything_gets_sections_manifest_and_record():
    site = Site()
    site.rollouts.on_connected(20.0)
    assert site.assertions(21.0) == []
    assert site.assertions(22.0) == [*offer("s", OLD), announce("s", site.record)]
    assert site.assertions(23.0) == []  # they are on their way


def test_broker_that_remembers_is_told_nothing():
    site = Site()
    site.rollouts.on_connected(20.0)
    site.hear_manifest()
    site.rollouts.on_message(Message(topics.active("s"), encode(site.record)))
    assert site.assertions(30.0) == []


def test_broker_that_forgot_and_was_offered_another_bundle_gets_the_running_ones_sections():
    site = Site()
    site.rollouts.on_connected(20.0)
    site.rollouts.on_message(Message(topics.manifest("s"), message(NEW)))
    sections = offer("s", OLD)[:-1]
    assert site.assertions(22.0) == [*sections, announce("s", site.record)]


def test_older_record_on_the_broker_is_replaced():
    site = Site()
    newer = site.plan()
    site.rollouts.on_connected(20.0)
    site.hear_manifest()
    site.rollouts.on_message(Message(topics.active("s"), encode(site.record)))
    assert site.assertions(30.0, active=NEW, record=newer) == [announce("s", newer)]


def test_nodes_remembered_are_bounded():
    site = Site()
    for n in range(2000):
        site.camera(n)
    assert len(site.rollouts._nodes) == 1000
