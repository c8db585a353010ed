"""What a collected folder holds, for a person to read."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import NamedTuple

import numpy as np

from training.recorded.quality import warnings
from training.recorded.views import View


class CameraSummary(NamedTuple):
    """One camera's part.

    Attributes:
        present, absent: how many views.
        sharpness, brightness: medians over its pictures.
        sizes: (width, height) of its pictures.
        warnings: for a person.
    """

    camera: int
    present: int
    absent: int
    sharpness: float
    brightness: float
    sizes: tuple[tuple[int, int], ...]
    warnings: tuple[str, ...]


class Summary(NamedTuple):
    """The whole folder.

    Attributes:
        slots: with a picture of any camera.
        days: UTC dates with such slots.
        first_s, last_s: the earliest and the latest of them, seconds since 1970.
        views_per_slot: number of pictures -> number of slots.
    """

    slots: int
    days: int
    first_s: float
    last_s: float
    views_per_slot: dict[int, int]
    cameras: tuple[CameraSummary, ...]


def summarise(views: Sequence[View]) -> Summary:
    """Count and judge views."""
    by_camera: defaultdict[int, list[View]] = defaultdict(list)
    for view in views:
        by_camera[view.camera].append(view)
    pictures = [view for view in views if view.state == "present"]
    per_slot = Counter(view.slot for view in pictures)
    shared = {slot for slot, count in per_slot.items() if count > 1}
    cameras = []
    for camera, own in sorted(by_camera.items()):
        there = [view for view in own if view.state == "present"]
        others = [view.sharpness for view in pictures if view.camera != camera]
        sharp = [view.sharpness for view in there]
        bright = [view.brightness for view in there]
        found = warnings(sharp, bright, float(np.median(others)) if others else 0.0)
        # Clocks that differ, or other `record_every`: then no sample has its views together.
        if len(by_camera) > 1 and there and not any(view.slot in shared for view in there):
            found.append("never in one slot with another camera: compare clocks and settings")
        if not there:
            found.append("no picture at all: is it switched on, and does its gate ever open?")
        cameras.append(
            CameraSummary(
                camera,
                len(there),
                len(own) - len(there),
                float(np.median(sharp)) if sharp else 0.0,
                float(np.median(bright)) if bright else 0.0,
                tuple(sorted({(view.width, view.height) for view in there})),
                tuple(found),
            )
        )
    times = [view.time_s for view in pictures]
    return Summary(
        slots=len(per_slot),
        days=len({datetime.fromtimestamp(time, UTC).date() for time in times}),
        first_s=min(times, default=0.0),
        last_s=max(times, default=0.0),
        views_per_slot=dict(sorted(Counter(per_slot.values()).items())),
        cameras=tuple(cameras),
    )


def lines(summary: Summary) -> list[str]:
    """The summary as text."""
    if not summary.slots:
        return ["no pictures"]
    first, last = (
        datetime.fromtimestamp(time, UTC).strftime("%Y-%m-%d %H:%M")
        for time in (summary.first_s, summary.last_s)
    )
    days = f"{summary.days} day{'s' if summary.days > 1 else ''}"
    views = ", ".join(f"{n}: {count}" for n, count in summary.views_per_slot.items())
    text = [
        f"{summary.slots} slots on {days}, {first} to {last} UTC",
        f"slots by number of pictures: {views}",
        "camera  pictures  absent  sharpness  brightness  pixels",
    ]
    for one in summary.cameras:
        sizes = ", ".join(f"{width}x{height}" for width, height in one.sizes)
        text.append(
            f"{one.camera:6}  {one.present:8}  {one.absent:6}  {one.sharpness:9.0f}  "
            f"{one.brightness:10.0f}  {sizes}"
        )
    text += [f"camera {one.camera}: {what}" for one in summary.cameras for what in one.warnings]
    return text
