"""A camera is added to a running site, and another is replaced; the site decides all the while."""

import threading

import pytest

from cloud_service.service import CloudService, CloudSettings
from device_agent.service import DeviceService, DeviceSettings
from edge_gateway.service import GatewayService, GatewaySettings
from tests.arm64.bundles import random_bundle
from tests.bundles import with_version
from tests.live.in_process import SITE, Site, wait
from tests.recordings import CLASSES, shape_picture

pytestmark = pytest.mark.live
PERIOD_S = 0.1


class LiveSite(Site):
    """Services that are started and stopped one by one; each camera shows its own pictures."""

    def __init__(self, folder):
        super().__init__(folder, None, PERIOD_S)
        self._cameras = {}

    def start_upper(self):
        where = {"broker": self.broker.host, "port": self.broker.port}
        self._start(CloudService, CloudSettings(**where), self._stop)
        gateway = GatewaySettings(site=SITE, period_s=PERIOD_S, **where)
        self._start(GatewayService, gateway, self._stop)

    def start_camera(self, camera):
        import numpy as np
        from PIL import Image

        folder = self.folder / f"camera-{camera}"
        folder.mkdir(exist_ok=True)
        random = np.random.default_rng(camera)
        for n in range(10):
            picture = shape_picture(CLASSES[n % 3], random)
            Image.fromarray(picture).save(folder / f"{n}.png")
        settings = DeviceSettings(
            camera=camera, source=f"folder:{folder}", loop=True, site=SITE, period_s=PERIOD_S,
            broker=self.broker.host, port=self.broker.port, store=str(self.folder / f"s{camera}"),
        )  # fmt: skip
        stop = threading.Event()
        self._cameras[camera] = stop, self._start(DeviceService, settings, stop)

    def stop_camera(self, camera):
        stop, thread = self._cameras.pop(camera)
        stop.set()
        thread.join(10)
        assert not thread.is_alive()

    def _start(self, service, settings, stop):
        thread = threading.Thread(target=service(settings, stop).run, daemon=True)
        thread.start()
        self._threads.append(thread)
        return thread

    def _end(self):
        for camera in list(self._cameras):
            self.stop_camera(camera)
        super()._end()

    def latest(self):
        """The newest decisions, newest first."""
        seen = self.observer.decisions
        return [seen[slot].decision for slot in sorted(seen, reverse=True)]

    def wait_for(self, missing, tag, what):
        """Until the last five decisions are of this bundle with these cameras missing."""

        def fits():
            last = self.latest()[:5]
            return len(last) == 5 and all(
                d.missing == missing and d.degraded is None and d.bundle_tag == tag for d in last
            )

        wait(fits, what)


def bundle_of(cameras, version):
    everybody = (tuple(range(cameras)),)
    made = random_bundle(cameras, (16, 16, 3), (4,), everybody, (8,), (8,), "CC")
    return with_version(made, version)


def test_site_decides_every_slot_while_a_camera_is_added_and_another_replaced(tmp_path):
    two, three = bundle_of(2, 1), bundle_of(3, 2)
    with LiveSite(tmp_path) as site:
        site.publish(two)
        site.start_upper()
        for camera in (0, 1):
            site.start_camera(camera)
        site.wait_for((), two.tag, "the first decisions")

        # The new camera's bundle comes before the camera: nobody waits for it.
        site.publish(three)
        site.wait_for((2,), three.tag, "decisions without the new camera")
        site.start_camera(2)
        site.wait_for((), three.tag, "decisions with the new camera")

        # Camera 1's Pi is changed for another one with the same number and an empty card.
        site.stop_camera(1)
        site.wait_for((1,), three.tag, "decisions without camera 1")
        for path in sorted((tmp_path / "s1").rglob("*"), reverse=True):
            path.rmdir() if path.is_dir() else path.unlink()
        site.start_camera(1)
        site.wait_for((), three.tag, "decisions with the new camera 1")
        slots = sorted(site.observer.decisions)
        assert site.observer.repeats == 0
        wait(lambda: site.observer.ledger.get("decided", 0) >= len(slots) - 20, "the ledger")
        assert site.observer.ledger.get("expired", 0) == 0
    assert slots == list(range(slots[0], slots[-1] + 1)), "no slot is left out"


def test_new_camera_that_is_on_before_its_bundle_waits_and_holds_up_nothing(tmp_path):
    two, three = bundle_of(2, 1), bundle_of(3, 2)
    with LiveSite(tmp_path) as site:
        site.publish(two)
        site.start_upper()
        for camera in (0, 1, 2):
            site.start_camera(camera)
        site.wait_for((), two.tag, "the first decisions")
        wait(lambda: "device-2" in site.observer.devices, "its status")
        wait(
            lambda: "no section device/2" in (site.observer.devices["device-2"].refused or ""),
            "its reason",
        )
        site.publish(three)
        site.wait_for((), three.tag, "decisions of all three")
