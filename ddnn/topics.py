"""The topic tree.

Frame traffic uses short topics, since a long topic costs more than the payload:

==============  =====================================  ===========================
topic           who writes it                          what
==============  =====================================  ===========================
<site>/s/<n>    member n                               SUMMARY frames, QoS 0
<site>/f/<n>    member n                               FEATURES frames, QoS 1
<site>/q/<n>    the site's gateway                     REQUEST frames, QoS 1
<site>/x        the site's gateway                     ESCALATION frames, QoS 1
<site>/a        a cloud worker (MQTT 5 response)       ANSWER frames, QoS 1
<site>/S/<k>    edge gateway k                         SUMMARY frames, QoS 0
<site>/F/<k>    edge gateway k                         FEATURES frames, QoS 1
<site>/Q/<k>    the site's gateway                     REQUEST frames, QoS 1
==============  =====================================  ===========================

The last three exist where a site has several edges: its edge gateways are members of the site's
gateway as cameras are of an edge gateway, which then writes `<site>/q/<n>`.

What people and tools read is JSON under ddnn/<site>/: decision, audit and audit/estimate
(retained), ledger and ledger/<node> of an edge gateway (retained), status/<node> (retained, with
a will), model/manifest, model/active and model/section/<sha256>/<i> (retained).
What they write there: settings (retained) and recall, a consumer's request for past decisions.
check/<node> is a node's own, for `ddnn doctor`. Who may write and read what: ddnn/access.py.
"""

from __future__ import annotations

import re

from ddnn.errors import ConfigError

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,31}")


def check_name(name: str, what: str = "site") -> str:
    """`name`, if it can stand as one topic level.

    Raises:
        ConfigError: empty, longer than 32, or with characters other than A-Z a-z 0-9 _ -.
    """
    if not _NAME.fullmatch(name) or name == "ddnn":
        raise ConfigError(
            f"{what} name {name!r} must be 1 to 32 of A-Z a-z 0-9 _ -, begin with a "
            "letter or digit, and not be 'ddnn'"
        )
    return name


def check_prefix(prefix: str, site: str) -> str:
    """`prefix`, if Home Assistant's topics can begin with it beside the site's own.

    Raises:
        ConfigError: they could be mistaken for each other.
    """
    if prefix in ("ddnn", site):
        raise ConfigError(
            f"Home Assistant's prefix {prefix!r} must not be 'ddnn' or the site's name"
        )
    return prefix


def summary(site: str, member: int) -> str:
    return f"{site}/s/{member}"


def features(site: str, member: int) -> str:
    return f"{site}/f/{member}"


def request(site: str, member: int) -> str:
    return f"{site}/q/{member}"


def edge_summary(site: str, edge: int) -> str:
    return f"{site}/S/{edge}"


def edge_features(site: str, edge: int) -> str:
    return f"{site}/F/{edge}"


def edge_request(site: str, edge: int) -> str:
    return f"{site}/Q/{edge}"


def escalation(site: str) -> str:
    return f"{site}/x"


def answer(site: str) -> str:
    return f"{site}/a"


def decision(site: str) -> str:
    return f"ddnn/{site}/decision"


def audit(site: str) -> str:
    return f"ddnn/{site}/audit"


def audit_estimate(site: str) -> str:
    return f"ddnn/{site}/audit/estimate"


def ledger(site: str) -> str:
    return f"ddnn/{site}/ledger"


def edge_ledger(site: str, edge: int) -> str:
    """Of an edge gateway; the site's own counts what the site decided."""
    return f"ddnn/{site}/ledger/gateway-{edge}"


def settings(site: str) -> str:
    return f"ddnn/{site}/settings"


def recall(site: str) -> str:
    return f"ddnn/{site}/recall"


def status(site: str, node: str) -> str:
    return f"ddnn/{site}/status/{node}"


def manifest(site: str) -> str:
    return f"ddnn/{site}/model/manifest"


def active(site: str) -> str:
    return f"ddnn/{site}/model/active"


def section(site: str, sha256: str, chunk: int) -> str:
    return f"ddnn/{site}/model/section/{sha256}/{chunk}"


def worker_status(worker: str) -> str:
    """A cloud worker belongs to no site; no site's name can begin with an underscore."""
    return f"ddnn/_cloud/status/{worker}"


def matches(topic_filter: str, topic: str) -> bool:
    """Whether a filter covers a topic, or every topic of a narrower filter."""
    wanted, given = topic_filter.split("/"), topic.split("/")
    for index, level in enumerate(wanted):
        if level == "#":
            return True
        if index >= len(given) or given[index] == "#" or level not in ("+", given[index]):
            return False
    return len(wanted) == len(given)


def site_of(topic: str) -> str | None:
    """The site of a frame or `ddnn/<site>/...` topic, or None if it has no valid one."""
    first, _, rest = topic.partition("/")
    site = rest.partition("/")[0] if first == "ddnn" else first
    return site if _NAME.fullmatch(site) else None


def member_of(topic: str) -> int | None:
    """The member number at the end of a frame topic, or None if it is not a number."""
    last = topic.rpartition("/")[2]
    return int(last) if last.isascii() and last.isdigit() and len(last) <= 4 else None


def replay(site: str) -> str:
    return f"ddnn/{site}/replay"


def home_assistant_id(site: str) -> str:
    """What Home Assistant knows a site by: its object id, and how its unique ids begin."""
    return f"ddnn_{site}"


def discovery(prefix: str, site: str) -> str:
    """Where Home Assistant looks for the site's device."""
    return f"{prefix}/device/{home_assistant_id(site)}/config"


def discovery_filters(prefix: str) -> tuple[str, str]:
    """What Home Assistant subscribes to, to find devices."""
    return f"{prefix}/+/+/config", f"{prefix}/+/+/+/config"


def home_assistant_status(prefix: str) -> str:
    """Where Home Assistant says that it has started."""
    return f"{prefix}/status"


def worker_status_filter() -> str:
    return "ddnn/_cloud/status/+"


def check(site: str, node: str) -> str:
    """Where `ddnn doctor` sends a message to itself; a cloud worker's site is `_cloud`."""
    return f"ddnn/{site}/check/{node}"


def summary_filter(site: str) -> str:
    return f"{site}/s/+"


def features_filter(site: str) -> str:
    return f"{site}/f/+"


def edge_summary_filter(site: str) -> str:
    return f"{site}/S/+"


def edge_features_filter(site: str) -> str:
    return f"{site}/F/+"


def edge_request_filter(site: str) -> str:
    return f"{site}/Q/+"


def edge_ledger_filter(site: str) -> str:
    return f"ddnn/{site}/ledger/+"


def request_filter(site: str) -> str:
    return f"{site}/q/+"


def section_filter(site: str) -> str:
    return f"ddnn/{site}/model/section/+/+"


def status_filter(site: str) -> str:
    return f"ddnn/{site}/status/+"


def decision_filter() -> str:
    return "ddnn/+/decision"


def ledger_filter() -> str:
    return "ddnn/+/ledger"


def escalation_filter(group: str) -> str:
    """Shared among the workers of a group: each escalation reaches one of them."""
    return f"$share/{group}/+/x"


def active_filter() -> str:
    return "ddnn/+/model/active"


def manifest_filter() -> str:
    return "ddnn/+/model/manifest"
