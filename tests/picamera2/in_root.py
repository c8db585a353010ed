"""What the agent does with picamera2, on libcamera's virtual camera. Runs in the root.

    python in_root.py moving|frozen

Prints one line for each thing that is as it must be; ends with 1 at the first that is not.
"""

import sys
import time

import numpy as np

from ddnn.errors import SourceError
from device_agent.sources.base import Wanted
from device_agent.sources.live import LiveSource
from device_agent.sources.picamera import picamera_capture, stream_size
from device_agent.watchdog import WatchRules

#: As `tests.picamera2.run` paints them: top left, and the rest.
PICTURES = [((55, 215, 215), (200, 40, 40)), ((215, 55, 215), (40, 200, 40))]
FPS = 15.0


def check(what, is_so, shown=""):
    if not is_so:
        raise SystemExit(f"WRONG: {what}: {shown}")
    print(f"ok     {what}", flush=True)


def close_to(colour, wanted):
    return np.abs(np.asarray(colour, int) - wanted).max() < 12


def frames_of_a_camera():
    frames = picamera_capture(0)(Wanted(96, FPS))
    got = [next(frames) for _ in range(30)]
    frames.close()
    width, height = stream_size(96, 4, 3)  # what is assumed of a sensor that does not say
    shapes = {frame.image.shape for frame in got}
    check("pictures have the size that was asked for", shapes == {(height, width, 3)}, shapes)
    corners = [tuple(int(v) for v in frame.image[10, 10]) for frame in got]
    rests = [tuple(int(v) for v in frame.image[-10, -10]) for frame in got]
    seen = {n for n, (a, b) in enumerate(PICTURES) for c, r in zip(corners, rests, strict=True)
            if close_to(c, a) and close_to(r, b)}  # fmt: skip
    check("pictures are upright, red is red, and none is left out", seen == {0, 1}, corners)
    ages = [time.monotonic() - frame.captured_s for frame in got]
    steps = np.diff([frame.captured_s for frame in got])
    check("times of capture go forward", (steps >= 0).all(), steps)
    check("and are this machine's own", min(ages) >= 0 and max(ages) < 30, ages)
    return got


def follow(source, seconds, until=lambda source: False):
    """Tend a source as the agent does; the distinct capture times read."""
    times, end, slot = set(), time.monotonic() + seconds, 0
    while time.monotonic() < end and not until(source):
        now = time.monotonic()
        source.tend(now)
        frame = source.read(slot, now)
        if frame is not None:
            times.add(frame.captured_s)
        slot += 1
        time.sleep(0.02)
    return times


def source(**rules):
    wanted = {"stale_s": 5.0, "frozen_s": 0.0, "max_failures": 5} | rules
    return LiveSource(picamera_capture(0), WatchRules(**wanted), fps=FPS, max_age_s=1.0)


def moving():
    """With several pictures in turn."""
    frames_of_a_camera()
    frames_of_a_camera()
    check("a camera that was closed can be opened again", True)

    live = source()
    live.want(96)
    times = follow(live, 5)
    health = live.health(time.monotonic())
    check("a live source shows new pictures", len(times) > 20 and health.state == "running", health)
    live.want(192)  # another bundle wants more
    follow(live, 10, lambda s: (f := s.read(0, time.monotonic())) and f.image.shape[0] > 150)
    frame = live.read(0, time.monotonic())
    check("another size opens it anew", frame is not None and frame.image.shape[0] >= 192, frame)
    live.close()

    try:
        next(picamera_capture(7)(Wanted(96, FPS)))
    except SourceError as error:
        check("a camera that is not there is named", "no camera 7" in str(error), error)
    else:
        check("a camera that is not there is refused", False)


def frozen():
    """With one picture for ever."""
    live = source(frozen_s=2.0)
    live.want(96)
    follow(live, 20, lambda s: s.health(time.monotonic()).restarts >= 1)
    health = live.health(time.monotonic())
    check("a frozen camera is opened again", health.restarts >= 1, health)
    follow(live, 10, lambda s: s.health(time.monotonic()).state == "running")
    health = live.health(time.monotonic())
    check("and runs", health.state == "running", health)
    live.close()


if __name__ == "__main__":
    {"moving": moving, "frozen": frozen}[sys.argv[1]]()
