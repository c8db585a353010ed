"""One training of the evaluation: what it is made of, and its bundle in a cache.

A bundle is found again by a hash of everything that it depends on: the samples, the options and
the code that trains and exports. So an interrupted evaluation goes on where it was, and a change
to the recipe is never measured with old networks.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ddnn.bundle import Bundle
from ddnn.store import read_folder, write_folder
from training.datasets.base import MultiCameraSet, split_validation, stratified_split
from training.datasets.load import load
from training.options import NetworkOptions, TrainOptions

#: What a trained bundle depends on; the evaluation itself may change freely.
_CODE = (
    "training/*.py", "ddnn/bundle.py", "ddnn/measurements.py", "ddnn/section.py",
    "ddnn/evaluate.py", "ddnn/exit_rule.py", "ddnn/scores.py",
)  # fmt: skip
_NOT_CODE = {"cli.py", "publish.py", "resume.py", "run_folder.py", "inspect.py"}
_ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Data:
    """A data set, and how much of it.

    Attributes:
        source, split: as `load` takes them.
        train_limit, test_limit: at most so many samples of each split, drawn evenly from the
            classes; None: all.
    """

    source: str
    split: str | None = None
    train_limit: int | None = None
    test_limit: int | None = None

    def read(self) -> MultiCameraSet:
        """The samples; read once in a process."""
        return _read(self)


@dataclass(frozen=True)
class Run:
    """One training.

    Attributes:
        cameras: which of the data set's, in order.
        network: of as many cameras.
        training: with the seed.
    """

    cameras: tuple[int, ...]
    network: NetworkOptions
    training: TrainOptions

    def key(self, digest: str) -> str:
        """Name in the cache; `digest` stands for data and code."""
        facts = json.dumps([digest, self.cameras, asdict(self.network), asdict(self.training)])
        return hashlib.sha256(facts.encode()).hexdigest()[:24]

    def work(self, samples: int) -> float:
        """How much there is to do, in steps that take about the same time."""
        net = self.network
        pixels = net.height * net.width
        inputs, operations = net.channels, 0
        for filters in net.device_filters:
            operations += net.cameras * pixels * 9 * inputs * filters
            inputs, pixels = filters, pixels // 4
        # Augmentation and upper sections, as measured against a convolution.
        operations += 200 * net.cameras * net.height * net.width
        return float(self.training.epochs * samples * operations)


class Cache:
    """Bundles by run, in a folder.

    Args:
        folder: made when needed.
        digest: of data and code.
    """

    def __init__(self, folder: Path, digest: str) -> None:
        self._folder = folder
        self._digest = digest

    def path(self, run: Run) -> Path:
        """Where the bundle of `run` is or will be."""
        return self._folder / run.key(self._digest)

    def has(self, run: Run) -> bool:
        """Whether that training is done."""
        return (self.path(run) / "run.json").is_file()

    def bundle(self, run: Run) -> Bundle:
        """The bundle of a training that is done."""
        return read_folder(self.path(run) / "bundle")

    def seconds(self, run: Run) -> float:
        """How long that training took."""
        return float(json.loads((self.path(run) / "run.json").read_text())["seconds"])

    def progress_file(self, run: Run) -> Path:
        """Holds the share of a training that is done, while it runs."""
        return self._folder / f"{run.key(self._digest)}.progress"


def train_into(cache: Cache, run: Run, data: Data) -> float:
    """Train, export and keep the bundle; the time that took, seconds. For a worker process."""
    import torch

    from training.export import Label, export
    from training.train import EpochResult, train

    torch.set_num_threads(1)
    began = time.monotonic()
    path = cache.path(run)
    path.parent.mkdir(parents=True, exist_ok=True)
    progress = cache.progress_file(run)

    def report(result: EpochResult) -> None:
        progress.write_text(str(result.epoch / run.training.epochs))

    samples = data.read().select_cameras(list(run.cameras))
    try:
        network, validation = train(samples, run.network, run.training, report)
        bundle = export(network, samples, validation, Label("paper", 1, {}))
    finally:
        progress.unlink(missing_ok=True)
    seconds = time.monotonic() - began
    draft = path.with_name(f"{path.name}.{os.getpid()}")
    write_folder(draft / "bundle", bundle)
    facts = {"seconds": round(seconds, 2), "cameras": run.cameras, "network": asdict(run.network)}
    facts["training"] = asdict(run.training)
    (draft / "run.json").write_text(json.dumps(facts, indent=1) + "\n")
    shutil.rmtree(path, ignore_errors=True)
    draft.rename(path)
    return seconds


def probe(run: Run, data: Data, report: Callable[[str], None] = lambda _: None) -> float:
    """Seconds that one step of `Run.work` takes, from a short training."""
    import torch

    from training.train import train

    torch.set_num_threads(1)
    samples = data.read().select_cameras(list(run.cameras))
    few = _limit(samples, 320, 1)
    short = replace(run.training, epochs=2)
    stamps = [time.monotonic()]
    train(few, run.network, short, lambda _: stamps.append(time.monotonic()))
    # The first epoch also warms up.
    one = replace(run, training=replace(short, epochs=1))
    return (stamps[2] - stamps[1]) / one.work(len(few.train))


def validation_part(run: Run, samples: MultiCameraSet) -> npt.NDArray[np.int64]:
    """The validation samples that `run` chose its model and thresholds on."""
    options = run.training
    return split_validation(samples, share=options.validation_share, seed=options.seed)[1]


def digest(samples: MultiCameraSet) -> str:
    """A hash of the samples and of the code that makes bundles."""
    sha = hashlib.sha256()
    for part in (samples.images, samples.labels, samples.seen, samples.present, samples.train):
        sha.update(np.ascontiguousarray(part).data)
    sha.update(np.ascontiguousarray(samples.test).data)
    sha.update("\0".join(samples.classes).encode())
    for pattern in _CODE:
        for path in sorted(_ROOT.glob(pattern)):
            if path.name not in _NOT_CODE:
                sha.update(path.name.encode() + path.read_bytes())
    return sha.hexdigest()


@lru_cache(maxsize=1)
def _read(data: Data) -> MultiCameraSet:
    samples = load(data.source, split=data.split)
    return _limit(samples, data.train_limit, data.test_limit)


def _limit(samples: MultiCameraSet, train: int | None, test: int | None) -> MultiCameraSet:
    """Fewer samples of each split, in the classes' shares."""

    def part(index: npt.NDArray[np.int64], limit: int | None) -> npt.NDArray[np.int64]:
        if limit is None or len(index) <= limit:
            return index
        return stratified_split(samples.labels, index, limit / len(index), 0)[1]

    chosen_train, chosen_test = part(samples.train, train), part(samples.test, test)
    if len(chosen_train) == len(samples.train) and len(chosen_test) == len(samples.test):
        return samples
    return samples.subset(np.concatenate([chosen_train, chosen_test]))
