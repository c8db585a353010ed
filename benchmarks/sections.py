"""Our sections beside the same network exported as float, and beside torch.

    python -m benchmarks.sections [--rounds N] [--write-docs]

Per image latency of one thread, as processor time of that thread (there is no other, and nobody
waits for anything): on an idle machine the same as by the clock, on a busy one what it would be
there. Interleaved: in every round each contender runs a few bursts of calls, the fastest of which
counts; ratios are taken within a round, so that whatever else the machine does hits all alike,
and the median over rounds is given. File sizes. Peak resident memory of a fresh process that
imports what it needs, loads the file and runs it. Before anything is timed the outputs are
compared: the same feature bits, the same logits to within the rounding of ours. Results go to
build/bench/sections.json.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

os.environ["OMP_NUM_THREADS"] = "1"

import msgspec
import numpy as np
import onnxruntime as ort
import torch

from benchmarks import plain
from benchmarks.machine import machine
from ddnn.bundle import (
    Bundle,
    Image,
    Manifest,
    SectionInfo,
    Topology,
    encode_manifest,
)
from ddnn.section import Section
from device_agent.agent import Agent
from training.describe import describe_section
from training.export import build_sections
from training.network import SCORE_ZERO, Network
from training.options import NetworkOptions

ROOT = Path(__file__).resolve().parent.parent
OUT = ROOT / "build" / "bench" / "sections.json"
DOCS = ROOT / "docs" / "benchmarks.md"
BEGIN, END = "<!-- made by benchmarks.sections: begin -->", "<!-- end -->"
SAMPLES = 24
BURSTS = 5
SIX = (tuple(range(6)),)

PAPER = NetworkOptions(
    cameras=6, classes=3, height=32, width=32, channels=3, edges=SIX,
    device_filters=(4,), edge_filters=(16,), cloud_filters=(32, 64), feature_aggregation="CC",
)  # fmt: skip
LARGE = NetworkOptions(
    cameras=1, classes=3, height=96, width=96, channels=3, edges=(),
    device_filters=(32, 64, 128, 256),
)  # fmt: skip
#: Targets by case: file at most 1/n, latency at most so many times the float export's, torch at
#: least so many times ours.
TARGETS: dict[str, dict[str, float]] = {
    "device f=4": {"size": 1 / 5, "latency": 0.9, "torch": 3.0},
    "device 96x96": {"size": 1 / 25, "latency": 0.4, "torch": 3.0},
}


@dataclass
class Case:
    """One section and its contenders.

    Attributes:
        info, data: ours.
        module: the same in torch.
        ours, theirs: `SAMPLES` inputs for each; theirs have a batch dimension.
        scale: ours' logits or centred scores times this are the float ones.
        calls: per burst.
    """

    name: str
    info: SectionInfo
    data: bytes
    module: torch.nn.Module
    ours: list[tuple[np.ndarray, ...]]
    theirs: list[np.ndarray]
    scale: float
    calls: int

    def export(self) -> bytes:
        """The ordinary float file."""
        return plain.export(self.module, torch.from_numpy(self.theirs[0]))


def randomise(network: Network, seed: int) -> Network:
    """Random weights and batch norm such that features and logits vary, flipped channels too."""
    torch.manual_seed(seed)
    with torch.no_grad():
        for name, module in network.named_modules():
            if hasattr(module, "conv"):
                norm, inputs = module.norm, module.conv.latent[0].numel()
                deviation = inputs**0.5 * (100 if name.endswith("devices.blocks.0") else 1)
                count = len(norm.gamma)
                norm.running_mean.copy_(deviation * (1 + 0.5 * torch.randn(count)))
                norm.running_var.copy_(deviation**2 * (0.5 + torch.rand(count)))
                flip = torch.where(torch.rand(count) < 0.25, -1.0, 1.0)
                norm.gamma.copy_(flip * (0.5 + torch.rand(count)))
                norm.beta.copy_(0.3 * torch.randn(count))
            elif hasattr(module, "linear"):
                module.norm.running_var.fill_(float(module.linear.latent.shape[2]))
        network.score_scale.fill_(3 / 127)
    return network.eval()


def cases() -> list[Case]:
    """The paper's three sections and a large one, on random inputs."""
    rng = np.random.default_rng(0)
    result = []
    paper, large = (randomise(Network(options), 0) for options in (PAPER, LARGE))
    built = build_sections(paper)
    result.append(_device_case("device f=4", rng, paper, built.files["device/0"], calls=SAMPLES))
    for tier, fusion, members, shape in (
        ("edge", paper.edges[0], 6, paper.devices.feature_shape),
        ("cloud", paper.cloud, 1, paper.edges[0].feature_shape),
    ):
        role = "edge/0" if tier == "edge" else "cloud"
        packed = rng.integers(0, 256, (SAMPLES, members, int(np.prod(shape)) // 8), np.uint8)
        bits = np.unpackbits(packed, axis=2, bitorder="little").astype(np.float32) * 2 - 1
        result.append(
            Case(
                tier,
                describe_section(role, built.files[role]),
                built.files[role],
                plain.Upper(fusion).eval(),
                [(row, np.ones(members, np.uint8)) for row in packed],
                [row.reshape(1, members, *shape) for row in bits],
                built.scales["edge" if tier == "edge" else "cloud"],
                calls=SAMPLES,
            )
        )
    files = build_sections(large).files
    result.append(_device_case("device 96x96", rng, large, files["device/0"], calls=2))
    return result


def _device_case(
    name: str, rng: np.random.Generator, network: Network, data: bytes, calls: int
) -> Case:
    options = network.options
    shape = (SAMPLES, options.height, options.width, options.channels)
    images = rng.integers(0, 256, shape, np.uint8)
    return Case(
        name,
        describe_section("device/0", data),
        data,
        plain.Device(network.devices, 0).eval(),
        [(image,) for image in images],
        [image[None] for image in images],
        float(network.score_scale),
        calls,
    )


def check_same_function(case: Case, section: Section, session: Any) -> None:
    """Raise SystemExit where the contenders do not compute the same."""
    steps = []
    for ours, theirs in zip(case.ours, case.theirs, strict=True):
        got = dict(zip((t.name for t in case.info.outputs), section.run_one(*ours), strict=True))
        logits, features = session.run(["logits", "features"], {"x": theirs})
        with torch.inference_mode():
            eager = [part.numpy() for part in case.module(torch.from_numpy(theirs))]
        packed = np.packbits(features.reshape(-1) > 0, bitorder="little")
        if not np.array_equal(eager[1], features) or not np.allclose(eager[0], logits, atol=1e-3):
            raise SystemExit(f"{case.name}: torch and its export differ")
        for name in ("features", "edge_features"):
            if name in got and not np.array_equal(got[name], packed):
                raise SystemExit(f"{case.name}: {name} differ from the float export's")
        if "scores" in got:
            wanted = np.clip(np.floor(logits[0] / case.scale + 0.5), -SCORE_ZERO, 127)
            steps.append(np.abs(got["scores"].astype(int) - SCORE_ZERO - wanted).max())
        else:
            steps.append(np.abs(got["logits"] * case.scale - logits[0]).max() / 0.02)
    if max(steps) > 1:
        raise SystemExit(f"{case.name}: scores or logits differ from the float export's")


def latencies(functions: dict[str, Callable[[int], object]], rounds: int, calls: int) -> Any:
    """Microseconds per call, (rounds,) for each name; interleaved.

    A round's time is the fastest of `BURSTS` short bursts of calls: one that found its caches
    as it had left them.
    """
    times: dict[str, list[float]] = {name: [] for name in functions}
    for number in range(rounds + 3):
        for name, function in functions.items():
            function(0)
            bursts = []
            for _ in range(BURSTS):
                begin = time.thread_time()
                for call in range(calls):
                    function(call % SAMPLES)
                bursts.append((time.thread_time() - begin) / calls * 1e6)
            if number >= 3:  # the first ones warm up
                times[name].append(min(bursts))
    return {name: np.array(values) for name, values in times.items()}


def contenders(case: Case, exported: bytes) -> dict[str, Callable[[int], object]]:
    """Ours as an agent calls it, float onnxruntime and torch as their documentation does."""
    section = Section(case.info, case.data)
    options = ort.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = ort.InferenceSession(exported, options, providers=["CPUExecutionProvider"])
    check_same_function(case, section, session)

    def run_torch(n: int) -> object:
        with torch.inference_mode():
            return case.module(torch.from_numpy(case.theirs[n]))

    return {
        "ours": lambda n: section.run_one(*case.ours[n]),
        "float": lambda n: session.run(None, {"x": case.theirs[n]}),
        "torch": run_torch,
    }


def measure(case: Case, rounds: int) -> dict[str, Any]:
    """Everything about one case."""
    exported = case.export()
    times = latencies(contenders(case, exported), rounds, case.calls)
    return {
        "latency_us": {name: round(float(np.median(t)), 1) for name, t in times.items()},
        "ours_to_float": round(float(np.median(times["ours"] / times["float"])), 3),
        "torch_to_ours": round(float(np.median(times["torch"] / times["ours"])), 2),
        "file_bytes": {"ours": len(case.data), "float": len(exported)},
        "rss_mb": memory(case, exported),
    }


def measure_agent(case: Case, rounds: int) -> dict[str, float]:
    """From an image array to the SUMMARY's bytes: the agent's Python beside the session's time."""
    agent = Agent(0, boot=1)
    manifest = Manifest(
        name="bench",
        version=1,
        created="2026-01-01T00:00:00Z",
        classes=("a", "b", "c"),
        image=Image(height=32, width=32, channels=3),
        topology=Topology(cameras=1),
        exits={},
        sections=(case.info,),
    )
    agent.load(Bundle(manifest, encode_manifest(manifest), {"device/0": case.data}))
    section = Section(case.info, case.data)
    section.run_one(*case.ours[0])
    session_alone = section.batch(1).run  # the bound session call and nothing else
    times = latencies(
        {
            "view": lambda n: agent.view(n, case.ours[n][0]),
            "session": lambda n: session_alone(),
        },
        rounds,
        case.calls,
    )
    return {
        "view_us": round(float(np.median(times["view"])), 1),
        "session_us": round(float(np.median(times["session"])), 1),
        "python_us": round(float(np.median(times["view"] - times["session"])), 1),
    }


def memory(case: Case, exported: bytes) -> dict[str, dict[str, float]]:
    """Resident memory in MB of a fresh process for each contender: after its imports, and peak."""
    result = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "ours.onnx").write_bytes(case.data)
        (folder / "info.json").write_bytes(msgspec.json.encode(case.info))
        (folder / "float.onnx").write_bytes(exported)
        torch.save(case.module, folder / "torch.pt")
        np.savez(folder / "inputs.npz", theirs=case.theirs[0], **_numbered(case.ours[0]))
        for kind in ("ours", "float", "torch"):
            done = subprocess.run(
                [sys.executable, "-m", "benchmarks.peak_memory", kind, str(folder)],
                cwd=ROOT, capture_output=True, text=True, check=True,
            )  # fmt: skip
            imports, peak = (round(int(number) / 1024, 1) for number in done.stdout.split())
            result[kind] = {"imports": imports, "peak": peak}
    return result


def _numbered(arrays: tuple[np.ndarray, ...]) -> dict[str, np.ndarray]:
    return {f"ours{number}": array for number, array in enumerate(arrays)}


def versions() -> dict[str, str | int]:
    """Of the libraries that are compared."""
    return {
        "onnxruntime": ort.__version__,
        "torch": torch.__version__,
        "numpy": np.__version__,
    }


def verdicts(results: dict[str, Any]) -> list[str]:
    """One line for each target: reached or missed, by how much."""
    lines = []
    for name, target in TARGETS.items():
        got = results["cases"][name]
        size = got["file_bytes"]["ours"] / got["file_bytes"]["float"]
        for what, value, limit, good in (
            ("file", size, target["size"], size <= target["size"]),
            ("latency", got["ours_to_float"], target["latency"],
             got["ours_to_float"] <= target["latency"]),
            ("torch", got["torch_to_ours"], target["torch"],
             got["torch_to_ours"] >= target["torch"]),
        ):  # fmt: skip
            word = "reached" if good else "MISSED"
            lines.append(f"{name}: {what} {value:.3g} (target {limit:.3g}) {word}")
    python = results["agent"]["python_us"]
    word = "reached" if python <= 15 else "MISSED"
    lines.append(f"agent: {python} us of Python per frame (target 15) {word}")
    return lines


def report(results: dict[str, Any]) -> str:
    """Markdown, ratios first."""
    lines = [
        "| section | latency, ours / float | latency, torch / ours | file, float / ours |",
        "|---|---|---|---|",
    ]
    for name, got in results["cases"].items():
        size = got["file_bytes"]
        lines.append(
            f"| {name} | **{got['ours_to_float']:.2f}** | **{got['torch_to_ours']:.1f}** "
            f"| **{size['float'] / size['ours']:.1f}** |"
        )
    lines += [
        "",
        "| section | us per image: ours, float, torch | file bytes: ours, float "
        "| peak MB (of which imports): ours, float, torch |",
        "|---|---|---|---|",
    ]
    for name, got in results["cases"].items():
        us = ", ".join(str(value) for value in got["latency_us"].values())
        sizes = ", ".join(str(value) for value in got["file_bytes"].values())
        peaks = ", ".join(f"{m['peak']} ({m['imports']})" for m in got["rss_mb"].values())
        lines.append(f"| {name} | {us} | {sizes} | {peaks} |")
    agent = results["agent"]
    lines += [
        "",
        f"An agent's way from image to message (f=4): {agent['view_us']} us, of which the session "
        f"{agent['session_us']} us and Python {agent['python_us']} us.",
        "",
        *(f"- {line}" for line in results["verdicts"]),
        "",
        "Machine: "
        + ", ".join(f"{key} {value}" for key, value in results["machine"].items())
        + ".",
    ]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=60)
    parser.add_argument("--write-docs", action="store_true", help="put the table into docs/")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    results: dict[str, Any] = {
        "machine": machine() | versions(),
        "rounds": arguments.rounds,
        "cases": {},
    }
    for case in cases():
        results["cases"][case.name] = measure(case, arguments.rounds)
        if case.name == "device f=4":
            results["agent"] = measure_agent(case, arguments.rounds)
    results["verdicts"] = verdicts(results)
    OUT.parent.mkdir(parents=True, exist_ok=True)
    OUT.write_text(json.dumps(results, indent=2) + "\n")
    text = report(results)
    print(text)
    if arguments.write_docs:
        page = DOCS.read_text()
        before, _, rest = page.partition(BEGIN)
        DOCS.write_text(f"{before}{BEGIN}\n\n{text}\n\n{END}{rest.partition(END)[2]}")


if __name__ == "__main__":
    main()
