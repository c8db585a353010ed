"""One site's page, and the rhythm in which it is renewed."""

from __future__ import annotations

import time
from collections.abc import Callable

from nicegui import Client, ui

from cloud_service.guard.asgi import VISITOR
from cloud_service.overview import Overview
from cloud_service.pages.bundle import AuditPanel, BundlePanel, LedgerPanel, MissingPanel
from cloud_service.pages.history import HistoryPanel, Shared
from cloud_service.pages.look import Box, Text
from cloud_service.pages.now import CamerasPanel, NowPanel, StreamPanel, TroublePanel
from cloud_service.pages.tuning import Send, TuningPanel
from cloud_service.views import Link, SiteView
from cloud_service.words import Trouble, duration, shorten, troubles

#: A page is renewed so often at most; the charts over time so often.
EVERY_S = 0.25
HISTORY_EVERY_S = 10.0
#: While nothing is heard, ages go on.
LOOK_AGAIN_S = 2.0
#: A browser acknowledges what it has shown every few seconds. One that is so many messages behind
#: gets nothing new until it has caught up: what would wait for it would only fill memory.
MAX_BEHIND = 60


class Views:
    """Each site's view, made once for all who look at it."""

    def __init__(self, overview: Overview) -> None:
        self.overview = overview
        self._made: dict[str, tuple[float, int, SiteView, list[Trouble]]] = {}

    def of(self, site: str) -> tuple[SiteView, list[Trouble]] | None:
        """The site now, and what is wrong with it; None where it is not known."""
        now, revision = time.monotonic(), self.overview.revision(site)
        made = self._made.get(site)
        if made is not None:
            age_s = now - made[0]
            if age_s < EVERY_S / 2 or (revision == made[1] and age_s < LOOK_AGAIN_S):
                return made[2], made[3]
        view = self.overview.site(site)
        if view is None:
            return None
        found = troubles(view)
        self._made[site] = (now, revision, view, found)
        return view, found


class LinkChip:
    """Whether the dashboard itself hears the broker."""

    def __init__(self) -> None:
        self._chip = Text("p", "", "chip", role="status")
        self._why = Text("p", "", "soft small")

    def update(self, link: Link) -> None:
        """Show `link`."""
        if link.up:
            self._chip.show("live", "chip ok")
            self._why.show("")
            return
        since = f" for {duration(time.time() - link.since_s)}" if link.since_s else ""
        self._chip.show("no connection to the broker", "chip bad")
        self._why.show(f"Nothing new{since}. {shorten(link.why or '')}")


def header(title: str, crumb: str | None) -> LinkChip:
    """The page's top: where one is, and whether what is shown is alive."""
    with ui.header(fixed=False).classes("top"):
        with Box("div", "where"):
            if crumb is not None:
                with Box("nav", "crumb", aria_label="Breadcrumb"):
                    Text("a", "All sites", href="/sites")
            Text("h1", title)
        chip = LinkChip()
        _way_out()
        return chip


def _way_out() -> None:
    """Who is logged in, and the way out; nothing where nobody had to log in."""
    request = ui.context.client.request
    visitor = request.scope.get(VISITOR) if request is not None else None
    who = visitor.now() if visitor is not None else None
    if who is None or who.how != "session":
        return
    with Box("form", "row", method="post", action="/logout"):
        Text("span", who.name, "soft small")
        Text("button", "Log out", "button plain", type="submit")


def is_behind(client: Client) -> bool:
    """Whether a browser has far too much to show already."""
    return len(client.outbox.message_history) > MAX_BEHIND


class SitePage:
    """A site's panels in one browser.

    Args:
        site: its name.
        views: shared by all.
        shared: the database's answers.
        send: publishes.
        allowed: whether this reader may change settings.
    """

    def __init__(
        self,
        site: str,
        views: Views,
        shared: Shared,
        send: Send,
        allowed: Callable[[], bool],
    ) -> None:
        self._site, self._views = site, views
        self._shown: tuple[SiteView, Link] | None = None
        self._history_at = 0.0
        self._link = header(site, "All sites")
        with Box("div", "page"):
            self._now = NowPanel()
            self._troubles = TroublePanel()
            self._cameras = CamerasPanel()
            self._stream = StreamPanel()
            self._history = HistoryPanel(site, shared)
            with Box("div", "stack"):
                self._tuning = TuningPanel(site, send, allowed)
                self._audit = AuditPanel()
            with Box("div", "stack"):
                self._missing = MissingPanel()
                self._bundle = BundlePanel()
                self._ledger = LedgerPanel()
        self._client = ui.context.client
        self.renew()
        ui.timer(EVERY_S, self._tick, immediate=False)

    def renew(self) -> None:
        """Show the site as it is now; only what has changed is sent."""
        known, link = self._views.of(self._site), self._views.overview.link
        if known is None:
            return
        view, found = known
        self._link.update(link)
        if self._shown is not None and self._shown[0] is view and self._shown[1] is link:
            return
        self._shown = (view, link)
        self._now.update(view)
        self._troubles.update(found, linked=link.up)
        self._cameras.update(view)
        self._stream.update(view)
        self._tuning.update(view, linked=link.up)
        self._missing.update(view)
        self._bundle.update(view)
        self._ledger.update(view)
        self._audit.update(view)

    async def _tick(self) -> None:
        if is_behind(self._client):
            return
        self.renew()
        now = time.monotonic()
        if self._shown is not None and now - self._history_at >= HISTORY_EVERY_S:
            self._history_at = now
            await self._history.update(self._shown[0])
