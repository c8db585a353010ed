"""MQTT 5 for every process.

Rules that cost others days: Nagle off on both sides; subscribe again on every connect; an
exception in a handler is counted and logged, since it would end the connection; a message over
the broker's packet limit is refused here, since sending it makes paho reconnect for ever; retained
state (availability) is published again on every connect.

paho speaks the protocol (`ddnn.paho_client`); when its socket is read and written is
`ddnn.network_thread`'s business, and which handler gets a message is decided here, once per topic.
"""

from __future__ import annotations

import contextlib
import logging
import random
import socket
import ssl
import struct
import threading
import time
from collections import Counter, deque
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, NamedTuple, cast

from ddnn import metrics, publish_packet
from ddnn.denials import Denials
from ddnn.errors import ConfigError, DdnnError
from ddnn.message import MAX_PACKET_BYTES, Message, Publish
from ddnn.metrics import Sample
from ddnn.network_thread import BufferedSocket, NetworkThread
from ddnn.paho_client import SILENT, PahoClient, Receipt, Session, error_logger, topic_matches
from ddnn.tls import Credentials, TlsFiles, ask_why
from ddnn.trouble import Trouble

__all__ = ["Client", "Message", "Publish", "Receipt", "Session", "Traffic", "Will"]

log = logging.getLogger(__name__)

#: IPv4 and TCP headers with the timestamp option, as Linux sends them.
SEGMENT_HEADER_BYTES = 20 + 20 + 12
#: Messages kept in memory while the broker is away; what comes after that is refused.
MAX_QUEUED_MESSAGES = 10_000
#: QoS 1 messages on their way to the broker, at most.
MAX_IN_FLIGHT = 20
#: A connection attempt that gets no answer is given up, so that the next one comes soon.
CONNECT_TIMEOUT_S = 3.0
#: With packets waiting for the socket this long without a break, frame traffic is dropped here:
#: it would be stale on arrival and hold up what is fresh.
STUCK_AFTER_S = 1.0
#: So many connections in a row that were lost this soon look like two clients with one id. (An
#: MQTT 5 broker should say so, "session taken over"; mosquitto 2.0.11 does not.)
SHORT_CONNECTIONS = 3
SHORT_CONNECTION_S = 10.0
#: Topics whose handlers are remembered; which topics there are is the network's choice.
MAX_ROUTES = 4096
#: Counters of messages that did not leave, and the reasons that /metrics gives.
_DROPPED = {
    "dropped_offline": "offline",
    "dropped_stuck": "stuck",
    "refused_size": "size",
    "unsent": "unsent",
    "denied": "denied",
}
#: Where brokers listen, without and with TLS.
PORT, TLS_PORT = 1883, 8883


class Will(NamedTuple):
    """A retained message that the broker publishes when this client vanishes."""

    topic: str
    payload: bytes


class Traffic(NamedTuple):
    """What the kernel counted on this client's connection, both directions.

    Attributes:
        stream_bytes: MQTT bytes inside TCP.
        wire_bytes: with IP and TCP headers of every segment, acknowledgements included.
    """

    stream_bytes: int
    wire_bytes: int


Handler = Callable[[Message], None]


class Client:
    """A connection that stays: it connects in the background and again whenever it is lost.

    Args:
        host, port: the broker; port 0 is 8883 with TLS and 1883 without.
        client_id: unique on the broker.
        keepalive_s: seconds between pings.
        will: what the broker says when this client vanishes.
        on_up: called on the network thread after each connect, subscriptions sent.
        on_down: called on the network thread after a connection was lost.
        on_handled: called on the network thread when all messages and acknowledgements that had
            come are with their handlers, before anything that these published is written, and
            before the broker hears that it may forget the messages.
        tls: files of the CA and of this node; None: no TLS. Renewed files are used from the next
            connection on.
        session: None: nothing is kept for this client while it is away.

    Raises:
        ConfigError: a TLS file is missing or does not fit the others.
    """

    def __init__(
        self,
        host: str,
        port: int,
        client_id: str,
        *,
        keepalive_s: int = 10,
        will: Will | None = None,
        on_up: Callable[[], None] | None = None,
        on_down: Callable[[], None] | None = None,
        on_handled: Callable[[], None] | None = None,
        tls: TlsFiles | None = None,
        session: Session | None = None,
    ) -> None:
        self.counts: Counter[str] = Counter()
        self.connected = threading.Event()
        self.max_packet: int | None = None
        self._address = (host, port or (TLS_PORT if tls else PORT), keepalive_s)
        self._credentials = Credentials(tls) if tls else None
        self.trouble = Trouble(f"{host}:{self._address[1]}", self._ask if tls else None)
        self._denials = Denials(self.counts)
        self._receipts: deque[tuple[int, Receipt]] = deque()
        self._on_up = on_up
        self._on_down = on_down
        self._on_handled = on_handled
        self._connected_at = 0.0
        self._short_in_a_row = 0
        self._lock = threading.Lock()
        self._handlers: dict[str, tuple[Handler, int, bool]] = {}
        self._routes: dict[str, tuple[Handler, ...]] = {}
        self._session = session
        self._is_open = False
        # A packet id belongs to its connection: acknowledged on the next one, it would be another
        # message's.
        self._connection = 0
        self._connection_lock = threading.Lock()
        self._client = PahoClient(client_id, self._take, manual_ack=session is not None)
        self._network = NetworkThread(
            f"mqtt-{client_id}", self._client, self.trouble.failed, self._broken, self._all_handled
        )
        self._client.connect_timeout = CONNECT_TIMEOUT_S
        self._client.max_queued_messages_set(MAX_QUEUED_MESSAGES)
        if will:
            self._client.will_set(will.topic, will.payload, qos=1, retain=True)
        self._client.on_connect = self._connected
        self._client.on_disconnect = self._disconnected
        self._client.on_socket_open = self._socket_opened
        # With this set paho leaves writing to the network thread.
        self._client.on_socket_register_write = lambda *_: self._network.wake()
        self._client.on_publish = self._acknowledged
        if self._credentials:
            self._client.tls_set_context(self._credentials.context)
            self._client.on_pre_connect = self._before_connecting
        self._client.enable_logger(error_logger(self._read_failed))

    # -- life ------------------------------------------------------------------------------

    def start(self) -> None:
        """Connect in the background."""
        self._client.begin(*self._address, self._session)
        self._network.start()

    def wait_connected(self, timeout_s: float) -> None:
        """Wait for a connection.

        Raises:
            DdnnError: there was none in time, or the broker and this client do not suit each
                other (a certificate, a port), which no waiting mends.
        """
        self.trouble.settled.wait(timeout_s)
        if not self.connected.is_set():
            raise DdnnError(self.trouble.describe())

    def stop(self) -> None:
        """Disconnect without the will and end the network thread."""
        self._network.stop()

    def certificate_note(self) -> dict[str, str]:
        """What the status should say of this node's certificate: empty while all is well."""
        certificate = self._credentials.certificate if self._credentials else None
        note = certificate.note(datetime.now(UTC)) if certificate else None
        return {"certificate": note} if note else {}

    def metrics(self) -> list[Sample]:
        """How the connection does; for `/metrics`."""
        counts = self.counts.copy()
        found = [
            Sample("ddnn_broker_connected", float(self.connected.is_set())),
            Sample("ddnn_broker_connects_total", counts["connects"]),
            Sample("ddnn_broker_taken_over_total", counts["taken_over"]),
            Sample("ddnn_mqtt_received_total", counts["received"]),
            Sample("ddnn_mqtt_published_total", counts["published"]),
            Sample("ddnn_mqtt_handler_errors_total", counts["handler_errors"]),
        ]
        found += metrics.counters("ddnn_mqtt_dropped_total", counts, _DROPPED)
        if traffic := self.traffic():
            found.append(Sample("ddnn_mqtt_wire_bytes_total", traffic.wire_bytes))
        if self._credentials and (certificate := self._credentials.certificate):
            expires_s = certificate.not_after.timestamp()
            found.append(Sample("ddnn_certificate_expiry_timestamp_seconds", expires_s))
        return found

    def denied(self) -> Counter[str]:
        """How many messages the broker refused to take from this identity, by topic."""
        return self._denials.by_topic()

    # -- messages --------------------------------------------------------------------------

    def subscribe(
        self, topic_filter: str, handler: Handler, *, qos: int = 1, retained: bool = True
    ) -> None:
        """Have `handler` called for each message, now and after every reconnect.

        Args:
            retained: whether the broker sends what it retains (on every connect).
        """
        with self._lock:
            self._handlers[topic_filter] = (handler, qos, retained)
            self._routes = {}
        if self._client.is_connected():
            self._client.subscribe_to([(topic_filter, qos, retained)])

    def unsubscribe(self, *topic_filters: str) -> None:
        """Undo `subscribe`, of all these filters in one packet."""
        with self._lock:
            known = [each for each in topic_filters if self._handlers.pop(each, None)]
            self._routes = {}
        if known and self._client.is_connected():
            self._client.unsubscribe(known)

    def acknowledge(self, message: Message) -> None:
        """Tell the broker that a message is done with; what came before must be already.

        Without effect on a message of an earlier connection: the broker sends it again.
        """
        if message.delivery is None:
            return
        connection, packet = message.delivery
        with self._connection_lock:
            if connection == self._connection:
                self._client.ack(packet, 1)

    def drop_connection(self) -> None:
        """Connect anew: what was not acknowledged comes again."""
        sock = cast(BufferedSocket | None, self._client.socket())
        if sock is not None:
            with contextlib.suppress(OSError):  # it is gone already
                sock.end()

    def publish(
        self,
        topic: str,
        payload: bytes,
        *,
        qos: int = 0,
        retain: bool = False,
        response_topic: str | None = None,
        correlation: bytes | None = None,
        expiry_s: float | None = None,
        receipt: int | None = None,
    ) -> Receipt:
        """Send a message; at QoS 1 it is kept while the broker is away, at QoS 0 it is not.

        Args:
            receipt: what `take_acknowledged` calls it when the broker has answered (QoS 1).

        Raises:
            DdnnError: the message is over the broker's packet limit, or that of all clients.
        """
        self.check_size(topic, payload)
        properties = publish_packet.pack_properties(response_topic, correlation, expiry_s)
        info = self._client.send(topic, payload, qos, retain, properties)
        if not info.rc:
            self.counts["published"] += 1
            if receipt is not None:
                self._receipts.append((receipt, info))
        else:
            self.counts["unsent"] += 1
        return info

    def take_acknowledged(self) -> list[int]:
        """Receipts of what the broker has answered since the last call, in its order.

        For one thread at a time. A broker answers in the order of what it gets, so that only the
        first ones must be looked at. paho's call back comes with its locks held, and before it has
        noted the answer itself.
        """
        found = []
        while self._receipts and self._receipts[0][1].is_published():
            found.append(self._receipts.popleft()[0])
        return found

    def check_size(self, topic: str, payload: bytes) -> None:
        """Refuse what the broker would not take, or would pass on to none of our clients.

        Raises:
            DdnnError: the message is over the broker's packet limit, or over theirs.
        """
        needed = len(payload) + len(topic) + 64
        if needed > MAX_PACKET_BYTES:
            raise DdnnError(
                f"message of {len(payload)} bytes on {topic} makes a packet of more than "
                f"{MAX_PACKET_BYTES} bytes, the most that a node takes"
            )
        if self.max_packet is not None and needed > self.max_packet:
            raise DdnnError(
                f"message of {len(payload)} bytes on {topic} is over the broker's packet limit "
                f"of {self.max_packet}; its max_packet_size must be {needed} or more (in "
                "mosquitto.conf; those that ddnn makes have 1048576)"
            )

    def send(self, message: Publish) -> Receipt | None:
        """Send a message, or drop and count it where `message.keep` says that it cannot wait.

        Returns:
            What tells of its acknowledgement; None when it was dropped or refused.
        """
        if not message.keep:
            if not self.connected.is_set():
                self.counts["dropped_offline"] += 1
                return None
            if self._is_stuck():
                self.counts["dropped_stuck"] += 1
                return None
        try:
            info = self.publish(
                message.topic,
                message.payload,
                qos=message.qos,
                retain=message.retain,
                response_topic=message.response_topic,
                correlation=message.correlation,
                expiry_s=message.expiry_s,
                receipt=message.receipt,
            )
        except DdnnError as error:  # over the packet limit
            self.counts["refused_size"] += 1
            log.error("%s", error)
            return None
        return None if info.rc else info

    def _is_stuck(self) -> bool:
        """Whether the socket has not taken all there is for a while (a stalled network)."""
        since = self._client.blocked_since
        return since is not None and time.monotonic() - since >= STUCK_AFTER_S

    def traffic(self) -> Traffic | None:
        """Bytes of the present connection so far, or None where the kernel does not tell."""
        sock: Any = self._client.socket()
        if sock is None or not hasattr(socket, "TCP_INFO"):
            return None
        try:
            info = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 144)
        except (OSError, AttributeError):
            return None
        if len(info) < 144:
            return None
        acked, received, segments_out, segments_in = struct.unpack_from("=QQII", info, 120)
        stream = acked + received
        return Traffic(stream, stream + SEGMENT_HEADER_BYTES * (segments_out + segments_in))

    # -- paho's callbacks, on the network thread --------------------------------------------

    def _acknowledged(
        self, _client: Any, _data: Any, mid: int, reason: Any, _properties: Any
    ) -> None:
        if reason.is_failure:
            self._denials.refused(self._client.topic_of(mid), str(reason))

    def _connected(
        self, _client: Any, _data: Any, _flags: Any, reason: Any, properties: Any
    ) -> None:
        if reason.is_failure:
            self.trouble.refused(str(reason))
            return
        self._network.retry_after(1.0, 4.0)
        self.max_packet = getattr(properties, "MaximumPacketSize", None)
        self.counts["connects"] += 1
        self._connected_at = time.monotonic()
        self._client.send_again(min(MAX_IN_FLIGHT, getattr(properties, "ReceiveMaximum", 65535)))
        with self._lock:
            known = list(self._handlers.items())
        self._client.subscribe_to((each, qos, retained) for each, (_, qos, retained) in known)
        self.connected.set()
        self.trouble.over()
        if self._on_up:
            self._guarded(self._on_up, "after connecting")

    def _socket_opened(self, _client: Any, _data: Any, sock: Any) -> None:
        self._is_open = True
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if hasattr(socket, "TCP_USER_TIMEOUT"):
            # A half-open connection ends when data has been without acknowledgement this long,
            # and not when the kernel's ever longer retransmissions give up a quarter of an hour
            # later.
            milliseconds = 1000 * self._address[2]
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, milliseconds)

    def _before_connecting(self, _client: Any, _data: Any) -> None:
        """Take renewed certificate files."""
        assert self._credentials
        try:
            if self._credentials.refresh():
                log.info("certificate files were renewed")
        except ConfigError as error:
            log.warning("going on with the certificate files read before: %s", error)

    def _read_failed(self, error: BaseException) -> None:
        """TLS 1.3: what the broker thinks of our certificate comes with the first bytes read."""
        if isinstance(error, ssl.SSLError):
            self.trouble.failed(error)

    def _ask(self) -> BaseException | None:
        assert self._credentials
        host, port, _ = self._address
        return ask_why(host, port, self._credentials.context)

    def _disconnected(
        self, _client: Any, _data: Any, _flags: Any, reason: Any, _properties: Any
    ) -> None:
        self._lost(str(reason), is_failure=reason.is_failure)

    def _broken(self, error: Exception) -> None:
        """What paho does not catch, and no handler of ours: its parsers, for example."""
        self.counts["handler_errors"] += 1
        log.error("the connection to the broker is given up", exc_info=error)
        self._lost(str(error), is_failure=True)

    def _lost(self, reason: str, *, is_failure: bool) -> None:
        if not self._is_open:
            return  # paho says it twice where a broker has been silent for too long
        self._is_open = False
        with self._connection_lock:
            self._connection += 1
        was_up = self.connected.is_set()
        self.connected.clear()
        if not was_up:  # refused, or gone before it answered: no connection was lost
            if reason == SILENT:
                self.trouble.failed(TimeoutError())
            elif is_failure:
                self.trouble.ended()
            return
        self.trouble.lost()
        if self._on_down:
            self._guarded(self._on_down, "after the connection was lost")
        if not is_failure:
            return
        # Without jitter a thousand clients would come back in the same instant.
        self._network.retry_after(random.uniform(1.0, 3.0), 4.0)
        lived_s = time.monotonic() - self._connected_at
        self._short_in_a_row = self._short_in_a_row + 1 if lived_s < SHORT_CONNECTION_S else 0
        said = "taken over" in reason.lower()
        if said or self._short_in_a_row >= SHORT_CONNECTIONS:
            self.counts["taken_over"] += 1
            # Two with one name throw each other out; not at every turn, and not in step.
            self._network.retry_after(random.uniform(3.0, 6.0), 6.0)
            log.error(
                "connection lost (%s) soon after connecting, again: another client uses this "
                "client id, or the network is bad",
                reason,
            )
        else:
            log.warning("connection to the broker lost (%s); reconnecting", reason)

    def _take(self, message: Message, packet: int) -> None:
        """A message, and its packet id (0 at QoS 0)."""
        if self._session is None or not packet:
            self._handle(message)
        elif not self._handle(message._replace(delivery=(self._connection, packet))):
            self._client.ack(packet, 1)

    def _handle(self, message: Message) -> bool:
        """Give a message to those who want it; False: nobody has taken it.

        Nobody wants it with subscriptions that the session had before, and after `unsubscribe`.
        Who raises has not taken it: kept for the next time, it would only be raised for again.
        """
        handlers = self._routes.get(message.topic)
        if handlers is None:
            handlers = self._route(message.topic)
        if not handlers:
            self.counts["unexpected"] += 1
            return False
        is_taken = False
        for handler in handlers:
            self.counts["received"] += 1
            try:
                handler(message)
                is_taken = True
            except Exception:
                self.counts["handler_errors"] += 1
                log.exception("handling a message on %s", message.topic)
        return is_taken

    def _route(self, topic: str) -> tuple[Handler, ...]:
        """Who wants messages on this topic; remembered until a subscription changes."""
        with self._lock:
            handlers = tuple(
                handler
                for topic_filter, (handler, _, _) in self._handlers.items()
                if topic_matches(topic_filter, topic)
            )
            if len(self._routes) >= MAX_ROUTES:
                self._routes = {}
            self._routes[topic] = handlers
        return handlers

    def _all_handled(self) -> None:
        if self._on_handled:
            self._guarded(self._on_handled, "handling what has come")

    def _guarded(self, call: Callable[[], None], what: str) -> None:
        try:
            call()
        except Exception:
            self.counts["handler_errors"] += 1
            log.exception(what)
