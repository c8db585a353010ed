"""Every line of `ddnn doctor` on machines that are not this one."""

import json
import sys
from datetime import timedelta

import pytest
from click.testing import CliRunner

from broker.pki import Authority, now_utc, write_private
from ddnn.config import SiteSettings
from ddnn.doctor import connection, host, models
from ddnn.doctor.cli import doctor
from ddnn.doctor.finding import Machine, Ran, run
from ddnn.key_files import write_keys
from ddnn.store import write_folder
from ddnn.tls import TlsFiles
from ddnn.trust import KeySet
from tests import bundles
from tests.signing import KEY, OTHER, signed, trusted

NOW = now_utc()
PI = {"proc/device-tree/model": "Raspberry Pi 4 Model B Rev 1.4\0"}
THROTTLED = "sys/devices/platform/soc/soc:firmware/get_throttled"


def machine(root, files=(), answers=()):
    """A computer with these files, whose programs answer so (by a word of the command)."""
    for name, text in dict(files).items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    def answer(command):
        line = " ".join(command)
        return next((ran for word, ran in dict(answers).items() if word in line), None)

    return Machine(root, answer)


@pytest.mark.parametrize(
    ("ran", "level", "said"),
    [
        (Ran(0, "1.20.0"), "ok", "1.20.0"),
        (Ran(-4, ""), "failure", "SIGILL"),
        (Ran(1, "ModuleNotFoundError: No module named 'onnxruntime'"), "failure", "not installed"),
        (Ran(1, "a\nImportError: GLIBC_2.38 not found"), "failure", "GLIBC_2.38"),
        (None, "failure", "does not end"),
    ],
    ids=["works", "wheel of another CPU", "missing", "system too old", "hangs"],
)
def test_onnxruntime(tmp_path, ran, level, said):
    found = host.check_onnxruntime(machine(tmp_path, answers={"onnxruntime": ran} if ran else {}))
    assert (found.level, said in found.text) == (level, True)
    assert bool(found.advice) == (level == "failure")


def test_program_that_is_killed_is_told_apart_from_one_that_fails():
    killed = run([sys.executable, "-c", "import os, signal; os.kill(os.getpid(), signal.SIGILL)"])
    assert killed.code == -4
    assert run(["no-such-program-anywhere"]) is None
    assert run([sys.executable, "-c", "import time; time.sleep(60)"], timeout_s=0.2) is None


@pytest.mark.parametrize(
    ("files", "answers", "level"),
    [
        ({}, {}, "skipped"),
        (PI, {"libcamera": Ran(0, "ok")}, "ok"),
        (PI, {"libcamera": Ran(1, "ModuleNotFoundError")}, "warning"),
    ],
)
def test_camera(tmp_path, files, answers, level):
    assert host.check_camera(machine(tmp_path, files, answers)).level == level


@pytest.mark.parametrize(
    ("now_s", "files", "answers", "level"),
    [
        (0.0, {}, {}, "failure"),
        (1.9e9, {"run/systemd/timesync/synchronized": ""}, {}, "ok"),
        (1.9e9, {}, {"timedatectl": Ran(0, "yes")}, "ok"),
        (1.9e9, {}, {"timedatectl": Ran(0, "no")}, "warning"),
        (1.9e9, {}, {"timedatectl": Ran(1, "no bus")}, "skipped"),
        (1.9e9, {}, {}, "skipped"),
    ],
)
def test_clock(tmp_path, now_s, files, answers, level):
    assert host.check_clock(machine(tmp_path, files, answers), now_s).level == level


@pytest.mark.parametrize(("free", "level"), [(100e6, "failure"), (500e6, "warning"), (20e9, "ok")])
def test_disk(tmp_path, monkeypatch, free, level):
    usage = type("Usage", (), {"free": free, "total": 32e9})
    monkeypatch.setattr("shutil.disk_usage", lambda path: usage)
    found = host.check_disk(Machine(), tmp_path / "not" / "made" / "yet")
    assert found.level == level


@pytest.mark.parametrize(
    ("files", "level"),
    [
        ({}, "skipped"),
        ({"sys/block/mmcblk0/device/life_time": "0x01 0x03\n"}, "ok"),
        ({"sys/block/mmcblk0/device/life_time": "0x09 0x02\n"}, "warning"),
        ({"sys/block/mmcblk0/device/life_time": "0x00 0x00\n"}, "skipped"),
        ({"proc/mounts": "/dev/mmcblk0p2 / ext4 ro,noatime 0 0\n"}, "failure"),
        ({"proc/mounts": "/dev/mmcblk0p2 / ext4 rw,errors=remount-ro 0 0\n"}, "skipped"),
    ],
    ids=["silent", "young", "old", "does not say", "read-only", "writable"],
)
def test_wear(tmp_path, files, level):
    (found,) = host.check_wear(machine(tmp_path, files))
    assert found.level == level


@pytest.mark.parametrize(
    ("text", "level"),
    [("MemAvailable:  400000 kB", "ok"), ("MemAvailable: 50000 kB", "warning"), ("", "skipped")],
)
def test_memory(tmp_path, text, level):
    assert host.check_memory(machine(tmp_path, {"proc/meminfo": text})).level == level


@pytest.mark.parametrize(("milli", "level"), [("45123", "ok"), ("82000", "warning")])
def test_temperature(tmp_path, milli, level):
    files = {"sys/class/thermal/thermal_zone0/temp": milli}
    assert host.check_temperature(machine(tmp_path, files)).level == level


def test_no_sensor_is_skipped(tmp_path):
    assert host.check_temperature(machine(tmp_path)).level == "skipped"


@pytest.mark.parametrize(
    ("files", "answers", "level", "said"),
    [
        ({}, {}, "skipped", "not a Raspberry Pi"),
        (PI | {THROTTLED: "0"}, {}, "ok", ""),
        (PI | {THROTTLED: "50005"}, {}, "failure", "under-voltage, throttled"),
        (PI | {THROTTLED: "80000"}, {}, "warning", "temperature limit before"),
        (PI, {"vcgencmd": Ran(0, "throttled=0x1")}, "failure", "under-voltage"),
        (PI, {}, "skipped", "vcgencmd"),
    ],
)
def test_throttling(tmp_path, files, answers, level, said):
    found = host.check_throttling(machine(tmp_path, files, answers))
    assert found.level == level
    assert said in found.text


@pytest.fixture
def tls(tmp_path):
    authority = Authority.create(tmp_path / "ca", "test", NOW)
    issued = authority.issue("s1.device-0", NOW)
    place = tmp_path / "node"
    for name, data in (
        ("node.key", issued.key),
        ("node.crt", issued.certificate),
        ("ca.crt", (authority.folder / "ca.crt").read_bytes()),
    ):
        write_private(place / name, data)
    return TlsFiles(place / "ca.crt", place / "node.crt", place / "node.key")


@pytest.mark.parametrize(
    ("days", "level"), [(0, "ok"), (340, "warning"), (366, "failure"), (-1, "failure")]
)
def test_certificate(tls, days, level):
    found = list(connection.check_certificate(tls, NOW + timedelta(days=days)))
    assert [f.check for f in found] == ["certificate", "key"]
    assert found[0].level == level


def test_key_that_others_may_read_is_a_failure(tls):
    tls.key.chmod(0o644)
    *_, key = connection.check_certificate(tls, NOW)
    assert key.level == "failure"
    assert "chmod 600" in key.advice


def test_certificate_that_is_missing_is_a_failure(tls):
    tls.cert.unlink()
    (found,) = connection.check_certificate(tls, NOW)
    assert found.level == "failure"


def test_no_tls_is_a_warning():
    (found,) = connection.check_certificate(None, NOW)
    assert found.level == "warning"


def test_report_for_programs_with_a_nodes_own_settings(tmp_path):
    """Keys that are the node's own affair are not its business."""
    config = tmp_path / "device.toml"
    config.write_text(
        'site = "s1"\ncamera = 3\nsource = "replay:x.npz"\nbroker = "nowhere.invalid"\n'
    )
    result = CliRunner().invoke(doctor, ["--config", str(config), "--offline", "--json"])
    found = {finding["check"]: finding for finding in json.loads(result.output)}
    assert found["broker"]["level"] == "skipped"
    assert {"python", "onnxruntime", "clock", "disk", "memory", "certificate"} <= set(found)
    assert result.exit_code == any(f["level"] == "failure" for f in found.values())


def test_broker_that_is_not_there_fails_and_says_so():
    found = connection.check_reachable("127.0.0.1", 9, None)
    assert (found.level, "nobody listens" in found.text) == ("failure", True)


# -- what it will run --------------------------------------------------------------------------


@pytest.fixture
def trusting(tmp_path):
    """Settings of a node that trusts one key."""
    write_keys(tmp_path / "trusted.json", KeySet(keys=(trusted(),)))
    return SiteSettings(broker="b", trusted_keys=str(tmp_path / "trusted.json"))


def test_node_that_would_run_no_bundle_at_all_is_warned_of(trusting):
    assert models.check_trust(trusting, "s1", "device").level == "ok"
    without = models.check_trust(SiteSettings(broker="elsewhere"), "s1", "device")
    assert (without.level, "no trusted keys" in without.text) == ("warning", True)


def test_file_of_trusted_keys_that_is_not_there_fails():
    found = models.check_trust(SiteSettings(trusted_keys="/none.json"), "s1", "device")
    assert (found.level, "/none.json" in found.text) == ("failure", True)


@pytest.mark.parametrize(
    ("keys", "level", "said"),
    [((KEY,), "ok", "version 1"), ((OTHER,), "failure", "not trusted"), ((), "failure", "signed")],
    ids=["trusted", "another key", "nobody's"],
)
def test_factory_bundle_is_judged_before_the_node_starts(tmp_path, trusting, keys, level, said):
    bundle = bundles.bundle()
    write_folder(tmp_path / "bundle", signed(bundle, *keys) if keys else bundle)
    found = models.check_factory(trusting, "s1", "device", str(tmp_path / "bundle"))
    assert (found.level, said in found.text) == (level, True)


def test_factory_bundle_that_is_not_there_fails_and_none_is_fine(trusting):
    assert models.check_factory(trusting, "s1", "device", "/none").level == "failure"
    assert models.check_factory(trusting, "s1", "device", "").level == "skipped"
