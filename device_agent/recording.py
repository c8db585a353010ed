"""Pictures kept on disk for labelling and training. Off unless the owner names a folder.

    DIR/<date>/<slot>/<camera>.png           as the section saw it
    DIR/<date>/<slot>/region/<camera>.png    the region at the camera's resolution, if wanted
    DIR/<date>/table-<camera>.csv            slot, time, why it was kept, how old the frame was

Dates are UTC. Slots have the same numbers on all cameras, so that folders of several cameras laid
over each other give samples of several views. Of a view in which the gate saw nothing there is no
picture, only a row `absent`: to the training a camera without a picture is an absent one, as it
was to the gateway, but a person must be able to tell it from one that was switched off.

Nothing here leaves the machine by itself, and nothing of it delays a slot: files are written on a
thread of their own, and what it cannot keep up with is dropped and counted.
"""

from __future__ import annotations

import csv
import io
import logging
import os
import queue
import threading
from collections import Counter, OrderedDict, deque
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

from ddnn.errors import ConfigError
from device_agent.framing import Framing, Image
from device_agent.settings import CameraSettings
from device_agent.viewer import View

log = logging.getLogger(__name__)
#: Views that can still be kept when the gateway asks for their features.
REMEMBERED = 32
#: Pictures that may wait for the disk: an SD card can stall for seconds.
QUEUED = 16
COLUMNS = ("slot", "time", "camera", "reason", "frame_age_ms")
#: The reason in the row of a view in which the gate saw nothing.
ABSENT = "absent"
#: Tables of days without pictures are kept for the last so many days.
TABLE_DAYS = 31


class HourlyLimit:
    """At most so many in any hour. Pure.

    Args:
        per_hour: how many.
    """

    def __init__(self, per_hour: int) -> None:
        self._times: deque[float] = deque(maxlen=per_hour)

    def take(self, now: float) -> bool:
        """Whether one more is allowed at `now` (monotonic seconds); it is counted if so."""
        full = len(self._times) == self._times.maxlen
        if full and now - self._times[0] < 3600.0:
            return False
        self._times.append(now)
        return True


class _Kept(NamedTuple):
    """One view that is to be written; without an image, its row in the table."""

    slot: int
    image: Image | None
    picture: Image | None
    reason: str
    age_s: float


class Recorder:
    """Chooses views and writes them.

    Args:
        settings: what to keep and where.
        framing: the region's.
        every: instead of the settings'.

    Attributes:
        chosen: how many were taken for writing.
        counts: `recorded`, `record_limited`, `record_dropped`, `record_errors`.

    Raises:
        ConfigError: the folder cannot be used.
    """

    def __init__(
        self, settings: CameraSettings, framing: Framing, every: int | None = None
    ) -> None:
        self.counts: Counter[str] = Counter()
        self._camera = settings.camera
        self._period_s = settings.period_s
        self._every = settings.record_every if every is None else every
        self._unsure = settings.record_unsure
        self._region_px = settings.record_region_px
        self._framing = framing
        self.chosen = 0
        self._limit = HourlyLimit(settings.record_per_hour)
        # Of their own: an empty scene must not use up what objects are to be recorded with.
        self._absent_limit = HourlyLimit(settings.record_per_hour)
        self._lock = threading.Lock()
        self._remembered: OrderedDict[int, tuple[View, float]] = OrderedDict()
        self._queue: queue.Queue[_Kept | None] = queue.Queue(QUEUED)
        self._shelf = Shelf(Path(settings.record_dir), settings.camera, settings.record_mb * 10**6)
        self._thread = threading.Thread(target=self._write, name="recording", daemon=True)
        self._thread.start()

    def saw(self, slot: int, view: View, at_s: float, now: float) -> None:
        """The view of the slot that began at `at_s`; kept if its number says so."""
        age_s = at_s - view.frame.captured_s
        chosen = self._every and slot % self._every == 0
        if view.image is None:
            if chosen and self._absent_limit.take(now):
                self._enqueue(_Kept(slot, None, None, ABSENT, age_s))
            return
        if chosen:
            self._keep(slot, view, age_s, "every", now)
        elif self._unsure:
            with self._lock:
                self._remembered[slot] = view, age_s
                while len(self._remembered) > REMEMBERED:
                    self._remembered.popitem(last=False)

    def asked(self, slot: int, now: float) -> None:
        """The gateway asked for the features of `slot`. May be called on any thread."""
        with self._lock:
            remembered = self._remembered.pop(slot, None)
        if remembered is not None:
            view, age_s = remembered
            self._keep(slot, view, age_s, "unsure", now)

    def close(self) -> None:
        """Write what waits and end."""
        try:
            self._queue.put(None, timeout=5.0)
        except queue.Full:
            log.warning("recordings: the disk does not keep up; the last ones are lost")
            return
        self._thread.join(5.0)

    def _keep(self, slot: int, view: View, age_s: float, reason: str, now: float) -> None:
        with self._lock:
            allowed = self._limit.take(now)
        if not allowed:
            self.counts["record_limited"] += 1
            return
        picture = view.frame.image if self._region_px else None
        self.chosen += self._enqueue(_Kept(slot, view.image, picture, reason, age_s))

    def _enqueue(self, kept: _Kept) -> bool:
        try:
            self._queue.put_nowait(kept)
        except queue.Full:
            self.counts["record_dropped"] += 1
            return False
        return True

    def _write(self) -> None:
        while (kept := self._queue.get()) is not None:
            try:
                when = datetime.fromtimestamp(kept.slot * self._period_s, UTC)
                why = kept.reason, round(1000 * kept.age_s)
                if kept.image is None:
                    self._shelf.note(kept.slot, when, why)
                    self.counts["record_absent"] += 1
                    continue
                region = None if kept.picture is None else self._framing.cut(kept.picture)
                self._shelf.put(
                    kept.slot,
                    when,
                    png(kept.image),
                    None if region is None else png(region, self._region_px),
                    why,
                )
            except (OSError, ValueError) as error:
                if not self.counts["record_errors"]:
                    log.warning("cannot record: %s", error)
                self.counts["record_errors"] += 1
            else:
                self.counts["recorded"] += 1


class Shelf:
    """One camera's pictures in a folder, within so many bytes.

    Args:
        folder: made if it is not there; other cameras' files in it are left alone.
        camera: whose files.
        limit_bytes: the oldest go when there are more.

    Raises:
        ConfigError: the folder cannot be used.
    """

    def __init__(self, folder: Path, camera: int, limit_bytes: int) -> None:
        self._folder = folder
        self._camera = camera
        self._limit = limit_bytes
        self._files: deque[tuple[Path, int]] = deque()
        self.bytes = 0
        try:
            folder.mkdir(parents=True, exist_ok=True)
            for half in folder.rglob(f".{camera}.png.new"):  # power failed while it was written
                half.unlink()
            for path in self._found():
                self._add(path, path.stat().st_size)
            if not os.access(folder, os.W_OK):
                raise PermissionError(f"{folder} is not writable")
        except OSError as error:
            raise ConfigError(f"cannot record to {folder}: {error}") from error

    def put(
        self,
        slot: int,
        when: datetime,
        image: bytes,
        region: bytes | None,
        why: tuple[str, int],
    ) -> None:
        """Write one slot's PNG files, each whole or not at all; then make room.

        Raises:
            OSError: the disk is full, gone, ...
        """
        day = self._folder / when.strftime("%Y-%m-%d")
        target = day / str(slot) / f"{self._camera}.png"
        files = [(target, image)]
        if region is not None:
            files.append((day / str(slot) / "region" / f"{self._camera}.png", region))
        for path, data in files:
            path.parent.mkdir(parents=True, exist_ok=True)
            _write_whole(path, data)
            self._add(path, len(data))
        self.note(slot, when, why)
        while self.bytes > self._limit and len(self._files) > len(files):
            self._drop_oldest()

    def note(self, slot: int, when: datetime, why: tuple[str, int]) -> None:
        """Write one slot's row into the day's table.

        Raises:
            OSError: as `put`.
        """
        table = self._folder / when.strftime("%Y-%m-%d") / f"table-{self._camera}.csv"
        fresh = not table.exists()
        if fresh:
            self._forget_old_tables()
            table.parent.mkdir(exist_ok=True)
        with table.open("a", newline="") as file:
            rows = csv.writer(file, lineterminator="\n")
            if fresh:
                rows.writerow(COLUMNS)
            reason, age_ms = why
            stamp = when.isoformat(timespec="milliseconds")
            rows.writerow((slot, stamp, self._camera, reason, age_ms))

    def _forget_old_tables(self) -> None:
        """A table goes with its day's last picture; where there never was one, with its age."""
        tables = sorted(self._folder.glob(f"*/table-{self._camera}.csv"))
        for table in tables[:-TABLE_DAYS]:
            if not any(table.parent.glob(f"*/{self._camera}.png")):
                table.unlink()
                if not any(table.parent.iterdir()):
                    table.parent.rmdir()

    def _add(self, path: Path, size: int) -> None:
        self._files.append((path, size))
        self.bytes += size

    def _drop_oldest(self) -> None:
        path, size = self._files.popleft()
        self.bytes -= size
        path.unlink(missing_ok=True)
        for parent in path.parents:
            if parent == self._folder:
                return
            left = list(parent.iterdir())
            if left == [parent / f"table-{self._camera}.csv"]:  # a day without pictures
                left[0].unlink()
            elif left:
                return
            parent.rmdir()

    def _found(self) -> list[Path]:
        """This camera's files from earlier, oldest first."""
        name = f"{self._camera}.png"
        found = [*self._folder.glob(f"*/*/{name}"), *self._folder.glob(f"*/*/region/{name}")]

        def age(path: Path) -> tuple[str, int]:
            day, slot = path.relative_to(self._folder).parts[:2]
            return day, int(slot) if slot.isdecimal() else 0

        return sorted(found, key=age)


def png(picture: Image, most_px: int | None = None) -> bytes:
    """(h, w, 1 or 3) uint8 -> a PNG file's bytes, at most `most_px` high and wide."""
    from PIL import Image as Pillow  # an agent that records nothing does without it

    image = Pillow.fromarray(picture[..., 0] if picture.shape[2] == 1 else picture)
    if most_px is not None and max(image.size) > most_px:
        shrink = most_px / max(image.size)
        size = tuple(max(1, round(side * shrink)) for side in image.size)
        image = image.resize((size[0], size[1]), Pillow.Resampling.BOX)
    data = io.BytesIO()
    image.save(data, "PNG")
    return data.getvalue()


def _write_whole(path: Path, data: bytes) -> None:
    """Power may fail at any moment: then the file is there as a whole or not at all."""
    new = path.with_name(f".{path.name}.new")
    with new.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    new.rename(path)
