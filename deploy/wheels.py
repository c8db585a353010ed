"""Python packages for a host, collected on the workstation: the host needs no internet."""

from __future__ import annotations

import contextlib
import hashlib
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from nodes import DeployError

PLATFORMS = {
    "aarch64": ("manylinux_2_28", "manylinux_2_27", "manylinux2014", "manylinux_2_17"),
    "x86_64": ("manylinux_2_28", "manylinux_2_27", "manylinux2014", "manylinux_2_17"),
}
#: bookworm's picamera2 (Python 3.11) was built for numpy 1 and breaks beside numpy 2.
CONSTRAINTS = {"3.11": ("numpy<2",)}


def collect(wheel: Path, extras: str, machine: str, python: str, build: Path) -> Path:
    """A folder with `wheel` and all that `ddnn[extras]` needs on such a host.

    Args:
        machine: `uname -m`.
        python: for example 3.11.
        build: where such folders are kept from one deployment to the next.

    Raises:
        DeployError: there are no wheels for such a host.
    """
    if machine not in PLATFORMS:
        raise DeployError(f"{machine}: only 64-bit systems can run it (aarch64, x86_64)")
    folder = build / f"{machine}-{python}-{extras}-{_digest([wheel])}"
    if folder.is_dir():
        return folder
    build.mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(dir=build))
    try:
        platforms = [f"--platform={p}_{machine}" for p in PLATFORMS[machine]]
        _pip(
            "download", f"--dest={work}", "--only-binary=:all:", "--implementation=cp",
            f"--python-version={python}", *platforms,
            f"ddnn[{extras}] @ {wheel.resolve().as_uri()}", *CONSTRAINTS.get(python, ()),
        )  # fmt: skip
        # In one step; another host of the same kind may have been faster.
        with contextlib.suppress(OSError):
            work.rename(folder)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    if not folder.is_dir():
        raise DeployError(f"cannot keep the packages in {folder}")
    return folder


def identity(wheels: Path, other: bytes = b"") -> str:
    """A name for exactly these packages (and `other`)."""
    return _digest(sorted(wheels.glob("*.whl")), other)


def _digest(files: list[Path], other: bytes = b"") -> str:
    hasher = hashlib.sha256()
    for file in files:
        hasher.update(file.name.encode() + b"\0" + file.read_bytes())
    hasher.update(other)
    return hasher.hexdigest()[:12]


def _pip(*args: str) -> None:
    command = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check", *args]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        lines = [line for line in done.stderr.splitlines() if not line.startswith("WARNING")]
        raise DeployError("\n".join(["cannot collect packages; pip said:", *lines[-5:]]))
