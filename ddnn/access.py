"""Who may write and read what.

The one table behind the broker's access control list, the bridge to a cloud broker and
`ddnn doctor`. A node is known by its identity, which is the common name of its certificate:
`<site>.<node>`, or `_cloud.<worker>` for a cloud worker, who belongs to no site.

A new topic comes here as one line for each kind of node that writes or reads it; a test compares
this table with what real nodes send and subscribe to, and with every function in `ddnn.topics`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import NamedTuple

from ddnn import topics
from ddnn.errors import ConfigError

#: The "site" of those who belong to none; no site's name can begin with an underscore.
CLOUD = "_cloud"
_DEVICE = re.compile(r"device-(\d{1,4})")
_EDGE = re.compile(r"gateway-(\d{1,4})")
#: Node name of a Home Assistant that connects to a site's broker.
HOME_ASSISTANT = "home-assistant"
#: Nodes of every site beside its devices.
NODES = ("gateway", "publisher", "operator", "dashboard")
#: The process `ddnn dashboard` has two connections: one that shows, one that records. A broker lets
#: nobody in twice at once, and the one that records need not be able to change settings.
SHOWING, RECORDING = "dashboard", "records"


class Identity(NamedTuple):
    """A certificate's common name.

    Attributes:
        site: or `_cloud`.
        node: `device-3`, `gateway`, `gateway-1` of an edge, `publisher`, `operator`, `dashboard`,
            `home-assistant`, `browser`, `bridge`, `broker`, or a worker's name; of `_cloud` also
            `dashboard` and `records`, of all sites.
    """

    site: str
    node: str

    def __str__(self) -> str:
        return f"{self.site}.{self.node}"

    @property
    def camera(self) -> int | None:
        """A device's number."""
        found = _DEVICE.fullmatch(self.node)
        return int(found[1]) if found and self.site != CLOUD else None

    @property
    def edge(self) -> int | None:
        """An edge gateway's number."""
        found = _EDGE.fullmatch(self.node)
        return int(found[1]) if found and self.site != CLOUD else None


def parse(text: str) -> Identity:
    """A common name -> identity.

    Raises:
        ConfigError: it is none.
    """
    site, dot, node = text.partition(".")
    if not dot:
        raise ConfigError(f"identity {text!r} must be SITE.NODE, for example s1.device-3")
    if site != CLOUD:
        topics.check_name(site)
    return Identity(site, topics.check_name(node, "node"))


class Access(NamedTuple):
    """Topic filters that an identity may write to, and those that it may read from."""

    writes: tuple[str, ...]
    reads: tuple[str, ...]


def _models(site: str) -> tuple[str, ...]:
    """What a node reads to get its bundle."""
    return topics.manifest(site), topics.section_filter(site), topics.active(site)


def device(site: str, camera: int) -> Access:
    """A camera: its own frames and status; its requests, the models."""
    node = f"device-{camera}"
    return Access(
        writes=(
            topics.summary(site, camera),
            topics.features(site, camera),
            topics.status(site, node),
            topics.check(site, node),
        ),
        reads=(
            topics.request(site, camera),
            *_models(site),
            topics.replay(site),
            topics.check(site, node),
        ),
    )


def edge_gateway(site: str, edge: int) -> Access:
    """One of several edges: its cameras are the bundle's business, its own reports are its own."""
    node = f"gateway-{edge}"
    return Access(
        writes=(
            topics.request_filter(site),
            topics.edge_summary(site, edge),
            topics.edge_features(site, edge),
            topics.edge_ledger(site, edge),
            topics.status(site, node),
            topics.check(site, node),
        ),
        reads=(
            topics.summary_filter(site),
            topics.features_filter(site),
            topics.edge_request(site, edge),
            topics.status_filter(site),
            *_models(site),
            topics.check(site, node),
        ),
    )


def gateway(
    site: str, *, edges: bool = False, models: bool = False, home_assistant: str = ""
) -> Access:
    """The authority of its site; yet it writes no frame or setting, and says which model runs.

    Args:
        edges: whether edge gateways are below it beside cameras.
        models: whether it may publish models again that its broker has forgotten.
        home_assistant: prefix under which it may tell Home Assistant of the site; empty: none.
    """
    below = (topics.edge_summary_filter(site), topics.edge_features_filter(site))
    return Access(
        writes=(
            topics.request_filter(site),
            *((topics.edge_request_filter(site),) if edges else ()),
            topics.escalation(site),
            topics.decision(site),
            topics.audit(site),
            topics.audit_estimate(site),
            topics.ledger(site),
            topics.active(site),
            *((topics.manifest(site), topics.section_filter(site)) if models else ()),
            topics.status(site, "gateway"),
            topics.check(site, "gateway"),
            *((topics.discovery(home_assistant, site),) if home_assistant else ()),
        ),
        reads=(
            topics.summary_filter(site),
            topics.features_filter(site),
            *(below if edges else ()),
            topics.answer(site),
            topics.status_filter(site),
            topics.worker_status_filter(),
            topics.settings(site),
            topics.recall(site),
            *_models(site),
            topics.check(site, "gateway"),
            *((topics.home_assistant_status(home_assistant),) if home_assistant else ()),
        ),
    )


def home_assistant(site: str, prefix: str) -> Access:
    """Home Assistant: it reads what the site's entities are made of, and any device's discovery."""
    return Access(
        writes=(topics.home_assistant_status(prefix), topics.check(site, HOME_ASSISTANT)),
        reads=(
            *topics.discovery_filters(prefix),
            topics.home_assistant_status(prefix),
            topics.decision(site),
            topics.status_filter(site),
            topics.check(site, HOME_ASSISTANT),
        ),
    )


def worker(name: str, sites: Iterable[str]) -> Access:
    """A cloud worker: answers to the sites it serves, and its status."""
    sites = tuple(sites)
    own = (topics.worker_status(name), topics.check(CLOUD, name))
    return Access(
        writes=(*map(topics.answer, sites), *own),
        reads=(
            *map(topics.escalation, sites),
            *(topic for site in sites for topic in _models(site)),
            topics.check(CLOUD, name),
        ),
    )


def publisher(site: str) -> Access:
    """Who alone writes models, and sees what the nodes say of them."""
    return Access(
        writes=(
            topics.manifest(site),
            topics.section_filter(site),
            topics.check(site, "publisher"),
        ),
        reads=(
            *_models(site),
            topics.status_filter(site),
            topics.worker_status_filter(),
            topics.check(site, "publisher"),
        ),
    )


def _consumer(site: str) -> tuple[str, ...]:
    return (
        topics.decision(site),
        topics.audit(site),
        topics.audit_estimate(site),
        topics.ledger(site),
        topics.edge_ledger_filter(site),
        topics.status_filter(site),
        topics.worker_status_filter(),
        topics.manifest(site),
        topics.active(site),
    )


def dashboard(site: str) -> Access:
    """A consumer of decisions: it may ask for past ones and nothing else."""
    check = topics.check(site, "dashboard")
    return Access(writes=(topics.recall(site), check), reads=(*_consumer(site), check))


def showing(sites: Iterable[str]) -> Access:
    """The dashboard of all sites: it sees what people see and cameras' scores; sets thresholds.

    Scores are a few numbers per camera and slot, no picture; features it may not read.
    """
    sites = tuple(sites)
    check = topics.check(CLOUD, SHOWING)
    reads: list[str] = []
    for site in sites:
        # Each audit by itself is not shown, only what they estimate.
        reads += [topic for topic in _consumer(site) if topic != topics.audit(site)]
        reads += [topics.settings(site), topics.summary_filter(site)]
    writes = (*map(topics.settings, sites), check)
    return Access(writes=writes, reads=(*dict.fromkeys(reads), check))


def recording(sites: Iterable[str]) -> Access:
    """The dashboard's recorder: it may ask for past decisions and nothing else."""
    sites = tuple(sites)
    check = topics.check(CLOUD, RECORDING)
    reads = [
        topic
        for site in sites
        for topic in (topics.decision(site), topics.ledger(site), topics.status(site, "gateway"))
    ]
    return Access(writes=(*map(topics.recall, sites), check), reads=(*reads, check))


def browser(site: str) -> Access:
    """A dashboard in a browser, known by a password and not by a certificate."""
    check = topics.check(site, "browser")
    return Access(writes=(topics.recall(site), check), reads=(*_consumer(site), check))


def operator(site: str) -> Access:
    """A person who sets thresholds and starts replays."""
    check = topics.check(site, "operator")
    return Access(
        writes=(topics.settings(site), topics.replay(site), topics.recall(site), check),
        reads=(*_consumer(site), topics.settings(site), topics.replay(site), check),
    )


def bridge(site: str) -> Access:
    """A site's broker at a cloud broker: no frame of a camera crosses it."""
    return Access(
        writes=(
            topics.escalation(site),
            topics.decision(site),
            topics.audit(site),
            topics.audit_estimate(site),
            topics.ledger(site),
            topics.status_filter(site),
            *_models(site),
        ),
        reads=(
            topics.answer(site),
            topics.worker_status_filter(),
            topics.recall(site),
            topics.settings(site),
        ),
    )


def of(
    identity: Identity,
    sites: Iterable[str] = (),
    *,
    edges: bool = False,
    models: bool = False,
    home_assistant_prefix: str = "",
) -> Access:
    """What an identity may do.

    Args:
        identity: of a node; a broker has none of these rights.
        sites: that a cloud worker serves, or a dashboard of all sites shows.
        edges: whether its site has edge gateways.
        models: whether the gateway may publish models again that its broker has forgotten.
        home_assistant_prefix: of its discovery; empty: the site has none.

    Raises:
        ConfigError: there is no such node.
    """
    if identity.site == CLOUD:
        if identity.node == SHOWING:
            return showing(sites)
        return recording(sites) if identity.node == RECORDING else worker(identity.node, sites)
    if identity.camera is not None:
        return device(identity.site, identity.camera)
    if identity.edge is not None:
        return edge_gateway(identity.site, identity.edge)
    if identity.node == "gateway":
        return gateway(
            identity.site, edges=edges, models=models, home_assistant=home_assistant_prefix
        )
    if identity.node == HOME_ASSISTANT and home_assistant_prefix:
        return home_assistant(identity.site, home_assistant_prefix)
    known = {
        "publisher": publisher,
        "operator": operator,
        "dashboard": dashboard,
        "browser": browser,
        "bridge": bridge,
    }
    if identity.node not in known:
        raise ConfigError(f"identity {identity}: no kind of node is called {identity.node!r}")
    return known[identity.node](identity.site)
