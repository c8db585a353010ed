"""A camera in its thread: what its faults do to the agent, which is nothing but a gap."""

import threading
import time

import numpy as np
import pytest

from ddnn.errors import SourceError
from device_agent.sources.base import Frame, Wanted
from device_agent.sources.live import HUNG, LiveSource
from device_agent.watchdog import WatchRules

#: Generous limits but for what a test is about: a busy machine must not look like a fault.
RULES = WatchRules(open_s=30.0, stale_s=30.0, frozen_s=0.0, pause_s=0.01, max_failures=3)


def noise(seed, shape=(4, 6, 3)):
    return np.random.default_rng(seed).integers(0, 256, shape).astype(np.uint8)


class FaultyCamera:
    """Delivers `good` pictures per opening, then does as `fault` says."""

    def __init__(self, fault, good=3):
        self.fault = fault
        self.good = good
        self.opened = self.closed = 0
        self.wanted = []
        self.release = threading.Event()

    def __call__(self, wanted: Wanted):
        self.opened += 1
        self.wanted.append(wanted)
        try:
            for n in range(self.good):
                yield Frame(noise(n), time.monotonic())
            if self.fault == "raises":
                raise SourceError("cable")
            if self.fault == "raises what nobody expects":
                raise KeyError("SensorTimestamp")
            if self.fault == "ends":
                return
            if self.fault == "hangs":
                self.release.wait(30)
            while True:
                still = self.fault == "freezes"
                time.sleep(0.002)
                self.good += 1
                yield Frame(noise(0 if still else self.good), time.monotonic())
        finally:
            self.closed += 1


def source(camera, **rules):
    made = LiveSource(camera, RULES._replace(**rules), fps=100.0, max_age_s=5.0)
    made.want(48)
    return made


def tend_until(made, condition):
    deadline = time.monotonic() + 10
    while not condition():
        made.tend(time.monotonic())
        assert time.monotonic() < deadline, made.health(time.monotonic())
        time.sleep(0.002)


def give_up(made):
    with pytest.raises(SourceError, match="could not be brought back") as error:
        tend_until(made, lambda: False)
    return str(error.value)


def test_frame_of_a_slot_is_the_newest_one_taken_before_it():
    taken = [10.0, 10.1, 10.2]

    def camera(_wanted):
        for when in taken:
            yield Frame(noise(int(when * 10)), when)
        threading.Event().wait(30)

    made = LiveSource(camera, RULES, fps=10.0, max_age_s=0.25)
    made.want(48)
    tend_until(made, lambda: (made.read(0, 10.2) or Frame(None, 0.0)).captured_s == 10.2)
    assert made.read(0, 10.15).captured_s == 10.1
    assert made.read(0, 10.2).captured_s == 10.2
    assert made.read(0, 10.45).captured_s == 10.2
    assert made.read(0, 10.46) is None, "too old: missing, and not absent"
    assert made.read(0, 9.9) is None, "all of them are younger"


@pytest.mark.parametrize("fault", ["raises", "raises what nobody expects"])
def test_camera_that_raises_is_opened_again_and_after_too_many_times_the_agent_ends(fault):
    camera = FaultyCamera(fault, good=0)
    message = give_up(source(camera))
    assert ("cable" in message) or ("KeyError" in message)
    assert camera.opened == camera.closed == 4


def test_frozen_camera_is_closed_and_opened_again():
    camera = FaultyCamera("freezes")
    made = source(camera, frozen_s=0.1)
    tend_until(made, lambda: camera.opened >= 2)
    assert camera.closed >= 1
    health = made.health(time.monotonic())
    assert health.restarts >= 1
    assert "bit for bit" in health.problem
    made.close()


def test_hanging_camera_is_never_opened_a_second_time_and_the_agent_ends():
    camera = FaultyCamera("hangs")
    message = give_up(source(camera, stale_s=0.1))
    assert HUNG in message
    assert camera.opened == 1, "two would fight over the device"
    camera.release.set()


def test_camera_that_hangs_for_a_while_comes_back():
    camera = FaultyCamera("hangs")
    made = source(camera, stale_s=0.1, pause_s=0.3)
    tend_until(made, lambda: made.health(time.monotonic()).state == "waiting")
    camera.fault = None
    camera.release.set()
    tend_until(made, lambda: camera.opened == 2)
    tend_until(made, lambda: made.health(time.monotonic()).state == "running")
    made.close()
    assert camera.closed == 2


def test_film_that_ends_is_exhausted_and_no_failure():
    camera = FaultyCamera("ends")
    made = source(camera)
    tend_until(made, lambda: made.exhausted(0))
    assert made.health(time.monotonic()).state == "ended"
    assert (camera.opened, camera.closed) == (1, 1)


def test_another_height_reopens_the_camera_without_counting_a_failure():
    camera = FaultyCamera(None)
    made = source(camera)
    tend_until(made, lambda: made.health(time.monotonic()).state == "running")
    made.want(96)
    tend_until(made, lambda: camera.opened == 2)
    tend_until(made, lambda: made.health(time.monotonic()).state == "running")
    assert [wanted.height for wanted in camera.wanted] == [48, 96]
    assert made.health(time.monotonic()).restarts == 0
    made.close()


def test_health_tells_rate_and_age():
    camera = FaultyCamera(None)
    made = source(camera)
    tend_until(made, lambda: made.health(time.monotonic()).fps > 0)
    health = made.health(time.monotonic())
    assert health.state == "running"
    assert health.frame_age_s < 5
    made.close()
    assert camera.closed == 1


def test_camera_that_hangs_head_down_gives_upright_pictures_and_is_closed_as_any():
    camera = FaultyCamera(None)
    made = LiveSource(camera, RULES, fps=100.0, max_age_s=5.0, upside_down=True)
    made.want(48)
    tend_until(made, lambda: made.read(0, time.monotonic()) is not None)
    frame = made.read(0, time.monotonic())
    shown = frame.image[::-1, ::-1]
    assert any(np.array_equal(shown, noise(seed)) for seed in range(camera.good + 1))
    made.close()
    assert camera.closed == 1
