"""The door: whose request it is, and how one gets in.

Used on the event loop only; a password is checked on another thread, one at a time, since argon2
takes a processor and 64 MB for a moment by design.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Callable, Mapping
from typing import NamedTuple

from starlette.requests import cookie_parser

from cloud_service.guard.rules import Refusal, Who
from cloud_service.guard.sessions import Sessions
from cloud_service.guard.throttle import Throttle, network_of
from cloud_service.guard.users import User, Users, UsersFile, verify

log = logging.getLogger(__name__)

#: Failed logins at once, and the seconds until one more is allowed: of one address, for one user
#: (whoever tries), and of everybody together, which bounds the time spent on hashing. One address
#: alone can use up neither a user's tries nor everybody's.
PER_ADDRESS = (5, 20.0)
PER_USER = (20, 10.0)
TOGETHER = (30, 1.0)
IDLE_S = 2 * 3600.0


class LoggedIn(NamedTuple):
    """A login that went well."""

    who: Who
    session_id: str


class Door:
    """Sessions and logins of one process.

    Args:
        users: who may come in; None: no users are set up, everybody on this machine may.
        tls: whether browsers come by TLS (the cookie is named and marked accordingly).
        life_s: a session ends so long after its login.
        clock: monotonic seconds.

    Attributes:
        counts: requests refused, by reason.
    """

    def __init__(
        self,
        users: UsersFile | None,
        *,
        tls: bool,
        life_s: float = 12 * 3600.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.counts: Counter[str] = Counter()
        self.tls = tls
        self.life_s = life_s
        # A browser takes a cookie of this name only with Secure, for this host and every path.
        self.cookie = "__Host-ddnn" if tls else "ddnn"
        self.sessions = Sessions(min(IDLE_S, life_s), life_s)
        self._users = users
        self._clock = clock
        self._by_address = Throttle(*PER_ADDRESS)
        self._by_user = Throttle(*PER_USER)
        self._together = Throttle(*TOGETHER)
        self._hashing = asyncio.Lock()

    @property
    def is_open(self) -> bool:
        """Whether everybody on this machine may come in, without a login."""
        return self._users is None

    def who(self, headers: Mapping[str, str]) -> Who | None:
        """Whose request this is, by its headers; None: nobody's."""
        if self._users is None:
            return Who("local", "operator", "local")
        users = self._users.get()
        scheme, _, credentials = headers.get("authorization", "").partition(" ")
        if scheme:  # who shows a token means it: a cookie does not help out
            token = users.token(credentials) if scheme.lower() == "bearer" else None
            return Who(token.name, token.role, "token") if token else None
        session_id = self.session_id(headers)
        user = self.sessions.user(session_id, users, self._clock()) if session_id else None
        return Who(user.name, user.role, "session") if user else None

    def session_id(self, headers: Mapping[str, str]) -> str:
        """What the request's cookie says, or an empty text."""
        return cookie_parser(headers.get("cookie", "")).get(self.cookie, "")

    async def log_in(self, name: str, password: str, address: str) -> LoggedIn | Refusal:
        """Check a password, unless too many were tried."""
        network, now = network_of(address), self._clock()
        # In this order: a try that one of them refuses counts for none of those after it.
        wait_s = (
            self._by_address.take(network, now)
            or self._by_user.take(name[:64], now)
            or self._together.take("", now)
        )
        if wait_s:
            self.counts["rate"] += 1
            return Refusal(429, "rate", f"too many attempts: try again in {wait_s:.0f} seconds")
        users = self._users.get() if self._users else Users()
        user = users.user(name)
        async with self._hashing:
            right = await asyncio.to_thread(verify, user, password)
        if user is None or not right:
            self.counts["login"] += 1
            # A name that is not in the file may be a password typed in the wrong field.
            log.warning("login refused: %s from %s", user.name if user else "unknown user", address)
            return Refusal(401, "login", "name or password is wrong")
        self._by_address.forget(network)
        self._by_user.forget(name[:64])
        log.info("login: %s (%s) from %s", user.name, user.role, address)
        return LoggedIn(_who(user), self.sessions.begin(user, self._clock()))

    def set_cookie(self, session_id: str) -> str:
        """The Set-Cookie header that gives a browser its session; an empty id takes it away."""
        life = int(self.life_s) if session_id else 0
        secure = "; Secure" if self.tls else ""
        return (
            f"{self.cookie}={session_id}; Max-Age={life}; Path=/; HttpOnly; SameSite=Strict{secure}"
        )


def _who(user: User) -> Who:
    return Who(user.name, user.role, "session")
