"""People and programs that may use the dashboard, in one file that only its owner reads.

Passwords are kept as argon2id hashes, tokens (random, 256 bits) as SHA-256: whoever reads the file
can become nobody. A running dashboard takes a changed file at once; a password that was changed, or
a user who was removed, ends that user's sessions.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
import threading
from pathlib import Path
from typing import Annotated, NamedTuple

import msgspec
from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError

from cloud_service.guard.rules import Role
from ddnn.errors import ConfigError
from ddnn.private_file import write_private
from ddnn.tls import readable_by_others

MIN_PASSWORD = 10
MAX_PASSWORD = 1024
TOKEN_PREFIX = "ddnn_"
MAX_ENTRIES = 1000

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@-]{0,63}")
#: OWASP's first choice of parameters for argon2id is what the library takes by default or more.
_HASHER = PasswordHasher()


class User(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A person; `hash` is argon2's encoded form."""

    name: Annotated[str, msgspec.Meta(max_length=64)]
    role: Role
    hash: Annotated[str, msgspec.Meta(max_length=512)]


class Token(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A program; `sha256` of its token, in hexadecimal."""

    name: Annotated[str, msgspec.Meta(max_length=64)]
    role: Role
    sha256: Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{64}$")]


class Users(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The file's contents."""

    users: Annotated[tuple[User, ...], msgspec.Meta(max_length=MAX_ENTRIES)] = ()
    tokens: Annotated[tuple[Token, ...], msgspec.Meta(max_length=MAX_ENTRIES)] = ()

    def user(self, name: str) -> User | None:
        """The person of that name."""
        return next((user for user in self.users if user.name == name), None)

    def token(self, text: str) -> Token | None:
        """Whose token this is."""
        digest = hashlib.sha256(text.encode("utf-8", "replace")).hexdigest()
        return next((t for t in self.tokens if hmac.compare_digest(t.sha256, digest)), None)


class NewToken(NamedTuple):
    """A token's entry for the file, and the text that is shown once."""

    entry: Token
    text: str


_DECODER = msgspec.json.Decoder(Users)


def make_user(name: str, role: Role, password: str) -> User:
    """A person with a password.

    Raises:
        ConfigError: a bad name, or a password that is too short or too long.
    """
    if not MIN_PASSWORD <= len(password) <= MAX_PASSWORD:
        raise ConfigError(f"a password needs {MIN_PASSWORD} to {MAX_PASSWORD} characters")
    return User(name=_checked(name), role=role, hash=_HASHER.hash(password))


def make_token(name: str, role: Role) -> NewToken:
    """A random token for a program.

    Raises:
        ConfigError: a bad name.
    """
    text = TOKEN_PREFIX + secrets.token_urlsafe(32)
    digest = hashlib.sha256(text.encode()).hexdigest()
    return NewToken(Token(name=_checked(name), role=role, sha256=digest), text)


def _checked(name: str) -> str:
    if not _NAME.fullmatch(name):
        raise ConfigError(
            f"name {name!r} must be 1 to 64 of A-Z a-z 0-9 . _ @ - and begin with a letter or digit"
        )
    return name


#: Verified where there is no such user, so that the answer takes as long.
_NOBODY = _HASHER.hash(secrets.token_urlsafe(16))


def verify(user: User | None, password: str) -> bool:
    """Whether this is the user's password. Takes as long for a user that there is not."""
    try:
        _HASHER.verify(user.hash if user else _NOBODY, password[:MAX_PASSWORD])
    except (VerificationError, InvalidHashError):
        return False
    return user is not None


def read_users(path: Path) -> Users:
    """The file's contents.

    Raises:
        ConfigError: it cannot be read, is none, or can be read by others.
    """
    try:
        if readable_by_others(path):
            raise ConfigError(f"users file {path} can be read by others: chmod 600 {path}")
        return _DECODER.decode(path.read_bytes())
    except OSError as error:
        raise ConfigError(
            f"users file {path}: {error.strerror} (`ddnn dashboard user add NAME` makes one)"
        ) from error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"users file {path} is damaged: {error}") from error


def write_users(path: Path, users: Users) -> None:
    """Replace the file in one step, mode 0600 from its first moment on.

    Raises:
        ConfigError: it cannot be written.
    """
    data = msgspec.json.format(msgspec.json.encode(users), indent=1) + b"\n"
    try:
        write_private(path, data)
    except OSError as error:
        raise ConfigError(f"cannot write the users file {path}: {error.strerror}") from error


class UsersFile:
    """The users file as a running dashboard sees it: always as it is now.

    Args:
        path: of the file.

    Raises:
        ConfigError: it cannot be used.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._seen = self._stamp()
        self._users = read_users(path)
        if not self._users.users and not self._users.tokens:
            raise ConfigError(f"users file {path} names nobody: ddnn dashboard user add NAME")

    def get(self) -> Users:
        """Who is in it now; while it cannot be read, nobody is."""
        with self._lock:
            stamp = self._stamp()
            if stamp != self._seen:
                self._seen = stamp
                try:
                    self._users = read_users(self._path)
                except ConfigError:
                    # Somebody may have been shut out by this change: better nobody than them.
                    self._users = Users()
            return self._users

    def _stamp(self) -> tuple[int, int, int] | None:
        try:
            found = self._path.stat()
        except OSError:
            return None
        return found.st_ino, found.st_mtime_ns, found.st_size
