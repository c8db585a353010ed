"""What `ddnn train FOLDER` begins with: options that fit the recording. No torch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from ddnn.store import MANIFEST, read_folder
from training.options import TrainOptions
from training.recorded.labels import LEFT_OUT, read_labels
from training.recorded.views import read_views
from training.registry import Registry

#: In a data set's folder.
BUNDLE, RUNS = "bundle", "runs"
#: Steps of the optimizer that the usual 60 epochs are on the data set that they were found with.
USUAL_SAMPLES = 680
EPOCHS = (30, 150)
SMALL_SET = 200
#: Rows from which on one block of a device section sees too little of a picture.
TWO_BLOCKS_PX = 64


def defaults(samples: int, height: int) -> dict[str, Any]:
    """Options by the number of labelled slots and the rows of a picture.

    Few samples are seen more often and in smaller batches; a large picture is halved once more
    before anything is sent.
    """
    usual = TrainOptions()
    epochs = round(usual.epochs * USUAL_SAMPLES / max(samples, 1))
    least, most = EPOCHS
    return {
        "epochs": min(max(epochs, least), most),
        "batch": 16 if samples < SMALL_SET else usual.batch,
        "patience": 25,
        "filters": "4" if height < TWO_BLOCKS_PX else "4,8",
    }


def take_folder(ctx: click.Context, _param: click.Parameter, folder: Path | None) -> Path | None:
    """Make what fits the data the defaults of all other options.

    click looks at it after what is eager (a preset, a run to resume: their values stay) and before
    the options that were not given.

    Raises:
        DataError: the folder is no collected data set.
    """
    if folder is None:
        return None
    views = read_views(folder)
    named = read_labels(folder)
    slots = {v.slot for v in views if v.state == "present" and v.slot in named}
    used = sum(named[slot] != LEFT_OUT for slot in slots)
    height = max((view.height for view in views), default=0)
    own = {
        "data": str(folder),
        "out": str(folder / BUNDLE),
        "run_dir": str(folder / RUNS),
        **defaults(used, height),
    }
    ctx.default_map = {**own, **(ctx.default_map or {})}
    return folder


def next_version(site: str | None, out: Path) -> int:
    """One more than the bundle in `out` has, and than any that was published to the site.

    Raises:
        BundleError: what is in `out` is damaged.
    """
    known = [entry.version for entry in Registry().entries(site)] if site else []
    if (out / MANIFEST).is_file():
        known.append(read_folder(out).manifest.version)
    return max(known, default=0) + 1
