"""A TCP proxy that can make a connection bad in every way that TCP allows.

It listens on loopback and passes bytes on to one upstream port, in a thread of its own. What it
does to them may be changed at any time, for all connections at once:

- `stall()`: bytes and closes stay where they are; nobody is told (a half-open connection);
- `refuse()`: connections are closed at once, new ones too;
- `reset()`: present connections end with RST;
- `delay_s`: each piece waits so long;
- `truncate_after(n)`: after n more bytes a connection ends in the middle of a message;
- `bytes_per_s`: a slow line.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
import threading

HOST = "127.0.0.1"
PIECE_BYTES = 4096


class Proxy:
    """One listening port in front of `upstream_port`; or `listening`, a socket that listens."""

    def __init__(self, upstream_port: int, listening: socket.socket | None = None) -> None:
        self._listening = listening
        self.upstream_port = upstream_port
        self.delay_s = 0.0
        self.bytes_per_s: float | None = None
        self.port = 0
        self.connections = 0
        self._stalled = False
        self._refusing = False
        self._bytes_left: int | None = None
        self._writers: set[asyncio.StreamWriter] = set()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._ready = threading.Event()

    def __enter__(self):
        self._thread.start()
        assert self._ready.wait(5)
        return self

    def __exit__(self, *_):
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(5)

    # -- what goes wrong -------------------------------------------------------------------

    def stall(self):
        self._stalled = True

    def refuse(self):
        self._refusing = True
        self.reset()

    def reset(self):
        self._loop.call_soon_threadsafe(self._reset_all)

    def truncate_after(self, count):
        self._bytes_left = count

    def heal(self):
        """Everything passes again; what was stalled first."""
        self._stalled = self._refusing = False
        self._bytes_left = self.bytes_per_s = None
        self.delay_s = 0.0

    # -- in the thread ---------------------------------------------------------------------

    def _run(self):
        asyncio.set_event_loop(self._loop)
        where = {"sock": self._listening} if self._listening else {"host": HOST, "port": 0}
        server = self._loop.run_until_complete(asyncio.start_server(self._serve, **where))
        self.port = server.sockets[0].getsockname()[1]
        self._ready.set()
        self._loop.run_forever()
        for task in asyncio.all_tasks(self._loop):
            task.cancel()
        self._loop.run_until_complete(asyncio.sleep(0))
        server.close()

    async def _serve(self, reader, writer):
        self.connections += 1
        if self._refusing:
            writer.close()
            return
        try:
            up_reader, up_writer = await asyncio.open_connection(HOST, self.upstream_port)
        except OSError:
            writer.close()
            return
        for one in (writer, up_writer):
            one.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        pair = {writer, up_writer}
        self._writers |= pair
        tasks = [
            asyncio.ensure_future(self._pass_on(reader, up_writer)),
            asyncio.ensure_future(self._pass_on(up_reader, writer)),
        ]
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in tasks:
            task.cancel()
        self._writers -= pair
        for one in pair:
            one.close()

    async def _pass_on(self, reader, writer):
        while True:
            try:
                data = await reader.read(PIECE_BYTES)
            except OSError:
                data = b""
            while self._stalled:
                await asyncio.sleep(0.02)
            if not data:
                return
            if self.delay_s:
                await asyncio.sleep(self.delay_s)
            if self.bytes_per_s:
                await asyncio.sleep(len(data) / self.bytes_per_s)
            if self._bytes_left is not None:
                data = data[: self._bytes_left]
                self._bytes_left -= len(data)
            writer.write(data)
            try:
                await writer.drain()
            except OSError:
                return
            if self._bytes_left == 0:
                self._bytes_left = None
                return

    def _reset_all(self):
        for writer in self._writers:
            sock = writer.get_extra_info("socket")
            # Linger of zero seconds: the kernel sends RST instead of FIN.
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            writer.transport.abort()
