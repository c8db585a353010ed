"""Shapes with bundles of random weights: large pictures, refusals, and one shape after another."""

import numpy as np
import pytest

from ddnn.evaluate import Evaluator
from tests.arm64.bundles import CLASSES, random_bundle
from tests.bundles import every_exit_used, with_version
from tests.live.in_process import Site, assert_equal, wait
from training.datasets.base import MultiCameraSet

pytestmark = pytest.mark.live
PERIOD_S = 0.04


def scenes(count, cameras, size):
    """Noisy flat-coloured views that everybody sees."""
    rng = np.random.default_rng(3)
    flat = rng.integers(0, 256, (count, cameras, 1, 1, 3))
    noise = rng.normal(0, 60, (count, cameras, size, size, 3))
    there = np.ones((count, cameras), bool)
    return MultiCameraSet(
        images=np.clip(flat + noise, 1, 255).astype(np.uint8),
        labels=rng.integers(0, 3, count),
        seen=there,
        present=there,
        classes=CLASSES,
        name="random scenes",
        train=np.arange(0),
        test=np.arange(count),
    )


def test_pictures_of_96_pixels_reach_the_cloud(tmp_path):
    bundle = random_bundle(1, (96, 96, 3), (4,), (), (), (8,), "CC", pictures=True)
    samples = scenes(12, bundle.manifest.topology.cameras, 96)
    with Site(tmp_path, samples, 0.1) as site:
        site.run(bundle)
        wait(lambda: len(site.decisions()) >= len(samples), "all decisions")
    expected = Evaluator(bundle).evaluate(samples.images, samples.present)
    assert len(np.unique(expected.entropy)) > 3
    assert_equal(site.decisions(), expected, CLASSES)


def test_device_that_may_not_send_pictures_refuses_the_bundle_and_says_so(tmp_path):
    features = random_bundle(1, (8, 8, 3), (4,), (), (), (8,), "CC")
    pictures = random_bundle(2, (8, 8, 3), (4,), (), (), (8,), "CC", pictures=True)
    pictures = with_version(pictures, 2)
    with Site(tmp_path, scenes(1, 2, 8), 0.1) as site:
        site.run(features)
        site.publish(pictures)

        def refusals():
            return [device.refused or "" for device in site.observer.devices.values()]

        wait(lambda: all("send_images" in refused for refused in refusals()), "refusing it")
        running = {device.bundle for device in site.observer.devices.values()}
        assert running == {features.bundle_id}


def test_site_changes_from_several_edges_to_one_and_nobody_has_to_restart(tmp_path):
    samples = scenes(140, 4, 16)
    before = random_bundle(1, (16, 16, 3), (4,), ((0, 1), (2, 3)), (8,), (8,), "CC")
    after = with_version(random_bundle(3, (16, 16, 3), (4,), ((0, 1, 2, 3),), (8,), (8,), "CC"), 2)
    bundles = {
        "edges": every_exit_used(before, samples.images, samples.present),
        "cameras": every_exit_used(after, samples.images, samples.present),
    }
    with Site(tmp_path, samples, PERIOD_S) as site:
        site.run(bundles["edges"])
        wait(lambda: len(site.decisions()) >= 20, "the first decisions")
        site.publish(bundles["cameras"])
        wait(lambda: len(samples) - 1 in site.decisions(), "the last decision")
        wait(lambda: "gateway-1" in site.observer.statuses, "the status of an edge gateway")
        refused = site.observer.statuses["gateway-1"].refused
    decisions = site.decisions()
    assert "edge gateway 1 has no place" in refused
    for members, bundle in bundles.items():
        expected = Evaluator(bundle).evaluate(samples.images, samples.present)
        whole = {
            n: d
            for n, d in decisions.items()
            if d.members == members and d.degraded is None and not d.missing
        }
        assert len(whole) >= 15
        assert_equal(whole, expected, CLASSES)
    kinds = [decisions[n].members for n in sorted(decisions)]
    assert kinds == sorted(kinds, reverse=True), "edges first, then cameras"
