"""What a site says at the moment: the last decision, the main numbers, and what is wrong."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

from nicegui import ui

from cloud_service.pages import charts
from cloud_service.pages.look import Box, Button, Card, Stats, Text
from cloud_service.views import NodeView, Seen, SiteView
from cloud_service.words import Trouble, answer, camera_state, clock, how, share, size

ROWS = 14
#: Troubles that are shown one by one.
MAX_TROUBLES = 12
_SIGNS = {"bad": "Fault", "warning": "Warning", "note": "Note"}


class NowPanel:
    """The last decision and the main numbers."""

    def __init__(self) -> None:
        with Card("now", "Now", "wide"), Box("div", "now"):
            with Box("div"):
                self._answer = Text("p", "–", "answer")
                self._how = Text("p", "", "soft")
            self._stats = Stats(
                "Decisions", "Left at", "Cameras send", "Latency", "Cameras there", "Accuracy"
            )

    def update(self, view: SiteView) -> None:
        """Show `view`."""
        latest, recent, bundle = view.latest, view.recent, view.bundle
        self._answer.show(answer(latest))
        self._how.show(how(latest))
        per_s = "–" if recent.per_s is None else f"{recent.per_s:.1f}/s"
        degraded = f"{recent.degraded} degraded" if recent.degraded else "none degraded"
        last = f"of the last {recent.decided}: {degraded}" if recent.decided else ""
        self._stats.show("Decisions", per_s, last)
        left = sorted(recent.exits.items(), key=lambda pair: -pair[1])
        first, *others = [f"{name} {share(n / recent.decided)}" for name, n in left] or ["–"]
        self._stats.show("Left at", first, ", ".join(others))
        sent = recent.payload_bytes
        less = f"{bundle.raw_bytes / sent:.0f}x less than raw views" if bundle and sent else ""
        self._stats.show("Cameras send", "–" if sent is None else f"{size(sent)}/frame", less)
        p50, p99 = recent.latency_ms_p50, recent.latency_ms_p99
        tail = "" if p99 is None else f"99 % within {p99:.0f} ms"
        self._stats.show("Latency", "–" if p50 is None else f"{p50:.0f} ms", tail)
        alive = sum(node.alive for node in view.cameras)
        gone = ", ".join(map(str, view.missing.cameras))
        self._stats.show(
            "Cameras there", f"{alive} of {len(view.cameras)}", f"missing: {gone}" if gone else ""
        )
        promised, complete = view.missing.promised, view.missing.complete
        usual = complete.overall if complete else None
        if usual is None and bundle and bundle.accuracy:
            usual = bundle.accuracy.overall
        now = promised.overall if promised else (usual if not gone else None)
        full = f"{share(usual)} with every camera" if gone and usual is not None else "as measured"
        self._stats.show("Accuracy", "–" if now is None else share(now), full)


class TroublePanel:
    """What is wrong, in plain words."""

    def __init__(self) -> None:
        with Card("state", "State", "wide slim"):
            # One sentence for those who do not see the list; said when it changes.
            self._said = Text("p", "", "", role="status")
            self._list = Box("ul", "troubles")
            with self._list:
                self._rows = [_TroubleRow() for _ in range(MAX_TROUBLES)]

    def update(self, found: Sequence[Trouble], *, linked: bool) -> None:
        """Show `found`, most urgent first; `linked`: whether the broker can be reached."""
        if not linked:
            self._said.show("Not known: there is no connection to the broker. Heard before:", "bad")
            found = [*found] or [Trouble("note", "Site", "all was well")]
        elif not found:
            self._said.show("All is well.", "ok")
        else:
            urgent = sum(trouble.level == "bad" for trouble in found)
            count = f"{len(found)} thing{'s' * (len(found) != 1)} to look at"
            self._said.show(f"{count}, {urgent} urgent." if urgent else f"{count}.", "")
        for number, row in enumerate(self._rows):
            row.update(found[number] if number < len(found) else None)
        self._list.set_visibility(bool(found))


class _TroubleRow:
    def __init__(self) -> None:
        self._row = Box("li")
        with self._row:
            self._sign = Text("strong")
            self._words = Text("span", "", "words")

    def update(self, trouble: Trouble | None) -> None:
        self._row.set_visibility(trouble is not None)
        if trouble is not None:
            self._row.look(trouble.level)
            self._sign.show(f"{_SIGNS[trouble.level]} · {trouble.where}: ")
            self._words.show(trouble.text)


class CamerasPanel:
    """Each camera: whether it is there, and what it says by itself."""

    def __init__(self) -> None:
        with Card("cameras", "Cameras"):
            self._tiles = Box("ul", "tiles")
            Text("h3", "Last scores of each camera")
            self._chart = ui.echart({}, renderer="svg").classes("chart")
            self._none = Text("p", "No camera has reported scores yet.", "soft small")
        self._by_name: dict[str, _Tile] = {}
        self._shape: object = None

    def update(self, view: SiteView) -> None:
        """Show `view`."""
        names = [node.node for node in view.cameras]
        if list(self._by_name) != names:
            self._tiles.clear()
            with self._tiles:
                self._by_name = {name: _Tile() for name in names}
        absent = {scores.camera for scores in view.scores if scores.absent}
        for node in view.cameras:
            missing = node.number in view.missing.cameras
            self._by_name[node.node].update(node, missing=missing, absent=node.number in absent)
        classes = view.bundle.classes if view.bundle else ()
        cameras = [node.number for node in view.cameras if node.number is not None]
        self._none.set_visibility(not view.scores)
        self._chart.set_visibility(bool(view.scores))
        if view.scores and classes:
            height = max(120, 44 + len(cameras) * (10 + 9 * min(len(classes), charts.MAX_CLASSES)))
            if self._shape != (shape := (tuple(cameras), classes)):
                self._shape = shape
                self._chart.style(f"height: {height}px")
            put(self._chart, charts.scores(view.scores, cameras, classes))


class _Tile:
    def __init__(self) -> None:
        self._tile = Box("li", "tile")
        with self._tile:
            self._name = Text("div", "", "name")
            self._state = Text("div", "", "small")
            self._more = Text("div", "", "soft small num")

    def update(self, node: NodeView, *, missing: bool, absent: bool) -> None:
        state, look = camera_state(node, missing=missing, absent=absent)
        self._tile.look("tile" if node.alive and not missing else "tile off")
        self._name.show(f"Camera {node.number}")
        self._state.show(state, f"small {look}")
        health = node.status.health if node.status and node.alive else None
        facts = []
        if health and health.fps is not None:
            facts.append(f"{health.fps:.0f} fps")
        if health and health.temperature_c is not None:
            facts.append(f"{health.temperature_c:.0f} °C")
        self._more.show(" · ".join(facts))


class StreamPanel:
    """Decisions as they come, newest first."""

    def __init__(self) -> None:
        with Card("decisions", "Decisions"):
            with Box("div", "row spread"):
                self._rate = Text("p", "", "soft small")
                self._pause = Button("Pause", "button plain", aria_pressed="false")
                self._pause.on("click", self._toggle)
            self._list = Box("ol", "stream", aria_label="Last decisions, newest first")
            with self._list:
                self._rows = deque(_Row() for _ in range(ROWS))
        self._paused = False
        self._newest: tuple[float, int] | None = None

    def _toggle(self) -> None:
        self._paused = not self._paused
        self._pause.show("Go on" if self._paused else "Pause")
        self._pause.props["aria-pressed"] = str(self._paused).lower()

    def update(self, view: SiteView) -> None:
        """Show what has come since the last time."""
        paused = "The list stands still; decisions go on." if self._paused else ""
        titles = "Time, answer, exit, cameras used, latency"
        self._rate.show(paused or (titles if view.decisions else "No decision yet."))
        if self._paused:
            return
        known = [(seen.at_s, seen.decision.slot) for seen in view.decisions]
        fresh = known.index(self._newest) if self._newest in known else len(known)
        self._newest = known[0] if known else None
        for seen in reversed(view.decisions[: min(fresh, ROWS)]):
            row = self._rows.pop()
            self._rows.appendleft(row)
            row.update(seen)
            row.item.move(self._list, target_index=0)


class _Row:
    def __init__(self) -> None:
        self.item = Box("li", "empty")
        with self.item:
            self._time = Text("span", "", "soft")
            self._said = Text("span", "", "said")
            self._exit = Text("span", "", "exit")
            self._members = Text("span", "", "members")
            self._latency = Text("span", "", "right")

    def update(self, seen: Seen) -> None:
        decision = seen.decision
        self.item.look(decision.exit if decision.exit in ("local", "edge", "cloud") else "none")
        self._time.show(clock(decision.time_s))
        self._said.show(answer(seen))
        self._exit.show(f"{decision.exit or '–'}{'!' if decision.degraded else ''}")
        total = len(decision.used) + len(decision.absent) + len(decision.missing)
        self._members.show(f"{len(decision.used)} of {total}")
        self._latency.show("–" if seen.latency_ms is None else f"{seen.latency_ms:.0f} ms")
        degraded = f", degraded: {decision.degraded}" if decision.degraded else ""
        self.item.attribute("title", f"slot {decision.slot}{degraded}")


def put(chart: ui.echart, options: charts.Options) -> None:
    """Other options for a chart; what is the same is not sent again."""
    if chart.options != options:
        chart.props["options"] = options
