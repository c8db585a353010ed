"""What a cloud worker answers."""

import numpy as np
import pytest

from cloud_service.worker import Worker
from ddnn import wire
from ddnn.errors import BundleError
from ddnn.evaluate import Evaluator
from ddnn.wire import Flag, Kind
from tests.bundles import bundle as unrunnable_bundle
from tests.bundles import random_bundle
from training.publish import with_version

BUNDLE = random_bundle()


def worker():
    made = Worker()
    made.load("s1", BUNDLE)
    return made


def escalation(body, tag=BUNDLE.tag, kind=Kind.ESCALATION):
    return wire.encode(kind, tag=tag, boot=9, slot=12, body=body)


def edge_features(seed=0):
    size = BUNDLE.manifest.section("cloud").inputs[0].shape[1]
    return np.random.default_rng(seed).integers(0, 256, size).astype(np.uint8)


def test_answer_is_what_the_section_says_with_the_askers_own_marks():
    features = edge_features()
    payload = worker().answer("s1", escalation(wire.pack_escalation(1, [features.tobytes()])))
    frame = wire.decode(payload)
    assert (frame.kind, frame.flags, frame.tag) == (Kind.ANSWER, 0, BUNDLE.tag)
    assert (frame.boot, frame.slot) == (9, 12)
    section = Evaluator(BUNDLE).sections["cloud"]
    (expected,) = section.run_one(features[None], np.ones(1, np.uint8))
    assert wire.unpack_logits(frame.body, 3).tolist() == expected.tolist()


@pytest.mark.parametrize(("site", "tag"), [("s2", BUNDLE.tag), ("s1", BUNDLE.tag ^ 1)])
def test_unknown_site_or_bundle_is_answered_at_once(site, tag):
    body = wire.pack_escalation(1, [edge_features().tobytes()])
    frame = wire.decode(worker().answer(site, escalation(body, tag)))
    assert frame.flags == Flag.UNSERVED
    assert frame.tag == tag


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"\xff" * 40,
        escalation(b"", kind=Kind.SUMMARY),
        escalation(wire.pack_escalation(2, [edge_features().tobytes()])),
        escalation(wire.pack_escalation(1, [edge_features().tobytes() + b"x"])),
        escalation(b"\1\0"),
    ],
)
def test_malformed_escalation_gets_no_answer(payload):
    one = worker()
    assert one.answer("s1", payload) is None
    assert one.counts == {"malformed": 1}


def test_bundle_that_does_not_load_leaves_the_served_one():
    one = worker()
    with pytest.raises(BundleError, match="section"):
        one.load("s1", unrunnable_bundle())
    body = wire.pack_escalation(1, [edge_features().tobytes()])
    assert wire.decode(one.answer("s1", escalation(body))).flags == 0


def test_running_former_and_staged_bundle_are_all_served_and_no_more():
    """A candidate that is never activated must not push out the bundle that runs."""
    made = worker()
    others = [with_version(BUNDLE, version) for version in (2, 3, 4)]
    for candidate in others:
        made.stage("s1", candidate)
        assert is_served(made, BUNDLE)
        assert is_served(made, candidate)
    assert not is_served(made, others[0])
    made.switch("s1", others[2])
    made.stage("s1", others[0])
    assert [is_served(made, b) for b in (BUNDLE, *others)] == [True, True, False, True]
    made.switch("s1", others[0])
    assert [is_served(made, b) for b in (BUNDLE, *others)] == [False, True, False, True]


def is_served(made, bundle):
    body = wire.pack_escalation(1, [edge_features().tobytes()])
    return wire.decode(made.answer("s1", escalation(body, bundle.tag))).flags == 0
