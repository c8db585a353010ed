"""The list of sites."""

from __future__ import annotations

import time

from nicegui import ui

from cloud_service.overview import Overview
from cloud_service.pages.look import Box, Field, Text
from cloud_service.pages.site import header, is_behind
from cloud_service.views import Brief
from cloud_service.words import QUIET_S, duration

EVERY_S = 1.0
#: Sites that are shown at once; the rest is found by its name.
MAX_SHOWN = 120


class Briefs:
    """All sites in one line each, made once for all who look."""

    def __init__(self, overview: Overview) -> None:
        self.overview = overview
        self._made: tuple[float, tuple[Brief, ...]] | None = None

    def now(self) -> tuple[Brief, ...]:
        """Those with trouble first."""
        at = time.monotonic()
        if self._made is None or at - self._made[0] >= EVERY_S / 2:
            ordered = sorted(
                self.overview.briefs(), key=lambda brief: (_is_well(brief), brief.site)
            )
            self._made = (at, tuple(ordered))
        return self._made[1]


class SitesPage:
    """The list in one browser."""

    def __init__(self, briefs: Briefs) -> None:
        self._briefs = briefs
        self._wanted = ""
        self._link = header("Sites", None)
        with Box("div", "page"), Box("section", "wide", aria_label="Sites"):
            with Box("div", "row"):
                label = Text("label", "Find")
                Field("input", self._typed, event="input", type="search").name_it(label)
                self._said = Text("p", "", "soft small", role="status")
            self._list = Box("ul", "sites")
        self._cards: dict[str, _Card] = {}
        self._client = ui.context.client
        self.renew()
        ui.timer(EVERY_S, self._tick, immediate=False)

    def _typed(self, value: str) -> None:
        self._wanted = value.strip().lower()
        self.renew()

    def _tick(self) -> None:
        if not is_behind(self._client):
            self.renew()

    def renew(self) -> None:
        """Show the sites as they are now."""
        self._link.update(self._briefs.overview.link)
        every = self._briefs.now()
        found = [brief for brief in every if self._wanted in brief.site.lower()]
        shown = found[:MAX_SHOWN]
        ill = sum(not _is_well(brief) for brief in every)
        more = f", the first {len(shown)} of {len(found)}" if len(found) > len(shown) else ""
        if every:
            self._said.show(f"{len(every)} sites, {ill} with something to look at{more}.")
        else:
            self._said.show("No site has been heard of yet.")
        if list(self._cards) != [brief.site for brief in shown]:
            self._list.clear()
            with self._list:
                self._cards = {brief.site: _Card(brief.site) for brief in shown}
        for brief in shown:
            self._cards[brief.site].update(brief)


class _Card:
    def __init__(self, site: str) -> None:
        with Box("li"), Box("a", "card", href=f"/site/{site}"):
            with Box("div", "row spread"):
                Text("h2", site)
                self._state = Text("span", "", "chip")
            self._answer = Text("p")
            self._more = Text("p", "", "soft small")

    def update(self, brief: Brief) -> None:
        state, look = _state(brief)
        self._state.show(state, f"chip {look}")
        self._answer.show(brief.label or ("–" if brief.idle_s is None else "nothing seen"))
        ago = "no decision yet" if brief.idle_s is None else f"{duration(brief.idle_s)} ago"
        where = f", {brief.exit} exit" if brief.exit else ""
        self._more.show(f"{brief.cameras_alive} of {brief.cameras} cameras · {ago}{where}")


def _is_well(brief: Brief) -> bool:
    return _state(brief)[1] == "ok"


def _state(brief: Brief) -> tuple[str, str]:
    if not brief.gateway:
        return "no gateway", "bad"
    if brief.idle_s is None or brief.idle_s > QUIET_S:
        return "no decisions", "warning"
    return (f"{brief.troubles} to look at", "warning") if brief.troubles else ("well", "ok")
