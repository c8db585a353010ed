"""The demo's samples and bundle: those in the repository, or made from the user's data."""

from __future__ import annotations

import hashlib
import importlib.util
import subprocess
import sys
from pathlib import Path

import click
import numpy as np

from ddnn.bundle import Bundle
from ddnn.errors import BundleError, DdnnError
from ddnn.store import MANIFEST, read_folder
from training.datasets.base import MultiCameraSet
from training.datasets.load import load
from training.preset import one_camera, presets

REFERENCE = Path(__file__).resolve().parent.parent / "models" / "reference"


def prepare(
    data: str | None,
    split: str | None,
    folder: Path,
    *,
    preset: str | None = None,
    retrain: bool = False,
    seed: int = 0,
) -> tuple[MultiCameraSet, Bundle]:
    """The data set and a bundle trained on its training part.

    Args:
        preset: of `ddnn train`; one of one camera leaves only that camera in the data set.

    Raises:
        DdnnError: the data cannot be read, or training failed.
    """
    samples = load(data or "generated", split=split)
    if data is None and preset is None:
        return samples, read_folder(REFERENCE)
    key = hashlib.sha256((preset or "").encode())
    for array in (samples.images, samples.labels, samples.train, samples.test):
        key.update(np.ascontiguousarray(array).tobytes())
    if preset and presets()[preset].one_camera:
        samples = samples.select_cameras([one_camera(samples)])
    out = folder / "trained" / f"{key.hexdigest()[:16]}-seed{seed}"
    if not retrain and (out / MANIFEST).exists():
        try:
            bundle = read_folder(out)
        except BundleError as error:  # of another version of this program, say
            click.echo(f"the bundle trained before in {out} is not usable ({error})")
        else:
            click.echo(f"using the bundle trained before in {out} (--retrain trains it again)")
            return samples, bundle
    _train(data or "generated", split, preset, seed, out)
    return samples, read_folder(out)


def _train(data: str, split: str | None, preset: str | None, seed: int, out: Path) -> None:
    """Train in a process of its own: torch's memory is gone when the demo begins."""
    if importlib.util.find_spec("torch") is None:
        raise DdnnError(
            "training needs PyTorch: pip install 'ddnn[training]' "
            "(`make demo DATA=...` and `make demo PRESET=...` do it by themselves)"
        )
    command = [sys.executable, "-m", "ddnn", "train", "--data", data, "--seed", str(seed)]
    command += ["--split", split] if split else []
    command += ["--preset", preset] if preset else []
    result = subprocess.run([*command, "--out", str(out)], check=False)
    if result.returncode:
        raise DdnnError(f"training ended with status {result.returncode}")
