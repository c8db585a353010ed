"""Configuration text and the search for mosquitto; no broker is started."""

import re
from pathlib import Path

import pytest

from broker.mosquitto import find_mosquitto, render_config
from ddnn.errors import DdnnError


def settings(config: str) -> dict[str, str]:
    lines = [line for line in config.splitlines() if line and not line.startswith("#")]
    return dict(line.split(" ", 1) for line in lines)


def fake_mosquitto(path: Path, says: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\necho '{says}'\nexit 3\n")  # 3: what 2.0's `mosquitto -h` ends with
    path.chmod(0o755)
    return path


def test_config_listens_on_loopback_only():
    config = render_config(18830)
    assert re.findall(r"^listener .*$", config, re.MULTILINE) == ["listener 18830 127.0.0.1"]


def test_config_sets_what_mosquitto_gets_wrong_by_default():
    found = settings(render_config(18830))
    assert found["set_tcp_nodelay"] == "true"
    assert found["max_queued_messages"] == "100000"
    assert int(found["max_queued_bytes"]) > 0
    assert found["max_packet_size"] == str(2 * 1024 * 1024)


def test_config_has_a_reason_for_each_line():
    blocks = render_config(18830, Path("/tmp/state")).split("\n\n")
    assert all(block.startswith("#") for block in blocks if block.strip())


def test_config_keeps_nothing_by_default():
    assert settings(render_config(18830))["persistence"] == "false"


def test_config_with_persistence_names_the_folder_with_a_slash_at_the_end():
    found = settings(render_config(18830, Path("/tmp/a folder/$state")))
    assert found["persistence"] == "true"
    # mosquitto glues the file name to it as it stands.
    assert found["persistence_location"] == "/tmp/a folder/$state/"


def test_persistence_folder_that_adds_a_setting_is_refused():
    with pytest.raises(DdnnError, match="cannot be used"):
        render_config(18830, Path("/tmp/x\nlistener 1883 0.0.0.0"))


def test_chosen_mosquitto_wins(tmp_path: Path):
    chosen = fake_mosquitto(tmp_path / "chosen", "mosquitto version 2.0.18")
    fake_mosquitto(tmp_path / "private/usr/sbin/mosquitto", "mosquitto version 2.0.11")
    found = find_mosquitto({"MOSQUITTO": str(chosen)}, tmp_path / "private")
    assert (found.path, found.version) == (chosen, (2, 0, 18))


def test_private_mosquitto_gets_its_own_libraries(tmp_path: Path):
    private = fake_mosquitto(tmp_path / "usr/sbin/mosquitto", "mosquitto version 2.0.11")
    library = tmp_path / "usr/lib/any-arch/libcjson.so.1"
    library.parent.mkdir(parents=True)
    library.touch()
    found = find_mosquitto({"PATH": "/nonexistent"}, tmp_path)
    assert found.path == private
    assert found.env["LD_LIBRARY_PATH"].split(":")[0] == str(library.parent)


def test_chosen_mosquitto_that_is_missing_is_an_error_even_when_another_is_there(tmp_path: Path):
    fake_mosquitto(tmp_path / "usr/sbin/mosquitto", "mosquitto version 2.0.11")
    with pytest.raises(DdnnError, match="MOSQUITTO=/nonexistent is not a program"):
        find_mosquitto({"MOSQUITTO": "/nonexistent"}, tmp_path)


@pytest.mark.parametrize(
    ("says", "reason"),
    [
        ("mosquitto version 1.6.12", "is version 1.6.12, too old"),
        ("error while loading shared libraries", "does not tell its version but says: error while"),
    ],
)
def test_chosen_mosquitto_that_cannot_be_used_says_why(tmp_path: Path, says: str, reason: str):
    chosen = fake_mosquitto(tmp_path / "chosen", says)
    with pytest.raises(DdnnError, match=reason):
        find_mosquitto({"MOSQUITTO": str(chosen)}, tmp_path / "private")


def test_no_mosquitto_at_all_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    on_path = fake_mosquitto(tmp_path / "bin/mosquitto", "mosquitto version 1.4.8")
    monkeypatch.setattr("broker.mosquitto._SYSTEM_FOLDERS", ())
    with pytest.raises(DdnnError) as caught:
        find_mosquitto({"PATH": str(on_path.parent)}, tmp_path / "private")
    text = str(caught.value)
    for part in ("2.0.11 or later", "make setup", "apt install", "brew install", "MOSQUITTO=/"):
        assert part in text
    assert f"{on_path}: is version 1.4.8, too old" in text
