"""What goes to which host: nodes, their files, and what systemd is told of them.

A node comes from a site's folder (`SITE=yard`: settings, certificate and key are in
`nodes/<identity>`, `site.toml` says where it goes) or from a folder of settings (`SETTINGS=site`
with `HOSTS` and `ROLE`). Either way it becomes the same on its host. Nothing here asks a host.
"""

from __future__ import annotations

import io
import json
import re
import tarfile
import typing
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from broker.plan import read_plan
from ddnn.bundle import BundleError
from ddnn.config import NodeSettings, convert, nearest, read_toml
from ddnn.errors import DdnnError
from ddnn.store import MANIFEST, read_folder

TARGET = "/opt/ddnn"
#: What a role needs of ddnn, and the settings that its command takes.
EXTRAS = {"device": "device", "gateway": "edge", "cloud": "cloud"}
#: What any service imports in its life, but for pictures and films.
IMPORTS = (
    "numpy, ddnn.section, ddnn.mqtt, ddnn.models, ddnn.node, "
    "device_agent.cli, edge_gateway.cli, cloud_service.cli"
)
#: Sources that PyAV decodes.
VIDEO = ("v4l2", "rtsp", "rtsps", "file")
_HERE = Path(__file__).resolve().parent


class DeployError(Exception):
    """What stands in the way, in words."""


class Node(NamedTuple):
    """One service on one host.

    Attributes:
        service: its name there, for example `gateway-0`; its unit is `ddnn@gateway-0.service`.
        role: the command that it runs.
        settings: its settings on the workstation; the files that they name lie beside them.
    """

    service: str
    role: str
    settings: Path


class Entry(NamedTuple):
    """A file of a version, as it will be on the host.

    Attributes:
        name: below the version's folder.
        mode: permissions.
        group: its owner is root; `ddnn` is the services'.
    """

    name: str
    data: bytes
    mode: int = 0o644
    group: str = "root"


# -- which nodes there are -------------------------------------------------------------------------


def place(environment: Mapping[str, str]) -> dict[str, list[Node]]:
    """Hosts, as ssh names them, and what shall run on each.

    Args:
        environment: SITE, or SETTINGS and ROLE (one or more); HOSTS.

    Raises:
        DeployError: it does not say so, or contradicts itself.
    """
    hosts = environment.get("HOSTS", "").split()
    site = environment.get("SITE", "")
    if site:
        return _place_site(Path(site), hosts)
    roles = environment.get("ROLE", "").split() or ["device"]
    for role in roles:
        if role not in EXTRAS:
            raise DeployError(f"ROLE={role} is none of {', '.join(EXTRAS)}")
    folder = Path(environment.get("SETTINGS") or "site")
    if not hosts:
        raise DeployError(
            'name the hosts: make deploy HOSTS="pi@cam0 pi@cam1", or a site: make deploy SITE=yard'
        )
    return {host: [_of_settings(folder, host, role) for role in roles] for host in hosts}


def _place_site(folder: Path, hosts: list[str]) -> dict[str, list[Node]]:
    try:
        plan = read_plan(folder)
    except DdnnError as error:
        raise DeployError(str(error)) from error
    said = dict(plan.hosts)
    if any("=" in host for host in hosts):
        if not all("=" in host for host in hosts):
            raise DeployError("HOSTS names either hosts, or nodes and their hosts: gateway=pi@gw")
        said = dict(host.split("=", 1) for host in hosts)
    elif hosts:
        unknown = [host for host in hosts if host not in said.values()]
        if unknown:
            raise DeployError(
                f"no node of {folder / 'site.toml'} is on {unknown[0]}: [hosts] must say which"
            )
        said = {name: host for name, host in said.items() if host in hosts}
    if not said:
        raise DeployError(
            f"say in {folder / 'site.toml'} where the nodes go: [hosts], with lines such as "
            'device-0 = "pi@cam0"'
        )
    found: dict[str, list[Node]] = {}
    for name, host in said.items():
        if name not in plan.services:
            raise DeployError(
                f"{name!r} is none of this site's nodes{nearest(name, list(plan.services))}"
            )
        identity = plan.services[name]
        role = "cloud" if name in plan.workers else name.partition("-")[0]
        # Of edge gateways several may be on one host, and beside the site's own.
        service = name if role == "gateway" else role
        node = Node(service, role, folder / "nodes" / str(identity) / f"{role}.toml")
        if any(other.service == service for other in found.get(host, ())):
            raise DeployError(f"two nodes on {host} would be the service {service}: {name} is one")
        if not node.settings.is_file():
            raise DeployError(f"there is no {node.settings}: ddnn site build {folder}")
        found.setdefault(host, []).append(node)
    return found


def _of_settings(folder: Path, host: str, role: str) -> Node:
    address = re.sub(r"^[^@]*@|:\d+$", "", host)
    names = (f"{address}.toml", f"{role}.toml")
    for file in (folder / name for name in names):
        if file.is_file():
            return Node(role, role, file)
    raise DeployError(f"no settings for {host}: neither of {', '.join(names)} is in {folder}/")


# -- what each of them is --------------------------------------------------------------------------


def settings_type(role: str) -> type[msgspec.Struct]:
    """What a role's settings file is checked against."""
    if role == "device":
        from device_agent.service import DeviceSettings

        return DeviceSettings
    if role == "gateway":
        from edge_gateway.service import GatewaySettings

        return GatewaySettings
    from cloud_service.service import CloudSettings

    return CloudSettings


def extras(nodes: Iterable[Node]) -> str:
    """Which extras of ddnn a host with these nodes needs, with commas."""
    found = {EXTRAS[node.role] for node in nodes}
    found |= {"device-video" for node in nodes if _source(node) in VIDEO}
    return ",".join(sorted(found))


def packages(nodes: Iterable[Node]) -> list[str]:
    """Debian packages that they need."""
    is_pi_camera = any(_source(node) == "picamera2" for node in nodes)
    return ["python3-venv", *(["python3-picamera2"] if is_pi_camera else [])]


def _source(node: Node) -> str:
    if node.role != "device":
        return ""
    return str(_values(node).get("source", "")).partition(":")[0]


def _values(node: Node) -> dict[str, Any]:
    """Settings of a node, found to be such as its command takes.

    Raises:
        DeployError: they are not.
    """
    kind = settings_type(node.role)
    try:
        values = read_toml(node.settings)
        convert(values, kind, str(node.settings))
    except DdnnError as error:
        raise DeployError(str(error)) from error
    return values


def entries(
    nodes: Iterable[Node], version: str, trusted: Path | None, bundle: Path | None
) -> Iterator[Entry]:
    """Every file of a host's version.

    Args:
        version: its name, which is part of some settings.
        trusted: file of trusted keys for nodes whose settings name none.
        bundle: folder of the factory bundle.

    Raises:
        DeployError: something is missing or wrong.
    """
    nodes = list(nodes)
    folder = f"{TARGET}/versions/{version}"
    yield Entry("services", "".join(f"{node.service}\n" for node in nodes).encode())
    for name in ("switch", "check"):
        yield Entry(name, (_HERE / name).read_bytes(), 0o755)
    unit = "ddnn@.service"
    yield Entry(f"units/{unit}", (_HERE / unit).read_bytes())
    for node in nodes:
        drop_ins = f"units/ddnn@{node.service}.service.d"
        if node.role == "device":
            yield Entry(f"{drop_ins}/camera.conf", (_HERE / "camera.conf").read_bytes())
        own = list(_own(node, folder, trusted, bundle))
        yield from own
        yield Entry(f"{drop_ins}/node.conf", drop_in(node, [entry.name for entry in own]).encode())
    if trusted is not None:
        yield Entry("trusted.json", trusted.read_bytes())
    if bundle is not None:
        yield from _bundle(bundle)


def _own(node: Node, folder: str, trusted: Path | None, bundle: Path | None) -> Iterator[Entry]:
    """A node's settings and the files that they name."""
    values = _values(node)
    more = {"store": f"/var/lib/ddnn/{node.service}"}
    if trusted is not None:
        more["trusted_keys"] = f"{folder}/trusted.json"
    if bundle is not None and node.role != "cloud":
        more["factory_bundle"] = f"{folder}/bundle"
    lines = [f"{name} = {json.dumps(text)}\n" for name, text in more.items() if name not in values]
    text = "".join(lines) + node.settings.read_text()
    home = f"nodes/{node.service}"
    yield Entry(f"{home}/{node.role}.toml", text.encode(), 0o640, "ddnn")
    for key in _file_settings():
        name = values.get(key, "")
        if not name or ":" in name or name.startswith("/"):
            continue
        path = node.settings.parent / name
        if Path(name).name != name or not path.is_file():
            raise DeployError(f"{node.settings}: {key} = {name!r} is no file beside it")
        yield Entry(f"{home}/{name}", path.read_bytes(), 0o600 if key == "tls_key" else 0o644)


def _file_settings() -> list[str]:
    """Names of the settings of every node that name files."""
    hints = typing.get_type_hints(NodeSettings, include_extras=True)
    return [
        name
        for name, hint in hints.items()
        if any((getattr(part, "extra", None) or {}).get("file") for part in typing.get_args(hint))
    ]


def drop_in(node: Node, names: Iterable[str]) -> str:
    """What makes `ddnn@.service` this node's: its command, and its files as credentials."""
    lines = [
        "# root reads these files and hands them to the service alone: nobody else on the machine,",
        "# not even another service, can read the key. They are read at its start.",
        "[Service]",
        "ExecStart=",
        f"ExecStart={TARGET}/current/venv/bin/ddnn {node.role} --config %d/{node.role}.toml",
    ]
    for name in names:
        _, _, rest = name.partition("/")
        lines.append(f"LoadCredential={Path(rest).name}:/etc/ddnn/{rest}")
    return "\n".join(lines) + "\n"


def _bundle(folder: Path) -> Iterator[Entry]:
    try:
        read_folder(folder)
    except BundleError as error:
        raise DeployError(str(error)) from error
    sections = sorted((folder / "sections").glob("*.onnx"))
    for path in [folder / MANIFEST, *sorted(folder.glob("signatures.json")), *sections]:
        yield Entry(f"bundle/{path.relative_to(folder)}", path.read_bytes())


def pack(entries: Iterable[Entry], links: Mapping[str, str]) -> bytes:
    """A tar of a version: the same bytes for the same files."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as tar:
        folders: set[str] = set()
        for entry in entries:
            for parent in reversed(Path(entry.name).parents[:-1]):
                if str(parent) not in folders:
                    folders.add(str(parent))
                    tar.addfile(_header(str(parent), tarfile.DIRTYPE, 0o755))
            header = _header(entry.name, tarfile.REGTYPE, entry.mode, entry.group)
            header.size = len(entry.data)
            tar.addfile(header, io.BytesIO(entry.data))
        for name, target in links.items():
            header = _header(name, tarfile.SYMTYPE, 0o777)
            header.linkname = target
            tar.addfile(header)
    return out.getvalue()


def _header(name: str, kind: bytes, mode: int, group: str = "root") -> tarfile.TarInfo:
    header = tarfile.TarInfo(name)
    header.type, header.mode = kind, mode
    header.uname, header.gname = "root", group
    return header
