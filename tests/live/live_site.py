"""A site of services that are started and stopped one by one; cameras show folders of pictures."""

import threading

import numpy as np
from PIL import Image

from cloud_service.service import CloudService, CloudSettings
from device_agent.service import DeviceService, DeviceSettings
from edge_gateway.service import GatewayService, GatewaySettings
from tests.live.in_process import SITE, Site, wait
from tests.recordings import shape_picture

PERIOD_S = 0.1


def write_pictures(folder, labels, seed):
    """One picture per label, in their order."""
    folder.mkdir(parents=True)
    random = np.random.default_rng(seed)
    for number, label in enumerate(labels):
        Image.fromarray(shape_picture(label, random)).save(folder / f"{number:03}.png")
    return folder


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

    def start_camera(self, camera, pictures, **settings):
        """The picture of slot n is number n % how many there are: the same on all cameras."""
        settings = DeviceSettings(
            camera=camera, source=f"folder:{pictures}", loop=True, site=SITE, period_s=PERIOD_S,
            broker=self.broker.host, port=self.broker.port, store=str(self.folder / f"s{camera}"),
            **settings,
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
