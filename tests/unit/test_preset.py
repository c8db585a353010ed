"""Presets: the six shapes of the paper, and clear words for what is wrong in one."""

import click
import pytest
from click.testing import CliRunner

from ddnn.cli import main
from ddnn.errors import ConfigError
from tests.export.test_export import tiny_set
from training.cli import train
from training.options import NetworkOptions, TrainOptions, shape
from training.preset import one_camera, parse, preset, presets


@pytest.mark.parametrize("name", presets())
def test_preset_makes_a_network(name):
    chosen = preset(name)
    cameras = 1 if chosen.one_camera else 6
    options = NetworkOptions(
        cameras=cameras, classes=3, height=32, width=32, channels=3,
        **chosen.network | shape(chosen.topology, cameras),
    )  # fmt: skip
    TrainOptions(**chosen.training)
    assert (name[0] in "a") == (options.offload == "images")
    assert (name[0] in "bc") == (not options.edges and options.local_exit)
    assert (name[0] in "de") == (len(options.edges) == 1)
    assert (name[0] in "f") == (len(options.edges) == 2)


def test_presets_are_the_six_of_the_paper():
    assert [name[0] for name in presets()] == list("abcdef")


def test_unknown_preset_is_refused_and_the_known_ones_are_named():
    with pytest.raises(ConfigError, match="e-devices-edge-cloud"):
        preset("g")
    result = CliRunner().invoke(main, ["train", "--preset", "g", "--data", "x", "--out", "y"])
    assert result.exit_code == 2
    assert "a-cloud-only" in result.output


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ('title = "t"\ntopology = ', "x.toml"),
        ('title = "t"', "topology"),
        ('title = "t"\ntopology = "cloud"\nnetwork = 3', "network"),
        ('title = "t"\ntopology = "cloud"\ntopologie = "c"', "did you mean 'topology'"),
        ('title = "t"\ntopology = "cloud"\n[network]\nfilter = [4]', "unknown key 'filter'"),
        ('title = "t"\ntopology = "cloud"\n[training]\nepoch = 4', "did you mean 'epochs'"),
    ],
)
def test_preset_that_is_none_is_refused(text, reason):
    with pytest.raises(ConfigError, match=reason):
        parse(text, "x.toml")


def given(*arguments):
    """What the command would train with."""
    context = train.make_context("train", ["--data", "d", "--out", "o", *arguments])
    return context.params


def test_preset_changes_defaults_and_options_change_the_preset():
    plain = given("--preset", "b-device-cloud")
    assert (plain["topology"], plain["filters"]) == ("devices-cloud", (4,))
    changed = given("--preset", "b-device-cloud", "--topology", "devices-edge", "--filters", "8")
    assert (changed["topology"], changed["filters"]) == ("devices-edge", (8,))
    assert given()["topology"] == "devices-edge-cloud"


def test_cameras_are_numbers():
    assert given("--cameras", "0,2")["cameras"] == (0, 2)
    with pytest.raises(click.BadParameter, match="not a list of numbers"):
        given("--cameras", "a")


def test_one_camera_is_the_one_that_sees_most_in_training():
    data = tiny_set(cameras=3)
    data.seen[:] = False
    data.seen[data.train[:4], 2] = True
    data.seen[data.test, 0] = True
    assert one_camera(data) == 2
