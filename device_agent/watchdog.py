"""When a camera is to be given up and opened again. Pure: the caller reads the clock.

A camera fails in four ways. It says so (an error, the end of a stream). It goes silent: a driver
hangs. It goes on delivering the same picture: a stuck sensor or a stalled stream, which by its
rate alone looks alive. Or it never comes up. Each ends in the same way: closed, and after a pause
opened again. The pause doubles from failure to failure and starts over after a time of good
pictures. After too many failures in a row the process ends: what it cannot mend by opening the
camera again, a fresh process sometimes can.
"""

from __future__ import annotations

from enum import Enum
from typing import NamedTuple


class WatchRules(NamedTuple):
    """Times in seconds.

    Attributes:
        open_s: from opening to the first picture, at most.
        stale_s: between two pictures, at most.
        frozen_s: how long pictures may be the same in every bit; 0: for ever. The noise of a real
            sensor never gives the same picture twice.
        pause_s, longest_pause_s: before it is opened again, the first time and at most.
        settled_s: pictures so long without a fault, and earlier failures are forgotten.
        max_failures: in a row; with one more it is hopeless.
    """

    open_s: float = 15.0
    stale_s: float = 5.0
    frozen_s: float = 10.0
    pause_s: float = 1.0
    longest_pause_s: float = 30.0
    settled_s: float = 60.0
    max_failures: int = 5


class Step(Enum):
    """What is to be done with the camera."""

    NOTHING = "nothing"
    OPEN = "open"
    STOP = "stop"
    GIVE_UP = "give up"


class State(Enum):
    """Where a camera stands; the values are what a status says."""

    CLOSED = "closed"
    OPENING = "opening"
    RUNNING = "running"
    WAITING = "waiting"


class Watchdog:
    """The rules of one camera.

    Attributes:
        state: as far as is known.
        restarts: how often it was opened again.
        failures: in a row.
        problem: the last failure's, until pictures come again.
        no_contrast: the last picture is the same in every bit, and nothing but one shade: too
            dark, or the lens is covered. That is no fault of the camera's.
    """

    def __init__(self, rules: WatchRules) -> None:
        self.rules = rules
        self.state = State.CLOSED
        self.restarts = 0
        self.failures = 0
        self.problem: str | None = None
        self.no_contrast = False
        self._since = 0.0  # when this state began
        self._last = 0.0  # the last picture
        self._changed = 0.0  # the last one that differed from the one before

    def opening(self, now: float) -> None:
        """The camera is being opened."""
        if self.failures:
            self.restarts += 1
        self._enter(State.OPENING, now)

    def frame(self, now: float, *, same: bool, no_contrast: bool = False) -> None:
        """A picture came.

        Args:
            same: in every bit the same as the one before.
            no_contrast: it is nothing but one shade.
        """
        self.no_contrast = same and no_contrast
        if self.state is State.OPENING:
            self._enter(State.RUNNING, now)
            self._changed = now
        self._last = now
        if not same or no_contrast:
            self._changed = now

    def failed(self, now: float, problem: str) -> None:
        """The camera is not usable any more; it is closed, or about to be."""
        self.failures += 1
        self.problem = problem
        self._enter(State.WAITING, now)

    def look(self, now: float) -> Step:
        """What is to be done now. OPEN, STOP and GIVE_UP are said once."""
        rules = self.rules
        if self.state is State.OPENING and now - self._since > rules.open_s:
            return self._stop(now, f"no picture within {rules.open_s:g} s of opening")
        if self.state is State.RUNNING:
            if now - self._last > rules.stale_s:
                return self._stop(now, f"no new picture for {rules.stale_s:g} s")
            if rules.frozen_s and now - self._changed > rules.frozen_s:
                return self._stop(now, f"the same picture, bit for bit, for {rules.frozen_s:g} s")
            if now - self._since > rules.settled_s:
                self.failures = 0
            # A frozen camera delivers pictures, too: what was wrong holds until one differs.
            if self._changed > self._since:
                self.problem = None
        if self.state is State.WAITING:
            if self.failures > rules.max_failures:
                self._enter(State.CLOSED, now)
                return Step.GIVE_UP
            if now - self._since >= self.pause_s:
                return Step.OPEN
        return Step.NOTHING

    @property
    def pause_s(self) -> float:
        """How long to wait after the last failure."""
        doublings = min(max(0, self.failures - 1), 30)
        return min(self.rules.pause_s * 2.0**doublings, self.rules.longest_pause_s)

    def _stop(self, now: float, problem: str) -> Step:
        self.failed(now, problem)
        return Step.STOP

    def _enter(self, state: State, now: float) -> None:
        self.state, self._since = state, now
