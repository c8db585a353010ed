"""How fast the HTTP API answers, with a million decisions in SQLite, measured by wrk.

The app as `ddnn dashboard` serves it (FastAPI in uvicorn, one process), without login and pages.
wrk (https://github.com/wg/wrk) keeps a number of connections busy: on each the next request
follows the answer, so that the load is what the service can do, and the waiting in line is in the
latency. Beside it, optionally, decisions go on being stored.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import re
import socket
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from subprocess import run

import msgspec
import sqlalchemy as sa
import uvicorn
from fastapi import FastAPI

from benchmarks.machine import machine
from broker.unpacked import find_program
from cloud_service import api
from cloud_service.overview import Overview
from cloud_service.records.store import Records
from cloud_service.records.tables import sites
from ddnn.decisions import PublishedDecision
from ddnn.processes import start_child, stop_children

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / "build/bench"
DATABASE = FOLDER / "api.db"
OUT = FOLDER / "api.json"
DOCS = ROOT / "docs/benchmarks.md"
BEGIN, END = "<!-- made by benchmarks.api: begin -->", "<!-- api: end -->"
SITES = 4
#: The last slot's time: fixed, so that a database can be used again.
END_S = 1_790_000_000
BATCH = 2000
#: Decisions stored each second while requests are answered: 10 of each of 10 sites.
WRITES_S = 100


class Result(msgspec.Struct, frozen=True, kw_only=True):
    """What wrk says of one kind of request."""

    requests_s: float
    p50_ms: float
    p99_ms: float
    errors: int
    answer_bytes: int


def make(slot: int, site: int, number: int) -> PublishedDecision:
    """One of many decisions, most of them local, some degraded."""
    return PublishedDecision(
        site=f"site-{site}",
        slot=slot,
        time_s=slot / 10,
        label=("car", "bus", "person")[number % 3],
        probability=round(0.5 + number % 50 / 100, 2),
        entropy=round(number % 97 / 100, 2),
        threshold=0.8,
        exit="cloud" if number % 20 == 0 else "edge" if number % 7 == 0 else "local",
        members="cameras",
        used=(0, 1, 3, 4),
        absent=(2,),
        missing=(5,) if number % 11 == 0 else (),
        degraded="cloud_timeout" if number % 1000 == 0 else None,
        stage_ms={"summaries": 2.0 + number % 40 / 10, "features": 4.5},
        payload_bytes=65 + number % 30,
        bundle_tag=48879,
    )


def fill(count: int) -> float:
    """Make the database, unless there is one with so many decisions. Returns seconds taken."""
    records = Records(str(DATABASE))
    records.migrate()
    if _kept(records) >= count:
        records.close()
        return 0.0
    began = time.monotonic()
    each = count // SITES
    for site in range(SITES):
        first = END_S * 10 - each
        for start in range(0, each, BATCH):
            slots = range(start, min(start + BATCH, each))
            records.add([make(first + n, site, n) for n in slots])
    records.close()
    return time.monotonic() - began


def _kept(records: Records) -> int:
    with records.reading() as connection:
        return int(connection.scalar(sa.select(sa.func.sum(sites.c.kept))) or 0)


def serve(port: int) -> None:
    """The service, in this process, until it is ended."""
    records = Records(str(DATABASE))
    app = FastAPI()
    api.install(app, Overview(), records)
    uvicorn.run(app, host="127.0.0.1", port=port, log_level="warning", access_log=False)


def paths(count: int) -> dict[str, str]:
    """What is asked for."""
    site = "/api/v1/sites/site-1"
    middle = END_S - count / SITES / 20
    hours = f"{site}/buckets?from={END_S - 86_400}&to={END_S}"
    return {
        "100 newest decisions": f"{site}/decisions",
        "100 in the middle": f"{site}/decisions?to={middle:.0f}",
        "degraded ones (0.1 %)": f"{site}/decisions?degraded=true&limit=20",
        "with camera 5 missing (9 %)": f"{site}/decisions?missing_camera=5",
        "one decision": f"{site}/decisions/{END_S * 10 - 1000}",
        "a day by hours": f"{hours}&bucket_s=3600",
        "a day by 5 minutes": f"{hours}&bucket_s=300",
        "an hour by minutes": f"{site}/buckets?from={END_S - 3600}&to={END_S}&bucket_s=60",
        "all sites": "/api/v1/sites",
        "health": "/healthz",
    }


def ask(wrk: str, own: dict[str, str], url: str, connections: int, seconds: int) -> Result:
    """Have wrk ask for one URL.

    Args:
        own: variables that wrk needs.
    """
    with urllib.request.urlopen(url) as answer:
        size = len(answer.read())
    command = [
        wrk,
        "-t1",
        f"-c{connections}",
        f"-d{seconds}s",
        "--latency",
        "--timeout",
        "30s",
        url,
    ]
    said = run(command, check=True, capture_output=True, text=True, env=os.environ | own).stdout
    found = {share: _ms(said, rf"^\s+{share}%\s+(\S+)\s*$") for share in ("50", "99")}
    errors = re.search(r"Non-2xx or 3xx responses: (\d+)", said)
    sockets = re.search(
        r"Socket errors: connect (\d+), read (\d+), write (\d+), timeout (\d+)", said
    )
    return Result(
        requests_s=float(_find(said, r"Requests/sec:\s+(\S+)")),
        p50_ms=found["50"],
        p99_ms=found["99"],
        errors=int(errors[1]) if errors else sum(map(int, sockets.groups())) if sockets else 0,
        answer_bytes=size,
    )


def _find(said: str, pattern: str) -> str:
    found = re.search(pattern, said, re.M)
    if found is None:
        raise SystemExit(f"wrk says something else than expected:\n{said}")
    return found[1]


def _ms(said: str, pattern: str) -> float:
    text = _find(said, pattern)
    for unit, factor in (("us", 0.001), ("ms", 1.0), ("s", 1000.0), ("m", 60_000.0)):
        if text.endswith(unit):
            return float(text.removesuffix(unit)) * factor
    raise SystemExit(f"wrk's {text!r} is no time")


@contextlib.contextmanager
def storing() -> Iterator[None]:
    """Decisions go on coming in, as from the consumer: in batches, each with its sync."""
    records = Records(str(DATABASE))
    stop = threading.Event()
    first = END_S * 10 + int(time.time() * 100) % 10**9

    def write() -> None:
        number = 0
        while not stop.wait(0.2):
            count = WRITES_S // 5
            records.add([make(first + number + n, SITES, number + n) for n in range(count)])
            number += count

    thread = threading.Thread(target=write)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
        records.close()


def measure(count: int, connections: int, seconds: int) -> dict[str, Result]:
    """Every kind of request, one after the other."""
    program = find_program("wrk", "wrk")
    if program is None:
        raise SystemExit("wrk is missing: make bench-api unpacks it on Debian, or install it")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    base = f"http://127.0.0.1:{port}"
    command = [sys.executable, "-m", "benchmarks.api", "--serve", str(port)]
    child = start_child(command, {}, FOLDER / "api.log")
    try:
        for _ in range(200):
            with contextlib.suppress(OSError):
                urllib.request.urlopen(f"{base}/healthz").close()
                break
            time.sleep(0.1)
        results = {}
        with storing():
            for name, path in paths(count).items():
                results[name] = ask(*program, base + path, connections, seconds)
                print(f"{name:<28} {results[name]}", flush=True)
        return results
    finally:
        stop_children([child])


def render(results: dict[str, Result], count: int, connections: int, filled_s: float) -> str:
    """The table for docs/benchmarks.md."""
    lines = [
        "| asked for | answers a second | p50 | p99 | bytes |",
        "|---|---|---|---|---|",
    ]
    for name, found in results.items():
        row = (name, f"{found.requests_s:.0f}", f"{found.p50_ms:.1f} ms", f"{found.p99_ms:.1f} ms")
        lines.append(f"| {' | '.join(row)} | {found.answer_bytes} |")
    errors = sum(found.errors for found in results.values())
    size = DATABASE.stat().st_size
    lines += [
        "",
        f"{count} decisions of {SITES} sites in {size / 1e6:.0f} MB ({size / count:.0f} bytes "
        f"each, with index and counts); {connections} connections; {WRITES_S} more decisions "
        f"stored each second meanwhile; {errors} errors.",
    ]
    if filled_s:
        lines[-1] += f" Stored before at {count / filled_s:.0f} decisions a second."
    what = ", ".join(f"{key} {value}" for key, value in machine().items())
    return "\n".join([*lines, "", f"Machine: {what}."])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--decisions", type=int, default=1_000_000)
    parser.add_argument("--connections", type=int, default=8)
    parser.add_argument("--seconds", type=int, default=10)
    parser.add_argument("--write-docs", action="store_true", help="put the table into docs/")
    parser.add_argument("--serve", type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.serve:
        serve(arguments.serve)
        return
    FOLDER.mkdir(parents=True, exist_ok=True)
    filled_s = fill(arguments.decisions)
    results = measure(arguments.decisions, arguments.connections, arguments.seconds)
    OUT.write_bytes(msgspec.json.format(msgspec.json.encode(results), indent=2) + b"\n")
    text = render(results, arguments.decisions, arguments.connections, filled_s)
    print(text)
    if arguments.write_docs:
        page = DOCS.read_text()
        before, _, rest = page.partition(BEGIN)
        DOCS.write_text(f"{before}{BEGIN}\n\n{text}\n\n{END}{rest.partition(END)[2]}")


if __name__ == "__main__":
    main()
