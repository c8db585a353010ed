"""How far a roll-out is, from what the nodes, the publisher and the gateway say. Pure."""

from __future__ import annotations

from collections.abc import Iterable

from cloud_service.views import BundleView, NodeRollout, NodeView, Rollout, Stage
from ddnn.activation import Activation
from ddnn.bundle import Topology
from ddnn.place import edge_gateways


def rollout(
    running: BundleView | None,
    offered: BundleView | None,
    active: Activation | None,
    nodes: Iterable[NodeView],
    site: str,
    period_s: float | None,
    now_s: float,
) -> Rollout | None:
    """The change that is under way, or the last one; None where no bundle was heard of.

    Args:
        running, active: what the gateway's record says.
        offered: what the publisher offers.
        period_s: of a slot, if known.
    """
    bundle = running
    if offered is not None and (running is None or offered.version > running.version):
        bundle = offered
    if bundle is None:
        return None
    own = [node for node in nodes if _has_place(node, bundle)]
    steps = tuple(_step(node, bundle.id, site) for node in own)
    gateway = next((node for node in own if node.kind == "gateway"), None)
    notes = gateway.status.notes if gateway and gateway.status else {}
    waiting = notes.get("rollout") or notes.get("canary")
    is_chosen = active is not None and active.bundle == bundle.id
    in_s = None
    if active is not None and is_chosen and period_s:
        in_s = max(0.0, active.from_slot * period_s - now_s)
    return Rollout(
        bundle=bundle.id,
        version=bundle.version,
        name=bundle.name,
        stage=_stage(bundle, active, steps, in_s),
        nodes=steps,
        from_slot=active.from_slot if active is not None and is_chosen else None,
        in_s=in_s,
        waiting=waiting,
    )


def _stage(
    bundle: BundleView,
    active: Activation | None,
    steps: tuple[NodeRollout, ...],
    in_s: float | None,
) -> Stage:
    if active is None:
        return "staging"
    if active.bundle == bundle.id:
        # Nodes say that they run it a moment after the slot has begun; the record decides.
        return "planned" if in_s else "done"
    if active.instead_of == bundle.id:
        return "given up"
    if any(step.progress == "refused" for step in steps):
        return "held up"
    if active.shadow is not None and active.shadow.bundle == bundle.id:
        return "on trial"
    return "staging"


def _step(node: NodeView, bundle: str, site: str) -> NodeRollout:
    report = node.status
    if report is None or not node.alive:
        return NodeRollout(node.node, "offline")
    if bundle in (report.bundle, report.sites.get(site)):
        return NodeRollout(node.node, "running")
    if bundle in (report.staged, report.sites_staged.get(site)):
        return NodeRollout(node.node, "staged")
    if report.refused_id == bundle and report.refused:
        return NodeRollout(node.node, "refused", report.refused)
    if site in report.sites_refused:
        return NodeRollout(node.node, "refused", report.sites_refused[site])
    return NodeRollout(node.node, "offered")


def _has_place(node: NodeView, bundle: BundleView) -> bool:
    if node.kind == "camera":
        return node.number is not None and node.number < bundle.cameras
    if node.kind == "edge":
        return node.number in edge_gateways(Topology(cameras=bundle.cameras, edges=bundle.edges))
    return node.kind in ("gateway", "worker")
