"""Deploying without a host: the switch with a make-believe systemctl, hosts, files, units."""

import io
import os
import shutil
import stat
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

from broker import site
from broker.pki import now_utc
from broker.plan import BrokerPlan, Plan
from ddnn.store import write_folder
from tests.bundles import random_bundle

ROOT = Path(__file__).resolve().parents[2]
DEPLOY = ROOT / "deploy"
sys.path.insert(0, str(DEPLOY))
import inventory  # noqa: E402 no package: pyinfra runs these files
import nodes  # noqa: E402
import wheels  # noqa: E402

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

    def put(self, version, services):
        """What a deployment does before it switches."""
        folder = self.root / "versions" / version
        venv = self.root / "venvs" / VENVS[version]
        venv.mkdir(exist_ok=True)
        if not folder.exists():
            folder.mkdir()
            (folder / "services").write_text("".join(f"{name}\n" for name in services))
            (folder / "venv").symlink_to(f"../../venvs/{venv.name}")

    def switch(self, version, *services):
        if version in VENVS:
            self.put(version, services or ("device",))
        return subprocess.run(
            ["sh", str(DEPLOY / "switch"), version],
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
    services = ("device", "gateway")
    host.switch("one", *services)
    (host.state / "broken").write_text("two\n")
    assert host.switch("two", *services).returncode == 1
    assert (host.state / "calls").read_text().count("restart ddnn@gateway.service") == 3


def test_service_that_the_version_before_does_not_have_is_stopped_on_the_way_back(host):
    host.switch("one", "device")
    (host.state / "broken").write_text("two\n")
    assert host.switch("two", "device", "gateway-0").returncode == 1
    calls = (host.state / "calls").read_text()
    assert "disable --now --quiet ddnn@gateway-0.service" in calls
    assert "disable --now --quiet ddnn@device.service" not in calls


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
    assert inventory.parse(["cam0", "pi@cam1", "pi@10.0.0.7:2222", "root@[fe80::1]:22"]) == [
        ("cam0", {"ssh_hostname": "cam0"}),
        ("pi@cam1", {"ssh_hostname": "cam1", "ssh_user": "pi"}),
        ("pi@10.0.0.7:2222", {"ssh_hostname": "10.0.0.7", "ssh_user": "pi", "ssh_port": 2222}),
        ("root@[fe80::1]:22", {"ssh_hostname": "fe80::1", "ssh_user": "root", "ssh_port": 22}),
    ]


@pytest.mark.parametrize("text", ["pi@", "@cam", "cam:x", "cam;reboot", "a b@c@d"])
def test_host_that_is_none_is_refused(text):
    with pytest.raises(ValueError, match="user@host"):
        inventory.parse(text.split())


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


# -- what goes where ------------------------------------------------------------------------------

PLAN = Plan(
    site="s1", cameras=(0, 1), edges=2, workers=("cloud-0",), broker=BrokerPlan(names=("broker",)),
    hosts={"device-0": "pi@cam0", "gateway": "pi@gw", "gateway-1": "pi@gw", "cloud-0": "server"},
)  # fmt: skip


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("made") / "yard"
    site.init(folder, PLAN)
    site.build(folder, now_utc())
    camera = folder / "nodes" / "s1.device-0" / "device.toml"
    camera.write_text(camera.read_text() + 'source = "picamera2:0"\n')
    (folder / "trusted.json").write_text('{"keys": []}')
    return folder


def placed(made, hosts=""):
    return nodes.place({"SITE": str(made), "HOSTS": hosts})


def files(made, host, bundle=None):
    """name -> tar header and contents of what goes to a host."""
    packed = nodes.pack(
        nodes.entries(placed(made)[host], "v1", made / "trusted.json", bundle), {"venv": "../x"}
    )
    with tarfile.open(fileobj=io.BytesIO(packed)) as tar:
        return {
            member.name: (member, tar.extractfile(member).read() if member.isfile() else b"")
            for member in tar
        }


def test_every_node_goes_to_the_host_that_the_site_names(made):
    found = {host: [n.service for n in each] for host, each in placed(made).items()}
    assert found == {"pi@cam0": ["device"], "pi@gw": ["gateway-1", "gateway"], "server": ["cloud"]}


def test_hosts_limit_a_site_or_place_its_nodes_elsewhere(made):
    assert list(placed(made, "pi@gw")) == ["pi@gw"]
    found = placed(made, "device-1=root@cam1:2222 gateway-0=edge")
    assert {host: each[0].service for host, each in found.items()} == {
        "root@cam1:2222": "device",
        "edge": "gateway-0",
    }


@pytest.mark.parametrize(
    ("hosts", "said"),
    [
        ("pi@cam9", "no node of"),
        ("device-7=pi@cam0", "did you mean"),
        ("device-0=pi@cam0 pi@gw", "either hosts, or nodes"),
        ("device-0=pi@cam0 device-1=pi@cam0", "two nodes on pi@cam0"),
    ],
)
def test_hosts_that_do_not_fit_the_site_are_refused(made, hosts, said):
    with pytest.raises(nodes.DeployError, match=said):
        placed(made, hosts)


def test_site_that_names_no_host_says_where_to(made, tmp_path):
    (tmp_path / "site.toml").write_text('site = "s1"\ncameras = [0]\n[broker]\nnames = ["b"]\n')
    with pytest.raises(nodes.DeployError, match=r"\[hosts\]"):
        nodes.place({"SITE": str(tmp_path)})


def test_several_roles_share_a_host_without_a_site(tmp_path):
    (tmp_path / "device.toml").write_text("")
    (tmp_path / "gw.toml").write_text("")
    found = nodes.place({"SETTINGS": str(tmp_path), "HOSTS": "pi@gw:22", "ROLE": "device gateway"})
    names = [(node.service, node.settings.name) for node in found["pi@gw:22"]]
    assert names == [("device", "gw.toml"), ("gateway", "gw.toml")]


def test_key_is_roots_alone_and_settings_are_the_services(made):
    found = files(made, "pi@cam0")
    modes = {
        name.removeprefix("nodes/device/"): (header.mode, header.uname, header.gname)
        for name, (header, _) in found.items()
        if name.startswith("nodes/device/")
    }
    assert modes == {
        "device.toml": (0o640, "root", "ddnn"),
        "ca.crt": (0o644, "root", "root"),
        "node.crt": (0o644, "root", "root"),
        "node.key": (0o600, "root", "root"),
    }


def test_service_gets_every_file_of_its_node_as_a_credential(made):
    for host, service, role in (("pi@gw", "gateway-1", "gateway"), ("server", "cloud", "cloud")):
        found = files(made, host)
        unit = found[f"units/ddnn@{service}.service.d/node.conf"][1].decode()
        handed = dict(
            line.removeprefix("LoadCredential=").split(":")
            for line in unit.splitlines()
            if line.startswith("LoadCredential=")
        )
        own = {Path(n).name for n in found if n.startswith(f"nodes/{service}/")}
        assert handed == {name: f"/etc/ddnn/{service}/{name}" for name in own}
        assert {f"{role}.toml", "ca.crt", "node.crt", "node.key"} == own
        assert f"ddnn {role} --config %d/{role}.toml" in unit


def test_settings_shipped_are_valid_and_say_where_trust_store_and_factory_bundle_are(
    made, tmp_path
):
    write_folder(tmp_path / "bundle", random_bundle())
    found = files(made, "pi@cam0", tmp_path / "bundle")
    text = found["nodes/device/device.toml"][1].decode()
    assert 'trusted_keys = "/opt/ddnn/versions/v1/trusted.json"\n' in text
    assert 'factory_bundle = "/opt/ddnn/versions/v1/bundle"\n' in text
    assert 'store = "/var/lib/ddnn/device"\n' in text
    assert 'source = "picamera2:0"\n' in text
    assert "bundle/manifest.json" in found
    assert (
        "factory_bundle"
        not in files(made, "server", tmp_path / "bundle")["nodes/cloud/cloud.toml"][1].decode()
    )
    assert nodes.packages(placed(made)["pi@cam0"]) == ["python3-venv", "python3-picamera2"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('camera = 0\nsource = "folder:/srv"\nbrokr = "b"\n', "did you mean 'broker'"),
        ("camera = 0\n", "source"),
        ('camera = 0\nsource = "folder:/srv"\ntls_ca = "gone.crt"\n', "no file beside it"),
        ('camera = 0\nsource = "folder:/srv"\ntls_ca = "../ca.crt"\n', "no file beside it"),
    ],
)
def test_settings_that_no_agent_would_take_are_refused_before_anything_is_shipped(
    tmp_path, text, said
):
    (tmp_path / "ca.crt").write_text("")
    folder = tmp_path / "settings"
    folder.mkdir()
    (folder / "device.toml").write_text(text)
    found = nodes.place({"SETTINGS": str(folder), "HOSTS": "cam0"})["cam0"]
    with pytest.raises(nodes.DeployError, match=said):
        list(nodes.entries(found, "v1", None, None))


def test_damaged_factory_bundle_is_refused_before_anything_is_shipped(made, tmp_path):
    write_folder(tmp_path / "bundle", random_bundle())
    next((tmp_path / "bundle" / "sections").iterdir()).write_bytes(b"no section")
    with pytest.raises(nodes.DeployError):
        files(made, "pi@cam0", tmp_path / "bundle")


def test_usb_camera_brings_its_decoder(tmp_path):
    for source, extra in (("v4l2:/dev/video0", "device,device-video"), ("folder:/srv", "device")):
        (tmp_path / "device.toml").write_text(f'camera = 0\nsource = "{source}"\n')
        found = nodes.place({"SETTINGS": str(tmp_path), "HOSTS": "cam0"})["cam0"]
        assert nodes.extras(found) == extra


# -- wheels ------------------------------------------------------------------------------------


def test_identity_follows_names_and_contents(tmp_path):
    (tmp_path / "a-1.whl").write_bytes(b"a")
    first = wheels.identity(tmp_path, b"camera = 0")
    assert wheels.identity(tmp_path, b"camera = 0") == first
    second = wheels.identity(tmp_path, b"camera = 1")
    (tmp_path / "b-1.whl").write_bytes(b"")
    third = wheels.identity(tmp_path, b"camera = 1")
    assert len({first, second, third}) == 3


def test_32_bit_host_is_refused_before_anything_is_fetched(tmp_path):
    with pytest.raises(nodes.DeployError, match="64-bit"):
        wheels.collect(tmp_path / "x.whl", "device", "armv7l", "3.11", tmp_path)


# -- units -------------------------------------------------------------------------------------


@pytest.fixture(params=["pi@cam0", "pi@gw", "server"])
def unit(request, made, tmp_path):
    """A service's unit with its drop-ins as one file: what systemd makes of them."""
    found = files(made, request.param)
    service = found["services"][1].decode().split()[-1]
    text = found["units/ddnn@.service"][1].decode()
    for name in sorted(name for name in found if f"ddnn@{service}.service.d/" in name):
        text += found[name][1].decode()
    path = tmp_path / f"ddnn@{service}.service"
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
