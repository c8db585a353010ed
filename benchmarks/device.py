"""What a camera's agent costs, per frame and as a process.

    python -m benchmarks.device [--seconds N] [--write-docs] [--replay-only]

Per frame: processor time of one thread for each step from a picture to a message, with the
reference bundle; of several short bursts the fastest counts. As a process: the agent with all of
it switched on, at ten frames a second on a real broker, shown a film in a loop: processor time as
a share of one core, resident memory, bytes that reached a disk, files open for writing, and the
time from start to first summary. Results go to build/bench/device.json. `--replay-only` prints the
process's numbers alone, as JSON: for `benchmarks.arm64`, on a machine without FFmpeg.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = "1"
os.environ["OPENBLAS_NUM_THREADS"] = "1"

import numpy as np

from broker.mosquitto import LocalBroker
from ddnn import topics
from ddnn.mqtt import Client, Message
from ddnn.processes import start_child, stop_children
from ddnn.store import read_folder
from device_agent.agent import Agent
from device_agent.framing import Framing
from device_agent.gate import Gate, GateRules
from training.publish import publish_bundle

ROOT = Path(__file__).resolve().parent.parent
OUT = ROOT / "build" / "bench" / "device.json"
DOCS = ROOT / "docs" / "pi.md"
BEGIN, END = "<!-- made by benchmarks.device: begin -->", "<!-- end -->"
BUNDLE = ROOT / "models" / "reference"
PERIOD_S = 0.1
BURSTS, CALLS = 20, 50
WARM_UP_S = 5.0
#: An emulated machine takes its time.
START_TIMEOUT_S = 300.0
REGION, MASK = (0.1, 0.0, 0.9, 1.0), [[(0.0, 0.0), (0.4, 0.0), (0.4, 0.3), (0.0, 0.3)]]
SITE = "bench"


def burst_us(call: Callable[[int], object]) -> float:
    """Microseconds of processor time per call."""
    for number in range(CALLS):
        call(number)
    best = float("inf")
    for _ in range(BURSTS):
        before = time.thread_time()
        for number in range(CALLS):
            call(number)
        best = min(best, (time.thread_time() - before) / CALLS)
    return 1e6 * best


def per_frame_us() -> dict[str, float]:
    """Steps by name -> microseconds."""
    random = np.random.default_rng(0)
    bundle = read_folder(BUNDLE)
    agent = Agent(0, 1)
    agent.load(bundle)
    shape = agent.view_shape(0)
    assert shape is not None
    found = {}
    for rows, columns in ((96, 128), (240, 320), (480, 640)):
        picture = random.integers(0, 256, (rows, columns, 3)).astype(np.uint8)
        same = picture.copy()
        framing = Framing(REGION, MASK)
        name = f"{columns} x {rows}"
        found[f"frozen? compare two pictures, {name}"] = burst_us(
            lambda _, a=picture, b=same: np.array_equal(a, b)
        )
        found[f"region, masks, area-averaging, {name}"] = burst_us(
            lambda _, f=framing, p=picture: f.view(p, shape)
        )
    background = random.uniform(60, 200, shape)
    views = [
        np.clip(background + random.normal(0, 3, shape), 0, 255).astype(np.uint8)
        for _ in range(CALLS)
    ]
    gate = Gate(GateRules(learn_s=1.0))
    clock = iter(range(10**9))
    for _ in range(2):
        burst_us(lambda n: gate.look(views[n], next(clock) * PERIOD_S))
    found["gate"] = burst_us(lambda n: gate.look(views[n], next(clock) * PERIOD_S))
    assert gate.state == "absent"
    found["section and message"] = burst_us(lambda n: agent.view(n, views[n]))
    return found


def write_film(path: Path) -> None:
    """Five seconds of a moving gradient with noise, 640 x 480 at 20 pictures a second."""
    import av

    random = np.random.default_rng(0)
    ramp = np.add.outer(np.arange(480), np.arange(640))
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=20)
        stream.width, stream.height, stream.pix_fmt = 640, 480, "yuv420p"
        stream.bit_rate = 2_000_000
        for number in range(100):
            grey = (ramp + 4 * number) % 256 + random.normal(0, 4, ramp.shape)
            picture = np.repeat(np.clip(grey, 0, 255).astype(np.uint8)[..., None], 3, axis=2)
            for packet in stream.encode(av.VideoFrame.from_ndarray(picture, "rgb24")):
                container.mux(packet)
        for packet in stream.encode():
            container.mux(packet)


def cpu_s(pid: int) -> float:
    """Processor time of a process so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def proc_value(pid: int, file: str, name: str) -> int:
    """The number behind `name:` in /proc/PID/file."""
    for line in Path(f"/proc/{pid}/{file}").read_text().splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1])
    raise KeyError(name)


def written_files(pid: int) -> list[str]:
    """Regular files that a process has open for writing, but for its log."""
    found = []
    for link in Path(f"/proc/{pid}/fd").iterdir():
        target = os.readlink(link)
        flags = int(Path(f"/proc/{pid}/fdinfo/{link.name}").read_text().split()[3], 8)
        if os.path.isfile(target) and flags & 3 and not target.endswith(".log"):
            found.append(target)
    return found


def as_deployed(compiled: Path) -> dict[str, str]:
    """What deploy/ddnn@.service sets; what Python compiles is kept in `compiled`."""
    return {
        "OMP_NUM_THREADS": "1",
        "OPENBLAS_NUM_THREADS": "1",
        "MALLOC_ARENA_MAX": "1",
        "PYTHONOPTIMIZE": "2",
        "PYTHONPYCACHEPREFIX": str(compiled),
        "PYTHONDONTWRITEBYTECODE": "",
    }


def after_one_start(seconds: float, film: Path | None, folder: Path) -> dict[str, float]:
    """`as_process` of an agent that has been started before, as on any host.

    On its first start Python compiles, which takes memory that it does not give back.
    """
    as_process(1.0, film, folder.with_name(f"{folder.name}-first"))
    return as_process(seconds, film, folder)


def as_process(seconds: float, film: Path | None, folder: Path) -> dict[str, float]:
    """The agent shown a film, or (None) a replayed data set; sizes in MB, times in seconds."""
    folder.mkdir()
    broker = LocalBroker(directory=folder / "broker")
    client = None
    children = []
    first = threading.Event()
    try:
        broker.start()
        client = Client(broker.host, broker.port, "bench")
        client.subscribe(topics.summary(SITE, 0), lambda _: first.set())
        said: list[bytes] = []
        ready = threading.Event()

        def on_status(message: Message) -> None:
            said.append(message.payload)
            if b'"bundle"' in message.payload:
                ready.set()

        client.subscribe(topics.status(SITE, "device-0"), on_status)
        client.start()
        client.wait_connected(START_TIMEOUT_S)
        publish_bundle(client, SITE, read_folder(BUNDLE), START_TIMEOUT_S)
        command = [sys.executable, "-m", "ddnn", "device", "--site", SITE, "--camera", "0"]
        command += ["--broker", broker.host, "--port", str(broker.port)]
        command += ["--period-s", str(PERIOD_S), "--store", str(folder / "store")]
        if film is None:
            source = f"replay:{folder / 'replay.npz'}"
            count = int((seconds + WARM_UP_S + 5) / PERIOD_S)
            images = np.random.default_rng(0).integers(0, 256, (count, 1, 32, 32, 3))
            np.savez(
                folder / "replay.npz",
                images=images.astype(np.uint8),
                present=np.ones((count, 1), bool),
            )
        else:
            source = f"file:{film}"
            command += ["--loop", "true", "--gate", "true", "--region", json.dumps(REGION)]
            command += ["--mask", json.dumps(MASK)]
        began = time.monotonic()
        env = as_deployed(folder.parent / "compiled")
        child = start_child([*command, "--source", source], env, folder / "agent.log")
        children.append(child)
        if film is None and ready.wait(START_TIMEOUT_S):
            start = int(time.time() / PERIOD_S)
            client.publish(topics.replay(SITE), b'{"first_slot":%d}' % start, qos=1, retain=True)
        if not first.wait(START_TIMEOUT_S):
            log = (folder / "agent.log").read_text()
            raise SystemExit(f"no summary came; it is {child.poll()}, said {said[-1:]}:\n{log}")
        first_s = time.monotonic() - began
        time.sleep(WARM_UP_S)
        pid = child.pid
        before, disk_before = cpu_s(pid), proc_value(pid, "io", "write_bytes")
        time.sleep(seconds)
        return {
            "percent_of_a_core": 100 * (cpu_s(pid) - before) / seconds,
            "rss_mb": proc_value(pid, "status", "VmRSS") / 1024,
            "rss_private_mb": proc_value(pid, "status", "RssAnon") / 1024,
            "start_to_first_summary_s": first_s,
            "bytes_to_disk": proc_value(pid, "io", "write_bytes") - disk_before,
            "files_open_for_writing": len(written_files(pid)),
        }
    finally:
        stop_children(children)
        if client is not None:
            client.stop()
        broker.stop()


def table(steps: dict[str, float], processes: dict[str, dict[str, float]]) -> str:
    """Markdown."""
    lines = ["| step | us per frame |", "|---|---|"]
    lines += [f"| {name} | {us:.0f} |" for name, us in steps.items()]
    lines += [
        "",
        "| agent at 10 frames/s | of one core | resident MB | of it its own "
        "| start to first summary | to disk | files open for writing |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, p in processes.items():
        lines.append(
            f"| {name} | {p['percent_of_a_core']:.1f} % | {p['rss_mb']:.1f} "
            f"| {p['rss_private_mb']:.1f} "
            f"| {p['start_to_first_summary_s']:.1f} s | {p['bytes_to_disk']:.0f} bytes "
            f"| {p['files_open_for_writing']:.0f} |"
        )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--write-docs", action="store_true")
    parser.add_argument("--replay-only", action="store_true")
    args = parser.parse_args()
    if args.replay_only:
        with tempfile.TemporaryDirectory(prefix="ddnn-bench-") as name:
            print(json.dumps(after_one_start(args.seconds, None, Path(name) / "replay")))
        return
    steps = per_frame_us()
    with tempfile.TemporaryDirectory(prefix="ddnn-bench-") as name:
        folder = Path(name)
        write_film(folder / "film.mkv")
        processes = {
            "replay": after_one_start(args.seconds, None, folder / "replay"),
            "film 640 x 480 at 20/s, region, mask, gate": after_one_start(
                args.seconds, folder / "film.mkv", folder / "film"
            ),
        }
    text = table(steps, processes)
    print(text)
    OUT.parent.mkdir(parents=True, exist_ok=True)
    OUT.write_text(json.dumps({"us_per_frame": steps, "processes": processes}, indent=1))
    if args.write_docs:
        head, _, rest = DOCS.read_text().partition(BEGIN)
        _, _, tail = rest.partition(END)
        DOCS.write_text(f"{head}{BEGIN}\n\n{text}\n\n{END}{tail}")


if __name__ == "__main__":
    main()
