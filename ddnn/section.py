"""One ONNX section, ready to run: the only file that imports onnxruntime.

onnxruntime's Linux wheels carry an uploader that is on by default; it is switched off here,
before the import, for every process of the project.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from functools import partial
from typing import Any

os.environ["ORT_DISABLE_TELEMETRY"] = "1"

import numpy as np
import numpy.typing as npt
import onnxruntime as ort

from ddnn.bundle import Bundle, SectionInfo, output_hash, self_test_inputs
from ddnn.errors import BundleError
from ddnn.section_file import Contents, check_file

Array = npt.NDArray[Any]

#: onnxruntime lays channels out in blocks of so many and fills up the rest.
LAYOUT_BLOCK = 16


def _limit_memory() -> None:
    """Let the sections of this process have at most half of the machine's memory.

    A few hundred bytes of allowed operators can ask for terabytes; this makes that a refused
    self-test. One arena for all sections, grown by what is needed.
    """
    half = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2
    kind = ort.OrtAllocatorType.ORT_ARENA_ALLOCATOR
    ort.create_and_register_allocator(
        ort.OrtMemoryInfo("Cpu", kind, 0, ort.OrtMemType.DEFAULT),
        ort.OrtArenaCfg({"max_mem": half, "arena_extend_strategy": 1}),
    )


_limit_memory()


class Section:
    """A section of a bundle in an onnxruntime session of one thread.

    The file has been checked against the manifest's hash by `ddnn.bundle.assemble`; here its
    contents are compared with the manifest (`ddnn.section_file`) before onnxruntime loads it, and
    its self-test is run before anything is made of its answers.

    Args:
        info: what the manifest says of it.
        data: ONNX bytes.
        threads: of onnxruntime; the answers do not depend on it.
        self_test: False only where the manifest's self-test is being made.

    Raises:
        BundleError: the bytes are no usable section, do not fit the manifest, or fail the test.
    """

    def __init__(
        self, info: SectionInfo, data: bytes, *, threads: int = 1, self_test: bool = True
    ) -> None:
        self.info = info
        contents = check_file(info, data)
        try:
            self._session = _session(contents, threads)
        except Exception as error:  # onnxruntime's exceptions have no common base of their own
            raise BundleError(f"section {info.role} cannot be loaded: {error}") from error
        self._outputs = [tensor.name for tensor in info.outputs]
        self._batches: dict[int, Batch] = {}
        self._buffers: tuple[Array, ...] = ()
        if self_test:
            self._run_self_test()

    def self_test_hash(self) -> str:
        """Hash of the outputs on the self-test's inputs."""
        return output_hash(self.run_batch(self_test_inputs(self.info)))

    def run_batch(self, inputs: dict[str, npt.NDArray[np.uint8]]) -> dict[str, Array]:
        """Run N samples: name -> (N, ...) in, name -> (N, ...) out, freshly allocated."""
        results = self._session.run(self._outputs, inputs)
        return dict(zip(self._outputs, results, strict=True))

    def batch(self, size: int) -> Batch:
        """Buffers for so many samples, bound once and used again: no run allocates anything.

        A batch of another size may have the same memory: use one at a time.
        """
        batch = self._batches.get(size)
        if batch is None:
            if not self._buffers or size > len(self._buffers[0]):
                self._batches.clear()
                tensors = (*self.info.inputs, *self.info.outputs)
                self._buffers = tuple(np.zeros((size, *t.shape), t.dtype) for t in tensors)
            own = [buffer[:size] for buffer in self._buffers]
            batch = self._batches[size] = Batch(self._session, self.info, own)
        return batch

    def run_one(self, *inputs: npt.NDArray[np.uint8]) -> tuple[Array, ...]:
        """Run one sample without a batch dimension; inputs and outputs in the manifest's order.

        The outputs are views that the next run overwrites.
        """
        single = self._batches.get(1) or self.batch(1)
        if single.only is not None and len(inputs) == 1:
            single.only[...] = inputs[0]  # a device's picture: without the loop's 0.5 us
        else:
            for row, value in zip(single.first_inputs, inputs, strict=True):
                row[...] = value
        single.run()
        return single.first_outputs

    def run_bytes(self, *inputs: bytes) -> tuple[Array, ...]:
        """The same of inputs as their bytes, one for each number.

        Raises:
            ValueError: an input has another length than it should have.
        """
        single = self._batches.get(1) or self.batch(1)
        for memory, value in zip(single.first_bytes, inputs, strict=True):
            memory[:] = value
        single.run()
        return single.first_outputs

    def _run_self_test(self) -> None:
        try:
            got = self.self_test_hash()
        except Exception as error:  # as above: out of memory, a shape that does not fit, ...
            raise BundleError(f"section {self.info.role} failed its self-test: {error}") from error
        if got != self.info.self_test.sha256:
            raise BundleError(
                f"section {self.info.role} failed its self-test (outputs hash to {got})"
            )


def _session(contents: Contents, threads: int) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 4  # what goes wrong is raised; the rest is of no use to a person
    options.add_session_config_entry("session.use_env_allocators", "1")
    # Blocks of channels are a loss where a convolution has too few to fill one (4 filters on
    # x86-64: 1.5 of 21 us).
    small = min(contents.conv_outputs, default=LAYOUT_BLOCK) < LAYOUT_BLOCK
    return ort.InferenceSession(
        contents.data,
        options,
        providers=["CPUExecutionProvider"],
        disabled_optimizers=["NchwcTransformer"] if small else [],
    )


class Batch:
    """N samples in buffers that onnxruntime reads from and writes to directly.

    Args:
        buffers: one for each input and output, in the manifest's order.

    Attributes:
        inputs: (N, ...) each, to fill before a run, in the manifest's order.
        outputs: (N, ...) each, that a run fills.
        first_inputs, first_outputs: of the first sample.
        first_bytes: the memory of `first_inputs`.
        only: the first sample's input where there is one input; else None.
        run: runs the session on them.
    """

    def __init__(
        self, session: ort.InferenceSession, info: SectionInfo, buffers: Sequence[Array]
    ) -> None:
        binding = session.io_binding()
        # An OrtValue on the CPU shares the memory of its numpy array; both must stay alive.
        self._values = [ort.OrtValue.ortvalue_from_numpy(buffer) for buffer in buffers]
        count = len(info.inputs)
        self.inputs, self.outputs = tuple(buffers[:count]), tuple(buffers[count:])
        self.first_inputs = tuple(buffer[0] for buffer in self.inputs)
        self.first_bytes = tuple(memoryview(row).cast("B") for row in self.first_inputs)
        self.first_outputs = tuple(buffer[0] for buffer in self.outputs)
        self.only = self.first_inputs[0] if count == 1 else None
        for tensor, value in zip(info.inputs, self._values, strict=False):
            binding.bind_ortvalue_input(tensor.name, value)
        for tensor, value in zip(info.outputs, self._values[count:], strict=True):
            binding.bind_ortvalue_output(tensor.name, value)
        self.run = partial(session.run_with_iobinding, binding)


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
