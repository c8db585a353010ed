"""What may be in a section file: checked before onnxruntime is given a byte of it.

A section is an ONNX model in a narrow subset. The subset is written down here as a protobuf
schema: field numbers of onnx.proto3, but only those fields that a section needs. Protobuf keeps
whatever else a file holds as unknown fields, and one of those anywhere refuses the file. So there
are no subgraphs, functions, external or sparse data, quantisation hints, training graphs or
metadata in a section, nor whatever onnx.proto3 may grow.

onnxruntime is given the checked message written anew, not the file's own bytes: there is no
second reading of them that could differ from the one that was checked.

Needs only `protobuf`, which onnxruntime brings along (2.7 MB of memory; the `onnx` package would
take 12). Field numbers: https://github.com/onnx/onnx/blob/main/onnx/onnx.proto3.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, NamedTuple

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.message import DecodeError, Message
from google.protobuf.unknown_fields import UnknownFieldSet

from ddnn.bundle import OPSET, SectionInfo
from ddnn.errors import BundleError

#: Operators of the default domain; what `training.sections` uses and no more.
OPERATORS = frozenset(
    {"Add", "BitShift", "BitwiseAnd", "BitwiseXor", "Cast", "Clip", "Conv", "Flatten", "Floor"}
    | {"Gather", "Gemm", "MatMul", "MaxPool", "Mul", "Pad", "QLinearConv", "QuantizeLinear"}
    | {"ReduceMax", "ReduceMin", "ReduceSum", "Reshape", "Slice", "Sub", "Transpose"}
    | {"Unsqueeze", "Where"}
)
#: onnxruntime 1.20, the oldest one supported, reads this version of the file format.
MAX_IR_VERSION = 10
MAX_NODES = 1000

#: Message -> fields as "name number type", `*` for repeated. A type is a message or a scalar.
_SCHEMA = {
    "Model": "ir_version 1 int64, graph 7 Graph, opset_import 8 Opset*",
    "Opset": "domain 1 string, version 2 int64",
    "Graph": "node 1 Node*, name 2 string, initializer 5 Tensor*, "
    "input 11 Value*, output 12 Value*",
    "Node": "input 1 string*, output 2 string*, name 3 string, op_type 4 string, "
    "attribute 5 Attribute*, domain 7 string",
    "Attribute": "name 1 string, f 2 float, i 3 int64, s 4 bytes, floats 7 float*, ints 8 int64*, "
    "type 20 int32",
    "Tensor": "dims 1 int64*, data_type 2 int32, name 8 string, raw_data 9 bytes",
    "Value": "name 1 string, type 2 Type",
    "Type": "tensor_type 1 TensorType",
    "TensorType": "elem_type 1 int32, shape 2 Shape",
    "Shape": "dim 1 Dim*",
    "Dim": "dim_value 1 int64, dim_param 2 string",
}
_SCALARS = {"int64": 3, "int32": 5, "float": 2, "string": 9, "bytes": 12}
_MESSAGE, _OPTIONAL, _REPEATED = 11, 1, 3
#: ONNX element types: name and bytes per element.
_ELEMENTS = {1: ("float32", 4), 2: ("uint8", 1), 3: ("int8", 1), 6: ("int32", 4), 7: ("int64", 8)}


class Contents(NamedTuple):
    """A checked section.

    Attributes:
        data: what onnxruntime may load.
        graph: the ONNX graph: `node`, `initializer`, `input`, `output` as in onnx.proto3.
        conv_outputs: output channels of each float Conv.
    """

    data: bytes
    graph: Any
    conv_outputs: tuple[int, ...]


def check_file(info: SectionInfo, data: bytes) -> Contents:
    """Check that a section file is one and fits its manifest.

    Raises:
        BundleError: larger than stated, not an ONNX model, anything outside the subset, another
            opset, or other inputs or outputs than the manifest's.
    """
    if len(data) != info.size_bytes:
        raise BundleError(
            f"section {info.role} has {len(data)} bytes; the manifest says {info.size_bytes}"
        )
    try:
        return _check(info, data)
    except (_Refusal, UnicodeDecodeError) as reason:
        raise BundleError(f"section {info.role} is refused: {reason}") from None


class _Refusal(Exception):
    """Why a file is not a section."""


def _check(info: SectionInfo, data: bytes) -> Contents:
    model: Any = _model_class()()
    try:
        model.ParseFromString(data)
    except DecodeError:
        raise _Refusal("it is not an ONNX model") from None
    for message in _walk(model):
        if unknown := list(UnknownFieldSet(message)):
            name = message.DESCRIPTOR.name
            raise _Refusal(f"{name} has field {unknown[0].field_number}, which sections do not use")
    _check_versions(info, model)
    graph = model.graph
    if len(graph.node) > MAX_NODES:
        raise _Refusal(f"{len(graph.node)} operators; at most {MAX_NODES} are allowed")
    for node in graph.node:
        if node.domain:
            raise _Refusal(f"operator {node.op_type!r} of domain {node.domain!r} is not allowed")
        if node.op_type not in OPERATORS:
            raise _Refusal(f"operator {node.op_type!r} is not allowed")
    for tensor in graph.initializer:
        _check_tensor(tensor)
    _check_values("inputs", info.inputs, graph.input)
    _check_values("outputs", info.outputs, graph.output)
    sizes = {tensor.name: list(tensor.dims) for tensor in graph.initializer}
    return Contents(
        model.SerializeToString(deterministic=True),
        graph,
        tuple(
            sizes[node.input[2]][0]
            for node in graph.node
            if node.op_type == "Conv" and len(node.input) > 2 and sizes.get(node.input[2])
        ),
    )


def _check_versions(info: SectionInfo, model: Any) -> None:
    opsets = [(opset.domain, opset.version) for opset in model.opset_import]
    if opsets != [("", info.opset)]:
        raise _Refusal(f"its opset is {opsets}; the manifest says {info.opset}")
    if info.opset != OPSET:
        raise _Refusal(f"opset {info.opset} is not the one that sections use, {OPSET}")
    if not 1 <= model.ir_version <= MAX_IR_VERSION:
        raise _Refusal(f"IR version {model.ir_version}; at most {MAX_IR_VERSION} is allowed")


def _check_tensor(tensor: Any) -> None:
    if tensor.data_type not in _ELEMENTS:
        raise _Refusal(f"constant {tensor.name!r} has element type {tensor.data_type}")
    name, size = _ELEMENTS[tensor.data_type]
    dims = list(tensor.dims)
    if min(dims, default=1) < 0 or len(tensor.raw_data) != math.prod(dims) * size:
        raise _Refusal(f"constant {tensor.name!r} has not the data of {name} {dims}")


def _check_values(kind: str, declared: tuple[Any, ...], values: Any) -> None:
    want = [(tensor.name, tensor.dtype, tuple(tensor.shape)) for tensor in declared]
    have = [_signature(value) for value in values]
    if have != want:
        raise _Refusal(f"its {kind} are {have}; the manifest says {want}")


def _signature(value: Any) -> tuple[str, str, tuple[int, ...]]:
    """(name, dtype, shape without batch), a free dimension being 0."""
    kind = value.type.tensor_type
    dims = list(kind.shape.dim)
    if not dims or not dims[0].dim_param:
        raise _Refusal(f"{value.name!r} has no free batch dimension")
    name, _ = _ELEMENTS.get(kind.elem_type, (f"element type {kind.elem_type}", 0))
    return value.name, name, tuple(dim.dim_value for dim in dims[1:])


def _walk(message: Any) -> Iterator[Any]:
    """The message and all those inside it."""
    yield message
    for field, value in message.ListFields():
        if field.message_type is not None:
            for inner in (value,) if isinstance(value, Message) else value:
                yield from _walk(inner)


_class: type[Message] | None = None


def _model_class() -> type[Message]:
    """The Model message of `_SCHEMA`, made once, in a pool of its own."""
    global _class
    if _class is None:
        file = descriptor_pb2.FileDescriptorProto(
            name="ddnn_section.proto", package="ddnn", syntax="proto2"
        )
        for name, fields in _SCHEMA.items():
            message = file.message_type.add(name=name)
            for field in fields.split(", "):
                label, number, kind = field.split()
                repeated, kind = kind.endswith("*"), kind.rstrip("*")
                message.field.add(
                    name=label,
                    number=int(number),
                    label=_REPEATED if repeated else _OPTIONAL,
                    type=_SCALARS.get(kind, _MESSAGE),
                    type_name=None if kind in _SCALARS else f".ddnn.{kind}",
                )
        pool = descriptor_pool.DescriptorPool()
        pool.Add(file)
        _class = message_factory.GetMessageClass(pool.FindMessageTypeByName("ddnn.Model"))
    return _class
