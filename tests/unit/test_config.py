"""Settings: typed, bounded, and a typing error gets the right name back."""

import click
import pytest
from click.testing import CliRunner

from ddnn.config import convert, options, read_toml
from ddnn.errors import ConfigError
from device_agent.service import DeviceSettings
from edge_gateway.service import GatewaySettings

GOOD = {"camera": 1, "source": "replay:x.npz"}


def test_unknown_key_names_the_nearest_known_one():
    with pytest.raises(ConfigError, match=r"'perid_s'.*did you mean 'period_s'"):
        convert(GOOD | {"perid_s": 1}, DeviceSettings)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("period_s", 0),
        ("period_s", "soon"),
        ("port", 70000),
        ("camera", -1),
        ("log_level", "loud"),
        ("site", "a/b"),
        ("site", "+"),
        ("site", "ddnn"),
        ("site", ""),
    ],
)
def test_value_out_of_bounds_is_refused(key, value):
    with pytest.raises(ConfigError):
        convert(GOOD | {key: value}, DeviceSettings)


def test_missing_key_is_named():
    with pytest.raises(ConfigError, match="camera"):
        convert({"source": "replay:x"}, DeviceSettings)


def test_file_that_is_no_toml_is_an_error_with_its_name(tmp_path):
    (tmp_path / "x.toml").write_text("= 3")
    with pytest.raises(ConfigError, match=r"x\.toml"):
        read_toml(tmp_path / "x.toml")


def command(seen):
    @click.command()
    @options(GatewaySettings)
    def run(settings):
        seen.append(settings)

    return run


def test_option_wins_over_environment_over_file_over_default(tmp_path):
    seen = []
    path = tmp_path / "g.toml"
    path.write_text('site = "file"\nperiod_s = 0.5\nport = 1000\n')
    result = CliRunner().invoke(
        command(seen),
        ["--config", str(path), "--site", "option"],
        env={"DDNN_SITE": "environment", "DDNN_PERIOD_S": "0.25"},
    )
    assert result.exit_code == 0, result.output
    (settings,) = seen
    assert settings.site == "option"
    assert settings.period_s == 0.25
    assert settings.port == 1000
    assert settings.summary_wait_s == 0.5


def test_every_setting_has_a_description_and_is_in_help():
    text = CliRunner().invoke(command([]), ["--help"]).output
    for name in GatewaySettings.__struct_fields__:
        assert f"--{name.replace('_', '-')}" in text
        assert f"DDNN_{name.upper()}" in text


def camera_settings(args=(), env=None):
    seen = []

    @click.command()
    @options(DeviceSettings)
    def run(settings):
        seen.append(settings)

    base = ["--camera", "1", "--source", "replay:x"]
    result = CliRunner().invoke(run, [*base, *args], env=env or {})
    return result, seen


@pytest.mark.parametrize(("given", "allowed"), [((), False), (("--send-images", "true"), True)])
def test_pictures_leave_a_device_only_where_that_was_said(given, allowed):
    result, seen = camera_settings(given)
    assert result.exit_code == 0, result.output
    assert seen[0].send_images is allowed


@pytest.mark.parametrize("edge", ["-1", "32", "one"])
def test_edge_that_is_no_number_of_one_is_refused(edge):
    with pytest.raises(ConfigError, match="edge"):
        convert({"edge": edge}, GatewaySettings)


def test_list_is_the_same_as_option_variable_and_in_a_file(tmp_path):
    path = tmp_path / "d.toml"
    path.write_text("region = [0, 0.25, 1, 1]\nmask = [[[0, 0], [1, 0], [1, 1]]]\n")
    mask = "[[[0, 0], [1, 0], [1, 1]]]"
    for args, env in (
        (["--config", str(path)], {}),
        (["--region", "[0, 0.25, 1, 1]", "--mask", mask], {}),
        ([], {"DDNN_REGION": "[0, 0.25, 1, 1]", "DDNN_MASK": mask}),
    ):
        result, seen = camera_settings(args, env)
        assert result.exit_code == 0, result.output
        assert seen[0].region == (0.0, 0.25, 1.0, 1.0)
        assert seen[0].mask == (((0.0, 0.0), (1.0, 0.0), (1.0, 1.0)),)


@pytest.mark.parametrize("text", ["0 0 1 1", "[0, 0, 1", "{}", "[0, 0, 1]", '["a", 0, 1, 1]'])
def test_list_that_is_none_is_an_error_that_names_the_setting(text):
    result, _ = camera_settings(["--region", text])
    assert isinstance(result.exception, ConfigError)
    assert "region" in str(result.exception)
