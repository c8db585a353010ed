"""The client of every process against a real broker."""

import threading
import time

import pytest

from broker.mosquitto import LocalBroker, render_config
from ddnn.message import MAX_PACKET_BYTES, Message, Publish
from ddnn.mqtt import Client
from ddnn.wire import HEADER_BYTES, MAX_BODY_BYTES

pytestmark = pytest.mark.live
WAIT_S = 10.0


@pytest.fixture(scope="module")
def broker():
    with LocalBroker() as made:
        yield made


@pytest.fixture
def connect(broker):
    made = []

    def start(name, **options):
        client = Client(broker.host, broker.port, name, **options)
        made.append(client)
        return client

    yield start
    for client in made:
        client.stop()


def wait_until(condition):
    deadline = time.monotonic() + WAIT_S
    while not condition():
        assert time.monotonic() < deadline, "it did not come"
        time.sleep(0.01)


def test_message_is_the_same_whichever_way_it_is_read(connect):
    got = []
    hears = connect("hears")
    hears.subscribe("t/#", got.append, qos=1)
    hears.start()
    says = connect("says")
    says.start()
    for client in (hears, says):
        client.wait_connected(WAIT_S)
    says.publish("t/plain", b"abc")
    says.publish("t/once", b"abc", qos=1)
    says.publish("t/asks", b"abc", response_topic="answers", correlation=b"7")
    says.publish("t/long", bytes(70_000))
    says.publish("t/\u00e4", b"")
    says.publish("t/end", b"", qos=1)
    wait_until(lambda: any(message.topic == "t/end" for message in got))
    assert got == [
        Message("t/plain", b"abc"),
        Message("t/once", b"abc"),
        Message("t/asks", b"abc", response_topic="answers", correlation=b"7"),
        Message("t/long", bytes(70_000)),
        Message("t/\u00e4", b""),
        Message("t/end", b""),
    ]


def test_retained_message_is_marked_as_one(connect):
    says = connect("says")
    says.start()
    says.publish("kept", b"abc", retain=True, qos=1).wait_for_publish(WAIT_S)
    got = []
    hears = connect("hears")
    hears.subscribe("kept", got.append)
    hears.start()
    wait_until(lambda: got)
    assert got == [Message("kept", b"abc", retain=True)]


def test_each_subscription_that_fits_hears_a_message_until_it_is_undone(connect):
    exact, all_of_them = [], []
    client = connect("both")
    client.subscribe("a/b", exact.append)
    client.start()
    client.wait_connected(WAIT_S)
    client.publish("a/b", b"1", qos=1)
    wait_until(lambda: exact)
    client.subscribe("a/+", all_of_them.append)
    client.unsubscribe("a/b")
    client.publish("a/b", b"2", qos=1)
    wait_until(lambda: all_of_them)
    assert [message.payload for message in exact] == [b"1"]
    assert [message.payload for message in all_of_them] == [b"2"]


def test_receipts_of_all_threads_come_each_once(connect):
    acknowledged = []
    client = connect("says", on_handled=lambda: acknowledged.extend(client.take_acknowledged()))
    client.start()
    client.wait_connected(WAIT_S)

    def send(first):
        for receipt in range(first, first + 200):
            assert client.send(Publish("t", b"x", qos=1, keep=True, receipt=receipt)) is not None

    threads = [threading.Thread(target=send, args=(first,)) for first in (0, 1000)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    wait_until(lambda: len(acknowledged) >= 400)
    assert sorted(acknowledged) == [*range(200), *range(1000, 1200)]


def test_receipts_of_messages_kept_while_the_broker_was_away_come_after_it_is_back():
    acknowledged = []
    with LocalBroker() as broker:
        client = Client(
            broker.host, broker.port, "says",
            on_handled=lambda: acknowledged.extend(client.take_acknowledged()),
        )  # fmt: skip
        client.start()
        try:
            client.wait_connected(WAIT_S)
            broker.kill()
            wait_until(lambda: not client.connected.is_set())
            for receipt in range(3):
                client.send(Publish("t", b"x", qos=1, keep=True, receipt=receipt))
            assert client.send(Publish("t", b"x", qos=0)) is None
            broker.start()
            wait_until(lambda: len(acknowledged) == 3)
            assert acknowledged == [0, 1, 2]
        finally:
            client.stop()


def test_handler_that_raises_costs_its_message_only(connect):
    got = []

    def handle(message):
        if message.payload == b"bad":
            raise RuntimeError("a bug")
        got.append(message.payload)

    client = connect("hears")
    client.subscribe("t", handle, qos=0)
    client.start()
    client.wait_connected(WAIT_S)
    for payload in (b"1", b"bad", b"2"):
        client.publish("t", payload)
    wait_until(lambda: len(got) == 2)
    assert got == [b"1", b"2"]
    assert client.counts["handler_errors"] == 1


@pytest.fixture(scope="module")
def roomy():
    """A broker that takes more than any client of ours."""

    def config(port):
        own = "max_packet_size 2097152"
        assert own in render_config(port)
        return render_config(port).replace(own, "max_packet_size 8388608")

    with LocalBroker(config=config) as made:
        yield made


def test_packet_that_is_too_large_is_kept_back_by_the_broker_and_harms_nothing(roomy, monkeypatch):
    got, downs = [], []
    hears = Client(roomy.host, roomy.port, "hears", on_down=lambda: downs.append(1))
    hears.subscribe("in", got.append)
    says = Client(roomy.host, roomy.port, "says")
    try:
        for client in (hears, says):
            client.start()
            client.wait_connected(WAIT_S)
        largest = bytes(MAX_PACKET_BYTES - len("in") - 64)
        assert len(largest) > MAX_BODY_BYTES + HEADER_BYTES + 90_000
        says.publish("in", largest, qos=1)
        monkeypatch.setattr(says, "check_size", lambda *_: None)  # a publisher of another kind
        says.publish("in", bytes(3_000_000), qos=1).wait_for_publish(WAIT_S)
        says.publish("in", b"end", qos=1)
        wait_until(lambda: got and got[-1].payload == b"end")
        assert [len(message.payload) for message in got] == [len(largest), 3]
        assert not downs
    finally:
        hears.stop()
        says.stop()
