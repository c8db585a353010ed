"""One ONNX section, ready to run: the only file that imports onnxruntime.

onnxruntime's Linux wheels carry an uploader that is on by default; it is switched off here,
before the import, for every process of the project.
"""

from __future__ import annotations

import os
from typing import Any

os.environ["ORT_DISABLE_TELEMETRY"] = "1"

import numpy as np
import numpy.typing as npt
import onnxruntime as ort

from ddnn.bundle import Bundle, SectionInfo, output_hash, self_test_inputs
from ddnn.errors import BundleError

Array = npt.NDArray[Any]


class Section:
    """A section of a bundle in an onnxruntime session of one thread.

    The file has been checked against the manifest's hash by `ddnn.bundle.assemble`; here its
    real inputs and outputs are compared with the manifest and its self-test is run, before
    anything is made of its answers.

    Args:
        info: what the manifest says of it.
        data: ONNX bytes.
        threads: of onnxruntime; the answers do not depend on it.
        self_test: False only where the manifest's self-test is being made.

    Raises:
        BundleError: the bytes are no usable model, do not fit the manifest, or fail the test.
    """

    def __init__(
        self, info: SectionInfo, data: bytes, *, threads: int = 1, self_test: bool = True
    ) -> None:
        self.info = info
        options = ort.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        try:
            self._session = ort.InferenceSession(data, options, providers=["CPUExecutionProvider"])
        except Exception as error:  # onnxruntime's exceptions have no common base of their own
            raise BundleError(f"section {info.role} cannot be loaded: {error}") from error
        self._check_signature()
        self._outputs = [tensor.name for tensor in info.outputs]
        self._single: _Bound | None = None
        if self_test and (got := self.self_test_hash()) != info.self_test.sha256:
            raise BundleError(f"section {info.role} failed its self-test (outputs hash to {got})")

    def self_test_hash(self) -> str:
        """Hash of the outputs on the self-test's inputs."""
        return output_hash(self.run_batch(self_test_inputs(self.info)))

    def run_batch(self, inputs: dict[str, npt.NDArray[np.uint8]]) -> dict[str, Array]:
        """Run N samples: name -> (N, ...) in, name -> (N, ...) out, freshly allocated."""
        results = self._session.run(self._outputs, inputs)
        return dict(zip(self._outputs, results, strict=True))

    def run_one(self, *inputs: npt.NDArray[np.uint8]) -> tuple[Array, ...]:
        """Run one sample without a batch dimension; inputs and outputs in the manifest's order.

        Buffers are bound once and used again: the outputs are views that the next call
        overwrites.
        """
        if self._single is None:
            self._single = _Bound(self._session, self.info)
        return self._single.run(inputs)

    def _check_signature(self) -> None:
        for kind, declared, found in (
            ("input", self.info.inputs, self._session.get_inputs()),
            ("output", self.info.outputs, self._session.get_outputs()),
        ):
            want = [(t.name, f"tensor({t.dtype})", tuple(t.shape)) for t in declared]
            have = [(t.name, t.type, tuple(t.shape[1:])) for t in found]
            if want != have:
                raise BundleError(
                    f"section {self.info.role}: {kind}s are {have}; the manifest says {want}"
                )


class _Bound:
    """A batch of one in buffers that onnxruntime reads from and writes to directly."""

    def __init__(self, session: ort.InferenceSession, info: SectionInfo) -> None:
        self._session = session
        self._binding = session.io_binding()
        self._in = [np.zeros((1, *t.shape), t.dtype) for t in info.inputs]
        self._out = [np.zeros((1, *t.shape), t.dtype) for t in info.outputs]
        # An OrtValue on the CPU shares the memory of its numpy array; both must stay alive.
        self._values = [ort.OrtValue.ortvalue_from_numpy(a) for a in (*self._in, *self._out)]
        for tensor, value in zip(info.inputs, self._values, strict=False):
            self._binding.bind_ortvalue_input(tensor.name, value)
        for tensor, value in zip(info.outputs, self._values[len(self._in) :], strict=True):
            self._binding.bind_ortvalue_output(tensor.name, value)
        self._views = tuple(a[0] for a in self._out)

    def run(self, inputs: tuple[npt.NDArray[np.uint8], ...]) -> tuple[Array, ...]:
        for buffer, value in zip(self._in, inputs, strict=True):
            buffer[0] = value
        self._session.run_with_iobinding(self._binding)
        return self._views


def load_sections(bundle: Bundle, *, threads: int = 1) -> dict[str, Section]:
    """Every section that `bundle` holds, role -> loaded and self-tested Section.

    Raises:
        BundleError: as `Section`.
    """
    return {
        info.role: Section(info, bundle.sections[info.role], threads=threads)
        for info in bundle.manifest.sections
        if info.role in bundle.sections
    }
