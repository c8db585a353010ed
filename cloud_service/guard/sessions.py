"""Who is logged in. Pure, and bounded: sessions live in memory and end with the process.

A session's id is random (256 bits) and is kept only as its digest. It ends after `idle_s` without a
request, `life_s` after the login at the latest, at logout, and when its user's password has changed
or the user is gone.
"""

from __future__ import annotations

import hashlib
import secrets
from collections import OrderedDict
from dataclasses import dataclass

from cloud_service.guard.users import User, Users

#: The one that was used least is ended for a new one.
MAX_SESSIONS = 1000


@dataclass
class _Session:
    user: str
    password_hash: str
    began: float
    used: float


class Sessions:
    """Sessions by the digest of their ids. Not thread-safe: used on the event loop only.

    Args:
        idle_s: without a request it ends after so long.
        life_s: it ends so long after the login.
    """

    def __init__(self, idle_s: float, life_s: float) -> None:
        self._idle_s = idle_s
        self._life_s = life_s
        self._open: OrderedDict[bytes, _Session] = OrderedDict()

    def __len__(self) -> int:
        return len(self._open)

    def begin(self, user: User, now: float) -> str:
        """A new session's id."""
        session_id = secrets.token_urlsafe(32)
        while len(self._open) >= MAX_SESSIONS:
            self._open.popitem(last=False)
        self._open[_digest(session_id)] = _Session(user.name, user.hash, now, now)
        return session_id

    def user(self, session_id: str, users: Users, now: float) -> User | None:
        """Whose session it is; None: nobody's, or it has ended."""
        digest = _digest(session_id)
        session = self._open.get(digest)
        if session is None:
            return None
        user = users.user(session.user)
        over = now - session.used > self._idle_s or now - session.began > self._life_s
        if over or user is None or user.hash != session.password_hash:
            del self._open[digest]
            return None
        session.used = now
        self._open.move_to_end(digest)
        return user

    def end(self, session_id: str) -> None:
        """Log out."""
        self._open.pop(_digest(session_id), None)


def _digest(session_id: str) -> bytes:
    return hashlib.sha256(session_id.encode("utf-8", "replace")).digest()
