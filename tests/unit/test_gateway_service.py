"""The shell of a gateway: what one wake-up of the network brings is one turn."""

import threading
import time

import pytest

from ddnn.journal import Ended, encode, read
from ddnn.message import Message, Publish
from edge_gateway.effects import Fault, Keep
from edge_gateway.service import GatewayService, GatewaySettings


def rules(message, now, wall):
    """Stands in for `Gateway.on_message`: each message is kept and published on."""
    if message.payload == b"bad":
        raise RuntimeError("a bug")
    slot = int(message.payload)
    return [Publish("out", message.payload), Keep(encode(Ended(slot, ("decided",))))]


@pytest.fixture
def service(tmp_path, monkeypatch):
    made = GatewayService(
        GatewaySettings(site="s", period_s=1.0, journal=str(tmp_path)), threading.Event()
    )
    made.done = []
    monkeypatch.setattr(made._gateway, "on_message", rules)
    monkeypatch.setattr(made._client, "send", lambda m: made.done.append(m.payload) or m)
    append = made._journal.append
    monkeypatch.setattr(
        made._journal, "append", lambda data: (made.done.append(data), append(data))[1]
    )
    return made


def come(service, *payloads):
    for payload in payloads:
        service._on_message(Message("s/s/0", payload))
    service._handle()


def test_messages_of_one_wake_up_cost_one_write_which_comes_first(service):
    come(service, b"1", b"2", b"3")
    written, *sent = service.done
    assert [record.slot for record in read(written).records] == [1, 2, 3]
    assert sent == [b"1", b"2", b"3"]


def test_message_that_cannot_be_handled_takes_no_other_with_it(service):
    come(service, b"1", b"bad", b"2")
    written, *sent = service.done
    assert [record.slot for record in read(written).records] == [1, 2]
    assert sent == [b"1", b"2"]
    assert service._client.counts["handler_errors"] == 1


def test_status_of_a_node_that_is_shut_out_is_looked_at_by_nobody(service, monkeypatch):
    overheard = []
    monkeypatch.setattr(service, "_overheard", overheard.append)
    monkeypatch.setattr(service._intake, "admits", lambda message, now: message.payload != b"2")
    for payload in (b"1", b"2", b"3"):
        service._on_message(Message("ddnn/s/status/device-0", payload))
    service._handle()
    assert [message.payload for message in overheard] == [b"1", b"3"]


def test_nothing_waits_in_the_inbox_for_the_next_wake_up(service):
    come(service, b"1")
    service.done.clear()
    come(service)
    assert service.done == []


@pytest.mark.parametrize(("in_s", "woken"), [(5.0, True), (500.0, False)])
def test_deadline_before_the_next_look_wakes_the_keeper_of_time(service, monkeypatch, in_s, woken):
    now = time.monotonic()
    service._sleeps_until = now + 100.0
    monkeypatch.setattr(service._gateway, "next_deadline", lambda: now + in_s)
    come(service, b"1")
    assert service._alarm.is_set() == woken


def test_error_that_the_rules_tell_of_is_logged_once(service, monkeypatch, caplog):
    def failing(message, now, wall):
        return [
            Fault("handling a message on s/s/0: slot 7", RuntimeError("a bug")),
            Publish("a", b""),
        ]

    monkeypatch.setattr(service._gateway, "on_message", failing)
    come(service, b"1")
    (record,) = caplog.records
    assert "s/s/0: slot 7" in record.message
    assert record.exc_info
    assert service._client.counts["handler_errors"] == 1
    assert service.done == [b""]


def test_message_that_the_client_cannot_send_takes_no_other_with_it(service, monkeypatch):
    given_back, sent = [], []

    def send(message):
        if message.payload == b"2":
            raise ValueError("too long for an MQTT property")
        sent.append(message.payload)
        return message

    monkeypatch.setattr(service._client, "send", send)
    monkeypatch.setattr(service._gateway, "unsent", given_back.append)
    with service._turn:
        service._carry_out([Publish("d", b"%d" % n, receipt=n) for n in (1, 2, 3)])
    assert (sent, given_back) == ([b"1", b"3"], [2])
