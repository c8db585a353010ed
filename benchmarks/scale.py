"""Many sites on one machine: what each more costs, and where it breaks.

    python -m benchmarks.scale [--sites 1,4,16] [--seconds N] [--write-docs]

A real mosquitto, one gateway process per site, and one process that plays six cameras
per site from recorded summaries, each on a connection of its own, ten frames a second, every slot
at the same moment everywhere. A consumer hears the decisions of all sites. For each number of
sites: processor time of broker and gateways, memory, latency from a slot's beginning to its
decision at the consumer, and slots without a decision. A step at which slots are lost, or p99 is
over a second, is the break point, and the last one that is run. Results go to
build/bench/scale.json.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

os.environ["OMP_NUM_THREADS"] = "1"

import numpy as np

from benchmarks.cpu import cpu_s, rss_mb
from benchmarks.pages import ROOT, keep, machine_line, table, write_block
from benchmarks.traffic import connect, publish_packet, recorded
from broker.mosquitto import LocalBroker
from ddnn import status, topics
from ddnn.bundle import Bundle
from ddnn.decisions import decode
from ddnn.mqtt import Client, Message
from ddnn.processes import Child, start_child, stop_children
from ddnn.store import read_folder
from training.publish import publish_bundle

PERIOD_S = 0.1
CAMERAS = 6
#: What is no longer service.
BROKEN_P99_MS, BROKEN_LOSS = 1000.0, 0.001
READY_WITHIN_S = 120.0
#: Numbers of sites that the plan is made for.
PLANNED = (10, 1_000, 100_000)
PAGE = ROOT / "docs" / "scale.md"


def site_name(number: int) -> str:
    """Name of a generated site."""
    return f"site{number}"


def play(port: int, sites: int, first_slot: int, slots: int) -> None:
    """The generator: every camera of every site, in a process of its own."""
    bundle = read_folder(ROOT / "models/reference")
    data = recorded(bundle)
    with contextlib.ExitStack() as stack:
        cameras = []
        for number in range(sites):
            for camera in range(CAMERAS):
                name = site_name(number)
                sock = stack.enter_context(connect(port, f"{name}-device-{camera}"))
                cameras.append((sock, topics.summary(name, camera), camera))
        latest_s = 0.0
        for slot in range(first_slot, first_slot + slots):
            wait_s = slot * PERIOD_S - time.time()
            if wait_s > 0:
                time.sleep(wait_s)
            payloads = [data.payload(slot, camera, bundle.tag) for camera in range(CAMERAS)]
            for sock, topic, camera in cameras:
                sock.sendall(publish_packet(topic, payloads[camera]))
            latest_s = max(latest_s, time.time() - slot * PERIOD_S)
    print(f"{latest_s:.3f}")


class Consumer:
    """Hears every site's decisions."""

    def __init__(self, client: Client) -> None:
        self.latencies: dict[tuple[str, int], float] = {}
        self.ready: set[str] = set()
        client.subscribe("ddnn/+/decision", self._on_decision)
        client.subscribe("ddnn/+/status/gateway", self._on_status)

    def _on_decision(self, message: Message) -> None:
        decision = decode(message.payload)
        late_ms = 1000 * (time.time() - decision.slot * PERIOD_S)
        self.latencies.setdefault((decision.site, decision.slot), late_ms)

    def _on_status(self, message: Message) -> None:
        report = status.decode(message.payload)
        if report is not None and report.state == "online" and report.bundle:
            self.ready.add(message.topic.split("/")[1])


def start_gateways(
    broker: LocalBroker, client: Client, bundle: Bundle, folder: Path, first: int, count: int
) -> list[Child]:
    """One gateway process for each of these sites."""
    children = []
    for number in range(first, first + count):
        publish_bundle(client, site_name(number), bundle, 20)
        children.append(
            start_child(
                [
                    sys.executable, "-m", "ddnn", "gateway", "--site", site_name(number),
                    "--period-s", str(PERIOD_S), "--broker", broker.host,
                    "--port", str(broker.port), "--store", str(folder / site_name(number)),
                ],
                {"OMP_NUM_THREADS": "1"}, folder / f"{site_name(number)}.log",
            )
        )  # fmt: skip
    return children


def step(
    broker: LocalBroker, consumer: Consumer, gateways: list[Child], seconds: float, folder: Path
) -> dict[str, Any]:
    """One number of sites."""
    sites, slots = len(gateways), int(seconds / PERIOD_S)
    # The generator imports numpy and loads the sections first.
    first = int((time.time() + 6.0 + 0.1 * sites) / PERIOD_S)
    log = folder / "generator.log"
    generator = start_child(
        [
            sys.executable, "-m", "benchmarks.scale", "--play", str(broker.port),
            "--sites", str(sites), "--first-slot", str(first), "--slots", str(slots),
        ],
        {}, log,
    )  # fmt: skip
    time.sleep(max(0.0, first * PERIOD_S - time.time()))
    pids = [child.pid for child in gateways]
    before = [cpu_s(pid) for pid in pids]
    broker_before = cpu_s(broker.pid)
    own_before = time.process_time()
    if generator.wait(seconds + 60):
        raise SystemExit(f"the generator ended:\n{log.read_text()[-1500:]}")
    took = time.time() - first * PERIOD_S
    used = sum(cpu_s(pid) - earlier for pid, earlier in zip(pids, before, strict=True))
    broker_used = cpu_s(broker.pid) - broker_before
    time.sleep(2.0)
    latencies = [
        late
        for (_, slot), late in list(consumer.latencies.items())
        if first <= slot < first + slots
    ]
    p50, p99 = np.percentile(latencies, [50, 99]) if latencies else (0.0, 0.0)
    return {
        "sites": sites,
        "messages_per_s": round(sites * CAMERAS / PERIOD_S),
        "gateways_busy": round(used / took, 3),
        "broker_busy": round(broker_used / took, 3),
        "consumer_busy": round((time.process_time() - own_before) / took, 3),
        "gateway_mb": round(sum(rss_mb(pid) for pid in pids) / sites, 1),
        "broker_mb": round(rss_mb(broker.pid), 1),
        "p50_ms": round(float(p50), 1),
        "p99_ms": round(float(p99), 1),
        "lost": round(1 - len(latencies) / (sites * slots), 5),
        "generator_late_s": float(log.read_text().strip().splitlines()[-1]),
    }


def is_broken(found: dict[str, Any]) -> bool:
    """Whether that was no service any more."""
    return found["p99_ms"] > BROKEN_P99_MS or found["lost"] > BROKEN_LOSS


def measure(sizes: list[int], seconds: float) -> list[dict[str, Any]]:
    """Every step up to the one that breaks."""
    bundle = read_folder(ROOT / "models/reference")
    results = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with LocalBroker(directory=folder / "broker") as broker:
            client = Client(broker.host, broker.port, "consumer")
            consumer = Consumer(client)
            gateways: list[Child] = []
            client.start()
            try:
                client.wait_connected(10)
                for sites in sizes:
                    print(f"{sites} sites", flush=True)
                    more = sites - len(gateways)
                    gateways += start_gateways(broker, client, bundle, folder, len(gateways), more)
                    deadline = time.monotonic() + READY_WITHIN_S
                    while len(consumer.ready) < sites:
                        if time.monotonic() > deadline:
                            raise SystemExit(f"{len(consumer.ready)} of {sites} gateways started")
                        time.sleep(0.1)
                    results.append(step(broker, consumer, gateways, seconds, folder))
                    if is_broken(results[-1]):
                        break
            finally:
                client.stop()
                stop_children(gateways)
    return results


def render(results: list[dict[str, Any]]) -> str:
    """The table for docs/scale.md."""
    rows = [
        [
            str(r["sites"]), f"{r['messages_per_s']:,}", f"{r['p50_ms']}, {r['p99_ms']}",
            f"{100 * r['lost']:.2f} %", str(r["gateways_busy"]), str(r["broker_busy"]),
            str(r["gateway_mb"]), str(r["broker_mb"]),
        ]
        for r in results
    ]  # fmt: skip
    head = ["sites", "messages/s", "latency p50, p99, ms", "lost", "processors: gateways"]
    head += ["broker", "MB of a gateway", "MB of the broker"]
    last = results[-1]
    sound = next((found for found in reversed(results) if not is_broken(found)), last)
    units = unit_costs(sound)
    said = [
        f"- a site's gateway: {100 * units['gateway']:.1f} % of a processor and "
        f"{sound['gateway_mb']:.0f} MB",
        f"- the broker: {1e6 * units['broker_message_s']:.0f} us per message of a camera and "
        "what follows from it",
    ]
    if is_broken(last):
        said.append(
            f"- it breaks at {last['sites']} sites: {100 * last['lost']:.2f} % lost, p99 "
            f"{last['p99_ms']:.0f} ms, generator up to {last['generator_late_s']:.2f} s late"
        )
    else:
        said.append(f"- no break point up to {last['sites']} sites")
    plan = [
        [
            f"{sites:,}", f"{sites * CAMERAS:,}", f"{sites * CAMERAS / PERIOD_S:,.0f}",
            _some(sites * CAMERAS / PERIOD_S * units["broker_message_s"]),
            _some(sites * CAMERAS * units["broker_message_s"]),
            _some(sites * units["gateway"]),
            f"{sites * sound['gateway_mb'] / 1000:,.1f}", f"{sites / PERIOD_S:,.0f}",
        ]
        for sites in PLANNED
    ]  # fmt: skip
    heads = ["sites", "cameras", "messages/s", "processors of brokers", "with 1 s of delay"]
    heads += ["processors of gateways", "their memory, GB", "decisions/s"]
    return "\n\n".join(
        [
            table(head, rows),
            "\n".join(said),
            "What that makes of more sites, with the costs of the last step that held:",
            table(heads, plan),
            machine_line(),
        ]
    )


def unit_costs(found: dict[str, Any]) -> dict[str, float]:
    """Processors of one site's gateway, and seconds of the broker's for one camera's message."""
    return {
        "gateway": found["gateways_busy"] / found["sites"],
        "broker_message_s": found["broker_busy"] / found["messages_per_s"],
    }


def _some(value: float) -> str:
    return f"{value:,.1f}" if value < 10 else f"{value:,.0f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument(
        "--sites", default="1,4,16,32,64,96,128", help="numbers of sites, ascending"
    )
    parser.add_argument("--seconds", type=float, default=10.0, help="of each step")
    parser.add_argument("--write-docs", action="store_true", help="put the table into docs/")
    parser.add_argument("--play", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--first-slot", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--slots", type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    sizes = [int(each) for each in arguments.sites.split(",")]
    if arguments.play:
        play(arguments.play, sizes[0], arguments.first_slot, arguments.slots)
        return
    results = measure(sizes, arguments.seconds)
    path = keep("scale", results)
    text = render(results)
    print(text)
    print(f"kept in {path}")
    if arguments.write_docs:
        write_block("scale", text, PAGE)


if __name__ == "__main__":
    main()
