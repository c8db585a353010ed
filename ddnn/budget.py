"""Holding a stated traffic by moving the local exit's threshold along a bundle's curve.

Pure. A bundle's calibration gives points (T, bytes per frame, accuracy): a higher T lets more
frames exit early, so that fewer features are asked for. The scene decides how many frames are
hard, so the curve is only a first guess; an integral controller corrects it by what was received.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import msgspec

from ddnn.errors import ConfigError
from ddnn.measurements import Calibration

#: Correction per window, as the power of (wanted / received): lower is calmer, higher is faster.
GAIN = 0.5
#: The curve may be wrong by this factor, either way.
LARGEST_CORRECTION = 16.0


class CurvePoint(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """With the local threshold at `threshold`: payload of all cameras per frame, and accuracy."""

    threshold: float
    bytes_per_frame: float
    accuracy: float


class Curve:
    """A bundle's calibrated range: points by rising threshold, linear in between.

    Raises:
        ConfigError: fewer than two points, thresholds that do not rise, or bytes that do.
    """

    def __init__(self, points: Sequence[CurvePoint]) -> None:
        if len(points) < 2:
            raise ConfigError("a curve needs at least two points")
        for low, high in pairwise(points):
            if not low.threshold < high.threshold or low.bytes_per_frame < high.bytes_per_frame:
                raise ConfigError("along a curve thresholds must rise and bytes must not")
        self.points = tuple(points)

    @classmethod
    def of(cls, calibration: Calibration | None, cameras: int) -> Curve | None:
        """The curve that a bundle's manifest carries, or None where it carries none."""
        if calibration is None:
            return None
        points = [
            CurvePoint(
                threshold=point.thresholds["local"],
                bytes_per_frame=point.camera_bytes * cameras,
                accuracy=point.accuracy,
            )
            for point in calibration.curve
            if "local" in point.thresholds
        ]
        return cls(points) if len(points) >= 2 else None

    @property
    def lowest(self) -> float:
        """The lowest calibrated threshold."""
        return self.points[0].threshold

    @property
    def highest(self) -> float:
        """The highest calibrated threshold."""
        return self.points[-1].threshold

    def threshold_for(self, bytes_per_frame: float) -> float:
        """The lowest threshold (so the deepest look) that costs at most this; else the highest."""
        for low, high in pairwise(self.points):
            if bytes_per_frame >= low.bytes_per_frame:
                return low.threshold
            if bytes_per_frame >= high.bytes_per_frame:
                span = low.bytes_per_frame - high.bytes_per_frame
                share = (low.bytes_per_frame - bytes_per_frame) / span if span else 1.0
                return low.threshold + share * (high.threshold - low.threshold)
        return self.highest


class TrafficBudget:
    """Chooses the local threshold so that `bytes_per_s` is held, as far as the curve allows.

    Args:
        curve: of the bundle.
        bytes_per_s: wanted frame payload from all cameras together.
        frames_per_s: first guess of the frame rate.
        window_s: how often the threshold is moved.
    """

    def __init__(
        self, curve: Curve, bytes_per_s: float, frames_per_s: float, window_s: float = 5.0
    ) -> None:
        self.threshold = curve.threshold_for(bytes_per_s / frames_per_s)
        self._curve = curve
        self._wanted = bytes_per_s
        self._window_s = window_s
        self._correction = 1.0
        self._began: tuple[float, int, int] | None = None

    def received(self, total_bytes: int, total_frames: int, now: float) -> float:
        """Tell the totals so far; may be called at any time.

        Args:
            total_bytes: frame payload received from members.
            total_frames: slots that have ended.
            now: monotonic seconds.

        Returns:
            The threshold to use from now on.
        """
        if self._began is None:
            self._began = (now, total_bytes, total_frames)
            return self.threshold
        began, bytes_before, frames_before = self._began
        seconds, got = now - began, total_bytes - bytes_before
        frames = total_frames - frames_before
        if seconds < self._window_s:
            return self.threshold
        self._began = (now, total_bytes, total_frames)
        if got <= 0 or frames <= 0:
            return self.threshold
        self._correction *= (self._wanted / (got / seconds)) ** GAIN
        per_frame = self._wanted / (frames / seconds)
        # Without a stop at the curve's ends the correction would run away while nothing it does
        # has any effect, and come back as slowly.
        ends = self._curve.points
        lowest = max(ends[-1].bytes_per_frame / per_frame, 1 / LARGEST_CORRECTION)
        highest = min(ends[0].bytes_per_frame / per_frame, LARGEST_CORRECTION)
        self._correction = min(max(self._correction, lowest), max(highest, lowest))
        self.threshold = self._curve.threshold_for(per_frame * self._correction)
        return self.threshold
