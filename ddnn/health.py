"""How a node does besides its work, and when that is worth a message. Pure.

A status is retained, so that a reader always has the last one; it costs traffic only when it is
published. It is published when something that matters has changed, and else at a long interval,
by which a reader knows the living from the dead (a broker that dies with its node publishes no
will).
"""

from __future__ import annotations

import msgspec

#: A change is told at most so often: what comes and goes would cost as much as the frames.
SOONEST_S = 10.0
TEMPERATURE_STEP_C = 5.0
#: From here on a clock's offset is told: a tenth of the usual slot, and a whole one.
OFFSETS_S = (0.01, 0.1)


class Health(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What is known of a node's camera and machine; what is not known is left out.

    Attributes:
        source: the camera: `running`, `opening`, `waiting` (to be opened again), `ended`.
        problem: what is wrong with it.
        fps: its pictures per second.
        frame_age_s: age of its newest picture.
        restarts: how often it was opened again.
        gate: `learning`, `present` or `absent`.
        temperature_c: of the processor.
        throttled: what the Pi's firmware holds against its supply and cooling; `... before`: not
            now, but since it was switched on.
        memory_mb, disk_mb: available; own_memory_mb: what this process has.
        clock_synchronised: whether the system says that a time server sets its clock.
        clock_offset_s: how far off it was when it was last compared; positive: it was slow.
        versions: of the software, system and hardware.
    """

    source: str | None = None
    problem: str | None = None
    fps: float | None = None
    frame_age_s: float | None = None
    restarts: int = 0
    gate: str | None = None
    temperature_c: float | None = None
    throttled: tuple[str, ...] = ()
    memory_mb: int | None = None
    own_memory_mb: int | None = None
    disk_mb: int | None = None
    clock_synchronised: bool | None = None
    clock_offset_s: float | None = None
    versions: dict[str, str] = {}


def matters(told: Health, now: Health) -> bool:
    """Whether `now` differs from what was told last in something that a person would act on.

    Every measured value has a dead band around what was told, so that noise is not news.
    """
    for name in ("source", "problem", "restarts", "throttled", "clock_synchronised", "versions"):
        if getattr(told, name) != getattr(now, name):
            return True
    if (told.gate == "learning") != (now.gate == "learning"):
        return True
    if _moved(told.temperature_c, now.temperature_c, TEMPERATURE_STEP_C):
        return True
    if _offset_band(told.clock_offset_s) != _offset_band(now.clock_offset_s):
        return True
    if told.fps is not None and now.fps is not None and _moved(told.fps, now.fps, told.fps / 4):
        return True
    return any(
        _by_half(before, after)
        for before, after in (
            (told.memory_mb, now.memory_mb),
            (told.own_memory_mb, now.own_memory_mb),
            (told.disk_mb, now.disk_mb),
        )
    )


class Telling:
    """When a status is due.

    Args:
        every_s: at the latest.
    """

    def __init__(self, every_s: float) -> None:
        self._every_s = every_s
        self._told: Health | None = None
        self._told_at = 0.0

    def due(self, health: Health | None, now: float) -> bool:
        """Whether to publish at monotonic `now`."""
        since_s = now - self._told_at
        if self._told is None or since_s >= self._every_s:
            return True
        return health is not None and since_s >= SOONEST_S and matters(self._told, health)

    def told(self, health: Health | None, now: float) -> None:
        """A status with this was published."""
        self._told, self._told_at = health or Health(), now


def _moved(before: float | None, after: float | None, step: float) -> bool:
    if before is None or after is None:
        return before is not after
    return abs(after - before) > step


def _by_half(before: int | None, after: int | None) -> bool:
    """Half as much, or twice."""
    if before is None or after is None:
        return before is not after
    return after * 2 < before or before * 2 < after


def _offset_band(offset_s: float | None) -> int | None:
    return None if offset_s is None else sum(abs(offset_s) >= limit for limit in OFFSETS_S)
