"""Each attack on a node's bundles, and each accident: refused, and what runs goes on running."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ddnn import bundle as b
from ddnn import topics
from ddnn.activation import Activation, encode
from ddnn.errors import BundleError
from ddnn.message import Message
from ddnn.models import ModelFeed
from ddnn.signing import MAX_MESSAGE_BYTES, seal, signed_bytes, unseal
from ddnn.trust import KeySet, Trust
from tests import bundles
from tests.signing import (
    HOME,
    KEY,
    OTHER,
    WALL,
    message,
    moment,
    signed,
    trust,
    trusted,
    with_terms,
)

SITE = "s1"
ROLES = {"device/0", "cloud"}


class Broker:
    """Retained messages, and whoever has subscribed to them."""

    def __init__(self):
        self.retained = {}
        self.handlers = {}
        self.taken = []

    def subscribe(self, topic, handler, *, retained=True):
        self.handlers[topic] = handler
        self.taken.append(topic)
        if retained and topic in self.retained:
            handler(Message(topic, self.retained[topic], True))

    def unsubscribe(self, topic):
        self.handlers.pop(topic, None)

    def publish(self, topic, payload):
        self.retained[topic] = payload
        if topic in self.handlers:
            self.handlers[topic](Message(topic, payload))

    def sections(self, bundle):
        for info in bundle.manifest.sections:
            for number, part in enumerate(b.chunks(bundle.sections[info.role])):
                self.publish(topics.section(SITE, info.sha256, number), part)

    def offer(self, bundle):
        self.sections(bundle)
        self.publish(topics.manifest(SITE), message(bundle))


class Runner:
    """Remembers what it was told; fails the self-test of what is named in `fails`."""

    def __init__(self):
        self.fails = set()
        self.staged = []
        self.switched = []

    def stage(self, bundle):
        if bundle.bundle_id in self.fails:
            raise BundleError("section device/0 failed its self-test")
        self.staged.append(bundle.bundle_id)

    def switch(self, bundle, from_slot):
        self.switched.append((bundle.bundle_id, from_slot))

    def begun(self, bundle):
        pass

    def try_out(self, bundle, every):
        pass


class Node:
    """A node that runs version 5, and trusts `KEY`."""

    def __init__(self, policy=None, running=True, store=None, factory=None, wall=WALL):
        self.broker, self.runner = Broker(), Runner()
        self.wall = wall
        self.reports = 0
        self.feed = ModelFeed(
            self.broker, SITE, lambda manifest: ROLES, self.runner, policy or trust(),
            period_s=1.0, changed=self.changed, store=store, factory=factory,
            wall=lambda: self.wall,
        )  # fmt: skip
        self.feed.start()
        self.good = signed(bundles.bundle(version=5))
        if running:
            self.broker.offer(self.good)
            self.activate(self.good, 0)
            assert self.feed.bundle_id == self.good.bundle_id

    def changed(self):
        self.reports += 1

    def activate(self, bundle, from_slot):
        record = Activation(
            bundle=bundle.bundle_id, version=bundle.manifest.version, from_slot=from_slot,
            manifest=message(bundle),
        )  # fmt: skip
        self.broker.publish(topics.active(SITE), encode(record))

    def refuses(self, bundle, reason):
        """Neither an offer nor an activation makes it the running one; the status says why."""
        __tracebackhide__ = True
        before = self.feed.bundle_id
        self.broker.offer(bundle)
        assert self.feed.refused is not None
        assert reason in self.feed.refused
        assert self.feed.staged is None
        self.activate(bundle, 0)
        self.feed.on_time()
        assert self.feed.bundle_id == before


def newer(version=6, marker=b"x"):
    return bundles.bundle(version=version, marker=marker)


# -- who ---------------------------------------------------------------------------------------


def test_signed_bundle_of_a_trusted_key_is_staged_and_run_from_its_slot():
    node = Node()
    fresh = signed(newer())
    node.broker.offer(fresh)
    assert (node.feed.staged_id, node.feed.bundle_id) == (fresh.bundle_id, node.good.bundle_id)
    node.activate(fresh, int(WALL) + 3)
    node.feed.on_time()
    assert node.feed.bundle_id == node.good.bundle_id
    node.wall += 3
    node.feed.on_time()
    assert node.feed.bundle_id == fresh.bundle_id
    assert node.runner.switched[-1] == (fresh.bundle_id, int(WALL) + 3)


def test_unsigned_bundle_is_refused():
    Node().refuses(newer(), "not signed")


def test_bundle_signed_by_a_wrong_key_is_refused():
    Node().refuses(signed(newer(), OTHER), "not trusted here")


def test_bundle_signed_by_a_wrong_key_under_a_trusted_keys_name_is_refused():
    fresh = newer()
    forged = b.Signature(KEY.key_id, OTHER.sign(fresh.payload).sig)
    Node().refuses(msgspec.structs.replace(fresh, signatures=(forged,)), "does not fit")


def test_signature_of_another_bundle_is_refused():
    stolen = msgspec.structs.replace(newer(), signatures=Node().good.signatures)
    Node().refuses(stolen, "does not fit")


def test_bundle_signed_by_a_revoked_key_is_refused_and_what_it_signed_before_goes_on():
    keys = [trusted()]
    node = Node(Trust(HOME, lambda: msgspec.structs.replace(KEYSET, keys=tuple(keys))))
    assert "bundle" not in node.feed.notes()
    keys[0] = trusted(revoked="laptop stolen")
    node.refuses(signed(newer()), "revoked: laptop stolen")
    assert "revoked" in node.feed.notes()["bundle"]


KEYSET = KeySet()


@pytest.mark.parametrize(
    ("dates", "reason"),
    [
        ({"not_after": moment(-1)}, "was valid until"),
        ({"not_before": moment(1)}, "not valid before"),
    ],
)
def test_bundle_signed_by_a_key_outside_its_dates_is_refused(dates, reason):
    node = Node()
    node.feed._trust = trust(trusted(**dates))
    node.refuses(signed(newer()), reason)


def test_hash_is_right_but_the_operator_may_not_sign_for_this_site():
    node = Node()
    node.feed._trust = trust(trusted(sites=("s2", "s3")))
    node.refuses(signed(newer()), "may not sign for site s1")


def test_planned_rotation_never_leaves_a_node_without_a_bundle_it_trusts():
    """Old key; both trusted and both sign; old one revoked; the new one alone."""
    fresh = signed(newer(), KEY, OTHER)
    for keys in (
        (trusted(),),
        (trusted(), trusted(OTHER)),
        (trusted(revoked="rotated"), trusted(OTHER)),
    ):
        node = Node()
        node.feed._trust = trust(*keys)
        node.broker.offer(fresh)
        assert node.feed.staged_id == fresh.bundle_id


def test_node_without_trusted_keys_runs_nothing_and_says_so():
    node = Node(Trust(HOME), running=False)
    node.refuses(signed(newer()), "no trusted keys")
    assert "every bundle is refused" in node.feed.notes()["trust"]


def test_node_that_believes_everybody_says_so():
    node = Node(Trust(HOME, unsigned="allow_unsigned is set"), running=False)
    node.broker.offer(newer())
    assert node.feed.bundle_id == newer().bundle_id
    assert "bundles of anybody" in node.feed.notes()["trust"]


# -- when and where ----------------------------------------------------------------------------


def test_rollback_attack_with_an_old_signed_bundle_is_refused():
    Node().refuses(signed(newer(version=4)), "not newer")


def test_rollback_attack_to_an_older_offer_before_the_change_is_refused():
    node = Node()
    withdrawn, better = signed(newer(6)), signed(newer(7, b"y"))
    node.broker.offer(better)
    node.broker.offer(withdrawn)
    assert "not newer than version 7" in node.feed.refused
    assert node.feed.staged_id == better.bundle_id


def test_freeze_attack_with_an_expired_bundle_is_refused():
    node = Node()
    node.refuses(signed(with_terms(6, expires=moment(-1))), "expired on")


def test_bundle_that_expires_while_it_runs_goes_on_with_a_warning():
    node = Node()
    fresh = signed(with_terms(6, expires=moment(1)))
    node.broker.offer(fresh)
    node.activate(fresh, 0)
    assert node.feed.bundle_id == fresh.bundle_id
    assert "bundle" not in node.feed.notes()
    node.wall += 2 * 86_400
    assert "expired" in node.feed.notes()["bundle"]
    node.feed.on_time()
    assert node.feed.bundle_id == fresh.bundle_id


def test_bundle_that_expires_between_staging_and_the_change_is_not_run():
    node = Node()
    fresh = signed(with_terms(6, expires=moment(1)))
    node.broker.offer(fresh)
    node.wall += 2 * 86_400
    node.activate(fresh, int(node.wall))
    node.feed.on_time()
    assert node.feed.bundle_id == node.good.bundle_id
    assert "expired" in node.feed.refused


def test_date_is_not_judged_by_a_clock_that_is_not_set_but_later():
    node = Node()
    node.wall = 100.0
    fresh = signed(with_terms(6, expires=moment(1)))
    node.broker.offer(fresh)
    assert "clock is not set" in node.feed.refused
    node.feed.on_time()
    assert node.feed.staged is None
    node.wall = WALL
    node.feed.on_time()
    assert node.feed.staged_id == fresh.bundle_id
    assert node.feed.refused is None


def test_bundle_for_another_site_is_refused():
    Node().refuses(signed(with_terms(6, sites=("s2",))), "for site s2, not s1")


def test_bundle_for_other_hardware_is_refused():
    bundle = with_terms(6, hardware={"device": ("x86_64",)})
    Node().refuses(signed(bundle), "this machine is aarch64")


def test_bundle_that_needs_a_newer_program_is_refused():
    Node().refuses(signed(with_terms(6, min_version="9.0.0")), "needs ddnn 9.0.0")


# -- what --------------------------------------------------------------------------------------


def test_manifest_of_50_mb_is_refused_unread():
    node = Node()
    node.broker.publish(topics.manifest(SITE), b'{"payload":' + b" " * 50_000_000)
    assert f"limit of {MAX_MESSAGE_BYTES}" in node.feed.refused
    assert node.feed.bundle_id == node.good.bundle_id


def test_activation_record_of_50_mb_is_ignored():
    node = Node()
    node.broker.publish(topics.active(SITE), b'{"bundle":"' + b"0" * 50_000_000)
    assert node.feed.record.bundle == node.good.bundle_id


def test_mix_and_match_of_two_signed_bundles_is_refused():
    node = Node()
    one, two = signed(newer(6)), signed(newer(7, b"y"))
    node.broker.sections(one)
    for mine, other in zip(one.manifest.sections, two.manifest.sections, strict=True):
        node.broker.publish(topics.section(SITE, other.sha256, 0), one.sections[mine.role])
    node.broker.publish(topics.manifest(SITE), message(two))
    assert "hash" in node.feed.refused
    assert node.feed.staged is None
    node.broker.sections(two)
    assert node.feed.staged_id == two.bundle_id


def test_partial_bundle_is_never_staged():
    node = Node()
    fresh = signed(newer())
    node.broker.sections(fresh)
    del node.broker.retained[topics.section(SITE, fresh.manifest.section("cloud").sha256, 0)]
    node.broker.publish(topics.manifest(SITE), message(fresh))
    node.activate(fresh, 0)
    node.feed.on_time()
    assert (node.feed.staged, node.feed.bundle_id) == (None, node.good.bundle_id)


def test_endless_data_is_neither_kept_nor_asked_for_again():
    """A section that is wrong, and retained: it must not be fetched in a circle."""
    node = Node()
    datas = bundles.sections(b"x") | {"cloud": bytes(b.WHOLE_SECTION_BYTES + 10)}
    fresh = signed(b.assemble(b.encode_manifest(bundles.manifest(datas, version=6)), datas))
    info = fresh.manifest.section("cloud")
    node.broker.sections(fresh)
    for number in range(b.chunk_count(info.size_bytes)):
        topic = topics.section(SITE, info.sha256, number)
        node.broker.retained[topic] = b"!" * len(node.broker.retained[topic])
    node.broker.publish(topics.manifest(SITE), message(fresh))
    taken = len(node.broker.taken)
    for _ in range(100):
        node.broker.publish(topics.section(SITE, info.sha256, 0), bytes(500_000))
    assert len(node.broker.taken) == taken < 20
    assert "hash" in node.feed.refused
    assert sum(map(len, node.feed.fetcher.stager._parts.values())) < 1000
    node.broker.sections(fresh)
    assert node.feed.staged_id == fresh.bundle_id


def test_bundle_that_fails_its_self_test_is_refused():
    node = Node()
    fresh = signed(newer())
    node.runner.fails.add(fresh.bundle_id)
    node.refuses(fresh, "self-test")


def test_bundle_with_the_running_ones_tag_is_refused(monkeypatch):
    node = Node()
    monkeypatch.setattr("ddnn.rollout.tag", lambda payload: 7)
    node.refuses(signed(newer()), "tag 0007")


def test_activation_of_an_older_bundle_is_refused():
    node = Node()
    old = signed(newer(version=4))
    node.broker.sections(old)
    node.activate(old, 0)
    node.feed.on_time()
    assert node.feed.bundle_id == node.good.bundle_id


def record_of(bundle, **changes):
    fields = {
        "bundle": bundle.bundle_id, "version": bundle.manifest.version, "from_slot": 0,
        "manifest": message(bundle),
    }  # fmt: skip
    return encode(Activation(**(fields | changes)))


@pytest.mark.parametrize("running", [True, False])
def test_activation_record_with_a_version_out_of_this_world_blocks_no_later_one(running):
    node = Node()
    fresh, later = signed(newer(6)), signed(newer(7, b"y"))
    node.broker.offer(later)
    wrong = record_of(node.good if running else fresh, version=2**53)
    node.broker.publish(topics.active(SITE), wrong)
    assert "says version" in node.feed.refused
    node.activate(later, 0)
    assert node.feed.bundle_id == later.bundle_id


def test_activation_record_with_another_bundles_manifest_is_refused():
    node = Node()
    fresh, other = signed(newer(6)), signed(newer(7, b"y"))
    node.broker.publish(topics.active(SITE), record_of(fresh, manifest=message(other), version=7))
    assert "another bundle's manifest" in node.feed.refused
    assert node.feed.record.bundle == node.good.bundle_id


def test_activation_record_is_judged_when_the_clock_is_set():
    node = Node()
    node.feed._trust = trust(trusted(not_after=moment(1)))
    fresh = signed(newer())
    node.broker.offer(fresh)
    node.wall = 100.0
    node.activate(fresh, 0)
    assert node.feed.bundle_id == node.good.bundle_id
    node.wall = WALL
    node.feed.on_time()
    assert node.feed.bundle_id == fresh.bundle_id


def test_activation_record_with_an_unsigned_manifest_changes_nothing():
    node = Node()
    evil = newer()
    node.broker.sections(evil)
    node.activate(evil, 0)
    assert node.feed.bundle_id == node.good.bundle_id
    assert "not signed" in node.feed.refused


@given(st.data())
def test_flipped_bit_in_any_part_is_refused_and_the_running_bundle_stays(data):
    node = Node()
    fresh = signed(newer())
    node.broker.sections(fresh)
    part = data.draw(st.sampled_from(["manifest", "device/0", "cloud"]))
    if part == "manifest":
        topic, whole = topics.manifest(SITE), message(fresh)
    else:
        topic = topics.section(SITE, fresh.manifest.section(part).sha256, 0)
        whole = fresh.sections[part]
    flipped = bytearray(whole)
    flipped[data.draw(st.integers(0, len(whole) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    node.broker.publish(topic, bytes(flipped))
    if part != "manifest":
        node.broker.publish(topics.manifest(SITE), message(fresh))
    assert node.feed.refused is not None
    assert (node.feed.staged, node.feed.bundle_id) == (None, node.good.bundle_id)


@given(st.binary(max_size=300))
def test_no_manifest_message_and_no_record_makes_a_node_raise(payload):
    node = Node()
    node.broker.publish(topics.manifest(SITE), payload)
    node.broker.publish(topics.active(SITE), payload)
    assert node.feed.bundle_id == node.good.bundle_id


def test_same_refusal_again_and_again_is_reported_once():
    node = Node()
    evil = newer()
    node.broker.offer(evil)
    reports = node.reports
    for _ in range(50):
        node.broker.publish(topics.manifest(SITE), message(evil))
    assert node.reports == reports


# -- what is signed ------------------------------------------------------------------------------


def test_signature_is_dsse_over_type_and_bytes():
    """Golden bytes, so that other programs can check what this one signs."""
    assert signed_bytes(b"{}") == b"DSSEv1 34 application/vnd.ddnn.manifest+json 2 {}"
    assert KEY.key_id == "cd8fa86afd6bf20d"
    assert KEY.sign(b"{}").sig.hex()[:32] == "75844491b1383c22f4cd97bd2d094290"


def test_envelope_round_trip_and_bare_manifest():
    bundle = signed(bundles.bundle(), KEY, OTHER)
    assert unseal(message(bundle)) == (bundle.payload, bundle.signatures)
    assert unseal(bundle.payload) == (bundle.payload, ())
    assert seal(bundle.payload, ()) == bundle.payload


def test_signing_changes_neither_id_nor_tag():
    plain = bundles.bundle()
    assert (signed(plain).bundle_id, signed(plain).tag) == (plain.bundle_id, plain.tag)


def test_manifest_without_terms_keeps_the_bytes_that_it_always_had():
    payload = bundles.bundle().payload
    assert b"terms" not in payload
    assert b'"terms":{"sites":["s2"]}' in with_terms(sites=("s2",)).payload


# -- catching up ---------------------------------------------------------------------------------


def test_node_that_was_off_finds_the_running_bundle_though_another_one_is_offered():
    node = Node()
    runs, offered = signed(newer(6)), signed(newer(7, b"y"))
    node.broker.sections(runs)
    node.broker.retained[topics.active(SITE)] = b""
    node.broker.offer(offered)
    assert node.feed.staged_id == offered.bundle_id
    node.activate(runs, int(WALL) - 50)
    assert node.feed.bundle_id == runs.bundle_id
    assert node.feed.staged_id == offered.bundle_id


def test_first_bundle_of_an_empty_site_runs_at_once():
    node = Node(running=False)
    node.broker.offer(node.good)
    assert node.feed.bundle_id == node.good.bundle_id


def test_new_node_of_a_running_site_takes_the_running_bundle_and_not_the_offered_one():
    node = Node(running=False)
    runs, offered = node.good, signed(newer(6))
    node.broker.sections(runs)
    node.activate(runs, 0)
    node.broker.offer(offered)
    assert (node.feed.bundle_id, node.feed.staged_id) == (runs.bundle_id, offered.bundle_id)


def test_new_node_that_began_with_the_offered_bundle_goes_over_to_the_running_one():
    """Its broker had lost the record when it started; the gateway publishes it again."""
    node = Node(running=False)
    runs, offered = node.good, signed(newer(6))
    node.broker.sections(runs)
    node.broker.offer(offered)
    assert node.feed.bundle_id == offered.bundle_id
    node.activate(runs, 0)
    assert (node.feed.bundle_id, node.feed.staged_id) == (runs.bundle_id, offered.bundle_id)
    # From now on it knows what the site runs, and goes back no more.
    node.activate(offered, 0)
    node.activate(runs, 0)
    assert node.feed.bundle_id == offered.bundle_id


def test_new_node_is_not_made_to_run_what_no_trusted_key_has_signed():
    node = Node(running=False)
    node.broker.offer(node.good)
    evil = newer(4)
    node.broker.sections(evil)
    node.activate(evil, 0)
    assert node.feed.bundle_id == node.good.bundle_id


def test_section_that_the_node_has_already_is_not_fetched_again():
    node = Node()
    same = signed(bundles.bundle(version=6))
    node.broker.taken.clear()
    node.broker.publish(topics.manifest(SITE), message(same))
    assert node.feed.staged_id == same.bundle_id
    assert node.broker.taken == []


def test_moved_change_is_followed():
    node = Node()
    fresh = signed(newer())
    node.broker.offer(fresh)
    node.activate(fresh, int(WALL) + 1000)
    node.activate(fresh, int(WALL) + 2)
    node.wall += 2
    node.feed.on_time()
    assert node.feed.bundle_id == fresh.bundle_id
