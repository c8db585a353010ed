"""The guard before every request and websocket: `guard.rules` as an ASGI application."""

from __future__ import annotations

import json
import re
import secrets
import urllib.parse
from collections.abc import Iterable

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from cloud_service.guard import rules
from cloud_service.guard.door import Door
from cloud_service.guard.rules import Asked, Refusal, Who

#: Where a request's owner is found in its scope: a `Visitor`.
VISITOR = "ddnn.visitor"
#: The pages' own traffic; what it changes is checked where it is done.
PAGE_TRAFFIC = "/_nicegui_ws/"
#: Has a page (NiceGUI's own message) load itself again: whose session is over sees the login.
LOAD_AGAIN = '42["try_reconnect"]'
MAX_SOCKETS = 256
#: Headers that must not come twice: which of the two would count?
_SINGLE = (b"host", b"origin", b"authorization", b"content-length")
#: Headers of an answer that are for the guard alone to give.
_OURS = (b"server", b"x-powered-by")
_SCRIPT = re.compile(rb"<script(?=[\s>])")


class Visitor:
    """Whose page it is, asked anew each time: a session may end while its page is open."""

    def __init__(self, door: Door, headers: dict[str, str]) -> None:
        self._door = door
        self._headers = headers

    def now(self) -> Who | None:
        """Who it is at this moment; None: not any more."""
        return self._door.who(self._headers)


class Guard:
    """Lets through what `guard.rules` permit, and gives every answer its security headers.

    Args:
        app: what it guards.
        door: knows whose request it is.
        names: host names and addresses by which this server is called.

    Attributes:
        answers: answers by the first digit of their status.
        sockets: browsers connected now.
    """

    def __init__(self, app: ASGIApp, door: Door, names: Iterable[str]) -> None:
        self.app = app
        self.answers: dict[str, int] = dict.fromkeys(("1", "2", "3", "4", "5"), 0)
        self.sockets = 0
        self._door = door
        self._names = frozenset(name.lower() for name in names)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request, websocket, or the life of the server."""
        if scope["type"] not in ("http", "websocket"):
            await self.app(scope, receive, send)
            return
        asked = _asked(scope)
        refusal, who = self._judge(scope, asked)
        if refusal is None:
            scope[VISITOR] = Visitor(self._door, dict(asked.headers))
            if asked.kind == "websocket":
                await self._socket(asked, scope, receive, send)
            else:
                await self.app(scope, receive, self._answering(asked, send))
            return
        if refusal.reason != "session":  # whoever has no session yet has done nothing wrong
            self._door.counts[refusal.reason] += 1
        if asked.kind == "websocket":
            await send({"type": "websocket.close", "code": 1008})
            return
        if refusal.reason == "session" and rules.wants_page(asked):
            await self._send_to_login(asked, send)
            return
        await self._refuse(refusal, who, send)

    def _judge(self, scope: Scope, asked: Asked) -> tuple[Refusal | None, Who | None]:
        names = [name for name, _ in scope["headers"] if name in _SINGLE]
        if len(set(names)) != len(names):
            return Refusal(400, "size", "a header that may come once came twice"), None
        refusal = rules.check_host(asked, self._names) or rules.check_origin(asked)
        refusal = refusal or self._check_size(asked)
        if refusal:
            return refusal, None
        who = self._door.who(asked.headers)
        if who is None and not rules.is_public(asked):
            return Refusal(401, "session", "log in, or send a token"), None
        if asked.path.startswith(PAGE_TRAFFIC):
            asked = asked._replace(kind="websocket")
        return rules.check_change(asked, who), who

    def _check_size(self, asked: Asked) -> Refusal | None:
        if asked.kind == "websocket":
            if self.sockets >= MAX_SOCKETS:
                return Refusal(503, "size", "too many browsers are connected")
            return None
        length = asked.headers.get("content-length", "0")
        if "transfer-encoding" in asked.headers or not length.isdecimal():
            return Refusal(411, "size", "a body must come with its length")
        if int(length[:20]) > rules.MAX_BODY_BYTES:
            return Refusal(413, "size", "the body is too long")
        return None

    async def _socket(self, asked: Asked, scope: Scope, receive: Receive, send: Send) -> None:
        """A websocket ends when its session does."""
        visitor: Visitor = scope[VISITOR]

        async def receive_while_valid() -> Message:
            message = await receive()
            if message["type"] == "websocket.receive" and visitor.now() is None:
                if asked.path.startswith(PAGE_TRAFFIC):
                    await send({"type": "websocket.send", "text": LOAD_AGAIN})
                await send({"type": "websocket.close", "code": 4401})
                return {"type": "websocket.disconnect", "code": 4401}
            return message

        self.sockets += 1
        try:
            await self.app(scope, receive_while_valid, send)
        finally:
            self.sockets -= 1

    def _answering(self, asked: Asked, send: Send) -> Send:
        """Give answers their headers, and the scripts of pages their nonce."""
        start: Message | None = None
        nonce = ""
        body = bytearray()

        async def answer(message: Message) -> None:
            nonlocal start, nonce
            if message["type"] == "http.response.start":
                self._count(message["status"])
                headers = [
                    (name, value)
                    for name, value in message.get("headers", ())
                    if name.lower() not in _OURS and not name.lower().startswith(b"access-control-")
                ]
                given = {name.lower(): value for name, value in headers}
                is_page = given.get(b"content-type", b"").startswith(b"text/html")
                own_csp = b"content-security-policy" in given
                csp = rules.STRICT_CSP
                if is_page and not own_csp:
                    nonce = secrets.token_urlsafe(16)
                    csp = rules.page_csp(nonce)
                headers += [
                    (name, value)
                    for name, value in rules.headers_for(tls=self._door.tls, csp=csp)
                    if name not in given
                ]
                if b"cache-control" not in given or is_page:
                    headers = [h for h in headers if h[0].lower() != b"cache-control"]
                    headers.append((b"cache-control", b"no-store"))
                message = {**message, "headers": headers}
                if nonce:  # its length changes: hold it back until the body is whole
                    start = message
                    return
            elif start is not None and message["type"] == "http.response.body":
                body.extend(message.get("body", b""))
                if message.get("more_body"):
                    return
                page = _SCRIPT.sub(b'<script nonce="' + nonce.encode() + b'"', bytes(body))
                kept = [h for h in start["headers"] if h[0].lower() != b"content-length"]
                kept.append((b"content-length", str(len(page)).encode()))
                await send({**start, "headers": kept})
                # A HEAD's answer has no body, and keeps the length of none.
                await send({"type": "http.response.body", "body": page})
                return
            await send(message)

        return answer

    async def _send_to_login(self, asked: Asked, send: Send) -> None:
        where = "/login"
        if (page := rules.next_page(asked.path)) != "/":
            where += "?" + urllib.parse.urlencode({"next": page})
        await self._send(303, [(b"location", where.encode())], b"", send)

    async def _refuse(self, refusal: Refusal, who: Who | None, send: Send) -> None:
        """As RFC 9457 has it."""
        problem = {"type": "about:blank", "status": refusal.status, "detail": refusal.text}
        headers = [(b"content-type", b"application/problem+json")]
        if refusal.status == 401:
            headers.append((b"www-authenticate", b"Bearer"))
        await self._send(refusal.status, headers, json.dumps(problem).encode(), send)

    async def _send(
        self, status: int, headers: list[tuple[bytes, bytes]], body: bytes, send: Send
    ) -> None:
        self._count(status)
        headers += rules.headers_for(tls=self._door.tls, csp=rules.STRICT_CSP)
        headers += [
            (b"cache-control", b"no-store"),
            (b"content-length", str(len(body)).encode()),
        ]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    def _count(self, status: int) -> None:
        digit = str(status)[0]
        self.answers[digit] = self.answers.get(digit, 0) + 1


def _asked(scope: Scope) -> Asked:
    headers = {
        name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]
    }
    is_tls = scope.get("scheme") in ("https", "wss")
    return Asked(
        kind=scope["type"],
        method=scope.get("method", "GET"),
        scheme="https" if is_tls else "http",
        path=scope["path"],
        headers=headers,
    )
