"""Section files from whole-number parameters: numpy and `onnx.helper`, no torch.

Every number that decides a bit is a whole number small enough to be exact in float32, so the
same file gives the same bytes on every machine, thread count and optimisation level.

Binary weights are stored as packed bits, one uint8 initializer for the whole section, and
unpacked by BitShift, BitwiseAnd, Cast, Mul and Sub; onnxruntime folds that when it loads the
file, so run time is that of plain weights.

A binary block is conv 3x3 (pad 1) -> threshold -> max pool 3x3 (stride 2, pad 1) -> +1/-1. With
v the whole-number conv sum and T the channel's threshold, 2v + 1 - 2T is odd: never 0, so that
clipping to [-1, 1] is an exact sign. Thresholding before pooling is the same as after it, since
both are monotone. Device sections do this in float32, edge and cloud sections in uint8 around
128 (QLinearConv), where 128 itself stands for a member that is not there and for padding.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

from ddnn.bundle import OPSET

#: onnxruntime 1.20 reads it; newer ones do not change what these graphs mean.
IR_VERSION = 10
EXACT = 2**24  #: whole numbers up to this are exact in float32
Aggregation = Literal["MP", "AP", "CC"]
_FLOAT, _U8, _I8 = TensorProto.FLOAT, TensorProto.UINT8, TensorProto.INT8


@dataclass(frozen=True)
class Block:
    """A binary block in whole numbers.

    Attributes:
        signs: (O, I, 3, 3) int8, +1 or -1.
        threshold: (O,) int64; the pooled sum v gives +1 where v >= threshold.
        flip: (O,) bool; channels whose result is then negated (negative batch norm gamma).
    """

    signs: npt.NDArray[np.int8]
    threshold: npt.NDArray[np.int64]
    flip: npt.NDArray[np.bool_]

    def check_exact(self, largest_input: int) -> None:
        """Raise ValueError where inputs within -largest..largest might not give exact sums."""
        weighted = 2 * largest_input * int(np.prod(self.signs.shape[1:]))
        _check_exact(weighted + 1 + 2 * int(np.abs(self.threshold).max()))


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
        """Raise ValueError where an intermediate might not be exact in float32."""
        bound = len(self.signs) * int(np.abs(self.multiplier).max()) * 2
        _check_exact(bound + int(np.abs(self.offset).max()))


def _check_exact(largest: int) -> None:
    if largest >= EXACT:
        raise ValueError(f"parameters reach {largest}: not exact in float32 (limit {EXACT})")


@dataclass
class _Graph:
    """A graph under construction; every method returns the name of what it adds."""

    nodes: list[onnx.NodeProto] = field(default_factory=list)
    constants: dict[str, npt.NDArray[np.generic]] = field(default_factory=dict)
    signs: list[npt.NDArray[np.int8]] = field(default_factory=list)
    sign_names: list[str] = field(default_factory=list)
    count: int = 0

    def fresh(self) -> str:
        self.count += 1
        return f"t{self.count}"

    def op(self, kind: str, *inputs: str, out: str | None = None, **attributes: object) -> str:
        out = out or self.fresh()
        self.nodes.append(helper.make_node(kind, list(inputs), [out], **attributes))
        return out

    def constant(self, value: npt.ArrayLike, dtype: npt.DTypeLike) -> str:
        array = np.ascontiguousarray(value, dtype)
        for name, known in self.constants.items():
            same = known.dtype == array.dtype and known.shape == array.shape
            if same and np.array_equal(known, array):
                return name
        name = f"c{len(self.constants)}"
        self.constants[name] = array
        return name

    def weights(self, signs: npt.NDArray[np.int8]) -> str:
        """Name of a float tensor +2/-2 of this shape; made by `unpack` at the end."""
        self.signs.append(signs)
        self.sign_names.append(f"w{len(self.signs)}")
        return self.sign_names[-1]

    def unpack(self) -> None:
        """Prepend the nodes that make all weights from one packed initializer."""
        if not self.signs:
            return
        body, self.nodes = self.nodes, []
        flat = np.concatenate([s.reshape(-1) for s in self.signs]) > 0
        packed = self.constant(np.packbits(flat, bitorder="little")[:, None], np.uint8)
        shifted = self.op(
            "BitShift", packed, self.constant(np.arange(8), np.uint8), direction="RIGHT"
        )
        bits = self.op("BitwiseAnd", shifted, self.constant(1, np.uint8))
        wide = self.op("Mul", self.op("Cast", bits, to=_FLOAT), self.constant(4, np.float32))
        values = self.op("Sub", wide, self.constant(2, np.float32))
        values = self.op("Reshape", values, self.constant([-1], np.int64))
        begin = 0
        for name, signs in zip(self.sign_names, self.signs, strict=True):
            end = begin + signs.size
            part = self.op(
                "Slice", values, self.constant([begin], np.int64), self.constant([end], np.int64)
            )
            self.op("Reshape", part, self.constant(signs.shape, np.int64), out=name)
            begin = end
        self.nodes += body

    def build(
        self,
        inputs: Sequence[tuple[str, tuple[int, ...]]],
        outputs: Sequence[tuple[str, int, tuple[int, ...]]],
    ) -> bytes:
        self.unpack()
        graph = helper.make_graph(
            self.nodes,
            "s",
            [helper.make_tensor_value_info(n, _U8, ["N", *shape]) for n, shape in inputs],
            [helper.make_tensor_value_info(n, t, ["N", *shape]) for n, t, shape in outputs],
            [numpy_helper.from_array(array, name) for name, array in self.constants.items()],
        )
        model = helper.make_model(
            graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION
        )
        model.producer_name = ""
        onnx.checker.check_model(model, full_check=True)
        return model.SerializeToString(deterministic=True)


def pooled(size: int) -> int:
    """Length of a side after a block's pooling: 3 wide, stride 2, pad 1."""
    return (size - 1) // 2 + 1


def packed_bytes(bits: int) -> int:
    """Bytes that hold so many bits."""
    return -(-bits // 8)


def device_section(image: tuple[int, int, int], blocks: Sequence[Block], head: Head) -> bytes:
    """The section of a camera: image u8 (N, H, W, C) -> scores u8 (N, K), features u8 (N, B).

    The head's result is clipped to 0..255: the quantised scores, 128 standing for 0.
    """
    head.check_exact()
    height, width, channels = image
    g = _Graph()
    x = g.op("Cast", g.op("Transpose", "image", perm=[0, 3, 1, 2]), to=_FLOAT)
    for number, block in enumerate(blocks):
        block.check_exact(1 if number else 255)
        bias = g.constant(1 - 2 * block.threshold, np.float32)
        x = g.op("Conv", x, g.weights(block.signs), bias, pads=[1, 1, 1, 1])
        x = g.op("Clip", x, g.constant(-1, np.float32), g.constant(1, np.float32))
        x = _pool(g, x)
        if block.flip.any():
            signs = np.where(block.flip, -1, 1).reshape(1, -1, 1, 1)
            x = g.op("Mul", x, g.constant(signs, np.float32))
        height, width, channels = pooled(height), pooled(width), len(block.signs)
    bits = height * width * channels
    x = g.op("Flatten", x)
    _pack(g, x, bits, out="features")
    y = _head(g, x, head)
    y = g.op("Clip", y, g.constant(0, np.float32), g.constant(255, np.float32))
    g.op("Cast", y, to=_U8, out="scores")
    return g.build(
        [("image", image)],
        [("scores", _U8, (len(head.offset),)), ("features", _U8, (packed_bytes(bits),))],
    )


def local_section(
    members: int,
    classes: int,
    kind: Aggregation,
    head: Head | None = None,
    table: npt.ArrayLike | None = None,
) -> bytes:
    """The local aggregator: scores u8 (N, M, K), mask u8 (N, M) -> logits i32 (N, K).

    A score of 128 stands for 0. Whatever a masked row holds has no influence.

    Args:
        head: CC only: a linear layer of any whole weights; `signs` (M * K, K) are the weights.
        table: whole factors. AP: (M + 1,), what the sum over the members there is multiplied
            with, by their number; None: 4096 / number, so that the result is 4096 times their
            mean. MP: (1,), what the largest score is multiplied with; None: 1.

    Raises:
        ValueError: numbers so large that a step would not be exact in float32.
    """
    g = _Graph()
    # By way of bool: a mask byte other than 0 and 1 must not weigh a member.
    there = g.op("Cast", "mask", to=TensorProto.BOOL)
    rows = g.op("Unsqueeze", g.op("Cast", there, to=_FLOAT), g.constant([2], np.int64))
    scores = g.op("Cast", "scores", to=_FLOAT)
    centred = g.op("Mul", g.op("Sub", scores, g.constant(128, np.float32)), rows)
    if kind == "AP":
        counts = np.arange(members + 1)
        shares = np.round(4096 / np.maximum(counts, 1)) if table is None else np.asarray(table)
        if shares.shape != counts.shape:
            raise ValueError(f"AP over {members} members needs {members + 1} factors")
        _check_exact(int((np.abs(shares) * counts).max()) * 128)
        axis = g.constant([1], np.int64)
        count = g.op("ReduceSum", g.op("Cast", there, to=TensorProto.INT32), axis, keepdims=1)
        share = g.op("Gather", g.constant(shares, np.float32), count)
        y = g.op("Mul", g.op("ReduceSum", centred, axis, keepdims=0), share)
    elif kind == "MP":
        axis = g.constant([1], np.int64)
        gone = g.op("Sub", rows, g.constant(1, np.float32))
        low = g.op("Mul", gone, g.constant(128, np.float32))
        y = g.op("ReduceMax", g.op("Add", centred, low), axis, keepdims=0)
        factor = 1 if table is None else int(np.asarray(table).reshape(()))
        if factor != 1:
            _check_exact(128 * factor)
            y = g.op("Mul", y, g.constant(factor, np.float32))
    else:
        if head is None or head.signs.shape != (members * classes, classes):
            raise ValueError("CC needs weights (members * classes, classes)")
        largest = np.abs(head.signs.astype(np.int64)).sum(0) * 128 + np.abs(head.offset)
        _check_exact(int(largest.max()))
        flat = g.op("Flatten", centred)
        y = g.op("MatMul", flat, g.constant(head.signs, np.float32))
        y = g.op("Add", y, g.constant(head.offset, np.float32))
    g.op("Cast", y, to=TensorProto.INT32, out="logits")
    return g.build(
        [("scores", (members, classes)), ("mask", (members,))],
        [("logits", TensorProto.INT32, (classes,))],
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
    """
    head.check_exact()
    channels, height, width = feature_map
    bits = channels * height * width
    g = _Graph()
    table = np.where(np.arange(256)[:, None] >> np.arange(8) & 1, 129, 127)
    index = g.op("Cast", "features", to=TensorProto.INT32)
    x = g.op("Gather", g.constant(table, np.uint8), index)
    shape = [0, members, packed_bytes(bits) * 8]
    x = g.op("Reshape", x, g.constant(shape, np.int64))
    if bits % 8:
        ends = (g.constant([0], np.int64), g.constant([bits], np.int64))
        x = g.op("Slice", x, *ends, g.constant([2], np.int64))
    there = g.op("Cast", g.op("Unsqueeze", "mask", g.constant([2], np.int64)), to=TensorProto.BOOL)
    # For MP a member that is not there must lose against any that is.
    x = g.op("Where", there, x, g.constant(127 if kind == "MP" else 128, np.uint8))
    if kind == "CC":
        channels *= members
    elif kind == "MP":
        wide = g.op("Cast", x, to=TensorProto.INT32)
        x = g.op("ReduceMax", wide, g.constant([1], np.int64), keepdims=0)
        x = g.op("Cast", x, to=_U8)
    else:
        centred = g.op("Sub", g.op("Cast", x, to=_FLOAT), g.constant(128, np.float32))
        total = g.op("ReduceSum", centred, g.constant([1], np.int64), keepdims=0)
        x = g.op("Cast", g.op("Add", total, g.constant(128, np.float32)), to=_U8)
    x = g.op("Reshape", x, g.constant([0, channels, height, width], np.int64))
    one, centre = g.constant(1, np.float32), g.constant(128, np.uint8)
    for number, block in enumerate(blocks):
        block.check_exact(members if kind == "AP" and not number else 1)
        weights = g.op("Cast", g.weights(block.signs), to=_I8)
        x = g.op(
            "QLinearConv", x, one, centre, weights, one, g.constant(0, np.int8), one, centre,
            g.constant(1 - 2 * block.threshold, np.int32), pads=[1, 1, 1, 1],
        )  # fmt: skip
        x = _pool(g, x)
        x = g.op("Clip", x, g.constant(127, np.uint8), g.constant(129, np.uint8))
        if block.flip.any():
            # 127 and 129 differ in the seven bits of 0xFE.
            turn = np.where(block.flip, 0xFE, 0).reshape(1, -1, 1, 1)
            x = g.op("BitwiseXor", x, g.constant(turn, np.uint8))
        height, width, channels = pooled(height), pooled(width), len(block.signs)
    x = g.op("Sub", g.op("Cast", g.op("Flatten", x), to=_FLOAT), g.constant(128, np.float32))
    outputs = [("logits", TensorProto.INT32, (len(head.offset),))]
    if edge_features:
        up = height * width * channels
        _pack(g, x, up, out="edge_features")
        outputs.append(("edge_features", _U8, (packed_bytes(up),)))
    g.op("Cast", _head(g, x, head), to=TensorProto.INT32, out="logits")
    return g.build([("features", (members, packed_bytes(bits))), ("mask", (members,))], outputs)


def _pool(g: _Graph, x: str) -> str:
    return g.op("MaxPool", x, kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1])


def _head(g: _Graph, x: str, head: Head) -> str:
    """(N, F) of +1/-1 -> (N, K) whole numbers, all steps exact."""
    sums = g.op("MatMul", x, g.weights(head.signs))  # weights are +-2: twice the sum
    # Half the multiplier keeps whole numbers: twice the sum is even.
    y = g.op("Mul", sums, g.constant(head.multiplier / 2, np.float32))
    y = g.op("Add", y, g.constant(head.offset, np.float32))
    if head.shift:
        y = g.op("Floor", g.op("Mul", y, g.constant(2.0**-head.shift, np.float32)))
    return y


def _pack(g: _Graph, x: str, bits: int, *, out: str) -> str:
    """(N, bits) of +1/-1 -> (N, B) uint8, bit i of byte b being element 8 b + i."""
    if bits % 8:
        pads = g.constant([0, 0, 0, -bits % 8], np.int64)
        x = g.op("Pad", x, pads, g.constant(-1, np.float32))
    x = g.op("Reshape", x, g.constant([-1, 8], np.int64))
    powers = g.constant(2.0 ** np.arange(8)[:, None] / 2, np.float32)
    x = g.op("Add", g.op("MatMul", x, powers), g.constant(127.5, np.float32))
    x = g.op("Cast", x, to=_U8)
    return g.op("Reshape", x, g.constant([-1, packed_bytes(bits)], np.int64), out=out)
