"""A camera is added to a running site, and another is replaced; the site decides all the while."""

import time

import pytest

from ddnn import topics, wire
from tests.arm64.bundles import random_bundle
from tests.bundles import with_version
from tests.live.in_process import SITE, wait
from tests.live.live_site import PERIOD_S, LiveSite, write_pictures
from tests.recordings import CLASSES
from training.recorded.sources import fetch
from training.recorded.views import PICTURES, gather

pytestmark = pytest.mark.live


@pytest.fixture
def pictures(tmp_path):
    """Three cameras' pictures."""
    labels = [CLASSES[n % 3] for n in range(10)]
    return [write_pictures(tmp_path / f"camera-{n}", labels, n) for n in range(3)]


def bundle_of(cameras, version):
    everybody = (tuple(range(cameras)),)
    made = random_bundle(cameras, (16, 16, 3), (4,), everybody, (8,), (8,), "CC")
    return with_version(made, version)


def test_site_decides_every_slot_while_a_camera_is_added_and_another_replaced(tmp_path, pictures):
    two, three = bundle_of(2, 1), bundle_of(3, 2)
    reported = set()

    def on_summary(message):
        slot = wire.decode(message.payload).slot
        reported.add(wire.unwrap_slot(slot, int(time.time() / PERIOD_S)))

    with LiveSite(tmp_path) as site:
        for camera in range(3):
            site.client.subscribe(topics.summary(SITE, camera), on_summary)
        site.publish(two)
        site.start_upper()
        for camera in (0, 1):
            site.start_camera(camera, pictures[camera])
        site.wait_for((), two.tag, "the first decisions")

        # The new camera's bundle comes before the camera: nobody waits for it.
        site.publish(three)
        site.wait_for((2,), three.tag, "decisions without the new camera")
        site.start_camera(2, pictures[2])
        site.wait_for((), three.tag, "decisions with the new camera")

        # Camera 1's Pi is changed for another one with the same number and an empty card.
        site.stop_camera(1)
        site.wait_for((1,), three.tag, "decisions without camera 1")
        for path in sorted((tmp_path / "s1").rglob("*"), reverse=True):
            path.rmdir() if path.is_dir() else path.unlink()
        site.start_camera(1, pictures[1])
        site.wait_for((), three.tag, "decisions with the new camera 1")
        slots = sorted(site.observer.decisions)
        assert site.observer.repeats == 0
        wait(lambda: site.observer.ledger.get("decided", 0) >= len(slots) - 20, "the ledger")
        assert site.observer.ledger.get("expired", 0) == 0
    # (Of a machine that is too slow for it a slot may have no view at all.)
    assert slots == sorted(slot for slot in reported if slots[0] <= slot <= slots[-1])
    assert len(slots) > 20


def test_new_camera_that_is_on_before_its_bundle_records_and_holds_up_nothing(tmp_path, pictures):
    two, three = bundle_of(2, 1), bundle_of(3, 2)
    recordings = tmp_path / "recordings"
    with LiveSite(tmp_path) as site:
        site.publish(two)
        site.start_upper()
        for camera in (0, 1):
            site.start_camera(camera, pictures[camera])
        site.start_camera(
            2, pictures[2], record_dir=str(recordings), record_every=2, record_size="16x16"
        )
        site.wait_for((), two.tag, "the first decisions")
        wait(lambda: "device-2" in site.observer.devices, "its status")
        wait(
            lambda: "no section device/2" in (site.observer.devices["device-2"].refused or ""),
            "its reason",
        )
        wait(lambda: len(list(recordings.glob("*/*/2.png"))) >= 3, "its recordings")
        site.publish(three)
        site.wait_for((), three.tag, "decisions of all three")
    slots = [int(path.parent.name) for path in recordings.glob("*/*/2.png")]
    assert all(slot % 2 == 0 for slot in slots)
    assert {v.width for v in gather_from(recordings, tmp_path / "set")} == {16}


def test_camera_whose_broker_is_not_there_records_all_the_same(tmp_path, pictures):
    recordings = tmp_path / "recordings"
    with LiveSite(tmp_path) as site:
        site.broker.stop()
        site.start_camera(0, pictures[0], record_dir=str(recordings), record_every=1)
        wait(lambda: len(list(recordings.glob("*/*/0.png"))) >= 3, "its recordings")
    assert {v.width for v in gather_from(recordings, tmp_path / "set")} == {32}


def gather_from(recordings, folder):
    """The views of a folder of recordings, as `ddnn collect` finds them."""
    fetch(recordings, folder / PICTURES, "")
    return gather(folder).views
