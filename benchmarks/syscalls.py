"""System calls of a running process, as strace counts them. It slows the process down a lot."""

from __future__ import annotations

import re
import shutil
import signal
import subprocess
import time
from pathlib import Path

#: `% time  seconds  usecs/call  calls  [errors]  syscall`.
_ROW = re.compile(r"^\s*[\d.]+\s+[\d.]+\s+\d+\s+(\d+)\s+(?:\d+\s+)?(\w+)$", re.M)


class Trace:
    """Counts from here on.

    Args:
        pid: of the process; all its threads are followed.
        path: where strace writes.
    """

    def __init__(self, pid: int, path: Path) -> None:
        program = shutil.which("strace")
        if program is None:
            raise SystemExit("strace is missing: install it (on Debian: apt install strace)")
        self._path = path
        self._strace = subprocess.Popen(
            [program, "-c", "-f", "-p", str(pid), "-o", str(path)],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        time.sleep(0.5)  # it says only to a person when it is attached

    def stop(self) -> dict[str, int]:
        """How many there were, by name."""
        self._strace.send_signal(signal.SIGINT)
        self._strace.wait(30)
        return counted(self._path.read_text())


def counted(report: str) -> dict[str, int]:
    """What `strace -c` reports: calls by name, the most frequent first."""
    rows = {name: int(calls) for calls, name in _ROW.findall(report) if name != "total"}
    return dict(sorted(rows.items(), key=lambda row: -row[1]))
