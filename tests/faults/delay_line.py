"""A bad network in user space: two network namespaces joined by a line that delays and loses.

Needs root and /dev/net/tun, but no kernel module (`tc netem` is missing on many machines). One TUN
device in each namespace; packets written to the one come out of the other after a delay, with
jitter (so that they overtake each other), or never. Run as a program it is the line itself:

    python delay_line.py NAMESPACE_A ADDRESS_A NAMESPACE_B ADDRESS_B

and takes lines "delay_ms jitter_ms loss bits_per_s" on its input at any time.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import heapq
import os
import random
import select
import shutil
import socket
import struct
import subprocess
import sys
import time
from pathlib import Path

CLONE_NEWNET = 0x40000000
TUNSETIFF, IFF_TUN, IFF_NO_PI = 0x400454CA, 0x0001, 0x1000
NEAR, FAR = "10.213.77.1", "10.213.77.2"
LONGEST_QUEUE = 5000


def why_not() -> str | None:
    """Why it cannot be used here, or None."""
    if sys.platform != "linux" or os.geteuid() != 0:
        return "network namespaces need root on Linux"
    if not os.path.exists("/dev/net/tun"):
        return "there is no /dev/net/tun"
    if shutil.which("ip") is None:
        return "there is no `ip` program (iproute2)"
    made = subprocess.run(["ip", "netns", "add", "ddnn-try"], capture_output=True, check=False)
    subprocess.run(["ip", "netns", "del", "ddnn-try"], capture_output=True, check=False)
    return None if made.returncode == 0 else "this machine makes no network namespaces"


@contextlib.contextmanager
def inside(namespace: str):
    """This thread's new sockets and devices belong to `namespace`."""
    libc = ctypes.CDLL(None, use_errno=True)
    home = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
    there = os.open(f"/run/netns/{namespace}", os.O_RDONLY)
    try:
        if libc.setns(there, CLONE_NEWNET) != 0:
            raise OSError(ctypes.get_errno(), "setns")
        yield
    finally:
        libc.setns(home, CLONE_NEWNET)
        os.close(home)
        os.close(there)


class DelayLine:
    """Two namespaces and the line between them, for one `with` block."""

    def __init__(self) -> None:
        self.near, self.far = f"ddnn-{os.getpid()}-a", f"ddnn-{os.getpid()}-b"
        self._process: subprocess.Popen[str] | None = None

    def __enter__(self):
        for namespace in (self.near, self.far):
            subprocess.run(["ip", "netns", "add", namespace], check=True)
        command = [sys.executable, str(Path(__file__)), self.near, NEAR, self.far, FAR]
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        assert self._process.stdout.readline() == "ready\n"
        return self

    def __exit__(self, *_):
        self._process.kill()
        self._process.wait(5)
        for namespace in (self.near, self.far):
            subprocess.run(["ip", "netns", "del", namespace], check=False)

    def be(self, *, delay_ms=0.0, jitter_ms=0.0, loss=0.0, bits_per_s=0.0):
        """Change what the line does from now on, in each direction; 0 bits per second: no limit."""
        self._process.stdin.write(f"{delay_ms} {jitter_ms} {loss} {bits_per_s}\n")
        self._process.stdin.flush()

    def listen(self) -> socket.socket:
        """A listening socket at the far end; whoever accepts from it lives here."""
        with inside(self.far):
            return socket.create_server((FAR, 0))

    def command(self, *args: str) -> list[str]:
        """A command that runs at the near end."""
        return ["ip", "netns", "exec", self.near, *args]


def _tun(namespace: str, address: str) -> int:
    with inside(namespace):
        descriptor = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
        fcntl.ioctl(descriptor, TUNSETIFF, struct.pack("16sH22x", b"line0", IFF_TUN | IFF_NO_PI))
        for what in (f"addr add {address}/24 dev line0", "link set line0 up", "link set lo up"):
            subprocess.run(["ip", *what.split()], check=True)
    return descriptor


def main() -> None:
    ends = [_tun(*sys.argv[1:3]), _tun(*sys.argv[3:5])]
    other = {ends[0]: ends[1], ends[1]: ends[0]}
    delay_ms = jitter_ms = loss = bits_per_s = 0.0
    free_at = dict.fromkeys(ends, 0.0)
    queue: list[tuple[float, int, int, bytes]] = []
    number = 0
    print("ready", flush=True)
    while True:
        now = time.monotonic()
        while queue and queue[0][0] <= now:
            _, _, end, packet = heapq.heappop(queue)
            with contextlib.suppress(OSError):
                os.write(end, packet)
        wait_s = max(0.0, queue[0][0] - now) if queue else None
        ready, _, _ = select.select([*ends, sys.stdin], [], [], wait_s)
        if sys.stdin in ready:
            line = sys.stdin.readline()
            if not line:
                return
            delay_ms, jitter_ms, loss, bits_per_s = map(float, line.split())
        for end in set(ready) & set(ends):
            with contextlib.suppress(BlockingIOError):
                while True:
                    packet = os.read(end, 2048)
                    if random.random() < loss or len(queue) > LONGEST_QUEUE:
                        continue
                    number += 1
                    at = max(time.monotonic(), free_at[end])
                    if bits_per_s:  # one after the other
                        at = free_at[end] = at + 8 * len(packet) / bits_per_s
                    at += max(0.0, random.gauss(delay_ms, jitter_ms)) / 1000
                    heapq.heappush(queue, (at, number, other[end], packet))


if __name__ == "__main__":
    main()
