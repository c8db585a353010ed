"""What Linux, and a Raspberry Pi's firmware, tell of the machine. Every reader takes `root`, the
folder that stands for /, and gives None where the machine does not tell.

The clock: reading the kernel's own state (adjtimex) is a system call that systemd's ProtectClock
forbids along with setting it. systemd-timesyncd leaves a file when it has set the clock; for other
time services (chrony, ntpd) `timedatectl` knows. How far the clock was off, timesyncd tells on
D-Bus and chrony by `chronyc`.
"""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
from collections.abc import Callable, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import msgspec

ROOT = Path("/")
#: Bits of the firmware's get_throttled; 16 higher: it was so since power came on.
THROTTLED = ("under-voltage", "frequency capped", "throttled", "temperature limit")
COMMAND_TIMEOUT_S = 3.0
PACKAGES = ("ddnn", "numpy", "onnxruntime", "paho-mqtt")

Run = Callable[[Sequence[str]], str | None]


def temperature_c(root: Path = ROOT) -> float | None:
    """The processor's temperature, else the hottest there is, in degrees Celsius."""
    found = {}
    for zone in sorted(root.glob("sys/class/thermal/thermal_zone*")):
        value = _read(zone / "temp")
        try:
            found[_read(zone / "type") or zone.name] = int(value or "") / 1000
        except ValueError:
            continue
    return found.get("cpu-thermal", max(found.values(), default=None))


def throttled(root: Path = ROOT) -> tuple[str, ...] | None:
    """What the firmware says of supply and cooling; empty: all is well."""
    for file in root.glob("sys/devices/platform/soc*/soc*firmware/get_throttled"):
        if (found := throttled_names(_read(file) or "")) is not None:
            return found
    return None


def throttled_names(text: str) -> tuple[str, ...] | None:
    """The firmware's hexadecimal word in words; what is over ends with `before`."""
    try:
        bits = int(text, 16)
    except ValueError:
        return None
    now = [name for bit, name in enumerate(THROTTLED) if bits >> bit & 1]
    before = [n for bit, n in enumerate(THROTTLED) if bits >> (16 + bit) & 1 and n not in now]
    return (*now, *(f"{name} before" for name in before))


def memory_mb(root: Path = ROOT) -> int | None:
    """Memory that is available, MB."""
    return _kilobytes(root / "proc/meminfo", "MemAvailable")


def own_memory_mb(root: Path = ROOT) -> int | None:
    """Resident memory of this process, MB."""
    return _kilobytes(root / "proc/self/status", "VmRSS")


def place_of(folder: Path) -> Path:
    """The folder that exists where `folder` is or will be."""
    folder = folder.absolute()
    return next((f for f in (folder, *folder.parents) if f.exists()), folder)


def disk_mb(folder: Path) -> int | None:
    """Free space where `folder` is or will be, MB."""
    try:
        return shutil.disk_usage(place_of(folder)).free // 1_000_000
    except OSError:
        return None


def versions(root: Path = ROOT) -> dict[str, str]:
    """Of software, system and hardware, by name."""
    found = {"python": platform.python_version(), "kernel": os.uname().release}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:  # not every service has all of them
            continue
    for line in (_read(root / "etc/os-release") or "").splitlines():
        if line.startswith("PRETTY_NAME="):
            found["system"] = line.partition("=")[2].strip('"')
    if model := _read(root / "proc/device-tree/model"):
        found["model"] = model.rstrip("\0")
    return found


def run_command(args: Sequence[str]) -> str | None:
    """What a program says; None: it is not there, fails or hangs."""
    try:
        done = subprocess.run(
            args,
            capture_output=True,
            text=True,
            timeout=COMMAND_TIMEOUT_S,
            check=True,
            stdin=subprocess.DEVNULL,
            # systemd listens to the service alone, and complains of what others say.
            env={name: value for name, value in os.environ.items() if name != "NOTIFY_SOCKET"},
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout


def clock_synchronised(root: Path = ROOT, run: Run = run_command) -> bool | None:
    """Whether a time server has set the clock."""
    if (root / "run/systemd/timesync/synchronized").exists():
        return True
    said = (run(("timedatectl", "show", "--property=NTPSynchronized", "--value")) or "").strip()
    return {"yes": True, "no": False}.get(said)


def clock_offset_s(run: Run = run_command) -> float | None:
    """How far the clock was off when it was last compared; positive: it was slow."""
    timesyncd = run(
        ("busctl", "--json=short", "get-property", "org.freedesktop.timesync1",
         "/org/freedesktop/timesync1", "org.freedesktop.timesync1.Manager", "NTPMessage")
    )  # fmt: skip
    offset = None if timesyncd is None else _timesyncd_offset_s(timesyncd)
    if offset is None and (chrony := run(("chronyc", "-c", "tracking"))) is not None:
        offset = _chrony_offset_s(chrony)
    return offset


class _NtpMessage(msgspec.Struct, frozen=True):
    """D-Bus (uuuuittayttttbtt): leap, version, mode, stratum, precision, root delay, root
    dispersion, reference, then origin, receive, transmit and destination times in microseconds,
    ignored, packets, jitter."""

    data: tuple[
        int, int, int, int, int, int, int, list[int], int, int, int, int, bool, int, int
    ]  # fmt: skip


#: Made once: see `ddnn.bundle`.
_NTP = msgspec.json.Decoder(_NtpMessage)


def _timesyncd_offset_s(text: str) -> float | None:
    try:
        data = _NTP.decode(text).data
    except msgspec.DecodeError:
        return None
    origin, receive, transmit, destination, _, packets = data[8:14]
    if not packets:
        return None
    return ((receive - origin) + (transmit - destination)) / 2e6


def _chrony_offset_s(text: str) -> float | None:
    """Fifth of `chronyc -c tracking`: how fast the system clock is, seconds."""
    try:
        return -float(text.split(",")[4])
    except (IndexError, ValueError):
        return None


def _kilobytes(file: Path, name: str) -> int | None:
    for line in (_read(file) or "").splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) * 1024 // 1_000_000
    return None


def _read(file: Path) -> str | None:
    try:
        return file.read_text(errors="replace").strip()
    except OSError:
        return None
