"""A bundle of several edges: the exits of a tier speak with one voice."""

import numpy as np
import pytest

pytest.importorskip("torch")

from ddnn.evaluate import Evaluator
from tests.export.test_export import LABEL, options_for, random_network, tiny_set
from training.export import export


@pytest.fixture(scope="module")
def data():
    return tiny_set(cameras=4)


@pytest.fixture(scope="module")
def evaluator(data):
    network = random_network(options_for(data, "devices-edges-cloud"))
    return Evaluator(export(network, data, data.train, LABEL))


@pytest.mark.parametrize("missing", [(), (0,), (0, 1), (2, 3)])
def test_logits_of_gateways_with_a_camera_are_added_up(evaluator, data, missing):
    present = data.present.copy()
    present[:, list(missing)] = False
    scores, features = evaluator.devices(data.images, present)
    outcomes = evaluator.exits(scores, features, present)
    for tier in ("local", "edge"):
        wanted = np.zeros((len(data), 3), np.int64)
        for k, cameras in enumerate(([0, 1], [2, 3])):
            mask = present[:, cameras].astype(np.uint8)
            inputs = {"scores": scores} if tier == "local" else {"features": features}
            chosen = {name: np.ascontiguousarray(a[:, cameras]) for name, a in inputs.items()}
            got = evaluator.sections[f"{tier}/{k}"].run_batch(chosen | {"mask": mask})
            wanted += got["logits"] * mask.any(axis=1)[:, None]
        assert np.array_equal(outcomes[tier].logits, wanted)
        assert np.array_equal(outcomes[tier].label, wanted.argmax(axis=1))


def test_gateway_without_a_camera_has_no_say(evaluator, data):
    present = data.present.copy()
    present[:, 2:] = False
    scores, features = evaluator.devices(data.images, present)
    other = features.copy()
    other[:, 2:] = 255
    first = evaluator.exits(scores, features, present)
    second = evaluator.exits(scores, other, present)
    for tier in first:
        assert np.array_equal(first[tier].logits, second[tier].logits)
