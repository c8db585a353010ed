"""What the dashboard knows of a site, as values: `cloud_service.overview` makes them.

Everything is plain data (msgspec can write it as JSON), and nothing in it changes afterwards.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from ddnn.audit import Estimate
from ddnn.decisions import PublishedDecision
from ddnn.measurements import Accuracy, Calibration, ExitKey, MissingCameras, MissingTable
from ddnn.status import Status
from ddnn.tuning import Tuning

NodeKind = Literal["camera", "gateway", "edge", "worker", "other"]
NodeProgress = Literal["offered", "staged", "refused", "running", "offline"]
Stage = Literal["staging", "held up", "on trial", "planned", "given up", "done"]


class NodeView(msgspec.Struct, frozen=True, kw_only=True):
    """One node of a site.

    Attributes:
        node: its name, for example `device-3`.
        number: of a camera or an edge gateway.
        alive: by its will, by the age of what it said last, and by the frames that come from it.
        why: where it is not alive: `never heard`, `offline` (it or the broker said so) or `silent`
            (its status is older than it should ever be).
        status: the last one; None: none was ever heard.
        age_s: since it was last heard of; None: never.
    """

    node: str
    kind: NodeKind
    number: int | None = None
    alive: bool
    why: Literal["never heard", "offline", "silent"] | None = None
    status: Status | None = None
    age_s: float | None = None


class CameraScores(msgspec.Struct, frozen=True, kw_only=True):
    """What a camera said last by itself.

    Attributes:
        scores: one per class, -1..1, 0 meaning nothing; () where it saw nothing, or where the
            bundle's cameras give none.
        absent: it saw nothing.
        age_s: since then.
    """

    camera: int
    scores: tuple[float, ...]
    absent: bool
    age_s: float


class Seen(msgspec.Struct, frozen=True, kw_only=True):
    """A decision as it arrived.

    Attributes:
        at_s: when it arrived here, seconds since 1970.
        latency_ms: from the beginning of its slot, when the views are taken, to here; None where
            it was published again later, or where the two clocks do not fit.
    """

    decision: PublishedDecision
    at_s: float
    latency_ms: float | None


class Recent(msgspec.Struct, frozen=True, kw_only=True):
    """The last decisions together, none older than a few minutes.

    Attributes:
        decided: how many.
        per_s: how many a second; None where that cannot be told.
        exits: how many left where; `none` where no camera saw anything.
        payload_bytes: mean frame payload of all cameras for one decision.
        latency_ms_p50, latency_ms_p99: see `Seen`; None: of no decision known.
    """

    decided: int
    per_s: float | None
    exits: dict[str, int]
    degraded: int
    payload_bytes: float | None
    latency_ms_p50: float | None
    latency_ms_p99: float | None


class BundleView(msgspec.Struct, frozen=True, kw_only=True):
    """What a bundle's manifest says, without its sections.

    Attributes:
        thresholds: of every exit but the last, as calibrated.
        cameras: how many.
        edges: cameras of each edge.
        raw_bytes: what every camera's raw view would be together, per frame.
        expires_s: no node begins to run it afterwards; seconds since 1970.
    """

    id: str
    tag: int
    name: str
    version: int
    created: str
    classes: tuple[str, ...]
    exits: tuple[ExitKey, ...]
    thresholds: dict[str, float]
    cameras: int
    edges: tuple[tuple[int, ...], ...]
    raw_bytes: int
    accuracy: Accuracy | None
    calibration: Calibration | None
    missing: MissingTable | None
    expires_s: float | None


class NodeRollout(msgspec.Struct, frozen=True):
    """How far a node is with a bundle; `why`: of `refused`."""

    node: str
    progress: NodeProgress
    why: str | None = None


class Rollout(msgspec.Struct, frozen=True, kw_only=True):
    """A change of bundle: the one that is offered, or the last one that was.

    Attributes:
        bundle: its id; version, name: None where its manifest was not heard.
        nodes: every node that has a place in it.
        from_slot: of a planned change, or of the last one.
        in_s: seconds until then; None where that cannot be told.
        waiting: in the gateway's words, what holds it up.
    """

    bundle: str
    version: int | None
    name: str | None
    stage: Stage
    nodes: tuple[NodeRollout, ...]
    from_slot: int | None = None
    in_s: float | None = None
    waiting: str | None = None


class SettingsView(msgspec.Struct, frozen=True, kw_only=True):
    """Settings of a running site.

    Attributes:
        asked: what is retained on the site's topic.
        taken: what the gateway says it uses; None: it does not say.
        refused: why it does not use what was asked.
        thresholds: in force, as far as the last decisions show them.
    """

    asked: Tuning
    taken: Tuning | None
    refused: str | None
    thresholds: dict[str, float]

    @property
    def state(self) -> Literal["default", "asked", "taken", "refused"]:
        """Whether the gateway has taken what was asked for."""
        if self.refused:
            return "refused"
        if self.asked == Tuning() and self.taken in (None, Tuning()):
            return "default"
        return "taken" if self.taken == self.asked else "asked"


class MissingNow(msgspec.Struct, frozen=True, kw_only=True):
    """Which cameras the site does without at the moment, and what that should cost.

    Attributes:
        cameras: ascending.
        promised: what the bundle measured for exactly this set; None: it did not.
        complete: the same with every camera there.
    """

    cameras: tuple[int, ...]
    promised: MissingCameras | None
    complete: MissingCameras | None


class SiteView(msgspec.Struct, frozen=True, kw_only=True):
    """Everything known of a site at one moment.

    Attributes:
        revision: another one whenever anything was heard.
        now_s: the moment.
        period_s: length of a slot, as the decisions show it; None before the first.
        decisions: the last ones, newest slot first.
        nodes: cameras, gateways and workers, in this order; those that the bundle has a place for
            are listed even where they were never heard.
        ledger: counts of the site's gateway; edge_ledgers: those of edge gateways, by name.
    """

    site: str
    revision: int
    now_s: float
    period_s: float | None
    bundle: BundleView | None
    nodes: tuple[NodeView, ...]
    scores: tuple[CameraScores, ...]
    missing: MissingNow
    decisions: tuple[Seen, ...]
    recent: Recent
    ledger: dict[str, int]
    edge_ledgers: dict[str, dict[str, int]]
    settings: SettingsView
    rollout: Rollout | None
    audit: Estimate | None

    @property
    def cameras(self) -> tuple[NodeView, ...]:
        """The cameras among the nodes."""
        return tuple(node for node in self.nodes if node.kind == "camera")

    @property
    def gateway(self) -> NodeView | None:
        """The gateway that decides."""
        return next((node for node in self.nodes if node.kind == "gateway"), None)

    @property
    def latest(self) -> Seen | None:
        """The decision of the newest slot."""
        return self.decisions[0] if self.decisions else None


class Brief(msgspec.Struct, frozen=True, kw_only=True):
    """A site in one line.

    Attributes:
        gateway: whether its gateway is alive.
        cameras_alive, cameras: how many of how many.
        idle_s: since its last decision arrived; None: there was none.
    """

    site: str
    gateway: bool
    cameras_alive: int
    cameras: int
    label: str | None
    exit: str | None
    idle_s: float | None
    troubles: int


class Link(msgspec.Struct, frozen=True):
    """The dashboard's own connection to the broker.

    Attributes:
        why: in words, where it is down.
        since_s: since when it is up or down; None: it never was.
    """

    up: bool
    why: str | None = None
    since_s: float | None = None
