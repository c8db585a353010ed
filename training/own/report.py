"""The report of `ddnn train FOLDER`: one HTML file that anybody can read."""

from __future__ import annotations

import base64
import io
from datetime import UTC, datetime
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING

import jinja2
import numpy as np
from PIL import Image

from ddnn.bundle import Bundle
from ddnn.store import replace_durably
from training.datasets.base import MultiCameraSet
from training.datasets.recorded import as_data_set
from training.options import TrainOptions
from training.own.findings import Findings, advice, find
from training.recorded.labelled import Labelled, read_labelled

if TYPE_CHECKING:
    from training.network import Network

REPORT = "report.html"
SAYS = {
    "good": "Good enough to run.",
    "usable": "Usable, with mistakes: run it, and go on recording what it is unsure of.",
    "not yet": "Not good enough yet.",
}


def write_report(
    run: Path,
    folder: Path,
    bundle: Bundle,
    network: Network,
    training: TrainOptions,
    with_curve: bool,
) -> Path:
    """Judge a bundle trained on the labelled recording `folder` and write the report.

    Args:
        network: of which the bundle was made.
        with_curve: train on parts of the recording, too.

    Returns:
        The file, in the run's folder.

    Raises:
        DataError: the recording cannot be read any more.
    """
    labelled = read_labelled(folder)
    data, _ = as_data_set(folder.resolve().name, labelled)
    # A network of some of the cameras is judged on those.
    data = _cameras_of(data, bundle)
    curve: list[tuple[int, float]] = []
    if with_curve:
        from training.own.curve import learning_curve  # torch

        curve = learning_curve(data, network, training)
    path = run / REPORT
    replace_durably(path, render(bundle, data, labelled, find(bundle, data, curve)).encode())
    return path


def _cameras_of(data: MultiCameraSet, bundle: Bundle) -> MultiCameraSet:
    used = str(bundle.manifest.training.get("of_cameras") or "")
    return data.select_cameras([int(c) for c in used.split(",")]) if used else data


def render(bundle: Bundle, data: MultiCameraSet, labelled: Labelled, findings: Findings) -> str:
    """The page."""
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined)
    template = environment.from_string((files("training.own") / "report.html.j2").read_text())
    times = labelled.pictures.times_s
    days = len({datetime.fromtimestamp(time, UTC).date() for time in times})
    return template.render(
        bundle=bundle,
        manifest=bundle.manifest,
        data=data,
        findings=findings,
        labelled=labelled,
        says=SAYS[findings.verdict],
        advice=advice(findings, days, labelled.unlabelled),
        days=days,
        first=datetime.fromtimestamp(times.min(), UTC),
        last=datetime.fromtimestamp(times.max(), UTC),
        mistakes=[
            (mistake, _pictures(data, mistake.sample), int(labelled.pictures.slots[mistake.sample]))
            for mistake in findings.mistakes
        ],
    )


def _pictures(data: MultiCameraSet, sample: int) -> list[str | None]:
    """The views of a sample as data URIs; None: absent."""
    shown: list[str | None] = []
    for view, there in zip(data.images[sample], data.present[sample], strict=True):
        if not there:
            shown.append(None)
            continue
        file = io.BytesIO()
        Image.fromarray(np.ascontiguousarray(view)).save(file, "PNG")
        shown.append("data:image/png;base64," + base64.b64encode(file.getvalue()).decode())
    return shown
