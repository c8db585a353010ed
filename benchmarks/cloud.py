"""What a cloud worker answers per second, next to onnxruntime in a tight loop.

    python -m benchmarks.cloud [--seconds N] [--write-docs]

Three networks: the reference bundle's cloud section, which takes some microseconds; a large one
(six views of 96x96, 256-512-1024 channels) of random weights, which takes milliseconds; and a heavy
one (144x144, 512-1024-2048 channels), which takes about as long as a ResNet-50 would.

In this process, over batch sizes: onnxruntime's `session.run` on one ready batch, again and again;
beside it the worker's whole way from ESCALATION bytes to ANSWER bytes, through its queue. The two
take turns in short bursts, of which the fastest counts in each round; ratios are taken within a
round and the median is given.

Over MQTT: a real mosquitto, `ddnn cloud` in processes of its own, and a client that plays gateways:
it keeps so many escalations under way and counts answers, each of which is compared with the
section's own. Two workers share them by their shared subscription. Broker and client need a
processor, too: their time is in the table. Results go to build/bench/cloud.json.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

os.environ["OMP_NUM_THREADS"] = "1"

import numpy as np

from benchmarks.cpu import cpu_s, machine_busy_s, switches
from benchmarks.pages import ROOT, keep, machine_line, table, write_block
from benchmarks.sections import randomise
from cloud_service.batching import Batches, BatchRules
from cloud_service.worker import Request, Worker
from ddnn import bundle as b
from ddnn import status, topics, wire
from ddnn.mqtt import Client, Message, Publish
from ddnn.section import Section
from ddnn.store import read_folder
from ddnn.wire import Kind
from demo.system import System
from training.describe import describe_section
from training.export import build_sections
from training.network import Network
from training.options import NetworkOptions
from training.publish import publish_bundle

ROUNDS, BURSTS = 7, 5
SITE = "bench"
LARGE = NetworkOptions(
    cameras=6, classes=3, height=96, width=96, channels=3, edges=(tuple(range(6)),),
    device_filters=(4,), edge_filters=(64,), cloud_filters=(256, 512, 1024),
    feature_aggregation="CC",
)  # fmt: skip
HEAVY = replace(LARGE, height=144, width=144, cloud_filters=(512, 1024, 2048))
#: Targets.
SHARE, SCALING = 0.7, 1.7


class Case(NamedTuple):
    """A network to measure.

    Attributes:
        sizes: of batches, in this process.
        batch: the workers' `batch_size`.
        under_way: escalations of the client that are not answered yet: enough for full batches of
            two workers.
    """

    name: str
    bundle: b.Bundle
    sizes: tuple[int, ...]
    batch: int
    under_way: int


def cases() -> list[Case]:
    """All of them."""
    reference = read_folder(ROOT / "models/reference")
    sizes = (1, 2, 4, 8, 16, 32, 64)
    return [
        Case("reference", reference, sizes, 32, 256),
        Case("large", random_bundle(LARGE), sizes, 32, 256),
        # Small batches, so that the time measured holds many of them.
        Case("heavy", random_bundle(HEAVY), (1, 4), 4, 32),
    ]


def random_bundle(options: NetworkOptions) -> b.Bundle:
    """A bundle of random weights."""
    built = build_sections(randomise(Network(options), 0))
    manifest = b.Manifest(
        name="bench",
        version=1,
        created="2026-01-01T00:00:00Z",
        classes=("a", "b", "c"),
        image=b.Image(height=options.height, width=options.width, channels=3),
        topology=b.Topology(cameras=6, edges=options.edges),
        exits={
            "local": b.ExitInfo(logit_scale=0.01, threshold=0.5),
            "edge": b.ExitInfo(logit_scale=0.01, threshold=0.5),
            "cloud": b.ExitInfo(logit_scale=0.01),
        },
        sections=tuple(describe_section(role, data) for role, data in built.files.items()),
    )
    return b.assemble(b.encode_manifest(manifest), built.files)


class Questions(NamedTuple):
    """Escalations of random features and their right answers.

    Attributes:
        bodies: ESCALATION bodies.
        features: (N, M, B) uint8; mask: (N, M) uint8: the same.
        logits: ANSWER bodies.
    """

    bodies: list[bytes]
    features: np.ndarray
    mask: np.ndarray
    logits: list[bytes]


def questions(section: Section, count: int = 64) -> Questions:
    """So many of them."""
    members, size = section.info.inputs[0].shape
    features = np.random.default_rng(0).integers(0, 256, (count, members, size)).astype(np.uint8)
    mask = np.ones((count, members), np.uint8)
    there = (1 << members) - 1
    bodies = [wire.pack_escalation(there, [row.tobytes() for row in each]) for each in features]
    logits = [
        wire.pack_logits(section.run_one(*one)[0]) for one in zip(features, mask, strict=True)
    ]
    return Questions(bodies, features, mask, logits)


def burst(call: Callable[[], object], seconds: float) -> float:
    """Calls per second of processor time of this thread, for so long."""
    calls, began = 0, time.thread_time()
    while True:
        call()
        calls += 1
        took = time.thread_time() - began
        if took >= seconds:
            return calls / took


def in_process(case: Case, seconds: float) -> dict[int, dict[str, float]]:
    """Requests per second by batch size: onnxruntime, the worker, and their ratio."""
    bundle = case.bundle
    info = bundle.manifest.section("cloud")
    assert info is not None
    section = Section(info, bundle.sections["cloud"])
    asked = questions(section)
    worker = Worker(lambda _info, _data: section)  # the very same: where weights lie matters, too
    worker.load(SITE, bundle)
    payloads = [
        wire.encode(Kind.ESCALATION, tag=bundle.tag, boot=1, slot=slot, body=body)
        for slot, body in enumerate(asked.bodies)
    ]
    session, names = section._session, [tensor.name for tensor in info.outputs]
    each = seconds / (2 * ROUNDS * BURSTS * len(case.sizes))
    results = {}
    for size in case.sizes:
        inputs = {"features": asked.features[:size], "mask": asked.mask[:size]}
        batches: Batches[Request] = Batches(BatchRules(size=size), Counter())

        def call_ort(inputs: dict[str, np.ndarray] = inputs) -> object:
            return session.run(names, inputs)

        def answer(size: int = size, batches: Batches[Request] = batches) -> list[bytes]:
            for payload in payloads[:size]:
                request = worker.accept(SITE, payload)
                assert isinstance(request, Request)
                batches.put(id(request.section), request, 0, 0.0, 1.0)
            return worker.run([one.request for one in batches.take(0.0)])

        if [wire.decode(each).body for each in answer()] != asked.logits[:size]:
            raise SystemExit(f"a batch of {size} is answered otherwise than one by one")
        rounds = []
        for _ in range(ROUNDS):
            turns = [(burst(call_ort, each), burst(answer, each)) for _ in range(BURSTS)]
            fastest = [size * max(rates) for rates in zip(*turns, strict=True)]
            rounds.append((fastest[0], fastest[1]))
        results[size] = {
            "onnxruntime_per_s": round(statistics.median(ort for ort, _ in rounds)),
            "worker_per_s": round(statistics.median(ours for _, ours in rounds)),
            "ratio": round(statistics.median(ours / ort for ort, ours in rounds), 3),
        }
    return results


class Asker:
    """Plays gateways: keeps escalations under way and counts the right answers."""

    def __init__(self, client: Client, case: Case, asked: Questions) -> None:
        self.right = self.wrong = 0
        self._client = client
        self._asked = asked
        self._tag = case.bundle.tag
        self._slot = 0
        self._free = threading.Semaphore(case.under_way)
        self.workers: dict[str, status.Status] = {}
        client.subscribe(topics.answer(SITE), self._on_answer)
        client.subscribe(topics.worker_status_filter(), self._on_worker)

    def ask(self, until: float) -> None:
        """Ask until that time (monotonic seconds)."""
        while time.monotonic() < until:
            if not self._free.acquire(timeout=0.5):
                continue
            self._slot += 1
            body = self._asked.bodies[self._slot % len(self._asked.bodies)]
            self._client.send(
                Publish(
                    topics.escalation(SITE),
                    wire.encode(Kind.ESCALATION, tag=self._tag, boot=1, slot=self._slot, body=body),
                    qos=1,
                    response_topic=topics.answer(SITE),
                    correlation=self._slot.to_bytes(4, "little"),
                    expiry_s=30.0,
                )
            )

    def _on_answer(self, message: Message) -> None:
        frame = wire.decode(message.payload)
        right = self._asked.logits[frame.slot % len(self._asked.logits)]
        if frame.body == right:
            self.right += 1
        else:
            self.wrong += 1
        self._free.release()

    def _on_worker(self, message: Message) -> None:
        report = status.decode(message.payload)
        if report is not None:
            self.workers[report.node] = report

    def ready(self, bundle_id: str, workers: int) -> bool:
        """Whether so many workers serve the site with this bundle."""
        serving = [r for r in self.workers.values() if r.sites.get(SITE) == bundle_id]
        return len(serving) >= workers


def over_mqtt(case: Case, workers: int, seconds: float) -> dict[str, float]:
    """Answers per second of so many `ddnn cloud`, and everybody's processor time."""
    bundle = case.bundle
    info = bundle.manifest.section("cloud")
    assert info is not None
    asked = questions(Section(info, bundle.sections["cloud"]))
    with tempfile.TemporaryDirectory() as folder:
        system = System(Path(folder), Path("none"), bundle.manifest.topology, site=SITE)
        with system:
            client = Client(system.broker.host, system.broker.port, "asker")
            asker = Asker(client, case, asked)
            client.start()
            try:
                client.wait_connected(10)
                publish_bundle(client, SITE, bundle, 10)
                for number in range(workers):
                    name = f"cloud-{number}"
                    options = ("--worker", name, "--batch-size", str(case.batch))
                    system.start(name, "cloud", *options)
                system.wait_until(
                    lambda: asker.ready(bundle.bundle_id, workers), "starting workers", 60
                )
                asker.ask(time.monotonic() + 1.0)  # warm
                pids = [child.pid for child in system.children.values()]
                everybody = machine_busy_s()
                slept = sum(map(switches, pids))
                before = [cpu_s(pid) for pid in pids]
                broker, own = cpu_s(system.broker.pid), time.process_time()
                right, began = asker.right, time.monotonic()
                asker.ask(began + seconds)
                took = time.monotonic() - began
                answers = asker.right - right
                used = [cpu_s(pid) - earlier for pid, earlier in zip(pids, before, strict=True)]
                everybody = machine_busy_s() - everybody
                own = time.process_time() - own
                broker = cpu_s(system.broker.pid) - broker
                result = {
                    "per_s": round(answers / took, 1),
                    "worker_us": round(1e6 * sum(used) / max(1, answers), 1),
                    "switches": round((sum(map(switches, pids)) - slept) / max(1, answers), 2),
                    "worker_busy": round(sum(used) / took, 2),
                    "broker_busy": round(broker / took, 2),
                    "asker_busy": round(own / took, 2),
                    "others_busy": round((everybody - sum(used) - broker - own) / took, 2),
                }
            finally:
                client.stop()
    if asker.wrong or not answers:
        raise SystemExit(f"{asker.wrong} answers were wrong, {answers} right")
    return result


def render(results: dict[str, Any]) -> str:
    """The tables for docs/benchmarks.md."""
    parts, said = [], []
    for name, result in results.items():
        best = max(row["onnxruntime_per_s"] for row in result["in_process"].values())
        rows = [
            [
                str(size),
                f"**{row['ratio']:.2f}**",
                f"{row['worker_per_s']:,}",
                f"{row['onnxruntime_per_s']:,}",
            ]
            for size, row in result["in_process"].items()
        ]
        head = [f"{name}: batch", "worker / onnxruntime", "worker, requests/s", "onnxruntime"]
        parts.append(table(head, rows))
        rows = [
            [
                str(workers),
                f"{row['per_s'] / best:.2f}",
                f"{row['per_s']:,}",
                f"{row['worker_us']:,}",
                str(row["switches"]),
                f"{row['worker_busy']}, {row['broker_busy']}, {row['asker_busy']}",
            ]
            for workers, row in result["mqtt"].items()
        ]
        parts.append(
            table(
                [
                    f"{name}: workers over MQTT",
                    "requests/s / onnxruntime's best",
                    "requests/s",
                    "us of a worker's processor per request",
                    "context switches",
                    "busy: workers, broker, asker",
                ],
                rows,
            )
        )
        top = max(row["ratio"] for row in result["in_process"].values())
        said.append(f"- {name}: worker / onnxruntime {top:.2f} at its best size (target {SHARE})")
        one, two = result["mqtt"][1], result["mqtt"][2]
        others = two["broker_busy"] + two["asker_busy"]
        elsewhere = max(one["others_busy"], two["others_busy"])
        said.append(
            f"- {name}: two workers / one, over MQTT {two['per_s'] / one['per_s']:.2f} (target "
            f"{SCALING}, where there are cores for both); a request takes "
            f"{two['worker_us'] / one['worker_us']:.2f} times the processor time then; broker and "
            f"asker use {others:.2f} of a core"
            + (f"; not to be judged: other programs used {elsewhere:.2f} cores" * (elsewhere > 0.1))
        )
    return "\n\n".join([*parts, "\n".join(said), machine_line()])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--seconds", type=float, default=20.0, help="of each measurement")
    parser.add_argument("--write-docs", action="store_true", help="put the tables into docs/")
    arguments = parser.parse_args()
    results: dict[str, Any] = {}
    for case in cases():
        print(f"{case.name}: in this process", flush=True)
        results[case.name] = {"in_process": in_process(case, arguments.seconds), "mqtt": {}}
        for workers in (1, 2):
            print(f"{case.name}: {workers} over MQTT", flush=True)
            results[case.name]["mqtt"][workers] = over_mqtt(case, workers, arguments.seconds / 2)
    path = keep("cloud", results)
    text = render(results)
    print(text)
    print(f"kept in {path}")
    if arguments.write_docs:
        write_block("cloud", text)


if __name__ == "__main__":
    main()
