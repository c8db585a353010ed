"""`ddnn train`: from a data set to a bundle folder."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import click
from click.core import ParameterSource
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from ddnn.bundle import Bundle
from ddnn.errors import BundleError, DdnnError
from ddnn.store import MANIFEST, write_folder
from training.goal import HIGHEST_ACCURACY, Goal, GoalError
from training.options import (
    AGGREGATIONS,
    AUGMENTATIONS,
    FEATURE_AGGREGATIONS,
    TOPOLOGIES,
    WEIGHT_LEVELS,
    NetworkOptions,
    TrainOptions,
    describe,
    shape,
)
from training.own.defaults import next_version, take_folder
from training.preset import Preset, as_text, one_camera, preset, presets
from training.resume import COMMAND, Start, command_line, resumed

if TYPE_CHECKING:
    from training.network import Network

_DEFAULTS = TrainOptions()
#: Options of the command that have another name in `NetworkOptions`.
_NAMES = {"device_filters": "filters"}


class _Numbers(click.ParamType):
    """Comma-separated numbers such as `4` or `16,32`; empty for none."""

    name = "numbers"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[int, ...]:
        if isinstance(value, tuple):
            return value
        try:
            return tuple(int(part) for part in value.split(",") if part.strip())
        except ValueError:
            self.fail(f"{value!r} is not a list of numbers such as 16,32", param, ctx)


def _take_preset(context: click.Context, _: click.Parameter, name: str | None) -> str | None:
    """Make a preset's values the defaults of all other options; those of a resumed run stay."""
    if name is not None:
        chosen = preset(name)
        values = {"topology": chosen.topology, **chosen.network, **chosen.training}
        own = {_NAMES.get(key, key): as_text(value) for key, value in values.items()}
        context.default_map = {**own, **(context.default_map or {})}
    return name


def _network_options(command: Callable[..., None]) -> Callable[..., None]:
    for option in reversed(
        [
            click.option(
                "--topology",
                type=click.Choice(TOPOLOGIES),
                default=TOPOLOGIES[0],
                show_default=True,
                help="Shape of the network.",
            ),
            click.option(
                "--filters",
                type=_Numbers(),
                default="4",
                show_default=True,
                help="Filters of each block of a device section.",
            ),
            click.option(
                "--edge-filters",
                type=_Numbers(),
                default=",".join(map(str, NetworkOptions.edge_filters)),
                show_default=True,
                help="Filters of each block of an edge section.",
            ),
            click.option(
                "--cloud-filters",
                type=_Numbers(),
                default=",".join(map(str, NetworkOptions.cloud_filters)),
                show_default=True,
                help="Filters of each block of the cloud section.",
            ),
            click.option(
                "--upper-weights",
                type=click.Choice(list(WEIGHT_LEVELS)),
                default=NetworkOptions.upper_weights,
                show_default=True,
                help="Weights of the blocks of edge and cloud: one bit or a byte each.",
            ),
            click.option("--shared", is_flag=True, help="One set of device weights for all."),
            click.option(
                "--local-aggregation",
                type=click.Choice(AGGREGATIONS),
                default=NetworkOptions.local_aggregation,
                show_default=True,
                help="How scores become one answer: largest, mean, linear, GA gated mean, GC "
                "gated linear, HC linear beside a hidden layer.",
            ),
            click.option(
                "--feature-aggregation",
                type=click.Choice(FEATURE_AGGREGATIONS),
                default=NetworkOptions.feature_aggregation,
                show_default=True,
                help="How features are joined: largest, sum, side by side.",
            ),
        ]
    ):
        command = option(command)
    return command


@click.command(
    epilog="\b\nPresets:\n"
    + "\n".join(f"  {name:22} {each.title}" for name, each in presets().items())
)
@click.argument(
    "folder",
    required=False,
    callback=take_folder,
    type=click.Path(exists=True, file_okay=False, path_type=Path),
)
@click.option("--data", required=True, help="generated, or a path to a data set.")
@click.option("--site", help="The site that it is for: its name, and the next of its versions.")
@click.option("--split", help="Which of the data set's splits, where it has several.")
@click.option(
    "--preset",
    "chosen_preset",
    type=click.Choice(list(presets())),
    metavar="NAME",
    callback=_take_preset,
    is_eager=True,
    help="Begin with one of the presets below, the shapes of the paper's Figure 2; any other "
    "option changes it.",
)
@click.option(
    "--cameras",
    type=_Numbers(),
    help="Use only these cameras of the data set, such as 0,2  [default: all; with a preset of "
    "one camera, the one that sees most]",
)
@click.option(
    "--out",
    required=True,
    type=click.Path(file_okay=False, path_type=Path),
    help="Folder for the bundle; an older bundle there is replaced.",
)
@click.option("--seed", type=click.IntRange(0, 2**31 - 1), default=0, show_default=True)
@click.option("--epochs", type=click.IntRange(1), default=_DEFAULTS.epochs, show_default=True)
@click.option("--batch", type=click.IntRange(2), default=_DEFAULTS.batch, show_default=True)
@click.option(
    "--learning-rate",
    type=click.FloatRange(0, min_open=True),
    default=_DEFAULTS.learning_rate,
    show_default=True,
)
@click.option(
    "--camera-dropout",
    type=click.FloatRange(0, 1, max_open=True),
    default=_DEFAULTS.camera_dropout,
    show_default=True,
    help="Chance of each camera to be left out of a training sample.",
)
@click.option(
    "--augmentation",
    type=click.Choice(list(AUGMENTATIONS)),
    default="light",
    show_default=True,
    help="How much training pictures are changed; strong where few objects are seen many times.",
)
@click.option(
    "--flip/--no-flip",
    default=None,
    help="Mirror training samples at random; wrong for digits, right for cars.  "
    "[default: with strong augmentation]",
)
@_network_options
@click.option(
    "--goal",
    default=str(HIGHEST_ACCURACY),
    show_default=True,
    help="What exit thresholds are chosen for, on validation samples: accuracy (then least "
    "traffic), bytes=18 (payload per camera and frame, at most), accuracy>=0.98.",
)
@click.option(
    "--patience",
    type=click.IntRange(0),
    default=_DEFAULTS.patience,
    show_default=True,
    help="End when so many epochs of the second half brought nothing better; 0: never.",
)
@click.option(
    "--device",
    type=click.Choice(["auto", "cpu", "cuda"]),
    default="auto",
    show_default=True,
    help="Where to train; auto: on a GPU where there is one.",
)
@click.option(
    "--resume",
    is_eager=True,
    callback=resumed,
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Go on with the run in this folder, with the options that it was begun with.",
)
@click.option(
    "--learning-curve/--no-learning-curve",
    default=True,
    show_default=True,
    help="With FOLDER: train on half and a quarter of it too, to see whether more would help.",
)
@click.option("--name", help="Name of the bundle; by default the site's or the data set's.")
@click.option("--version", type=click.IntRange(1, 2**53), default=1, show_default=True)
@click.option(
    "--run-dir",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path("runs"),
    show_default=True,
    help="Where a folder for this run's options, metrics and curves is made.",
)
@click.pass_context
def train(
    ctx: click.Context,
    *,
    folder: Path | None,
    data: str,
    site: str | None,
    split: str | None,
    chosen_preset: str | None,
    cameras: tuple[int, ...] | None,
    out: Path,
    topology: str,
    filters: tuple[int, ...],
    augmentation: str,
    goal: str,
    name: str | None,
    version: int,
    run_dir: Path,
    resume: Path | None,
    device: str,
    learning_curve: bool,
    **options: Any,
) -> None:
    """Train a network on a data set and write it as a bundle, ready for `ddnn publish`.

    FOLDER is one of `ddnn collect` that has been labelled: then the data set, --out, --run-dir,
    epochs and filters need not be given, and a report says whether the bundle is good enough.

    The test split is touched once, at the end, with the exported sections. A run that was killed
    goes on with --resume. Under torchrun (torchrun --nproc-per-node 2 -m ddnn train ...) all
    processes train one network, and the first one writes it.
    """
    _refuse_to_overwrite(out)
    if folder is not None and ctx.get_parameter_source("version") is ParameterSource.DEFAULT:
        version = next_version(site, out)
    begin = preset(chosen_preset) if chosen_preset else Preset(title="", topology=topology)
    chosen = AUGMENTATIONS[augmentation] | begin.training
    for key in [key for key in options if hasattr(_DEFAULTS, key)]:
        value = options.pop(key)
        if value is not None:
            chosen[key] = value
    training = TrainOptions(**chosen)
    network = begin.network | {"device_filters": filters} | options
    alone = "TORCHELASTIC_RUN_ID" not in os.environ
    start = Start(resume, device, command_line(ctx), alone or os.environ.get("RANK") == "0")
    console = Console(stderr=True, quiet=not start.first)
    if begin.title:
        console.print(f"preset: {begin.title}")
    try:
        wanted = Goal.parse(goal)
        made = _run(
            console, data, split, cameras or begin.one_camera, topology, network, training,
            wanted, name or site, version, run_dir, start,
        )  # fmt: skip
    except KeyboardInterrupt:
        console.print(f"interrupted: no bundle was written to {out}")
        sys.exit(130)
    if made is None:
        return
    bundle, run = made.bundle, made.run
    write_folder(out, bundle)
    console.print(f"bundle {bundle.bundle_id[:12]} in {out}; metrics and curves in {run}")
    if folder is not None:
        from training.own.report import write_report

        report = write_report(run, folder, made.bundle, made.network, training, learning_curve)
        # Whole lines, whatever the terminal's width: they are to be copied.
        click.echo(f"is it good enough? {report}")
        click.echo(f"next: ddnn publish {out} --site {site or 'SITE'}")
    if bundle.manifest.calibration and bundle.manifest.calibration.goal != str(wanted):
        sys.exit(1)


class _Made(NamedTuple):
    """A training's results; the run's folder has its metrics."""

    bundle: Bundle
    run: Path
    network: Network


def _run(
    console: Console,
    data: str,
    split: str | None,
    cameras: tuple[int, ...] | bool,
    shape_name: str,
    network: dict[str, Any],
    training: TrainOptions,
    goal: Goal,
    name: str | None,
    version: int,
    run_dir: Path,
    start: Start,
) -> _Made | None:
    """What was made; None in a process that only helps the first one."""
    from training.datasets.load import load

    # Not the training's seed: another seed must not move test samples into the training part.
    samples = load(data, split=split)
    if len(samples.train) < 4:
        raise DdnnError(f"data set {samples.name} has no training part worth the name")
    import torch  # seconds to import; `--help`, mistaken options and refused data need none of it

    from training import ranks
    from training.checkpoint import Checkpoint, fingerprint
    from training.export import Label, export
    from training.run_folder import CHECKPOINT, RunFolder, new_run_folder
    from training.train import EpochResult
    from training.train import train as train_network

    if cameras:
        # True: one, which has not been named.
        which = (one_camera(samples),) if cameras is True else cameras
        samples = samples.select_cameras(list(which))
    else:
        which = tuple(range(samples.cameras))
    height, width, channels = samples.image_shape
    network_options = NetworkOptions(
        cameras=samples.cameras,
        classes=len(samples.classes),
        height=height,
        width=width,
        channels=channels,
        **network | shape(shape_name, samples.cameras),
    )
    # Sums in another order are other sums: one thread, so that a seed gives one result.
    torch.set_num_threads(1)
    title = name or (f"{samples.name}-{split}" if split else samples.name)
    facts = {
        "data": samples.name,
        "split": split,
        "of_cameras": as_text(which),
        **describe(network_options, training),
    }
    folder = start.resume
    if folder is None and start.first:
        folder = new_run_folder(run_dir, title)
    checkpoint = None
    if folder is not None:
        checkpoint = Checkpoint(
            folder / CHECKPOINT, fingerprint(samples, network_options, training)
        )
        if start.resume and checkpoint.load() is None:
            console.print(f"{folder} has no checkpoint yet: its training starts from the beginning")
    run = RunFolder(folder) if folder is not None and start.first else None
    if run is not None:
        run.write("options.json", facts)
        run.write(COMMAND, start.command)
    console.print(
        f"{samples.name}: {len(samples.train)} training and {len(samples.test)} test samples of "
        f"{samples.cameras} cameras, classes {', '.join(samples.classes)}"
    )
    with Progress(
        TextColumn("epoch {task.completed:.0f}/{task.total:.0f}"),
        BarColumn(),
        TextColumn("{task.description}"),
        TimeRemainingColumn(),
        console=console,
    ) as progress:
        task = progress.add_task("", total=training.epochs)

        def report(result: EpochResult) -> None:
            if run is not None:
                run.on_epoch(result)
            exits = "  ".join(f"{name} {value:.1%}" for name, value in result.exits.items())
            text = f"loss {result.loss:.3f}  validation: {exits}"
            progress.update(task, advance=1, description=text)

        where = ranks.device_of(start.device)
        try:
            with ranks.together(where):
                network, validation = train_network(
                    samples, network_options, training, report, checkpoint=checkpoint, device=where
                )
        except KeyboardInterrupt:
            console.print(f"to go on: ddnn train --resume {folder}")
            raise
        finally:
            if run is not None:
                run.draw_curves()
    if run is None:
        return None
    label = Label(title, version, facts)
    try:
        bundle = export(network, samples, validation, label, goal)
    except GoalError as error:
        # The network is good all the same, and cost its time.
        console.print(f"{error}; its thresholds are for the highest accuracy instead")
        bundle = export(network, samples, validation, label, HIGHEST_ACCURACY)
    _print_result(console, bundle)
    return _Made(bundle, run.path, network)


def _refuse_to_overwrite(out: Path) -> None:
    """Say so before minutes of training, not after."""
    if out.exists() and not (out / MANIFEST).is_file() and any(out.iterdir()):
        raise BundleError(f"{out} is not empty and holds no bundle; choose another --out")


def _print_result(console: Console, bundle: Bundle) -> None:
    manifest = bundle.manifest
    size = sum({info.sha256: info.size_bytes for info in manifest.sections}.values())
    console.print(f"exported and checked: {len(manifest.sections)} sections, {size} bytes")
    if manifest.accuracy is None:
        return
    console.print(
        f"test split, {manifest.accuracy.samples} samples: overall {manifest.accuracy.overall:.1%}"
    )
    for name, info in manifest.exits.items():
        threshold = "always" if info.threshold is None else f"entropy < {info.threshold:g}"
        console.print(
            f"  {name:5}  alone {manifest.accuracy.exits[name]:6.1%}   takes "
            f"{manifest.accuracy.exit_shares[name]:6.1%}   {threshold}"
        )
