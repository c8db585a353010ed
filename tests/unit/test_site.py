"""A site's folder: what follows from the plan, and what `ddnn site check` finds wrong with it."""

import json
import re
import shutil
import stat
from datetime import timedelta
from pathlib import Path

import msgspec
import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

from broker import lint, site
from broker.pki import Authority, PkiError, now_utc, read_record
from broker.plan import BrokerPlan, Plan, Upstream, read_plan
from broker.production import parse_acl, render_acl, render_config
from broker.site_cli import site_command
from cloud_service.dashboard import DashboardSettings
from ddnn import topics
from ddnn.access import Identity
from ddnn.config import convert, read_settings, read_toml
from ddnn.errors import ConfigError
from ddnn.tls import TlsFiles

NOW = now_utc()
#: Where the broker's folder will lie is said, so that copies of the site are alike.
BROKER = BrokerPlan(names=("broker.local", "192.168.1.10"), folder="/etc/mosquitto/ddnn")
PLAN = Plan(site="s1", cameras=(0, 1), workers=("cloud-0",), broker=BROKER)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("made") / "s1"
    site.init(folder, PLAN)
    site.build(folder, NOW)
    return folder


@pytest.fixture
def folder(made, tmp_path):
    return shutil.copytree(made, tmp_path / "s1")


def texts(folder, level="error"):
    return [finding.text for finding in lint.check(folder, NOW) if finding.level == level]


def test_fresh_site_has_nothing_wrong(folder):
    assert texts(folder) == texts(folder, "warning") == []


def test_plan_written_is_the_plan_read(folder):
    assert read_plan(folder) == PLAN


def test_every_private_file_is_for_its_owner_alone(made):
    for path in made.glob("**/*"):
        if path.is_file():
            assert stat.S_IMODE(path.stat().st_mode) & 0o077 == 0, path


def test_keys_cannot_end_in_a_repository(made):
    assert (made / ".gitignore").read_text() == "*\n"


def test_second_build_changes_nothing(made):
    before = {path: path.read_bytes() for path in made.glob("**/*") if path.is_file()}
    assert site.build(made, NOW) == []
    assert before == {path: path.read_bytes() for path in made.glob("**/*") if path.is_file()}


def test_build_renews_what_is_about_to_end_and_keeps_added_settings(folder):
    settings = folder / "nodes" / "s1.device-0" / "device.toml"
    settings.write_text(settings.read_text() + 'source = "replay:x.npz"\n')
    before = (folder / "nodes/s1.device-0/node.crt").read_bytes()
    site.build(folder, NOW + timedelta(days=340))
    assert (folder / "nodes/s1.device-0/node.crt").read_bytes() != before
    assert "replay:x.npz" in settings.read_text()


def test_new_camera_in_the_plan_gets_a_certificate_and_rights(folder):
    plan = folder / "site.toml"
    plan.write_text(plan.read_text().replace("cameras = [0, 1]", "cameras = [0, 1, 7]"))
    site.build(folder, NOW)
    assert (folder / "nodes/s1.device-7/node.key").is_file()
    assert "user s1.device-7\n" in (folder / "broker/acl").read_text()


def test_camera_taken_from_the_plan_loses_its_rights_and_is_named(folder):
    plan = folder / "site.toml"
    plan.write_text(plan.read_text().replace("cameras = [0, 1]", "cameras = [0]"))
    changes = site.build(folder, NOW)
    assert "user s1.device-1\n" not in (folder / "broker/acl").read_text()
    assert any("s1.device-1" in c.what and "revoke" in c.what for c in changes)


def test_other_name_of_the_broker_gives_it_a_new_certificate(folder):
    plan = folder / "site.toml"
    plan.write_text(plan.read_text().replace("192.168.1.10", "192.168.1.11"))
    assert "the broker's certificate lacks the name 192.168.1.11" in texts(folder)
    changes = site.build(folder, NOW)
    assert any("other names" in change.what for change in changes)
    site.build(folder, NOW)


def test_revoked_node_loses_its_rights_at_once_and_gets_no_new_certificate_by_itself(folder):
    Authority(folder / "ca").revoke("s1.device-0", NOW)
    assert "broker/crl.pem is not the authority's: ddnn site build" in texts(folder)
    changes = site.build(folder, NOW)
    assert any("s1.device-0 is revoked" in c.what and c.needs_attention for c in changes)
    assert "user s1.device-0\n" not in (folder / "broker/acl").read_text()
    issued = Authority(folder / "ca").issue("s1.device-0", NOW)
    assert issued.key
    site.build(folder, NOW)
    assert "user s1.device-0\n" in (folder / "broker/acl").read_text()


def test_authority_that_is_kept_elsewhere_is_never_replaced(folder):
    shutil.move(folder / "ca", folder.parent / "safe")
    assert lint.check(folder, NOW) == []
    with pytest.raises(PkiError, match="bring it back"):
        site.build(folder, NOW)
    assert not (folder / "ca").exists()


def edit(path, old, new):
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))


ACL_FAULTS = {
    "device_reads_everything": ("topic read s1/q/0", "topic read #"),
    "device_writes_all_frames": ("topic write s1/s/0", "topic write s1/s/+"),
    "device_writes_models": ("topic read ddnn/s1/model/manifest", "topic ddnn/s1/model/manifest"),
    "device_writes_settings": ("topic write s1/s/0", "topic write ddnn/s1/settings"),
}


@pytest.mark.parametrize(("old", "new"), ACL_FAULTS.values(), ids=ACL_FAULTS)
def test_access_list_that_is_too_wide(folder, old, new):
    edit(folder / "broker/acl", old, new)
    assert any("too wide: s1.device-0" in text for text in texts(folder))


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("topic read #\n", "everybody"),
        ("pattern write ddnn/%u/x\n", "everybody"),
        ("user stranger\ntopic read s1/a\n", "stranger is not in site.toml"),
        ("nonsense\n", "line 1"),
    ],
)
def test_access_list_with_a_line_that_is_not_of_the_site(folder, line, said):
    path = folder / "broker/acl"
    path.write_text(line + path.read_text())
    assert any(said in text for text in texts(folder))


def test_access_list_that_lacks_a_line_is_a_warning(folder):
    edit(folder / "broker/acl", "topic write s1/s/0\n", "")
    assert any("cannot write s1/s/0" in text for text in texts(folder, "warning"))


CONFIG_FAULTS = {
    "anonymous": ("allow_anonymous false", "allow_anonymous true", "everybody"),
    "no_certificate": ("require_certificate true", "require_certificate false", "require_cert"),
    "unknown_key": ("set_tcp_nodelay true", "set_tcp_nodelay true\nno_such_key 1", "no_such_key"),
    "plain_listener": ("sys_interval", "listener 1883\nsys_interval", "listener 1883"),
    "old_tls": ("tls_version tlsv1.2", "tls_version tlsv1.1", "tlsv1.1"),
    "no_list_of_revoked": ("crlfile", "#crlfile", "lacks 'crlfile"),
}


@pytest.mark.parametrize(("old", "new", "said"), CONFIG_FAULTS.values(), ids=CONFIG_FAULTS)
def test_broker_configuration_that_was_opened(folder, old, new, said):
    edit(folder / "broker/mosquitto.conf", old, new)
    assert any(said in text for text in texts(folder))


@pytest.mark.parametrize("key", ["ca/ca.key", "broker/broker.key", "nodes/s1.gateway/node.key"])
def test_private_key_that_others_may_read(folder, key):
    (folder / key).chmod(0o644)
    assert any(text.startswith(f"{key} has mode 0644") for text in texts(folder))


@pytest.mark.parametrize(
    ("days", "level", "said"),
    [(340, "warning", "expires in"), (366, "error", "has expired"), (-1, "error", "not valid yet")],
)
def test_certificate_at_another_time(folder, days, level, said):
    found = lint.check(folder, NOW + timedelta(days=days))
    assert any(f.level == level and said in f.text and "node.crt" in f.text for f in found)


def test_certificate_of_another_node(folder):
    for name in ("node.crt", "node.key"):
        shutil.copy(folder / "nodes/s1.device-0" / name, folder / "nodes/s1.gateway" / name)
    assert any("is s1.device-0's, not s1.gateway's" in text for text in texts(folder))


def test_key_that_does_not_fit(folder):
    shutil.copy(folder / "nodes/s1.device-0/node.key", folder / "nodes/s1.gateway/node.key")
    assert any("belongs to another certificate" in text for text in texts(folder))


def test_node_settings_that_fell_behind(folder):
    edit(folder / "nodes/s1.gateway/gateway.toml", "port = 8883", "port = 8884")
    assert any("s1.gateway/gateway.toml: port" in text for text in texts(folder, "warning"))


def test_unknown_key_in_the_plan_names_the_nearest(folder):
    edit(folder / "site.toml", "period_s", "perid_s")
    (finding,) = lint.check(folder, NOW)
    assert "did you mean 'period_s'" in finding.text


@pytest.mark.parametrize(
    "changes",
    [
        {"site": "a/b"},
        {"cameras": [0, 0]},
        {"cameras": []},
        {"cameras": [32]},
        {"workers": ["#"]},
        {"bridged_sites": ["s1"]},
        {"broker": {"names": []}},
        {"broker": {"names": ["b"], "folder": "/x\nallow_anonymous true"}},
        {"broker": {"names": ["b"], "user": "root\n"}},
        {"upstream": {"host": "h\naddress evil"}},
        {"home_assistant": "#"},
        {"home_assistant": "s1"},
        {"home_assistant": "ddnn"},
        {"site": "", "cameras": [], "bridged_sites": ["s2"], "home_assistant": "homeassistant"},
    ],
)
def test_plan_that_cannot_be_is_refused(changes):
    values = {"site": "s1", "cameras": [0], "broker": {"names": ["b"]}}
    with pytest.raises(ConfigError):
        convert(values | changes, Plan)


def test_home_assistant_has_an_identity_and_the_gateway_one_topic_where_the_plan_says_so(folder):
    edit(folder / "site.toml", 'home_assistant = ""', 'home_assistant = "homeassistant"')
    site.build(folder, NOW)
    assert texts(folder) == []
    assert all("gateway.toml: home_assistant" in one for one in texts(folder, "warning"))
    assert len(texts(folder, "warning")) == 2  # its settings are its owner's to change
    rights = read_plan(folder).identities()
    found = {
        str(identity): [topic for topic in may.writes if topic.startswith("homeassistant/")]
        for identity, may in rights.items()
    }
    assert {name: topics_ for name, topics_ in found.items() if topics_} == {
        "s1.gateway": ["homeassistant/device/ddnn_s1/config"],
        "s1.home-assistant": ["homeassistant/status"],
    }
    assert (folder / "nodes/s1.home-assistant/node.crt").exists()
    edit(folder / "site.toml", 'home_assistant = "homeassistant"', 'home_assistant = ""')
    (change,) = [change for change in site.build(folder, NOW) if change.needs_attention]
    assert "s1.home-assistant is not in the plan any more" in change.what
    assert "homeassistant" not in (folder / "broker" / "acl").read_text()


def test_new_site_with_home_assistant_tells_its_gateway(tmp_path):
    folder = tmp_path / "s1"
    site.init(folder, msgspec.structs.replace(PLAN, home_assistant="home"))
    site.build(folder, NOW)
    settings = read_toml(folder / "nodes" / "s1.gateway" / "gateway.toml")
    assert (settings["home_assistant"], settings["home_assistant_prefix"]) == (True, "home")


def test_unit_file_hands_over_what_a_nodes_folder_holds(made):
    """systemd puts these files into one folder, under the names that the settings use."""
    deploy = Path(__file__).resolve().parents[2] / "deploy"
    unit = (deploy / "ddnn@.service.d" / "credentials.conf").read_text()
    handed = dict(re.findall(r"^LoadCredential=(\S+):/etc/ddnn/%i/(\S+)$", unit, re.MULTILINE))
    assert all(name == source for name, source in handed.items())
    assert "--config %d/%i.toml" in unit
    for node, service in (("s1.device-0", "device"), ("s1.gateway", "gateway")):
        files = {path.name for path in (made / "nodes" / node).iterdir()}
        assert {name.replace("%i", service) for name in handed} == files


def test_settings_of_each_node_are_those_of_its_command(made):
    from cloud_service.service import CloudSettings
    from device_agent.service import DeviceSettings
    from edge_gateway.service import GatewaySettings
    from training.publish import PublishSettings

    for node, name, kind in (
        ("s1.device-0", "device.toml", DeviceSettings),
        ("s1.gateway", "gateway.toml", GatewaySettings),
        ("_cloud.cloud-0", "cloud.toml", CloudSettings),
        ("s1.publisher", "publish.toml", PublishSettings),
    ):
        values = read_toml(made / "nodes" / node / name)
        extra = {"source": "replay:x.npz"} if kind is DeviceSettings else {}
        assert convert(values | extra, kind).tls is not None


@settings(max_examples=30)
@given(
    cameras=st.lists(st.integers(0, 31), min_size=1, unique=True),
    workers=st.lists(st.from_regex(r"[a-z][a-z0-9-]{0,10}", fullmatch=True), unique=True),
)
def test_access_list_reads_back_as_the_rights_it_was_made_from(cameras, workers):
    plan = Plan(site="s1", cameras=tuple(cameras), workers=tuple(workers), broker=BROKER)
    rights = plan.identities()
    expected = {
        str(identity): {("write", t) for t in may.writes} | {("read", t) for t in may.reads}
        for identity, may in rights.items()
    }
    assert parse_acl(render_acl(rights)) == expected


@given(camera=st.integers(0, 31), other=st.integers(0, 31))
def test_no_camera_may_touch_what_is_anothers(camera, other):
    plan = Plan(site="s1", cameras=tuple(range(32)), broker=BROKER)
    may = {i.camera: m for i, m in plan.identities().items()}[camera]
    for topic in (topics.summary("s1", other), topics.features("s1", other)):
        assert any(topics.matches(f, topic) for f in may.writes) == (camera == other)
        assert not any(topics.matches(f, topic) for f in may.reads)
    assert any(topics.matches(f, topics.request("s1", other)) for f in may.reads) == (
        camera == other
    )


def test_dashboard_gets_one_folder_with_two_identities(tmp_path):
    folder = tmp_path / "s"
    plan = Plan(site="s1", cameras=(0,), broker=BROKER, dashboard=True)
    site.init(folder, plan)
    site.build(folder, NOW)
    place = folder / "nodes" / "_cloud.dashboard"
    made = {path.name for path in place.iterdir()}
    assert made == {
        "ca.crt", "node.crt", "node.key", "records.crt", "records.key", "dashboard.toml"
    }  # fmt: skip
    assert read_record(place / "records.crt").identity == "_cloud.records"
    values = read_settings(place / "dashboard.toml", DashboardSettings)
    own = convert(values, DashboardSettings)
    recording = TlsFiles(place / "ca.crt", place / "records.crt", place / "records.key")
    assert own.records_tls == recording
    assert own.host == "127.0.0.1"
    assert lint.check(folder, NOW) == []
    assert site.build(folder, NOW) == [], "nothing is left to do"
    rights = plan.identities()
    shows, records = (rights[Identity("_cloud", name)] for name in ("dashboard", "records"))
    assert shows.writes == ("ddnn/s1/settings", "ddnn/_cloud/check/dashboard")
    assert records.writes == ("ddnn/s1/recall", "ddnn/_cloud/check/records")
    assert not any("/f/" in topic or "/x" in topic for topic in (*shows.reads, *records.reads))


@pytest.mark.parametrize("name", ["dashboard", "records"])
def test_worker_with_the_name_of_the_dashboard_is_refused(name):
    with pytest.raises(ConfigError, match="dashboard"):
        Plan(site="s1", cameras=(0,), broker=BROKER, workers=(name,))


def test_listener_for_browsers_asks_for_a_password_and_gives_no_way_around_the_other_one(tmp_path):
    broker = BrokerPlan(names=("b",), websockets_port=9443)
    site.init(tmp_path / "s", Plan(site="s1", cameras=(0,), broker=broker))
    site.build(tmp_path / "s", NOW)
    assert site.build(tmp_path / "s", NOW) == []
    assert lint.check(tmp_path / "s", NOW) == []
    config = (tmp_path / "s/broker/mosquitto.conf").read_text()
    before, first, second = config.split("\nlistener ")
    assert "\nallow_anonymous false" in before
    for setting in ("require_certificate true", "use_identity_as_username true"):
        assert f"\n{setting}" in first
    assert "\npassword_file" in second
    for listener in (first, second):
        assert "\nuse_username_as_clientid true" in listener
        assert "\ntls_version tlsv1.2" in listener
    password = (tmp_path / "s/nodes/s1.browser/password").read_text().strip()
    hashed = (tmp_path / "s/broker/passwords").read_text()
    assert hashed.startswith("s1.browser:$7$")
    assert password not in hashed
    assert not (tmp_path / "s/nodes/s1.browser/node.key").exists()


def test_bridge_takes_no_frames_along():
    plan = Plan(site="s1", cameras=(0,), broker=BROKER, upstream=Upstream(host="cloud.example"))
    lines = [line for line in render_config(plan, "/b").splitlines() if line.startswith("topic ")]
    assert "topic s1/x out 1" in lines
    assert "topic s1/a in 1" in lines
    assert not any("/s/" in line or "/f/" in line or "#" in line for line in lines)


def run(*args, **options):
    return CliRunner().invoke(site_command, [str(arg) for arg in args], **options)


def test_init_asks_for_what_is_not_given(tmp_path):
    result = run("init", tmp_path / "s", input="yard\n2\nbroker.local 10.0.0.2\n")
    assert result.exit_code == 0, result.output
    plan = read_plan(tmp_path / "s")
    assert (plan.site, plan.cameras) == ("yard", (0, 1))
    assert plan.broker.names == ("broker.local", "10.0.0.2")


def test_init_leaves_a_site_that_is_there_alone(folder):
    before = (folder / "site.toml").read_bytes()
    result = run("init", folder, "--site", "other", "--cameras", 1, "--host", "b")
    assert result.exit_code != 0
    assert (folder / "site.toml").read_bytes() == before


def test_check_ends_with_1_and_json_says_the_same(folder):
    assert run("check", folder).exit_code == 0
    (folder / "ca/ca.key").chmod(0o644)
    result = run("check", folder, "--json")
    assert result.exit_code == 1
    assert [f["level"] for f in json.loads(result.output)] == ["error"]
