"""What was measured of a bundle with its exported sections; part of its manifest.

Shares are 0..1. Everything is bounded, since it arrives from the network.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Annotated, Literal

import msgspec

from ddnn.errors import BundleError

Threshold = Annotated[float, msgspec.Meta(ge=0.0, le=1.0)]
Share = Annotated[float, msgspec.Meta(ge=0.0, le=1.0)]
Bytes = Annotated[float, msgspec.Meta(ge=0.0, le=1e9)]
Count = Annotated[int, msgspec.Meta(ge=0, le=2**53)]
ExitKey = Literal["local", "edge", "cloud"]
#: In the order in which they are asked.
EXITS: tuple[ExitKey, ...] = ("local", "edge", "cloud")
MAX_CURVE_POINTS = 32
MAX_MISSING_SETS = 1024


class Accuracy(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Accuracy measured with the exported sections, as shares 0..1."""

    samples: int
    overall: float
    exits: dict[ExitKey, float]
    exit_shares: dict[ExitKey, float]


class CurvePoint(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What the bundle does with its thresholds set so.

    Attributes:
        thresholds: of every exit but the last.
        exit_shares: of the samples, by the exit that answers.
        accuracy: share of right answers, whichever exit gave them.
        camera_bytes: mean payload that one camera sends for one frame.
        cloud_bytes: mean payload that a site sends to the cloud for one frame.
    """

    thresholds: dict[ExitKey, Threshold]
    exit_shares: dict[ExitKey, Share]
    accuracy: Share
    camera_bytes: Bytes
    cloud_bytes: Bytes


class Calibration(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How the thresholds were chosen, and what others would have given.

    Measured on validation samples: part of the training split, never the test split, so that
    choosing another point spoils no measurement. Along the curve the first exit's threshold
    rises and traffic does not; the later exits keep the thresholds of the manifest.

    Attributes:
        goal: as text, such as `accuracy` or `bytes=18`.
        samples: how many were measured.
        curve: points by rising threshold of the first exit, from 0 to 1; empty where the only
            exit is the last.
    """

    goal: Annotated[str, msgspec.Meta(max_length=64)]
    samples: Count
    curve: Annotated[tuple[CurvePoint, ...], msgspec.Meta(max_length=MAX_CURVE_POINTS)] = ()


class ExitDisagreement(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Of the samples that an early exit answers: how often the last exit says otherwise.

    Measured on the validation samples of `Calibration`, with the manifest's thresholds and no
    camera missing beyond those that see nothing. No label takes part: it is the very number that
    audits at run time (`ddnn.audit`) measure.

    Attributes:
        answered: samples that leave at this exit.
        disagreed: of these, those to which the last exit gives another label.
    """

    answered: Count
    disagreed: Count

    def __post_init__(self) -> None:
        if self.disagreed > self.answered:
            raise ValueError("more samples disagreed than were answered")


class MissingCameras(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Accuracy with some cameras missing, as shares of all samples.

    Attributes:
        cameras: the missing ones, ascending; () for none.
        answered: samples that any other camera sees; the rest counts as wrong.
        overall: with the manifest's thresholds.
        local: of the local exit alone; None where there is none.
        last: of the last exit alone.
    """

    cameras: Annotated[tuple[int, ...], msgspec.Meta(max_length=32)]
    answered: Share
    overall: Share
    local: Share | None
    last: Share


class MissingTable(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`MissingCameras` of many sets, measured after all choices were made.

    Attributes:
        split: whose samples; `validation` only where the data set has no test split.
        samples: how many were measured.
        sets: by size, then by number.
    """

    split: Literal["test", "validation"]
    samples: Count
    sets: Annotated[tuple[MissingCameras, ...], msgspec.Meta(max_length=MAX_MISSING_SETS)]

    def without(self, cameras: tuple[int, ...]) -> MissingCameras | None:
        """The entry of exactly these missing cameras (ascending), or None."""
        return next((entry for entry in self.sets if entry.cameras == cameras), None)


def check_calibration(calibration: Calibration, exits: tuple[ExitKey, ...]) -> None:
    """Check the curve against the manifest's exits, in the order in which they are asked.

    Operators and the traffic budget move along the curve, so that it must be one.

    Raises:
        BundleError: it is not.
    """
    early, curve = exits[:-1], calibration.curve
    for point in curve:
        if not early or set(point.thresholds) != set(early):
            raise BundleError("manifest's curve needs one threshold for each exit but the last")
        if set(point.exit_shares) != set(exits):
            raise BundleError("manifest's curve needs the share of each exit")
    for low, high in pairwise(curve):
        if not low.thresholds[early[0]] < high.thresholds[early[0]]:
            raise BundleError("manifest's curve does not rise in its threshold")
        if low.camera_bytes < high.camera_bytes or low.cloud_bytes < high.cloud_bytes:
            raise BundleError("manifest's curve rises in its traffic")


def check_missing(table: MissingTable, cameras: int) -> None:
    """Check the table's sets of cameras against the number of cameras.

    Raises:
        BundleError: a set twice, or not ascending, or with a camera that there is not.
    """
    sets = [entry.cameras for entry in table.sets]
    if len(set(sets)) != len(sets):
        raise BundleError("manifest names a set of missing cameras twice")
    for missing in sets:
        if list(missing) != sorted(set(missing)):
            raise BundleError("manifest's missing cameras must be different and ascending")
        if missing and not 0 <= missing[0] <= missing[-1] < cameras:
            raise BundleError("manifest names a missing camera that its topology does not have")
