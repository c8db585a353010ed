"""From a view to its decision: ours and raw pictures, on loopback and through a slow link.

    python -m benchmarks.latency [--samples N] [--write-docs]

Latency is from the beginning of a slot, when all cameras take their views, to the decision's
arrival at a consumer beside the gateway. Ours: the whole system as real processes, thresholds set
so that each exit answers a share, waits as in production. Raw: every camera sends its picture in
one message; beside the gateway a receiver waits for all six (half a second at most, as the gateway
does), runs the same network on them and has its decision.

The slow link is between the cameras and everything else: two network namespaces joined by a line
in user space that cuts the rate, delays and loses packets in each direction (`tc netem` is not on
every kernel). It needs root; without it only loopback is measured. Five frames a second, at which
six raw pictures just fit through. Results go to build/bench/latency.json.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

os.environ["OMP_NUM_THREADS"] = "1"

import msgspec
import numpy as np

from benchmarks.offload import Offload, Sender
from benchmarks.pages import ROOT, keep, machine_line, table, write_block
from benchmarks.site import SITE, BenchSite
from ddnn import topics, wire
from ddnn.bundle import Bundle
from ddnn.evaluate import Evaluator
from ddnn.mqtt import Client, Message
from ddnn.processes import start_child, stop_children
from ddnn.store import read_folder
from demo.observer import Seen
from tests.faults.delay_line import FAR, DelayLine, why_not
from training.datasets.base import MultiCameraSet
from training.datasets.load import load

PERIOD_S = 0.2
#: How long the receiver of pictures waits for a slot's last one, as `summary_wait_s`.
WAIT_S = 0.5
LINKS: dict[str, dict[str, float]] = {
    "loopback": {},
    "20 ms, 1 % loss, 1 Mbit/s": {"delay_ms": 20.0, "loss": 0.01, "bits_per_s": 1e6},
}
#: First slots that are not counted: connections and caches get warm.
WARM = 5


def shares(bundle: Bundle, data: MultiCameraSet) -> dict[str, float]:
    """Thresholds at which the local exit takes about 60 % and the edge half of what is left."""
    curve = bundle.manifest.calibration.curve if bundle.manifest.calibration else ()
    point = min(curve, key=lambda p: abs(p.exit_shares["local"] - 0.6))
    local = point.thresholds["local"]
    exits = Evaluator(bundle).evaluate(data.images, data.present).exits
    left = exits["edge"].entropy[exits["local"].entropy >= local]
    return {"local_threshold": local, "edge_threshold": round(float(np.median(left)), 6)}


def summary(milliseconds: list[float]) -> dict[str, float]:
    """p50 and p99 of them."""
    if not milliseconds:
        return {}
    p50, p99 = np.percentile(milliseconds, [50, 99])
    return {"p50": round(float(p50), 1), "p99": round(float(p99), 1), "count": len(milliseconds)}


def ours(site: BenchSite, data: MultiCameraSet, tuning: dict[str, float]) -> dict[str, Any]:
    """Latency of our decisions, by exit and stage."""
    with site.client("operator") as operator:
        payload = msgspec.json.encode(tuning)
        operator.publish(topics.settings(SITE), payload, qos=1, retain=True).wait_for_publish(5)
        first = site.begin_replay(operator)
    last = first + len(data) - 1
    time.sleep(max(0.0, (last + 1) * PERIOD_S - time.time()))
    site.wait(lambda: last in site.observer.decisions, "the last decision", 30)
    seen = [one for slot, one in site.observer.decisions.items() if slot >= first + WARM]
    result: dict[str, Any] = {"all": summary([1000 * one.latency_s for one in seen])}
    for name in ("local", "edge", "cloud"):
        own = [one for one in seen if one.decision.exit == name and not one.decision.degraded]
        result[name] = summary([1000 * one.latency_s for one in own])
        result[name]["stages"] = stages(own)
    result["degraded"] = sum(one.decision.degraded is not None for one in seen) / len(seen)
    result["missing"] = sum(bool(one.decision.missing) for one in seen) / len(seen)
    return result


def stages(seen: list[Seen]) -> dict[str, float]:
    """Median milliseconds of each stage, and of what is before and after them."""
    if not seen:
        return {}
    names = dict.fromkeys(name for one in seen for name in one.decision.stage_ms)
    medians = {n: np.median([one.decision.stage_ms.get(n, 0.0) for one in seen]) for n in names}
    rest = [1000 * one.latency_s - sum(one.decision.stage_ms.values()) for one in seen]
    medians["view, first summary, delivery"] = np.median(rest)
    return {name: round(float(value), 1) for name, value in medians.items()}


class Receiver:
    """Waits for a slot's pictures and runs the whole network on them."""

    def __init__(self, client: Client, bundle: Bundle, cameras: int, period_s: float) -> None:
        self.latencies: list[float] = []
        self.incomplete = 0
        self._evaluator = Evaluator(bundle)
        self._period_s = period_s
        image = bundle.manifest.image
        self._shape = (cameras, image.height, image.width, image.channels)
        self._slots: dict[int, dict[int, bytes]] = {}
        self._done = -1
        client.subscribe(topics.summary_filter(SITE), self._on_picture, qos=0)

    def _on_picture(self, message: Message) -> None:
        frame = wire.decode(message.payload)
        number, now = topics.member_of(message.topic), time.time()
        slot = wire.unwrap_slot(frame.slot, int(now / self._period_s))
        if slot <= self._done or number is None:
            return
        self._slots.setdefault(slot, {})[number % self._shape[0]] = frame.body
        for other in sorted(self._slots):
            if len(self._slots[other]) == self._shape[0]:
                self._decide(other)
            elif now - other * self._period_s > WAIT_S + 2 * self._period_s:
                self.incomplete += 1
                self._decide(other)

    def _decide(self, slot: int) -> None:
        pictures = self._slots.pop(slot)
        images = np.zeros((1, *self._shape), np.uint8)
        present = np.zeros((1, self._shape[0]), bool)
        for number, data in pictures.items():
            images[0, number] = np.frombuffer(data, np.uint8).reshape(self._shape[1:])
            present[0, number] = True
        self._evaluator.evaluate(images, present)
        self._done = max(self._done, slot)
        self.latencies.append(1000 * (time.time() - slot * self._period_s))


def raw(
    site: BenchSite, folder: Path, data: MultiCameraSet, prefix: list[str], host: str
) -> dict[str, Any]:
    """Latency of decisions by raw pictures on the same broker and link."""
    with site.client("dashboard-raw", start=False) as client:
        receiver = Receiver(client, site.bundle, data.cameras, PERIOD_S)
        client.start()
        client.wait_connected(10)
        first = int((time.time() + 6.0) / PERIOD_S) + 1
        child = start_child(
            [
                *prefix, sys.executable, "-m", "benchmarks.latency", "--send", str(folder),
                "--host", host, "--port", str(site.broker.port), "--first-slot", str(first),
            ],
            {},
            folder / "sender.log",
        )  # fmt: skip
        try:
            time.sleep(max(0.0, (first + len(data)) * PERIOD_S + 3.0 - time.time()))
        finally:
            stop_children([child])
    expected = len(data)
    result = {"all": summary(receiver.latencies[WARM:]), "missing": receiver.incomplete / expected}
    result["lost"] = 1 - len(receiver.latencies) / expected
    return result


def send(folder: Path, host: str, port: int, first_slot: int) -> None:
    """The cameras of `raw`, in a process of their own beyond the link."""
    with np.load(folder / "replay.npz") as arrays:
        images, cameras = arrays["images"], arrays["images"].shape[1]
    encode = Offload("raw", None).encode
    clients = [Client(host, port, f"raw-{n}") for n in range(cameras)]
    for client in clients:
        client.start()
    for client in clients:
        client.wait_connected(20)
    # Numbers that are no camera of the bundle: the gateway does not listen to them.
    numbers = [cameras + n for n in range(cameras)]
    rows = [[encode(image) for image in row] for row in images]
    Sender(SITE, PERIOD_S, clients, rows, first_slot, numbers).run()
    time.sleep(5.0)  # until the last picture has left


def on_link(prefix: list[str], host: str | None, samples: int) -> dict[str, Any]:
    """Both systems, one after the other."""
    bundle = read_folder(ROOT / "models/reference")
    data = load("generated")
    tuning = shares(bundle, data.subset(data.test))
    data = data.subset(data.test[:samples])
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        np.savez(folder / "replay.npz", images=data.images, present=data.present)
        far = (lambda node: prefix if node.startswith("device") else []) if prefix else None
        options: dict[str, Any] = {"prefix": far, "line_host": host} if far else {}
        with BenchSite(
            folder / "site", bundle, folder / "replay.npz", period_s=PERIOD_S, gateway_options=(),
            **options,
        ) as site:  # fmt: skip
            found = {"ours": ours(site, data, tuning)}
            found["raw"] = raw(site, folder, data, prefix, host or site.broker.host)
    return found


def through_line(link: dict[str, float], samples: int) -> dict[str, Any]:
    """`on_link` in the far namespace of a line that does `link`."""
    with DelayLine() as line, tempfile.TemporaryDirectory() as folder:
        line.be(**link)
        out = Path(folder) / "found.json"
        command = ["ip", "netns", "exec", line.far, sys.executable, "-m", "benchmarks.latency"]
        command += ["--near", line.near, "--samples", str(samples), "--out", str(out)]
        if subprocess.run(command, check=False).returncode:
            raise SystemExit("the measurement through the slow link has failed (see above)")
        found: dict[str, Any] = msgspec.json.decode(out.read_bytes())
        return found


def render(results: dict[str, Any]) -> str:
    """The tables for docs/benchmarks.md."""
    rows, parts = [], []
    for link, found in results.items():
        mine, other = found["ours"], found["raw"]
        for name in ("all", "local", "edge", "cloud"):
            if mine[name].get("count"):
                rows.append([link, f"ours, {name}", *_cells(mine[name])])
        rows.append([link, "raw pictures", *_cells(other["all"])])
        parts += [
            f"- {link}: {name} exit: "
            + ", ".join(f"{stage} {ms} ms" for stage, ms in mine[name]["stages"].items())
            for name in ("local", "edge", "cloud")
            if mine[name].get("stages")
        ]
        parts.append(
            f"- {link}: of ours {100 * mine['degraded']:.1f} % degraded, "
            f"{100 * mine['missing']:.1f} % lack a camera; of raw pictures' decisions "
            f"{100 * other['missing']:.1f} % lack one, {100 * other['lost']:.1f} % never came"
        )
    head = ["link", "decisions", "p50, ms", "p99, ms", "count"]
    return "\n\n".join([table(head, rows), "\n".join(parts), machine_line()])


def _cells(found: dict[str, Any]) -> list[str]:
    return [str(found.get(name, "")) for name in ("p50", "p99", "count")]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--samples", type=int, default=120)
    parser.add_argument("--write-docs", action="store_true", help="put the table into docs/")
    for name in ("near", "out", "send", "host"):
        parser.add_argument(f"--{name}", help=argparse.SUPPRESS)
    parser.add_argument("--port", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--first-slot", type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.send:
        send(Path(arguments.send), arguments.host, arguments.port, arguments.first_slot)
        return
    if arguments.near:
        prefix = ["ip", "netns", "exec", arguments.near]
        found = on_link(prefix, FAR, arguments.samples)
        Path(arguments.out).write_bytes(msgspec.json.encode(found))
        return
    results = {}
    for name, link in LINKS.items():
        if link and (reason := why_not()):
            print(f"{name}: left out, {reason}")
            continue
        print(f"measuring: {name}", flush=True)
        results[name] = (
            through_line(link, arguments.samples) if link else on_link([], None, arguments.samples)
        )
    path = keep("latency", results)
    text = render(results)
    print(text)
    print(f"kept in {path}")
    if arguments.write_docs:
        write_block("latency", text)


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        main()
