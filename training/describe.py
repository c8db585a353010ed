"""A section file -> what the manifest says of it."""

from __future__ import annotations

import hashlib

import msgspec
import onnx

from ddnn.bundle import SectionInfo, SelfTest, Tensor
from ddnn.section import Section

SELF_TEST_BATCH = 4
_DTYPES = {onnx.TensorProto.UINT8: "uint8", onnx.TensorProto.INT32: "int32"}


def describe_section(role: str, data: bytes, seed: str = "ddnn") -> SectionInfo:
    """Read a section's signature and make its self-test by running it once."""
    graph = onnx.load_model_from_string(data).graph
    info = SectionInfo(
        role=role,
        sha256=hashlib.sha256(data).hexdigest(),
        size_bytes=len(data),
        opset=onnx.load_model_from_string(data).opset_import[0].version,
        inputs=tuple(_tensor(value) for value in graph.input),
        outputs=tuple(_tensor(value) for value in graph.output),
        self_test=SelfTest(seed=seed, batch=SELF_TEST_BATCH, sha256="0" * 64),
    )
    expected = Section(info, data, self_test=False).self_test_hash()
    test = SelfTest(seed=seed, batch=SELF_TEST_BATCH, sha256=expected)
    return msgspec.structs.replace(info, self_test=test)


def _tensor(value: onnx.ValueInfoProto) -> Tensor:
    kind = value.type.tensor_type
    shape = tuple(dim.dim_value for dim in kind.shape.dim[1:])
    return Tensor(name=value.name, dtype=_DTYPES[kind.elem_type], shape=shape)
