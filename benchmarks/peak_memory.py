"""Resident memory of a process that runs one contender. Called by `sections`.

Prints two numbers in kB: after its imports, and the peak after loading and running.

    python -m benchmarks.peak_memory ours|float|torch FOLDER

Imports only what the contender needs, so the imports are inside.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

CALLS = 200


def main() -> None:
    kind, folder = sys.argv[1], Path(sys.argv[2])
    arrays = np.load(folder / "inputs.npz")
    if kind == "ours":
        import msgspec

        from ddnn.bundle import SectionInfo
        from ddnn.section import Section

        imported = _status("VmRSS")
        info = msgspec.json.decode((folder / "info.json").read_bytes(), type=SectionInfo)
        section = Section(info, (folder / "ours.onnx").read_bytes())
        inputs = [arrays[name] for name in sorted(arrays) if name.startswith("ours")]
        for _ in range(CALLS):
            section.run_one(*inputs)
    elif kind == "float":
        import os

        os.environ["ORT_DISABLE_TELEMETRY"] = "1"
        import onnxruntime as ort

        imported = _status("VmRSS")
        options = ort.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        session = ort.InferenceSession(
            str(folder / "float.onnx"), options, providers=["CPUExecutionProvider"]
        )
        picture = arrays["theirs"]
        for _ in range(CALLS):
            session.run(None, {"x": picture})
    else:
        import torch

        import benchmarks.plain  # noqa: F401 (its classes are in the file)

        imported = _status("VmRSS")
        torch.set_num_threads(1)
        module = torch.load(folder / "torch.pt", weights_only=False)
        batch = torch.from_numpy(arrays["theirs"])
        with torch.inference_mode():
            for _ in range(CALLS):
                module(batch)
    print(imported, _status("VmHWM"))


def _status(key: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line.split()[1] for line in lines if line.startswith(key)))


if __name__ == "__main__":
    main()
