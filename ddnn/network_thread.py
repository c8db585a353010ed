"""The thread on which an MQTT connection lives.

It does what paho's own thread does, with paho's functions for outside loops, and less often: a
wake-up reads all that has come with one system call, hands it to the handlers, lets their user
act on all of it at once (`handled`), and writes what came of it before it sleeps again. paho's
thread reads a packet's first byte, its length and its rest with a system call each, sleeps again
after every packet, and must be woken up for what its own handlers publish.
"""

from __future__ import annotations

import contextlib
import logging
import select
import socket
import threading
import time
from collections.abc import Callable
from typing import Any, Protocol

log = logging.getLogger(__name__)

#: Read from the socket at once: some hundred frame messages.
CHUNK_BYTES = 4096
#: Packets handled in one wake-up: more wait for the next, so that whoever shares a lock with the
#: handlers has its turn.
MOST_AT_ONCE = 128
#: How often keepalive is looked after.
MISC_EVERY_S = 0.5
#: What waits at the end is written within this time, or given up.
STOP_WITHIN_S = 5.0


class Connection(Protocol):
    """What is used of a `paho.mqtt.client.Client`: a result other than 0 ends the connection.

    `write` is its `loop_write`, which paho itself calls in the middle of reading.
    """

    def reconnect(self) -> int: ...
    def disconnect(self) -> int: ...
    def socket(self) -> Any: ...
    def loop_read(self) -> int: ...
    def write(self) -> int: ...
    def loop_misc(self) -> int: ...
    def want_write(self) -> bool: ...


class BufferedSocket:
    """A connected socket, plain or TLS, that reads ahead.

    For whoever reads a few bytes at a time. Everything but reading is the socket's own.
    """

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._data = b""
        self._at = 0
        self._error: OSError | None = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self._sock, name)

    def recv(self, size_bytes: int) -> bytes:
        """Up to so many bytes; empty: the other side has ended the connection.

        Raises:
            OSError: as the socket's own, where nothing has been read ahead.
        """
        if self._error:
            error, self._error = self._error, None
            raise error
        if self._at == len(self._data):
            self._data, self._at = self._sock.recv(max(size_bytes, CHUNK_BYTES)), 0
        begin, self._at = self._at, min(self._at + size_bytes, len(self._data))
        return self._data[begin : self._at]

    def ahead(self) -> tuple[bytes, int]:
        """Bytes that `recv` will give, from that position on; read now if there were none.

        Still none: there is nothing yet, or nothing any more; `recv` says which.
        """
        if self._at == len(self._data) and not self._error:
            try:
                self._data, self._at = self._sock.recv(CHUNK_BYTES), 0
            except OSError as error:
                self._error = error
        return self._data, self._at

    def skip(self, size_bytes: int) -> None:
        """Take so many bytes of what is ahead."""
        self._at += size_bytes

    def end(self) -> None:
        """Have both sides find the end of the connection. From any thread.

        Raises:
            OSError: it has ended already.
        """
        # Not the `shutdown` of a TLS socket: what has come would then be read as it is, encrypted.
        socket.socket.shutdown(self._sock, socket.SHUT_RDWR)

    def pending(self) -> int:
        """How many bytes can be had without asking the kernel."""
        inside = getattr(self._sock, "pending", None)  # what TLS has decrypted and not handed out
        return len(self._data) - self._at + (inside() if inside else 0)


class NetworkThread:
    """Connects, reads and writes, and connects again whenever the connection is lost.

    Args:
        name: of the thread.
        connection: what it serves; nobody else may call its loop functions.
        failed: called with the error of an attempt to connect.
        broken: called with what was raised where nothing should be; the connection is given up.
        handled: called after what one wake-up brought has been handed to the handlers, before
            anything is written.
    """

    def __init__(
        self,
        name: str,
        connection: Connection,
        failed: Callable[[BaseException], None],
        broken: Callable[[Exception], None],
        handled: Callable[[], None],
    ) -> None:
        self._connection = connection
        self._failed = failed
        self._broken = broken
        self._handled = handled
        self._pause_s, self._longest_pause_s = 1.0, 4.0
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._says: socket.socket | None = None

    def start(self) -> None:
        """Connect in the background."""
        self._hears, self._says = socket.socketpair()
        self._hears.setblocking(False)
        self._says.setblocking(False)
        self._thread.start()

    def stop(self) -> None:
        """Disconnect, once all that waits has been written, and end the thread.

        A thread that is about to connect, to a name that nobody resolves for example, is left
        alone after a while: it ends by itself, or with the process.
        """
        self._stopping.set()
        self._connection.disconnect()
        if self._says is None or threading.current_thread() is self._thread:
            return
        self.wake()
        self._thread.join(STOP_WITHIN_S)
        if self._thread.is_alive() and (sock := self._connection.socket()):
            with contextlib.suppress(OSError):  # it has just ended
                sock.end()
            self._thread.join(STOP_WITHIN_S)

    def wake(self) -> None:
        """There is something to write. From any thread; nothing to do for the thread itself."""
        if self._says is not None and threading.get_ident() != self._thread.ident:
            # Full: it is about to wake up. Closed: it has ended.
            with contextlib.suppress(OSError):
                self._says.send(b"\0")

    def retry_after(self, first_s: float, longest_s: float) -> None:
        """Pause so long before the next attempt to connect, and twice as long after each."""
        self._pause_s, self._longest_pause_s = first_s, longest_s

    def _run(self) -> None:
        while not self._stopping.is_set():
            try:
                if self._connect():
                    self._converse()
            except Exception as error:
                self._broken(error)
            pause_s, self._pause_s = (
                self._pause_s,
                min(2.0 * self._pause_s, self._longest_pause_s),
            )
            self._stopping.wait(pause_s)
        self._hears.close()
        assert self._says
        self._says.close()

    def _connect(self) -> bool:
        """Whether there is a connection, as far as this side knows."""
        try:
            self._connection.reconnect()
        except (OSError, ValueError) as error:  # a host's name may be none
            self._failed(error)
            return False
        if self._stopping.is_set():
            self._connection.disconnect()  # what `stop` said came too early
        return True

    def _converse(self) -> None:
        """Read and write until the connection is lost or ended."""
        connection, hears = self._connection, self._hears.fileno()
        sock = connection.socket()
        if sock is None:
            return
        poll = select.poll()
        poll.register(hears, select.POLLIN)
        poll.register(sock, select.POLLIN)
        descriptor = sock.fileno()
        waits_for_room = False
        next_misc = 0.0
        while True:
            if connection.want_write() != waits_for_room:
                waits_for_room = not waits_for_room
                poll.modify(sock, select.POLLIN | select.POLLOUT * waits_for_room)
            is_behind = sock.pending() > 0
            woken = dict(poll.poll(0 if is_behind else 1000 * MISC_EVERY_S))
            if hears in woken:
                self._hears.recv(CHUNK_BYTES)
            if (is_behind or woken.get(descriptor, 0) & ~select.POLLOUT) and not self._read(sock):
                return
            if connection.want_write() and (connection.write() or connection.socket() is None):
                return
            now = time.monotonic()
            if now >= next_misc:
                next_misc = now + MISC_EVERY_S
                if connection.loop_misc() or connection.socket() is None:
                    return

    def _read(self, sock: BufferedSocket) -> bool:
        """Have what is there handled; whether there still is a connection."""
        read = self._connection.loop_read
        lost = False
        try:
            for _ in range(MOST_AT_ONCE):
                lost = bool(read()) or self._connection.socket() is None
                if lost or not sock.pending():
                    break
        finally:  # what came before a packet that nobody can read
            self._handled()
        return not lost
