"""Bytes by formula are the bytes that `ddnn.wire` makes, and what a hand count says."""

import numpy as np
import pytest

from ddnn import wire
from ddnn.wire import Flag, Kind
from tests import bundles
from training.traffic import Sizes, camera_bytes, cloud_bytes, edge_bytes, paper_bytes, sizes_of

HEAD = {"tag": 1, "boot": 2, "slot": 3}
ONE_EDGE = Sizes(
    classes=3, score_bytes=3, feature_bytes=128, edge_feature_bytes=(64,), edges=((0, 1, 2),)
)
NO_EDGE = Sizes(classes=3, score_bytes=3, feature_bytes=128, edge_feature_bytes=(), edges=())
TWO_EDGES = Sizes(
    classes=3, score_bytes=3, feature_bytes=128, edge_feature_bytes=(64, 64), edges=((0, 1), (2,))
)
PRESENT = np.array([[True, True, True], [True, False, True], [True, False, False], [False] * 3])


def message(kind, size, **more):
    return len(wire.encode(kind, **HEAD, body=bytes(size), **more))


def test_hand_count_of_the_paper_formula():
    assert paper_bytes(3, 1.0, 4 * 256) == 12
    assert paper_bytes(3, 0.0, 4 * 256) == 140
    assert paper_bytes(3, 0.6082, 4 * 256) == pytest.approx(62.2, abs=0.06)
    assert paper_bytes(3, 0.7135, 8 * 64) == pytest.approx(30.3, abs=0.06)


def test_hand_count_of_a_camera():
    nobody_asked, all_asked = np.zeros(4, bool), np.ones(4, bool)
    assert camera_bytes(ONE_EDGE, PRESENT, nobody_asked).tolist() == [13, 12, 11, 10]
    assert camera_bytes(ONE_EDGE, PRESENT, all_asked).tolist() == [151, 104, 57, 10]


def test_camera_bytes_are_those_of_the_wire_format():
    asked = np.array([True, False, True, True])
    for row, present in enumerate(PRESENT):
        total = 0
        for there in present:
            if there:
                total += message(Kind.SUMMARY, 3)
                total += message(Kind.FEATURES, 128) if asked[row] else 0
            else:
                total += message(Kind.SUMMARY, 0, flags=Flag.ABSENT)
        assert camera_bytes(ONE_EDGE, PRESENT, asked)[row] * 3 == total


def test_cloud_bytes_are_those_of_an_escalation():
    def escalation(members, size):
        body = wire.pack_escalation(sum(1 << m for m in members), [bytes(size)] * len(members))
        return len(wire.encode(Kind.ESCALATION, **HEAD, body=body))

    passed = np.array([True, True, False, True])
    assert cloud_bytes(ONE_EDGE, PRESENT, passed).tolist() == [escalation([0], 64)] * 2 + [0, 0]
    assert cloud_bytes(NO_EDGE, PRESENT, passed).tolist() == [
        escalation([0, 1, 2], 128),
        escalation([0, 2], 128),
        0,
        0,
    ]


def test_several_edges_go_to_the_cloud_in_one_message():
    passed = np.array([True, False, True, True])
    assert cloud_bytes(TWO_EDGES, PRESENT, passed).tolist() == [14 + 2 * 64, 0, 14 + 64, 0]


def test_several_edges_report_to_the_gateway_above_them():
    asked = np.array([True, False, True, False])
    both, one, none = 2 * 13, 13 + 10, 2 * 10
    features = message(Kind.FEATURES, 3 + 64)
    assert (2 * edge_bytes(TWO_EDGES, PRESENT, asked)).tolist() == [
        both + 2 * features,
        both,
        one + features,
        none,
    ]


def test_picture_goes_up_twice_and_its_summary_says_nothing():
    pictures = Sizes(classes=3, score_bytes=0, feature_bytes=3072, edge_feature_bytes=(), edges=())
    every = np.ones(4, bool)
    assert camera_bytes(pictures, PRESENT, every)[0] == 10 + 10 + 3072
    assert cloud_bytes(pictures, PRESENT, every)[0] == 14 + 3 * 3072


def test_sizes_are_the_manifests():
    assert sizes_of(bundles.random_bundle().manifest) == Sizes(
        classes=3, score_bytes=3, feature_bytes=32, edge_feature_bytes=(16,), edges=((0, 1, 2),)
    )
