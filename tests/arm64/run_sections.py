"""Run bundles' sections and say what came out. Runs on each kind of machine that is compared.

    python run_sections.py FOLDER

FOLDER holds bundle folders. Prints JSON: where it ran; for each bundle and section whether it
passed its own self-test, and hashes of its outputs on random, blank and all-equal inputs at every
optimisation level, with 1 and 2 threads and in batches of 1 and 64; and for each exit the labels,
entropies and exits taken on random logits. Needs no more than a device has.
"""

import hashlib
import json
import platform
import sys
from pathlib import Path

import numpy as np

from ddnn.bundle import output_hash
from ddnn.exit_rule import judge
from ddnn.section import Section, ort
from ddnn.section_file import check_file
from ddnn.store import read_folder

BATCH = 64


def inputs(info, rng, count):
    """Random samples; the first ones blank, white and grey; masks with nobody in the first."""
    result = {}
    for tensor in info.inputs:
        if tensor.name == "mask":
            rows = rng.integers(0, 2, (count, *tensor.shape)).astype(np.uint8)
            rows[0], rows[1:3] = 0, 1
        else:
            rows = rng.integers(0, 256, (count, *tensor.shape)).astype(np.uint8)
            for number, level in enumerate((0, 255, 128)):
                rows[number] = level
        result[tensor.name] = rows
    return result


def section_hashes(info, data):
    """The self-test's verdict, and one hash for each way of running the section."""
    Section(info, data)  # raises where the self-test fails
    rng = np.random.default_rng(int(info.sha256[:8], 16))
    batch = inputs(info, rng, BATCH)
    names = [tensor.name for tensor in info.outputs]
    hashes = {}
    for level in ("DISABLE_ALL", "ENABLE_BASIC", "ENABLE_EXTENDED", "ENABLE_ALL"):
        for threads in (1, 2):
            options = ort.SessionOptions()
            options.graph_optimization_level = getattr(ort.GraphOptimizationLevel, f"ORT_{level}")
            options.intra_op_num_threads = threads
            options.log_severity_level = 4
            contents = check_file(info, data).data
            session = ort.InferenceSession(contents, options, providers=["CPUExecutionProvider"])
            # Large sections at their slowest take minutes under emulation.
            count = 4 if info.size_bytes > 20_000 else BATCH
            rows = {name: array[:count] for name, array in batch.items()}
            whole = dict(zip(names, session.run(names, rows), strict=True))
            hashes[f"{level} {threads} threads"] = output_hash(whole)
            alone = session.run(names, {name: array[1:2] for name, array in rows.items()})
            if any(
                not np.array_equal(whole[n][1:2], row) for n, row in zip(names, alone, strict=True)
            ):
                raise SystemExit(f"{info.role}: a batch of one differs from one of a batch")
    if len(set(hashes.values())) != 1:
        raise SystemExit(f"{info.role}: outputs depend on how it is run: {hashes}")
    return hashes


def exit_hash(scale, threshold, classes):
    """Hash of labels, entropies and exits on logits of all sizes."""
    rng = np.random.default_rng(classes)
    digest = hashlib.sha256()
    for spread in (1, 10, 100, 1000):
        reach = max(1, int(spread / scale / 50))
        for row in rng.integers(-reach, reach + 1, (300, classes)).astype(np.int32):
            verdict = judge(row, scale)
            leaves = threshold is not None and verdict.entropy < threshold
            digest.update(f"{verdict.label} {verdict.entropy!r} {leaves}\n".encode())
    return digest.hexdigest()


def main():
    report = {
        "machine": platform.machine(),
        "versions": {"onnxruntime": ort.__version__, "numpy": np.__version__},
        "results": {},
    }
    for folder in sorted(path for path in Path(sys.argv[1]).iterdir() if path.is_dir()):
        bundle = read_folder(folder)
        for info in bundle.manifest.sections:
            hashes = section_hashes(info, bundle.sections[info.role])
            for way, value in hashes.items():
                report["results"][f"{folder.name} {info.role} {way}"] = value
            print(f"{folder.name} {info.role}", file=sys.stderr)
        for name, exit_ in bundle.manifest.exits.items():
            report["results"][f"{folder.name} exit {name}"] = exit_hash(
                exit_.logit_scale, exit_.threshold, len(bundle.manifest.classes)
            )
    print(json.dumps(report))


if __name__ == "__main__":
    main()
