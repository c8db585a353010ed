"""`ddnn train` as a person calls it."""

import numpy as np
import pytest
from click.testing import CliRunner

pytest.importorskip("torch")

from ddnn.cli import main
from ddnn.store import read_folder
from tests.export.test_export import tiny_set


def call(*arguments):
    return CliRunner().invoke(main, ["train", *map(str, arguments)])


@pytest.fixture
def data(tmp_path):
    path = tmp_path / "tiny.npz"
    tiny_set().save(path)
    return path


SMALL = ("--epochs", 2, "--batch", 8, "--filters", 2, "--edge-filters", 3, "--cloud-filters", 3)


def test_train_writes_a_bundle_and_a_run_folder(data, tmp_path):
    out, runs = tmp_path / "bundle", tmp_path / "runs"
    result = call("--data", data, "--out", out, "--run-dir", runs, "--version", 7, *SMALL)
    assert result.exit_code == 0, result.output
    bundle = read_folder(out)
    assert bundle.manifest.version == 7
    assert bundle.manifest.training["seed"] == 0
    assert bundle.manifest.training["epochs"] == 2
    assert bundle.manifest.accuracy.samples == 12
    (run,) = runs.iterdir()
    assert {f.name for f in run.iterdir()} == {
        "options.json", "command.json", "metrics.jsonl", "curves.png", "checkpoint.pt"
    }  # fmt: skip
    assert len((run / "metrics.jsonl").read_text().splitlines()) == 2


def test_thresholds_are_for_the_goal_and_the_bundle_says_so(data, tmp_path):
    out = tmp_path / "bundle"
    where = ("--data", data, "--out", out, "--run-dir", tmp_path / "runs")
    result = call(*where, "--goal", "bytes=14", *SMALL)
    assert result.exit_code == 0, result.output
    manifest = read_folder(out).manifest
    assert manifest.calibration.goal == "bytes=14"
    chosen = {n: e.threshold for n, e in manifest.exits.items() if e.threshold is not None}
    (point,) = [p for p in manifest.calibration.curve if p.thresholds == chosen]
    assert point.camera_bytes <= 14
    assert len(manifest.missing.sets) == 8


def test_bundle_says_which_cameras_of_the_set_it_is_of(data, tmp_path):
    out = tmp_path / "bundle"
    where = ("--data", data, "--out", out, "--run-dir", tmp_path / "runs")
    result = call(*where, "--preset", "d-device-edge-cloud", "--cameras", "2", *SMALL)
    assert result.exit_code == 0, result.output
    assert "one device" in result.output
    manifest = read_folder(out).manifest
    assert manifest.training["of_cameras"] == "2"
    assert manifest.topology.cameras == 1
    assert len(manifest.topology.edges) == 1


def test_camera_that_the_set_does_not_have_is_explained(data, tmp_path):
    result = call("--data", data, "--out", tmp_path / "bundle", "--cameras", "0,9", *SMALL)
    assert result.exit_code == 1
    assert "0..2" in result.output


def test_goal_out_of_reach_costs_no_training(data, tmp_path):
    out = tmp_path / "bundle"
    where = ("--data", data, "--out", out, "--run-dir", tmp_path / "runs")
    result = call(*where, "--goal", "bytes=5", *SMALL)
    assert result.exit_code == 1
    assert "cannot be reached" in result.output.replace("\n", " ")
    assert read_folder(out).manifest.calibration.goal == "accuracy"


def test_folder_that_is_no_bundle_is_left_alone(data, tmp_path):
    out = tmp_path / "photos"
    out.mkdir()
    (out / "cat.png").write_bytes(b"meow")
    result = call("--data", data, "--out", out, *SMALL)
    assert result.exit_code == 1
    assert "holds no bundle" in result.output
    assert [f.name for f in out.iterdir()] == ["cat.png"]


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (("--filters", "a"), "not a list of numbers"),
        (("--filters", ""), "a device needs one block"),
        (("--filters", "0"), "1 to 4096"),
        (("--topology", "ring"), "ring"),
        (("--epochs", "0"), "epochs"),
        (("--goal", "speed"), "unknown goal"),
    ],
)
def test_impossible_option_is_explained(data, tmp_path, arguments, reason):
    result = call("--data", data, "--out", tmp_path / "b", "--run-dir", tmp_path / "r", *arguments)
    assert result.exit_code in (1, 2)
    assert reason in result.output
    assert not (tmp_path / "b").exists()


def test_missing_data_is_explained(tmp_path):
    result = call("--data", tmp_path / "none.npz", "--out", tmp_path / "b")
    assert result.exit_code == 1
    assert "none.npz" in result.output.replace("\n", "")


def test_interrupt_ends_cleanly(data, tmp_path, monkeypatch):
    def interrupted(*_args, **_options):
        raise KeyboardInterrupt

    monkeypatch.setattr("training.train.train", interrupted)
    result = call("--data", data, "--out", tmp_path / "b", "--run-dir", tmp_path / "r", *SMALL)
    assert result.exit_code == 130
    assert "interrupted" in result.output
    assert not (tmp_path / "b").exists()


def test_training_never_reads_the_test_split():
    from tests.export.test_export import options_for
    from training.options import TrainOptions
    from training.train import train

    data = tiny_set()
    poisoned = tiny_set()
    poisoned.images[poisoned.test] = np.where(
        poisoned.present[poisoned.test, :, None, None, None], 9, 0
    )
    networks = [
        train(d, options_for(d), TrainOptions(epochs=1, batch=8))[0] for d in (data, poisoned)
    ]
    first, second = (n.state_dict() for n in networks)
    assert all(first[name].equal(second[name]) for name in first)
