"""paho as it is used here: the only file that imports it.

paho speaks the protocol. What it would do otherwise than `ddnn.mqtt` needs is replaced in
`PahoClient`, and nothing else of it is known outside of this file.
"""

from __future__ import annotations

import contextlib
import logging
import socket
import time
from collections.abc import Callable, Iterable
from typing import Any, Literal, NamedTuple, cast

import paho.mqtt.client as paho
from paho.mqtt.enums import (
    CallbackAPIVersion,
    MessageState,
    MessageType,
    MQTTErrorCode,
    _ConnectionState,
)
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode
from paho.mqtt.subscribeoptions import SubscribeOptions

from ddnn import publish_packet
from ddnn.message import MAX_PACKET_BYTES, Message
from ddnn.network_thread import BufferedSocket

#: A connection is given up where the broker does not say in MQTT what it thinks of it.
ANSWER_TIMEOUT_S = 10.0
#: Of a message on its way: `is_published()` once the broker has acknowledged it.
Receipt = paho.MQTTMessageInfo
#: Why paho has given up a broker that says nothing.
SILENT = str(ReasonCode(PacketTypes.DISCONNECT, "Keep alive timeout"))
#: Why this side ends a connection on which too much comes. What counts is all of the packet: one
#: of the limit has three bytes of length.
_TOO_LONG = ReasonCode(PacketTypes.DISCONNECT, "Packet too large")
_MAX_REMAINING_LENGTH = MAX_PACKET_BYTES - 4
#: What an acknowledgement without a reason says.
_TAKEN = ReasonCode(PacketTypes.PUBACK)
_NOTHING_SAID = Properties(PacketTypes.PUBACK)  # type: ignore[no-untyped-call]


class Session(NamedTuple):
    """What makes a client's subscriptions, and messages for it, outlive its connections.

    Its user acknowledges each QoS 1 message himself (`Client.acknowledge`), in the order in which
    they came; what was not acknowledged comes again after the next connect.

    Attributes:
        expiry_s: for how long the broker keeps messages for an absent client, at most.
        receive_maximum: messages that are on their way and not acknowledged, at most.
    """

    expiry_s: int
    receive_maximum: int


class _TooLong(Exception):
    """A packet is about to be read that is longer than this side takes."""


class PahoClient(paho.Client):
    """paho that reads ahead, and with short ways for what comes all the time.

    Messages that `ddnn.publish_packet` can read, and acknowledgements without a reason. What else
    comes goes paho's own way. That makes a `Properties` object for each packet, whose tables cost
    more than everything that a gateway does with a summary. Replaced are functions of paho's own:
    pyproject.toml allows the version only that has them (tests/unit/test_paho_client.py).

    Args:
        take: called with each message, and its packet id (0 at QoS 0).

    Attributes:
        blocked_since: when the socket first did not take all that there was to write (monotonic
            seconds); None: it has taken all since.
    """

    def __init__(
        self, client_id: str, take: Callable[[Message, int], None], *, manual_ack: bool
    ) -> None:
        super().__init__(
            CallbackAPIVersion.VERSION2, client_id, protocol=paho.MQTTv5, manual_ack=manual_ack
        )
        self.on_message = self._received
        self._give = take
        self._acknowledges = not manual_ack
        self.blocked_since: float | None = None
        self._connected_at = 0.0

    # -- what is asked of it ----------------------------------------------------------------

    def begin(self, host: str, port: int, keepalive_s: int, session: Session | None) -> None:
        """Say where and how `reconnect` connects."""
        properties = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]
        properties.MaximumPacketSize = MAX_PACKET_BYTES
        if session is None:
            self.connect_async(host, port, keepalive_s, properties=properties)
        else:
            properties.SessionExpiryInterval = session.expiry_s
            properties.ReceiveMaximum = session.receive_maximum
            self.connect_async(host, port, keepalive_s, clean_start=False, properties=properties)

    def subscribe_to(self, wanted: Iterable[tuple[str, int, bool]]) -> None:
        """Filters with QoS, and whether what is retained shall come: in one packet."""
        send, do_not = (
            SubscribeOptions.RETAIN_SEND_ON_SUBSCRIBE,
            SubscribeOptions.RETAIN_DO_NOT_SEND,
        )
        filters = [
            (topic_filter, SubscribeOptions(qos, retainHandling=send if retained else do_not))
            for topic_filter, qos, retained in wanted
        ]
        if filters:
            self.subscribe(filters)

    def send(
        self,
        topic: str,
        payload: bytes,
        qos: int,
        retain: bool,
        properties: publish_packet.PackedProperties | None,
    ) -> Receipt:
        """Publish; its `rc` is 0 where the message leaves, or is kept for the next connection."""
        info = self.publish(topic, payload, qos, retain, cast(Any, properties))
        if qos and info.rc == MQTTErrorCode.MQTT_ERR_NO_CONN:
            # paho keeps it, and would raise on each question whether it has been published.
            info.rc = MQTTErrorCode.MQTT_ERR_SUCCESS
        return info

    def topic_of(self, packet: int) -> str:
        """Where the message goes that is being acknowledged; for `on_publish`, at QoS 1."""
        return self._out_messages[packet].topic

    def send_again(self, most: int) -> None:
        """Send what the connection before has left over, `most` messages at a time.

        paho sends all of it at once, and brokers need not take more than they have said.
        """
        with self._out_message_mutex:
            self._max_inflight_messages = most
            for message in self._out_messages.values():
                if message.state == MessageState.MQTT_MS_PUBLISH:
                    message.state = MessageState.MQTT_MS_QUEUED
            self._update_inflight()

    def write(self) -> MQTTErrorCode:
        """Write what waits, as far as the socket takes it."""
        return super().loop_write()

    # -- what it does otherwise than paho ---------------------------------------------------

    def _create_socket(self) -> Any:
        sock = BufferedSocket(cast(socket.socket, super()._create_socket()))
        self.blocked_since = None
        # From now on the broker may be silent, and not while its name was looked up.
        self._connected_at = self._last_bytes_received = self._last_msg_out = paho.time_func()
        return sock

    def _send_connect(self, keepalive: int) -> MQTTErrorCode:
        """Before what other threads have published since the socket was made."""
        result = super()._send_connect(keepalive)
        while self._out_packet[0]["command"] != MessageType.CONNECT:
            self._out_packet.rotate(-1)
        return result

    def loop_read(self, max_packets: int = 1) -> MQTTErrorCode:
        """Read one packet; paho reads as many as it has messages on their way."""
        if self._sock is None:
            return MQTTErrorCode.MQTT_ERR_NO_CONN
        try:
            result = self._packet_read()
        except _TooLong:
            return self._end_saying(_TOO_LONG)
        if result <= 0:  # MQTT_ERR_AGAIN: it is not all there
            return MQTTErrorCode.MQTT_ERR_SUCCESS
        return self._loop_rc_handle(result)

    def _sock_recv(self, bufsize: int) -> bytes:
        """Nothing of a packet that is too long, and no room for it."""
        if bufsize > _MAX_REMAINING_LENGTH:
            raise _TooLong
        return super()._sock_recv(bufsize)

    def _end_saying(self, reason: ReasonCode) -> MQTTErrorCode:
        """End the connection, and tell both sides why."""
        if not (self._out_packet and self._out_packet[0]["pos"]):  # not in the middle of another
            with contextlib.suppress(OSError):  # full, or gone: then it must do without
                self._sock_send(bytes([MessageType.DISCONNECT, 2, reason.value, 0]))
        self._sock_close()
        lost = MQTTErrorCode.MQTT_ERR_CONN_LOST
        self._do_on_disconnect(packet_from_broker=False, v1_rc=lost, reason=reason)
        return lost

    def loop_misc(self) -> MQTTErrorCode:
        """Look after keepalive; paho waits as long for a broker's first answer."""
        waited_s = paho.time_func() - self._connected_at
        if self._state == _ConnectionState.MQTT_CS_CONNECTING and waited_s >= ANSWER_TIMEOUT_S:
            return self._loop_rc_handle(MQTTErrorCode.MQTT_ERR_KEEPALIVE)
        return super().loop_misc()

    def loop_write(self) -> MQTTErrorCode:
        """Nothing: paho would write in the middle of reading, and tell of a loss with locks held.

        A thread that publishes wants the same locks, and may hold one that `on_disconnect` wants.
        """
        return MQTTErrorCode.MQTT_ERR_SUCCESS

    def _packet_write(self) -> MQTTErrorCode:
        result = super()._packet_write()
        if result != MQTTErrorCode.MQTT_ERR_AGAIN:
            self.blocked_since = None
        elif self.blocked_since is None:
            self.blocked_since = time.monotonic()
        return result

    def _packet_read(self) -> MQTTErrorCode:
        if not self._in_packet["command"]:  # nor is it in the middle of a packet
            sock = cast(BufferedSocket, self._sock)
            if found := publish_packet.read(*sock.ahead()):
                sock.skip(found.size_bytes)
                return self._take(found.message, found.packet)
        return super()._packet_read()

    def _handle_publish(self) -> MQTTErrorCode:
        packet = self._in_packet["packet"]  # longer than what is read ahead
        found = publish_packet.decode(self._in_packet["command"], packet, 0, len(packet))
        return self._take(*found) if found else super()._handle_publish()

    def _take(self, message: Message, packet: int) -> MQTTErrorCode:
        self._last_bytes_received = paho.time_func()
        self._give(message, packet)
        if packet and self._acknowledges:
            return self._send_puback(packet)
        return MQTTErrorCode.MQTT_ERR_SUCCESS

    def _received(self, _client: Any, _data: Any, message: paho.MQTTMessage) -> None:
        """A message that went paho's way."""
        try:
            topic = message.topic
        except UnicodeDecodeError:
            topic = ""  # which nobody wants
        properties = message.properties
        self._give(
            Message(
                topic,
                bytes(message.payload),
                message.retain,
                getattr(properties, "ResponseTopic", None),
                getattr(properties, "CorrelationData", None),
                getattr(properties, "MessageExpiryInterval", None),
            ),
            message.mid if message.qos else 0,
        )

    def _handle_pubackcomp(self, cmd: Literal["PUBACK", "PUBCOMP"]) -> MQTTErrorCode:
        packet = self._in_packet["packet"]
        if cmd != "PUBACK" or len(packet) != 2:  # with a reason
            return super()._handle_pubackcomp(cmd)
        number = int.from_bytes(packet, "big")
        with self._out_message_mutex:
            if number in self._out_messages:
                return self._do_on_publish(number, _TAKEN, _NOTHING_SAID)
        return MQTTErrorCode.MQTT_ERR_SUCCESS


def topic_matches(topic_filter: str, topic: str) -> bool:
    """Whether messages on `topic` come with this subscription, which may be a shared one."""
    if topic_filter.startswith("$share/"):
        topic_filter = topic_filter.split("/", 2)[2]
    return paho.topic_matches_sub(topic_filter, topic)


def error_logger(report: Callable[[BaseException], None]) -> logging.Logger:
    """A logger for paho that passes on the errors it swallows, and writes nothing."""

    class Reporter(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            arguments = record.args if isinstance(record.args, tuple) else ()
            for argument in arguments:
                if isinstance(argument, BaseException):
                    report(argument)

    # Not one of the hierarchy: every client has its own.
    logger = logging.Logger("paho", logging.ERROR)
    logger.addHandler(Reporter())
    return logger
