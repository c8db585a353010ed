"""Options that make no network are refused with a reason."""

import pytest

from ddnn.errors import ConfigError
from training.options import TOPOLOGIES, NetworkOptions, TrainOptions, describe, topology

SHAPE = {"cameras": 2, "classes": 3, "height": 8, "width": 8, "channels": 3}


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"cameras": 33}, "cameras"),
        ({"classes": 1}, "classes"),
        ({"channels": 5}, "channels"),
        ({"height": 0}, "pixels"),
        ({"device_filters": ()}, "block"),
        ({"edge_filters": ()}, "block"),
        ({"edges": ((0,),)}, "every camera"),
        ({"edges": ((0, 1), ())}, "without cameras"),
        ({"edges": ((0,), (1,)), "cloud_filters": ()}, "cloud"),
        ({"edges": (), "cloud_filters": (), "local_exit": False}, "exit"),
        ({"local_aggregation": "XX"}, "local_aggregation"),
        ({"feature_aggregation": "GA"}, "feature_aggregation"),
        ({"upper_weights": "float"}, "upper_weights"),
        ({"upper_weights": "int8", "feature_aggregation": "AP"}, "not AP"),
    ],
)
def test_impossible_network_is_refused(changes, reason):
    with pytest.raises(ConfigError, match=reason):
        NetworkOptions(**({"edges": ((0, 1),)} | SHAPE | changes))


@pytest.mark.parametrize(
    "changes",
    [{"epochs": 0}, {"batch": 1}, {"camera_dropout": 1.0}, {"patience": -1}, {"local_masks": -1}],
)
def test_impossible_training_is_refused(changes):
    with pytest.raises(ConfigError):
        TrainOptions(**changes)


@pytest.mark.parametrize("name", TOPOLOGIES)
@pytest.mark.parametrize("cameras", [2, 5, 6])
def test_named_topologies_hold_every_camera(name, cameras):
    edges = topology(name, cameras)
    assert sorted(c for e in edges for c in e) == (list(range(cameras)) if edges else [])


def test_unknown_topology_is_refused():
    with pytest.raises(ConfigError, match="devices-edge-cloud"):
        topology("ring", 3)
    with pytest.raises(ConfigError, match="two or more"):
        topology("devices-edges-cloud", 1)


def test_options_are_described_as_flat_values():
    flat = describe(NetworkOptions(**SHAPE, edges=((0,), (1,))), TrainOptions(seed=4))
    assert flat["edges"] == "0;1"
    assert flat["device_filters"] == "4"
    assert flat["seed"] == 4
    assert all(isinstance(v, str | int | float | bool | None) for v in flat.values())
