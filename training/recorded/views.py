"""The table of views: one row per slot and camera, present or absent."""

from __future__ import annotations

import csv
import io
import logging
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
from PIL import Image, UnidentifiedImageError

from ddnn.errors import DataError
from ddnn.store import replace_durably
from training.recorded.quality import measure

log = logging.getLogger(__name__)
TABLE = "views.csv"
PICTURES = "pictures"
#: The reason in a camera's own table where its gate saw nothing.
ABSENT = "absent"
#: As an agent takes cameras' numbers.
MAX_CAMERA = 31


class View(NamedTuple):
    """What one camera showed in one slot.

    Attributes:
        time_s: beginning of the slot, seconds since 1970.
        state: `absent`: the gate saw nothing, and there is no picture.
        reason: why it was recorded: every, unsure, absent; empty where it is not known.
        file: of the picture, relative to the data set; empty where absent.
        width, height: of the picture, pixels; 0 where absent.
        sharpness, brightness: `training.recorded.quality`; 0 where absent.
    """

    slot: int
    time_s: float
    camera: int
    state: Literal["present", "absent"]
    reason: str
    file: str
    width: int
    height: int
    sharpness: float
    brightness: float


COLUMNS = tuple("time" if name == "time_s" else name for name in View._fields)


_STATES: dict[str, Literal["present", "absent"]] = {"present": "present", "absent": "absent"}


class Gathered(NamedTuple):
    """Every view of a folder, by slot and camera, and the pictures that cannot be read."""

    views: list[View]
    unreadable: list[Path]


def read_views(folder: Path) -> list[View]:
    """The rows of `views.csv`.

    Raises:
        DataError: there is none, or a row is not as `write_views` writes it.
    """
    path = folder / TABLE
    try:
        with path.open(newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
    except OSError as error:
        raise DataError(f"{folder} is no collected data set: {error}") from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path} cannot be read: {error}") from error
    views = []
    for number, row in enumerate(rows, 2):
        try:
            views.append(_parse(row))
        except (KeyError, ValueError, TypeError) as error:
            raise DataError(
                f"{path}, line {number} is not a view's; delete the file and run `ddnn collect` "
                "again to make it anew"
            ) from error
    return views


def write_views(folder: Path, views: Iterable[View]) -> None:
    """Replace `views.csv` as a whole.

    Raises:
        DataError: it cannot be written.
    """
    text = io.StringIO()
    rows = csv.writer(text, lineterminator="\n")
    rows.writerow(COLUMNS)
    for view in views:
        when = datetime.fromtimestamp(view.time_s, UTC).isoformat(timespec="milliseconds")
        rows.writerow(
            [*view[:1], when, *view[2:8], f"{view.sharpness:.1f}", f"{view.brightness:.1f}"]
        )
    try:
        replace_durably(folder / TABLE, text.getvalue().encode())
    except OSError as error:
        raise DataError(f"cannot write {folder / TABLE}: {error}") from error


def gather(folder: Path) -> Gathered:
    """Every view below `folder/pictures`, and what `views.csv` knew before of those.

    A picture counts as soon as it is there, with or without a row in its camera's table: power may
    have failed between the two. Rows of earlier are kept as long as their picture is there, since
    a camera forgets its own.

    Raises:
        DataError: `views.csv` is there and damaged.
    """
    known = {(v.slot, v.camera): v for v in read_views(folder)} if (folder / TABLE).exists() else {}
    noted = _camera_tables(folder)
    views = {key: view for key, view in known.items() if view.state == ABSENT}
    for key, (time_s, reason) in noted.items():
        if reason == ABSENT:
            views[key] = View(key[0], time_s, key[1], "absent", reason, "", 0, 0, 0.0, 0.0)
    # A slot's number is its time by the site's period, which any one row tells.
    period_s = float(np.median([t / slot for (slot, _), (t, _) in noted.items() if slot] or [0]))
    unreadable = []
    for path in sorted((folder / PICTURES).glob("*/*/*.png")):
        slot_name, camera_name = path.parent.name, path.stem
        if not (slot_name.isdecimal() and camera_name.isdecimal()):
            continue
        key = int(slot_name), int(camera_name)
        if key[1] > MAX_CAMERA:
            continue
        name = path.relative_to(folder).as_posix()
        before = known.get(key)
        if before is not None and before.file == name:
            views[key] = before
            continue
        region = path.parent / "region" / path.name
        try:
            picture = measure(path)
            judged = measure(region) if region.is_file() else picture
        except (OSError, UnidentifiedImageError, Image.DecompressionBombError) as error:
            log.warning("%s cannot be read and is left out: %s", path, error)
            unreadable.append(path)
            continue
        # Without any table all that is left to tell the time is the file's own.
        otherwise = (key[0] * period_s if period_s else path.stat().st_mtime, "")
        time_s, reason = noted.get(key, otherwise)
        views[key] = View(
            slot=key[0],
            time_s=time_s,
            camera=key[1],
            state="present",
            reason="" if reason == ABSENT else reason,
            file=name,
            width=picture.width,
            height=picture.height,
            sharpness=judged.sharpness,
            brightness=judged.brightness,
        )
    return Gathered(sorted(views.values()), unreadable)


def _parse(row: dict[str, str]) -> View:
    state = _STATES[row["state"]]
    file = row["file"]
    if ".." in Path(file).parts or Path(file).is_absolute():
        raise ValueError(f"{file} is not within the data set")
    return View(
        slot=int(row["slot"]),
        time_s=datetime.fromisoformat(row["time"]).timestamp(),
        camera=int(row["camera"]),
        state=state,
        reason=row["reason"],
        file=file,
        width=int(row["width"]),
        height=int(row["height"]),
        sharpness=float(row["sharpness"]),
        brightness=float(row["brightness"]),
    )


def _camera_tables(folder: Path) -> dict[tuple[int, int], tuple[float, str]]:
    """(slot, camera) -> (time_s, reason), from the cameras' own tables.

    A row cut short by a power failure is passed over.
    """
    found: dict[tuple[int, int], tuple[float, str]] = {}
    for table in sorted((folder / PICTURES).glob("*/table-*.csv")):
        with table.open(newline="", encoding="utf-8", errors="replace") as file:
            for row in csv.DictReader(file):
                try:
                    slot, camera = int(row["slot"]), int(row["camera"])
                    time_s = datetime.fromisoformat(row["time"]).timestamp()
                    reason = row["reason"]
                except (KeyError, TypeError, ValueError):
                    log.warning("%s: a damaged row is passed over", table)
                    continue
                if slot >= 0 and 0 <= camera <= MAX_CAMERA:
                    # A slot may be kept twice, at random and by request; it is one view.
                    found[slot, camera] = time_s, reason or ""
    return found
