"""`ddnn dataset`: make the built-in data set, look at any data set."""

from pathlib import Path

import click
import numpy as np

from training.datasets.base import MultiCameraSet
from training.datasets.generated import SAMPLES, SIZE_PX, built_in_path, generate
from training.datasets.load import load
from training.datasets.sheet import choose, contact_sheet


@click.group()
def dataset() -> None:
    """Make, show and look at data sets."""


@dataset.command("generate")
@click.option(
    "--samples", type=click.IntRange(min=5), default=SAMPLES, show_default=True, help="Scenes."
)
@click.option(
    "--seed",
    type=click.IntRange(min=0),
    default=0,
    show_default=True,
    help="The same seed gives the same file.",
)
@click.option(
    "--size",
    type=click.IntRange(8, 512),
    default=SIZE_PX,
    show_default=True,
    help="Width and height of a view, pixels.",
)
@click.option(
    "--out",
    type=click.Path(dir_okay=False, path_type=Path),
    default=None,
    help="File to write (.npz); left out, the one that `generated` stands for.",
)
def generate_command(samples: int, seed: int, size: int, out: Path | None) -> None:
    """Render the built-in data set: cars, buses and people before six cameras."""
    out = built_in_path() if out is None else out
    with click.progressbar(length=samples, label="rendering scenes", show_pos=True) as bar:
        data = generate(samples, seed, size, lambda done, total: bar.update(1))
    data.save(out)
    click.echo(f"{out}: {len(data)} samples, {out.stat().st_size / 1e6:.1f} MB")
    _describe(data)


def _source(command):
    """The argument and option that say which data set."""
    option = click.option(
        "--split", default=None, help="Which split, where the file has several (random, object)."
    )
    return click.argument("source", metavar="DATASET")(option(command))


@dataset.command("sheet")
@_source
@click.option(
    "--out",
    type=click.Path(dir_okay=False, path_type=Path),
    required=True,
    help="Picture to write (.png).",
)
@click.option(
    "--rows",
    type=click.IntRange(1, 200),
    default=12,
    show_default=True,
    help="Samples to show, one per row.",
)
@click.option(
    "--part",
    type=click.Choice(["train", "test", "all"]),
    default="train",
    show_default=True,
    help="Which samples to choose from.",
)
@click.option(
    "--seed",
    type=click.IntRange(min=0),
    default=0,
    show_default=True,
    help="Which of them; another seed shows others.",
)
def sheet_command(
    source: str, split: str | None, out: Path, rows: int, part: str, seed: int
) -> None:
    """Write a contact sheet of DATASET: a row per sample, a column per camera.

    A coloured frame is around each view in which the object is seen; an absent view is struck
    out. DATASET is `generated`, an .npz file or a folder.
    """
    data = load(source, split)
    picture = contact_sheet(data, choose(data, rows, part, seed))
    out.parent.mkdir(parents=True, exist_ok=True)
    picture.save(out)
    click.echo(f"{out}: {picture.width} x {picture.height} pixels")


@dataset.command("show")
@_source
def show_command(source: str, split: str | None) -> None:
    """Print the sizes, classes, presence per camera and split of DATASET."""
    _describe(load(source, split))


def _describe(data: MultiCameraSet) -> None:
    high, wide, channels = data.image_shape
    click.echo(
        f"{data.name}: {len(data)} samples, {data.cameras} cameras, "
        f"{wide} x {high} pixels, {channels} channel{'s' if channels > 1 else ''}"
    )
    for part in ("train", "test"):
        labels = data.labels[getattr(data, part)]
        counts = np.bincount(labels, minlength=len(data.classes))
        text = ", ".join(f"{c} {n}" for c, n in zip(data.classes, counts, strict=True))
        click.echo(f"{part + ':':8}{len(labels)} samples ({text})")
    for title, views in (("seen:", data.seen), ("present:", data.present)):
        rates = "  ".join(f"{rate:.2f}" for rate in views.mean(axis=0))
        click.echo(f"{title:8} {rates}  (share of samples, per camera)")
