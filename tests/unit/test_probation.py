"""A change that goes worse than what was before is taken back, once, and only lately."""

import msgspec
import pytest

from ddnn import topics
from ddnn.activation import Activation, encode
from ddnn.message import Message
from ddnn.models import GO_BACK_S
from edge_gateway.probation import Probation
from edge_gateway.trial import TrialRules
from tests.fakes import TAG, FakeSections
from tests.signing import message, signed
from tests.unit.test_gateway import CLASSES, NEW, SLOT, WALL, decide, gateway, keep
from tests.unit.test_refusals import Node, newer
from tests.unit.test_rollouts import NEW as NEW_BUNDLE
from tests.unit.test_rollouts import OLD, Site
from tests.unit.test_trial import decision

RULES = TrialRules(every=1, slots=20)


def after(before=20, **now):
    """Probation of a bundle whose slots end as `now` says; those before went well."""
    made = Probation(RULES)
    for slot in range(before):
        made.ended(decision(slot))
    made.changed()
    for slot in range(20):
        made.ended(decision(slot, **now))
    return made


def test_bundle_that_goes_as_well_as_before_passes():
    assert after().verdict == ""


@pytest.mark.parametrize(
    ("now", "reason"),
    [
        ({"degraded": "cloud_timeout"}, "errors in 1.000 of the slots, 0.000 before"),
        ({"degraded": "cloud_lacks_bundle"}, "errors"),
        ({"took_s": 0.3}, "300.0 ms to a decision, 100.0 before"),
    ],
)
def test_bundle_that_goes_worse_fails_with_the_number(now, reason):
    assert reason in after(**now).verdict


@pytest.mark.parametrize("reason", ["cloud_down", "shutdown"])
def test_trouble_that_is_not_the_bundles_does_not_count(reason):
    assert after(degraded=reason).verdict is None


def test_nothing_is_said_where_there_is_nothing_to_compare_with():
    assert after(before=9, degraded="cloud_timeout").verdict is None


def test_verdict_is_that_of_the_first_slots_and_stays():
    made = after()
    for slot in range(100):
        made.ended(decision(slot, degraded="cloud_timeout"))
    assert made.verdict == ""
    made.changed()
    assert made.verdict is None


def test_gateway_counts_only_slots_of_the_new_bundle():
    made = gateway()
    made.probation = Probation(RULES)
    for n in range(20):
        decide(made, SLOT + n - 25, TAG)
    keep(made, made.activate(FakeSections(tag=NEW), CLASSES, 0.0, WALL, bundle_id="new",
                             from_slot=SLOT + 5))  # fmt: skip
    for n in range(5):
        decide(made, SLOT + n, TAG)
    for n in range(20):
        assert made.probation.verdict is None
        decide(made, SLOT + 5 + n, NEW)
    assert made.probation.verdict == ""


# -- the record that takes a change back ---------------------------------------------------------


def changed_over():
    site = Site(canary_every=2)
    site.plan(0.2, staged=None)
    site.record = Activation(
        bundle=NEW_BUNDLE.bundle_id, version=2, from_slot=SLOT, manifest=message(NEW_BUNDLE)
    )
    assert site.plan(active=NEW_BUNDLE, staged=None) is None
    return site


def test_change_that_fails_its_probation_is_taken_back_once():
    site = changed_over()
    back = site.plan(active=NEW_BUNDLE, staged=None, failed="errors")
    assert (back.bundle, back.instead_of) == (OLD.bundle_id, NEW_BUNDLE.bundle_id)
    assert back.from_slot == SLOT + 3
    assert site.rollouts.rejected == (NEW_BUNDLE.bundle_id, "was given up after the change: errors")
    site.record = back
    assert site.plan(active=NEW_BUNDLE, staged=OLD, failed="errors") is None
    # The old bundle does no better: nothing is gained by going to and fro.
    assert site.plan(active=OLD, staged=None, failed="errors") is None
    # The given-up one is offered still: it is not activated again.
    assert site.plan(active=OLD, staged=NEW_BUNDLE) is None
    assert site.rollouts.rejected is not None


def test_broker_with_the_record_of_a_given_up_bundle_is_told_again():
    site = changed_over()
    wrong = site.record
    site.record = site.plan(active=NEW_BUNDLE, staged=None, failed="errors")
    site.rollouts.on_connected(20.0)
    site.hear_manifest()
    site.rollouts.on_message(Message(topics.active("s"), encode(wrong)))
    assert len(site.assertions(30.0)) == 1


# -- on a node -----------------------------------------------------------------------------------


def gone_on():
    """A node that ran version 5 and has changed over to version 6."""
    node = Node()
    fresh = signed(newer())
    node.broker.offer(fresh)
    node.activate(fresh, 0)
    assert node.feed.version == 6
    return node, fresh


def take_back(node, to, instead_of, from_slot=0):
    record = Activation(
        bundle=to.bundle_id, version=to.manifest.version, from_slot=from_slot,
        manifest=message(to), instead_of=instead_of.bundle_id,
    )  # fmt: skip
    node.broker.publish(topics.active("s1"), encode(record))
    node.feed.on_time()


def test_node_goes_back_to_the_bundle_before_when_the_gateway_says_so():
    node, fresh = gone_on()
    take_back(node, node.good, fresh)
    assert node.feed.bundle_id == node.good.bundle_id
    assert node.runner.staged.count(node.good.bundle_id) == 2
    node.activate(fresh, 0)  # an old record, seen again
    assert node.feed.bundle_id == node.good.bundle_id
    better = signed(newer(7, b"y"))
    node.broker.offer(better)
    node.activate(better, 0)
    assert node.feed.version == 7


def test_node_goes_back_at_the_slot_that_the_gateway_says():
    node, fresh = gone_on()
    take_back(node, node.good, fresh, int(node.wall) + 2)
    assert node.feed.bundle_id == fresh.bundle_id
    node.wall += 2
    node.feed.on_time()
    assert node.feed.bundle_id == node.good.bundle_id


def test_change_of_long_ago_can_not_be_taken_back():
    node, fresh = gone_on()
    node.wall += GO_BACK_S + 1
    take_back(node, node.good, fresh)
    assert node.feed.bundle_id == fresh.bundle_id


def test_way_back_leads_to_no_other_bundle_than_the_one_before():
    node, fresh = gone_on()
    older = signed(newer(version=4, marker=b"o"))
    node.broker.sections(older)
    take_back(node, older, fresh)
    assert node.feed.bundle_id == fresh.bundle_id


def test_way_back_must_name_the_running_bundle():
    node, fresh = gone_on()
    take_back(node, node.good, msgspec.structs.replace(node.good))
    assert node.feed.bundle_id == fresh.bundle_id


def test_node_that_has_gone_back_does_not_after_a_restart_begin_again(tmp_path):
    node = Node(store=tmp_path)
    fresh = signed(newer())
    node.broker.offer(fresh)
    node.activate(fresh, 0)
    take_back(node, node.good, fresh)
    again = Node(store=tmp_path, running=False)
    assert again.feed.bundle_id == node.good.bundle_id
