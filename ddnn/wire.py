"""Frame payloads <-> bytes.

Every frame message starts with the same ten bytes, little-endian:

======  =====  ==========================================================
offset  type   meaning
======  =====  ==========================================================
0       u8     high four bits: format version (1); low four bits: kind
1       u8     flags
2       u16    bundle tag: which bundle's sections made the body
4       u16    boot id: a number drawn when the sending process started
6       u32    slot modulo 2**32 (slot = floor(capture time / period))
======  =====  ==========================================================

Bodies, by kind:

===  ==========  ==========================================================
1    SUMMARY     one u8 score per class; empty when ABSENT is set, and where
             there is no local exit to tell
2    FEATURES    the features as the section emits them (packed bits, or a
             picture where pictures go to the cloud); of an edge gateway
             one u8 score per class of its edge exit, then its features
3    REQUEST     empty: "send your features of this slot"
4    ESCALATION  u32 mask of members (bit i: member i is there), then the
                 packed features of the members there, ascending, all of
                 one length
5    ANSWER      one i32 logit per class (times the manifest's scale)
6    SUMMARIES   summaries of several slots: `ddnn.summaries`
===  ==========  ==========================================================

The same table, with golden bytes, is in docs/protocol.md.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from enum import IntEnum, IntFlag
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from ddnn.errors import WireError

FORMAT_VERSION = 1
HEADER = struct.Struct("<BBHHI")
HEADER_BYTES = HEADER.size
SLOT_MODULUS = 2**32
#: Longest body that a decoder accepts; a raw 256x256 colour image of six cameras fits.
MAX_BODY_BYTES = 2_000_000
ESCALATION_MASK_BYTES = 4
MAX_MEMBERS = 32


class Kind(IntEnum):
    """What a frame message carries."""

    SUMMARY = 1
    FEATURES = 2
    REQUEST = 3
    ESCALATION = 4
    ANSWER = 5
    SUMMARIES = 6


class Flag(IntFlag):
    """Header flags. Unknown bits are refused: their meaning could matter."""

    NONE = 0
    ABSENT = 1  #: the camera delivered no view of the scene, or saw nothing in it
    BACKLOG = 2  #: sent late, after an outage
    UNSERVED = 4  #: an ANSWER without logits: the cloud does not have this bundle
    PARTIAL = 8  #: FEATURES of an edge gateway that lacks some of those it asked for


_KIND_BY_BYTE = {(FORMAT_VERSION << 4) | kind: kind for kind in Kind}
_NO_BODY = int(Flag.ABSENT | Flag.UNSERVED)
_KNOWN_FLAGS = int(Flag.ABSENT | Flag.BACKLOG | Flag.UNSERVED | Flag.PARTIAL)


class Frame(NamedTuple):
    """One decoded frame message.

    Attributes:
        kind: what `body` is.
        flags: bits of `Flag`.
        tag: bundle tag, 0..65535.
        boot: boot id of the sender, 0..65535.
        slot: slot modulo 2**32; `unwrap_slot` gives the whole number.
        body: the bytes after the header.
    """

    kind: Kind
    flags: int
    tag: int
    boot: int
    slot: int
    body: bytes


def encode(
    kind: Kind, *, tag: int, boot: int, slot: int, flags: int = 0, body: bytes = b""
) -> bytes:
    """Encode one frame message; `slot` may be any non-negative whole number."""
    return HEADER.pack((FORMAT_VERSION << 4) | kind, flags, tag, boot, slot % SLOT_MODULUS) + body


def decode(payload: bytes) -> Frame:
    """Decode one frame message.

    Raises:
        WireError: too short, too long, another version, or unknown kind or flags.
    """
    if len(payload) < HEADER_BYTES:
        raise WireError(f"frame of {len(payload)} bytes is shorter than its header")
    if len(payload) > HEADER_BYTES + MAX_BODY_BYTES:
        raise WireError(f"frame of {len(payload)} bytes is too long")
    first, flags, tag, boot, slot = HEADER.unpack_from(payload)
    kind = _KIND_BY_BYTE.get(first)
    if kind is None:
        raise WireError(f"unknown frame version or kind 0x{first:02x}")
    if flags & ~_KNOWN_FLAGS:
        raise WireError(f"unknown frame flags 0x{flags:02x}")
    body = payload[HEADER_BYTES:]
    if body and (kind is Kind.REQUEST or flags & _NO_BODY):
        raise WireError(f"a {kind.name} frame with flags 0x{flags:02x} has no body")
    return Frame(kind, flags, tag, boot, slot, body)


def unwrap_slot(slot: int, near: int) -> int:
    """The whole slot number that is `slot` modulo 2**32 and nearest to `near`.

    At 10 frames/s the 32 bits wrap after 13.6 years; the receiver's clock says which turn it is.
    Never negative: before the first half turn the slot itself is the answer.
    """
    half = SLOT_MODULUS // 2
    whole = near + (slot - near + half) % SLOT_MODULUS - half
    return whole if whole >= 0 else slot


def pack_escalation(mask: int, features: list[bytes]) -> bytes:
    """Body of an ESCALATION: `features` of the members in `mask`, ascending, equal lengths."""
    return mask.to_bytes(ESCALATION_MASK_BYTES, "little") + b"".join(features)


def check_escalation(body: bytes, members: int, feature_bytes: int) -> None:
    """Whether `unpack_escalations` can be given this body of an ESCALATION.

    Raises:
        WireError: a member outside `members`, none at all, or a length that does not fit.
    """
    if len(body) < ESCALATION_MASK_BYTES:
        raise WireError("escalation without a mask")
    bits = int.from_bytes(body[:ESCALATION_MASK_BYTES], "little")
    if bits == 0 or bits >> members:
        raise WireError(f"escalation mask 0x{bits:x} does not fit {members} members")
    expected = ESCALATION_MASK_BYTES + bits.bit_count() * feature_bytes
    if len(body) != expected:
        raise WireError(f"escalation of {len(body)} bytes; {expected} expected")


def unpack_escalations(
    bodies: Sequence[bytes], features: npt.NDArray[np.uint8], mask: npt.NDArray[np.uint8]
) -> None:
    """Fill a batch's arrays with N checked bodies of ESCALATIONs.

    Args:
        features: (N, M, B); rows of members that are not there become zero.
        mask: (N, M); 1 where a member is there.
    """
    count, members, feature_bytes = features.shape
    size = ESCALATION_MASK_BYTES + members * feature_bytes
    joined = b"".join(bodies)
    if len(joined) == count * size:  # everybody is there
        mask[...] = 1
    else:
        masks = b"".join([body[:ESCALATION_MASK_BYTES] for body in bodies])
        bits = np.frombuffer(masks, np.uint8).reshape(count, ESCALATION_MASK_BYTES)
        mask[...] = np.unpackbits(bits, 1, members, "little")
        joined = b"".join([_fill_gaps(body, members, feature_bytes) for body in bodies])
    rows = np.frombuffer(joined, np.uint8).reshape(count, size)
    features[...] = rows[:, ESCALATION_MASK_BYTES:].reshape(features.shape)


def _fill_gaps(body: bytes, members: int, feature_bytes: int) -> bytes:
    """An ESCALATION's body with zeros for the features of members that are not there."""
    bits, at = int.from_bytes(body[:ESCALATION_MASK_BYTES], "little"), ESCALATION_MASK_BYTES
    parts = [body[:at]]
    for member in range(members):
        if bits >> member & 1:
            parts.append(body[at : at + feature_bytes])
            at += feature_bytes
        else:
            parts.append(bytes(feature_bytes))
    return b"".join(parts)


def pack_logits(logits: npt.NDArray[np.int32]) -> bytes:
    """Body of an ANSWER from logits (K,) int32; of (N, K), N bodies one after the other."""
    return logits.astype("<i4", copy=False).tobytes()


def unpack_logits(body: bytes, classes: int) -> npt.NDArray[np.int32]:
    """Body of an ANSWER -> logits (K,) int32.

    Raises:
        WireError: not one i32 for each class.
    """
    if len(body) != 4 * classes:
        raise WireError(f"answer of {len(body)} bytes; {4 * classes} expected")
    return np.frombuffer(body, "<i4").astype(np.int32)
