"""What a gateway must know again after kill -9, as records of an append-only journal.

Pure: records <-> bytes, and `Memory`, which is what a journal says when it is read from its
beginning. A running gateway feeds every record that it writes to the same `Memory`, so that what
it writes at a rotation (`Memory.records`) and what a restart reads can never disagree.

On disk a record is `u32 length, u32 CRC-32` (little-endian) and a msgpack body. Reading ends at
the first record that is cut off or damaged: nothing after it is believed.
"""

from __future__ import annotations

import struct
import zlib
from collections import Counter, OrderedDict
from typing import NamedTuple

import msgspec

from ddnn.slots import ClosedSlots

_HEAD = struct.Struct("<II")
#: A longer record is damage, not data.
MAX_RECORD_BYTES = 8_000_000
_U64 = 2**63 - 1


class Accepted(msgspec.Struct, frozen=True, tag="a", array_like=True):
    """A member's frame message that the engine took: `payload` as it was on the wire."""

    slot: int
    member: int
    payload: bytes


class Ended(msgspec.Struct, frozen=True, tag="e", array_like=True):
    """A slot's end. `decision`: the JSON to publish, or None when it expired.

    `counts` are the ledger's entries for it, for example `decided` and `exit.local`.
    """

    slot: int
    counts: tuple[str, ...]
    decision: bytes | None = None


class Sent(msgspec.Struct, frozen=True, tag="s", array_like=True):
    """The broker has this slot's decision (or it was dropped: too old, too many)."""

    slot: int


class Base(msgspec.Struct, frozen=True, tag="b", array_like=True):
    """What a rotated journal begins with: ledger, and the slots that have ended."""

    counts: dict[str, int]
    floor: int
    closed: tuple[int, ...]


class Kept(msgspec.Struct, frozen=True, tag="k", array_like=True):
    """After `Base`: the decision of a slot that ended before the rotation."""

    slot: int
    decision: bytes
    unsent: bool


Record = Accepted | Ended | Sent | Base | Kept
#: Made once: see `ddnn.bundle`.
_DECODER: msgspec.msgpack.Decoder[Record] = msgspec.msgpack.Decoder(Record)


class Read(NamedTuple):
    """What a journal holds.

    Attributes:
        records: in order.
        good_bytes: length of the undamaged beginning.
        damaged: whether something follows it.
    """

    records: list[Record]
    good_bytes: int
    damaged: bool


def encode(record: Record) -> bytes:
    """Record -> bytes."""
    body = msgspec.msgpack.encode(record)
    return _HEAD.pack(len(body), zlib.crc32(body)) + body


def read(data: bytes) -> Read:
    """Journal bytes -> records, as far as they are whole. Raises nothing."""
    records: list[Record] = []
    at = 0
    while at < len(data):
        end = at + _HEAD.size
        if end > len(data):
            return Read(records, at, True)
        length, checksum = _HEAD.unpack_from(data, at)
        body = data[end : end + length]
        if length > MAX_RECORD_BYTES or len(body) < length or zlib.crc32(body) != checksum:
            return Read(records, at, True)
        try:
            records.append(_DECODER.decode(body))
        except (msgspec.DecodeError, UnicodeDecodeError):
            return Read(records, at, True)
        at = end + length
    return Read(records, at, False)


class Memory:
    """What the records say, in bounded memory.

    Args:
        remembered_slots: numbers of ended slots that are kept one by one.
        max_decisions: decisions kept for `recall`, sent or not.

    Attributes:
        counts: the ledger of ended slots.
        closed: the slots that have ended.
        open: frames of the slots that have not, in the order they were accepted.
        unsent: decisions that the broker has not acknowledged, by slot.
        recent: the last decisions, by slot.
    """

    def __init__(self, remembered_slots: int = 4096, max_decisions: int = 1024) -> None:
        self.counts: Counter[str] = Counter()
        self.closed = ClosedSlots(remembered_slots)
        self.open: OrderedDict[int, list[Accepted]] = OrderedDict()
        self.unsent: OrderedDict[int, bytes] = OrderedDict()
        self.recent: OrderedDict[int, bytes] = OrderedDict()
        self._max_decisions = max_decisions

    def apply(self, record: Record) -> None:
        """Take the next record. A slot's first end counts; whatever repeats it is ignored."""
        match record:
            case Accepted():
                if record.slot not in self.closed:
                    self.open.setdefault(record.slot, []).append(record)
            case Ended():
                self.open.pop(record.slot, None)
                if record.slot in self.closed:
                    return
                self.closed.add(record.slot)
                self.counts["opened"] += 1
                self.counts.update(record.counts)
                if record.decision is not None:
                    self._keep(record.slot, record.decision, unsent=True)
            case Kept():
                self._keep(record.slot, record.decision, unsent=record.unsent)
            case Sent():
                self.unsent.pop(record.slot, None)
            case Base():
                self.counts.update({name: n for name, n in record.counts.items() if 0 <= n <= _U64})
                self.closed.restore(record.floor, record.closed)

    def records(self) -> list[Record]:
        """The shortest journal that says the same."""
        kept: list[Record] = [Base(dict(self.counts), *self.closed.dump())]
        for slot in sorted(self.recent.keys() | self.unsent.keys()):
            decision = self.unsent.get(slot) or self.recent[slot]
            kept.append(Kept(slot, decision, slot in self.unsent))
        for frames in self.open.values():
            kept.extend(frames)
        return kept

    def _keep(self, slot: int, decision: bytes, *, unsent: bool) -> None:
        if unsent:
            self.unsent[slot] = decision
        self.recent[slot] = decision
        while len(self.recent) > self._max_decisions:
            self.recent.popitem(last=False)
