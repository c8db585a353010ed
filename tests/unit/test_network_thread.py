"""The thread of a connection, over a real socket, with packets of one byte."""

import contextlib
import queue
import socket
import threading

import pytest

from ddnn import network_thread
from ddnn.network_thread import CHUNK_BYTES, MOST_AT_ONCE, BufferedSocket, NetworkThread

WAIT_S = 5.0


class Connection:
    """Stands in for paho: every byte is a packet; b"!" raises."""

    def __init__(self):
        self.said = []
        self.to_write = []
        self.peers = queue.Queue()
        self.refusals = []
        self.reads = 0
        self._sock = None

    def reconnect(self):
        if self.refusals:
            raise self.refusals.pop(0)
        if self._sock:
            self._sock.close()
        mine, peer = socket.socketpair()
        mine.setblocking(False)
        self._sock = BufferedSocket(mine)
        self.peers.put(peer)
        return 0

    def disconnect(self):
        self.to_write.append(b".")
        return 0

    def socket(self):
        return self._sock

    def loop_read(self):
        self.reads += 1
        try:
            byte = self._sock.recv(1)
        except BlockingIOError:
            return 0
        if byte == b"!":
            raise RuntimeError("a bug")
        if byte:
            self.said.append(byte)
        return int(not byte)

    def write(self):
        with contextlib.suppress(BlockingIOError):
            while self.to_write:
                data = self.to_write[0]
                self.to_write[0] = data[self._sock.send(data) :]
                if not self.to_write[0]:
                    self.to_write.pop(0)
                if data == b".":
                    self._sock.close()
                    self._sock = None
                    return 0
        return 0

    def loop_misc(self):
        return 0

    def want_write(self):
        return bool(self.to_write)


class Run:
    def __init__(self):
        self.connection = Connection()
        self.failures, self.bugs = [], []
        self.turns = queue.Queue()
        self.on_turn = lambda: None
        self.thread = NetworkThread(
            "test", self.connection, self.failures.append, self.bugs.append, self.handled
        )
        self.thread.retry_after(0.0, 0.0)

    def handled(self):
        self.turns.put(b"".join(self.connection.said))
        self.connection.said.clear()
        self.on_turn()

    def start(self):
        self.thread.start()
        return self.peer()

    def peer(self):
        peer = self.connection.peers.get(timeout=WAIT_S)
        peer.settimeout(WAIT_S)
        return peer

    def turn(self):
        return self.turns.get(timeout=WAIT_S)


@pytest.fixture
def run():
    made = Run()
    yield made
    made.thread.stop()
    while not made.connection.peers.empty():
        made.connection.peers.get().close()


def test_all_that_has_come_is_one_turn(run):
    with run.start() as peer:
        peer.sendall(b"abcdef")
        assert run.turn() == b"abcdef"


def test_much_at_once_is_cut_into_turns_and_none_is_forgotten(run):
    with run.start() as peer:
        peer.sendall(b"x" * (2 * MOST_AT_ONCE + 5))
        got = [run.turn() for _ in range(3)]
        while sum(map(len, got)) < 2 * MOST_AT_ONCE + 5:
            got.append(run.turn())
        assert max(map(len, got)) == MOST_AT_ONCE


def test_turn_is_over_before_anything_is_written(run):
    written = []
    right = run.connection.write
    run.connection.write = lambda: (written.append("write"), right())[1]

    def answer():
        written.append("handled")
        run.connection.to_write.append(b"yes")

    run.on_turn = answer
    with run.start() as peer:
        peer.sendall(b"abc")
        assert peer.recv(3) == b"yes"
        assert written[:2] == ["handled", "write"]


def test_other_thread_wakes_it_up(run):
    with run.start() as peer:
        run.connection.to_write.append(b"hello")
        run.thread.wake()
        assert peer.recv(5) == b"hello"


def test_what_the_socket_does_not_take_leaves_when_there_is_room(run):
    with run.start() as peer:
        size = 2_000_000
        run.connection.to_write.append(bytes(size))
        run.thread.wake()
        while size:
            size -= len(peer.recv(1 << 20))


def test_lost_connection_is_made_anew(run):
    run.start().close()
    with run.peer() as peer:
        peer.sendall(b"a")
        while run.turn() != b"a":
            pass


def test_failed_attempts_are_reported_and_not_the_last(run):
    run.connection.refusals = [ConnectionRefusedError(), UnicodeError("no host")]
    with run.start():
        assert [type(error) for error in run.failures] == [ConnectionRefusedError, UnicodeError]


def test_bug_in_a_parser_costs_the_connection_and_not_the_thread(run):
    with run.start() as peer:
        peer.sendall(b"!")
        with run.peer() as again:
            again.sendall(b"a")
            while run.turn() != b"a":
                pass
    assert [str(bug) for bug in run.bugs] == ["a bug"]


def test_bug_while_connecting_costs_the_attempt_and_not_the_thread(run):
    run.connection.refusals = [RuntimeError("a bug")]
    with run.start():
        assert [str(bug) for bug in run.bugs] == ["a bug"]


def test_what_came_before_a_packet_that_raises_is_handled_before_the_next_connection(run):
    with run.start() as peer:
        peer.sendall(b"ab!")
        assert run.turn() == b"ab"


def test_broker_that_takes_nothing_does_not_hold_up_the_end(run, monkeypatch):
    monkeypatch.setattr(network_thread, "STOP_WITHIN_S", 0.1)
    with run.start() as peer:
        run.connection.to_write.append(bytes(10_000_000))
        run.thread.wake()
        peer.recv(1)
        run.thread.stop()
        assert not run.thread._thread.is_alive()


def test_stopped_twice_or_before_its_start_it_ends(run):
    run.thread.stop()
    run.thread.start()
    run.thread.stop()
    run.thread.wake()
    run.thread.stop()
    assert run.connection.peers.empty()


def test_stopped_from_its_own_thread_it_does_not_wait_for_itself(run):
    done = threading.Event()
    run.on_turn = lambda: (run.thread.stop(), done.set())
    with run.start() as peer:
        peer.sendall(b"a")
        assert done.wait(WAIT_S)


# -- reading ahead ---------------------------------------------------------------------------


@pytest.fixture
def pair():
    mine, peer = socket.socketpair()
    mine.setblocking(False)
    with mine, peer:
        yield BufferedSocket(mine), peer


def test_bytes_come_in_order_however_few_are_asked_for(pair):
    sock, peer = pair
    peer.sendall(b"abcdef")
    assert [sock.recv(1), sock.recv(2), sock.pending(), sock.recv(100)] == [b"a", b"bc", 3, b"def"]
    with pytest.raises(BlockingIOError):
        sock.recv(1)


def test_what_was_seen_ahead_is_still_to_be_read(pair):
    sock, peer = pair
    peer.sendall(b"abcdef")
    assert sock.ahead() == (b"abcdef", 0)
    sock.skip(2)
    assert sock.ahead() == (b"abcdef", 2)
    assert sock.recv(100) == b"cdef"


def test_long_message_is_read_at_once(pair):
    sock, peer = pair
    peer.sendall(bytes(3 * CHUNK_BYTES))
    assert len(sock.recv(3 * CHUNK_BYTES)) == 3 * CHUNK_BYTES


def test_looking_ahead_hides_no_error(pair):
    sock, peer = pair
    assert sock.ahead() == (b"", 0)
    with pytest.raises(BlockingIOError):
        sock.recv(1)
    peer.sendall(b"a")
    peer.close()
    assert sock.ahead() == (b"a", 0)
    assert sock.recv(5) == b"a"
    assert sock.ahead() == (b"", 0)
    assert sock.recv(5) == b""
