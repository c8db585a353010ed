"""Resident memory of the agent on aarch64: the built wheel in an emulated machine.

    python -m benchmarks.arm64 ROOT MACHINE [--write-docs]

ROOT is that of `make test-arm64` (arm64 Python, and in `app` the wheels that `make deploy` ships),
MACHINE what `scripts/fetch-arm64-machine` made. A whole machine is emulated, with a Debian kernel
of its own on a Cortex-A72, since an emulated *process* has the emulator's memory in its own: that
number means nothing. Files are in memory there, which counts as resident just as a file's pages do.
Speed means nothing here. The same program measures as in `benchmarks.device`.
"""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from broker.unpacked import library_env

REPOSITORY = Path(__file__).resolve().parent.parent
OUT = REPOSITORY / "build" / "bench" / "device-arm64.json"
DOCS = REPOSITORY / "docs" / "pi.md"
BEGIN, END = "<!-- made by benchmarks.arm64: begin -->", "<!-- end -->"
TIMEOUT_S = 1500
#: Of the root: what the emulated process alone needs, and another machine's files.
LEFT_OUT = {"qemu", "site", "proc", "sys", "dev", "work"}


def files(root: Path, machine: Path) -> Iterator[tuple[str, Path]]:
    """Every file of the machine: its name there, and where it is here; the last one counts."""
    for folder in (machine / "files", root):
        for path in sorted(folder.rglob("*")):
            name = path.relative_to(folder)
            if folder is machine / "files" or name.parts[0] not in LEFT_OUT:
                yield str(name), path
    for name in ("benchmarks/__init__.py", "benchmarks/device.py"):
        yield f"work/{name}", REPOSITORY / name
    for path in sorted((REPOSITORY / "models" / "reference").rglob("*")):
        yield f"work/models/reference/{path.relative_to(REPOSITORY / 'models/reference')}", path
    yield "init", REPOSITORY / "benchmarks" / "arm64_init.py"


def write_archive(out: BinaryIO, found: dict[str, Path], interpreter: str) -> None:
    """A cpio archive (newc), as the kernel unpacks it into its first root."""
    number = 0

    def entry(name: str, mode: int, data: bytes) -> None:
        nonlocal number
        number += 1
        encoded = name.encode() + b"\0"
        fields = [number, mode, 0, 0, 1, 0, len(data), 0, 0, 0, 0, len(encoded), 0]
        head = b"070701" + b"".join(b"%08X" % field for field in fields) + encoded
        out.write(head + bytes(-len(head) % 4) + data + bytes(-len(data) % 4))

    folders = {str(parent) for name in found for parent in Path(name).parents} - {"."}
    links = {name for name, path in found.items() if path.is_symlink()}
    for name in sorted(folders - links):
        entry(name, stat.S_IFDIR | 0o755, b"")
    for name, path in found.items():
        if path.is_symlink():
            entry(name, stat.S_IFLNK | 0o777, os.readlink(path).encode())
        elif path.is_file():
            data = path.read_bytes()
            if name == "init":
                data = f"#!/usr/bin/{interpreter}\n".encode() + data
            mode = 0o755 if name == "init" else path.stat().st_mode & 0o777
            entry(name, stat.S_IFREG | mode, data)
    entry("TRAILER!!!", 0, b"")


def boot(machine: Path, archive: Path) -> dict[str, float]:
    """Run the machine; what its first process says."""
    parts = machine / "qemu" / "usr"
    command = [
        str(parts / "bin" / "qemu-system-aarch64"), "-L", str(parts / "share" / "qemu"),
        "-M", "virt", "-cpu", "cortex-a72", "-smp", "2", "-m", "2048", "-nographic", "-nodefaults",
        "-serial", "stdio", "-kernel", str(machine / "kernel"), "-initrd", str(archive),
        "-append", f"console=ttyAMA0 quiet panic=-1 ddnn.time={time.time():.0f}",
        "-no-reboot",
    ]  # fmt: skip
    environment = os.environ | library_env(machine / "qemu")
    done = subprocess.run(
        command, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True,
        timeout=TIMEOUT_S, check=False, errors="replace",
    )  # fmt: skip
    said = [line for line in done.stdout.splitlines() if line.startswith("DDNN 0 ")]
    if not said:
        sys.exit(f"the machine measured nothing:\n{done.stdout[-3000:]}{done.stderr[-2000:]}")
    found: dict[str, float] = json.loads(said[0].removeprefix("DDNN 0 "))
    return found


def main() -> None:
    root, machine = Path(sys.argv[1]).resolve(), Path(sys.argv[2]).resolve()
    interpreter = (root / "interpreter").read_text().strip()
    with tempfile.TemporaryDirectory(prefix="ddnn-arm64-") as name:
        archive = Path(name) / "root.cpio"
        with archive.open("wb") as out:
            write_archive(out, dict(files(root, machine)), interpreter)
        last = boot(machine, archive)
    OUT.parent.mkdir(parents=True, exist_ok=True)
    OUT.write_text(json.dumps(last, indent=1))
    text = (
        f"Agent at 10 frames/s on aarch64: {last['rss_mb']:.1f} MB resident, "
        f"{last['rss_private_mb']:.1f} MB of it its own; {last['bytes_to_disk']} bytes to disk."
    )
    print(text)
    if "--write-docs" in sys.argv[3:]:
        head, _, rest = DOCS.read_text().partition(BEGIN)
        _, _, tail = rest.partition(END)
        DOCS.write_text(f"{head}{BEGIN}\n\n{text}\n\n{END}{tail}")


if __name__ == "__main__":
    main()
