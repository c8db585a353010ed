"""A camera's health: read in a thread of its own, so that nothing slow delays a slot."""

from __future__ import annotations

import logging
import threading
import time
from pathlib import Path

import msgspec

from ddnn import machine
from ddnn.health import Health
from device_agent.gate import Gate
from device_agent.sources import SourceHealth

log = logging.getLogger(__name__)
READ_EVERY_S = 10.0
#: Time servers are asked every half minute at most; asking after it starts a process.
CLOCK_EVERY_S = 300.0


class MachineWatch:
    """The machine's part of the health, as of a few seconds ago.

    Args:
        disk: the folder whose disk counts.
        root: stands for /.
        run: runs a program.
    """

    def __init__(
        self,
        disk: Path,
        root: Path = machine.ROOT,
        run: machine.Run = machine.run_command,
    ) -> None:
        self._disk = disk
        self._root = root
        self._run = run
        self._latest = Health()
        self._clock: tuple[bool | None, float | None] = (None, None)
        self._clock_at = -CLOCK_EVERY_S
        self._versions = machine.versions(root)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._follow, name="health", daemon=True)

    @property
    def latest(self) -> Health:
        """What was read last."""
        return self._latest

    def start(self) -> None:
        """Read now and then every few seconds."""
        self._thread.start()

    def stop(self) -> None:
        """Read no more."""
        self._stop.set()

    def read(self, now: float) -> Health:
        """Read everything that is due at monotonic `now`."""
        synchronised, offset_s = self._clock
        # A clock that is not set is what everything waits for.
        if now - self._clock_at >= (READ_EVERY_S if synchronised is False else CLOCK_EVERY_S):
            self._clock_at = now
            self._clock = synchronised, offset_s = (
                machine.clock_synchronised(self._root, self._run),
                machine.clock_offset_s(self._run),
            )
        temperature = machine.temperature_c(self._root)
        self._latest = Health(
            temperature_c=None if temperature is None else round(temperature, 1),
            throttled=machine.throttled(self._root) or (),
            memory_mb=machine.memory_mb(self._root),
            own_memory_mb=machine.own_memory_mb(self._root),
            disk_mb=machine.disk_mb(self._disk),
            clock_synchronised=synchronised,
            clock_offset_s=None if offset_s is None else round(offset_s, 6),
            versions=self._versions,
        )
        return self._latest

    def _follow(self) -> None:
        while True:
            try:
                self.read(time.monotonic())
            except Exception:  # an odd machine must not cost the camera
                log.exception("reading the machine's state")
            if self._stop.wait(READ_EVERY_S):
                return


def with_camera(health: Health, source: SourceHealth | None, gate: Gate | None) -> Health:
    """The machine's health and the camera's."""
    if source is not None:
        health = msgspec.structs.replace(
            health,
            source=source.state,
            problem=source.problem,
            fps=round(source.fps, 1),
            frame_age_s=None if source.frame_age_s is None else round(source.frame_age_s, 3),
            restarts=source.restarts,
        )
    return health if gate is None else msgspec.structs.replace(health, gate=gate.state)
