"""What `site.toml` says of a site: its topology, its broker, and so its identities."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import msgspec

from ddnn import access, topics
from ddnn.access import CLOUD, Access, Identity
from ddnn.config import convert, read_toml
from ddnn.errors import ConfigError

PLAN_FILE = "site.toml"
_Port = Annotated[int, msgspec.Meta(ge=1, le=65535)]


class BrokerPlan(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The broker of a site.

    Attributes:
        names: host names and addresses by which nodes call it; the first one stands in their
            settings.
        port: of the listener with TLS.
        bind: address that it listens on; empty: all of the machine's.
        websockets_port: of a second listener for browsers; 0: none.
        folder: where the folder `broker` lies on the broker's machine; empty: where it was made.
        data: where it keeps retained messages; empty: `data` in its folder.
        user: that it runs as when root starts it.
    """

    names: Annotated[tuple[str, ...], msgspec.Meta(min_length=1)]
    port: _Port = 8883
    bind: str = ""
    websockets_port: Annotated[int, msgspec.Meta(ge=0, le=65535)] = 0
    folder: str = ""
    data: str = ""
    user: str = "mosquitto"


class Upstream(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The cloud broker that a site's broker is bridged to."""

    host: str
    port: _Port = 8883


class Plan(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`site.toml`.

    Attributes:
        site: name of the site; empty: a cloud broker, which has no cameras of its own.
        period_s: seconds per slot.
        cameras: numbers of its cameras.
        edges: how many edge gateways it has, below its own gateway; 0 but for a bundle of several
            edges.
        gateway_republishes: whether the gateway may write models, to give a broker back what it
            has forgotten; else the publisher alone may.
        home_assistant: prefix under which the gateway tells Home Assistant of the site, which then
            has an identity of its own, `home-assistant`; empty: neither.
        workers: cloud workers that connect to this broker.
        dashboard: whether `ddnn dashboard` does.
        bridged_sites: sites whose own brokers are bridged to this one.
        broker: this site's broker.
        upstream: the cloud broker that it is bridged to, if any.
    """

    broker: BrokerPlan
    site: str = ""
    period_s: Annotated[float, msgspec.Meta(ge=0.001, le=3600.0)] = 0.1
    cameras: tuple[Annotated[int, msgspec.Meta(ge=0, le=31)], ...] = ()
    edges: Annotated[int, msgspec.Meta(ge=0, le=32)] = 0
    gateway_republishes: bool = False
    home_assistant: Annotated[str, msgspec.Meta(pattern="^[A-Za-z0-9_-]{0,64}$")] = ""
    workers: tuple[str, ...] = ()
    dashboard: bool = False
    bridged_sites: tuple[str, ...] = ()
    upstream: Upstream | None = None

    def __post_init__(self) -> None:
        for name in (*self.bridged_sites, *([self.site] if self.site else [])):
            topics.check_name(name)
        for name in self.workers:
            topics.check_name(name, "worker")
            if name in (access.SHOWING, access.RECORDING):
                raise ConfigError(f"worker {name!r}: the dashboard is called that")
        for names in (self.cameras, self.workers, self.bridged_sites):
            if len(set(names)) != len(names):
                raise ConfigError(f"{list(names)} names one of them twice")
        if not self.site and not self.bridged_sites:
            raise ConfigError("a plan needs a site of its own, or bridged_sites for a cloud broker")
        if bool(self.site) != bool(self.cameras):
            raise ConfigError("a site needs cameras, and a cloud broker has none")
        if self.site in self.bridged_sites:
            raise ConfigError(f"site {self.site!r} cannot be bridged to its own broker")
        if self.broker.websockets_port and not self.site:
            raise ConfigError(
                "browsers connect to a site's broker: a cloud broker has no websockets"
            )
        if self.home_assistant:
            if not self.site:
                raise ConfigError("a cloud broker has no site that Home Assistant could be told of")
            topics.check_prefix(self.home_assistant, self.site)
        if self.upstream and not self.site:
            raise ConfigError("a cloud broker has no upstream")
        paths = (self.broker.folder, self.broker.data, self.broker.user, self.broker.bind)
        host = self.upstream.host if self.upstream else ""
        for text in (*paths, host):
            # mosquitto reads to the end of the line and knows no quotes.
            if any(ord(c) < 32 for c in text) or text != text.strip():
                raise ConfigError(f"{text!r} cannot stand in a mosquitto configuration")

    @property
    def name(self) -> str:
        """The site's, or `_cloud`."""
        return self.site or CLOUD

    @property
    def browser(self) -> Identity | None:
        """Who browsers are, if there is a listener for them: known by a password."""
        return Identity(self.name, "browser") if self.site and self.broker.websockets_port else None

    @property
    def broker_identity(self) -> Identity:
        """The common name of the broker's certificate; it is a server, no user."""
        return Identity(self.name, "broker")

    def identities(self) -> dict[Identity, Access]:
        """Every client of this broker, with what it may write and read."""
        found: list[Identity] = []
        if self.site:
            found += [Identity(self.site, f"device-{n}") for n in self.cameras]
            found += [Identity(self.site, f"gateway-{k}") for k in range(self.edges)]
            found += [Identity(self.site, node) for node in access.NODES]
        if self.home_assistant:
            found.append(Identity(self.site, access.HOME_ASSISTANT))
        found += [self.browser] if self.browser else []
        found += [Identity(CLOUD, worker) for worker in self.workers]
        if self.dashboard:
            found += [Identity(CLOUD, access.SHOWING), Identity(CLOUD, access.RECORDING)]
        for site in self.bridged_sites:
            found += [Identity(site, "bridge"), Identity(site, "dashboard")]
        served = (*([self.site] if self.site else []), *self.bridged_sites)
        return {
            identity: access.of(
                identity,
                served,
                edges=self.edges > 0,
                models=self.gateway_republishes,
                home_assistant_prefix=self.home_assistant,
            )
            for identity in found
        }


def place_of(identity: Identity) -> tuple[str, str]:
    """Folder below `nodes` of an identity's files, and the name of its certificate there.

    The dashboard's two identities belong to one process, so that they lie in one folder.
    """
    if identity == Identity(CLOUD, access.RECORDING):
        return str(Identity(CLOUD, access.SHOWING)), "records"
    return str(identity), "node"


def read_plan(folder: Path) -> Plan:
    """The plan in a site's folder.

    Raises:
        ConfigError: there is none, or it is wrong; an unknown key is named.
    """
    path = folder / PLAN_FILE
    if not path.is_file():
        raise ConfigError(f"{folder} is no site's folder: it has no {PLAN_FILE} (ddnn site init)")
    return convert(read_toml(path), Plan, str(path))
