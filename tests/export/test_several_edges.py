"""A bundle of several edges: a join makes of all edges' score bytes what the site says."""

import numpy as np
import pytest

pytest.importorskip("torch")

from ddnn.evaluate import Evaluator
from ddnn.scores import quantise
from tests.export.test_export import LABEL, options_for, random_network, tiny_set
from training.export import export

BELOW = ([0, 1], [2, 3])


@pytest.fixture(scope="module")
def data():
    return tiny_set(cameras=4)


@pytest.fixture(scope="module")
def bundle(data):
    return export(random_network(options_for(data, "devices-edges-cloud")), data, data.train, LABEL)


@pytest.fixture(scope="module")
def evaluator(bundle):
    return Evaluator(bundle)


@pytest.mark.parametrize("tier", ["local", "edge"])
@pytest.mark.parametrize("missing", [(), (0,), (0, 1), (2, 3)])
def test_exit_is_the_join_of_what_each_edge_would_send(bundle, evaluator, data, tier, missing):
    present = data.present.copy()
    present[:, list(missing)] = False
    scores, features = evaluator.devices(data.images, present)
    outcome = evaluator.exits(scores, features, present)[tier]
    rows = {"local": ("scores", scores), "edge": ("features", features)}[tier]
    for sample in range(12):
        sent, there = np.zeros((2, 3), np.uint8), np.zeros(2, np.uint8)
        for k, below in enumerate(BELOW):
            mask = present[sample : sample + 1, below].astype(np.uint8)
            if not mask.any():
                continue
            own = np.ascontiguousarray(rows[1][sample : sample + 1, below])
            got = evaluator.sections[f"{tier}/{k}"].run_batch({rows[0]: own, "mask": mask})
            sent[k] = quantise(got["logits"][0], bundle.manifest.edge_scales[tier])
            there[k] = 1
        (joined,) = evaluator.sections[f"join/{tier}"].run_one(sent, there)
        assert np.array_equal(outcome.logits[sample], joined)


def test_edge_without_a_camera_has_no_say(evaluator, data):
    present = data.present.copy()
    present[:, 2:] = False
    scores, features = evaluator.devices(data.images, present)
    other = features.copy()
    other[:, 2:] = 255
    first = evaluator.exits(scores, features, present)
    second = evaluator.exits(scores, other, present)
    for tier in first:
        assert np.array_equal(first[tier].logits, second[tier].logits)


def test_joins_are_trained_with_the_rest():
    from training.options import TrainOptions
    from training.train import train

    data = tiny_set(cameras=4)
    factors = [
        train(data, options_for(data, "devices-edges-cloud"), TrainOptions(epochs=n, batch=8))[0]
        .joins["local"]
        .log_factor.detach()
        for n in (1, 4)
    ]
    assert not factors[0].equal(factors[1])
