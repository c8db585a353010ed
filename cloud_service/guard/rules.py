"""What a request must be like before anything looks at it. Pure.

In this order:

1. Its Host header names this server. A name that somebody else points at this address (DNS
   rebinding) is refused, on loopback, too.
2. It does not come from a page of another origin: its Origin, where it has one, is this server's
   own, and so is what the browser says of itself (Sec-Fetch-Site). A person may follow a link from
   anywhere to a page, and that is all. A websocket always says its Origin, and must. What changes
   something, with a cookie, must say it, too.
3. It is known whose it is: a bearer token, a session's cookie, or, where no users are set up and
   the server listens on loopback only, whoever is on this machine.
4. That one may do it: a viewer reads, an operator also changes things.

Source: Fetch Metadata Request Headers (W3C); OWASP Cross-Site Request Forgery Prevention.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, NamedTuple

#: A viewer sees everything; an operator also sets thresholds and budgets.
Role = Literal["viewer", "operator"]
Reason = Literal["host", "origin", "csrf", "login", "rate", "session", "role", "size"]
SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})
#: What may be seen without a login: the way in, and whether the process lives.
PUBLIC = frozenset({"/login", "/healthz", "/readyz", "/favicon.ico"})
MAX_BODY_BYTES = 1_000_000


class Asked(NamedTuple):
    """A request, as far as it matters here.

    Attributes:
        kind: `http` or `websocket`.
        scheme: `http` or `https`, as the browser sees it.
        headers: by name in small letters.
    """

    kind: str
    method: str
    scheme: str
    path: str
    headers: Mapping[str, str]


class Who(NamedTuple):
    """Whose request it is.

    Attributes:
        how: `session`, `token`, or `local` (anybody on this machine).
    """

    name: str
    role: Role
    how: Literal["session", "token", "local"]


class Refusal(NamedTuple):
    """Why a request goes no further."""

    status: int
    reason: Reason
    text: str


def check_host(asked: Asked, names: frozenset[str]) -> Refusal | None:
    """Rule 1.

    Args:
        names: host names and addresses of this server, in small letters.
    """
    if host_name(asked.headers.get("host", "")) in names:
        return None
    return Refusal(421, "host", "this server is not called by that name (setting `names`)")


def check_origin(asked: Asked) -> Refusal | None:
    """Rule 2."""
    headers = asked.headers
    own = f"{asked.scheme}://{headers.get('host', '').lower()}"
    origin = headers.get("origin")
    if origin is not None and origin.lower() != own:
        return Refusal(403, "origin", "requests of other origins are refused")
    if asked.kind == "websocket":
        return None if origin else Refusal(403, "origin", "a websocket must say its origin")
    site = headers.get("sec-fetch-site")
    if site in (None, "same-origin", "none"):
        return None
    is_page = headers.get("sec-fetch-mode") == "navigate" and asked.method == "GET"
    if is_page and headers.get("sec-fetch-dest") == "document":
        return None
    return Refusal(403, "origin", "requests of other sites are refused")


def check_change(asked: Asked, who: Who | None) -> Refusal | None:
    """Rules 2 and 4, for what changes something."""
    if asked.method in SAFE_METHODS or asked.kind == "websocket":
        return None
    if who is None or who.how != "token":
        said = "origin" in asked.headers or asked.headers.get("sec-fetch-site") == "same-origin"
        if not said:
            return Refusal(403, "csrf", "a request that changes something must say its origin")
    if who is not None and who.role != "operator" and asked.path not in ("/login", "/logout"):
        return Refusal(403, "role", "only operators may change something")
    return None


def is_public(asked: Asked) -> bool:
    """Whether it may be asked without a login."""
    return asked.path in PUBLIC


def wants_page(asked: Asked) -> bool:
    """Whether a person waits for a page, who should be sent to the login, not told a number."""
    return asked.method == "GET" and "text/html" in asked.headers.get("accept", "")


def next_page(text: str) -> str:
    """Where to go after the login: a path of this server, whatever was asked for."""
    printable = text.isascii() and text.isprintable()
    if not printable or len(text) > 500 or not text.startswith("/"):
        return "/"
    if text.startswith(("//", "/login", "/logout")) or "\\" in text:
        return "/"
    return text


def host_name(header: str) -> str:
    """The name in a Host header, without its port, in small letters; empty: there is none."""
    header = header.strip().lower()
    if header.startswith("["):
        name, bracket, rest = header[1:].partition("]")
        return name if bracket and (not rest or _is_port(rest)) else ""
    name, colon, port = header.partition(":")
    return name if not colon or port.isdecimal() else ""


def _is_port(text: str) -> bool:
    return text.startswith(":") and text[1:].isdecimal()


#: For what is no page: nothing may be loaded by it or show it.
STRICT_CSP = "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"


def headers_for(*, tls: bool, csp: str) -> list[tuple[bytes, bytes]]:
    """Security headers of every answer."""
    found = {
        "content-security-policy": csp,
        "x-content-type-options": "nosniff",
        "x-frame-options": "DENY",
        # With no-referrer a form would say that its origin is "null".
        "referrer-policy": "same-origin",
        "cross-origin-opener-policy": "same-origin",
        "cross-origin-resource-policy": "same-origin",
        "permissions-policy": "camera=(), geolocation=(), microphone=(), payment=(), usb=()",
    }
    if tls:
        found["strict-transport-security"] = "max-age=31536000"
    return [(name.encode(), value.encode()) for name, value in found.items()]


def page_csp(nonce: str) -> str:
    """Of a NiceGUI page.

    Its client builds functions from text (eval) and sets styles; so these two cannot be forbidden.
    Scripts run only from this server's files and from the page's own tags, which carry the nonce;
    handlers in attributes do not run; nothing is loaded from, sent to or shown in another place.
    """
    return (
        "default-src 'none'; "
        f"script-src 'self' 'nonce-{nonce}' 'unsafe-eval'; "
        "style-src 'self' 'unsafe-inline'; img-src 'self' data:; font-src 'self'; "
        "connect-src 'self'; manifest-src 'self'; "
        "base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
    )


def login_csp(nonce: str) -> str:
    """Of the login page: no script at all."""
    return (
        f"default-src 'none'; style-src 'nonce-{nonce}'; img-src 'self'; base-uri 'none'; "
        "form-action 'self'; frame-ancestors 'none'"
    )
