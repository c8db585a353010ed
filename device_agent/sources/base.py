"""What every source of pictures is to the agent."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

Image = npt.NDArray[np.uint8]


class Frame(NamedTuple):
    """One picture and when it was taken.

    Attributes:
        image: (H, W, C) uint8, channels red, green, blue; None: the source knows that this camera
            delivered no view (a replayed data set says so).
        captured_s: monotonic seconds.
    """

    image: Image | None
    captured_s: float


class Wanted(NamedTuple):
    """What a camera is asked for; what it gives may differ.

    Attributes:
        height: rows of its pictures, pixels; the width follows from its aspect ratio.
        fps: pictures per second.
    """

    height: int
    fps: float


#: A camera: opens, yields its frames as they come, and closes when the generator is closed. All of
#: it happens on one thread. Raises SourceError; returns where there is nothing more.
Capture = Callable[[Wanted], Iterator[Frame]]


class SourceHealth(NamedTuple):
    """How a source does.

    Attributes:
        state: `running`, or what it is instead: `opening`, `waiting` (to open again), `ended`.
        fps: pictures per second of late.
        frame_age_s: how old the newest picture is; None: there is none.
        restarts: how often it was opened again.
        problem: why it does not run, or what looks wrong with its pictures; None: nothing.
    """

    state: str
    fps: float = 0.0
    frame_age_s: float | None = None
    restarts: int = 0
    problem: str | None = None


class Source(Protocol):
    """Frames by slot.

    Attributes:
        live: a live source shows now what is there now, so a slot that was missed is gone; a
            replay still has its sample, and late is better than never.
    """

    live: bool

    def want(self, height: int) -> None:
        """Deliver pictures of about this height (pixels) from now on; the first call starts it."""
        ...

    def read(self, slot: int, at_s: float) -> Frame | None:
        """The frame of this slot, which begins at monotonic `at_s`; None: there is none."""
        ...

    def exhausted(self, slot: int) -> bool:
        """Whether nothing comes from this slot on."""
        ...

    def tend(self, now: float) -> None:
        """Notice faults and mend them; to be called a few times a second.

        Raises:
            SourceError: it cannot be mended from within this process.
        """
        ...

    def health(self, now: float) -> SourceHealth | None:
        """How it does; None where there is nothing that could fail."""
        ...

    def close(self) -> None:
        """Let go of the camera."""
        ...


class Stored:
    """What sources that read from a disk have in common: nothing in them can hang."""

    live = True

    def want(self, height: int) -> None:
        """Pictures come as they are."""

    def tend(self, now: float) -> None:
        """Nothing to mend."""

    def health(self, now: float) -> SourceHealth | None:
        return None

    def close(self) -> None:
        """Nothing is held."""
