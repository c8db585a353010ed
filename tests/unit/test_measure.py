"""What a manifest says of a bundle is what a direct evaluation gives."""

from itertools import pairwise

import msgspec
import numpy as np
import pytest

from ddnn.bundle import decode_manifest, encode_manifest
from ddnn.errors import BundleError
from ddnn.evaluate import evaluate
from ddnn.measurements import MAX_CURVE_POINTS, Calibration, MissingCameras, MissingTable
from tests import bundles
from training.calibrate import calibrate
from training.datasets.base import MultiCameraSet
from training.goal import HIGHEST_ACCURACY
from training.measure import (
    Measured,
    accuracy,
    calibration,
    calibration_cases,
    choose,
    missing_entry,
    missing_sets,
    missing_table,
)


def random_set(samples=60, cameras=3, seed=0):
    rng = np.random.default_rng(seed)
    present = rng.random((samples, cameras)) < 0.8
    present[0] = False
    images = rng.integers(0, 256, (samples, cameras, 16, 16, 3), dtype=np.uint8)
    images[~present] = 0
    return MultiCameraSet(
        images=images,
        labels=rng.integers(0, 3, samples),
        seen=present.copy(),
        present=present,
        classes=bundles.CLASSES,
        name="random",
        train=np.arange(40),
        test=np.arange(40, samples),
    )


@pytest.fixture(scope="module")
def data():
    return random_set()


@pytest.fixture(scope="module")
def bundle():
    return bundles.random_bundle()


@pytest.fixture(scope="module")
def measured(bundle, data):
    return Measured(bundle, data, data.train)


def test_curve_is_monotone_and_each_point_is_a_direct_evaluation(bundle, data, measured):
    choice = choose(measured, HIGHEST_ACCURACY)
    curve = calibration(measured, HIGHEST_ACCURACY, choice).curve
    assert 3 <= len(curve) <= MAX_CURVE_POINTS
    assert curve[0].thresholds["local"] == 0.0
    assert curve[-1].thresholds["local"] == 1.0
    assert choice.thresholds in [point.thresholds for point in curve]
    for low, high in pairwise(curve):
        assert low.thresholds["local"] < high.thresholds["local"]
        assert low.thresholds["edge"] == high.thresholds["edge"] == choice.thresholds["edge"]
        assert low.camera_bytes >= high.camera_bytes
        assert low.cloud_bytes >= high.cloud_bytes
    images, present = data.images[data.train], data.present[data.train]
    seen = present.any(axis=1)
    for point in curve:
        result = evaluate(bundle, images, present, point.thresholds)
        right = result.label[seen] == data.labels[data.train][seen]
        assert point.accuracy == pytest.approx(right.mean(), abs=5e-5)
        for name, share in point.exit_shares.items():
            assert share == pytest.approx((result.exit[seen] == name).mean(), abs=5e-5)
        # By hand: 10 bytes of header, 3 scores, 32 bytes of features.
        asked = (result.exit != "local")[:, None]
        sent = 10 + present * 3 + (present & asked) * (10 + 32)
        assert point.camera_bytes == pytest.approx(sent.mean(), abs=5e-5)
        cloud = (result.exit == "cloud") * (10 + 4 + 16)
        assert point.cloud_bytes == pytest.approx(cloud.mean(), abs=5e-5)


def test_thresholds_come_from_all_cameras_and_from_each_one_missing(measured):
    cases = calibration_cases(measured)
    seen = int(measured.present.any(axis=1).sum())
    assert cases.traffic_weight.sum() == seen
    assert cases.weight.sum() == pytest.approx(2 * seen)
    assert choose(measured, HIGHEST_ACCURACY) == calibrate(cases)


@pytest.mark.parametrize("missing", [(), (1,), (0, 2), (0, 1, 2)])
def test_missing_cameras_are_a_direct_evaluation_without_them(bundle, data, measured, missing):
    images, present = data.images[data.train], data.present[data.train].copy()
    present[:, list(missing)] = False
    labels = data.labels[data.train]
    thresholds = {"local": 0.88, "edge": 0.88}
    result = evaluate(bundle, images, present, thresholds)
    entry = missing_entry(measured, thresholds, missing)
    seen = present.any(axis=1)
    assert entry.cameras == missing
    assert entry.answered == pytest.approx(seen.mean(), abs=5e-5)
    assert entry.overall == pytest.approx((result.label == labels).mean(), abs=5e-5)
    for name, share in (("local", entry.local), ("cloud", entry.last)):
        right = (result.exits[name].label == labels) & seen
        assert share == pytest.approx(right.mean(), abs=5e-5)


def test_table_holds_every_set_of_few_cameras_and_pairs_of_many(bundle, data):
    assert len(missing_sets(6)) == 64
    assert len(missing_sets(32)) == 1 + 32 + 496
    table = missing_table(bundle, data, data.train)
    assert (table.split, table.samples, len(table.sets)) == ("test", 20, 8)
    assert table.without((0, 1, 2)).overall == 0.0
    assert table.without((5,)) is None
    direct = evaluate(bundle, data.images[data.test], data.present[data.test])
    right = (direct.label == data.labels[data.test]).mean()
    assert table.without(()).overall == pytest.approx(right)


def test_without_a_test_split_the_table_says_that_it_is_of_validation_samples(bundle, data):
    alone = data.subset(data.train)
    table = missing_table(bundle, alone, np.arange(30))
    assert (table.split, table.samples) == ("validation", 30)


def test_accuracy_of_all_exits_is_a_direct_evaluation(bundle, data, measured):
    thresholds = {"local": 0.88, "edge": 0.88}
    got = accuracy(measured, thresholds)
    direct = evaluate(bundle, data.images[data.train], data.present[data.train], thresholds)
    labels = data.labels[data.train]
    assert got.overall == pytest.approx((direct.label == labels).mean())
    assert got.exits["edge"] == pytest.approx((direct.exits["edge"].label == labels).mean())
    assert sum(got.exit_shares.values()) == pytest.approx(1)


def full_manifest(bundle, measured):
    choice = choose(measured, HIGHEST_ACCURACY)
    entries = tuple(missing_entry(measured, choice.thresholds, m) for m in missing_sets(3))
    return msgspec.structs.replace(
        bundle.manifest,
        calibration=calibration(measured, HIGHEST_ACCURACY, choice),
        missing=MissingTable(split="test", samples=40, sets=entries),
    )


def test_manifest_carries_curve_and_table_there_and_back(bundle, measured):
    manifest = full_manifest(bundle, measured)
    payload = encode_manifest(manifest)
    assert decode_manifest(payload) == manifest
    assert len(payload) < 20_000


def points(manifest, change):
    return msgspec.structs.replace(
        manifest,
        calibration=Calibration(
            goal="accuracy", samples=1, curve=tuple(change(list(manifest.calibration.curve)))
        ),
    )


def sets(manifest, *cameras):
    entry = manifest.missing.sets[0]
    changed = tuple(msgspec.structs.replace(entry, cameras=c) for c in cameras)
    return msgspec.structs.replace(
        manifest, missing=msgspec.structs.replace(manifest.missing, sets=changed)
    )


def without_edge(curve):
    return [msgspec.structs.replace(p, thresholds={"local": 0.5}) for p in curve[:1]]


def dearer(curve):
    return [curve[0], msgspec.structs.replace(curve[1], camera_bytes=1e6)]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda m: points(m, lambda c: c[::-1]), "rise in its threshold"),
        (lambda m: points(m, lambda c: [c[0], c[0]]), "rise in its threshold"),
        (lambda m: points(m, dearer), "rises in its traffic"),
        (lambda m: points(m, without_edge), "one threshold for each exit"),
        (lambda m: sets(m, (0,), (0,)), "twice"),
        (lambda m: sets(m, (1, 0)), "ascending"),
        (lambda m: sets(m, (0, 0)), "ascending"),
        (lambda m: sets(m, (3,)), "does not have"),
        (lambda m: sets(m, (-1,)), "does not have"),
        (lambda m: points(m, lambda c: c[:1] * 33), "Expected `array` of length <= 32"),
    ],
)
def test_curve_or_table_that_is_none_is_refused(bundle, measured, change, reason):
    payload = encode_manifest(change(full_manifest(bundle, measured)))
    with pytest.raises(BundleError, match=reason):
        decode_manifest(payload)


def test_share_above_one_is_refused():
    entry = MissingCameras(cameras=(), answered=1, overall=1.5, local=None, last=1)
    with pytest.raises(msgspec.ValidationError):
        msgspec.json.decode(msgspec.json.encode(entry), type=MissingCameras)
