"""A training that was killed goes on as if it had not been."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest
from click.testing import CliRunner

torch = pytest.importorskip("torch")

from ddnn.cli import main  # noqa: E402
from ddnn.errors import DdnnError  # noqa: E402
from ddnn.store import read_folder  # noqa: E402
from tests.export.test_export import options_for, tiny_set  # noqa: E402
from training.checkpoint import Checkpoint, fingerprint  # noqa: E402
from training.datasets.base import split_validation  # noqa: E402
from training.export import build_sections  # noqa: E402
from training.options import TrainOptions  # noqa: E402
from training.train import step_loss, train  # noqa: E402

DATA = tiny_set()
OPTIONS = TrainOptions(epochs=3, batch=8, local_masks=1)
SMALL = ("--filters", 2, "--edge-filters", 3, "--cloud-filters", 3, "--batch", 8)


class Killed(BaseException):
    """Stands for the end of the process."""


def checkpoint(folder, options=OPTIONS, data=DATA, kind=Checkpoint):
    return kind(folder / "checkpoint.pt", fingerprint(data, options_for(data), options))


def sections(**more):
    results = []
    network, _ = train(DATA, options_for(DATA), OPTIONS, results.append, **more)
    return build_sections(network).files, results


@pytest.fixture(scope="module")
def uninterrupted():
    torch.set_num_threads(1)
    return sections()


@pytest.mark.parametrize("epoch", [1, 2, 3])
@pytest.mark.parametrize("when", ["after the checkpoint", "before the checkpoint", "in the epoch"])
def test_training_killed_in_any_epoch_ends_as_if_it_had_not_been(
    tmp_path, monkeypatch, uninterrupted, epoch, when
):
    class Mortal(Checkpoint):
        def save(self, state):
            before = len(state["history"]) == epoch and when == "before the checkpoint"
            if before:
                (tmp_path / "checkpoint.pt.new").write_bytes(b"half of a file")
                raise Killed
            super().save(state)

    def report(result):
        if result.epoch == epoch and when == "after the checkpoint":
            raise Killed

    def step_or_die(*args):
        calls.append(1)
        # The last step of that epoch: it is counted with none of it kept.
        if len(calls) == epoch * steps:
            raise Killed
        return step_loss(*args)

    fitted = len(split_validation(DATA, share=OPTIONS.validation_share)[0])
    calls, steps = [], -(-fitted // OPTIONS.batch)
    mortal = checkpoint(tmp_path, kind=Mortal)
    with monkeypatch.context() as patched:
        if when == "in the epoch":
            patched.setattr("training.train.step_loss", step_or_die)
        with pytest.raises(Killed):
            train(DATA, options_for(DATA), OPTIONS, report, checkpoint=mortal)
    assert sections(checkpoint=checkpoint(tmp_path)) == uninterrupted


def test_finished_training_trains_no_more(tmp_path, monkeypatch, uninterrupted):
    sections(checkpoint=checkpoint(tmp_path))
    monkeypatch.setattr("training.train.step_loss", None)
    assert sections(checkpoint=checkpoint(tmp_path)) == uninterrupted


@pytest.mark.parametrize("damage", ["cut", "garbage", "empty", "pickle"])
def test_damaged_checkpoint_is_refused(tmp_path, damage):
    file = tmp_path / "checkpoint.pt"
    kept = checkpoint(tmp_path)
    kept.save({"epoch": 1, "weights": torch.ones(1000)})
    whole = file.read_bytes()
    if damage == "pickle":
        torch.save({"training": os.system, "state": {}}, file)
    else:
        file.write_bytes({"cut": whole[:-100], "garbage": b"\0" * 99, "empty": b""}[damage])
    with pytest.raises(DdnnError, match="cannot be read"):
        kept.load()


def test_checkpoint_of_other_samples_or_options_is_refused(tmp_path):
    checkpoint(tmp_path).save({})
    with pytest.raises(DdnnError, match="other samples or other options"):
        checkpoint(tmp_path, TrainOptions(epochs=3, batch=8, local_masks=1, seed=1)).load()
    with pytest.raises(DdnnError, match="other samples or other options"):
        checkpoint(tmp_path, data=tiny_set(seed=1)).load()


def test_checkpoint_that_cannot_be_written_leaves_the_one_before(tmp_path):
    kept = checkpoint(tmp_path)
    kept.save({"epoch": 1})
    (tmp_path / "checkpoint.pt.new").mkdir()
    with pytest.raises(DdnnError, match="cannot keep"):
        kept.save({"epoch": 2})
    assert kept.load() == {"epoch": 1}


def call(*arguments):
    return CliRunner().invoke(main, ["train", *map(str, arguments)])


@pytest.fixture
def where(tmp_path):
    DATA.save(tmp_path / "tiny.npz")
    return ("--data", tmp_path / "tiny.npz", "--run-dir", tmp_path / "runs")


def test_kill_minus_nine_and_resume_from_another_folder(tmp_path, where, monkeypatch):
    long = (*SMALL, "--epochs", 12, "--flip", "--goal", "bytes=14")
    begun = subprocess.Popen(
        [sys.executable, "-m", "ddnn", "train", *map(str, (*where, "--out", "bundle", *long))],
        cwd=tmp_path,
        stderr=subprocess.DEVNULL,
    )
    try:
        deadline = time.monotonic() + 60
        while not list(tmp_path.glob("runs/*/checkpoint.pt")):
            assert begun.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.01)
    finally:
        begun.send_signal(signal.SIGKILL)
        assert begun.wait() == -signal.SIGKILL
    (run,) = (tmp_path / "runs").iterdir()
    assert not (tmp_path / "bundle").exists()
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    resumed = call("--resume", run)
    assert resumed.exit_code == 0, resumed.output
    again = call(*where, "--out", tmp_path / "other", *long)
    assert again.exit_code == 0, again.output
    first, second = read_folder(tmp_path / "bundle"), read_folder(tmp_path / "other")
    assert first.sections == second.sections
    assert first.manifest.training == second.manifest.training
    assert first.manifest.calibration == second.manifest.calibration
    lines = (run / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["epoch"] for line in lines] == list(range(1, 13))


def test_resume_of_a_finished_run_chooses_thresholds_for_another_goal(tmp_path, where):
    assert call(*where, "--out", tmp_path / "a", *SMALL, "--epochs", 2).exit_code == 0
    (run,) = (tmp_path / "runs").iterdir()
    result = call("--resume", run, "--out", tmp_path / "b", "--goal", "bytes=14")
    assert result.exit_code == 0, result.output
    first, second = read_folder(tmp_path / "a"), read_folder(tmp_path / "b")
    assert first.sections == second.sections
    assert second.manifest.calibration.goal == "bytes=14"


def test_resume_with_another_seed_is_refused_and_leaves_the_run_alone(tmp_path, where):
    assert call(*where, "--out", tmp_path / "a", *SMALL, "--epochs", 2).exit_code == 0
    (run,) = (tmp_path / "runs").iterdir()
    before = {f.name: f.read_bytes() for f in run.iterdir()}
    result = call("--resume", run, "--out", tmp_path / "b", "--seed", 9)
    assert result.exit_code == 1
    assert "other options" in result.output.replace("\n", " ")
    assert {f.name: f.read_bytes() for f in run.iterdir()} == before


@pytest.mark.parametrize("command", [None, "{", "[1]"])
def test_folder_that_is_no_run_cannot_be_resumed(tmp_path, command):
    if command is not None:
        (tmp_path / "command.json").write_text(command)
    result = call("--resume", tmp_path)
    assert result.exit_code == 2
    assert "no run folder" in result.output.replace("\n", " ")


def test_patience_ends_a_training_that_no_longer_gets_better():
    options = TrainOptions(epochs=16, batch=8, patience=2, learning_rate=1e-9)
    results = []
    train(DATA, options_for(DATA), options, results.append)
    # Weights that do not move: ties keep counting as better, a worse epoch does not.
    scores = [result.score for result in results]
    best = max(range(8, len(scores)), key=lambda at: (scores[at], at))
    assert len(results) == min(16, best + 1 + 2)
    assert len(results) > 8
