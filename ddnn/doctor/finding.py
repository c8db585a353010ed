"""What a check says, and what it looks at."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Literal, NamedTuple

Level = Literal["ok", "skipped", "warning", "failure"]


class Finding(NamedTuple):
    """One line of the report.

    Attributes:
        check: what was looked at, in one or two words.
        level: `skipped`: it does not apply here; the text says why.
        text: what was found.
        advice: what to do, where there is something to do.
    """

    check: str
    level: Level
    text: str
    advice: str = ""


class Ran(NamedTuple):
    """A program's end: its status (negative: the signal that killed it) and its output."""

    code: int
    output: str


def run(command: Sequence[str], timeout_s: float = 20.0) -> Ran | None:
    """Run a program; None: there is none of that name, or it does not end in time."""
    try:
        done = subprocess.run(
            command,
            capture_output=True,
            text=True,
            timeout=timeout_s,
            check=False,
            stdin=subprocess.DEVNULL,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return Ran(done.returncode, (done.stdout + done.stderr).strip())


class Machine(NamedTuple):
    """The computer looked at; tests give another one."""

    root: Path = Path("/")
    run: Callable[[Sequence[str]], Ran | None] = run
    environ: Mapping[str, str] = os.environ

    def read(self, path: str) -> str | None:
        """A small file's text, such as those in /proc and /sys; None: it is not there."""
        try:
            text = (self.root / path.lstrip("/")).read_text(encoding="utf-8", errors="replace")
        except OSError:
            return None
        return text.strip().strip("\0")

    def ask(self, command: Sequence[str]) -> str | None:
        """What a program says; None: it is not there, fails or hangs."""
        done = self.run(command)
        return done.output if done is not None and done.code == 0 else None

    @property
    def is_raspberry_pi(self) -> bool:
        """By the name that its firmware gives."""
        return "Raspberry Pi" in (self.read("/proc/device-tree/model") or "")
