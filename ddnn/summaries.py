"""Summaries of several slots in one message.

TCP/IP and its acknowledgement cost a hundred bytes for each message, a summary a dozen: a camera
that may be late by a second sends those of a second together. A SUMMARIES frame has the header of
its first slot, flags 0, and this body:

======  ===================  =====================================================
offset  size                 meaning
======  ===================  =====================================================
0       1                    n, how many slots it covers, 1 to 255
1       ceil(n / 4)          two bits for each slot from the lowest bits on:
                             0 no report, 1 ABSENT, 2 scores; the first and the
                             last slot have a report, bits beyond the last are 0
...     K for each "2"       their scores, in the order of slots; K is the same
                             for all, and 0 where there is no local exit to tell
======  ===================  =====================================================

It says what its SUMMARY frames would say alone, and `split` makes those of it.
"""

from __future__ import annotations

from collections.abc import Sequence

from ddnn import wire
from ddnn.errors import WireError
from ddnn.wire import SLOT_MODULUS, Flag, Frame, Kind

MAX_SLOTS = 255
_NOTHING, _ABSENT, _SCORES = 0, 1, 2
_FIRST = (wire.FORMAT_VERSION << 4) | Kind.SUMMARIES


def join(summaries: Sequence[bytes]) -> bytes:
    """One message of SUMMARY messages: of one tag and boot, slots ascending, no BACKLOG.

    A single one stays as it is.

    Raises:
        WireError: they do not fit together, or cover more than `MAX_SLOTS` slots.
    """
    frames = [wire.decode(summary) for summary in summaries]
    first = frames[0]
    if len(frames) == 1:
        return summaries[0]
    offsets = [(frame.slot - first.slot) % SLOT_MODULUS for frame in frames]
    if offsets != sorted(set(offsets)) or offsets[-1] >= MAX_SLOTS:
        raise WireError(f"slots {offsets} from the first one on do not fit into one message")
    count = offsets[-1] + 1
    states = 0
    for frame, offset in zip(frames, offsets, strict=True):
        fits = frame.kind is Kind.SUMMARY and not frame.flags & ~int(Flag.ABSENT)
        if not fits or frame[2:4] != first[2:4]:
            raise WireError("only fresh summaries of one bundle and boot fit into one message")
        states |= (_ABSENT if frame.flags else _SCORES) << (2 * offset)
    if len({len(frame.body) for frame in frames if not frame.flags}) > 1:
        raise WireError("summaries in one message have scores of one length")
    packed = states.to_bytes(-(-count // 4), "little")
    body = bytes([count]) + packed + b"".join(frame.body for frame in frames)
    return wire.encode(Kind.SUMMARIES, tag=first.tag, boot=first.boot, slot=first.slot, body=body)


def split(frame: Frame) -> list[Frame]:
    """The SUMMARY frames in a SUMMARIES frame, in the order of their slots.

    Raises:
        WireError: it is none, or malformed.
    """
    if frame.kind is not Kind.SUMMARIES or frame.flags or not frame.body:
        raise WireError("not summaries of several slots")
    count = frame.body[0]
    end = 1 + -(-count // 4)
    if not count or len(frame.body) < end:
        raise WireError(f"summaries of {count} slots in {len(frame.body)} bytes")
    bits = int.from_bytes(frame.body[1:end], "little")
    states = [bits >> (2 * n) & 3 for n in range(count)]
    if bits >> (2 * count) or 3 in states or _NOTHING in (states[0], states[-1]):
        raise WireError("summaries with states that mean nothing")
    scored = states.count(_SCORES)
    size, left = divmod(len(frame.body) - end, scored) if scored else (0, len(frame.body) - end)
    if left:
        raise WireError(f"{len(frame.body) - end} bytes of scores for {scored} slots")
    frames = []
    for n, state in enumerate(states):
        if state == _NOTHING:
            continue
        slot = (frame.slot + n) % SLOT_MODULUS
        if state == _ABSENT:
            flags, body = int(Flag.ABSENT), b""
        else:
            flags, body = 0, frame.body[end : end + size]
            end += size
        frames.append(Frame(Kind.SUMMARY, flags, frame.tag, frame.boot, slot, body))
    return frames


def reports_in(payload: bytes) -> int:
    """How many slots a message reports on, without looking whether it is well-formed."""
    if len(payload) > wire.HEADER_BYTES and payload[0] == _FIRST:
        return max(1, payload[wire.HEADER_BYTES])
    return 1


def slots_per_message(delay_s: float, period_s: float) -> int:
    """How many slots a camera puts into one message when one may wait so long for the others."""
    return max(1, min(MAX_SLOTS, int(delay_s / period_s + 1e-6)))
