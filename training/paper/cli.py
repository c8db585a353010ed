"""`ddnn paper`: train, measure and report the paper's experiments on a data set."""

from __future__ import annotations

import os
import re
import shlex
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, fields, replace
from functools import partial
from pathlib import Path
from typing import Any

import click
from rich.console import Console

from ddnn.errors import ConfigError, DdnnError
from training.datasets.base import MultiCameraSet
from training.goal import HIGHEST_ACCURACY, Goal
from training.options import AUGMENTATIONS, NetworkOptions, TrainOptions
from training.paper.plan import QUICK_TABLES, TABLES, Plan, TableName
from training.paper.run import Cache, Data, digest

QUICK_EPOCHS = 12
QUICK_TRAIN, QUICK_TEST = 1000, 1000
#: Set by the data set and the experiment, not by --set.
_TAKEN = {"cameras", "classes", "height", "width", "channels", "edges", "seed"}


@click.command()
@click.option("--data", required=True, help="generated, or a path to a data set.")
@click.option("--split", help="Which of the data set's splits, where it has several.")
@click.option(
    "--seeds",
    type=click.IntRange(1, 100),
    help="Repetitions with seeds 0, 1, ...  [default: 3; quick: 1]",
)
@click.option("--quick", is_flag=True, help="Fewer networks, epochs and samples: minutes.")
@click.option(
    "--table",
    "tables",
    multiple=True,
    type=click.Choice(TABLES),
    help="Only this table; may be given several times.",
)
@click.option(
    "--augmentation",
    type=click.Choice(list(AUGMENTATIONS)),
    default="light",
    show_default=True,
    help="How much training pictures are changed, as in `ddnn train`.",
)
@click.option("--epochs", type=click.IntRange(1), help="Of every training.")
@click.option("--train-limit", type=click.IntRange(8), help="At most so many training samples.")
@click.option("--test-limit", type=click.IntRange(4), help="At most so many test samples.")
@click.option(
    "--set",
    "changes",
    multiple=True,
    metavar="NAME=VALUE",
    help="Change an option of every network or training, such as flip=true or edge_filters=8,16.",
)
@click.option(
    "--goal",
    default=str(HIGHEST_ACCURACY),
    show_default=True,
    help="What exit thresholds are chosen for, as in `ddnn train`; a network that cannot reach it "
    "keeps those for the highest accuracy.",
)
@click.option(
    "--retrain/--no-retrain",
    default=True,
    show_default=True,
    help="For missing cameras, also train without each one as the paper did.",
)
@click.option(
    "--jobs",
    type=click.IntRange(1, 64),
    default=lambda: min(4, os.cpu_count() or 1),
    show_default="number of cores, at most 4",
    help="Trainings at a time.",
)
@click.option(
    "--out",
    type=click.Path(file_okay=False, path_type=Path),
    help="Folder of the report.  [default: build/paper/<data>]",
)
@click.option(
    "--cache",
    "cache_folder",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path("build/paper/cache"),
    show_default=True,
    help="Folder of trained networks; an interrupted run goes on from there.",
)
@click.option("--plan", "only_plan", is_flag=True, help="Say how long it would take, and stop.")
def paper(
    *,
    data: str,
    split: str | None,
    seeds: int | None,
    quick: bool,
    tables: tuple[TableName, ...],
    augmentation: str,
    epochs: int | None,
    train_limit: int | None,
    test_limit: int | None,
    changes: tuple[str, ...],
    goal: str,
    retrain: bool,
    jobs: int,
    out: Path | None,
    cache_folder: Path,
    only_plan: bool,
) -> None:
    """The paper's experiments on a data set, with the paper's numbers next to ours.

    Trains what it needs, measures the exported sections on the test split and writes report.md,
    report.json and plots. Nothing is chosen on the test split.
    """
    console = Console(stderr=True)
    network, training = read_changes(changes, AUGMENTATIONS[augmentation])
    training = replace(training, epochs=epochs or (QUICK_EPOCHS if quick else training.epochs))
    source = Data(
        data,
        split,
        train_limit or (QUICK_TRAIN if quick else None),
        test_limit or (QUICK_TEST if quick else None),
    )
    plan = partial(
        Plan,
        changes=network,
        training=training,
        seeds=tuple(range(seeds or (1 if quick else 3))),
        quick=quick,
        retrain=retrain,
        goal=Goal.parse(goal),
    )
    names = tables or (QUICK_TABLES if quick else TABLES)
    try:
        _run(console, source, plan, names, jobs, out, cache_folder, only_plan)
    except KeyboardInterrupt:
        console.print("interrupted: what is trained is kept; the same command goes on from there")
        sys.exit(130)


def _run(
    console: Console,
    data: Data,
    make_plan: Callable[[MultiCameraSet], Plan],
    names: tuple[TableName, ...],
    jobs: int,
    out: Path | None,
    cache_folder: Path,
    only_plan: bool,
) -> None:
    from training.paper import report, tables  # with onnxruntime, slow to import
    from training.paper.bench import Bench
    from training.paper.schedule import Schedule, minutes

    began = time.monotonic()
    samples = data.read()
    if not len(samples.test):
        raise DdnnError(f"data set {samples.name} has no test split to measure on")
    plan = make_plan(samples)
    cache = Cache(cache_folder, digest(samples))
    schedule = Schedule(cache, data, jobs, console)
    # The order of cameras is not known before the base networks are there; any makes about as
    # much work.
    known = not schedule.pending(plan.base())
    order = Bench(plan, cache, samples).order if known else list(range(samples.cameras))
    guess = plan.all(names, order)
    mode = _mode(plan, data)
    console.print(
        f"{samples.name}: {len(samples.train)} training and {len(samples.test)} test samples, "
        f"{samples.cameras} cameras. {mode}"
    )
    console.print(
        f"{len(guess)} networks in all, {len(schedule.pending(guess))} not in the cache: about "
        f"{minutes(schedule.estimate_s(guess))} on {jobs} cores"
    )
    if only_plan:
        return
    schedule.train(plan.base(), "base network")
    bench = Bench(plan, cache, samples)
    schedule.train(plan.all(names, bench.order), "everything else")
    console.print("measuring the exported sections")
    made = tables.make(bench, names)
    folder = out or Path("build/paper") / _safe(samples.name)
    facts = {
        "data": samples.name,
        "command": _command(),
        "mode": mode,
        "quick": plan.quick,
        "train": len(samples.train),
        "test": len(samples.test),
        "validation": plan.training.validation_share,
        "seeds": list(plan.seeds),
        "order": bench.order,
        "network": asdict(plan.base()[0].network),
        "training": asdict(plan.training),
        "goal": str(plan.goal),
        "seconds": time.monotonic() - began,
    }
    path = report.write(folder, made, facts)
    console.print(f"report in {path}, after {minutes(time.monotonic() - began)}")


def read_changes(
    changes: tuple[str, ...], augmentation: Mapping[str, Any]
) -> tuple[dict[str, Any], TrainOptions]:
    """`--set` values on top of an augmentation -> changes of NetworkOptions, and TrainOptions.

    Raises:
        ConfigError: no such option, or no such value.
    """
    known = {f.name: NetworkOptions for f in fields(NetworkOptions)}
    known |= {f.name: TrainOptions for f in fields(TrainOptions)}
    defaults = {f.name: f.default for kind in (NetworkOptions, TrainOptions) for f in fields(kind)}
    network: dict[str, Any] = {}
    training: dict[str, Any] = dict(augmentation)
    for change in changes:
        name, _, text = change.partition("=")
        if name not in known or name in _TAKEN:
            names = ", ".join(sorted(set(known) - _TAKEN))
            raise ConfigError(f"--set {change}: no such option; known: {names}")
        value = _value(change, text, defaults[name])
        (network if known[name] is NetworkOptions else training)[name] = value
    return network, TrainOptions(**training)


def _value(change: str, text: str, default: Any) -> Any:
    """`text` as the type of `default`."""
    try:
        if isinstance(default, bool):
            return {"true": True, "false": False}[text]
        if isinstance(default, tuple):
            return tuple(int(part) for part in text.split(",") if part)
        return type(default)(text)
    except (ValueError, KeyError):
        kind = "true or false" if isinstance(default, bool) else f"like {default!r}"
        raise ConfigError(f"--set {change}: the value must be {kind}") from None


def _mode(plan: Plan, data: Data) -> str:
    text = f"{plan.training.epochs} epochs for each network"
    if data.train_limit or data.test_limit:
        limits = f"{data.train_limit or 'all'} training and {data.test_limit or 'all'} test samples"
        text += f", at most {limits}"
    if not plan.quick:
        return f"Full mode: {text}."
    return (
        f"Quick mode: {text}, fewer networks. It shows that everything works and what the full "
        "report looks like; its accuracies are not those of a finished training."
    )


def _command() -> str:
    return " ".join(["ddnn", *map(shlex.quote, sys.argv[1:])])


def _safe(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip("-.") or "data"
