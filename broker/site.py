"""A site's folder: everything that follows from `site.toml`, made and kept up to date.

    site.toml            the topology: the one file to edit
    ca/                  the certificate authority; stays with the owner, off the network
    broker/              for the broker's machine: mosquitto.conf, acl, certificates
    nodes/<identity>/    for that node alone: its certificate, its key, its settings

`build` may be run at any time: it makes what is missing, renews what is about to expire, and
leaves the rest alone.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Iterable
from datetime import datetime
from pathlib import Path
from typing import NamedTuple

from broker import production
from broker.pki import NODE_DAYS, Authority, Kind, PkiError, Record, write_private
from broker.plan import PLAN_FILE, Plan, place_of, read_plan
from ddnn.access import CLOUD, RECORDING, SHOWING, Identity
from ddnn.errors import ConfigError

_PLAN = """\
# One site. After a change: ddnn site build {folder}
{topology}
[broker]
# Names and addresses by which nodes call it; the first one stands in their settings.
names = {names}
port = {port}
# Address it listens on; empty: all.
bind = {bind}
# Second listener for browsers; 0: none.
websockets_port = {websockets_port}
# Where the folder `broker` will lie on its machine; empty: it stays here.
folder = {place}
# Where retained messages are kept; empty: in `data` of that folder.
data = {data}
# User that it runs as when root starts it; must own that folder.
user = {user}
{upstream}"""


class Change(NamedTuple):
    """Something that `build` did, or left for a person to do."""

    what: str
    needs_attention: bool = False


def init(folder: Path, plan: Plan) -> None:
    """Write a new site's plan.

    Raises:
        ConfigError: there is one already.
    """
    if (folder / PLAN_FILE).exists():
        raise ConfigError(f"{folder / PLAN_FILE} is there already: edit it, then ddnn site build")
    write_private(folder / PLAN_FILE, render_plan(plan, folder).encode())
    # Keys must not end in a repository by accident.
    write_private(folder / ".gitignore", b"*\n")
    folder.chmod(0o700)


def render_plan(plan: Plan, folder: Path) -> str:
    """`site.toml` as a person edits it."""
    lines = []
    if plan.site:
        lines += [f"site = {json.dumps(plan.site)}", f"period_s = {plan.period_s}"]
        lines += [f"cameras = {list(plan.cameras)}"]
        lines += ["# Edge gateways, for a bundle of several edges.", f"edges = {plan.edges}"]
        lines += [
            "# Whether the gateway may write models, to give a broker back what it has forgotten;",
            "# else the publisher alone may. Nodes take signed models only, if they have keys.",
            f"gateway_republishes = {str(plan.gateway_republishes).lower()}",
            "# Prefix of Home Assistant's discovery, mostly homeassistant; empty: it is not told.",
            f"home_assistant = {json.dumps(plan.home_assistant)}",
        ]
    lines += ["# Cloud workers that connect to this broker.", f"workers = {_names(plan.workers)}"]
    lines += ["# Whether `ddnn dashboard` connects to it (nodes/_cloud.dashboard)."]
    lines += [f"dashboard = {str(plan.dashboard).lower()}"]
    if plan.bridged_sites:
        lines += ["# Sites whose own brokers are bridged to this one."]
        lines += [f"bridged_sites = {_names(plan.bridged_sites)}"]
    upstream = ""
    if plan.upstream:
        upstream = (
            "\n# The cloud broker. Its owner gives the folder nodes/"
            f"{plan.site}.bridge, which becomes broker/bridge.\n"
            f"[upstream]\nhost = {json.dumps(plan.upstream.host)}\nport = {plan.upstream.port}\n"
        )
    return _PLAN.format(
        folder=folder,
        topology="\n".join(lines) + "\n",
        names=_names(plan.broker.names),
        port=plan.broker.port,
        bind=json.dumps(plan.broker.bind),
        websockets_port=plan.broker.websockets_port,
        place=json.dumps(plan.broker.folder),
        data=json.dumps(plan.broker.data),
        user=json.dumps(plan.broker.user),
        upstream=upstream,
    )


def _names(names: Iterable[str]) -> str:
    return json.dumps(list(names))


def broker_folder(folder: Path, plan: Plan) -> str:
    """Where the broker finds its files on its machine."""
    return plan.broker.folder or str((folder / "broker").resolve())


def open_authority(folder: Path, plan: Plan, now: datetime, password: bytes | None) -> Authority:
    """The site's authority, made if the site is new.

    Raises:
        PkiError: it cannot be read, or is kept somewhere else.
    """
    if (folder / "ca" / "ca.key").exists():
        return Authority(folder / "ca", password)
    if (folder / "broker" / "ca.crt").exists():
        raise PkiError(
            f"the authority of this site is not in {folder / 'ca'}: bring it back for this; a new "
            "one would shut every node out (remove broker/ca.crt if that is what you want)"
        )
    return Authority.create(folder / "ca", f"ddnn {plan.name}", now, password=password)


def build(
    folder: Path, now: datetime, *, password: bytes | None = None, days: int = NODE_DAYS
) -> list[Change]:
    """Make what follows from the plan.

    Raises:
        DdnnError: the plan or the authority is wrong, or a file cannot be written.
    """
    plan = read_plan(folder)
    authority = open_authority(folder, plan, now, password)
    records = authority.records()
    changes: list[Change] = []
    rights = plan.identities()
    wanted: dict[Identity, tuple[Kind, Path, str]] = {
        plan.broker_identity: ("broker", folder / "broker", "broker")
    }
    for each in rights:
        if each != plan.browser:
            name, stem = place_of(each)
            wanted[each] = "node", folder / "nodes" / name, stem

    blocked = set()
    for identity, (kind, place, stem) in wanted.items():
        newest = _newest(records, identity)
        if newest is not None and newest.revoked:
            blocked.add(identity)
            changes.append(
                Change(
                    f"{identity} is revoked and shut out; to let it in again: "
                    f"ddnn pki issue {identity} --ca {folder / 'ca'} --out {place}",
                    needs_attention=True,
                )
            )
            continue
        hosts = plan.broker.names if kind == "broker" else ()
        why = _why_issue(newest, place / f"{stem}.crt", hosts, now)
        if why:
            issued = authority.issue(str(identity), now, kind=kind, hosts=hosts, days=days)
            write_private(place / f"{stem}.key", issued.key)
            write_private(place / f"{stem}.crt", issued.certificate)
            changes.append(Change(f"certificate for {identity} ({why})"))
        _write(place / "ca.crt", (authority.folder / "ca.crt").read_bytes(), changes, folder)
        if stem == "node":
            _settings(place, identity, plan, changes, folder)

    broker = folder / "broker"
    allowed = {each: may for each, may in rights.items() if each not in blocked}
    place_there = broker_folder(folder, plan)
    (broker / "data").mkdir(parents=True, exist_ok=True)
    broker.chmod(0o700)
    for name, data in (
        ("crl.pem", (authority.folder / "crl.pem").read_bytes()),
        ("acl", production.render_acl(allowed).encode()),
        ("mosquitto.conf", production.render_config(plan, place_there).encode()),
    ):
        _write(broker / name, data, changes, folder)
    if plan.browser:
        _passwords(folder, plan.browser, changes)
    changes += _leftovers(records, wanted)
    return changes


def _newest(records: list[Record], identity: Identity) -> Record | None:
    own = [record for record in records if record.identity == str(identity)]
    return max(own, key=lambda record: (not record.revoked, record.not_after), default=None)


def _why_issue(
    newest: Record | None, path: Path, hosts: tuple[str, ...], now: datetime
) -> str | None:
    if newest is None:
        return "new"
    if not path.exists():
        return "its file is gone"
    state = newest.state(now)
    if state != "valid":
        return f"the last one is {state}"
    return "other names" if set(hosts) != set(newest.hosts) else None


def _write(path: Path, data: bytes, changes: list[Change], folder: Path) -> None:
    if path.exists() and path.read_bytes() == data:
        return
    write_private(path, data)
    if path.name != "ca.crt":
        changes.append(Change(f"{path.relative_to(folder)} written"))


def node_settings(identity: Identity, plan: Plan) -> tuple[str, dict[str, object]]:
    """Name of a node's settings file and what follows from the plan."""
    values: dict[str, object] = {"broker": plan.broker.names[0], "port": plan.broker.port}
    values |= {"tls_ca": "ca.crt", "tls_cert": "node.crt", "tls_key": "node.key"}
    if identity == Identity(CLOUD, SHOWING):
        own = {"records_cert": f"{RECORDING}.crt", "records_key": f"{RECORDING}.key"}
        return "dashboard.toml", values | own
    if identity.site == CLOUD:
        return "cloud.toml", values | {"worker": identity.node}
    values["site"] = identity.site
    if identity.camera is not None:
        return "device.toml", values | {"period_s": plan.period_s, "camera": identity.camera}
    if identity.edge is not None:
        return "gateway.toml", values | {"period_s": plan.period_s, "edge": identity.edge}
    if identity.node == "gateway":
        values |= {"period_s": plan.period_s}
        if plan.home_assistant:
            values |= {"home_assistant": True, "home_assistant_prefix": plan.home_assistant}
        return "gateway.toml", values
    return ("publish.toml" if identity.node == "publisher" else "client.toml"), values


def _settings(
    place: Path, identity: Identity, plan: Plan, changes: list[Change], folder: Path
) -> None:
    """Written once: a person adds to it. `ddnn site check` says when it has fallen behind."""
    name, values = node_settings(identity, plan)
    if identity.node == "bridge" or (place / name).exists():
        return
    lines = [f"# {identity}: copy this folder to that node alone."]
    lines += [f"{key} = {json.dumps(value)}" for key, value in values.items()]
    write_private(place / name, ("\n".join(lines) + "\n").encode())
    changes.append(Change(f"{(place / name).relative_to(folder)} written"))


def _passwords(folder: Path, user: Identity, changes: list[Change]) -> None:
    """A random password, made once: `password` for the person, its hash for the broker.

    To have another one, delete the first and build again.
    """
    own, hashed = folder / "nodes" / str(user) / "password", folder / "broker" / "passwords"
    if own.is_file() and hashed.is_file():
        return
    password = secrets.token_urlsafe(18)
    write_private(own, f"{password}\n".encode())
    line = production.render_password(user, password, secrets.token_bytes(12))
    write_private(hashed, line.encode())
    changes.append(Change(f"{own.relative_to(folder)} written"))


def _leftovers(records: list[Record], wanted: Iterable[Identity]) -> list[Change]:
    """Valid certificates of nodes that the plan has no more."""
    names = {str(identity) for identity in wanted}
    gone = {r.identity for r in records if r.identity not in names and not r.revoked}
    return [
        Change(f"{name} is not in the plan any more: ddnn pki revoke {name}", needs_attention=True)
        for name in sorted(gone)
    ]
