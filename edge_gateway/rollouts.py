"""When a site changes to its next bundle: the gateway's rules of a roll-out. No I/O.

1. A bundle is activated when every live node that runs the present one has it staged. Live is who
   says so: cameras (and gateways below this one) of the site, and cloud workers that serve it.
2. A live node that refuses it holds it up: the site stays with what it runs. A camera or edge
   gateway that the next bundle has no place for is not asked.
3. A live node that has said neither after `patience_s` is treated as missing.
4. The slot of the change lies `lead_s` ahead, so that every node has heard of it in time, and
   after every slot that has begun. It is planned after the slots of the change before are over,
   and again when the clock that it was planned by turns out to have been wrong.
5. Where the site tries candidates (`canary_every`), every node having it staged is the beginning of
   its trial (`edge_gateway.trial`); it is activated when it has passed. One that has failed is
   refused by the gateway, and the site stays with what it runs. Between bundles of several edges
   there is no trial: their edge gateways would have to run it too.
6. Where the first slots after a change go worse (`edge_gateway.probation`), it is taken back; that
   bundle is not activated again.
7. The record of the change is on the gateway's disk before anybody hears of it. Where the broker
   has none, or an older one, it is published again.
8. Where the broker has forgotten the manifest, it and its sections are published again from the
   gateway's disk.
"""

from __future__ import annotations

import math

import msgspec

from ddnn import activation, status, topics
from ddnn.activation import Activation, Shadow
from ddnn.bundle import Bundle
from ddnn.errors import BundleError
from ddnn.message import Message, Publish
from ddnn.place import edge_gateways, gateway_node
from ddnn.rollout import offer
from ddnn.signing import seal
from ddnn.status import Status

#: After connecting: so long does the broker have to send what it retains.
HEAR_S = 2.0
#: Nodes whose statuses are remembered: names come from the network.
MAX_NODES = 1000


class Rollouts:
    """One site's roll-outs, as its gateway conducts them.

    Args:
        site, period_s: of the site.
        node: this gateway's own name.
        canary_every: which slots a candidate is tried on; 0: it is not.
        lead_s: how far ahead a change is planned.
        patience_s: how long a silent node is waited for.
    """

    def __init__(
        self,
        site: str,
        period_s: float,
        node: str,
        *,
        lead_s: float = 3.0,
        patience_s: float = 60.0,
        canary_every: int = 0,
    ) -> None:
        self.rejected: tuple[str, str] | None = None
        self.waiting: str | None = None
        self._site = site
        self._period_s = period_s
        self._node = node
        self._lead_slots = math.ceil(lead_s / period_s)
        self._patience_s = patience_s
        self._canary_every = canary_every
        self._connected_at: float | None = None
        self._staged: tuple[str, float] | None = None
        self._nodes: dict[str, Status] = {}
        self._heard_manifest = False
        self._heard: Activation | None = None
        self._asserted_at = -math.inf
        self._ran: Activation | None = None
        self._ran_before: Activation | None = None

    # -- what is heard -------------------------------------------------------------------------

    def on_connected(self, now: float) -> None:
        """The broker is there (again), and will say what it retains."""
        self._connected_at = now
        self._heard_manifest, self._heard = False, None

    def on_disconnected(self) -> None:
        """The broker is away: nothing is planned."""
        self._connected_at = None

    def on_message(self, message: Message) -> None:
        """A status, manifest or activation record."""
        if message.topic == topics.manifest(self._site):
            self._heard_manifest = bool(message.payload)
        elif message.topic == topics.active(self._site):
            try:
                self._heard = activation.decode(message.payload) if message.payload else None
            except BundleError:
                self._heard = None
        else:
            self._on_status(message)

    def _on_status(self, message: Message) -> None:
        report = status.decode(message.payload)
        if report is None or (len(self._nodes) >= MAX_NODES and message.topic not in self._nodes):
            return
        if message.topic == topics.status(self._site, report.node):
            if report.node == self._node or not report.node.startswith(("device-", "gateway")):
                return
        elif message.topic != topics.worker_status(report.node):
            return
        self._nodes[message.topic] = report

    # -- what is done ----------------------------------------------------------------------------

    def plan(
        self,
        now: float,
        wall: float,
        *,
        active: Bundle | None,
        staged: Bundle | None,
        record: Activation | None,
        highest_slot: int,
        settled: bool,
        trial: tuple[str, str | None] | None = None,
        failed: str | None = None,
    ) -> Activation | None:
        """The record to keep and to publish, when it is time for one.

        Args:
            active, staged, record: of this gateway's own `ModelFeed`.
            highest_slot: the highest one that has begun.
            settled: whether the slots of the change before are over.
            trial: which bundle is on trial, and `Trial.verdict`.
            failed: `Probation.verdict` on the running bundle.
        """
        self.waiting = None
        if active is None:
            return None
        if record is None or record.bundle != active.bundle_id:
            pass
        elif self._ran is None or self._ran.bundle != active.bundle_id:
            self._ran_before, self._ran = self._ran, record
        self._forget_rejected(staged, record)
        # A retained record would have come before the manifest, in the order of subscribing.
        if record is None and self._heard_manifest and self._heard is None:
            return _record(active, 0)
        if not self._has_heard(now):
            return None
        slot = int(wall / self._period_s)
        # Back once: the bundle before is not given up for one that was.
        fresh = record is not None and record.instead_of is None
        if failed and fresh and record and record.bundle == active.bundle_id and self._ran_before:
            return self._back(active.bundle_id, self._ran_before, slot, highest_slot, failed)
        if record is not None and record.from_slot > slot + 4 * self._lead_slots + 10:
            # Perhaps this gateway has changed over already, when its clock was wrong.
            for bundle in (active, staged):
                if bundle is not None and bundle.bundle_id == record.bundle:
                    return self._at(bundle, slot, highest_slot)
        if staged is None:
            self._staged = None
            if record is None or record.version < active.manifest.version:
                return _record(active, 0)
            return None
        if record is not None and record.bundle == staged.bundle_id:
            return None
        if record is not None and record.instead_of == staged.bundle_id:
            return None  # given up
        if self._staged is None or self._staged[0] != staged.bundle_id:
            self._staged = (staged.bundle_id, now)
        late, refused = self._not_ready(active, staged)
        if refused:
            self.waiting = "; ".join(f"{node} refuses it: {why}" for node, why in refused.items())
        elif late and now - self._staged[1] < self._patience_s:
            self.waiting = f"{', '.join(late)} not ready yet"
        elif settled and not (self._canary_every and _can_be_tried(active, staged)):
            return self._at(staged, slot, highest_slot)
        elif settled and record is not None:
            return self._after_trial(record, staged, slot, highest_slot, trial)
        if self.waiting:
            self.waiting = f"bundle {staged.bundle_id[:12]} waits: {self.waiting}"
        return None

    def assertions(
        self, now: float, *, active: Bundle | None, staged: Bundle | None, record: Activation | None
    ) -> list[Publish]:
        """What the broker has forgotten, from this gateway's own disk; at most once in 10 s."""
        if active is None or not self._has_heard(now) or now - self._asserted_at < 10.0:
            return []
        messages: list[Publish] = []
        if not self._heard_manifest:
            for bundle in (active, *([staged] if staged else [])):
                messages += offer(self._site, bundle)
        elif record is not None and self._heard is None:
            # It has forgotten; somebody has offered another bundle since. The sections of the one
            # that runs are gone as well.
            messages += offer(self._site, active)[:-1]
        if record is not None and self._is_forgotten(record):
            messages.append(announce(self._site, record))
        if messages:
            self._asserted_at = now
        return messages

    def _back(
        self, failed_id: str, before: Activation, slot: int, highest_slot: int, why: str
    ) -> Activation:
        """The record that takes the last change back."""
        self.rejected = (failed_id, f"was given up after the change: {why}")
        from_slot = max(slot + self._lead_slots, highest_slot + 1)
        return msgspec.structs.replace(
            before, from_slot=from_slot, shadow=None, instead_of=failed_id
        )

    def _forget_rejected(self, staged: Bundle | None, record: Activation | None) -> None:
        """Another candidate makes the rejection of the last one yesterday's news."""
        if self.rejected is None or (record is not None and record.instead_of == self.rejected[0]):
            return
        if staged is None or staged.bundle_id != self.rejected[0]:
            self.rejected = None

    def _after_trial(
        self,
        record: Activation,
        staged: Bundle,
        slot: int,
        highest_slot: int,
        trial: tuple[str, str | None] | None,
    ) -> Activation | None:
        """Begin the trial of `staged`, or act on its verdict."""
        if self.rejected and self.rejected[0] == staged.bundle_id:
            return None
        if record.shadow is None or record.shadow.bundle != staged.bundle_id:
            shadow = Shadow(staged.bundle_id, self._canary_every)
            return msgspec.structs.replace(record, shadow=shadow)
        if trial is None or trial[0] != staged.bundle_id or trial[1] is None:
            return None
        if trial[1]:
            self.rejected = (staged.bundle_id, f"failed its trial: {trial[1]}")
            return msgspec.structs.replace(record, shadow=None)
        return self._at(staged, slot, highest_slot)

    def _is_forgotten(self, record: Activation) -> bool:
        heard = self._heard
        return heard is None or heard.version < record.version or heard.bundle == record.instead_of

    def _has_heard(self, now: float) -> bool:
        return self._connected_at is not None and now - self._connected_at >= HEAR_S

    def _at(self, bundle: Bundle, slot: int, highest_slot: int) -> Activation:
        return _record(bundle, max(slot + self._lead_slots, highest_slot + 1))

    def _not_ready(self, active: Bundle, staged: Bundle) -> tuple[list[str], dict[str, str]]:
        """Live nodes of the running bundle without the staged one; who refuses it, and why."""
        late: list[str] = []
        refused: dict[str, str] = {}
        below = [gateway_node(k) for k in edge_gateways(staged.manifest.topology)]
        for report in self._nodes.values():
            runs = report.bundle or report.sites.get(self._site)
            if report.state != "online" or not _has_place(report.node, staged):
                continue
            # An edge gateway that the present bundle has no use for is needed from now on.
            if runs != active.bundle_id and report.node not in below:
                continue
            if staged.bundle_id in (report.staged, report.sites_staged.get(self._site)):
                continue
            late.append(report.node)
            why = report.sites_refused.get(self._site)
            if report.refused_id == staged.bundle_id:
                why = report.refused
            if why:
                refused[report.node] = why
        return sorted(late), refused


def _has_place(node: str, bundle: Bundle) -> bool:
    """Whether a camera or edge gateway is part of this bundle's site; others always are."""
    kind, _, number = node.partition("-")
    topology = bundle.manifest.topology
    if not number.isdecimal():
        return True
    if kind == "device":
        return int(number) < topology.cameras
    return kind != "gateway" or int(number) in edge_gateways(topology)


def _can_be_tried(active: Bundle, staged: Bundle) -> bool:
    return not any(edge_gateways(bundle.manifest.topology) for bundle in (active, staged))


def announce(site: str, record: Activation) -> Publish:
    """An activation record as it is retained."""
    return Publish(topics.active(site), activation.encode(record), qos=1, retain=True, keep=True)


def _record(bundle: Bundle, from_slot: int) -> Activation:
    return Activation(
        bundle=bundle.bundle_id,
        version=bundle.manifest.version,
        from_slot=from_slot,
        manifest=seal(bundle.payload, bundle.signatures),
    )
