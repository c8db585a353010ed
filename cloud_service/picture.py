"""The picture of all sites, made of MQTT messages. Pure: `cloud_service.overview` has the clock.

Whatever arrives, nothing is raised and memory stays bounded: a message that cannot be used is
counted (`counts`) and changes nothing else. Nothing here is checked for who signed it: the pages
show what a site's nodes say, they run none of it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import msgspec

from cloud_service.site_state import Said, SiteState, is_of_earlier_life, node_view
from cloud_service.views import Brief, BundleView, NodeView, SiteView
from cloud_service.words import troubles
from ddnn import activation, audit, decisions, status, summaries, topics, tuning, wire
from ddnn.bundle import Manifest, bundle_id, decode_manifest, tag
from ddnn.decisions import PublishedDecision
from ddnn.errors import ConfigError, DdnnError, WireError
from ddnn.measurements import EXITS
from ddnn.place import gateway_node
from ddnn.signing import unseal
from ddnn.status import Status
from ddnn.wire import Flag, Kind

MAX_SITES = 2000
MAX_WORKERS = 256
#: A node's status, settings, a ledger or a decision; a worker's status names all its sites.
MAX_TEXT_BYTES = 16_384
MAX_WORKER_BYTES = 2_000_000
MAX_LEDGER_COUNTS = 256
#: Everything kept of statuses and manifests together, as it was on the wire.
MAX_HELD_BYTES = 128_000_000
#: In the list of sites.
TROUBLES_EVERY_S = 5.0

#: Made once: see `ddnn.bundle`.
_LEDGER = msgspec.json.Decoder(dict[str, int])


class Picture:
    """All sites. Not thread-safe; time is given.

    Attributes:
        counts: of messages that were not used, by reason.
    """

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self._sites: dict[str, SiteState] = {}
        self._workers: dict[str, _Worker] = {}
        self._bundles: dict[str, tuple[BundleView, int]] = {}
        self._troubled: dict[str, tuple[float, int]] = {}
        self._held: dict[tuple[str, str], int] = {}
        self._held_bytes = 0

    @staticmethod
    def filters(*, scores: bool = True, site: str = "+") -> tuple[str, ...]:
        """What to subscribe to, beside the decisions (`topics.decision`).

        Args:
            scores: cameras' summaries too, which is a site's whole frame rate.
            site: of one site only; `+`: of all.
        """
        # Of all sites, statuses are the workers' too: two filters for one message are one too many.
        workers = () if site == "+" else (topics.worker_status_filter(),)
        wanted = (
            *workers,
            topics.status_filter(site),
            topics.ledger(site),
            topics.edge_ledger_filter(site),
            topics.settings(site),
            topics.audit_estimate(site),
            topics.active(site),
            topics.manifest(site),
        )
        return (*wanted, topics.summary_filter(site)) if scores else wanted

    # -- what is heard -------------------------------------------------------------------------

    def hear(self, topic: str, payload: bytes, retained: bool, now_s: float) -> None:
        """Take a message; one that cannot be used is counted and otherwise ignored."""
        try:
            self._hear(topic, payload, retained, now_s)
        except _Unused as error:
            self.counts[error.reason] += 1
        except DdnnError:
            self.counts["malformed"] += 1

    def decided(self, decision: PublishedDecision, now_s: float) -> None:
        """Take a decision that somebody else has decoded."""
        try:
            self._decided(decision, now_s)
        except _Unused as error:
            self.counts[error.reason] += 1

    def _hear(self, topic: str, payload: bytes, retained: bool, now_s: float) -> None:
        match topic.split("/"):
            case ["ddnn", "_cloud", "status", worker]:
                self._on_worker(worker, payload, retained, now_s)
            case ["ddnn", site, "status", node]:
                self._on_status(site, node, payload, retained, now_s)
            case ["ddnn", site, "ledger"]:
                self._on_ledger(site, payload)
            case ["ddnn", site, "ledger", node]:
                self._on_edge_ledger(site, node, payload)
            case ["ddnn", site, "settings"]:
                self._on_settings(site, payload)
            case ["ddnn", site, "model", "manifest"]:
                self._on_manifest(site, payload)
            case ["ddnn", site, "model", "active"]:
                self._on_active(site, payload)
            case ["ddnn", site, "decision"]:
                decision = decisions.decode(_bounded(payload))
                if decision.site != site:
                    raise _Unused("foreign")
                self._decided(decision, now_s)
            case ["ddnn", site, "audit", "estimate"]:
                self._on_audit(site, payload)
            case [site, "s", number]:
                self._on_summary(site, number, payload, now_s)
            case _:
                raise _Unused("foreign")

    def _on_worker(self, name: str, payload: bytes, retained: bool, now_s: float) -> None:
        if not payload:
            self._workers.pop(name, None)
            self._hold("_cloud", name, 0)
        else:
            report = _status(name, payload, MAX_WORKER_BYTES)
            known = self._workers.get(name)
            if known is None and len(self._workers) >= MAX_WORKERS:
                raise _Unused("workers_over_limit")
            self._hold("_cloud", name, len(payload))
            worker = self._workers.setdefault(name, _Worker(name))
            worker.hear(report, retained, now_s)
        # A worker's sites are many; all of them look again.
        for site in self._sites.values():
            site.revision += 1

    def _on_status(
        self, site: str, node: str, payload: bytes, retained: bool, now_s: float
    ) -> None:
        if not payload:
            if state := self._sites.get(site):
                state.forget_node(node)
                self._hold(site, f"status/{node}", 0)
                state.revision += 1
            return
        report = _status(node, payload, MAX_TEXT_BYTES)
        state = self._site(site)
        key = f"status/{node}"
        before = self._held.get((site, key), 0)
        self._hold(site, key, len(payload))
        if not state.status(report, retained, now_s):
            self._hold(site, key, before)
            raise _Unused("status_not_taken")
        state.revision += 1

    def _on_ledger(self, site: str, payload: bytes) -> None:
        state = self._site(site)
        state.ledger = _ledger(payload)
        state.revision += 1

    def _on_edge_ledger(self, site: str, node: str, payload: bytes) -> None:
        state = self._site(site)
        known = state.bundle.edges if state.bundle else ()
        if node not in {gateway_node(edge) for edge in range(len(known))}:
            raise _Unused("foreign")
        state.edge_ledgers[node] = _ledger(payload)
        state.revision += 1

    def _on_settings(self, site: str, payload: bytes) -> None:
        state = self._site(site)
        try:
            state.asked, state.asked_refused = tuning.decode(payload), None
        except ConfigError as error:
            state.asked_refused = str(error)
        state.revision += 1

    def _on_audit(self, site: str, payload: bytes) -> None:
        state = self._site(site)
        state.audit = audit.decode_estimate(_bounded(payload)) if payload else None
        state.revision += 1

    def _on_manifest(self, site: str, payload: bytes) -> None:
        state = self._site(site)
        state.offered = self._bundle(unseal(payload).payload) if payload else None
        self._forget_bundles()
        state.revision += 1

    def _on_active(self, site: str, payload: bytes) -> None:
        state = self._site(site)
        if not payload:
            state.runs(None, None)
        else:
            record = activation.decode(payload)
            manifest = unseal(record.manifest).payload
            if bundle_id(manifest) != record.bundle:
                raise _Unused("malformed")
            # The manifest is kept once, decoded; not again with every site's record.
            slim = msgspec.structs.replace(record, manifest=b"")
            state.runs(self._bundle(manifest), slim)
        self._forget_bundles()
        state.revision += 1

    def _on_summary(self, site: str, number: str, payload: bytes, now_s: float) -> None:
        state, camera = self._sites.get(site), topics.member_of(number)
        if state is None or camera is None:
            raise _Unused("foreign")
        frame = wire.decode(payload)
        if frame.kind is Kind.SUMMARIES:
            frame = summaries.split(frame)[-1]  # of several slots the last one
        if frame.kind is not Kind.SUMMARY:
            raise WireError(f"{frame.kind.name} where a SUMMARY belongs")
        scores = None if frame.flags & Flag.ABSENT else frame.body
        if not state.frame(camera, frame.tag, scores, now_s):
            raise _Unused("foreign")
        state.revision += 1

    def _decided(self, decision: PublishedDecision, now_s: float) -> None:
        # JSON has no largest number; a float has.
        if not (0 <= decision.slot < 2**62 and 0 <= decision.payload_bytes < 2**53):
            raise _Unused("malformed")
        state = self._site(decision.site)
        if not state.decided(decision, now_s):
            raise _Unused("repeats")
        state.revision += 1

    # -- what is there ---------------------------------------------------------------------------

    def sites(self) -> tuple[str, ...]:
        """Names of all sites, ascending."""
        return tuple(sorted(self._sites))

    def site(self, name: str, now_s: float) -> SiteView | None:
        """A site at `now_s`; None: nothing was heard of it."""
        state = self._sites.get(name)
        return state.view(self._workers_of(name, now_s), now_s) if state else None

    def revision(self, name: str) -> int:
        """Another one whenever something of the site was heard; 0: nothing was."""
        state = self._sites.get(name)
        return state.revision if state else 0

    def briefs(self, now_s: float) -> tuple[Brief, ...]:
        """Every site in one line."""
        return tuple(
            self._sites[name].brief(now_s, self._troubles(name, now_s)) for name in self.sites()
        )

    def _troubles(self, name: str, now_s: float) -> int:
        """How much is wrong with a site; looked at now and then, since it takes its whole view."""
        known = self._troubled.get(name)
        if known is None or not 0 <= now_s - known[0] < TROUBLES_EVERY_S:
            view = self.site(name, now_s)
            known = self._troubled[name] = (now_s, len(troubles(view)) if view else 0)
        return known[1]

    def _workers_of(self, site: str, now_s: float) -> Sequence[NodeView]:
        return [
            worker.view(site, now_s)
            for _, worker in sorted(self._workers.items())
            if worker.serves(site)
        ]

    # -- bounds ----------------------------------------------------------------------------------

    def _site(self, name: str) -> SiteState:
        state = self._sites.get(name)
        if state is None:
            topics.check_name(name)
            if len(self._sites) >= MAX_SITES:
                raise _Unused("sites_over_limit")
            state = self._sites[name] = SiteState(name)
        return state

    def _hold(self, site: str, what: str, size: int) -> None:
        """Keep account of what is held, and refuse what would be too much."""
        before = self._held.get((site, what), 0)
        if size > before and self._held_bytes + size - before > MAX_HELD_BYTES:
            raise _Unused("memory_over_limit")
        self._held_bytes += size - before
        if size:
            self._held[site, what] = size
        else:
            self._held.pop((site, what), None)

    def _bundle(self, payload: bytes) -> BundleView:
        """A manifest's view; sites that run the same bundle share one."""
        key = bundle_id(payload)
        if key not in self._bundles:
            view = bundle_view(decode_manifest(payload), payload)
            self._hold("", key, len(payload))
            self._bundles[key] = (view, len(payload))
        return self._bundles[key][0]

    def _forget_bundles(self) -> None:
        """Let go of bundles that no site has any more."""
        sites = self._sites.values()
        used = {b.id for state in sites for b in (state.bundle, state.offered) if b}
        for key in self._bundles.keys() - used:
            del self._bundles[key]
            self._hold("", key, 0)


class _Unused(Exception):
    """A message that is not used; `reason` is what it is counted as."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class _Worker:
    """A cloud worker, which serves many sites and belongs to none."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._said: Said | None = None

    def hear(self, report: Status, retained: bool, now_s: float) -> None:
        if self._said is None or not is_of_earlier_life(report, self._said.status, retained):
            self._said = Said.of(report, retained, now_s)

    def serves(self, site: str) -> bool:
        """Whether it has to do with this site at all."""
        report = self._said.status if self._said else None
        return report is not None and any(
            site in names for names in (report.sites, report.sites_staged, report.sites_refused)
        )

    def view(self, site: str, now_s: float) -> NodeView:
        """What it says of one site: others are not that site's business."""
        if self._said is None:
            return node_view(self._name, "worker", None, None, None, now_s)
        report = self._said.status
        prefix = f"{site}."
        own = msgspec.structs.replace(
            report,
            sites=_only(report.sites, site),
            sites_staged=_only(report.sites_staged, site),
            sites_refused=_only(report.sites_refused, site),
            notes={
                name.removeprefix(prefix): text
                for name, text in report.notes.items()
                if "." not in name or name.startswith(prefix)
            },
        )
        known = self._said._replace(status=own)
        return node_view(self._name, "worker", None, known, None, now_s)


def bundle_view(manifest: Manifest, payload: bytes) -> BundleView:
    """What people see of a manifest, given with its canonical bytes."""
    image, terms = manifest.image, manifest.terms
    expires = terms.expires if terms is not msgspec.UNSET else None
    return BundleView(
        id=bundle_id(payload),
        tag=tag(payload),
        name=manifest.name,
        version=manifest.version,
        created=manifest.created,
        classes=manifest.classes,
        exits=tuple(name for name in EXITS if name in manifest.exits),
        thresholds={
            name: info.threshold
            for name, info in manifest.exits.items()
            if info.threshold is not None
        },
        cameras=manifest.topology.cameras,
        edges=manifest.topology.edges,
        raw_bytes=manifest.topology.cameras * image.height * image.width * image.channels,
        accuracy=manifest.accuracy,
        calibration=manifest.calibration,
        missing=manifest.missing,
        expires_s=expires.timestamp() if expires else None,
    )


def _only(by_site: dict[str, str], site: str) -> dict[str, str]:
    return {site: by_site[site]} if site in by_site else {}


def _bounded(payload: bytes, limit: int = MAX_TEXT_BYTES) -> bytes:
    if len(payload) > limit:
        raise _Unused("oversize")
    return payload


def _status(node: str, payload: bytes, limit: int) -> Status:
    """A status, if it is that of the node whose topic it came by."""
    topics.check_name(node, "node")
    report = status.decode(_bounded(payload, limit))
    if report is None:
        raise _Unused("malformed")
    if report.node != node:
        raise _Unused("foreign")
    return report


def _ledger(payload: bytes) -> dict[str, int]:
    try:
        counts = _LEDGER.decode(_bounded(payload)) if payload else {}
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise _Unused("malformed") from error
    if len(counts) > MAX_LEDGER_COUNTS or not all(0 <= n < 2**63 for n in counts.values()):
        raise _Unused("malformed")
    return counts
