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

REFERENCE = Path(__file__).resolve().parent.parent / "models" / "reference"


def prepare(
    data: str | None, split: str | None, folder: Path, *, retrain: bool = False, seed: int = 0
) -> tuple[MultiCameraSet, Bundle]:
    """The data set and a bundle trained on its training part.

    Raises:
        DdnnError: the data cannot be read, or training failed.
    """
    samples = load(data or "generated", split=split)
    if data is None:
        return samples, read_folder(REFERENCE)
    key = hashlib.sha256()
    for array in (samples.images, samples.labels, samples.train, samples.test):
        key.update(np.ascontiguousarray(array).tobytes())
    out = folder / "trained" / f"{key.hexdigest()[:16]}-seed{seed}"
    if not retrain and (out / MANIFEST).exists():
        try:
            bundle = read_folder(out)
        except BundleError as error:  # of another version of this program, say
            click.echo(f"the bundle trained before in {out} is not usable ({error})")
        else:
            click.echo(f"using the bundle trained before in {out} (--retrain trains it again)")
            return samples, bundle
    _train(data, split, seed, out)
    return samples, read_folder(out)


def _train(data: str, split: str | None, seed: int, out: Path) -> None:
    """Train in a process of its own: torch's memory is gone when the demo begins."""
    if importlib.util.find_spec("torch") is None:
        raise DdnnError(
            "training on your own data needs PyTorch: pip install 'ddnn[training]' "
            "(`make demo DATA=...` does it by itself)"
        )
    command = [sys.executable, "-m", "ddnn", "train", "--data", data, "--seed", str(seed)]
    command += ["--split", split] if split else []
    result = subprocess.run([*command, "--out", str(out)], check=False)
    if result.returncode:
        raise DdnnError(f"training ended with status {result.returncode}")
