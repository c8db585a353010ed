"""`ddnn train FOLDER`: its defaults, its report, the next version."""

import pytest
from click.testing import CliRunner

pytest.importorskip("torch")

from ddnn.cli import main
from ddnn.store import read_folder
from tests.recordings import labelled_folder
from training.datasets.load import load
from training.registry import Registry

SMALL = ("--epochs", 2, "--filters", 2, "--edge-filters", 3, "--cloud-filters", 3)
#: Names that would be markup, were they not escaped.
CLASSES = ("disc", "<b>cross</b>", "ring")


def call(*arguments):
    return CliRunner().invoke(main, ["train", *map(str, arguments)], catch_exceptions=False)


def test_labelled_folder_becomes_a_bundle_and_a_report_and_then_the_next_version(
    tmp_path, monkeypatch
):
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    labels = [CLASSES[n // 5 % 3] for n in range(60)]
    folder = labelled_folder(tmp_path / "yard", 60, 2, CLASSES, labels=[
        {"<b>cross</b>": "cross"}.get(label, label) for label in labels
    ], size=8)  # fmt: skip
    for name in ("labels.csv", "classes.txt"):
        path = folder / name
        path.write_text(path.read_text().replace("<b>cross</b>", "cross"))
        path.write_text(path.read_text().replace("cross", "<b>cross</b>"))
    result = call(folder, "--site", "yard", *SMALL)
    assert result.exit_code == 0, result.output
    assert f"ddnn publish {folder / 'bundle'} --site yard" in result.output
    bundle = read_folder(folder / "bundle")
    assert bundle.manifest.name == "yard"
    assert bundle.manifest.version == 1
    assert bundle.manifest.classes == CLASSES
    assert bundle.manifest.accuracy.samples == len(load(folder).test)
    (run,) = (folder / "runs").iterdir()
    report = (run / "report.html").read_text()
    for said in ("Which camera matters", "recorded on one day", "labelled slots to learn from"):
        assert said in report
    assert "&lt;b&gt;cross&lt;/b&gt;" in report
    assert "<b>cross</b>" not in report
    assert "http" not in report.replace("http-equiv", ""), "it shows without a network"

    Registry().keep("yard", read_folder(folder / "bundle"))
    again = call("--resume", run, "--no-learning-curve")
    assert again.exit_code == 0, again.output
    assert read_folder(folder / "bundle").manifest.sections == bundle.manifest.sections
    assert call(folder, "--site", "yard", "--no-learning-curve", *SMALL).exit_code == 0
    assert read_folder(folder / "bundle").manifest.version == 2
