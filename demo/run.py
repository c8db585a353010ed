"""One demo, from start to report."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import msgspec
import numpy as np
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from ddnn import topics
from ddnn.bundle import Bundle
from ddnn.errors import DdnnError
from ddnn.evaluate import evaluate
from ddnn.key_files import write_keys
from ddnn.mqtt import Client
from ddnn.place import edge_gateways
from ddnn.signing import SecretKey
from ddnn.trust import KeySet, TrustedKey
from demo.observer import Observer, Seen
from demo.report import Report, make_report, summary_lines
from demo.system import System, write_replay
from training.datasets.base import MultiCameraSet
from training.publish import publish_bundle, signed

SITE = "demo"
#: Waits are long here, so that a busy machine shows no degraded frame; frames complete early.
GATEWAY_WAITS = ("--summary-wait-s", "5", "--features-wait-s", "5", "--answer-wait-s", "5")
READY_WITHIN_S = 60.0
RAW_SAMPLES = 60


def run_demo(
    samples: MultiCameraSet,
    bundle: Bundle,
    folder: Path,
    period_s: float,
    console: Console,
    *,
    dashboard_port: int | None = None,
    stay: Callable[[Report], None] = lambda report: None,
) -> Report:
    """Replay `samples` through the whole system and measure it.

    Args:
        dashboard_port: where the dashboard is shown meanwhile; None: it is not.
        stay: called with the report before the processes end.

    Raises:
        DdnnError: a process died or something took too long.
    """
    manifest = bundle.manifest
    _check_fit(samples, bundle)
    replay = folder / "replay.npz"
    write_replay(replay, samples)
    # A key for this run only: nothing that is worth stealing lies in a checkout.
    key = SecretKey.new()
    bundle = signed(bundle, key)
    trusted = folder / "run" / "trusted-keys.json"
    write_keys(trusted, KeySet(keys=(TrustedKey(public_key=key.public_key.hex(), name="demo"),)))
    system = System(
        folder / "run",
        replay,
        manifest.topology,
        site=SITE,
        period_s=period_s,
        gateway_options=GATEWAY_WAITS,
        trusted_keys=trusted,
    )
    with system:
        console.print(f"broker      mosquitto on {system.broker.host}:{system.broker.port}")
        client = Client(system.broker.host, system.broker.port, "demo-observer")
        observer = Observer(client, SITE)
        client.start()
        try:
            client.wait_connected(10.0)
            size = publish_bundle(client, SITE, bundle, 10.0)
            console.print(
                f"bundle      {bundle.bundle_id[:12]} version {manifest.version}: "
                f"{len(bundle.sections)} sections, {size} bytes, retained, "
                f"signed by key {key.key_id}"
            )
            system.start_services()
            if dashboard_port is not None:
                system.start_dashboard(dashboard_port)
                console.print(f"dashboard   http://127.0.0.1:{dashboard_port}")
            system.wait_until(
                lambda: observer.ready(SITE, manifest.topology, bundle.bundle_id),
                "starting all processes",
                READY_WITHIN_S,
            )
            edges = len(edge_gateways(manifest.topology))
            console.print(
                f"processes   {manifest.topology.cameras} device agents, "
                + (f"{edges} edge gateways, " if edges else "")
                + "1 gateway, 1 cloud worker"
            )
            first_slot = int((time.time() + 1.0) / period_s) + 1
            start = msgspec.json.encode({"first_slot": first_slot})
            client.publish(topics.replay(SITE), start, qos=1, retain=True)
            _watch(system, observer, samples, bundle, first_slot, period_s, console)
            raw_wire_bytes = _measure_raw(system, samples)
        finally:
            client.stop()
        reference = evaluate(bundle, samples.images, samples.present)
        report = make_report(
            data=samples.name,
            manifest=manifest,
            bundle_id=bundle.bundle_id,
            labels=samples.labels.tolist(),
            reference=reference,
            first_slot=first_slot,
            decisions=observer.decisions,
            repeats=observer.repeats,
            devices=observer.devices,
            ledger=observer.ledger,
            raw_wire_bytes=raw_wire_bytes,
        )
        stay(report)
    return report


def _check_fit(samples: MultiCameraSet, bundle: Bundle) -> None:
    image = bundle.manifest.image
    wanted = (bundle.manifest.topology.cameras, image.height, image.width, image.channels)
    if samples.images.shape[1:] != wanted or samples.classes != bundle.manifest.classes:
        raise DdnnError(
            f"the data has views {samples.images.shape[1:]} of classes {samples.classes}; the "
            f"bundle is for {wanted} and {bundle.manifest.classes}"
        )


def _watch(
    system: System,
    observer: Observer,
    samples: MultiCameraSet,
    bundle: Bundle,
    first_slot: int,
    period_s: float,
    console: Console,
) -> None:
    """Show decisions as they come, until all agents are done and the ledger is settled."""
    total = len(samples)
    deadline = time.monotonic() + total * period_s * 2 + 30.0
    progress = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=console,
    )
    with progress:
        task = progress.add_task("replaying", total=total)

        def settled() -> bool:
            for seen in observer.take_new():
                progress.advance(task)
                truth = samples.classes[samples.labels[seen.decision.slot - first_slot]]
                progress.console.print(_line(seen, first_slot, truth), highlight=False)
            ledger = observer.ledger
            ended = sum(ledger.get(name, 0) for name in ("decided", "degraded", "expired"))
            sent = max(s.counts.get("summaries_sent", 0) for s in observer.devices.values())
            # A device's counts are up to date once it says that it has finished.
            return all(s.finished for s in observer.devices.values()) and ended >= sent

        system.wait_until(settled, "replaying all samples", deadline - time.monotonic())


def _line(seen: Seen, first_slot: int, truth: str) -> str:
    decision = seen.decision
    if decision.label is None or decision.probability is None or decision.entropy is None:
        verdict = "[dim]nothing seen[/dim]"
    else:
        mark = "[green]ok[/green]   " if decision.label == truth else f"[red]is {truth}[/red]"
        verdict = (
            f"{decision.label:<8} p {decision.probability:.2f}  entropy {decision.entropy:.2f}  "
            f"{mark}"
        )
    colour = {"local": "cyan", "edge": "yellow", "cloud": "magenta"}.get(decision.exit or "", "dim")
    members = "".join(
        str(n) if n in decision.used else ("-" if n in decision.absent else ".")
        for n in range(len(decision.used) + len(decision.absent) + len(decision.missing))
    )
    degraded = f"  [red]degraded: {decision.degraded}[/red]" if decision.degraded else ""
    return (
        f"#{decision.slot - first_slot:<4} [{colour}]{decision.exit or '':<5}[/{colour}] "
        f"{decision.members} {members}  {seen.latency_s * 1000:6.1f} ms  {verdict}{degraded}"
    )


def _measure_raw(system: System, samples: MultiCameraSet) -> float | None:
    """Wire bytes per view of sending raw views to the same broker, as the kernel counts them."""
    client = Client(system.broker.host, system.broker.port, "demo-raw-offload")
    client.start()
    try:
        client.wait_connected(10.0)
        before = client.traffic()
        count = min(RAW_SAMPLES, len(samples))
        for image in samples.images[:count, 0]:
            client.publish(topics.summary("raw", 0), np.ascontiguousarray(image).tobytes())
            time.sleep(0.005)  # each view in packets of its own, as a camera sends it
        time.sleep(0.2)
        after = client.traffic()
    finally:
        client.stop()
    return (after.wire_bytes - before.wire_bytes) / count if before and after else None


def print_summary(report: Report, console: Console) -> None:
    """The report for people."""
    console.print()
    for what, value in summary_lines(report):
        console.print(f"[bold]{what:<20}[/bold] {value}", highlight=False)
