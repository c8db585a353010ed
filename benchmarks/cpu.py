"""Processor time and memory of a process, as Linux counts them."""

from __future__ import annotations

import os
from pathlib import Path

_TICKS_PER_S = os.sysconf("SC_CLK_TCK")


def cpu_s(pid: int) -> float:
    """User and system time of all threads of a process so far, seconds (in steps of 0.01)."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS_PER_S


def machine_busy_s() -> float:
    """Time that all processors of this machine have worked so far, for whomever, seconds."""
    times = [int(each) for each in Path("/proc/stat").read_text().splitlines()[0].split()[1:]]
    idle = times[3] + times[4]  # idle, and waiting for a disk
    return (sum(times[:8]) - idle) / _TICKS_PER_S


def switches(pid: int) -> int:
    """Context switches of all threads of a process so far, those that it wanted and others."""
    found = 0
    for status in Path(f"/proc/{pid}/task").glob("*/status"):
        rows = (row.split() for row in status.read_text().splitlines())
        found += sum(int(row[1]) for row in rows if row[0].endswith("ctxt_switches:"))
    return found


def rss_mb(pid: int) -> float:
    """Resident memory of a process, MB."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6
