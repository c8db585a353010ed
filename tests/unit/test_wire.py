"""Frame payloads: golden bytes, every truncation, and what must be refused."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ddnn import wire
from ddnn.errors import WireError
from ddnn.wire import Flag, Kind

GOLDEN = [
    # kind, tag, boot, slot, flags, body, bytes on the wire (docs/protocol.md shows the same)
    (Kind.SUMMARY, 0xBEEF, 0x1234, 0x01020304, 0, b"\x80\x00\xff", "1100efbe3412040302018000ff"),
    (Kind.SUMMARY, 0xBEEF, 0x1234, 7, Flag.ABSENT, b"", "1101efbe341207000000"),
    (Kind.FEATURES, 1, 2, 3, 0, b"\xaa\x55", "12000100020003000000aa55"),
    (Kind.REQUEST, 1, 2, 2**32 + 3, 0, b"", "13000100020003000000"),
    (Kind.ESCALATION, 1, 2, 3, 0, b"\x05\0\0\0\x01\x02", "14000100020003000000050000000102"),
    (Kind.ANSWER, 1, 2, 3, 0, b"\xff\xff\xff\xff", "15000100020003000000ffffffff"),
    (Kind.FEATURES, 1, 2, 3, Flag.PARTIAL, b"\xff\x5f\0\xaa\x55", "12080100020003000000ff5f00aa55"),
]


@pytest.mark.parametrize(("kind", "tag", "boot", "slot", "flags", "body", "golden"), GOLDEN)
def test_golden_bytes(kind, tag, boot, slot, flags, body, golden):
    payload = wire.encode(kind, tag=tag, boot=boot, slot=slot, flags=flags, body=body)
    assert payload.hex() == golden
    assert wire.decode(payload) == (kind, flags, tag, boot, slot % 2**32, body)


def test_summary_of_three_classes_is_at_most_14_bytes():
    assert len(wire.encode(Kind.SUMMARY, tag=1, boot=2, slot=3, body=b"abc")) <= 14


@given(
    kind=st.sampled_from(Kind),
    tag=st.integers(0, 65535),
    boot=st.integers(0, 65535),
    slot=st.integers(0, 2**40),
    body=st.binary(max_size=64),
)
def test_what_is_encoded_is_decoded(kind, tag, boot, slot, body):
    body = b"" if kind is Kind.REQUEST else body
    frame = wire.decode(wire.encode(kind, tag=tag, boot=boot, slot=slot, body=body))
    assert frame == (kind, 0, tag, boot, slot % 2**32, body)


@pytest.mark.parametrize("length", range(wire.HEADER_BYTES))
def test_frame_cut_inside_its_header_is_refused(length):
    payload = wire.encode(Kind.SUMMARY, tag=1, boot=2, slot=3, body=b"abc")
    with pytest.raises(WireError, match="shorter than its header"):
        wire.decode(payload[:length])


@given(st.binary(max_size=200))
def test_any_bytes_decode_or_are_refused(payload):
    try:
        frame = wire.decode(payload)
    except WireError:
        return
    again = wire.encode(
        frame.kind,
        tag=frame.tag,
        boot=frame.boot,
        slot=frame.slot,
        flags=frame.flags,
        body=frame.body,
    )
    assert again == payload


@pytest.mark.parametrize("first", [0x01, 0x21, 0x10, 0x17, 0x1F, 0xFF])
def test_other_version_or_kind_is_refused(first):
    with pytest.raises(WireError, match="version or kind"):
        wire.decode(bytes([first]) + bytes(9))


@pytest.mark.parametrize("flags", [0x10, 0x80, 0x11])
def test_unknown_flag_is_refused(flags):
    with pytest.raises(WireError, match="flags"):
        wire.decode(bytes([0x11, flags]) + bytes(8))


@pytest.mark.parametrize(
    ("kind", "flags"), [(1, Flag.ABSENT), (2, Flag.ABSENT), (3, 0), (5, Flag.UNSERVED)]
)
def test_body_where_none_belongs_is_refused(kind, flags):
    with pytest.raises(WireError, match="no body"):
        wire.decode(bytes([0x10 | kind, flags]) + bytes(8) + b"x")


def test_oversize_frame_is_refused():
    with pytest.raises(WireError, match="too long"):
        wire.decode(bytes([0x12]) + bytes(9 + wire.MAX_BODY_BYTES + 1))


@given(st.integers(0, 2**48), st.integers(-(2**31) + 1, 2**31 - 1))
def test_slot_near_the_clock_unwraps_to_itself(near, offset):
    slot = near + offset
    if slot >= 0:
        assert wire.unwrap_slot(slot % 2**32, near) == slot


@pytest.mark.parametrize(("slot", "near"), [(2**32 - 1, 0), (2**31, 5), (0, 0), (3, 0)])
def test_slot_before_the_first_turn_is_never_negative(slot, near):
    assert wire.unwrap_slot(slot, near) >= 0


@given(st.data())
def test_escalations_in_a_batch_round_trip(data):
    """Whoever is there, in whatever else shares the batch, and whatever was in the arrays."""
    members = data.draw(st.integers(1, 32))
    size = data.draw(st.integers(1, 9))
    sets = st.sets(st.integers(0, members - 1), min_size=1).map(sorted)
    batch = data.draw(st.lists(st.one_of(st.just(list(range(members))), sets), min_size=1))
    sent = [[data.draw(st.binary(min_size=size, max_size=size)) for _ in t] for t in batch]
    bodies = [
        wire.pack_escalation(sum(1 << m for m in there), features)
        for there, features in zip(batch, sent, strict=True)
    ]
    for body in bodies:
        wire.check_escalation(body, members, size)
    array = np.full((len(batch), members, size), 99, np.uint8)
    mask = np.full((len(batch), members), 99, np.uint8)
    wire.unpack_escalations(bodies, array, mask)
    assert set(mask.ravel().tolist()) <= {0, 1}
    for n, there in enumerate(batch):
        assert mask[n].nonzero()[0].tolist() == there
        assert [array[n, m].tobytes() for m in there] == sent[n]
        assert not array[n][mask[n] == 0].any()


def test_escalation_cut_at_every_byte_is_refused():
    body = wire.pack_escalation(0b101, [b"abcd", b"efgh"])
    wire.check_escalation(body, 3, 4)
    for length in range(len(body)):
        with pytest.raises(WireError):
            wire.check_escalation(body[:length], 3, 4)
    with pytest.raises(WireError):
        wire.check_escalation(body + b"x", 3, 4)


@pytest.mark.parametrize("mask", [0, 0b1000, 0xFFFFFFFF])
def test_escalation_of_no_or_unknown_members_is_refused(mask):
    with pytest.raises(WireError, match="mask"):
        wire.check_escalation(mask.to_bytes(4, "little") + bytes(8), 3, 4)


@given(st.lists(st.integers(-(2**31), 2**31 - 1), min_size=1, max_size=8))
def test_logits_round_trip(values):
    logits = np.array(values, np.int32)
    assert wire.unpack_logits(wire.pack_logits(logits), len(values)).tolist() == values
    with pytest.raises(WireError):
        wire.unpack_logits(wire.pack_logits(logits)[:-1], len(values))
