"""What `ddnn.mqtt` replaces in paho is there to be replaced."""

import inspect

import paho.mqtt.client as paho
import pytest
from paho.mqtt import enums

from ddnn import mqtt

REPLACED = (
    "_create_socket", "_send_connect", "_packet_read", "_packet_write", "_handle_publish",
    "_handle_pubackcomp",
)  # fmt: skip
USED = ("_send_puback", "_do_on_publish", "_update_inflight", "_loop_rc_handle")


@pytest.mark.parametrize("name", REPLACED)
def test_what_is_replaced_is_called_by_this_paho_in_the_same_way(name):
    ours, theirs = getattr(mqtt._Paho, name), getattr(paho.Client, name)
    assert ours is not theirs
    assert list(inspect.signature(ours).parameters) == list(inspect.signature(theirs).parameters)
    callers = inspect.getsource(paho.Client).count(f"self.{name}(")
    assert callers, "nobody in paho calls it any more"


@pytest.mark.parametrize("name", USED)
def test_functions_of_paho_that_are_called_exist(name):
    assert callable(getattr(paho.Client, name))


def test_state_of_paho_that_is_looked_at_exists():
    client = mqtt._Paho("x", lambda *_: None, manual_ack=False)
    assert client._in_packet["command"] == 0
    assert client._in_packet["packet"] == b""
    assert client._sock is None
    assert not client._out_messages
    assert not client._out_packet
    assert client._state != enums._ConnectionState.MQTT_CS_CONNECTING
    assert client._max_inflight_messages == 20
    assert client._last_bytes_received <= paho.time_func()
    with client._out_message_mutex:
        pass
