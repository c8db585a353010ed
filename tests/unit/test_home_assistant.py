"""What Home Assistant is told of a site, when, and what it makes of the site's messages."""

import json

import msgspec
import pytest

from ddnn import access, decisions, status, topics
from ddnn.config import convert
from ddnn.errors import ConfigError
from ddnn.home_assistant import discovery, removal
from edge_gateway.home_assistant import HomeAssistant
from edge_gateway.service import GatewaySettings
from tests.arm64.bundles import random_bundle
from tests.home_assistant_schema import SCHEMA, problems, rendered
from tests.unit.test_schemas import DECISION, NOBODY

CLASSES = ("car", "bus", "person")
PREFIX, VERSION = "homeassistant", "1.2.3"
TOPIC = "homeassistant/device/ddnn_s1/config"


@pytest.fixture(scope="module")
def manifests():
    """With three cameras, with two, and with two edges."""
    three = random_bundle(3, (14, 18, 3), (4,), ((0, 1, 2),), (6,), (8,), "CC").manifest
    two = random_bundle(3, (14, 18, 3), (4,), ((0, 1),), (6,), (8,), "CC").manifest
    edges = random_bundle(3, (14, 18, 3), (4,), ((0, 2), (1,)), (6,), (8,), "CC").manifest
    return {"three": three, "two": two, "edges": edges}


def told(manifest, **options):
    message = discovery("s1", manifest, PREFIX, VERSION, **options)
    return message, json.loads(message.payload)


@pytest.mark.parametrize("name", ["three", "two", "edges"])
def test_device_is_what_home_assistant_documents(manifests, name):
    message, payload = told(manifests[name])
    assert (message.topic, message.qos, message.retain) == (TOPIC, 1, True)
    assert problems(message.payload) == []
    ids = [component["unique_id"] for component in payload["components"].values()]
    assert len(set(ids)) == len(ids)
    assert all(one.startswith("ddnn_s1_") for one in ids)


def test_unique_ids_of_two_sites_differ(manifests):
    def ids(site):
        payload = json.loads(discovery(site, manifests["three"], PREFIX, VERSION).payload)
        return {component["unique_id"] for component in payload["components"].values()}

    assert not ids("s1") & ids("s2")


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (lambda payload: payload.pop("origin"), "origin"),
        (lambda payload: payload["device"].pop("identifiers"), "device"),
        (lambda payload: payload["components"]["decision"].pop("unique_id"), "decision"),
        (lambda payload: payload["components"]["decision"].pop("options"), "decision"),
        (lambda payload: payload["components"]["bundle"].update(stat_class="x"), "bundle"),
        (lambda payload: payload["components"]["gateway"].update(device_class="door"), "gateway"),
        (lambda payload: payload["components"]["entropy"].update(options=["a"]), "entropy"),
        (lambda payload: payload.update(object_id="x"), "object_id"),
    ],
)
def test_schema_notices_what_home_assistant_would_refuse(manifests, change, problem):
    _, payload = told(manifests["three"])
    change(payload)
    assert problem in "".join(problems(json.dumps(payload)))


def test_schema_is_one():
    from jsonschema import Draft202012Validator

    Draft202012Validator.check_schema(SCHEMA)


def test_every_camera_and_edge_gateway_has_its_connection(manifests):
    _, payload = told(manifests["edges"])
    nodes = {
        name: component["state_topic"].rpartition("/")[2]
        for name, component in payload["components"].items()
        if component.get("device_class") == "connectivity"
    }
    assert nodes == {
        "gateway": "gateway",
        "gateway_0": "gateway-0",
        "gateway_1": "gateway-1",
        "camera_0": "device-0",
        "camera_1": "device-1",
        "camera_2": "device-2",
    }


def test_home_assistant_may_read_every_topic_that_it_is_told_of(manifests):
    _, payload = told(manifests["edges"])
    may = access.home_assistant("s1", PREFIX)
    named = {
        component[key]
        for component in payload["components"].values()
        for key in ("state_topic", "json_attributes_topic")
        if key in component
    }
    named |= {one["topic"] for one in payload["availability"]}
    for topic in (*named, TOPIC):
        assert any(topics.matches(allowed, topic) for allowed in may.reads), topic


# -- what it makes of the site's messages --------------------------------------------------------


def decision_of(decision):
    return decisions.encode(decisions.describe(decision, "s1", CLASSES, 0.1))


def state(manifests, component, payload):
    _, said = told(manifests["three"])
    return rendered(said["components"][component]["value_template"], payload)


def test_decision_is_one_of_the_options_with_what_seldom_changes_beside_it(manifests):
    _, said = told(manifests["three"])
    entity, payload = said["components"]["decision"], decision_of(DECISION)
    assert rendered(entity["value_template"], payload) == "bus"
    assert tuple(entity["options"]) == manifests["three"].classes
    attributes = json.loads(rendered(entity["json_attributes_template"], payload))
    assert attributes == {
        "exit": "local",
        "degraded": None,
        "used": [0, 2],
        "absent": [1],
        "missing": [],
    }
    assert float(state(manifests, "probability", payload)) == 0.9
    assert float(state(manifests, "entropy", payload)) == 0.2


@pytest.mark.parametrize("component", ["decision", "probability", "entropy"])
def test_where_nobody_sees_anything_the_state_is_unknown(manifests, component):
    assert state(manifests, component, decision_of(NOBODY)) == "None"


def test_degraded_decision_is_a_problem(manifests):
    degraded = msgspec.structs.replace(DECISION, degraded="cloud_down")
    assert state(manifests, "degraded", decision_of(degraded)) == "ON"
    assert state(manifests, "degraded", decision_of(DECISION)) == "OFF"


def test_gateway_status_says_whether_it_is_there_what_it_runs_and_what_is_wrong(manifests):
    well = status.encode(status.Status(node="gateway", state="online", boot=1, version=7))
    ill = status.encode(
        status.Status(node="gateway", state="online", boot=1, notes={"drift": "it's worse"})
    )
    gone = status.encode(status.Status(node="gateway", state="offline", boot=1))
    _, said = told(manifests["three"])
    (available,) = said["availability"]
    assert rendered(available["value_template"], well) == available["payload_available"]
    assert rendered(available["value_template"], gone) == available["payload_not_available"]
    assert [state(manifests, "gateway", one) for one in (well, ill, gone)] == ["ON", "ON", "OFF"]
    assert [state(manifests, "attention", one) for one in (well, ill)] == ["OFF", "ON"]
    assert [state(manifests, "bundle", one) for one in (well, ill)] == ["7", "None"]
    attributes = said["components"]["attention"]["json_attributes_template"]
    assert json.loads(rendered(attributes, well)) == {}
    assert json.loads(rendered(attributes, ill)) == {"drift": "it's worse"}


def test_camera_is_connected_as_its_status_says(manifests):
    for said, expected in (("online", "ON"), ("offline", "OFF")):
        payload = status.encode(status.Status(node="device-1", state=said, boot=1))
        assert state(manifests, "camera_1", payload) == expected


# -- when ----------------------------------------------------------------------------------------


def announcer(folder=None, prefix=PREFIX):
    return HomeAssistant("s1", prefix, VERSION, folder)


def test_site_is_announced_on_each_connect_change_of_bundle_and_birth(manifests):
    one = announcer()
    assert one.birth_topic == "homeassistant/status"
    assert one.on_connected() == one.on_birth(b"online") == []  # no bundle yet
    (first,) = one.on_bundle(manifests["three"])
    assert first == discovery("s1", manifests["three"], PREFIX, VERSION)
    assert one.on_connected() == one.on_birth(b"online") == [first]
    assert one.on_birth(b"offline") == one.on_birth(b"") == []


def test_site_that_is_not_to_be_announced_says_nothing(manifests):
    one = announcer(prefix="")
    assert one.birth_topic is None
    assert one.on_bundle(manifests["three"]) == one.on_connected() == []
    assert one.on_birth(b"online") == []


def test_cameras_that_a_new_bundle_has_no_more_are_taken_away_first(manifests, tmp_path):
    announcer(tmp_path).on_bundle(manifests["three"])
    parting, now = announcer(tmp_path).on_bundle(manifests["two"])  # after a restart
    said = json.loads(parting.payload)["components"]
    assert said["camera_2"] == {"platform": "binary_sensor"}
    assert problems(parting.payload) == problems(now.payload) == []
    assert "camera_2" not in json.loads(now.payload)["components"]
    assert announcer(tmp_path).on_bundle(manifests["two"]) == [now]


@pytest.mark.parametrize("prefix", ["", "other"])
def test_what_was_announced_is_cleared_once_it_is_off_or_elsewhere(manifests, tmp_path, prefix):
    announcer(tmp_path).on_bundle(manifests["three"])
    later = announcer(tmp_path, prefix)
    first = later.on_connected()
    assert first == [removal(TOPIC)]
    assert (first[0].payload, first[0].retain, first[0].keep) == (b"", True, True)
    assert later.on_connected() == []
    assert announcer(tmp_path, prefix).on_connected() == []
    assert len(later.on_bundle(manifests["three"])) == bool(prefix)


@pytest.mark.parametrize("data", [b"", b"{", b'{"topic": 3}', b"\xff"])
def test_damaged_memory_of_what_was_announced_is_no_obstacle(manifests, tmp_path, data):
    (tmp_path / "s1.home-assistant.json").write_bytes(data)
    assert len(announcer(tmp_path).on_bundle(manifests["three"])) == 1


def test_folder_that_cannot_be_written_is_no_obstacle(manifests, tmp_path):
    (tmp_path / "file").write_bytes(b"")
    assert len(announcer(tmp_path / "file" / "store").on_bundle(manifests["three"])) == 1


@pytest.mark.parametrize("prefix", ["ddnn", "s1", "a/b", "+", "", "#"])
def test_prefix_that_could_be_mistaken_is_refused(prefix):
    values = {"site": "s1", "home_assistant": True, "home_assistant_prefix": prefix}
    with pytest.raises(ConfigError):
        convert(values, GatewaySettings)
