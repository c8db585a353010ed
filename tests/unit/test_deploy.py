"""Deploying without a host: the switch with a make-believe systemctl, hosts, units."""

import importlib.util
import os
import shutil
import stat
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
DEPLOY = ROOT / "deploy"
#: Says of a service what the files in $STATE say; a version named in $STATE/broken never comes up,
#: one in $STATE/dying comes up and is started again and again.
SYSTEMCTL = """#!/bin/sh
version=$(basename "$(readlink "$ROOT/current")")
echo "$@" >>"$STATE/calls"
case "$1 $2" in
"restart "*) echo "$version" >"$STATE/running" ;;
"stop "*) rm -f "$STATE/running" ;;
"show --property=ActiveState")
    if grep -qx "$version" "$STATE/broken" || [ ! -e "$STATE/running" ]; then echo failed
    else echo active; fi ;;
"show --property=NRestarts")
    if grep -qx "$version" "$STATE/dying"; then date +%N; else echo 0; fi ;;
esac
"""


#: The environment of each version.
VENVS = {"one": "a", "two": "b", "three": "b"}


def load(name):
    spec = importlib.util.spec_from_file_location(name, DEPLOY / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class Host:
    """A folder that stands for /opt/ddnn, with versions that share environments."""

    def __init__(self, folder):
        self.root, self.state = folder / "opt", folder / "state"
        for path in (self.root / "versions", self.root / "venvs", self.state, folder / "bin"):
            path.mkdir(parents=True)
        for name in ("broken", "dying", "calls"):
            (self.state / name).touch()
        for name, text in (("systemctl", SYSTEMCTL), ("journalctl", "#!/bin/sh\necho $1\n")):
            program = folder / "bin" / name
            program.write_text(text)
            program.chmod(program.stat().st_mode | stat.S_IXUSR)
        self.path = f"{folder / 'bin'}:{os.environ['PATH']}"

    def put(self, version):
        """What a deployment does before it switches."""
        folder = self.root / "versions" / version
        venv = self.root / "venvs" / VENVS[version]
        venv.mkdir(exist_ok=True)
        if not folder.exists():
            folder.mkdir()
            (folder / "venv").symlink_to(f"../../venvs/{venv.name}")

    def switch(self, version, *services):
        if version in VENVS:
            self.put(version)
        return subprocess.run(
            ["sh", str(DEPLOY / "switch"), version, *(services or ("ddnn@device.service",))],
            env={
                "PATH": self.path, "ROOT": str(self.root), "STATE": str(self.state),
                "UP_S": "1", "WELL_S": "0.1",
            },
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )  # fmt: skip

    @property
    def current(self):
        return os.readlink(self.root / "current")

    def entries(self, folder):
        return sorted(os.listdir(self.root / folder))


@pytest.fixture
def host(tmp_path):
    return Host(tmp_path)


def test_first_version_is_switched_on_and_enabled(host):
    result = host.switch("one")
    assert result.returncode == 0, result.stderr
    assert host.current == "versions/one"
    assert "enable --quiet ddnn@device.service" in (host.state / "calls").read_text()


def test_version_before_is_kept_and_older_ones_go_with_their_environments(host):
    for version in ("one", "two", "three"):
        assert host.switch(version).returncode == 0
    assert host.current == "versions/three"
    assert host.entries("versions") == ["three", "two"]
    assert host.entries("venvs") == ["b"]


@pytest.mark.parametrize("fault", ["broken", "dying"])
def test_version_that_is_not_well_is_taken_back(host, fault):
    host.switch("one")
    (host.state / fault).write_text("two\n")
    result = host.switch("two")
    assert result.returncode == 1
    assert host.current == "versions/one"
    assert (host.state / "running").read_text() == "one\n", "the old one was started again"
    assert "going back to one" in result.stderr
    assert "one is running again" in result.stderr
    assert "--unit=ddnn@device.service" in result.stderr, "its last words are shown"


def test_first_version_that_is_not_well_is_stopped(host):
    (host.state / "broken").write_text("one\n")
    result = host.switch("one")
    assert result.returncode == 1
    assert "no version to go back to" in result.stderr
    assert "stop ddnn@device.service" in (host.state / "calls").read_text()


def test_one_of_two_services_that_fails_takes_both_back(host):
    services = ("ddnn@device.service", "ddnn@gateway.service")
    host.switch("one", *services)
    (host.state / "broken").write_text("two\n")
    assert host.switch("two", *services).returncode == 1
    assert (host.state / "calls").read_text().count("restart ddnn@gateway.service") == 3


def test_version_that_is_not_there_changes_nothing(host):
    host.switch("one")
    assert host.switch("none").returncode == 2
    assert host.current == "versions/one"


def test_switching_to_the_current_version_again_keeps_the_one_before(host):
    for version in ("one", "two", "two"):
        assert host.switch(version).returncode == 0
    assert (host.root / "previous").read_text() == "one\n"


# -- hosts -------------------------------------------------------------------------------------


def test_hosts_are_read_as_ssh_writes_them():
    assert load("inventory").parse("cam0 pi@cam1 pi@10.0.0.7:2222 root@[fe80::1]:22") == [
        ("cam0", {"ssh_hostname": "cam0"}),
        ("pi@cam1", {"ssh_hostname": "cam1", "ssh_user": "pi"}),
        ("pi@10.0.0.7:2222", {"ssh_hostname": "10.0.0.7", "ssh_user": "pi", "ssh_port": 2222}),
        ("root@[fe80::1]:22", {"ssh_hostname": "fe80::1", "ssh_user": "root", "ssh_port": 22}),
    ]


@pytest.mark.parametrize("text", ["pi@", "@cam", "cam:x", "cam;reboot", "a b@c@d"])
def test_host_that_is_none_is_refused(text):
    with pytest.raises(ValueError, match="user@host"):
        load("inventory").parse(text)


@pytest.mark.parametrize(
    ("variables", "said"), [({}, "name the hosts"), ({"HOSTS": "a", "ROLE": "cook"}, "ROLE=cook")]
)
def test_deploying_without_hosts_or_to_no_role_says_so(variables, said):
    result = subprocess.run(
        [str(ROOT / "scripts" / "deploy"), "deploy"],
        env={"PATH": os.environ["PATH"]} | variables,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert result.returncode == 2
    assert said in result.stderr


# -- wheels ------------------------------------------------------------------------------------


def test_identity_follows_names_and_contents(tmp_path):
    wheels = load("wheels")
    (tmp_path / "a-1.whl").write_bytes(b"a")
    settings = tmp_path / "device.toml"
    settings.write_text("camera = 0")
    first = wheels.identity(tmp_path, settings)
    assert wheels.identity(tmp_path, settings) == first
    settings.write_text("camera = 1")
    second = wheels.identity(tmp_path, settings)
    (tmp_path / "b-1.whl").write_bytes(b"")
    third = wheels.identity(tmp_path, settings)
    assert len({first, second, third}) == 3


def test_32_bit_host_is_refused_before_anything_is_fetched(tmp_path):
    wheels = load("wheels")
    with pytest.raises(wheels.DeployError, match="64-bit"):
        wheels.collect(tmp_path / "x.whl", "device", "armv7l", "3.11", tmp_path)


# -- units -------------------------------------------------------------------------------------


@pytest.fixture(params=["device", "gateway"])
def unit(request, tmp_path):
    """A service's unit with its drop-in as one file: what systemd makes of them."""
    text = (DEPLOY / "ddnn@.service").read_text()
    if request.param == "device":
        text += (DEPLOY / "ddnn@device.service.d" / "camera.conf").read_text()
    path = tmp_path / f"ddnn@{request.param}.service"
    path.write_text(text.replace("/opt/ddnn/current/venv/bin/ddnn", shutil.which("true")))
    return path


def analyze(*args):
    if shutil.which("systemd-analyze") is None:
        pytest.skip("no systemd-analyze on this machine")
    command = ["systemd-analyze", *map(str, args)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def test_unit_exposes_little(unit):
    result = analyze("security", "--offline=true", "--threshold=30", unit)
    assert result.returncode == 0, result.stdout[-300:]


def test_unit_is_understood_without_a_warning(unit):
    result = analyze("verify", "--man=no", unit)
    about_us = [line for line in result.stderr.splitlines() if unit.name in line]
    assert result.returncode == 0
    assert about_us == []
