"""`ddnn demo`."""

from __future__ import annotations

import contextlib
import shutil
import signal
import sys
import threading
from pathlib import Path
from types import FrameType

import click
import msgspec
import numpy as np
from rich.console import Console

from demo.prepare import prepare
from demo.report import Report
from demo.run import print_summary, run_demo
from training.preset import presets


@click.command()
@click.option("--data", help="Data set to train on and replay  [default: the built-in one]")
@click.option("--split", help="Split of a data set that has several, for example random or object.")
@click.option(
    "--preset",
    type=click.Choice(list(presets())),
    metavar="NAME",
    help="Train one of the shapes of the paper's Figure 2 (`ddnn train --help`) and run that.",
)
@click.option(
    "--period-s",
    type=click.FloatRange(0.01, 60),
    default=0.1,
    show_default=True,
    help="Seconds between frames.",
)
@click.option("--limit", type=click.IntRange(1), help="Replay only so many samples.")
@click.option(
    "--out",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path("build/demo"),
    show_default=True,
    help="Folder for report.json, logs and the trained bundle.",
)
@click.option(
    "--dashboard",
    "dashboard_port",
    type=click.IntRange(1, 65535),
    metavar="PORT",
    help="Show the dashboard on this port, until Ctrl-C.",
)
@click.option("--retrain", is_flag=True, help="Train again even if a bundle for this data exists.")
def demo(
    data: str | None,
    split: str | None,
    preset: str | None,
    period_s: float,
    limit: int | None,
    out: Path,
    dashboard_port: int | None,
    retrain: bool,
) -> None:
    """Run the whole system on this machine over real MQTT and measure it.

    A real mosquitto, one agent per camera, a gateway and a cloud worker, each a process of its
    own, replay the test samples of a multi-camera data set; every decision is shown as it comes.
    """
    signal.signal(signal.SIGTERM, _interrupt)
    console = Console(soft_wrap=not sys.stdout.isatty())
    samples, bundle = prepare(data, split, out, preset=preset, retrain=retrain)
    test = samples.subset(samples.test if limit is None else samples.test[:limit])
    console.print(
        f"data        {samples.name}: {len(test)} test samples, "
        f"{test.cameras} cameras, classes {', '.join(test.classes)}"
    )
    shutil.rmtree(out / "run", ignore_errors=True)
    path = out / "report.json"

    def tell(report: Report) -> None:
        path.write_bytes(msgspec.json.format(msgspec.json.encode(report), indent=2) + b"\n")
        print_summary(report, console)
        console.print(f"\nreport in {path}, logs in {out / 'run'}")
        if dashboard_port is not None:
            console.print(f"the dashboard stays at http://127.0.0.1:{dashboard_port} until Ctrl-C")
            with contextlib.suppress(KeyboardInterrupt):
                threading.Event().wait()

    try:
        report = run_demo(
            test, bundle, out, period_s, console, dashboard_port=dashboard_port, stay=tell
        )
    except KeyboardInterrupt:
        console.print("interrupted; all processes have ended")
        sys.exit(130)
    if not np.isclose(report.matches_reference, 1.0) and report.degraded == 0:
        console.print("[red]some decisions differ from the in-process evaluation[/red]")
        sys.exit(1)


def _interrupt(_signal: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt
