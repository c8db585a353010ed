"""What a client reads, and how it ends, is what paho alone makes of the same bytes."""

import struct
from itertools import pairwise

import paho.mqtt.client as paho
from hypothesis import given, settings
from hypothesis import strategies as st
from paho.mqtt.enums import CallbackAPIVersion

from ddnn.network_thread import BufferedSocket
from ddnn.paho_client import PahoClient


class Chunks:
    """A socket that has one chunk after the other, and then ends."""

    def __init__(self, chunks):
        self._chunks = [chunk for chunk in chunks if chunk]
        self._pause = False

    def recv(self, size):
        if self._pause:
            self._pause = False
            raise BlockingIOError
        if not self._chunks:
            return b""
        found, rest = self._chunks[0][:size], self._chunks[0][size:]
        self._chunks[:1] = [rest] if rest else []
        self._pause = not rest
        return found

    def send(self, data):
        return len(data)

    def close(self):
        pass


class Reader(PahoClient):
    """The client's connection."""

    def __init__(self, heard, chunks):
        super().__init__("x", self.plain, manual_ack=False)
        self._heard = heard
        self._sock = BufferedSocket(Chunks(chunks))

    def plain(self, message, packet):
        self._heard.append((message.topic.encode(), *message[1:6]))


class Alone(paho.Client):
    """paho as it is."""

    def __init__(self, heard, chunks):
        super().__init__(CallbackAPIVersion.VERSION2, "x", protocol=paho.MQTTv5)
        self._sock = Chunks(chunks)


def outcome(kind, chunks):
    """Messages, answers, and what ends the connection."""
    heard, lost = [], []

    def take(_client, _data, message):
        names = "ResponseTopic", "CorrelationData", "MessageExpiryInterval"
        known = [getattr(message.properties, name, None) for name in names]
        heard.append((message._topic, bytes(message.payload), message.retain, *known))

    client = kind(heard, chunks)
    client.on_message = take
    client.on_disconnect = lambda _client, _data, _flags, reason, _: lost.append(str(reason))
    client.on_socket_register_write = lambda *_: None
    while client._sock is not None:
        client.loop_read()
    return heard, [bytes(each["packet"]) for each in client._out_packet], lost


def length_of(size):
    """MQTT's variable byte integer."""
    found = []
    while size > 127:
        found.append(size & 127 | 128)
        size >>= 7
    return bytes([*found, size])


def counted(data):
    return struct.pack("!H", len(data)) + data


TEXT = st.sampled_from(
    [b"s1/c", b"", b"a/#", b"a/+", b"\0", b"\xff", b"\xef\xbb\xbf", b"\xed\xa0\x80", b"\xc3\xa4"]
)
PROPERTY = st.one_of(
    st.integers(0, 2**32 - 1).map(lambda value: b"\x02" + struct.pack("!I", value)),
    TEXT.map(lambda text: b"\x08" + counted(text)),
    st.binary(max_size=6).map(lambda data: b"\x09" + counted(data)),
    st.just(b"\x09" + counted(bytes(130))),
    st.tuples(TEXT, TEXT).map(lambda pair: b"\x26" + counted(pair[0]) + counted(pair[1])),
    st.integers(0, 3).map(lambda value: bytes([1, value])),
    st.integers(0, 9).map(lambda value: b"\x23" + struct.pack("!H", value)),
    st.integers(0, 300).map(lambda value: b"\x0b" + length_of(value)),
    TEXT.map(lambda text: b"\x03" + counted(text)),
    st.binary(max_size=3),
)


@st.composite
def publish(draw):
    """A PUBLISH with whatever properties, and often with something wrong in it."""
    properties = b"".join(draw(st.lists(PROPERTY, max_size=4)))
    qos = draw(st.sampled_from([0, 0, 0, 1, 1, 1, 2, 3]))
    head = 0x30 | draw(st.sampled_from([0, 8])) | qos << 1 | draw(st.integers(0, 1))
    body = counted(draw(TEXT))
    if qos:
        body += struct.pack("!H", draw(st.integers(0, 65535)))
    body += length_of(max(0, len(properties) + draw(st.sampled_from([0] * 8 + [-1, 1, 5, 200]))))
    body += properties
    body += draw(st.binary(max_size=9) | st.sampled_from([0, 130, 5000, 17000]).map(bytes))
    size = length_of(max(0, len(body) + draw(st.sampled_from([0] * 12 + [-3, -1, 1]))))
    # Sometimes in more bytes than needed: up to five, which are too many.
    longer = draw(st.sampled_from([0] * 12 + [1, 2, 3, 4]))
    if longer:
        size = size[:-1] + bytes([size[-1] | 128]) + b"\x80" * (longer - 1) + b"\0"
    return bytes([head]) + size + body


OTHER = st.sampled_from(
    [
        b"\x40\2\0\1", b"\x40\3\0\1\x87", b"\x40\1\0", b"\x50\2\0\1", b"\x62\2\0\1", b"\xd0\0",
        b"\x90\4\0\1\0\0", b"\xb0\4\0\1\0\0", b"\xe0\0", b"\xe0\1\x8b", b"\xf0\0", b"\0\0",
    ]
)  # fmt: skip
STREAM = st.lists(publish() | publish() | OTHER | st.binary(max_size=3), min_size=1, max_size=5)


@settings(max_examples=500, deadline=None)
@given(STREAM.map(b"".join), st.lists(st.integers(1, 60), max_size=8))
def test_any_bytes_in_any_pieces_are_read_as_paho_reads_them(stream, sizes):
    cuts = [0]
    for size in sizes:
        cuts.append(cuts[-1] + size)
    chunks = [stream[begin:end] for begin, end in pairwise([*cuts, len(stream) + cuts[-1]])]
    ours, theirs = outcome(Reader, chunks), outcome(Alone, chunks)
    if ours[2] == ["Packet too large"]:  # for which paho waits in vain
        theirs[2][:] = ours[2]
    assert ours == theirs
