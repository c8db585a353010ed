"""Cameras that send several slots in a message, as real processes: the same decisions."""

import time

import numpy as np
import pytest

from benchmarks.site import SITE, WAITS, BenchSite
from ddnn import topics, wire
from ddnn.evaluate import Evaluator
from ddnn.wire import Kind
from tests.bundles import every_exit_used, random_bundle

pytestmark = [pytest.mark.live, pytest.mark.timeout(90)]
DELAY = ("--summary-delay-s", "0.5")
SLOTS = 30


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("delayed")
    rng = np.random.default_rng(5)
    images = rng.integers(1, 256, (SLOTS, 3, 16, 16, 3)).astype(np.uint8)
    images[..., 0] //= rng.integers(1, 5, (SLOTS, 3, 1, 1)).astype(np.uint8)
    present = rng.random((SLOTS, 3)) < 0.9
    images[~present] = 0
    bundle = every_exit_used(random_bundle(cameras=3), images, present)
    np.savez(folder / "replay.npz", images=images, present=present)
    frames = []
    with BenchSite(
        folder / "site", bundle, folder / "replay.npz",
        device_options=DELAY, gateway_options=(*WAITS, *DELAY),
    ) as site, site.client("gateway", start=False) as listener:  # fmt: skip

        def on_summary(message):
            frames.append(wire.decode(message.payload))

        listener.subscribe(topics.summary_filter(SITE), on_summary, qos=0)
        listener.start()
        listener.wait_connected(10)
        with site.client("operator") as operator:
            first = site.begin_replay(operator)
        last = first + SLOTS - 1
        site.wait(lambda: last in site.observer.decisions, "the last decision", 30)
        time.sleep(0.2)
        return bundle, images, present, first, site.observer, list(frames)


def test_decisions_are_those_of_the_evaluation(run):
    bundle, images, present, first, observer, _ = run
    expected = Evaluator(bundle).evaluate(images, present)
    classes = bundle.manifest.classes
    got = [observer.decisions[first + n].decision for n in range(SLOTS)]
    there = present.any(axis=1)
    assert [d.label for d in got] == [
        classes[label] if seen else None for label, seen in zip(expected.label, there, strict=True)
    ]
    assert {d.exit for d in got if d.exit} == {"local", "edge", "cloud"}
    assert all(d.degraded is None and not d.missing for d in got)


def test_most_slots_share_a_message(run):
    *_, frames = run
    several = [frame for frame in frames if frame.kind is Kind.SUMMARIES]
    assert several
    assert len(frames) < SLOTS  # of three cameras
    assert {frame.kind for frame in frames} <= {Kind.SUMMARY, Kind.SUMMARIES}
