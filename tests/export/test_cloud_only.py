"""Pictures to the cloud: the same network, cut elsewhere, gives the same answers."""

import dataclasses

import numpy as np
import pytest

pytest.importorskip("torch")

from ddnn.evaluate import Evaluator
from tests.export.test_export import LABEL, options_for, random_network, tiny_set
from training.export import export


@pytest.mark.parametrize(
    ("joined", "shared", "filters"),
    [
        ("CC", False, (3,)),
        ("CC", True, (3, 2)),
        ("MP", False, (3, 2)),
        ("AP", False, (3, 2, 3)),
    ],
)
def test_cloud_answers_as_if_the_devices_had_done_their_part(joined, shared, filters):
    data = tiny_set(cameras=3, image=(9, 12, 3))
    cut_after = options_for(
        data, "devices-cloud", local_exit=False, feature_aggregation=joined, shared=shared,
        device_filters=filters,
    )  # fmt: skip
    cut_before = dataclasses.replace(cut_after, offload="images")
    bundles = [
        export(random_network(options, seed=4), data, data.train, LABEL)
        for options in (cut_after, cut_before)
    ]
    rng = np.random.default_rng(1)
    images = rng.integers(0, 256, (200, *data.images.shape[1:]), np.uint8)
    # Half of them nearly of one colour: noise alone looks the same everywhere.
    images[::2] = images[::2] // 4 + rng.integers(0, 190, (100, 3, 1, 1, 3), np.uint8)
    present = rng.random(images.shape[:2]) < 0.7
    outcomes = []
    for bundle in bundles:
        evaluator = Evaluator(bundle)
        outcomes.append(evaluator.exits(*evaluator.devices(images, present), present)["cloud"])
    assert np.array_equal(outcomes[0].logits, outcomes[1].logits)
    assert len(np.unique(outcomes[0].logits, axis=0)) > 3
    assert bundles[1].manifest.topology.sends_images
