"""How long a bundle takes from the publisher to every node of a site, on one machine.

A real mosquitto, a publisher, and nodes that do what a camera does up to the point where it says
`staged`: signature, download in chunks, hashes, and two slots on disk with their syncs. Left out
is what does not depend on the push: loading in onnxruntime and the lead before the change over.
The nodes are clients of their own in a few processes; each fetches the whole of one section.
"""

from __future__ import annotations

import argparse
import hashlib
import statistics
import sys
import tempfile
import threading
import time
from pathlib import Path

import msgspec
import numpy as np

from benchmarks.machine import machine
from broker.mosquitto import LocalBroker
from ddnn import bundle as b
from ddnn import status, topics
from ddnn.key_files import read_keys, write_keys
from ddnn.models import ModelFeed
from ddnn.mqtt import Client, Message, Publish
from ddnn.processes import start_child, stop_children
from ddnn.signing import SecretKey
from ddnn.trust import KeySet, Place, Trust, TrustedKey
from training.publish import publish_bundle, signed

SITE = "b"
PROCESSES = 5
SIZES = {"50 kB": 50_000, "2 MB": 2_000_000}
ROOT = Path(__file__).resolve().parent.parent
OUT = ROOT / "build/bench/rollout.json"
DOCS = ROOT / "docs/benchmarks.md"
BEGIN, END = "<!-- made by benchmarks.rollout: begin -->", "<!-- rollout: end -->"


def make_bundle(size: int, version: int, key: SecretKey) -> b.Bundle:
    """A bundle of one camera whose section has `size` random bytes."""
    data = np.random.default_rng(version).bytes(size)
    tensors = {
        name: b.Tensor(name=name, dtype="uint8", shape=shape)
        for name, shape in (("image", (96, 96, 3)), ("scores", (3,)), ("features", (64,)))
    }
    section = b.SectionInfo(
        role="device/0",
        sha256=hashlib.sha256(data).hexdigest(),
        size_bytes=len(data),
        opset=b.OPSET,
        inputs=(tensors["image"],),
        outputs=(tensors["scores"], tensors["features"]),
        self_test=b.SelfTest(seed="s", batch=1, sha256="0" * 64),
    )
    manifest = b.Manifest(
        name="bench",
        version=version,
        created="2026-01-01T00:00:00Z",
        classes=("car", "bus", "person"),
        image=b.Image(height=96, width=96, channels=3),
        topology=b.Topology(cameras=1),
        exits={},
        sections=(section,),
    )
    return signed(b.assemble(b.encode_manifest(manifest), {"device/0": data}), key)


class Ready:
    """A runner that takes every bundle without loading it."""

    def stage(self, bundle: b.Bundle) -> None: ...
    def switch(self, bundle: b.Bundle, from_slot: int) -> None: ...
    def try_out(self, bundle: b.Bundle | None, every: int) -> None: ...
    def begun(self, bundle: b.Bundle) -> None: ...


def start_node(name: str, port: int, folder: Path, trusted: Path) -> Client:
    """One node: it says in its status what it has taken up."""
    client = Client("127.0.0.1", port, f"{SITE}-{name}")

    def report() -> None:
        said = status.Status(node=name, state="online", boot=0, bundle=feed.bundle_id)
        said = msgspec.structs.replace(said, staged=feed.staged_id, refused=feed.refused)
        topic = topics.status(SITE, name)
        client.send(Publish(topic, status.encode(said), qos=1, retain=True))

    place = Place(SITE, "device", "any", "0.1.0")
    feed = ModelFeed(
        client,
        SITE,
        lambda manifest: {"device/0"},
        Ready(),
        Trust(place, lambda: read_keys(trusted)),
        period_s=1.0,
        store=folder / name,
        changed=report,
    )
    feed.start()
    client.start()
    client.wait_connected(20)
    report()
    return client


def run_nodes(first: int, count: int, port: int, folder: Path, trusted: Path) -> None:
    """Several nodes in this process, until it is ended."""
    clients = [
        start_node(f"device-{n}", port, folder, trusted) for n in range(first, first + count)
    ]
    threading.Event().wait()
    del clients


class Site:
    """The publisher's view: when each node has taken up a bundle."""

    def __init__(self, client: Client) -> None:
        self.nodes: dict[str, tuple[float, status.Status]] = {}
        client.subscribe(topics.status_filter(SITE), self._on_status)

    def _on_status(self, message: Message) -> None:
        report = status.decode(message.payload)
        if report is not None:
            self.nodes[report.node] = (time.monotonic(), report)

    def wait(self, count: int, bundle: str | None, timeout_s: float) -> list[float]:
        """Times at which `count` nodes had `bundle`."""
        deadline = time.monotonic() + timeout_s
        while True:
            seen = list(self.nodes.values())
            done = [at for at, said in seen if bundle in (None, said.bundle, said.staged)]
            if len(done) >= count:
                return sorted(done)
            if time.monotonic() > deadline:
                why = {said.refused for _, said in seen}
                raise SystemExit(f"only {len(done)} of {count} nodes after {timeout_s} s: {why}")
            time.sleep(0.002)


def measure(nodes: int, rounds: int, folder: Path) -> dict[str, dict[str, list[float]]]:
    """Seconds from the beginning of the push, per size and round: broker, half, all nodes."""
    key = SecretKey.new()
    trusted = folder / "trusted.json"
    write_keys(trusted, KeySet(keys=(TrustedKey(public_key=key.public_key.hex()),)))
    results: dict[str, dict[str, list[float]]] = {}
    with LocalBroker(directory=folder / "broker") as broker:
        each = -(-nodes // PROCESSES)
        children = [
            start_child(
                [
                    sys.executable, "-m", "benchmarks.rollout", "--nodes-from", str(first),
                    "--nodes", str(min(each, nodes - first)), "--port", str(broker.port),
                    "--folder", str(folder),
                ],
                {},
                folder / f"nodes-{first}.log",
            )
            for first in range(0, nodes, each)
        ]  # fmt: skip
        client = Client(broker.host, broker.port, "publisher")
        site = Site(client)
        client.start()
        try:
            client.wait_connected(20)
            site.wait(nodes, None, 60)
            version = 0
            for name, size in SIZES.items():
                result = results[name] = {"broker": [], "half": [], "all": []}
                for _ in range(rounds + 1):
                    version += 1
                    bundle = make_bundle(size, version, key)
                    began = time.monotonic()
                    publish_bundle(client, SITE, bundle, 60)
                    taken = time.monotonic()
                    done = site.wait(nodes, bundle.bundle_id, 120)
                    result["broker"].append(taken - began)
                    result["half"].append(done[nodes // 2 - 1] - began)
                    result["all"].append(done[-1] - began)
                    time.sleep(0.5)
                for values in result.values():
                    del values[0]  # the first one also warms everything up
        finally:
            client.stop()
            stop_children(children)
    return results


def render(results: dict[str, dict[str, list[float]]], nodes: int) -> str:
    """The table for docs/benchmarks.md."""
    lines = [
        f"| section of | at the broker | half of {nodes} nodes | all {nodes} | sent to nodes |",
        "|---|---|---|---|---|",
    ]
    for name, result in results.items():
        cells = []
        for what in ("broker", "half", "all"):
            values = result[what]
            cells.append(f"{statistics.median(values):.2f} s (to {max(values):.2f})")
        lines.append(f"| {name} | {' | '.join(cells)} | {nodes * SIZES[name] / 1e6:.1f} MB |")
    what = ", ".join(f"{key} {value}" for key, value in machine().items())
    return "\n".join([*lines, "", f"Machine: {what}."])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--nodes", type=int, default=50)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--write-docs", action="store_true", help="put the table into docs/")
    parser.add_argument("--nodes-from", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--port", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.nodes_from is not None:
        folder = arguments.folder
        trusted = folder / "trusted.json"
        run_nodes(arguments.nodes_from, arguments.nodes, arguments.port, folder, trusted)
    with tempfile.TemporaryDirectory() as folder:
        results = measure(arguments.nodes, arguments.rounds, Path(folder))
    OUT.parent.mkdir(parents=True, exist_ok=True)
    OUT.write_bytes(msgspec.json.format(msgspec.json.encode(results), indent=2) + b"\n")
    text = render(results, arguments.nodes)
    print(text)
    if arguments.write_docs:
        page = DOCS.read_text()
        before, _, rest = page.partition(BEGIN)
        DOCS.write_text(f"{before}{BEGIN}\n\n{text}\n\n{END}{rest.partition(END)[2]}")


if __name__ == "__main__":
    main()
