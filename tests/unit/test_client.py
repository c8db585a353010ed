"""The client against a broker that does what the test says, packet by packet."""

import os
import socket
import struct
import threading
import time
import tracemalloc

import paho.mqtt.client as paho
import pytest

from ddnn import mqtt
from ddnn.errors import DdnnError
from ddnn.message import MAX_PACKET_BYTES, Publish
from ddnn.mqtt import Client, Session
from ddnn.network_thread import MOST_AT_ONCE

WAIT_S = 10.0
CONNECT, PUBLISH, PUBACK, PINGREQ, DISCONNECT = 0x10, 0x30, 0x40, 0xC0, 0xE0
CONNACK = b"\x20\3\0\0\0"


def publish(topic, payload, packet=0):
    """A PUBLISH of up to 127 bytes, at QoS 1 where it has a packet id."""
    name = topic.encode()
    number = struct.pack("!H", packet) if packet else b""
    body = struct.pack("!H", len(name)) + name + number + b"\0" + payload
    return bytes([PUBLISH | bool(packet) << 1, len(body)]) + body


class Peer:
    """The broker's end of one connection."""

    def __init__(self, sock):
        sock.settimeout(WAIT_S)
        self.sock = sock
        self._stream = sock.makefile("rb")

    def packet(self):
        """The client's next packet: its type and what follows its length."""
        head, size, shift, byte = self._stream.read(1)[0], 0, 0, 128
        while byte & 128:
            byte = self._stream.read(1)[0]
            size |= (byte & 127) << shift
            shift += 7
        return head & 0xF0, self._stream.read(size)

    def says(self, *packets):
        self.sock.sendall(b"".join(packets))

    def close(self):
        self._stream.close()
        self.sock.close()


class Scripted:
    """A broker's port, and clients of it."""

    def __init__(self):
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._listener.settimeout(WAIT_S)
        self.clients = []
        self._peers = []

    def client(self, **options):
        client = Client("127.0.0.1", self._listener.getsockname()[1], "x", **options)
        self.clients.append(client)
        return client

    def accept(self):
        peer = Peer(self._listener.accept()[0])
        self._peers.append(peer)
        return peer

    def connected(self, client, connack=CONNACK):
        """Start a client and let it in."""
        client.start()
        peer = self.accept()
        assert peer.packet()[0] == CONNECT
        peer.says(connack)
        client.wait_connected(WAIT_S)
        return peer

    def connected_again(self):
        """Let in a client that comes back."""
        peer = self.accept()
        assert peer.packet()[0] == CONNECT
        return peer

    def close(self):
        self._listener.close()
        for peer in self._peers:
            peer.close()
        for client in self.clients:
            client.stop()


@pytest.fixture
def broker():
    made = Scripted()
    yield made
    made.close()


@pytest.fixture
def clock(monkeypatch):
    """Puts the clock of keepalive forward."""

    class Clock:
        ahead_s = 0.0

    right = time.monotonic
    monkeypatch.setattr(time, "monotonic", lambda: right() + Clock.ahead_s)
    monkeypatch.setattr(paho, "time_func", time.monotonic)
    return Clock


def wait_until(condition):
    for _ in range(1000):
        if condition():
            return
        time.sleep(0.01)
    raise AssertionError("it did not come")


# -- what waits for the socket --------------------------------------------------------------


def test_answer_is_not_dropped_because_an_acknowledgement_waits_to_be_written(broker, monkeypatch):
    monkeypatch.setattr(mqtt, "STUCK_AFTER_S", 0.0)
    inbox = []

    def answer():
        while inbox:
            client.send(Publish("out", inbox.pop().payload))

    client = broker.client(on_handled=answer)
    client.subscribe("in", inbox.append)
    peer = broker.connected(client)
    for number in (1, 2, 3):
        peer.says(publish("in", b"%d" % number, number))
        heard = [peer.packet()[0] for _ in range(3 if number == 1 else 2)]
        assert heard[-2:] == [PUBACK, PUBLISH]  # SUBSCRIBE comes before the first
    assert client.counts["dropped_stuck"] == 0


def test_frame_is_dropped_while_the_socket_takes_nothing_and_not_afterwards(broker, monkeypatch):
    monkeypatch.setattr(mqtt, "STUCK_AFTER_S", 0.0)
    client = broker.client()
    peer = broker.connected(client)
    sent = 0
    while not client.counts["dropped_stuck"]:
        sent += client.send(Publish("out", bytes(200_000))) is not None
        assert sent < 1000, "memory is not bounded"
        time.sleep(0.001)  # for the other thread to find the socket full
    for _ in range(sent):
        assert peer.packet()[0] == PUBLISH
    wait_until(lambda: client.send(Publish("out", b"fresh")) is not None)
    assert peer.packet()[1].endswith(b"fresh")


# -- turns ----------------------------------------------------------------------------------


def test_turn_is_no_longer_because_messages_are_on_their_way(broker):
    now, turns = [], []

    def handled():
        turns.append(len(now))
        now.clear()

    client = broker.client(on_handled=handled)
    client.subscribe("in", now.append)
    peer = broker.connected(client)
    for _ in range(15):
        client.publish("out", b"not acknowledged", qos=1)
    size = 10 * MOST_AT_ONCE
    peer.says(publish("in", b"x") * size)
    wait_until(lambda: sum(turns) == size)
    assert max(turns) <= MOST_AT_ONCE


# -- a connection's begin and end -----------------------------------------------------------


def test_connect_is_the_first_packet_whatever_other_threads_publish_meanwhile(broker):
    client = broker.client()
    opened = client._client.on_socket_open

    def publish_meanwhile(*arguments):
        opened(*arguments)
        client.publish("out", b"1")
        client.publish("out", b"2")

    client._client.on_socket_open = publish_meanwhile
    client.start()
    peer = broker.accept()
    heard = [peer.packet() for _ in range(3)]
    assert [kind for kind, _ in heard] == [CONNECT, PUBLISH, PUBLISH]
    assert [body[-1:] for _, body in heard[1:]] == [b"1", b"2"]


def test_silent_broker_is_one_lost_connection(broker, clock):
    lost = []
    client = broker.client(keepalive_s=10, on_down=lambda: lost.append(1))
    peer = broker.connected(client)
    clock.ahead_s = 11.0
    assert peer.packet()[0] == PINGREQ
    clock.ahead_s = 22.0
    assert peer.sock.recv(1) == b""
    wait_until(lambda: lost)
    assert broker.accept().packet()[0] == CONNECT  # all has been said of the one before
    assert lost == [1]
    assert client.trouble.text is None, "as of a broker that ends connections at once"


def test_broker_that_never_answers_is_given_up_whatever_the_keepalive(broker, clock):
    client = broker.client(keepalive_s=600)
    client.start()
    peer = broker.accept()
    assert peer.packet()[0] == CONNECT
    clock.ahead_s = 11.0
    assert broker.accept().packet()[0] == CONNECT
    assert "no answer in time" in client.trouble.text


def test_name_that_takes_longer_to_resolve_than_a_keepalive_is_no_silent_broker(
    broker, clock, monkeypatch
):
    create = socket.create_connection

    def slow(*arguments, **options):
        clock.ahead_s += 20.0
        return create(*arguments, **options)

    monkeypatch.setattr(socket, "create_connection", slow)
    broker.connected(broker.client(keepalive_s=10))


def test_broker_that_sends_is_alive_however_late_its_ping_is_answered(broker, clock):
    got, lost = [], []
    client = broker.client(keepalive_s=10, on_down=lambda: lost.append(1))
    client.subscribe("in", got.append)
    peer = broker.connected(client)
    peer.packet()  # SUBSCRIBE
    for turn in (1, 2, 3):
        clock.ahead_s = 11.0 * turn - 2
        peer.says(publish("in", b"x"))
        wait_until(lambda turn=turn: len(got) == turn)
        clock.ahead_s = 11.0 * turn
        assert peer.packet()[0] == PINGREQ
    assert not lost


def test_no_more_messages_are_on_their_way_than_the_broker_wants(broker):
    client = broker.client()
    client.subscribe("in", lambda _: client.publish("mark", b""))
    for number in range(50):
        client.publish("out", b"%d" % number, qos=1)  # kept for the broker
    peer = broker.connected(client, b"\x20\6\0\0\3\x21\0\7")  # Receive Maximum: 7
    heard, acknowledged = [], 0
    while len(heard) < 50:
        while len(heard) < min(acknowledged + 7, 50):
            kind, body = peer.packet()
            if kind == PUBLISH:
                heard.append((body[7:].decode(), body[5:7]))
        peer.says(publish("in", b""))
        kind, body = peer.packet()
        while kind != PUBLISH:  # SUBSCRIBE
            kind, body = peer.packet()
        assert body[2:6] == b"mark", "an eighth message came before it"
        for _, packet in heard[acknowledged : acknowledged + 3]:
            peer.says(bytes([PUBACK, 2]) + packet)
        acknowledged += 3
    assert [text for text, _ in heard] == [f"\0{number}" for number in range(50)]


def test_message_that_no_handler_can_take_does_not_come_again_and_again(broker):
    def bug(_message):
        raise RuntimeError("a bug")

    client = broker.client(session=Session(expiry_s=100, receive_maximum=3))
    client.subscribe("in", bug)
    peer = broker.connected(client)
    peer.packet()  # SUBSCRIBE
    peer.says(publish("in", b"bad", 9))
    assert peer.packet() == (PUBACK, b"\0\x09")


def test_other_threads_can_publish_while_a_loss_is_told(broker):
    """Else a thread that publishes with a lock held, which `on_down` wants, waits for ever."""
    published = []

    def publish_elsewhere():
        thread = threading.Thread(target=client.publish, args=("out", b"2"), kwargs={"qos": 1})
        thread.start()
        thread.join(1.0)
        published.append(not thread.is_alive())

    def reset():
        peers[0].sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        peers[0].close()

    client = broker.client(on_up=reset, on_down=publish_elsewhere)
    client.publish("out", b"1", qos=1)  # which is sent when the connection is there
    client.start()
    peers = [broker.accept()]
    peers[0].packet()
    peers[0].says(CONNACK)
    wait_until(lambda: published)
    assert published == [True]


def test_refusal_names_its_topic_however_fast_the_answers_are(broker, monkeypatch):
    client = broker.client()
    peer = broker.connected(client)
    publish_with_paho = client._client.publish
    answers = [b"\x40\2\0\7", b"\x40\3\0\7\x87"]  # taken; not authorized

    def answered_before_anybody_looks(*arguments):
        client._client._last_mid = 6  # as it is again after 65535 messages
        info = publish_with_paho(*arguments)
        assert peer.packet()[0] == PUBLISH
        peer.says(answers.pop(0))
        wait_until(info.is_published)
        return info

    monkeypatch.setattr(client._client, "publish", answered_before_anybody_looks)
    client.publish("allowed", b"", qos=1)
    client.publish("forbidden", b"", qos=1)
    assert client.denied() == {"forbidden": 1}
    assert client.counts["denied"] == 1


# -- packets that are too large ----------------------------------------------------------------

#: PUBLISH packets whose remaining length is the first one too many, and the most there is.
TOO_LONG = [b"\x31\xfd\xff\x7f", b"\x31\xff\xff\xff\x7f", b"\x33\x80\x80\x80\x01"]


@pytest.mark.parametrize("session", [None, Session(expiry_s=100, receive_maximum=3)])
def test_broker_is_told_of_the_largest_packet_that_is_taken(broker, session):
    broker.client(session=session).start()
    kind, body = broker.accept().packet()
    assert kind == CONNECT
    at = 2 + len("MQTT") + 1 + 1 + 2  # protocol, version, flags, keepalive
    properties = body[at + 1 : at + 1 + body[at]]
    assert b"\x27" + struct.pack("!I", MAX_PACKET_BYTES) in properties


@pytest.mark.parametrize("head", TOO_LONG, ids=["one byte over", "256 MB", "four bytes of length"])
@pytest.mark.parametrize("pieces", [1, 2])
def test_packet_over_the_limit_ends_the_connection_before_it_comes(broker, head, pieces):
    got, lost = [], []
    client = broker.client(on_down=lambda: lost.append(1))
    client.subscribe("in", got.append)
    peer = broker.connected(client)
    peer.packet()  # SUBSCRIBE
    cut = len(head) // pieces
    peer.says(publish("in", b"before") + head[:cut])
    wait_until(lambda: got)
    peer.says(head[cut:])
    assert peer.packet() == (DISCONNECT, b"\x95\0")
    assert peer.sock.recv(1) == b""
    wait_until(lambda: lost)
    assert [message.payload for message in got] == [b"before"]
    broker.connected_again()


def test_memory_is_not_taken_for_a_packet_over_the_limit(broker):
    client = broker.client()
    peer = broker.connected(client)
    tracemalloc.start()
    try:
        peer.says(TOO_LONG[1] + bytes(100_000))
        broker.accept()
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert most < 2 * MAX_PACKET_BYTES


def test_largest_packet_is_taken(broker):
    got = []
    client = broker.client()
    client.subscribe("in", got.append)
    peer = broker.connected(client)
    rest = MAX_PACKET_BYTES - 4
    payload = bytes(rest - 5)
    peer.says(b"\x30\xfc\xff\x7f\0\2in\0" + payload)
    wait_until(lambda: got)
    assert got[0].payload == payload


def test_message_that_no_node_would_take_is_refused(broker):
    client = broker.client()
    broker.connected(client)  # a broker without a limit
    with pytest.raises(DdnnError, match="2097152 bytes"):
        client.publish("out", bytes(MAX_PACKET_BYTES))


def test_sockets_are_closed_after_many_connections(broker):
    before = len(os.listdir("/proc/self/fd"))
    client = broker.client()
    client._network.retry_after(0.0, 0.0)
    client.start()
    for _ in range(100):
        peer = broker.accept()
        assert peer.packet()[0] == CONNECT
        peer.close()
    client.stop()
    assert len(os.listdir("/proc/self/fd")) == before
