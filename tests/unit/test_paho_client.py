"""What `ddnn.paho_client` replaces in paho is there to be replaced."""

import inspect

import paho.mqtt.client as paho
import pytest
from paho.mqtt import enums

from cloud_service.picture import MAX_WORKER_BYTES
from ddnn.activation import MAX_RECORD_BYTES
from ddnn.bundle import CHUNK_BYTES, WHOLE_SECTION_BYTES
from ddnn.message import MAX_PACKET_BYTES
from ddnn.paho_client import PahoClient
from ddnn.signing import MAX_MESSAGE_BYTES
from ddnn.wire import HEADER_BYTES, MAX_BODY_BYTES

REPLACED = (
    "_create_socket", "_send_connect", "_packet_read", "_packet_write", "_handle_publish",
    "_handle_pubackcomp", "_sock_recv",
)  # fmt: skip
USED = (
    "_send_puback", "_do_on_publish", "_update_inflight", "_loop_rc_handle", "_sock_send",
    "_sock_close", "_do_on_disconnect",
)  # fmt: skip


@pytest.mark.parametrize("name", REPLACED)
def test_what_is_replaced_is_called_by_this_paho_in_the_same_way(name):
    ours, theirs = getattr(PahoClient, name), getattr(paho.Client, name)
    assert ours is not theirs
    assert list(inspect.signature(ours).parameters) == list(inspect.signature(theirs).parameters)
    callers = inspect.getsource(paho.Client).count(f"self.{name}(")
    assert callers, "nobody in paho calls it any more"


def test_nothing_of_paho_is_replaced_by_chance():
    ours = {name for name in vars(PahoClient) if not name.startswith("__")}
    public = {"loop_read", "loop_write", "loop_misc"}
    assert {name for name in ours if hasattr(paho.Client, name)} == {*REPLACED, *public}
    state = vars(paho.Client(enums.CallbackAPIVersion.VERSION2, "x"))
    added = vars(PahoClient("x", lambda *_: None, manual_ack=False)).keys() - state.keys()
    assert added == {"_give", "_acknowledges", "blocked_since", "_connected_at"}


@pytest.mark.parametrize("name", USED)
def test_functions_of_paho_that_are_called_exist(name):
    assert callable(getattr(paho.Client, name))


def test_state_of_paho_that_is_looked_at_exists():
    client = PahoClient("x", lambda *_: None, manual_ack=False)
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


def test_what_nodes_send_each_other_fits_into_the_packets_that_they_take():
    topic_and_properties = 90_000
    for most in (
        HEADER_BYTES + MAX_BODY_BYTES, MAX_RECORD_BYTES, MAX_MESSAGE_BYTES, MAX_WORKER_BYTES,
        WHOLE_SECTION_BYTES, CHUNK_BYTES,
    ):  # fmt: skip
        assert most + topic_and_properties <= MAX_PACKET_BYTES
