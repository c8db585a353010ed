"""First process of the emulated machine of `benchmarks.arm64`: runs one program, and turns it off.

The kernel's command line says `ddnn.time=SECONDS` (there may be no clock).
"""

import ctypes
import fcntl
import os
import socket
import struct
import subprocess
import sys
import time

LIBC = ctypes.CDLL(None, use_errno=True)
SIOCSIFFLAGS, IFF_UP = 0x8914, 1
POWER_OFF = 0x4321FEDC


def mount(kind: str, place: str) -> None:
    """Mount one of the kernel's own file systems."""
    os.makedirs(place, exist_ok=True)
    if LIBC.mount(kind.encode(), place.encode(), kind.encode(), 0, None):
        print(f"cannot mount {kind}: {os.strerror(ctypes.get_errno())}", flush=True)


def main() -> None:
    for kind, place in (("devtmpfs", "/dev"), ("proc", "/proc"), ("sysfs", "/sys"),
                        ("tmpfs", "/tmp")):  # fmt: skip
        mount(kind, place)
    # The kernel had no console to give to the first process before there was a /dev.
    console = os.open("/dev/console", os.O_RDWR)
    for descriptor in (0, 1, 2):
        os.dup2(console, descriptor)
    with open("/proc/cmdline") as file:
        words = dict(word.partition("=")[::2] for word in file.read().split())
    time.clock_settime(time.CLOCK_REALTIME, float(words["ddnn.time"]))
    with socket.socket() as sock:
        fcntl.ioctl(sock, SIOCSIFFLAGS, struct.pack("16sh22x", b"lo", IFF_UP))
    environment = {
        "PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "HOME": "/tmp", "LC_ALL": "C.UTF-8",
        "PYTHONPATH": "/app:/work",
    }  # fmt: skip
    command = [sys.executable, "-m", "benchmarks.device", "--replay-only", "--seconds", "20"]
    done = subprocess.run(
        command, env=environment, cwd="/work", capture_output=True, text=True, check=False
    )
    print(f"\nDDNN {done.returncode} {done.stdout.strip()}", flush=True)
    if done.returncode:
        print(done.stderr[-3000:], flush=True)
    os.sync()
    LIBC.reboot(POWER_OFF)


if __name__ == "__main__":
    main()
