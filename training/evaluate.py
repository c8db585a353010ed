"""`ddnn evaluate`: a bundle on a data set, and two bundles beside each other. No torch."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import click
import msgspec
import numpy as np
import numpy.typing as npt

from ddnn.bundle import Bundle
from ddnn.errors import DataError
from ddnn.measurements import EXITS
from ddnn.store import read_folder
from training.comparing import Interval, Pair, compare, wilson
from training.datasets.base import MultiCameraSet
from training.datasets.load import load
from training.measure import Measured, point, thresholds_of
from training.recorded.labelled import read_labelled
from training.recorded.split import by_time
from training.recorded.views import TABLE

PARTS = ("test", "train", "all")


class Samples(NamedTuple):
    """What a bundle is evaluated on.

    Attributes:
        data: the samples and more.
        chosen: (N,) index of those that count.
        part: test, train or all.
    """

    data: MultiCameraSet
    chosen: npt.NDArray[np.int64]
    part: str


class Result(NamedTuple):
    """One bundle on N samples.

    Attributes:
        right: (N,) bool; a sample that no camera sees is wrong.
        accuracy: share of `right`.
        exits: exit -> share of the samples that it answered.
        alone: exit -> accuracy if it answered all.
        camera_bytes: payload per camera and frame.
        cloud_bytes: payload to the cloud per frame.
        confusion: (K, K) int64, true class by answer; samples that nobody sees are not in it.
    """

    right: npt.NDArray[np.bool_]
    accuracy: Interval
    exits: dict[str, float]
    alone: dict[str, float]
    camera_bytes: float
    cloud_bytes: float
    confusion: npt.NDArray[np.int64]


def evaluate_samples(bundle: Bundle, samples: Samples) -> Result:
    """Decide every sample with the bundle's sections and thresholds.

    Raises:
        BundleError: a section cannot be loaded.
    """
    measured = Measured(bundle, samples.data, samples.chosen)
    thresholds = thresholds_of(bundle.manifest)
    decided, present = measured.decided(thresholds)
    labels = samples.data.labels[samples.chosen]
    right = decided.label == labels
    seen = present.any(axis=1)
    whole = point(measured, thresholds)
    classes = len(bundle.manifest.classes)
    confusion = np.zeros((classes, classes), np.int64)
    np.add.at(confusion, (labels[seen], decided.label[seen]), 1)
    return Result(
        right=right,
        accuracy=wilson(right),
        exits={name: whole.exit_shares[name] for name in EXITS if name in whole.exit_shares},
        alone={
            n: float((decided.exits[n].label == labels).mean()) for n in EXITS if n in decided.exits
        },
        camera_bytes=whole.camera_bytes,
        cloud_bytes=whole.cloud_bytes,
        confusion=confusion,
    )


def samples_for(bundle: Bundle, source: str, split: str | None, part: str) -> Samples:
    """The samples of `source` that a bundle of these classes, cameras and sizes can be asked about.

    Of a folder of `ddnn collect` every bundle of its classes can: cameras that the bundle does not
    have are left out, pictures are resized. Its test part is the same for all of them, and the one
    that `ddnn train` has kept apart, as long as nothing is labelled anew.

    Args:
        part: one of PARTS.

    Raises:
        DataError: it cannot be read, or does not fit the bundle.
    """
    manifest = bundle.manifest
    image = manifest.image
    shape = image.height, image.width, image.channels
    path = Path(source)
    if (path / TABLE).is_file():
        if split is not None:
            raise DataError(f"{path} has no named splits; leave out --split {split}")
        data = _recorded(path, manifest.classes, manifest.topology.cameras, shape)
    else:
        data = load(source, split)
    if data.classes != manifest.classes or data.image_shape != shape:
        raise DataError(
            f"{data.name} has classes {', '.join(data.classes)} in pictures of "
            f"{data.image_shape}; the bundle has {', '.join(manifest.classes)} in {shape}"
        )
    if data.cameras != manifest.topology.cameras:
        raise DataError(
            f"{data.name} has {data.cameras} cameras, the bundle {manifest.topology.cameras}"
        )
    index = {"train": data.train, "test": data.test, "all": np.arange(len(data))}[part]
    if not len(index):
        raise DataError(f"{data.name} has no {part} part; --part names another")
    return Samples(data, index.astype(np.int64), part)


def _recorded(
    path: Path, classes: tuple[str, ...], cameras: int, shape: tuple[int, int, int]
) -> MultiCameraSet:
    """A labelled recording as a bundle of these classes, cameras and pictures sees it."""
    found = read_labelled(path, classes, cameras, shape)
    parts = by_time(found.pictures.times_s, found.own)
    return MultiCameraSet(
        images=found.pictures.images,
        labels=found.labels,
        seen=found.pictures.present.copy(),
        present=found.pictures.present,
        classes=classes,
        name=path.resolve().name,
        train=np.sort(np.concatenate([parts.fit, parts.validation])),
        test=parts.test,
    )


@click.command("evaluate")
@click.argument("bundle", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.argument("data")
@click.option(
    "--against",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Another bundle, asked about the same samples.",
)
@click.option(
    "--part",
    type=click.Choice(PARTS),
    default="test",
    show_default=True,
    help="Which samples; a bundle may know those of train by heart.",
)
@click.option("--split", help="Which of the data set's splits, where it has several.")
@click.option("--json", "as_json", is_flag=True, help="The same for a program, as JSON.")
def evaluate_command(
    bundle: Path,
    data: str,
    against: Path | None,
    part: str,
    split: str | None,
    as_json: bool,
) -> None:
    """Ask BUNDLE (a folder) about DATA: a folder of `ddnn label`, or any data set.

    Accuracy with its 95 % interval, who answered, bytes, confusions; with --against also whether
    the two differ by more than chance (McNemar's test on the same samples).
    """
    first = read_folder(bundle)
    samples = samples_for(first, data, split, part)
    mine = evaluate_samples(first, samples)
    other = other_result = pair = None
    if against is not None:
        other = read_folder(against)
        other_samples = samples_for(other, data, split, part)
        if not _same(samples, other_samples):
            raise DataError("the two bundles are for other samples or classes: see `ddnn inspect`")
        other_result = evaluate_samples(other, other_samples)
        pair = compare(mine.right, other_result.right)
    if as_json:
        facts = {
            "samples": len(samples.chosen),
            "part": samples.part,
            "bundle": _facts(first, mine),
        }
        if other is not None and other_result is not None and pair is not None:
            facts |= {"against": _facts(other, other_result), "pair": _pair_facts(pair)}
        click.echo(msgspec.json.format(msgspec.json.encode(facts), indent=2).decode())
        return
    click.echo(f"{samples.data.name}: {len(samples.chosen)} samples ({samples.part})")
    click.echo("\n".join(_page(first, mine)))
    if other is not None and other_result is not None and pair is not None:
        click.echo("\nagainst")
        click.echo("\n".join(_page(other, other_result)))
        click.echo("\n" + verdict(pair))


def verdict(pair: Pair) -> str:
    """Which of the two is better, in a sentence."""
    d = pair.difference
    numbers = (
        f"{d.value:+.1%} (95 %: {d.low:+.1%} to {d.high:+.1%}); right where the other is wrong: "
        f"{pair.only_first} and {pair.only_second} samples, p = {pair.p:.2g}"
    )
    if pair.p >= 0.05:
        return f"no difference beyond chance: the other one {numbers}"
    return f"the {'other' if d.value > 0 else 'first'} bundle is better: the other one {numbers}"


def _same(first: Samples, second: Samples) -> bool:
    return (
        np.array_equal(first.chosen, second.chosen)
        and np.array_equal(first.data.labels, second.data.labels)
        and first.data.classes == second.data.classes
    )


def _page(bundle: Bundle, result: Result) -> list[str]:
    a, manifest = result.accuracy, bundle.manifest
    lines = [
        f"bundle       {manifest.name}, version {manifest.version}, {bundle.bundle_id[:12]}",
        f"accuracy     {a.value:.1%} (95 %: {a.low:.1%} to {a.high:.1%})",
        "answered by  " + "   ".join(f"{name} {share:.1%}" for name, share in result.exits.items()),
        "alone        " + "   ".join(f"{name} {value:.1%}" for name, value in result.alone.items()),
        f"payload      {result.camera_bytes:.1f} bytes per camera and frame, "
        f"{result.cloud_bytes:.1f} to the cloud per frame",
    ]
    width = max(8, *map(len, manifest.classes))
    lines.append(" " * (width + 15) + "  ".join(f"{name:>{width}}" for name in manifest.classes))
    for name, row in zip(manifest.classes, result.confusion, strict=True):
        cells = "  ".join(f"{count:>{width}}" for count in row)
        lines.append(f"  {name:<{width}} answered as {cells}")
    return lines


def _facts(bundle: Bundle, result: Result) -> dict[str, Any]:
    facts = result._asdict()
    del facts["right"]
    return facts | {
        "bundle_id": bundle.bundle_id,
        "version": bundle.manifest.version,
        "accuracy": result.accuracy._asdict(),
        "confusion": result.confusion.tolist(),
    }


def _pair_facts(pair: Pair) -> dict[str, Any]:
    return pair._asdict() | {"difference": pair.difference._asdict()}
