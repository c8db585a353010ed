"""Section files from whole-number parameters: numpy and `onnx.helper`, no torch.

Every number that decides a bit is a whole number small enough to be exact in float32, so the
same file gives the same bytes on every machine, thread count and optimisation level.

A block is conv 3x3 (pad 1) -> threshold -> max pool 3x3 (stride 2, pad 1) -> +1/-1. With
v the whole-number conv sum and T the channel's threshold, 2v + 1 - 2T is odd: never 0, so that
clipping it is an exact sign. Thresholding before pooling is the same as after it, since both are
monotone. Weights are -1/+1, or in edges and clouds whole numbers of a byte. What the graphs do
beyond that is there to be fast:

- The first block of a device section, on few channels, is a float32 Conv with the Clip fused into
  it; every later block, and all of an edge or cloud section, is QLinearConv around 128, where 128
  itself stands for padding and for a member that is not there.
- The last block clips to 0 and 1 instead of -1 and +1, which is what packing wants; the exit makes
  up for it in its weights and offsets.
- A channel that batch norm turns round costs nothing: the weights that read it are negated, and
  its packed bits are flipped where they leave.

With nobody there (every mask byte 0) a section still answers: CC and AP see neutral inputs, MP
sees -1 everywhere. Nodes decide nothing on such a sample.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from training.graph import BOOL, FLOAT, I8, I32, U8, Graph

EXACT = 2**24  #: whole numbers up to this are exact in float32
EXACT_I32 = 2**31  #: and below this in int32
#: Of a block beyond devices: doubled it must fit into int8, and twice 129 times that into 16 bits,
#: in which onnxruntime adds up pairs of byte products on x86 without VNNI.
MAX_WEIGHT = 63
#: An AP sum of members' +1/-1 must fit into a byte around 128.
MAX_MEMBERS = 127
Aggregation = Literal["MP", "AP", "CC"]


@dataclass(frozen=True)
class Block:
    """A block in whole numbers.

    Attributes:
        signs: (O, I, 3, 3) int8, +1 or -1 (for `upper_section` whole numbers up to MAX_WEIGHT).
        threshold: (O,) int64; the pooled sum v gives +1 where v >= threshold.
        flip: (O,) bool; channels whose result is then negated (negative batch norm gamma).
    """

    signs: npt.NDArray[np.int8]
    threshold: npt.NDArray[np.int64]
    flip: npt.NDArray[np.bool_]

    def check_exact(self, largest_input: int) -> None:
        """Raise ValueError where inputs within -largest..largest might not give exact sums."""
        weighted = 2 * largest_input * largest_sum(self.signs)
        check_whole("a block's sums", weighted + 1 + 2 * int(np.abs(self.threshold).max()))


@dataclass(frozen=True)
class Head:
    """A binary fully connected exit: logit = (signs . x) * multiplier + offset.

    Attributes:
        signs: (F, K) int8, +1 or -1 (whole numbers for `local_section`).
        multiplier, offset: (K,) int64.
        shift: the result is divided by 2**shift and rounded down.
    """

    signs: npt.NDArray[np.integer]
    multiplier: npt.NDArray[np.int64]
    offset: npt.NDArray[np.int64]
    shift: int = 0

    def check_exact(self) -> None:
        """Raise ValueError where an intermediate might not be exact in float32.

        In the section x is 0 or 1 and weights are twice as large, so that a sum of some of the
        terms reaches 2 F m; one that has the offset in it stays within F m + |offset|.
        """
        bound = len(self.signs) * int(np.abs(self.multiplier).max()) * 2
        check_whole(
            f"an exit over {len(self.signs)} features", bound + int(np.abs(self.offset).max())
        )


def largest_sum(weights: npt.NDArray[np.int8]) -> int:
    """The largest sum of weights (O, I, 3, 3) without their signs, of any channel."""
    return int(np.abs(weights.astype(np.int64)).sum(axis=(1, 2, 3)).max())


def check_whole(what: str, largest: int, limit: int = EXACT) -> None:
    """Raise ValueError where whole numbers up to `largest` might not be exact below `limit`."""
    if largest >= limit:
        kind = "float32" if limit == EXACT else "int32"
        raise ValueError(
            f"{what} may reach {largest}, which is not exact in {kind} (limit {limit}): "
            "smaller multipliers and offsets or fewer inputs are needed"
        )


def pooled(size: int) -> int:
    """Length of a side after a block's pooling: 3 wide, stride 2, pad 1."""
    return (size - 1) // 2 + 1


def packed_bytes(bits: int) -> int:
    """Bytes that hold so many bits."""
    return -(-bits // 8)


def device_section(image: tuple[int, int, int], blocks: Sequence[Block], head: Head) -> bytes:
    """The section of a camera: image u8 (N, H, W, C) -> scores u8 (N, K), features u8 (N, B).

    The head's result is clipped to 0..255: the quantised scores, 128 standing for 0.

    Raises:
        ValueError: parameters that do not fit together, or are too large to be exact.
    """
    height, width, channels = image
    shape = check_shapes((channels, height, width), blocks, head)
    blocks[0].check_exact(255)
    g = Graph()
    x = g.op("Cast", g.op("Transpose", "image", perm=[0, 3, 1, 2]), to=FLOAT)
    # A block that another one follows gives 127 and 129, as the quantised blocks want it.
    low, high, zero = (0, 1, 0) if len(blocks) == 1 else (127, 129, 128)
    bias = g.constant(zero + 1 - 2 * blocks[0].threshold, FLOAT)
    x = g.op("Conv", x, g.signs(blocks[0].signs), bias, pads=[1, 1, 1, 1])
    x = pool(g, g.op("Clip", x, g.constant(low, FLOAT), g.constant(high, FLOAT)))
    if len(blocks) > 1:
        x = quantised(g, g.op("Cast", x, to=U8), blocks[1:], 1, blocks[0].flip)
        x = g.op("Cast", x, to=FLOAT)
    flip = np.repeat(blocks[-1].flip, shape[1] * shape[2])
    # Rounds and saturates in one operator; what it rounds is never half-way.
    y = _exit(g, g.op("Flatten", x), head, flip, to_nearest=True)
    g.op("QuantizeLinear", y, g.constant(1, FLOAT), g.constant(0, U8), out="scores")
    _pack(g, x, flip, width=shape[2], out="features")
    return g.build(
        [("image", image)],
        [("scores", U8, (len(head.offset),)), ("features", U8, (packed_bytes(len(flip)),))],
    )


def upper_section(
    members: int,
    feature_map: tuple[int, int, int],
    kind: Aggregation,
    blocks: Sequence[Block],
    head: Head,
    *,
    edge_features: bool,
) -> bytes:
    """An edge or cloud section: features u8 (N, M, B), mask u8 (N, M) -> logits i32 (N, K).

    Args:
        feature_map: (channels, height, width) of one member's features.
        kind: CC joins the members' channels; MP takes +1 where any member has it; AP adds up.
        edge_features: also give `edge_features` u8 (N, B'), the last block's bits, packed.

    Raises:
        ValueError: parameters that do not fit together, or are too large to be exact.
    """
    if not 1 <= members <= MAX_MEMBERS:
        raise ValueError(f"a section for {members} members: 1 to {MAX_MEMBERS} are possible")
    channels, height, width = feature_map
    bits = channels * height * width
    joined = channels * members if kind == "CC" else channels
    g = Graph()
    x = g.reshape(_join(g, members, bits, kind), 0, joined, height, width)
    shape = (joined, height, width)
    outputs = answer(g, x, shape, members, kind, blocks, head, edge_features=edge_features)
    return g.build([("features", (members, packed_bytes(bits))), ("mask", (members,))], outputs)


def answer(
    g: Graph,
    x: str,
    feature_map: tuple[int, int, int],
    members: int,
    kind: Aggregation,
    blocks: Sequence[Block],
    head: Head,
    *,
    edge_features: bool,
) -> list[tuple[str, int, tuple[int, ...]]]:
    """Joined features, u8 around 128 (N, *feature_map) -> `upper_section`'s outputs.

    Args:
        members, kind: how many were joined, and how: with AP `x` is up to `members` from 128.

    Raises:
        ValueError: parameters that do not fit together, or are too large to be exact.
    """
    # Sums of members' features reach further than bytes can add up with larger weights.
    shape = check_shapes(feature_map, blocks, head, 1 if kind == "AP" else MAX_WEIGHT)
    largest = members if kind == "AP" else 1
    x = g.op("Cast", quantised(g, x, blocks, largest), to=FLOAT)
    outputs = [("logits", I32, (len(head.offset),))]
    flip = np.repeat(blocks[-1].flip, shape[1] * shape[2])
    if edge_features:
        _pack(g, x, flip, width=shape[2], out="edge_features")
        outputs.append(("edge_features", U8, (packed_bytes(len(flip)),)))
    else:
        # onnxruntime runs quantised blocks channels last; so the exit may read that order at once.
        order = np.arange(len(flip)).reshape(shape).transpose(1, 2, 0).reshape(-1)
        head = Head(head.signs[order], head.multiplier, head.offset, head.shift)
        flip = flip[order]
        x = g.op("Transpose", x, perm=[0, 2, 3, 1])
    y = _exit(g, g.op("Flatten", x), head, flip)
    if head.shift:
        y = g.op("Floor", y)
    g.op("Cast", y, to=I32, out="logits")
    return outputs


def check_shapes(
    shape: tuple[int, int, int], blocks: Sequence[Block], head: Head, largest_weight: int = 1
) -> tuple[int, int, int]:
    """(channels, height, width) after the blocks; ValueError where parameters do not fit.

    Args:
        largest_weight: that a block may have; with 1 all are +1 or -1.
    """
    channels, height, width = check_blocks(shape, blocks, largest_weight)
    features, classes = channels * height * width, len(head.offset)
    if head.signs.shape != (features, classes) or head.multiplier.shape != (classes,):
        raise ValueError(
            f"an exit over {features} features and {classes} classes does not fit "
            f"weights {head.signs.shape} and multipliers {head.multiplier.shape}"
        )
    if not _binary(head.signs):
        raise ValueError("binary weights must be +1 or -1")
    head.check_exact()
    return channels, height, width


def check_blocks(
    shape: tuple[int, int, int], blocks: Sequence[Block], largest_weight: int = 1
) -> tuple[int, int, int]:
    """The same of blocks without an exit."""
    if not blocks:
        raise ValueError("a section needs one block or more")
    channels, height, width = shape
    for number, block in enumerate(blocks):
        outputs = len(block.signs)
        if block.signs.shape != (outputs, channels, 3, 3):
            raise ValueError(
                f"block {number} has weights {block.signs.shape} for {channels} input channels"
            )
        if block.threshold.shape != (outputs,) or block.flip.shape != (outputs,):
            raise ValueError(f"block {number} needs one threshold and flip for each channel")
        channels, height, width = outputs, pooled(height), pooled(width)
    if largest_weight == 1 and not all(_binary(block.signs) for block in blocks):
        raise ValueError("binary weights must be +1 or -1")
    if not all((np.abs(block.signs.astype(int)) <= largest_weight).all() for block in blocks):
        raise ValueError(
            f"weights of a block must be whole numbers from -{largest_weight} to {largest_weight}"
        )
    return channels, height, width


def _join(g: Graph, members: int, bits: int, kind: Aggregation) -> str:
    """Packed features and mask -> u8 of 127, 128, 129 (AP: 128 +- members): (N, M * bits or bits).

    A table of every byte's bits is made when the file is loaded. A masked member's bytes are
    looked up in its last row, whatever they are.
    """
    ones = g.op("Cast", g.bits(g.constant(np.arange(256)[:, None], U8)), to=BOOL)
    table = g.op("Where", ones, g.constant(129, U8), g.constant(127, U8))
    # For MP a member that is not there must lose against any that is.
    absent = g.constant(127 if kind == "MP" else 128, U8)
    table = g.op("Pad", table, g.sizes(0, 0, 1, 0), absent)
    if kind == "AP":
        table = g.op("Sub", g.op("Cast", table, to=FLOAT), g.constant(128, FLOAT))
    # By way of bool: any mask byte but 0 means that the member is there.
    there = g.op("Unsqueeze", g.op("Cast", "mask", to=BOOL), g.sizes(2))
    index = g.op("Where", there, g.op("Cast", "features", to=I32), g.constant(256, I32))
    x = g.reshape(g.op("Gather", table, index), 0, members, packed_bytes(bits) * 8)
    if bits % 8:
        x = g.op("Slice", x, g.sizes(0), g.sizes(bits), g.sizes(2))
    if kind == "MP":
        return g.op("ReduceMax", x, g.sizes(1), keepdims=0)
    if kind == "AP":
        total = g.op("ReduceSum", x, g.sizes(1), keepdims=0)
        return g.op("Cast", g.op("Add", total, g.constant(128, FLOAT)), to=U8)
    return x


def quantised(
    g: Graph,
    x: str,
    blocks: Sequence[Block],
    largest_input: int,
    flip: npt.NDArray[np.bool_] | None = None,
    *,
    groups: int = 1,
    bits: bool = True,
) -> str:
    """Blocks on u8 around 128 (N, C, H, W) -> u8 0 or 1, flips of the last block left undone.

    Scales are 1 and zero points 128, so that QLinearConv gives 128 + 2v + 1 - 2T, cut off at
    0 and 255: on the right side of 128 all the same. The last block's zero point is 0.

    Args:
        largest_input: how far from 128 `x` may be.
        flip: input channels that are the wrong way round. Reading them with negated weights
            makes up for it; padding is 0 either way.
        groups: of channels, each with blocks of its own.
        bits: False: the last block gives 127 and 129 as well.
    """
    one, zero, centre = g.constant(1, FLOAT), g.constant(0, U8), g.constant(128, U8)
    for number, block in enumerate(blocks):
        block.check_exact(1 if number else largest_input)
        last = bits and number == len(blocks) - 1
        signs = block.signs
        if flip is not None:
            turned = np.repeat(flip.reshape(groups, -1), len(signs) // groups, axis=0)
            signs = np.where(turned[:, :, None, None], -signs, signs)
        if _binary(signs):
            weights = g.op("Cast", g.signs(signs), to=I8)
        else:
            weights = g.constant(2 * signs, I8)
        x = g.op(
            "QLinearConv", x, one, centre, weights, one, g.constant(0, I8),
            one, zero if last else centre, g.constant(1 - 2 * block.threshold, I32),
            pads=[1, 1, 1, 1], **({"group": groups} if groups > 1 else {}),
        )  # fmt: skip
        low, high = (0, 1) if last else (127, 129)
        x = g.op("Clip", pool(g, x), g.constant(low, U8), g.constant(high, U8))
        flip = block.flip
    return x


def _binary(weights: npt.NDArray[np.integer]) -> bool:
    return bool((np.abs(weights) == 1).all())


def pool(g: Graph, x: str) -> str:
    return g.op("MaxPool", x, kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1])


def _exit(
    g: Graph, x: str, head: Head, flip: npt.NDArray[np.bool_], *, to_nearest: bool = False
) -> str:
    """Bits 0/1 float (N, F), those of `flip` (F,) the wrong way round -> float (N, K), not floored.

    With x = 2b - 1: (s . x) m + o = (2 s m) . b + o - m sum(s). Divided by a power of two, which
    keeps every step as exact as it was.

    Args:
        to_nearest: make it a number whose nearest whole number is the one to round down to. The
            sum is even or odd as the offset is; where it is even, one more changes nothing. Then
            it is odd, half a divisor less is never half-way between two whole numbers.
    """
    signs = np.where(flip[:, None], -head.signs, head.signs)
    scale = 2.0**-head.shift
    weights = g.op("Mul", g.signs(signs), g.constant(head.multiplier * scale, FLOAT))
    offset = head.offset - head.multiplier * signs.sum(axis=0, dtype=np.int64)
    if to_nearest and head.shift:
        half = 2 ** (head.shift - 1)
        largest = len(signs) * np.abs(head.multiplier) + np.abs(head.offset) + 1 + half
        check_whole("an exit's scores", int(largest.max()))
        offset = (offset | 1) - half
    return g.op("Gemm", x, weights, g.constant(offset * scale, FLOAT))


def _pack(g: Graph, x: str, flip: npt.NDArray[np.bool_], *, width: int, out: str) -> str:
    """Float bits 0/1 (N, C, H, W), F in all -> u8 (N, B): bit i of byte b is element 8 b + i.

    Bits of `flip` (F,) are turned round.
    """
    bits, size = len(flip), packed_bytes(len(flip))
    powers = 2.0 ** np.arange(8)[:, None]
    if width in (8, 16):
        # A row holds whole bytes: one operator less, which is 0.5 of 20 us with 4 filters.
        powers = np.kron(np.eye(width // 8), powers)
    else:
        if bits % 8:
            x = g.op("Pad", g.op("Flatten", x), g.sizes(0, 0, 0, -bits % 8), g.constant(0, FLOAT))
        x = g.reshape(x, -1, 8)
    x = g.op("Cast", g.op("MatMul", x, g.constant(powers, FLOAT)), to=U8)
    if not flip.any():
        return g.reshape(x, -1, size, out=out)
    turned = g.constant(np.packbits(flip, bitorder="little"), U8)
    return g.op("BitwiseXor", g.reshape(x, -1, size), turned, out=out)
