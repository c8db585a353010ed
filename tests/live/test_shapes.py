"""The six shapes of the paper's Figure 2: trained, exported, run over a real broker.

For each preset: the command trains it for an epoch on a little of the built-in set; thresholds are
then set so that every exit takes its share; services replay the samples through mosquitto; every
decision must be the one that `ddnn.evaluate` makes of the same bundle.
"""

import numpy as np
import pytest
from click.testing import CliRunner

pytest.importorskip("torch")

from ddnn.cli import main
from ddnn.evaluate import Evaluator
from ddnn.store import read_folder
from tests.bundles import every_exit_used
from tests.live.in_process import Site, assert_equal, ended, wait
from training.datasets.load import load
from training.preset import one_camera, presets

pytestmark = pytest.mark.live
PERIOD_S = 0.04
EXITS = {
    "a-cloud-only": {"cloud"},
    "b-device-cloud": {"local", "cloud"},
    "c-devices-cloud": {"local", "cloud"},
    "d-device-edge-cloud": {"local", "edge", "cloud"},
    "e-devices-edge-cloud": {"local", "edge", "cloud"},
    "f-devices-edges-cloud": {"local", "edge", "cloud"},
}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """A little of the built-in set, as a file, with some views of the test part lost."""
    samples = load("generated")
    few = samples.subset(np.concatenate([samples.train[:64], samples.test[:36]]))
    lost = np.random.default_rng(5).random(few.present.shape) < 0.25
    lost[few.train] = False
    lost[few.test[7]] = True  # and one that nobody sees
    few.images[lost] = 0
    few.present[lost] = few.seen[lost] = False
    path = tmp_path_factory.mktemp("shapes") / "few.npz"
    few.save(path)
    return path


def train(preset, data, folder):
    """The bundle that the command makes, and the samples to replay."""
    arguments = ["train", "--preset", preset, "--data", data, "--out", folder / "bundle"]
    arguments += ["--epochs", 1, "--run-dir", folder / "runs"]
    result = CliRunner().invoke(main, list(map(str, arguments)))
    assert result.exit_code == 0, result.output
    samples = load(str(data))
    if presets()[preset].one_camera:
        samples = samples.select_cameras([one_camera(samples)])
    test = samples.subset(samples.test)
    return every_exit_used(read_folder(folder / "bundle"), test.images, test.present), test


@pytest.mark.parametrize("preset", EXITS)
def test_every_decision_of_the_shape_equals_the_evaluation(preset, data, tmp_path):
    bundle, samples = train(preset, data, tmp_path)
    expected = Evaluator(bundle).evaluate(samples.images, samples.present)
    seen = samples.present.any(axis=1)
    assert set(expected.exit[seen]) == EXITS[preset], "the test must use every exit"

    with Site(tmp_path, samples, PERIOD_S) as site:
        site.run(bundle)
        wait(lambda: len(site.decisions()) >= len(samples), "all decisions")
        wait(lambda: ended(site.observer.ledger) >= len(samples), "the ledger")

    decisions, ledger = site.decisions(), site.observer.ledger
    assert sorted(decisions) == list(range(len(samples)))
    assert_equal(decisions, expected, bundle.manifest.classes)
    assert ledger["opened"] == ledger["decided"] == len(samples)
    several = len(bundle.manifest.topology.edges) > 1
    assert {d.members for d in decisions.values()} == {"edges" if several else "cameras"}


def test_all_presets_are_tested():
    assert set(presets()) == set(EXITS)
