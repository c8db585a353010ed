"""Checks of the machine: programs, clock, disk, memory, heat."""

from __future__ import annotations

import platform
import shutil
import signal
import struct
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

from ddnn.clock import EARLIEST_WALL_S
from ddnn.doctor.finding import Finding, Machine
from ddnn.machine import (
    clock_synchronised,
    memory_mb,
    place_of,
    temperature_c,
    throttled,
    throttled_names,
)

#: Below this a section, its journal and a log line more do not fit for sure.
LEAST_DISK_BYTES = 200_000_000
#: A node needs 54 to 63 MB; below this the kernel will soon end something.
LEAST_MEMORY_MB = 100
#: Where the firmware of a Raspberry Pi begins to slow the CPU down.
HOT_C = 80.0
_IMPORT = "import os; os.environ['ORT_DISABLE_TELEMETRY'] = '1'; import {0}; print({0}.__version__)"


def check_python(machine: Machine) -> Finding:
    """64 bits: there is no onnxruntime for fewer on ARM."""
    bits = 8 * struct.calcsize("P")
    text = f"Python {platform.python_version()}, {platform.machine()}, {bits} bits"
    if bits < 64:
        return Finding(
            "python",
            "failure",
            text,
            "install the 64-bit system: there is no onnxruntime for 32-bit ARM",
        )
    return Finding("python", "ok", text)


def check_onnxruntime(machine: Machine) -> Finding:
    """In a process of its own: a wheel for another CPU kills the one that imports it."""
    done = machine.run([sys.executable, "-c", _IMPORT.format("onnxruntime")])
    if done is None:
        return Finding("onnxruntime", "failure", "its import does not end", "install it again")
    if done.code == 0:
        return Finding("onnxruntime", "ok", f"version {done.output.splitlines()[-1]}")
    if done.code < 0:
        name = signal.Signals(-done.code).name
        return Finding(
            "onnxruntime",
            "failure",
            f"importing it is killed by {name}",
            "this wheel is not for this CPU: install another version of onnxruntime",
        )
    if "No module named 'onnxruntime'" in done.output:
        return Finding("onnxruntime", "failure", "not installed", "pip install 'ddnn[device]'")
    last = done.output.splitlines()[-1:] or ["no output"]
    return Finding("onnxruntime", "failure", last[0], "install it again")


def check_camera(machine: Machine) -> Finding:
    """libcamera's Python module comes with the system, and must be seen from here."""
    if not machine.is_raspberry_pi:
        return Finding("camera", "skipped", "not a Raspberry Pi")
    done = machine.run([sys.executable, "-c", "import libcamera, picamera2; print('ok')"])
    if done is not None and done.code == 0:
        return Finding("camera", "ok", "libcamera and picamera2 can be imported")
    return Finding(
        "camera",
        "warning",
        "libcamera or picamera2 cannot be imported",
        "apt install python3-picamera2, and make the virtual environment with "
        "--system-site-packages (not needed on a gateway)",
    )


def check_clock(machine: Machine, now_s: float) -> Finding:
    """A Raspberry Pi has no clock of its own: it may say 1970, and then no certificate is valid."""
    said = f"{datetime.fromtimestamp(now_s, UTC):%Y-%m-%d %H:%M:%S} UTC"
    if now_s < EARLIEST_WALL_S:
        return Finding(
            "clock", "failure", f"not set: {said}", "connect a time server (timedatectl)"
        )
    is_set = clock_synchronised(machine.root, machine.ask)
    if is_set:
        return Finding("clock", "ok", f"{said}, set by a time server")
    if is_set is False:
        return Finding(
            "clock",
            "warning",
            f"{said}, not set by a time server",
            "cameras are matched by their clocks: timedatectl set-ntp true",
        )
    return Finding("clock", "skipped", f"{said}; no systemd here that knows of a time server")


def check_disk(machine: Machine, folder: Path) -> Finding:
    """Space where the bundle and the journal are kept."""
    place = place_of(folder)
    usage = shutil.disk_usage(place)
    text = f"{usage.free / 1e9:.1f} of {usage.total / 1e9:.1f} GB free on {place}"
    if usage.free < LEAST_DISK_BYTES:
        return Finding("disk", "failure", text, "make room: bundles cannot be kept")
    if usage.free < 0.1 * usage.total:
        return Finding("disk", "warning", text, "make room before it is full")
    return Finding("disk", "ok", text)


def check_wear(machine: Machine) -> Iterator[Finding]:
    """eMMC tells how much of its life is used; SD cards do not, but a worn one turns read-only."""
    mounts = machine.read("/proc/mounts") or ""
    for line in mounts.splitlines():
        device, where, _, options, *_ = [*line.split(), "", "", "", ""]
        if where == "/" and "ro" in options.split(",") and device.startswith("/dev/"):
            yield Finding("wear", "failure", f"{device} is read-only", "exchange the card")
            return
    found = False
    for path in sorted((machine.root / "sys/block").glob("mmcblk*/device/life_time")):
        tenths = [int(part, 16) for part in path.read_text().split()]
        used = 10 * max(tenths, default=0)
        if not used:  # 0: it does not say
            continue
        found = True
        level, advice = ("warning", "exchange it soon") if used >= 80 else ("ok", "")
        text = f"{path.parent.parent.name}: about {used} % of its life is used"
        yield Finding("wear", "warning" if level == "warning" else "ok", text, advice)
    if not found:
        yield Finding("wear", "skipped", "no storage here says how worn it is (SD cards do not)")


def check_memory(machine: Machine) -> Finding:
    """What the kernel can still give."""
    available_mb = memory_mb(machine.root)
    if available_mb is None:
        return Finding("memory", "skipped", "this system does not say")
    text = f"{available_mb} MB available"
    if available_mb < LEAST_MEMORY_MB:
        return Finding("memory", "warning", text, "a node needs about 60 MB: end other programs")
    return Finding("memory", "ok", text)


def check_temperature(machine: Machine) -> Finding:
    """The processor's sensor, else the hottest one."""
    degrees = temperature_c(machine.root)
    if degrees is None:
        return Finding("temperature", "skipped", "no sensor here")
    text = f"{degrees:.0f} °C"
    if degrees >= HOT_C:
        return Finding("temperature", "warning", text, "cool it: the CPU is slowed down")
    return Finding("temperature", "ok", text)


def check_throttling(machine: Machine) -> Finding:
    """What a Raspberry Pi's firmware says of voltage and heat, now and since it was started."""
    if not machine.is_raspberry_pi:
        return Finding("throttling", "skipped", "not a Raspberry Pi")
    said = throttled(machine.root)
    if said is None:
        said = throttled_names((machine.ask(["vcgencmd", "get_throttled"]) or "").partition("=")[2])
    if said is None:
        return Finding("throttling", "skipped", "the firmware does not say (no vcgencmd)")
    advice = "a better power supply or cooling"
    if not said:
        return Finding("throttling", "ok", "never since the start")
    is_over = all(name.endswith("before") for name in said)
    return Finding("throttling", "warning" if is_over else "failure", ", ".join(said), advice)
