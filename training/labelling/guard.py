"""Who may talk to the labelling page: a browser on this machine that was sent here by nobody else.

The page listens on the loopback interface alone. That does not keep out a web site: its script may
give its own name this machine's address (DNS rebinding) or open a web socket across sites. Both
show in a header that a script cannot forge, Host or Origin.
"""

from __future__ import annotations

from typing import Any
from urllib.parse import urlsplit

from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Receive, Scope, Send

LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})


class LoopbackOnly:
    """ASGI middleware: requests to another host name or from another site's pages get 403."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass on, or refuse."""
        if scope["type"] in ("http", "websocket") and not is_own(_headers(scope)):
            if scope["type"] == "websocket":
                await receive()
                await send({"type": "websocket.close", "code": 1008})
                return
            await PlainTextResponse("this page is for this machine alone", 403)(
                scope, receive, send
            )
            return
        await self._app(scope, receive, send)


def is_own(headers: dict[str, str]) -> bool:
    """Whether Host is this machine, and Origin, where there is one, this page."""
    host = headers.get("host", "")
    try:
        if urlsplit(f"//{host}").hostname not in LOOPBACK:
            return False
        origin = headers.get("origin")
        return origin is None or urlsplit(origin).netloc == host
    except ValueError:
        return False


def _headers(scope: Scope) -> dict[str, str]:
    found: dict[str, str] = {}
    pairs: Any = scope["headers"]
    for name, value in pairs:
        found[name.decode("latin-1").lower()] = value.decode("latin-1")
    return found
