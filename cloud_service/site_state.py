"""What is remembered of one site, in bounded memory, and the picture that follows. Pure.

Whether a node lives is judged by three things, none of which is enough alone:

1. Its will: the broker says `offline` for a node that vanished. A will of an earlier start of the
   node's process says nothing of the present one.
2. The age of its status: a broker that dies with its node publishes no will, and what it retains is
   then the word of somebody dead. A node says how often it speaks (`every_s`); twice that is too
   long. A retained status counts from when it was published, by the node's clock.
3. Frames: who sends them lives, whatever was said of it.
"""

from __future__ import annotations

import math
from collections import Counter, deque
from collections.abc import Iterable
from typing import Literal, NamedTuple

from cloud_service.progress import rollout
from cloud_service.views import (
    Brief,
    BundleView,
    CameraScores,
    MissingNow,
    NodeKind,
    NodeView,
    Recent,
    Seen,
    SettingsView,
    SiteView,
)
from ddnn import topics
from ddnn.activation import Activation
from ddnn.audit import Estimate
from ddnn.bundle import Topology
from ddnn.decisions import PublishedDecision
from ddnn.place import edge_gateways, gateway_node
from ddnn.status import Status
from ddnn.tuning import Tuning

#: Nodes whose status is kept: 32 cameras, 32 edge gateways, and what else writes there.
MAX_NODES = 128
#: Decisions that are shown one by one, and those that rates and percentiles are taken from.
MAX_DECISIONS = 60
MAX_RECENT = 300
RECENT_S = 120.0
#: A frame is a sign of life for so long.
FRAME_FRESH_S = 10.0
#: A decision that arrives later than this after its slot was recalled, or is a backlog's.
LIVE_WITHIN_S = 30.0
#: A gateway waits a few seconds for its cloud; what comes later was asked for again.
LATENCY_WITHIN_S = 10.0
#: A camera is missing when it was in so many decisions in a row: one lost frame is normal.
MISSING_IN_A_ROW = 3


class Said(NamedTuple):
    """A status, when it was heard, and when it was true by our clock."""

    status: Status
    fresh_s: float
    heard_s: float

    @classmethod
    def of(cls, status: Status, retained: bool, now_s: float) -> Said:
        """A status that comes now; one that was retained may have lain there for days."""
        fresh_s = now_s
        if retained and status.at_s is not None:
            fresh_s = min(now_s, status.at_s)
        return cls(status, fresh_s, now_s)


class _Frame(NamedTuple):
    """The body of a camera's last SUMMARY; None: it saw nothing."""

    scores: bytes | None
    at_s: float


class _Point(NamedTuple):
    """What is kept of a decision for rates and percentiles; `time_s` is its slot's begin."""

    at_s: float
    time_s: float
    exit: str | None
    degraded: bool
    payload_bytes: int
    latency_ms: float | None


class SiteState:
    """One site.

    Attributes:
        revision: counts what was heard.
        bundle: that runs; offered: that the publisher offers. None: not known.
        active: the gateway's record of what runs.
        asked: settings that are retained on the site's topic.
        audit: how often early exits disagree with the deepest one, as the gateway estimates.
        ledger, edge_ledgers: as the gateways count.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.revision = 0
        self.bundle: BundleView | None = None
        self.offered: BundleView | None = None
        self.active: Activation | None = None
        self.asked = Tuning()
        self.asked_refused: str | None = None
        self.audit: Estimate | None = None
        self.ledger: dict[str, int] = {}
        self.edge_ledgers: dict[str, dict[str, int]] = {}
        self._said: dict[str, Said] = {}
        self._frames: dict[int, _Frame] = {}
        self._signs: dict[int, float] = {}
        self._decisions: deque[Seen] = deque(maxlen=MAX_DECISIONS)
        self._recent: deque[_Point] = deque(maxlen=MAX_RECENT)
        self._period_s: float | None = None
        self._thresholds: dict[str, float] = {}

    # -- what is heard -------------------------------------------------------------------------

    def status(self, status: Status, retained: bool, now_s: float) -> bool:
        """A node's status; False: there are too many nodes, or it is of an earlier life."""
        known = self._said.get(status.node)
        if known is None and len(self._said) >= MAX_NODES:
            return False
        if known is not None and is_of_earlier_life(status, known.status, retained):
            return False
        self._said[status.node] = Said.of(status, retained, now_s)
        return True

    def forget_node(self, node: str) -> None:
        """Its retained status was cleared."""
        self._said.pop(node, None)

    def runs(self, bundle: BundleView | None, active: Activation | None) -> None:
        """The site's gateway says what runs."""
        if bundle is None or self.bundle is None or bundle.id != self.bundle.id:
            self._frames.clear()
            self._thresholds.clear()
        self.bundle, self.active = bundle, active

    def frame(self, camera: int, tag: int, scores: bytes | None, now_s: float) -> bool:
        """A camera's SUMMARY; False: it is not one of the running bundle's."""
        bundle = self.bundle
        if bundle is None or tag != bundle.tag or camera >= bundle.cameras:
            return False
        if scores and len(scores) != len(bundle.classes):
            return False
        self._frames[camera] = _Frame(scores, now_s)
        self._signs[camera] = now_s
        return True

    def decided(self, decision: PublishedDecision, now_s: float) -> bool:
        """A decision; False: it is a repeat."""
        if any(seen.decision.slot == decision.slot for seen in self._decisions):
            return False
        late_s = now_s - decision.time_s
        is_live = abs(late_s) <= LIVE_WITHIN_S
        latency_ms = late_s * 1000 if 0 <= late_s <= LATENCY_WITHIN_S else None
        self._decisions.append(Seen(decision=decision, at_s=now_s, latency_ms=latency_ms))
        if not is_live:
            return True
        if decision.slot > 0 and decision.time_s > 0:
            self._period_s = _rounded(decision.time_s / decision.slot)
        self._recent.append(
            _Point(
                now_s,
                decision.time_s,
                decision.exit,
                decision.degraded is not None,
                decision.payload_bytes,
                latency_ms,
            )
        )
        if self.bundle is not None and decision.bundle_tag == self.bundle.tag:
            if decision.exit in self.bundle.exits and decision.threshold is not None:
                self._thresholds[decision.exit] = decision.threshold
            if decision.members == "cameras":
                for camera in (*decision.used, *decision.absent):
                    if 0 <= camera < self.bundle.cameras:
                        self._signs[camera] = now_s
        return True

    # -- what follows ----------------------------------------------------------------------------

    def view(self, workers: Iterable[NodeView], now_s: float) -> SiteView:
        """The site at `now_s`; `workers`: the cloud workers that serve it."""
        nodes = (*self.nodes(now_s), *workers)
        decisions = sorted(self._decisions, key=lambda seen: seen.decision.slot, reverse=True)
        return SiteView(
            site=self.name,
            revision=self.revision,
            now_s=now_s,
            period_s=self._period_s,
            bundle=self.bundle,
            nodes=nodes,
            scores=tuple(self._scores(now_s)),
            missing=self._missing(nodes, decisions, now_s),
            decisions=tuple(decisions),
            recent=self._recently(now_s),
            ledger=dict(self.ledger),
            edge_ledgers={name: dict(counts) for name, counts in self.edge_ledgers.items()},
            settings=self._settings(),
            audit=self.audit,
            rollout=rollout(
                self.bundle, self.offered, self.active, nodes, self.name, self._period_s, now_s
            ),
        )

    def brief(self, now_s: float, troubles: int) -> Brief:
        """The site in one line."""
        nodes = self.nodes(now_s)
        cameras = [node for node in nodes if node.kind == "camera"]
        latest = max(self._decisions, key=lambda seen: seen.decision.slot, default=None)
        return Brief(
            site=self.name,
            gateway=any(node.alive for node in nodes if node.kind == "gateway"),
            cameras_alive=sum(node.alive for node in cameras),
            cameras=len(cameras),
            label=latest.decision.label if latest else None,
            exit=latest.decision.exit if latest else None,
            idle_s=now_s - self._decisions[-1].at_s if latest else None,
            troubles=troubles,
        )

    def nodes(self, now_s: float) -> tuple[NodeView, ...]:
        """Every node of the site that is expected or was heard of, cameras first."""
        expected = _expected(self.bundle)
        names = [*expected, *sorted(self._said.keys() - set(expected))]
        views = [self._node(name, now_s) for name in names]
        order: tuple[NodeKind, ...] = ("camera", "gateway", "edge", "worker", "other")
        return tuple(sorted(views, key=lambda v: (order.index(v.kind), v.number or 0, v.node)))

    def _node(self, name: str, now_s: float) -> NodeView:
        kind, number = _kind(name)
        sign_s = self._signs.get(number) if kind == "camera" and number is not None else None
        return node_view(name, kind, number, self._said.get(name), sign_s, now_s)

    def _scores(self, now_s: float) -> Iterable[CameraScores]:
        for camera, frame in sorted(self._frames.items()):
            # As the sections read them: 128 means 0.
            scores = tuple((byte - 128) / 128 for byte in frame.scores or b"")
            yield CameraScores(
                camera=camera,
                scores=scores,
                absent=frame.scores is None,
                age_s=max(0.0, now_s - frame.at_s),
            )

    def _missing(
        self, nodes: Iterable[NodeView], decisions: list[Seen], now_s: float
    ) -> MissingNow:
        if self.bundle is None:
            return MissingNow(cameras=(), promised=None, complete=None)
        everyone = set(range(self.bundle.cameras))
        patience_s = max(FRAME_FRESH_S, 5 * (self._period_s or 0.0))
        last = [
            seen.decision
            for seen in decisions[:MISSING_IN_A_ROW]
            if now_s - seen.at_s <= patience_s and seen.decision.members == "cameras"
        ]
        if len(last) == MISSING_IN_A_ROW:
            gone = everyone.intersection(*(decision.missing for decision in last))
        else:
            there = {node.number for node in nodes if node.kind == "camera" and node.alive}
            gone = everyone - there
        cameras = tuple(sorted(gone))
        table = self.bundle.missing
        return MissingNow(
            cameras=cameras,
            promised=table.without(cameras) if table else None,
            complete=table.without(()) if table else None,
        )

    def _recently(self, now_s: float) -> Recent:
        points = [point for point in self._recent if now_s - point.at_s <= RECENT_S]
        latencies = sorted(p.latency_ms for p in points if p.latency_ms is not None)
        # By the slots: what was asked for again comes all at once.
        times = [point.time_s for point in points]
        span_s = max(times) - min(times) if len(points) > 1 else 0.0
        return Recent(
            decided=len(points),
            per_s=(len(points) - 1) / span_s if span_s > 0 else None,
            exits=dict(Counter(point.exit or "none" for point in points)),
            degraded=sum(point.degraded for point in points),
            payload_bytes=sum(p.payload_bytes for p in points) / len(points) if points else None,
            latency_ms_p50=percentile(latencies, 0.50),
            latency_ms_p99=percentile(latencies, 0.99),
        )

    def _settings(self) -> SettingsView:
        gateway = self._said.get(gateway_node(None))
        refused = gateway.status.notes.get("settings") if gateway else None
        return SettingsView(
            asked=self.asked,
            taken=gateway.status.settings if gateway else None,
            refused=self.asked_refused or refused,
            thresholds=dict(self._thresholds),
        )


def node_view(
    name: str,
    kind: NodeKind,
    number: int | None,
    known: Said | None,
    sign_s: float | None,
    now_s: float,
) -> NodeView:
    """Whether a node lives, and what it said; `sign_s`: when a frame of it was last heard of."""
    ages = [now_s - at_s for at_s in (known.fresh_s if known else None, sign_s) if at_s is not None]
    fresh_sign = (
        sign_s is not None
        and now_s - sign_s <= FRAME_FRESH_S
        and (known is None or sign_s > known.heard_s)
    )
    why = None if fresh_sign else _why_dead(known, now_s)
    return NodeView(
        node=name,
        kind=kind,
        number=number,
        alive=why is None,
        why=why,
        status=known.status if known else None,
        age_s=max(0.0, min(ages)) if ages else None,
    )


def percentile(ascending: list[float], share: float) -> float | None:
    """Nearest rank; None of nothing."""
    if not ascending:
        return None
    return ascending[max(0, math.ceil(share * len(ascending)) - 1)]


def _why_dead(
    known: Said | None, now_s: float
) -> Literal["never heard", "offline", "silent"] | None:
    if known is None:
        return "never heard"
    if known.status.state == "offline":
        return "offline"
    every_s = known.status.every_s
    return "silent" if every_s is not None and now_s - known.fresh_s > 2 * every_s else None


def is_of_earlier_life(new: Status, known: Status, retained: bool) -> bool:
    """Whether `new` is the will of a start of the process that was before the one known.

    What is retained is what the broker knows last; it is believed where dates do not say more.
    """
    if new.state != "offline" or new.boot == known.boot or known.state != "online":
        return False
    if new.since_s is not None and known.since_s is not None:
        return new.since_s < known.since_s
    return not retained


def _expected(bundle: BundleView | None) -> list[str]:
    """Nodes that a bundle has a place for."""
    if bundle is None:
        return []
    edges = edge_gateways(Topology(cameras=bundle.cameras, edges=bundle.edges))
    cameras = [f"device-{camera}" for camera in range(bundle.cameras)]
    return [*cameras, gateway_node(None), *(gateway_node(edge) for edge in edges)]


def _kind(node: str) -> tuple[NodeKind, int | None]:
    number = topics.member_of(node.replace("-", "/"))
    if number is not None and node == f"device-{number}":
        return "camera", number
    if number is not None and node == gateway_node(number):
        return "edge", number
    return ("gateway" if node == gateway_node(None) else "other"), None


def _rounded(period_s: float) -> float:
    """A slot's length without the dust of division."""
    return float(f"{period_s:.6g}")
