"""The files for Kubernetes, by Kubernetes' own schemas; and that their options are ours."""

import copy
import tomllib
from pathlib import Path

import kubernetes_validate
import pytest
import yaml

from cloud_service.service import CloudSettings
from ddnn.config import convert
from edge_gateway.service import GatewaySettings

FOLDER = Path(__file__).resolve().parents[2] / "deploy" / "kubernetes"
VERSIONS = ("1.29", "1.33")
DOCUMENTS = [
    pytest.param(document, id=f"{path.stem}-{document['kind']}")
    for path in sorted(FOLDER.glob("*.yaml"))
    for document in yaml.safe_load_all(path.read_text())
]
SETTINGS = {"cloud": CloudSettings, "gateway": GatewaySettings}
CONTAINERS = [
    container
    for parameter in DOCUMENTS
    if parameter.values[0]["kind"] == "StatefulSet"
    for container in parameter.values[0]["spec"]["template"]["spec"]["containers"]
]


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("document", DOCUMENTS)
def test_file_is_what_kubernetes_takes(document, version):
    kubernetes_validate.validate(document, version, strict=True)


@pytest.mark.parametrize("document", DOCUMENTS)
def test_field_that_kubernetes_does_not_know_is_found(document):
    """The test above can fail."""
    wrong = copy.deepcopy(document)
    wrong["metadata"]["lables"] = {}
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(wrong, VERSIONS[-1], strict=True)


@pytest.mark.parametrize("container", CONTAINERS, ids=lambda each: each["name"])
def test_options_are_those_of_the_command(container):
    command, *options = container["args"]
    values = dict(option.removeprefix("--").split("=", 1) for option in options)
    values.pop("config", None)
    text = {name.replace("-", "_"): value for name, value in values.items()}
    convert({name: value.replace("$(POD_NAME)", "cloud-0") for name, value in text.items()},
            SETTINGS[command])  # fmt: skip


def test_settings_in_the_map_are_those_of_the_command():
    (table,) = [
        parameter.values[0]["data"]["cloud.toml"]
        for parameter in DOCUMENTS
        if parameter.values[0]["kind"] == "ConfigMap"
    ]
    convert(tomllib.loads(table), CloudSettings)


@pytest.mark.parametrize("container", CONTAINERS, ids=lambda each: each["name"])
def test_every_file_that_a_container_names_is_mounted(container):
    mounts = [mount["mountPath"] for mount in container["volumeMounts"]]
    for option in container["args"][1:]:
        value = option.split("=", 1)[1]
        assert not value.startswith("/") or any(value.startswith(mount) for mount in mounts), option
