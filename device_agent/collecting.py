"""Recording without a broker, a bundle or a gateway: how a site's first pictures are made."""

from __future__ import annotations

import logging
import threading
import time

from ddnn.clock import ClockMonitor
from ddnn.errors import ConfigError
from device_agent.pacing import Pacer
from device_agent.recording import Recorder
from device_agent.settings import CameraSettings
from device_agent.sources import ReplaySource, open_source
from device_agent.viewer import make_viewer

log = logging.getLogger(__name__)
LOOK_EVERY_S = 0.2


def collect(
    settings: CameraSettings, shape: tuple[int, int, int], stop: threading.Event, count: int
) -> int:
    """Keep views by the settings' bounds until stopped, or until `count` (0: no end) are kept.

    Returns:
        How many were kept.

    Raises:
        ConfigError: no folder is named, or it cannot be used.
        SourceError: the camera cannot be brought back.
    """
    if not settings.record_dir:
        raise ConfigError("name the folder to record to: --record-dir FOLDER")
    source = open_source(settings)
    viewer = make_viewer(settings, source)
    recorder = Recorder(settings, viewer.framing, every=settings.record_every or 1)
    clock = ClockMonitor()
    pacer = Pacer(settings.period_s, live=True)
    if isinstance(source, ReplaySource):
        source.first_slot = int(time.time() / settings.period_s) + 1
        pacer = Pacer(settings.period_s, live=False, first_slot=source.first_slot)
    viewer.prepare(shape)
    try:
        while not stop.is_set() and not (count and recorder.chosen >= count):
            wall, now = time.time(), time.monotonic()
            source.tend(now)
            if clock.look(wall, now):
                log.warning("the clock was set by %+.1f s", clock.last_step_s)
                pacer.clock_stepped()
            slot, wait_s = pacer.next(wall)
            if not clock.is_set or wait_s > 0:
                stop.wait(min(wait_s, LOOK_EVERY_S) if clock.is_set else LOOK_EVERY_S)
                continue
            pacer.shown(slot)
            if source.exhausted(slot):
                break
            at_s = now - (wall - slot * settings.period_s)
            view = viewer.view(slot, at_s, shape)
            if view is not None:
                recorder.saw(slot, view, at_s, now)
    finally:
        source.close()
        recorder.close()
    return recorder.counts["recorded"]
