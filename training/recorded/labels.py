"""What a person said of each slot, kept so that nothing said is lost.

`labels.csv` has a row `slot,label,time` for each label; of several rows of one slot the last one
counts, an empty label takes an earlier one back, and `-` leaves the slot out of training. A row is
on the disk (fsync) before `change` returns: neither kill -9 nor a loss of power loses a label. One
that power cut short is dropped when the file is opened again. Whoever opens it has it alone.
"""

from __future__ import annotations

import csv
import fcntl
import io
import os
import threading
from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType

from ddnn.errors import ConfigError, DataError
from ddnn.store import replace_durably

LABELS = "labels.csv"
CLASSES = "classes.txt"
#: The label of a slot that is of no use: nothing to be seen, or two things at once.
LEFT_OUT = "-"
HEADER = "slot,label,time\n"
MAX_NAME = 40


def check_class(name: str) -> str:
    """A class's name without blanks around it.

    Raises:
        ConfigError: it cannot be one.
    """
    name = name.strip()
    if not name or name == LEFT_OUT or len(name) > MAX_NAME or not name.isprintable():
        raise ConfigError(f"a class needs a name of 1 to {MAX_NAME} letters, and not {LEFT_OUT!r}")
    return name


def read_classes(folder: Path) -> list[str]:
    """`classes.txt`, in its order; empty where there is none.

    Raises:
        DataError: it cannot be read, or a name is no class's.
    """
    path = folder / CLASSES
    try:
        names = [line for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
        return list(dict.fromkeys(check_class(name) for name in names))
    except FileNotFoundError:
        return []
    except (OSError, UnicodeDecodeError, ConfigError) as error:
        raise DataError(f"{path} cannot be used: {error}") from error


def read_labels(folder: Path) -> dict[int, str]:
    """Slot -> label, as the last row of each slot says.

    Raises:
        DataError: the file cannot be read, or is another one.
    """
    path = folder / LABELS
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return {}
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path} cannot be read: {error}") from error
    return {slot: label for slot, (label, _) in _parse(text, path).items()}


class Labels:
    """The labels of one data set, open for writing. Its methods may be called from any thread.

    Attributes:
        changes: grows with everything that changes, so that others know to look again.

    Raises:
        ConfigError: another process has them open.
        DataError: a file cannot be read or written.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._path = folder / LABELS
        self._guard = threading.RLock()
        self.changes = 0
        try:
            self._lock = os.open(folder / ".labels.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC)
        except OSError as error:
            raise DataError(f"cannot label in {folder}: {error}") from error
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            os.close(self._lock)
            raise ConfigError(
                f"{folder} is open in another `ddnn label`; end that first"
            ) from error
        self._file: int | None = None
        try:
            self._rows = self._tidy()
            self._file = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC)
            self._length = os.fstat(self._file).st_size
            self._classes = read_classes(folder)
        except (OSError, DataError) as error:
            self.close()
            raise DataError(f"cannot label in {folder}: {error}") from error
        for label, _ in self._rows.values():
            if label != LEFT_OUT and label not in self._classes:
                self._classes.append(label)

    def __enter__(self) -> Labels:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Let others have the file."""
        with self._guard:
            for descriptor in (self._file, self._lock):
                if descriptor is not None and descriptor >= 0:
                    os.close(descriptor)
            self._file, self._lock = None, -1

    def get(self, slot: int) -> str | None:
        """The label of a slot; None: it has none."""
        with self._guard:
            row = self._rows.get(slot)
            return row[0] if row else None

    def all(self) -> dict[int, str]:
        """Slot -> label."""
        with self._guard:
            return {slot: label for slot, (label, _) in self._rows.items()}

    def counts(self) -> Counter[str]:
        """How many slots have each label."""
        return Counter(self.all().values())

    @property
    def classes(self) -> Sequence[str]:
        """The classes, in the order of their keys."""
        with self._guard:
            return tuple(self._classes)

    def change(self, slot: int, shown: str | None, label: str | None) -> bool:
        """Set a slot's label (None: take it away), if it still is what the person was shown.

        Returns:
            Whether it was done: not if somebody else has labelled the slot since.

        Raises:
            ConfigError: no class is named so.
            DataError: the disk does not take it; then the label before stays.
        """
        with self._guard:
            if label is not None and label != LEFT_OUT and label not in self._classes:
                raise ConfigError(f"there is no class {label!r}; make it first")
            if self.get(slot) != shown:
                return False
            row = label or "", datetime.now(UTC).isoformat(timespec="seconds")
            self._append(_row(slot, row))
            if label is None:
                self._rows.pop(slot, None)
            else:
                self._rows[slot] = row
            self.changes += 1
            return True

    def add_class(self, name: str) -> str:
        """Make a class, the last in order.

        Raises:
            ConfigError: it cannot be one, or is there already.
            DataError: the disk does not take it.
        """
        with self._guard:
            name = check_class(name)
            if name in self._classes:
                raise ConfigError(f"there is a class {name!r} already")
            self._write_classes([*self._classes, name])
            return name

    def remove_class(self, name: str) -> None:
        """Take away a class that no slot has.

        Raises:
            ConfigError: a slot has it.
            DataError: the disk does not take it.
        """
        with self._guard:
            if used := self.counts()[name]:
                raise ConfigError(f"{used} slots are {name!r}: give them another label first")
            self._write_classes([one for one in self._classes if one != name])

    def _write_classes(self, names: list[str]) -> None:
        try:
            replace_durably(self._folder / CLASSES, "".join(f"{n}\n" for n in names).encode())
        except OSError as error:
            raise DataError(f"cannot write {self._folder / CLASSES}: {error}") from error
        self._classes = names
        self.changes += 1

    def _tidy(self) -> dict[int, tuple[str, str]]:
        """Read the file and write it anew with one row per slot."""
        text = HEADER
        if self._path.exists():
            text = self._path.read_text(encoding="utf-8")
        rows = _parse(text, self._path)
        whole = HEADER + "".join(_row(slot, row) for slot, row in sorted(rows.items()))
        if whole != text or not self._path.exists():
            replace_durably(self._path, whole.encode())
        return rows

    def _append(self, text: str) -> None:
        if self._file is None:
            raise DataError("the labels are closed")
        data = text.encode()
        try:
            if os.write(self._file, data) < len(data):
                raise OSError("the disk is full")
            os.fsync(self._file)
        except OSError as error:
            # Half a row would swallow the next one.
            os.ftruncate(self._file, self._length)
            raise DataError(f"cannot write {self._path}: {error}") from error
        self._length += len(data)


def _row(slot: int, row: tuple[str, str]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerow((slot, *row))
    return text.getvalue()


def _parse(text: str, path: Path) -> dict[int, tuple[str, str]]:
    """Rows by slot: (label, time). What comes after the last line break was never written."""
    text = text[: text.rfind("\n") + 1]
    lines = text.splitlines()
    if lines and lines[0] != HEADER.strip():
        raise DataError(f"{path} must begin with {HEADER.strip()!r}; it is another file")
    rows: dict[int, tuple[str, str]] = {}
    for number, cells in enumerate(csv.reader(lines[1:]), 2):
        if not cells:
            continue
        try:
            slot, label = int(cells[0]), cells[1].strip()
            if label and label != LEFT_OUT:
                label = check_class(label)
        except (ValueError, IndexError, ConfigError) as error:
            raise DataError(f"{path}, line {number}: {','.join(cells)!r} is no label") from error
        if label:
            rows[slot] = label, cells[2] if len(cells) > 2 else ""
        else:
            rows.pop(slot, None)
    return rows
