"""Prometheus' own checker, where there is one."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest


def promtool(*args, stdin=None, cwd=None):
    """Run promtool; the test is skipped where it is not to be had (`make setup-dev` fetches it)."""
    private = Path(sys.prefix, "prometheus", "promtool")
    program = str(private) if private.exists() else shutil.which("promtool")
    if program is None:
        pytest.skip("no promtool here: it is in Debian's package prometheus")
    return subprocess.run(
        [program, *args], input=stdin, cwd=cwd, capture_output=True, check=False, timeout=60
    )
