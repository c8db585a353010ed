"""`ddnn paper` from end to end, on a tiny random set."""

import json
import re

import numpy as np
import pytest
from click.testing import CliRunner

pytest.importorskip("torch")

from ddnn.cli import main
from ddnn.evaluate import evaluate
from ddnn.store import read_folder
from tests.export.test_export import tiny_set
from training.datasets.load import load

SMALL = (
    "--quick", "--epochs", 1, "--jobs", 1, "--set", "device_filters=2", "--set", "edge_filters=2",
    "--set", "cloud_filters=2", "--set", "batch=8",
)  # fmt: skip


def call(folder, *arguments):
    where = ("--data", folder / "tiny.npz", "--out", folder / "report", "--cache", folder / "cache")
    return CliRunner().invoke(main, ["paper", *map(str, where + arguments)])


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("paper")
    tiny_set(samples=60, cameras=3).save(path / "tiny.npz")
    return path


@pytest.fixture(scope="module")
def result(folder):
    return call(folder, *SMALL)


def report(folder):
    return json.loads((folder / "report" / "report.json").read_text())


def test_report_has_every_table_and_plot(folder, result):
    assert result.exit_code == 0, result.output
    assert "about" in result.output
    tables = report(folder)["tables"]
    assert set(tables) == {
        "summary", "sweep", "filters", "aggregation", "local", "cameras", "adding", "missing_one",
        "missing_many", "shapes",
    }  # fmt: skip
    text = (folder / "report" / "report.md").read_text()
    assert "Quick mode" in text
    pictures = re.findall(r"!\[.*?\]\((.*?)\)", text)
    assert len(pictures) == 9
    for picture in pictures:
        assert (folder / "report" / picture).read_bytes().startswith(b"\x89PNG")
    # Three cameras are not the paper's set: its figures would say nothing here.
    assert "paper:" not in text


def test_numbers_are_those_of_the_exported_sections(folder, result):
    data = load(folder / "tiny.npz")
    base = next(
        path.parent
        for path in (folder / "cache").glob("*/run.json")
        if (facts := json.loads(path.read_text()))["cameras"] == [0, 1, 2]
        and facts["network"]["device_filters"] == [2]
        and facts["network"]["edges"] == [[0, 1, 2]]
        and facts["network"]["cloud_filters"] == [2]
        and facts["network"]["local_aggregation"] == "AP"
        and facts["network"]["feature_aggregation"] == "CC"
    )
    bundle = read_folder(base / "bundle")
    tables = report(folder)["tables"]
    images, present = data.images[data.test], data.present[data.test]
    labels = data.labels[data.test]
    for row in tables["sweep"]["rows"][::5]:
        direct = evaluate(bundle, images, present, {"local": row["threshold"]})
        assert row["overall"]["mean"] == pytest.approx((direct.label == labels).mean(), abs=1e-4)
        share = (direct.exit == "local").mean()
        assert row["local_share"]["mean"] == pytest.approx(share, abs=1e-4)
    assert (bundle.manifest.missing.split, len(bundle.manifest.missing.sets)) == ("test", 8)
    for row in tables["missing_one"]["rows"]:
        without = present.copy()
        without[:, row["camera"]] = False
        direct = evaluate(bundle, images, without)
        assert row["blanked"]["mean"] == pytest.approx(np.mean(direct.label == labels), abs=1e-4)
        known = bundle.manifest.missing.without((row["camera"],)).overall
        assert row["blanked"]["mean"] == pytest.approx(known)


def test_second_call_trains_nothing_and_says_the_same(folder, result):
    before = report(folder)["tables"]
    again = call(folder, *SMALL)
    assert again.exit_code == 0, again.output
    assert again.output.count("are in the cache") == 2
    assert report(folder)["tables"] == before


def test_interrupted_evaluation_goes_on_from_its_cache(folder, result):
    runs = {path: json.loads(path.read_text()) for path in (folder / "cache").glob("*/run.json")}
    (unfinished,) = (p for p, facts in runs.items() if facts["network"]["device_filters"] == [1])
    unfinished.unlink()
    planned = call(folder, *SMALL, "--plan")
    assert re.search(r", 1 not in the\s+cache", planned.output), planned.output
    assert call(folder, *SMALL).exit_code == 0
    assert not list((folder / "cache").glob("*.progress"))


def test_missing_data_is_explained(tmp_path):
    found = CliRunner().invoke(main, ["paper", "--data", str(tmp_path / "none.npz")])
    assert found.exit_code == 1
    assert "none.npz" in found.output.replace("\n", "")
