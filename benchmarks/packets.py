"""Real packets between a broker and its clients, counted on a loopback of their own.

The benchmark runs in a network namespace with nothing else in it, whose loopback has Ethernet's
MTU, so that TCP cuts and acknowledges as it does there. What is counted are IP packets; Ethernet's
or Wi-Fi's own framing comes on top of each.
"""

from __future__ import annotations

import os
import shutil
import socket
import struct
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import NamedTuple, Self

from ddnn.mqtt import Client

_INSIDE = "DDNN_BENCH_NETWORK"
_ETH_P_IP, _OUTGOING, _TCP = 0x0800, 4, 6
_SOL_PACKET, _PACKET_STATISTICS = 263, 6
MTU = 1500


def in_own_network(module: str) -> None:
    """Go on in a network namespace of this benchmark's own; no root is needed where users may.

    Raises:
        SystemExit: this machine gives none.
    """
    if _INSIDE not in os.environ:
        for program in ("unshare", "ip"):
            if shutil.which(program) is None:
                raise SystemExit(f"counting packets needs Linux and the program {program!r}")
        user = [] if os.geteuid() == 0 else ["--map-root-user"]
        command = ["unshare", "--net", *user, sys.executable, "-m", module, *sys.argv[1:]]
        os.environ[_INSIDE] = "1"
        os.execvp(command[0], command)
    result = subprocess.run(["ip", "link", "set", "lo", "up", "mtu", str(MTU)], check=False)
    if result.returncode:
        raise SystemExit("this machine lets nobody but root make a network namespace")


class Packet(NamedTuple):
    """One IP packet of a connection to the broker.

    Attributes:
        at: seconds since 1970.
        client: the client's port, which tells connections apart.
        ip_bytes: the whole packet.
        data_bytes: of these, what TCP carries.
    """

    at: float
    client: int
    ip_bytes: int
    data_bytes: int


class Capture:
    """Every packet from and to a broker's port, for one `with` block."""

    def __init__(self, port: int) -> None:
        self.packets: list[Packet] = []
        self._port = port
        self._socket = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(_ETH_P_IP))
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8_000_000)
        self._socket.bind(("lo", _ETH_P_IP))
        self._socket.settimeout(0.2)
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._run, name="capture")

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()
        _, lost = struct.unpack("II", self._socket.getsockopt(_SOL_PACKET, _PACKET_STATISTICS, 8))
        self._socket.close()
        if lost:
            raise SystemExit(f"{lost} packets were not counted: this machine is too busy")

    def _run(self) -> None:
        while not self._done.is_set():
            try:
                head, address = self._socket.recvfrom(128)
            except TimeoutError:
                continue
            # On a loopback each packet is seen leaving and arriving.
            if address[2] != _OUTGOING and (packet := read(head, self._port, time.time())):
                self.packets.append(packet)


def read(head: bytes, port: int, at: float) -> Packet | None:
    """The beginning of an IPv4 packet -> what is counted; None: it is not the broker's.

    Args:
        head: IP and TCP headers at least.
        port: the broker's.
    """
    if head[9] != _TCP:
        return None
    ip_header = (head[0] & 0x0F) * 4
    source, destination = struct.unpack_from("!HH", head, ip_header)
    if port not in (source, destination):
        return None
    ip_bytes = struct.unpack_from("!H", head, 2)[0]
    headers = ip_header + (head[ip_header + 12] >> 4) * 4
    data = ip_bytes - headers
    # Segments that the kernel would have left to a network card to cut.
    extra = max(0, -(-data // (MTU - headers)) - 1)
    client = destination if source == port else source
    return Packet(at, client, ip_bytes + extra * headers, data)


def port_of(pid: int, broker_port: int) -> int:
    """The local port of a process's connection to the broker.

    Raises:
        SystemExit: it has none, or several.
    """
    links = (os.readlink(path) for path in Path(f"/proc/{pid}/fd").iterdir())
    own = {link[8:-1] for link in links if link.startswith("socket:[")}
    found = []
    for line in Path(f"/proc/{pid}/net/tcp").read_text().splitlines()[1:]:
        fields = line.split()
        remote = int(fields[2].rpartition(":")[2], 16)
        if fields[9] in own and remote == broker_port:
            found.append(int(fields[1].rpartition(":")[2], 16))
    if len(found) != 1:
        raise SystemExit(f"process {pid} has {len(found)} connections to the broker")
    return found[0]


def port_of_client(client: Client) -> int:
    """The local port of a client of this process."""
    sock = client._client.socket()
    if sock is None:
        raise SystemExit("a client has lost its connection")
    port: int = sock.getsockname()[1]
    return port
