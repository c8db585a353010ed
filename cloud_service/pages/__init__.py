"""The dashboard's pages, in NiceGUI.

A page is renewed at most four times a second, sends what has changed and nothing else, and stops
sending to a browser that does not keep up. What many readers share (a site's view, the database's
answers) is made once for all of them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from fastapi import Request
from fastapi.responses import RedirectResponse, Response
from nicegui import ui

from cloud_service.overview import Overview
from cloud_service.pages.history import History, Shared
from cloud_service.pages.look import CSS
from cloud_service.pages.site import SitePage, Views
from cloud_service.pages.sites import Briefs, SitesPage
from cloud_service.pages.tuning import Send

__all__ = ["RUN_OPTIONS", "add_pages"]

#: For `ui.run_with`: the reader's own colour scheme, no style sheet compiled in the browser, and
#: a short memory of what was sent to a browser that may come back.
RUN_OPTIONS: dict[str, Any] = {
    "title": "DDNN",
    "dark": None,
    "language": "en-GB",
    "tailwind": False,
    "message_history_length": 200,
    "reconnect_timeout": 10.0,
    "binding_refresh_interval": None,
    "show_welcome_message": False,
}


def add_pages(
    overview: Overview,
    records: History | None,
    send: Send,
    may_tune: Callable[[Request], bool] = lambda _request: True,
) -> None:
    """Add the pages to NiceGUI's app; once for a process.

    Args:
        overview: what is shown.
        records: for what was; None: nothing is kept.
        send: publishes a message (topic, payload, retain); may raise `DdnnError`.
        may_tune: whether whoever asked for a page may change settings; asked again at each change.
    """
    views, briefs, shared = Views(overview), Briefs(overview), Shared(records)

    @ui.page("/", title="DDNN")
    def start() -> Response:
        sites = overview.sites()
        return RedirectResponse(f"/site/{sites[0]}" if len(sites) == 1 else "/sites")

    @ui.page("/sites", title="Sites · DDNN")
    def every_site() -> None:
        ui.add_css(CSS)
        SitesPage(briefs)

    @ui.page("/site/{name}")
    def one_site(name: str, request: Request) -> Response | None:
        if overview.site(name) is None:
            return RedirectResponse("/sites")
        ui.page_title(f"{name} · DDNN")
        ui.add_css(CSS)
        SitePage(name, views, shared, send, lambda: may_tune(request))
        return None
