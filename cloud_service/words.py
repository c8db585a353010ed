"""What is wrong with a site, in plain words, most urgent first. Pure."""

from __future__ import annotations

import datetime
from collections.abc import Iterable
from typing import Literal, NamedTuple

from cloud_service.views import NodeView, Seen, SiteView
from ddnn.tuning import Tuning

Level = Literal["bad", "warning", "note"]
_LEVELS: tuple[Level, ...] = ("bad", "warning", "note")
#: A site whose last decision is older is quiet.
QUIET_S = 30.0
#: Shares of degraded decisions that are worth a word.
DEGRADED_SHARE = 0.02
HOT_C = 80.0
LITTLE_DISK_MB = 200
#: A node's text is shown up to this length.
MAX_TEXT = 300
#: Nodes that are named where several say the same.
MAX_NAMES = 8

_WHY = {
    "never heard": "has never been heard of",
    "offline": "is offline",
    "silent": "has been silent for longer than it ever should; its last status is out of date",
}
#: A status's notes, by what they are about.
_NOTES = {
    "bundle": "its bundle",
    "certificate": "its certificate",
    "clock": "its clock",
    "cloud": "the cloud",
    "flood": "a flood of messages",
    "settings": "settings refused",
    "trust": "its trusted keys",
}
#: Told where the roll-out is shown.
_ELSEWHERE = ("rollout", "canary", "settings")
DEGRADED = {
    "features_missing": "features of a camera did not come in time",
    "cloud_timeout": "the cloud did not answer in time",
    "cloud_down": "no cloud worker was there",
    "cloud_lacks_bundle": "the cloud did not have the bundle",
    "overload": "more slots than the gateway can hold",
    "error": "the gateway could not compute it; its log says why",
    "bundle_change": "cut off by the change of bundle",
    "shutdown": "the gateway was stopped",
}


class Trouble(NamedTuple):
    """One thing that a person should know; `where`: a node or the site's part."""

    level: Level
    where: str
    text: str


def name_of(node: NodeView) -> str:
    """A node as people call it."""
    match node.kind:
        case "camera":
            return f"Camera {node.number}"
        case "gateway":
            return "Gateway"
        case "edge":
            return f"Edge gateway {node.number}"
        case "worker":
            return f"Cloud worker {node.node}"
    return node.node


def node_troubles(nodes: Iterable[NodeView]) -> list[Trouble]:
    """What is wrong with the nodes themselves."""
    found: list[Trouble] = []
    for node in nodes:
        name = name_of(node)
        if not node.alive and node.kind != "other":
            level: Level = "bad" if node.kind == "gateway" else "warning"
            text = _WHY[node.why or "offline"]
            found.append(Trouble(level, name, f"{text}{_consequence(node)}"))
        if node.alive and node.status is not None:
            found += (Trouble(*each) for each in _said(name, node))
    return found


def troubles(view: SiteView) -> list[Trouble]:
    """Everything that is wrong with a site, most urgent first."""
    found = node_troubles(view.nodes)
    if view.bundle is None:
        text = "no bundle is active: publish one with `ddnn publish`"
        found.append(Trouble("bad", "Site", text))
    elif "cloud" in view.bundle.exits and not any(
        node.alive for node in view.nodes if node.kind == "worker"
    ):
        text = "no cloud worker serves this site: hard frames are decided by the edge, degraded"
        found.append(Trouble("warning", "Cloud", text))
    there = {n.number for n in view.cameras if n.alive and n.number is not None}
    for camera in sorted(there & set(view.missing.cameras)):
        text = "is online, but its frames do not arrive"
        found.append(Trouble("warning", f"Camera {camera}", text))
    found += _degraded(view)
    found += _rollout(view)
    for exit_ in view.audit.exits if view.audit else ():
        if exit_.drift:
            rate = share(exit_.all.rate or 0.0)
            text = f"the {exit_.exit} exit disagrees with the deepest one in {rate} of the audits"
            found.append(Trouble("warning", "Audits", text))
    latest = view.latest
    if latest is not None and view.now_s - latest.at_s > QUIET_S and view.bundle is not None:
        text = f"no decision for {duration(view.now_s - latest.at_s)}: no camera reports"
        found.append(Trouble("warning", "Site", text))
    if view.settings.state == "refused":
        text = f"refused, and not in force: {shorten(view.settings.refused or '')}"
        found.append(Trouble("warning", "Settings", text))
    return sorted(_together(found), key=lambda trouble: _LEVELS.index(trouble.level))


def _together(found: Iterable[Trouble]) -> list[Trouble]:
    """What several nodes say in the same words is said once."""
    wheres: dict[tuple[Level, str], list[str]] = {}
    for level, where, text in found:
        wheres.setdefault((level, text), []).append(where)
    return [Trouble(level, _names(names), text) for (level, text), names in wheres.items()]


def _names(names: list[str]) -> str:
    return ", ".join([*names[:MAX_NAMES], *(["…"] if len(names) > MAX_NAMES else [])])


def duration(seconds: float) -> str:
    """A time span as people say it: two digits are enough."""
    for limit, size, unit in ((120, 1, "s"), (7200, 60, "min"), (172_800, 3600, "h")):
        if seconds < limit:
            return f"{max(0.0, seconds) / size:.0f} {unit}"
    return f"{seconds / 86_400:.0f} days"


def size(count: float) -> str:
    """Bytes as people read them."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "B" or count >= 100 else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"


def share(part: float) -> str:
    """A share 0..1 in percent: as exact as it is worth."""
    return f"{part * 100:.1f} %" if 0 < part < 1 else f"{part * 100:.0f} %"


def clock(seconds: float) -> str:
    """Time of day on the server, to the tenth."""
    try:
        moment = datetime.datetime.fromtimestamp(seconds)
    except (OverflowError, OSError, ValueError):
        return "?"
    return f"{moment:%H:%M:%S}.{moment.microsecond // 100_000}"


def answer(seen: Seen | None) -> str:
    """A decision in two words."""
    if seen is None:
        return "–"
    decision = seen.decision
    if decision.label is None:
        return "nothing seen"
    likely = "" if decision.probability is None else f" {decision.probability * 100:.0f} %"
    return f"{decision.label}{likely}"


def how(seen: Seen | None) -> str:
    """Where and by whom a decision was made."""
    if seen is None:
        return "No decision yet."
    decision = seen.decision
    where = f"decided at the {decision.exit} exit" if decision.exit else "no camera saw anything"
    parts = [clock(decision.time_s), where]
    if decision.used:
        parts.append(f"{decision.members} {', '.join(map(str, decision.used[:16]))}")
    if decision.degraded:
        parts.append(f"degraded: {decision.degraded}")
    return " · ".join(parts)


def camera_state(node: NodeView, *, missing: bool, absent: bool) -> tuple[str, str]:
    """Its state in words, and the class that colours it."""
    if not node.alive:
        since = "" if node.age_s is None else f" for {duration(node.age_s)}"
        words = {"never heard": "never heard", "silent": f"silent{since}"}
        return words.get(node.why or "", f"offline{since}"), "warning"
    if missing:
        return "frames missing", "warning"
    return ("sees nothing", "soft") if absent else ("there", "ok")


def tuning_words(asked: Tuning) -> str:
    """Settings of a running site, as people say them."""
    parts = []
    if asked.local_threshold is not None:
        parts.append(f"local T = {asked.local_threshold:.4g}")
    if asked.edge_threshold is not None:
        parts.append(f"edge T = {asked.edge_threshold:.4g}")
    if asked.budget_bytes_s is not None:
        parts.append(f"{size(asked.budget_bytes_s)}/s")
    if asked.audit_share is not None:
        parts.append(f"audits {share(asked.audit_share)}")
    return ", ".join(parts) or "the bundle's own thresholds"


def shorten(text: str) -> str:
    """Text of a node, which may be long."""
    return text if len(text) <= MAX_TEXT else text[: MAX_TEXT - 1] + "…"


def _consequence(node: NodeView) -> str:
    if node.kind == "gateway":
        return ": nothing is decided"
    if node.kind == "edge":
        return ": its cameras are not heard"
    return ""


def _said(name: str, node: NodeView) -> Iterable[tuple[Level, str, str]]:
    """What a living node complains of."""
    assert node.status is not None
    for about, text in sorted(node.status.notes.items()):
        if about not in _ELSEWHERE:
            yield "warning", name, f"{_NOTES.get(about, shorten(about))}: {shorten(text)}"
    health = node.status.health
    if health is None:
        return
    if health.problem:
        yield "warning", name, f"its camera: {shorten(health.problem)}"
    if now := [each for each in health.throttled if not each.endswith("before")]:
        yield "warning", name, f"slowed down by its hardware: {shorten(', '.join(now))}"
    if health.clock_synchronised is False:
        yield "warning", name, "no time server sets its clock: its frames may fall into other slots"
    if health.temperature_c is not None and health.temperature_c >= HOT_C:
        yield "warning", name, f"is hot: {health.temperature_c:.0f} °C"
    if health.disk_mb is not None and health.disk_mb < LITTLE_DISK_MB:
        yield "warning", name, f"has little disk left: {health.disk_mb} MB"


def _rollout(view: SiteView) -> Iterable[Trouble]:
    rollout = view.rollout
    if rollout is not None and rollout.stage == "held up":
        for step in rollout.nodes:
            if step.progress == "refused":
                why = f"{step.node} refuses version {rollout.version}: {shorten(step.why or '')}"
                yield Trouble("warning", "Roll-out", why)
    if rollout is not None and rollout.stage == "given up":
        why = shorten(rollout.waiting or "see the gateway's log")
        yield Trouble("warning", "Roll-out", f"version {rollout.version} was given up: {why}")


def _degraded(view: SiteView) -> Iterable[Trouble]:
    recent = view.recent
    if not recent.decided or recent.degraded / recent.decided < DEGRADED_SHARE:
        return
    reasons = {seen.decision.degraded for seen in view.decisions} - {None}
    why = ", ".join(sorted(DEGRADED.get(r, shorten(r)) for r in reasons if r)) or "see the ledger"
    text = f"{share(recent.degraded / recent.decided)} of the last {recent.decided} were degraded"
    yield Trouble("warning", "Decisions", f"{text}: {why}")
