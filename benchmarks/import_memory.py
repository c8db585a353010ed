"""Memory that a library adds to a service: resident set before and after its import, in MB.

    python -m benchmarks.import_memory nacl.signing
    python -m benchmarks.import_memory cryptography.hazmat.primitives.asymmetric.ed25519

    python -m benchmarks.import_memory device_agent.service ddnn.metrics_server

Beside numpy and onnxruntime, which a service has anyway, and the modules named before it; one
library for each call.
"""

from __future__ import annotations

import importlib
import os
import sys
from pathlib import Path


def resident_mb() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def main() -> None:
    *base, measured = sys.argv[1:]
    for module in ("numpy", "onnxruntime", *base):
        importlib.import_module(module)
    before = resident_mb()
    importlib.import_module(measured)
    print(f"{measured}: {resident_mb() - before:.1f} MB beside {before:.1f} MB")


if __name__ == "__main__":
    main()
