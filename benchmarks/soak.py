"""A camera's agent and a gateway, left alone for an hour: does anything grow, wear or get lost?

    python -m benchmarks.soak [--minutes 60]

The agent is shown a film in a loop, at ten slots a second, with region, mask and gate, by a real
broker to a real gateway. After a warm-up it is sampled every few seconds. It is an error when

- the resident memory of agent or gateway grows (least-squares slope over the whole time),
- they have more open files or threads at the end than at the beginning,
- the agent writes a single byte to a disk, or has a file open for writing,
- a summary that the agent sent did not arrive, one arrived twice, or a slot of one that did was
  not decided exactly once, and
- more slots than 1 in 1000 were not shown. (Where other programs keep more than all processors
  busy, that is said, and not judged: they were left out for lack of time.)

Prints a line each minute; results go to build/bench/soak.json. Ends with 1 where anything is wrong.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np

from benchmarks.device import (
    BUNDLE,
    MASK,
    PERIOD_S,
    REGION,
    as_deployed,
    cpu_s,
    proc_value,
    write_film,
    written_files,
)
from broker.mosquitto import LocalBroker
from ddnn import decisions, status, topics, wire
from ddnn.mqtt import Client, Message
from ddnn.processes import start_child, stop_children
from ddnn.store import read_folder
from training.publish import publish_bundle

OUT = Path(__file__).resolve().parent.parent / "build" / "bench" / "soak.json"
SITE = "soak"
SAMPLE_EVERY_S = 5.0
#: What allocators do by themselves in any process; a leak of 30 bytes per frame shows in an hour.
GROWTH_MB = 1.0
SKIPPED = 0.001


class Seen:
    """What came over the broker, by slot."""

    def __init__(self, client: Client) -> None:
        self.lock = threading.Lock()
        self.summaries: Counter[int] = Counter()
        self.decided: Counter[int] = Counter()
        self.statuses: dict[str, status.Status] = {}
        self._near = int(time.time() / PERIOD_S)
        client.subscribe(topics.summary(SITE, 0), self._on_summary)
        client.subscribe(topics.decision(SITE), self._on_decision)
        client.subscribe(topics.status_filter(SITE), self._on_status)

    def _on_summary(self, message: Message) -> None:
        with self.lock:
            self._near = wire.unwrap_slot(wire.decode(message.payload).slot, self._near)
            self.summaries[self._near] += 1

    def _on_decision(self, message: Message) -> None:
        with self.lock:
            self.decided[decisions.decode(message.payload).slot] += 1

    def _on_status(self, message: Message) -> None:
        report = status.decode(message.payload)
        if report is not None:
            self.statuses[report.node] = report


class Samples:
    """One process, looked at again and again."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.at_s: list[float] = []
        self.rss_mb: list[float] = []
        self.files: list[int] = []
        self.threads: list[int] = []
        self.cpu_before = cpu_s(pid)
        self.written_before = proc_value(pid, "io", "write_bytes")

    def take(self) -> None:
        """Look at it now."""
        self.at_s.append(time.monotonic())
        self.rss_mb.append(proc_value(self.pid, "status", "VmRSS") / 1024)
        self.files.append(len(os.listdir(f"/proc/{self.pid}/fd")))
        self.threads.append(proc_value(self.pid, "status", "Threads"))

    def summary(self) -> dict[str, float]:
        """Numbers for the report."""
        hours = (np.array(self.at_s) - self.at_s[0]) / 3600
        slope = float(np.polyfit(hours, self.rss_mb, 1)[0])
        quarter = max(1, len(self.at_s) // 4)
        return {
            "rss_mb": float(np.median(self.rss_mb[-quarter:])),
            "rss_mb_per_hour": slope,
            "rss_mb_grown": slope * float(hours[-1]),
            "files_before": max(self.files[:quarter]),
            "files": max(self.files[-quarter:]),
            "threads_before": max(self.threads[:quarter]),
            "threads": max(self.threads[-quarter:]),
            "percent_of_a_core": 100
            * (cpu_s(self.pid) - self.cpu_before)
            / (self.at_s[-1] - self.at_s[0]),
            "bytes_to_disk": proc_value(self.pid, "io", "write_bytes") - self.written_before,
            "files_open_for_writing": len(written_files(self.pid)),
        }


def wrong_with(name: str, found: dict[str, float]) -> list[str]:
    """What a process's numbers say that must not be."""
    problems = []
    if found["rss_mb_grown"] > GROWTH_MB:
        problems.append(f"{name} grows by {found['rss_mb_per_hour']:.2f} MB an hour")
    for what in ("files", "threads"):
        if found[what] > found[f"{what}_before"]:
            problems.append(f"{name} has {found[what]:.0f} {what}, {found[f'{what}_before']:.0f}")
    if name == "agent" and (found["bytes_to_disk"] or found["files_open_for_writing"]):
        problems.append(f"the agent wrote {found['bytes_to_disk']:.0f} bytes to disk")
    return problems


def frames(
    seen: Seen, sent: int, skipped_slots: int, load: float
) -> tuple[dict[str, int], list[str]]:
    """What became of every slot, and what is wrong with that.

    Args:
        load: mean number of processes that wanted a processor.
    """
    with seen.lock:
        arrived, decided = seen.summaries, seen.decided
        found = {
            "slots": max(arrived) - min(arrived) + 1,
            "sent": sent,
            "arrived": sum(arrived.values()),
            "arrived_twice": sum(1 for n in arrived.values() if n > 1),
            "not_shown": max(arrived) - min(arrived) + 1 - len(arrived),
            "camera_had_no_picture": skipped_slots,
            "decided": len(decided),
            "decided_twice": sum(1 for n in decided.values() if n > 1),
            "not_decided": len(arrived.keys() - decided.keys()),
        }
    problems = []
    if found["arrived"] != found["sent"]:
        problems.append(f"{found['sent']} summaries were sent and {found['arrived']} arrived")
    problems += [
        f"{found[k]} {k}" for k in ("arrived_twice", "decided_twice", "not_decided") if found[k]
    ]
    if found["not_shown"] > SKIPPED * found["slots"]:
        text = f"{found['not_shown']} of {found['slots']} slots were not shown"
        if load > (os.cpu_count() or 1):
            print(f"NOT JUDGED: {text}, with a load of {load:.1f} on {os.cpu_count()} processors")
        else:
            problems.append(text)
    return found, problems


def wait(condition: Callable[[], bool]) -> None:
    """Wait for it, but not for ever: what did not come in time is found by the checks."""
    until = time.monotonic() + 20.0
    while not condition() and time.monotonic() < until:
        time.sleep(0.1)


def soak(minutes: float, folder: Path) -> tuple[dict[str, object], list[str]]:
    """Run it; the report and what is wrong."""
    warm_up_s = min(120.0, 0.2 * 60 * minutes)
    write_film(folder / "film.mkv")
    broker = LocalBroker(directory=folder / "broker")
    children = []
    client = None
    try:
        broker.start()
        client = Client(broker.host, broker.port, "soak")
        client.start()
        client.wait_connected(10)
        publish_bundle(client, SITE, read_folder(BUNDLE), 10)
        common = ["--site", SITE, "--broker", broker.host, "--port", str(broker.port)]
        common += ["--period-s", str(PERIOD_S), "--store"]
        ddnn = [sys.executable, "-m", "ddnn"]
        env = as_deployed(folder / "compiled")
        seen = Seen(client)
        gateway = start_child(
            [*ddnn, "gateway", *common, str(folder / "gateway")], env, folder / "gateway.log"
        )
        children.append(gateway)
        # It has the bundle before the first summary comes.
        wait(lambda: (s := seen.statuses.get("gateway")) is not None and s.bundle is not None)
        agent = start_child(
            [
                *ddnn, "device", *common, str(folder / "device"), "--camera", "0", "--gate", "true",
                "--source", f"file:{folder / 'film.mkv'}", "--loop", "true",
                "--region", json.dumps(REGION), "--mask", json.dumps(MASK),
            ],
            env,
            folder / "agent.log",
        )  # fmt: skip
        children.append(agent)
        time.sleep(warm_up_s)
        watched = {"agent": Samples(agent.pid), "gateway": Samples(gateway.pid)}
        until = time.monotonic() + 60 * minutes - warm_up_s
        next_line = 0.0
        loads = []
        while (now := time.monotonic()) < until:
            loads.append(os.getloadavg()[0])
            for samples in watched.values():
                samples.take()
            if now >= next_line:
                next_line = now + 60
                with seen.lock:
                    count = len(seen.summaries)
                sizes = ", ".join(f"{n} {s.rss_mb[-1]:.1f} MB" for n, s in watched.items())
                left = (until - now) / 60
                print(f"{left:5.1f} minutes left: {sizes}, {count} slots", flush=True)
            time.sleep(SAMPLE_EVERY_S)
        report: dict[str, object] = {name: s.summary() for name, s in watched.items()}
        problems = [p for name, s in watched.items() for p in wrong_with(name, s.summary())]
        stop_children([agent])
        wait(lambda: seen.statuses["device-0"].state == "offline")
        wait(lambda: seen.decided.keys() >= seen.summaries.keys())
        counts = seen.statuses["device-0"].counts
        sent, missing = counts.get("summaries_sent", 0), counts.get("views_missing", 0)
        load = sum(loads) / len(loads)
        found, wrong = frames(seen, sent, missing, load)
        report |= {"minutes": minutes, "load": load, "frames": found, "agent_counts": counts}
        logs = {p.stem: p.read_text().splitlines() for p in folder.glob("*.log")}
        problems += wrong
        problems += [
            f"{name}: {line}" for name, lines in logs.items() for line in lines if " E " in line
        ]
        return report, problems
    finally:
        stop_children(children)
        if client is not None:
            client.stop()
        broker.stop()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--minutes", type=float, default=60.0)
    minutes = parser.parse_args().minutes
    with tempfile.TemporaryDirectory(prefix="ddnn-soak-") as name:
        report, problems = soak(minutes, Path(name))
    OUT.parent.mkdir(parents=True, exist_ok=True)
    OUT.write_text(json.dumps(report | {"problems": problems}, indent=1))
    for name in ("agent", "gateway"):
        found = report[name]
        assert isinstance(found, dict)
        print(
            f"{name}: {found['rss_mb']:.1f} MB, {found['rss_mb_per_hour']:+.2f} MB an hour, "
            f"{found['files']} files, {found['threads']} threads, "
            f"{found['percent_of_a_core']:.1f} % of a core, {found['bytes_to_disk']} bytes to disk"
        )
    print(f"frames: {report['frames']}")
    for problem in problems:
        print(f"WRONG: {problem}")
    sys.exit(1 if problems else 0)


if __name__ == "__main__":
    main()
