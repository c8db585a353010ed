"""A camera in a thread of its own: the newest frames, and a watchdog over them."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Any, cast

import numpy as np

from ddnn.errors import SourceError
from device_agent.sources.base import Capture, Frame, SourceHealth, Wanted
from device_agent.watchdog import State, Step, Watchdog, WatchRules

log = logging.getLogger(__name__)
#: The newest frames that are kept: more than one, since the newest may be younger than the slot.
KEPT_FRAMES = 3
#: Pictures whose values differ by less than this have no contrast.
CONTRAST = 8
HUNG = "the driver hangs: it was told to stop and has not ended"
#: Frames from which the rate is computed.
RATE_FRAMES = 32


class LiveSource:
    """A camera by capture time.

    The camera is opened, read and closed on one thread; a driver that hangs can hang only that.
    A new thread is never started beside one that has not ended: two would fight over the device.

    Args:
        capture: the camera.
        rules: of its watchdog.
        fps: pictures per second to ask for.
        max_age_s: how long before its slot's beginning a frame may have been taken.
        upside_down: turn pictures by 180 degrees.
        clock: monotonic seconds.
    """

    live = True

    def __init__(
        self,
        capture: Capture,
        rules: WatchRules,
        *,
        fps: float,
        max_age_s: float,
        upside_down: bool = False,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._capture = _turned(capture) if upside_down else capture
        self._watchdog = Watchdog(rules)
        self._fps = fps
        self._max_age_s = max_age_s
        self._clock = clock
        self._lock = threading.Lock()
        self._wanted: Wanted | None = None
        self._thread: _CaptureThread | None = None
        self._ended = False
        self._frames: deque[Frame] = deque(maxlen=KEPT_FRAMES)
        self._times: deque[float] = deque(maxlen=RATE_FRAMES)

    def want(self, height: int) -> None:
        wanted = Wanted(height, self._fps)
        with self._lock:
            if wanted == self._wanted:
                return
            first, self._wanted = self._wanted is None, wanted
            if first:
                self._open()
            elif self._thread is not None:
                # It ends by itself and is opened again with the new size.
                self._thread.stop()

    def read(self, slot: int, at_s: float) -> Frame | None:
        """The newest frame taken at or before `at_s` and not too long before."""
        with self._lock:
            for frame in reversed(self._frames):
                if frame.captured_s <= at_s:
                    return frame if at_s - frame.captured_s <= self._max_age_s else None
        return None

    def exhausted(self, slot: int) -> bool:
        return self._ended

    def tend(self, now: float) -> None:
        with self._lock:
            step = self._watchdog.look(now)
            if step is Step.STOP:
                log.warning("camera: %s; opening it again", self._watchdog.problem)
                if self._thread is not None:
                    self._thread.stop()
            elif step is Step.OPEN:
                if self._thread is not None and self._thread.is_alive():
                    self._watchdog.failed(now, HUNG)
                else:
                    self._open()
            elif step is Step.GIVE_UP:
                raise SourceError(
                    f"the camera could not be brought back: {self._watchdog.problem}. "
                    f"Tried {self._watchdog.rules.max_failures} times in a row; ending, so that a "
                    "fresh process can try"
                )

    def health(self, now: float) -> SourceHealth:
        with self._lock:
            times = list(self._times)
            newest = self._frames[-1] if self._frames else None
            watchdog = self._watchdog
            problem = watchdog.problem
            if problem is None and watchdog.no_contrast:
                problem = "the picture is one shade: too dark, or the lens is covered"
            state = "ended" if self._ended else watchdog.state.value
            restarts = watchdog.restarts
            running = watchdog.state is State.RUNNING
        span = times[-1] - times[0] if len(times) > 1 else 0.0
        return SourceHealth(
            state=state,
            fps=(len(times) - 1) / span if running and span > 0 else 0.0,
            frame_age_s=None if newest is None else now - newest.captured_s,
            restarts=restarts,
            problem=problem,
        )

    def close(self) -> None:
        """End the thread; a driver that hangs is left behind."""
        with self._lock:
            thread, self._thread = self._thread, None
        if thread is not None:
            thread.stop()
            thread.join(2.0)

    # -- on the capture thread ---------------------------------------------------------------

    def deliver(self, thread: _CaptureThread, frame: Frame, *, same: bool, flat: bool) -> None:
        """A picture of `thread`, which counts only while it is the present one."""
        with self._lock:
            if thread is self._thread and not thread.stopped:
                self._frames.append(frame)
                self._times.append(frame.captured_s)
                self._watchdog.frame(self._clock(), same=same, no_contrast=flat)

    def ended(self, thread: _CaptureThread, problem: str | None) -> None:
        """`thread` is about to end; `problem` None: it was told to, or there is nothing more."""
        with self._lock:
            if thread is not self._thread:
                return
            if problem is not None:
                # What the watchdog has given up already is not a failure once more.
                if not thread.stopped:
                    log.warning("camera: %s; opening it again", problem)
                    self._watchdog.failed(self._clock(), problem)
            elif not thread.stopped:
                self._ended = True
            elif thread.wanted != self._wanted:
                self._open()

    def _open(self) -> None:
        assert self._wanted is not None
        self._watchdog.opening(self._clock())
        self._times.clear()
        self._thread = _CaptureThread(self, self._capture, self._wanted)
        self._thread.start()


def _turned(capture: Capture) -> Capture:
    def frames(wanted: Wanted) -> Iterator[Frame]:
        with closing(cast(Any, capture(wanted))) as upright:
            for frame in upright:
                # A view of the same memory: nothing is copied.
                image = frame.image
                yield frame if image is None else frame._replace(image=image[::-1, ::-1])

    return frames


class _CaptureThread(threading.Thread):
    """Reads a camera until told to stop."""

    def __init__(self, owner: LiveSource, capture: Capture, wanted: Wanted) -> None:
        super().__init__(name="capture", daemon=True)
        self.wanted = wanted
        self._owner = owner
        self._capture = capture
        self._stop_asked = threading.Event()

    @property
    def stopped(self) -> bool:
        """Whether it was told to stop."""
        return self._stop_asked.is_set()

    def stop(self) -> None:
        """End after the next picture."""
        self._stop_asked.set()

    def run(self) -> None:
        problem = None
        try:
            self._read()
        except SourceError as error:
            problem = str(error)
        except Exception as error:  # a camera's library raises what it likes
            log.debug("camera", exc_info=True)
            problem = f"{type(error).__name__}: {error}"
        self._owner.ended(self, problem)

    def _read(self) -> None:
        before: Any = None
        # Closing the generator closes the camera, here and now.
        with closing(cast(Any, self._capture(self.wanted))) as frames:
            for frame in frames:
                image = frame.image
                same = before is not None and np.array_equal(image, before)
                flat = same and int(image.max()) - int(image.min()) < CONTRAST
                before = image
                self._owner.deliver(self, frame, same=same, flat=flat)
                if self.stopped:
                    return
