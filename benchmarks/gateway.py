"""What a gateway process costs per message, next to subscribers that do nothing with the same.

    python -m benchmarks.gateway [--seconds N] [--profile] [--syscalls] [--write-docs]

Six cameras' summaries of the reference bundle on real frames leave a generator at a steady pace,
every slot is decided locally. Subscribed to the same topics of the same broker at the same time:
the gateway (`ddnn gateway` with its journal), a paho subscriber whose callback does nothing,
another one that publishes as much as a gateway does (a decision for every six messages, QoS 1),
and `mosquitto_sub` where there is one. Processor time of each process over what it received.

Two more tables are of the rules alone, without MQTT: time per message with so many slots open; and
by the message's place in its slot, when the process has slept before each slot, as a gateway does.
Cost per message is what limits a gateway: it uses one processor. Results go to
build/bench/gateway.json. With --syscalls strace counts system calls per message instead.
"""

from __future__ import annotations

import argparse
import cProfile
import os
import pstats
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

os.environ["OMP_NUM_THREADS"] = "1"


from benchmarks.cpu import cpu_s, rss_mb, switches
from benchmarks.pages import ROOT, keep, machine_line, table, write_block
from benchmarks.syscalls import Trace
from benchmarks.traffic import Recorded, recorded, send
from broker.mosquitto import LocalBroker
from broker.unpacked import find_program
from ddnn import topics
from ddnn.bundle import Bundle
from ddnn.message import Message, Publish
from ddnn.mqtt import Client
from ddnn.node import GatewaySections
from ddnn.place import Place
from ddnn.processes import start_child, stop_children
from ddnn.store import read_folder
from ddnn.tier import TierConfig
from demo.observer import Observer
from edge_gateway.effects import Fault
from edge_gateway.gateway import Gateway, GatewayRules
from training.publish import publish_bundle

SITE = "s1"
#: Slots per second that the generator sends; six messages each.
RATES = (50, 200, 400, 800)
OPEN_SLOTS = (0, 100, 1_000, 10_000)
#: Slots in a message, in a last run at the highest rate.
TOGETHER = 10
RUNS = (*((rate, 1) for rate in RATES), (RATES[-1], TOGETHER))
#: Run under strace, which makes everything slow.
TRACED_RUNS = ((RATES[1], 1),)
#: Sleep before each slot, seconds, in the table of the rules alone.
PAUSES_S = (0.0, 0.0005, 0.005, 0.02)
#: And the folder that `make bench-gateway` unpacks it into where the system has none.
MOSQUITTO_SUB = ("mosquitto_sub", "mosquitto-clients")
#: As long as a decision.
DECISION = b"x" * 350
#: How long decisions are waited for when all has been sent.
DRAIN_S = 20.0
#: Target: share of the bare subscriber's rate.
SHARE = 0.5
WALL = 1_800_000_000.0


def in_process(bundle: Bundle, data: Recorded) -> dict[int, float]:
    """Microseconds of the rules per message, by the number of open slots."""
    period_s = 0.001
    results = {}
    now_slot = int(WALL / period_s)
    for open_slots in OPEN_SLOTS:
        rounds = []
        for _ in range(3):
            made = _rules(bundle, period_s)
            earlier = data.messages(open_slots, now_slot - 200_000, bundle.tag)
            _feed(made, [m for n, m in enumerate(earlier) if n % data.cameras])
            rounds.append(_feed(made, data.messages(500, now_slot, bundle.tag)))
        results[open_slots] = round(min(rounds), 1)
    return results


def after_pauses(bundle: Bundle, data: Recorded) -> dict[float, dict[str, float]]:
    """Microseconds of the rules per message by its place in the slot, by the pause before it."""
    period_s, slots = 0.001, 400
    results = {}
    for pause_s in PAUSES_S:
        made = _rules(bundle, period_s)
        messages = data.messages(slots, int(WALL / period_s), bundle.tag)
        spent = [0.0] * data.cameras
        for slot in range(slots):
            time.sleep(pause_s)
            for camera in range(data.cameras):
                spent[camera] += _feed(made, [messages[slot * data.cameras + camera]])
        each = [us / slots for us in spent]
        results[pause_s] = {
            "first": round(each[0], 1),
            "others": round(statistics.mean(each[1:-1]), 1),
            "deciding": round(each[-1], 1),
        }
    return results


def _rules(bundle: Bundle, period_s: float) -> Gateway:
    rules = GatewayRules(
        site=SITE, period_s=period_s, window_s=600.0, tier=TierConfig(max_open_slots=100_000)
    )
    made = Gateway(rules, 1)
    place = Place.of(bundle.manifest.topology)
    made.activate(
        GatewaySections(bundle, place), bundle.manifest.classes, 0.0, WALL, None, place,
        bundle_id=bundle.bundle_id,
    )  # fmt: skip
    made.on_connected(0.0)
    return made


def _feed(made: Gateway, messages: list[tuple[str, bytes]]) -> float:
    """Microseconds of processor time per message."""
    began = time.thread_time()
    for topic, payload in messages:
        for effect in made.on_message(Message(topic, payload), 0.0, WALL):
            if isinstance(effect, Fault):
                raise effect.error
            if isinstance(effect, Publish) and effect.receipt is not None:
                made.sent(effect.receipt, 0.0)
    return (time.thread_time() - began) / max(1, len(messages)) * 1e6


def profile(bundle: Bundle, data: Recorded) -> None:
    """Print where the rules' time goes."""
    made, slot = _rules(bundle, 0.001), int(WALL / 0.001)
    messages = data.messages(2000, slot, bundle.tag)
    profiler = cProfile.Profile()
    profiler.runcall(_feed, made, messages)
    pstats.Stats(profiler).sort_stats("tottime").print_stats(25)


def listen(port: int, every: int) -> None:
    """A paho subscriber, until it is ended.

    Args:
        every: it publishes something of a decision's length at QoS 1 for so many messages; 0: it
            does nothing with what it gets.
    """
    import paho.mqtt.client as paho
    from paho.mqtt.enums import CallbackAPIVersion

    received = 0

    def on_message(client: paho.Client, _data: Any, _message: paho.MQTTMessage) -> None:
        nonlocal received
        received += 1
        if every and received % every == 0:
            client.publish("bare/decision", DECISION, 1)

    client = paho.Client(CallbackAPIVersion.VERSION2, f"bare-{every}", protocol=paho.MQTTv5)
    client.on_connect = lambda c, *_: c.subscribe(topics.summary_filter(SITE), 0)
    client.on_message = on_message
    client.connect("127.0.0.1", port)
    client.loop_forever()


def processes(
    bundle: Bundle,
    data: Recorded,
    seconds: float,
    runs: Sequence[tuple[int, int]] = RUNS,
    *,
    traced: bool = False,
) -> dict[str, Any]:
    """Processor time and context switches per message of each subscriber, at each rate.

    Args:
        runs: slots per second, and slots in a message.
        traced: count system calls, too; processor times are of no use then.
    """
    results: dict[str, Any] = {"per_message_us": {}, "switches": {}, "decided": {}, "syscalls": {}}
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        with LocalBroker(directory=folder / "broker") as broker:
            client = Client(broker.host, broker.port, "observer")
            observer = Observer(client, SITE)
            client.start()
            children: dict[str, Any] = {}
            try:
                client.wait_connected(10)
                publish_bundle(client, SITE, bundle, 10)
                address = ["--broker", broker.host, "--port", str(broker.port)]
                period_s = 1 / max(RATES)
                children["gateway"] = start_child(
                    [
                        sys.executable, "-m", "ddnn", "gateway", "--site", SITE, "--period-s",
                        str(period_s), "--store", str(folder / "store"), *address,
                        "--slot-window-s", "600", "--summary-delay-s", str(TOGETHER * period_s),
                    ],
                    {"OMP_NUM_THREADS": "1"}, folder / "gateway.log",
                )  # fmt: skip
                for each, every in (("paho", 0), ("paho, publishing", data.cameras)):
                    children[each] = start_child(
                        [
                            sys.executable, "-m", "benchmarks.gateway", "--listen",
                            str(broker.port), "--every", str(every),
                        ],
                        {}, folder / f"{each}.log",
                    )  # fmt: skip
                if program := find_program(*MOSQUITTO_SUB):
                    children["mosquitto_sub"] = subprocess.Popen(
                        [program[0], "-p", str(broker.port), "-V", "5", "-q", "0", "-N", "-t",
                         topics.summary_filter(SITE)],
                        stdout=subprocess.DEVNULL, env=os.environ | program[1],
                    )  # fmt: skip
                deadline = time.monotonic() + 60
                while (s := observer.statuses.get("gateway")) is None or not s.bundle:
                    if time.monotonic() > deadline:
                        raise SystemExit("the gateway did not take up the bundle")
                    time.sleep(0.1)
                results["memory_mb_empty"] = rss_mb(children["gateway"].pid)
                for rate, together in runs:
                    name = f"{6 * rate:,}" + (f", {together} in a message" * (together > 1))
                    traces = {
                        each: Trace(child.pid, folder / f"{each}.strace")
                        for each, child in children.items()
                        if traced
                    }
                    before = {each: cpu_s(child.pid) for each, child in children.items()}
                    switched = {each: switches(child.pid) for each, child in children.items()}
                    decided = len(observer.decisions)
                    sent = send(
                        broker.port, SITE, bundle.tag, data, rate, seconds, period_s, together
                    )
                    wanted = decided + sent // data.cameras
                    deadline = time.monotonic() + DRAIN_S
                    while len(observer.decisions) < wanted and time.monotonic() < deadline:
                        time.sleep(0.2)
                    results["per_message_us"][name] = {
                        each: round(1e6 * (cpu_s(child.pid) - before[each]) / sent, 1)
                        for each, child in children.items()
                    }
                    results["switches"][name] = {
                        each: round((switches(child.pid) - switched[each]) / sent, 2)
                        for each, child in children.items()
                    }
                    if traced:
                        results["syscalls"][name] = {
                            each: {call: round(n / sent, 2) for call, n in trace.stop().items()}
                            for each, trace in traces.items()
                        }
                    share = (len(observer.decisions) - decided) / (wanted - decided)
                    results["decided"][name] = round(share, 4)
                results["memory_mb"] = rss_mb(children["gateway"].pid)
            finally:
                client.stop()
                stop_children(list(children.values()))
    return results


def render(results: dict[str, Any]) -> str:
    """The tables for docs/benchmarks.md."""
    rows = []
    ratios = []
    for name, cost in results["per_message_us"].items():
        ratios.append(cost["paho"] / cost["gateway"])
        switched = results["switches"][name]
        rows.append(
            [
                name, f"**{ratios[-1]:.2f}**", str(cost["gateway"]),
                str(cost["paho"]), str(cost["paho, publishing"]),
                str(cost.get("mosquitto_sub", "not here")),
                f"{switched['gateway']}, {switched['paho']}",
                f"{100 * results['decided'][name]:.1f} %",
            ]
        )  # fmt: skip
    head = ["summaries/s", "paho / gateway", "gateway, us per summary", "bare paho"]
    head += ["paho that publishes as much", "mosquitto_sub"]
    head += ["context switches: gateway, bare", "decided"]
    parts = [table(head, rows)]
    *_, single, several = (cost["gateway"] for cost in results["per_message_us"].values())
    parts.append(
        table(
            ["open slots", "rules alone, us per message"],
            [[f"{n:,}", str(us)] for n, us in results["rules_us"].items()],
        )
    )
    parts.append(
        table(
            ["asleep before a slot", "rules alone, us: its first message", "others", "deciding"],
            [
                [f"{1000 * pause_s:g} ms", *(str(us) for us in each.values())]
                for pause_s, each in results["after_pauses_us"].items()
            ],
        )
    )
    # How much a process can take is what it costs when it has much to do.
    busy, share = list(results["per_message_us"])[len(RATES) - 1], ratios[len(RATES) - 1]
    parts.append(
        f"- the gateway's rate is {share:.2f} of the bare subscriber's at {busy} summaries a "
        f"second, where it is busiest (target {SHARE})\n"
        f"- one processor is good for about {1e6 / single / 6:,.0f} decisions per second of six "
        f"cameras, {1e6 / several / 6:,.0f} with {TOGETHER} slots in a message\n"
        f"- memory of a site's gateway: {results['memory_mb']:.0f} MB"
    )
    return "\n\n".join([*parts, machine_line()])


def render_syscalls(counts: dict[str, dict[str, dict[str, float]]]) -> str:
    """System calls per message, by process."""
    rows = [
        [name, each, f"{sum(calls.values()):.2f}",
         ", ".join(f"{call} {n}" for call, n in calls.items() if n)]
        for name, by_process in counts.items()
        for each, calls in by_process.items()
    ]  # fmt: skip
    return table(["summaries/s", "process", "system calls per summary", "of these"], rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--seconds", type=float, default=15.0, help="at each rate")
    parser.add_argument("--profile", action="store_true", help="print where the time goes, only")
    parser.add_argument(
        "--syscalls", action="store_true", help="print system calls per message, only"
    )
    parser.add_argument("--write-docs", action="store_true", help="put the tables into docs/")
    parser.add_argument("--listen", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--every", type=int, default=0, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.listen:
        listen(arguments.listen, arguments.every)
        return
    bundle = read_folder(ROOT / "models/reference")
    data = recorded(bundle)
    if arguments.profile:
        profile(bundle, data)
        return
    if find_program(*MOSQUITTO_SUB) is None:
        print("mosquitto_sub is not here (on Debian: package mosquitto-clients)")
    if arguments.syscalls:
        traced = processes(bundle, data, arguments.seconds, TRACED_RUNS, traced=True)
        print(render_syscalls(traced["syscalls"]))
        return
    results = processes(bundle, data, arguments.seconds)
    results["rules_us"] = in_process(bundle, data)
    results["after_pauses_us"] = after_pauses(bundle, data)
    path = keep("gateway", results)
    text = render(results)
    print(text)
    print(f"kept in {path}")
    if arguments.write_docs:
        write_block("gateway", text)


if __name__ == "__main__":
    main()
