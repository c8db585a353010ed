"""Bytes per camera and frame on the wire: ours, raw pictures, JPEG, WebP, the paper's formula.

    python -m benchmarks.wire [--data SET] [--samples N] [--write-docs]

The whole system as real processes on a real mosquitto, in a network namespace of its own whose
loopback has Ethernet's MTU; every IP packet of every connection is counted, both directions, with
its headers: summaries, requests, features, acknowledgements of TCP and of MQTT, pings.

All systems send the same frames of the data set's test part, at the same pace, each camera on its
own connection: ours at several thresholds of the local exit; with a motion gate that holds back
views without the object (how often the real gate is wrong is measured by `make bench-device`); an
empty scene; and three ways to do without: the raw picture, JPEG and WebP, each in one message,
QoS 0 as our summaries. JPEG and WebP at the lowest quality at which the same network, run on the
decoded pictures of the validation part, is as often right as on the originals. A view that a
camera does not have costs the other systems nothing at all. Beside them messages without any
payload: no system that sends one message per frame can cost less.

Accuracy is that of the whole test part, by `ddnn.evaluate`; live decisions are compared with it.
Results go to build/bench/wire.json, a plot to docs/bench-wire.png.
"""

from __future__ import annotations

import argparse
import contextlib
import tempfile
import time
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from benchmarks import packets
from benchmarks.offload import (
    NOTHING,
    Offload,
    Sender,
    accuracy,
    choose_quality,
    payload,
    through,
)
from benchmarks.packets import Capture, Packet, in_own_network
from benchmarks.pages import BENCH, ROOT, keep, write_block
from benchmarks.site import SITE, WAITS, BenchSite
from benchmarks.wire_report import FEW_SLOTS, plot, render
from ddnn import topics
from ddnn.bundle import Bundle
from ddnn.evaluate import Evaluator
from demo.prepare import prepare
from training.datasets.base import MultiCameraSet, split_validation
from training.options import TrainOptions
from training.traffic import paper_bytes, sizes_of

PERIOD_S = 0.1
#: As long as a keepalive, so that each part of a run has one ping of every client: beside a message
#: a second a ping is not little.
SAMPLES = 100
#: Of the agents: one a minute would fall into one part of a run and not into another.
NO_STATUSES = ("--status-every-s", "3600")
#: Slots between two parts of a run, in the middle of which the next part's threshold is set.
BETWEEN = 10
#: Shares of frames that leave at the local exit, for which thresholds are measured.
LOCAL_SHARES = (0.0, 0.3, 0.6, 0.85)
OFFLOADS = ("raw", "JPEG", "WebP", NOTHING)
#: Numbers that a site has for cameras: ours, and as many again for each offload.
MAX_NUMBERS = 32


class Part(NamedTuple):
    """A part of a run of our system.

    Attributes:
        threshold: of the local exit; None: the bundle's.
        present: (N, D) bool, the views that are sent.
    """

    name: str
    threshold: float | None
    present: NDArray[np.bool_]


class Link(NamedTuple):
    """What went over connections in a part's time, per camera and frame."""

    stream_bytes: float
    wire_bytes: float
    packets: float


def link(seen: list[Packet], ports: set[int], begin_s: float, end_s: float, frames: int) -> Link:
    """Sum up these clients' packets within a time."""
    own = [p for p in seen if p.client in ports and begin_s <= p.at < end_s]
    return Link(
        stream_bytes=round(sum(p.data_bytes for p in own) / frames, 1),
        wire_bytes=round(sum(p.ip_bytes for p in own) / frames, 1),
        packets=round(len(own) / frames, 2),
    )


def measure(
    bundle: Bundle,
    data: MultiCameraSet,
    parts: list[Part],
    offloads: list[Offload],
    *,
    tls: bool,
    delay: tuple[str, ...] = (),
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Our parts one after the other, and beside them the offloads, on one broker.

    Returns:
        What each part cost, what each offload cost.
    """
    count, cameras = data.images.shape[:2]
    pad = np.zeros(BETWEEN, int)
    order = np.concatenate([np.concatenate([pad, np.arange(count)]) for _ in parts])
    present = np.concatenate([np.concatenate([p.present[pad], p.present]) for p in parts])
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        np.savez(folder / "replay.npz", images=data.images[order], present=present)
        with (
            BenchSite(
                folder / "site", bundle, folder / "replay.npz", period_s=PERIOD_S, tls=tls,
                device_options=(*NO_STATUSES, *delay), gateway_options=(*WAITS, *delay),
                offloaders=cameras * len(offloads),
            ) as site,
            Capture(site.broker.port) as capture,
        ):  # fmt: skip
            return _run(site, capture, data, parts, offloads)


def _run(
    site: BenchSite,
    capture: Capture,
    data: MultiCameraSet,
    parts: list[Part],
    offloads: list[Offload],
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    count, cameras = data.images.shape[:2]
    frames = count * cameras
    nodes = [f"device-{n}" for n in range(cameras)]
    agents = {packets.port_of(site.children[node].pid, site.broker.port) for node in nodes}
    gateway = {packets.port_of(site.children["gateway"].pid, site.broker.port)}
    with contextlib.ExitStack() as stack:
        operator = stack.enter_context(site.client("operator"))
        senders, ports = [], []
        first_slot = site.begin_replay(operator, 4.0)
        for index, offload in enumerate(offloads):
            numbers = [cameras * (index + 1) + n for n in range(cameras)]
            clients = [stack.enter_context(site.client(f"device-{n}")) for n in numbers]
            ports.append({packets.port_of_client(client) for client in clients})
            encoded = [
                [
                    offload.encode(image) if there else None
                    for image, there in zip(*row, strict=True)
                ]
                for row in zip(data.images, data.present, strict=True)
            ]
            senders.append(Sender(SITE, PERIOD_S, clients, encoded, first_slot + BETWEEN, numbers))
        for sender in senders:
            sender.start()
        windows = []
        for number, part in enumerate(parts):
            begin = first_slot + number * (BETWEEN + count)
            windows.append((begin + BETWEEN, begin + BETWEEN + count))
            time.sleep(max(0.0, (begin + BETWEEN // 2) * PERIOD_S - time.time()))
            tuning = {} if part.threshold is None else {"local_threshold": part.threshold}
            asked = msgspec.json.encode(tuning) if tuning else b""
            operator.publish(topics.settings(SITE), asked, qos=1, retain=True)
        time.sleep(max(0.0, windows[-1][1] * PERIOD_S - time.time()))
        last = windows[-1][1]
        site.wait(lambda: last - 1 in site.observer.decisions, "the last decision", 30)
        for sender in senders:
            sender.join()
    decisions = site.observer.decisions
    results = []
    for part, (begin, end) in zip(parts, windows, strict=True):
        times = (begin * PERIOD_S, end * PERIOD_S)
        own = [decisions[slot].decision for slot in range(begin, end) if slot in decisions]
        results.append(
            {
                "name": part.name,
                "cameras": link(capture.packets, agents, *times, frames)._asdict(),
                "gateway": link(capture.packets, gateway, *times, frames)._asdict(),
                "payload_bytes": round(sum(d.payload_bytes for d in own) / frames, 2),
                "decided": len(own),
                "degraded": sum(d.degraded is not None or bool(d.missing) for d in own),
                "labels": [d.label for d in own],
                "exits": {e: sum(d.exit == e for d in own) for e in ("local", "edge", "cloud")},
            }
        )
    begin, end = windows[0]
    times = (begin * PERIOD_S, end * PERIOD_S)
    costs = []
    for offload, own_ports, sender in zip(offloads, ports, senders, strict=True):
        sent = [data for row in sender.encoded for data in row if data is not None]
        sizes = [len(payload(data, 0)) for data in sent]
        costs.append(
            {
                "name": offload.name,
                "quality": offload.quality,
                "cameras": link(capture.packets, own_ports, *times, frames)._asdict(),
                "payload_bytes": round(sum(sizes) / frames, 1),
            }
        )
    return results, costs


def coded_shares(bundle: Bundle, data: MultiCameraSet) -> dict[str, float]:
    """What an ideal coder of each feature bit and score by itself would leave of their bytes.

    Probabilities are those of the training part, for every camera and element; the code's length
    is that of the test part.
    """
    scores, features = Evaluator(bundle).devices(data.images, data.present)
    bits = np.unpackbits(features, axis=2, bitorder="little")
    lengths = {"coded_features": [0.0, 0.0], "coded_scores": [0.0, 0.0]}
    for camera in range(data.cameras):
        fit, test = (index[data.present[index, camera]] for index in (data.train, data.test))
        for name, symbols, count in (("coded_features", bits, 2), ("coded_scores", scores, 256)):
            for element in range(symbols.shape[2]):
                seen = symbols[fit, camera, element]
                share = np.bincount(seen, minlength=count) + 1 / count
                coded = -np.log2(share[symbols[test, camera, element]] / share.sum()).sum()
                lengths[name][0] += float(coded)
                lengths[name][1] += len(test) * np.log2(count)
    return {name: round(float(a / b), 3) for name, (a, b) in lengths.items() if b}


def thresholds(bundle: Bundle) -> dict[str, float]:
    """Thresholds of the calibrated curve at which about these shares leave locally."""
    calibration = bundle.manifest.calibration
    if not calibration:
        return {}
    chosen: dict[str, float] = {}
    for share in LOCAL_SHARES:
        point = min(calibration.curve, key=lambda p: abs(p.exit_shares["local"] - share))
        chosen[f"ours, {100 * point.exit_shares['local']:.0f} % local"] = point.thresholds["local"]
    return chosen


class Plan(NamedTuple):
    """What is measured on a data set.

    Attributes:
        played: the test samples that are sent; test: all of them.
        parts: of our system.
    """

    bundle: Bundle
    played: MultiCameraSet
    test: MultiCameraSet
    parts: list[Part]
    offloads: list[Offload]


def make_plan(data: MultiCameraSet, bundle: Bundle, samples: int) -> Plan:
    """Thresholds, views and qualities."""
    evaluator = Evaluator(bundle)
    _, validation = split_validation(data, share=TrainOptions().validation_share)
    test = data.subset(data.test)
    played = test.subset(np.arange(min(samples, len(test))))
    offloads = [
        Offload(name, None)
        if name in ("raw", NOTHING)
        else choose_quality(name, evaluator, data.subset(validation))
        for name in OFFLOADS
    ]
    parts = [
        Part("ours", None, played.present),
        Part("ours, gate", None, played.seen),
        Part("ours, empty scene", None, np.zeros_like(played.present)),
    ]
    parts += [Part(name, at, played.present) for name, at in thresholds(bundle).items()]
    return Plan(bundle, played, test, parts, offloads)


def right_answers(plan: Plan, part: Part) -> tuple[float | None, list[str | None]]:
    """Accuracy on the test part, and the labels that the played samples must get live."""
    if not part.present.any():
        return None, [None] * len(plan.played)
    present = plan.test.seen if part.name == "ours, gate" else plan.test.present
    wanted = {} if part.threshold is None else {"local": part.threshold}
    result = Evaluator(plan.bundle).evaluate(plan.test.images, present, wanted)
    classes = [plan.test.classes[n] if n >= 0 else None for n in result.label]
    return float(np.mean(result.label == plan.test.labels)), classes[: len(plan.played)]


def run(plan: Plan, only: int | None = None, **options: Any) -> list[dict[str, Any]]:
    """Rows of one run: offloads (which nothing can delay), then the first `only` parts of ours."""
    parts = plan.parts[:only]
    offloads = [] if options.get("delay") else plan.offloads
    ours, costs = measure(plan.bundle, plan.played, parts, offloads, **options)
    evaluator = Evaluator(plan.bundle)
    for cost, offload in zip(costs, offloads, strict=True):
        decides = offload.name != NOTHING
        cost["accuracy"] = accuracy(evaluator, through(offload, plan.test)) if decides else None
    for row, part in zip(ours, parts, strict=True):
        row["accuracy"], wanted = right_answers(plan, part)
        live = row.pop("labels")
        row["as_evaluated"] = sum(a == b for a, b in zip(live, wanted, strict=False))
        if row["decided"] != len(plan.played) or row["as_evaluated"] < row["decided"]:
            print(
                f"note: {part.name}: {row['decided']} decided, {row['as_evaluated']} as evaluated"
            )
    return costs + ours


def report(arguments: argparse.Namespace) -> None:
    """Measure, print, keep."""
    data, bundle = prepare(arguments.data, arguments.split, ROOT / "build/bench/wire")
    if data.cameras * (1 + len(OFFLOADS)) > MAX_NUMBERS:
        raise SystemExit(f"{data.cameras} cameras are too many to play the other systems as well")
    plan = make_plan(data, bundle, arguments.samples)
    local = float(np.mean(Evaluator(bundle).evaluate(plan.test.images, plan.test.present).exit
                          == "local"))  # fmt: skip
    sizes = sizes_of(bundle.manifest)
    results: dict[str, Any] = {
        "samples": len(plan.played),
        **coded_shares(bundle, data),
        "paper_bytes": paper_bytes(sizes.classes, local, 8 * sizes.feature_bytes),
    }
    for title, only, options in RUNS:
        print(f"measuring: {title}", flush=True)
        results[title] = run(plan, only, **options)
    path = keep("wire", results)
    plot(results, BENCH / "wire.png")
    text = render(results)
    print(text)
    print(f"kept in {path}, plot in {BENCH / 'wire.png'}")
    if arguments.write_docs:
        write_block("wire", text)
        plot(results, ROOT / "docs" / "bench-wire.png")


def delayed(slots: int) -> tuple[str, ...]:
    """Options with which a camera puts so many slots into a message."""
    return ("--summary-delay-s", f"{slots * PERIOD_S:g}")


#: Name, how many parts of ours, options.
RUNS: tuple[tuple[str, int | None, dict[str, Any]], ...] = (
    ("plain", None, {"tls": False}),
    *((f"slots_{n}", 1, {"tls": False, "delay": delayed(n)}) for n in FEW_SLOTS),
    ("delayed", 3, {"tls": False, "delay": delayed(10)}),
    ("tls", 2, {"tls": True}),
    *((f"slots_{n}_tls", 1, {"tls": True, "delay": delayed(n)}) for n in FEW_SLOTS),
    ("delayed_tls", 1, {"tls": True, "delay": delayed(10)}),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--data", help="data set; another one than the built-in is trained on")
    parser.add_argument("--split", help="split of a data set that has several")
    parser.add_argument("--samples", type=int, default=SAMPLES, help="test samples that are sent")
    parser.add_argument("--write-docs", action="store_true", help="put table and plot into docs/")
    arguments = parser.parse_args()
    in_own_network("benchmarks.wire")
    report(arguments)


if __name__ == "__main__":
    main()
