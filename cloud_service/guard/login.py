"""The way in and out: `/login` and `/logout`. No script, nothing of the pages' libraries."""

from __future__ import annotations

import html
import secrets
from pathlib import Path
from string import Template

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse, RedirectResponse, Response

from cloud_service.guard import rules
from cloud_service.guard.door import Door, LoggedIn

_PAGE = Template(Path(__file__).with_name("login.html").read_text(encoding="utf-8"))
MAX_FIELD = 1024


def router(door: Door) -> APIRouter:
    """The routes."""
    routes = APIRouter(include_in_schema=False)

    @routes.get("/login")
    async def show(request: Request) -> Response:
        where = rules.next_page(request.query_params.get("next", "/"))
        if door.is_open or door.who(request.headers) is not None:
            return RedirectResponse(where, 303)
        return _page(where)

    @routes.post("/login")
    async def log_in(request: Request) -> Response:
        if door.is_open:
            return RedirectResponse("/", 303)
        async with request.form(max_files=0, max_fields=8) as form:
            name, password, where = (
                str(form.get(field, ""))[:MAX_FIELD] for field in ("name", "password", "next")
            )
        where = rules.next_page(where)
        address = request.client.host if request.client else ""
        outcome = await door.log_in(name, password, address)
        if not isinstance(outcome, LoggedIn):
            return _page(where, outcome.text, outcome.status)
        # An old session of this browser does not go on beside the new one.
        door.sessions.end(door.session_id(request.headers))
        return RedirectResponse(
            where, 303, headers={"set-cookie": door.set_cookie(outcome.session_id)}
        )

    @routes.post("/logout")
    async def log_out(request: Request) -> Response:
        door.sessions.end(door.session_id(request.headers))
        return RedirectResponse("/login", 303, headers={"set-cookie": door.set_cookie("")})

    return routes


def _page(where: str, problem: str = "", status: int = 200) -> HTMLResponse:
    nonce = secrets.token_urlsafe(16)
    text = _PAGE.substitute(nonce=nonce, next=html.escape(where), problem=html.escape(problem))
    headers = {"content-security-policy": rules.login_csp(nonce), "cache-control": "no-store"}
    return HTMLResponse(text, status, headers)
