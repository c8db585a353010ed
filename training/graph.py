"""An ONNX graph under construction: nodes, constants, and binary weights as packed bits.

Plain `onnx.helper`; knows nothing of what a section is. Binary weights are collected in one
packed uint8 initializer for the whole file and unpacked by BitShift, BitwiseAnd, Cast, Mul, Sub,
Slice and Reshape. onnxruntime computes that once, when it loads the file, so that run time is
that of plain weights at 1/32 of their size.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

from ddnn.bundle import OPSET

#: onnxruntime 1.20 reads it; newer ones do not change what these graphs mean.
IR_VERSION = 10
FLOAT, U8, I8, I32, BOOL = (
    TensorProto.FLOAT,
    TensorProto.UINT8,
    TensorProto.INT8,
    TensorProto.INT32,
    TensorProto.BOOL,
)
_DTYPES = {FLOAT: np.float32, U8: np.uint8, I8: np.int8, I32: np.int32}


class Graph:
    """Every method returns the name of the value that it adds."""

    def __init__(self) -> None:
        self._nodes: list[onnx.NodeProto] = []
        self._constants: dict[str, npt.NDArray[np.generic]] = {}
        self._signs: list[tuple[str, npt.NDArray[np.int8]]] = []
        self._count = 0

    def op(self, kind: str, *inputs: str, out: str | None = None, **attributes: object) -> str:
        """A node with one output, called `out` if that is given."""
        if out is None:
            self._count += 1
            out = f"t{self._count}"
        self._nodes.append(helper.make_node(kind, list(inputs), [out], **attributes))
        return out

    def constant(self, value: npt.ArrayLike, kind: int) -> str:
        """An initializer of this element type; equal ones are stored once."""
        array = np.ascontiguousarray(
            value, np.int64 if kind == TensorProto.INT64 else _DTYPES[kind]
        )
        for name, known in self._constants.items():
            same = known.dtype == array.dtype and known.shape == array.shape
            if same and np.array_equal(known, array):
                return name
        name = f"c{len(self._constants)}"
        self._constants[name] = array
        return name

    def sizes(self, *values: int) -> str:
        """A constant int64 list, as shapes, axes, starts and pads want it."""
        return self.constant(values, TensorProto.INT64)

    def reshape(self, x: str, *shape: int, out: str | None = None) -> str:
        """0 keeps a dimension, -1 is what is left."""
        return self.op("Reshape", x, self.sizes(*shape), out=out)

    def bits(self, packed: str) -> str:
        """u8 (n, 1) -> u8 (n, 8): 0 and 1, the lowest bit first."""
        shifted = self.op("BitShift", packed, self.constant(np.arange(8), U8), direction="RIGHT")
        return self.op("BitwiseAnd", shifted, self.constant(1, U8))

    def signs(self, signs: npt.NDArray[np.integer]) -> str:
        """A float tensor of +2 and -2 where `signs` is +1 and -1; unpacked when loaded."""
        name = f"w{len(self._signs)}"
        self._signs.append((name, signs.astype(np.int8)))
        return name

    def build(
        self,
        inputs: Sequence[tuple[str, tuple[int, ...]]],
        outputs: Sequence[tuple[str, int, tuple[int, ...]]],
    ) -> bytes:
        """The model's bytes.

        Args:
            inputs: (name, shape without batch), all uint8.
            outputs: (name, element type, shape without batch).
        """
        body, self._nodes = self._nodes, []
        self._unpack()
        graph = helper.make_graph(
            self._nodes + body,
            "s",
            [helper.make_tensor_value_info(n, U8, ["N", *shape]) for n, shape in inputs],
            [helper.make_tensor_value_info(n, kind, ["N", *s]) for n, kind, s in outputs],
            [numpy_helper.from_array(array, name) for name, array in self._constants.items()],
        )
        model = helper.make_model(
            graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION
        )
        model.ClearField("producer_name")
        onnx.checker.check_model(model, full_check=True)
        return model.SerializeToString(deterministic=True)

    def _unpack(self) -> None:
        if not self._signs:
            return
        flat = np.concatenate([signs.reshape(-1) for _, signs in self._signs]) > 0
        packed = self.constant(np.packbits(flat, bitorder="little")[:, None], U8)
        bits = self.op("Cast", self.bits(packed), to=FLOAT)
        wide = self.op("Mul", bits, self.constant(4, FLOAT))
        values = self.reshape(self.op("Sub", wide, self.constant(2, FLOAT)), -1)
        begin = 0
        for name, signs in self._signs:
            end = begin + signs.size
            part = self.op("Slice", values, self.sizes(begin), self.sizes(end))
            self.reshape(part, *signs.shape, out=name)
            begin = end
