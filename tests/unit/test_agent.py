"""The agent's rules: summaries, the features ring, and what it refuses."""

import gc
import os
import weakref
from pathlib import Path

import numpy as np
import pytest

from ddnn import wire
from ddnn.errors import BundleError, DataError
from ddnn.evaluate import Evaluator
from ddnn.wire import Flag, Kind
from device_agent.agent import Agent
from device_agent.sources import ReplaySource
from tests.arm64.bundles import random_bundle as random_pictures_bundle
from tests.bundles import bundle as unrunnable_bundle
from tests.bundles import random_bundle
from training.publish import with_version

BUNDLE = random_bundle()
BOOT = 77


def agent(ring_slots=8):
    made = Agent(1, BOOT, ring_slots)
    made.load(BUNDLE)
    return made


def image(seed=0):
    return np.random.default_rng(seed).integers(0, 256, (16, 16, 3)).astype(np.uint8)


def request(slot, tag=BUNDLE.tag, kind=Kind.REQUEST):
    return wire.decode(wire.encode(kind, tag=tag, boot=1, slot=slot))


def expected(picture):
    """Scores and features of camera 1 by the in-process evaluator."""
    views = np.zeros((1, 3, 16, 16, 3), np.uint8)
    views[0, 1] = picture
    scores, features = Evaluator(BUNDLE).devices(views, np.ones((1, 3), bool))
    return scores[0, 1].tobytes(), features[0, 1].tobytes()


def test_summary_carries_the_scores_and_features_follow_on_request():
    one = agent()
    scores, features = expected(image())
    summary = wire.decode(one.view(100, image()))
    assert summary == (Kind.SUMMARY, 0, BUNDLE.tag, BOOT, 100, scores)
    one.view(101, image(1))
    answer = wire.decode(one.features(request(100), near=101))
    assert answer == (Kind.FEATURES, 0, BUNDLE.tag, BOOT, 100, features)


def test_no_view_is_a_header_marked_absent():
    payload = agent().view(100, None)
    assert len(payload) == wire.HEADER_BYTES
    assert wire.decode(payload).flags == Flag.ABSENT


def test_slot_that_left_the_ring_is_answered_with_absent():
    one = agent(ring_slots=4)
    for slot in range(100, 105):
        one.view(slot, image(slot))
    assert wire.decode(one.features(request(100), near=104)).flags == Flag.ABSENT
    assert wire.decode(one.features(request(101), near=104)).flags == 0
    assert one.counts["requests_too_late"] == 1


def test_slot_with_an_absent_view_has_no_old_features():
    one = agent(ring_slots=4)
    one.view(100, image())
    one.view(104, None)
    assert wire.decode(one.features(request(104), near=104)).flags == Flag.ABSENT


@pytest.mark.parametrize(
    "frame", [request(100, tag=BUNDLE.tag ^ 1), request(100, kind=Kind.ANSWER)]
)
def test_request_of_another_bundle_or_kind_gets_nothing(frame):
    one = agent()
    one.view(100, image())
    assert one.features(frame, near=100) is None
    assert one.counts["requests_refused"] == 1


def test_without_a_bundle_nothing_is_sent():
    one = Agent(1, BOOT)
    assert one.view(100, image()) is None
    assert one.features(request(100), near=100) is None


def test_view_of_another_size_is_not_sent():
    one = agent()
    assert one.view(100, image()[:8]) is None
    assert one.counts["views_of_wrong_size"] == 1


def test_slot_beyond_32_bits_is_found_again():
    one = agent()
    slot = 2**34 + 5
    one.view(slot, image())
    assert wire.decode(one.features(request(slot), near=slot + 3)).flags == 0


def test_bundle_that_does_not_load_leaves_the_running_one():
    one = agent()
    with pytest.raises(BundleError, match="section"):
        one.load(unrunnable_bundle())
    assert wire.decode(one.view(100, image())).tag == BUNDLE.tag


def test_features_of_the_old_bundle_are_gone_after_a_change():
    one = agent()
    one.view(100, image())
    other = random_bundle(seed=1)
    one.load(other)
    answer = wire.decode(one.features(request(100, tag=other.tag), near=100))
    assert answer.flags == Flag.ABSENT


def write_replay(path, images, present):
    np.savez(path, images=images, present=present)
    return path


def test_replay_shows_each_sample_in_its_slot(tmp_path):
    images = np.arange(3 * 2 * 4 * 4 * 3).reshape(3, 2, 4, 4, 3).astype(np.uint8)
    present = np.array([[1, 1], [1, 0], [1, 1]], bool)
    source = ReplaySource(write_replay(tmp_path / "r.npz", images, present), camera=1)
    assert source.read(10, 0.0) is None
    source.first_slot = 10
    assert np.array_equal(source.read(10, 0.0).image, images[0, 1])
    assert source.read(11, 0.0).image is None
    assert np.array_equal(source.read(12, 0.0).image, images[2, 1])
    assert source.read(13, 0.0) is None
    assert (source.exhausted(12), source.exhausted(13)) == (False, True)


@pytest.mark.parametrize(
    ("images", "present", "camera"),
    [
        (np.zeros((2, 2, 4, 4, 3)), np.ones((2, 2), bool), 0),
        (np.zeros((2, 2, 4, 4), np.uint8), np.ones((2, 2), bool), 0),
        (np.zeros((2, 2, 4, 4, 3), np.uint8), np.ones(2, bool), 0),
        (np.zeros((2, 2, 4, 4, 3), np.uint8), np.ones((2, 2), bool), 2),
    ],
)
def test_file_that_is_no_replay_is_refused(tmp_path, images, present, camera):
    path = write_replay(tmp_path / "r.npz", images, present)
    with pytest.raises(DataError):
        ReplaySource(path, camera)


def test_missing_replay_file_is_an_error_with_its_name(tmp_path):
    with pytest.raises(DataError, match=r"none\.npz"):
        ReplaySource(tmp_path / "none.npz", 0)


# -- pictures to the cloud -----------------------------------------------------------------------


PICTURES = random_pictures_bundle(3, (6, 5, 3), (2,), (), (), (4,), "CC", pictures=True)


def test_bundle_that_sends_pictures_is_refused_unless_the_owner_allows_it():
    careful = Agent(1, BOOT, 8)
    careful.load(BUNDLE)
    with pytest.raises(BundleError, match="send_images"):
        careful.load(PICTURES)
    assert wire.decode(careful.view(5, image())).tag == BUNDLE.tag  # the one before still runs


def test_summary_of_a_picture_says_no_more_than_that_there_is_one():
    one = Agent(1, BOOT, 8, send_images=True)
    one.load(PICTURES)
    picture = np.random.default_rng(0).integers(0, 256, (6, 5, 3)).astype(np.uint8)
    summary = wire.decode(one.view(5, picture))
    assert (summary.flags, summary.body) == (0, b"")
    asked = wire.decode(one.features(request(5, PICTURES.tag), near=5))
    assert asked.body == picture.tobytes()
    assert wire.decode(one.view(6, None)).flags == Flag.ABSENT


# -- from one bundle to the next ---------------------------------------------------------------

NEXT = random_bundle(seed=1, version=2)


def changing(at):
    one = agent()
    one.stage(NEXT)
    one.switch(NEXT, at)
    return one


def tag_of(payload):
    return wire.decode(payload).tag


def test_views_before_the_slot_of_the_change_go_to_the_old_bundle():
    one = changing(at=102)
    tags = [tag_of(one.view(slot, image())) for slot in (100, 101, 102, 103)]
    assert tags == [BUNDLE.tag, BUNDLE.tag, NEXT.tag, NEXT.tag]


def test_features_of_the_old_bundle_are_there_after_the_change_and_leave_with_the_ring():
    one = changing(at=101)
    one.view(100, image())
    expected = one.features(request(100), near=100)
    one.view(101, image())
    assert one.features(request(100), near=101) == expected
    assert wire.decode(one.features(request(101, tag=NEXT.tag), near=101)).flags == 0
    for slot in range(102, 112):
        one.view(slot, image())
    assert one.features(request(100), near=111) is None


def test_view_that_was_begun_before_the_change_is_the_old_bundles():
    one = changing(at=102)
    one.begun(NEXT)
    assert tag_of(one.view(101, image())) == BUNDLE.tag
    assert tag_of(one.view(102, image())) == NEXT.tag


def test_bundle_staged_right_after_the_change_does_not_undo_it():
    one = changing(at=102)
    one.begun(NEXT)
    one.stage(random_bundle(seed=2, version=3))
    assert tag_of(one.view(102, image())) == NEXT.tag


def test_bundle_on_trial_makes_summaries_of_its_slots_and_keeps_their_features():
    one = agent()
    one.stage(NEXT)
    assert one.shadow(100, image()) is None
    one.try_out(NEXT, 2)
    assert one.shadow(101, image()) is None
    assert tag_of(one.shadow(100, image())) == NEXT.tag
    assert wire.decode(one.shadow(102, None)).flags == Flag.ABSENT
    assert tag_of(one.view(100, image())) == BUNDLE.tag
    assert wire.decode(one.features(request(100, tag=NEXT.tag), near=100)).flags == 0
    one.try_out(None, 0)
    assert one.shadow(102, image()) is None


def test_hundred_changes_keep_no_more_than_three_sections():
    made = []

    class Section:
        def __init__(self, info, data):
            made.append(weakref.ref(self))

        def run_one(self, picture):
            return np.zeros(3, np.uint8), np.zeros(32, np.uint8)

    one = Agent(1, BOOT, 8, Section)
    for n in range(100):
        bundle = with_version(BUNDLE, n + 1)
        one.stage(bundle)
        one.switch(bundle, 10 * n)
        for slot in range(10 * n, 10 * n + 10):
            one.view(slot, image())
        gc.collect()
        assert sum(ref() is not None for ref in made) <= 3


def test_memory_does_not_grow_over_hundred_changes():
    """With real sections in onnxruntime; a leak of one would be about 0.3 MB a change."""

    def resident_mb():
        gc.collect()
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE") / 1e6

    one = agent()
    for n in range(120):
        bundle = with_version(BUNDLE, n + 2)
        one.stage(bundle)
        one.switch(bundle, 10 * n)
        for slot in range(10 * n, 10 * n + 10):
            one.view(slot, image())
        if n == 20:
            before = resident_mb()
    assert resident_mb() - before < 5.0
