"""What the arm64 comparison and the benchmark stand on: inputs that tell, contenders alike."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest

from benchmarks import sections as benchmark
from ddnn.section import Section, load_sections
from tests.arm64.bundles import bundles

ROOT = Path(__file__).resolve().parents[2]
MADE = bundles()


@pytest.mark.parametrize("name", MADE)
def test_outputs_that_are_compared_between_machines_vary(name):
    """Hashes of constant outputs would agree whatever the machine does."""
    rng = np.random.default_rng(0)
    for role, section in load_sections(MADE[name]).items():
        inputs = {
            t.name: rng.integers(0, 2 if t.name == "mask" else 256, (32, *t.shape), np.uint8)
            for t in section.info.inputs
        }
        for output, array in section.run_batch(inputs).items():
            assert len(np.unique(array.reshape(32, -1), axis=0)) > 4, f"{role} {output}"


def test_bundles_have_every_kind_of_topology():
    assert not MADE["devices-cloud"].manifest.topology.edges
    assert len(MADE["ap"].manifest.topology.edges) == 2
    assert MADE["no-local-exit"].manifest.section("local/0") is None
    assert MADE["no-local-exit"].manifest.section("cloud") is None


def test_contenders_compute_the_same_function():
    for case in benchmark.cases():
        session = ort.InferenceSession(case.export(), providers=["CPUExecutionProvider"])
        benchmark.check_same_function(case, Section(case.info, case.data), session)


def test_contender_that_computes_something_else_is_found_out():
    case, other = benchmark.cases()[0], benchmark.cases()[0]
    other.module.blocks[0].conv.weight.data[0] *= -1
    session = ort.InferenceSession(other.export(), providers=["CPUExecutionProvider"])
    with pytest.raises(SystemExit, match="differ"):
        benchmark.check_same_function(case, Section(case.info, case.data), session)


def test_arm64_comparison_says_why_it_is_skipped(tmp_path):
    """A machine that is none of those it works on: never a silent success."""
    (tmp_path / "uname").write_text(
        "#!/bin/sh\ncase $1 in -s) echo Linux ;; *) echo riscv64 ;; esac\n"
    )
    (tmp_path / "uname").chmod(0o755)
    done = subprocess.run(
        [str(ROOT / "scripts" / "test-arm64"), sys.executable],
        env={"PATH": f"{tmp_path}:/usr/bin:/bin"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 77
    assert "SKIPPED make test-arm64: it needs x86-64 Linux" in done.stderr
