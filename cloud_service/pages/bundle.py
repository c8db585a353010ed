"""The bundle of a site: its roll-out by node, and what it promises without some cameras."""

from __future__ import annotations

from nicegui import ui

from cloud_service.pages import charts
from cloud_service.pages.look import Box, Card, Stats, Text
from cloud_service.pages.now import put
from cloud_service.views import BundleView, NodeRollout, Rollout, SiteView
from cloud_service.words import duration, share, shorten

_STAGES = {
    "staging": ("being fetched and tested by the nodes", "warning"),
    "held up": ("held up: a node refuses it", "bad"),
    "on trial": ("on trial beside the running one", "warning"),
    "planned": ("ready: the change is planned", "warning"),
    "given up": ("given up: the site went back", "bad"),
    "done": ("running", "ok"),
}
_STEPS = {
    "offered": ("offered", "soft"),
    "staged": ("ready", "local"),
    "refused": ("refused", "bad"),
    "running": ("running", "ok"),
    "offline": ("offline", "warning"),
}


class BundlePanel:
    """Which bundle runs, and how far the next one is on each node."""

    def __init__(self) -> None:
        with Card("bundle", "Bundle"):
            self._name = Text("p")
            self._more = Text("p", "", "soft small")
            with Box("div", "row"):
                self._stage = Text("p", "", "chip")
                self._when = Text("p", "", "soft small", role="status")
            self._waiting = Text("p", "", "small")
            with Box("div", "scroll", tabindex="0", role="group", aria_label="Roll-out by node"):
                self._table = Box("table", "steps")
                with self._table:
                    with Box("thead"), Box("tr"):
                        for title in ("Node", "This bundle", "Why"):
                            Text("th", title, scope="col")
                    self._body = Box("tbody")
        self._rows: dict[str, tuple[Text, Text]] = {}

    def update(self, view: SiteView) -> None:
        """Show `view`."""
        bundle, rollout = view.bundle, view.rollout
        if bundle is None:
            self._name.show("No bundle is active.")
        else:
            self._name.show(f"{bundle.name} version {bundle.version}")
            self._more.show(_details(bundle, view.now_s))
        self._stage.set_visibility(rollout is not None)
        if rollout is None:
            return
        words, look = _STAGES[rollout.stage]
        self._stage.show(f"version {rollout.version}: {words}", f"chip {look}")
        self._when.show(_when(rollout, view.period_s, view.now_s))
        self._waiting.show(shorten(rollout.waiting) if rollout.waiting else "")
        self._show_nodes(rollout.nodes)

    def _show_nodes(self, nodes: tuple[NodeRollout, ...]) -> None:
        if list(self._rows) != [step.node for step in nodes]:
            self._body.clear()
            self._rows.clear()
            with self._body:
                for step in nodes:
                    with Box("tr"):
                        Text("td", step.node)
                        self._rows[step.node] = Text("td"), Text("td", "", "small")
        for step in nodes:
            progress, why = self._rows[step.node]
            progress.show(*_STEPS[step.progress])
            why.show(shorten(step.why or ""))


class MissingPanel:
    """Which cameras are missing, and the accuracy that the bundle promises for just this set."""

    def __init__(self) -> None:
        with Card("missing", "Missing cameras"):
            self._said = Text("p")
            self._stats = Stats("Now", "Every camera")
            self._title = Text("h3", "If one more camera went")
            self._chart = ui.echart({}, renderer="svg").classes("chart")
            self._none = Text("p", "This bundle was not measured without cameras.", "soft small")
        self._shown: object = None

    def update(self, view: SiteView) -> None:
        """Show `view`."""
        missing, bundle = view.missing, view.bundle
        gone = ", ".join(map(str, missing.cameras))
        self._said.show(f"Missing now: {gone}." if gone else "No camera is missing.")
        promised, complete = missing.promised, missing.complete
        answered = "" if promised is None else f"{share(promised.answered)} of the scenes are seen"
        self._stats.show(
            "Now", "not measured" if promised is None else share(promised.overall), answered
        )
        self._stats.show("Every camera", "–" if complete is None else share(complete.overall))
        if self._shown == (shape := (bundle.id if bundle else None, missing.cameras)):
            return
        self._shown = shape
        table = bundle.missing if bundle else None
        rows: list[tuple[str, float | None]] = []
        if bundle is not None and table is not None:
            for camera in sorted(set(range(bundle.cameras)) - set(missing.cameras)):
                entry = table.without(tuple(sorted({*missing.cameras, camera})))
                rows.append((f"without {camera}", entry.overall if entry else None))
        known = any(value is not None for _, value in rows)
        for part in (self._title, self._chart):
            part.set_visibility(known)
        self._none.set_visibility(table is None)
        if known:
            self._chart.style(f"height: {24 + 26 * len(rows)}px")
            put(self._chart, charts.promises(rows, promised.overall if promised else None))


class AuditPanel:
    """How often the early exits are wrong, by the deepest one's judgement."""

    def __init__(self) -> None:
        self._card = Card("audit", "Audits of early exits")
        with self._card:
            self._said = Text("p", "", "soft small")
            scroll = Box("div", "scroll", tabindex="0", role="group", aria_label="Audits by exit")
            with scroll, Box("table", "steps"):
                with Box("thead"), Box("tr"):
                    for title in ("Exit", "Label", "Audited", "Disagrees", "95 % interval"):
                        Text("th", title, scope="col")
                self._body = Box("tbody")
        self._shown: object = None

    def update(self, view: SiteView) -> None:
        """Show `view`; nothing at all where a site is not audited."""
        estimate = view.audit
        self._card.set_visibility(estimate is not None)
        if estimate is None or estimate == self._shown:
            return
        self._shown = estimate
        self._said.show(
            f"{share(estimate.share)} of the early decisions are asked again of the exits after "
            f"them: {estimate.completed} so far."
        )
        self._body.clear()
        with self._body:
            for exit_ in estimate.exits:
                classes = sorted(exit_.classes.items())[:32]
                for label, found in [("all", exit_.all), *classes]:
                    with Box("tr"):
                        Text("td", exit_.exit + (" (drift)" if exit_.drift else ""))
                        Text("td", shorten(label))
                        Text("td", str(found.audited), "num")
                        Text("td", "–" if found.rate is None else share(found.rate), "num")
                        Text("td", f"{share(found.low)} to {share(found.high)}", "num")


class LedgerPanel:
    """The gateway's own counts: every slot ends in one of them."""

    def __init__(self) -> None:
        with Card("ledger", "Ledger"):
            self._sum = Text("p", "", "num")
            with Box("details"):
                Text("summary", "All counts")
                self._all = Text("p", "", "soft small num")

    def update(self, view: SiteView) -> None:
        """Show `view`."""
        counts = view.ledger
        if not counts:
            self._sum.show("The gateway has not said anything yet.")
            return
        ends = ", ".join(f"{counts.get(n, 0)} {n}" for n in ("decided", "degraded", "expired"))
        self._sum.show(f"{counts.get('opened', 0)} slots: {ends}, {counts.get('open', 0)} open")
        self._all.show(" · ".join(f"{shorten(n)} {count}" for n, count in sorted(counts.items())))


def _details(bundle: BundleView, now_s: float) -> str:
    parts = [f"id {bundle.id[:12]}", f"made {bundle.created[:10]}"]
    thresholds = ", ".join(f"{name} {value:g}" for name, value in bundle.thresholds.items())
    if thresholds:
        parts.append(f"thresholds {thresholds}")
    if bundle.expires_s is not None:
        left_s = bundle.expires_s - now_s
        parts.append(f"expires in {duration(left_s)}" if left_s > 0 else "expired")
    return " · ".join(parts)


def _when(rollout: Rollout, period_s: float | None, now_s: float) -> str:
    if rollout.from_slot is None:
        ready = sum(step.progress in ("staged", "running") for step in rollout.nodes)
        asked = sum(step.progress != "offline" for step in rollout.nodes)
        return f"{ready} of {asked} live nodes ready"
    if rollout.stage == "planned" and rollout.in_s is not None:
        return f"from slot {rollout.from_slot} on, in {duration(rollout.in_s)}"
    if period_s and rollout.from_slot:
        return f"since slot {rollout.from_slot}, {duration(now_s - rollout.from_slot * period_s)}"
    return "since the site began"
