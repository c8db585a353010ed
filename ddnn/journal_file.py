"""The journal as a file: the only code that writes it.

A plain write(2) survives kill -9 of this process, which is what it is for. There is no
fsync: after a loss of power the frames in question are stale anyway, and an SD card would wear
out. A folder on a RAM disk (`/run/...`) serves as well.

A write that fails (disk full) is undone as far as it went, counted and reported; decisions go on.
When the disk takes data again the journal is written anew from what the gateway remembers.
"""

from __future__ import annotations

import logging
import os
from collections import Counter
from collections.abc import Callable
from pathlib import Path

log = logging.getLogger(__name__)
#: While the disk takes nothing, only every so-many-th write tries again: a try costs a snapshot.
TRY_AGAIN_EVERY = 64


class JournalFile:
    """One append-only file, rewritten when it has grown too long.

    Args:
        path: the file; its folder is created.
        snapshot: gives the shortest bytes that say the same as all that was appended.
        max_bytes: length at which it is rewritten.
        counts: `journal_errors` and `journal_rotations` are counted here.
    """

    def __init__(
        self,
        path: Path,
        snapshot: Callable[[], bytes],
        *,
        max_bytes: int = 4_000_000,
        counts: Counter[str] | None = None,
    ) -> None:
        self.counts: Counter[str] = Counter() if counts is None else counts
        self._path = Path(path)
        self._snapshot = snapshot
        self._max_bytes = max_bytes
        self._limit = max_bytes
        self._descriptor: int | None = None
        self._length = 0
        self._is_behind = False
        self._skipped = 0

    @property
    def size_bytes(self) -> int:
        """Its length, as far as this process has written it."""
        return self._length

    def read(self) -> bytes:
        """All bytes of the file; empty when there is none or it cannot be read."""
        try:
            return self._path.read_bytes()
        except FileNotFoundError:
            return b""
        except OSError as error:
            self._failed("read", error)
            return b""

    def append(self, data: bytes) -> None:
        """Write `data` at the end. Raises nothing: see the module's words on a full disk."""
        if self._is_behind:
            self._skipped += 1
            if self._skipped % TRY_AGAIN_EVERY:
                return
        if self._is_behind or self._descriptor is None or self._length > self._limit:
            self.rewrite()
            return
        try:
            written = os.write(self._descriptor, data)
            if written < len(data):
                os.ftruncate(self._descriptor, self._length)
                raise OSError(f"only {written} of {len(data)} bytes were written")
            self._length += written
        except OSError as error:
            self._failed("write", error)

    def rewrite(self) -> None:
        """Write the snapshot to a new file and put it in the old one's place."""
        fresh = self._path.with_name(self._path.name + ".new")
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND | os.O_CLOEXEC
            descriptor = os.open(fresh, flags, 0o600)
            try:
                data = self._snapshot()
                view = memoryview(data)
                while view:
                    view = view[os.write(descriptor, view) :]
                fresh.rename(self._path)
            except OSError:
                os.close(descriptor)
                fresh.unlink(missing_ok=True)
                raise
        except OSError as error:
            self._failed("rewrite", error)
            return
        self.close()
        self._descriptor, self._length, self._is_behind = descriptor, len(data), False
        # A snapshot may itself be longer than the limit; rewriting it for every record would not
        # make it shorter.
        self._limit = max(self._max_bytes, 2 * self._length)
        self.counts["journal_rotations"] += 1

    def close(self) -> None:
        """Close the file; the next append opens it again."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def _failed(self, what: str, error: OSError) -> None:
        if not self._is_behind:
            log.error("cannot %s the journal %s: %s; going on without it", what, self._path, error)
        self._is_behind = True
        self.counts["journal_errors"] += 1
