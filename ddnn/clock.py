"""What a node may believe of its clock.

A Pi has no battery-backed clock: it may start in 1970 or where it was switched off, and NTP steps
it later. Slots are numbers on that clock, so a step must be noticed before it mislabels a frame.

The wall clock is compared with the monotonic one, which never steps. Their difference moves only
by NTP's slewing (at most 0.5 ms per second) unless the wall clock was set.
"""

from __future__ import annotations

#: No clock of ours can be right before this was written: 2025-01-01.
EARLIEST_WALL_S = 1_735_689_600.0


class ClockMonitor:
    """Notices steps of the wall clock. Pure: both clocks are read by the caller.

    Args:
        tolerance_s: a smaller change between two looks is slewing, not a step.

    Attributes:
        steps: how many were seen.
        last_step_s: the size of the last one; positive: forward.
    """

    def __init__(self, tolerance_s: float = 0.25) -> None:
        self.steps = 0
        self.last_step_s = 0.0
        self._tolerance_s = tolerance_s
        self._offset_s: float | None = None
        self._is_set = False

    @property
    def is_set(self) -> bool:
        """Whether the wall clock shows a time that can be right."""
        return self._is_set

    def look(self, wall_s: float, monotonic_s: float) -> float:
        """Compare the clocks.

        Returns:
            The step since the last look in seconds, or 0.0.
        """
        self._is_set = wall_s >= EARLIEST_WALL_S
        offset_s = wall_s - monotonic_s
        before_s, self._offset_s = self._offset_s, offset_s
        if before_s is None or abs(offset_s - before_s) <= self._tolerance_s:
            return 0.0
        self.steps += 1
        self.last_step_s = offset_s - before_s
        return self.last_step_s

    def describe(self) -> str | None:
        """For a status: None while all is well."""
        if not self._is_set:
            return "not set: waiting for a time server"
        if self.steps:
            return f"stepped {self.steps} times, last by {self.last_step_s:+.3f} s"
        return None
