"""A production broker's files as text: configuration, access control list, bridge."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from string import Template

from broker.plan import Plan
from ddnn import access
from ddnn.access import Access, Identity
from ddnn.errors import ConfigError

_HERE = Path(__file__).parent
_ACL_HEAD = """\
# What each identity may write and read. Made by `ddnn site build` from site.toml and
# ddnn/access.py: edit those. An identity that is not here may do nothing.
"""


def render_config(plan: Plan, folder: str) -> str:
    """The text of mosquitto.conf.

    Args:
        plan: of the site.
        folder: absolute path of the broker's folder on the broker's machine.
    """
    broker = plan.broker
    tls = _template("production-tls.conf").substitute(
        folder=folder, max_connections=2 * len(plan.identities()) + 500
    )
    bind = f" {broker.bind}" if broker.bind else ""
    websockets = ""
    if broker.websockets_port:
        websockets = _template("production-browsers.conf").substitute(
            port=broker.websockets_port, bind=bind, folder=folder
        )
    return _template("production.conf").substitute(
        name=plan.name,
        user=broker.user,
        folder=folder,
        port=broker.port,
        bind=bind,
        tls=tls,
        websockets=websockets,
        data=broker.data or f"{folder}/data",
        bridge=render_bridge(plan, folder) if plan.upstream else "",
    )


def render_bridge(plan: Plan, folder: str) -> str:
    """The bridge to the cloud broker: exactly what that broker lets the site write and read."""
    assert plan.upstream
    rights = access.bridge(plan.site)
    topics = [f"topic {topic} out 1" for topic in rights.writes]
    topics += [f"topic {topic} in 1" for topic in rights.reads]
    return _template("bridge.conf").substitute(
        site=plan.site,
        host=plan.upstream.host,
        port=plan.upstream.port,
        folder=folder,
        topics="\n".join(topics),
    )


def render_acl(rights: Mapping[Identity, Access]) -> str:
    """The access control list."""
    parts = [_ACL_HEAD]
    for identity, may in rights.items():
        lines = [f"user {identity}"]
        lines += [f"topic write {topic}" for topic in may.writes]
        lines += [f"topic read {topic}" for topic in may.reads]
        parts.append("\n".join(lines) + "\n")
    return "\n".join(parts)


def render_password(user: Identity, password: str, salt: bytes) -> str:
    """One line of mosquitto's password file.

    Args:
        user: the identity that the password stands for.
        password: a long random one; so the number of rounds matters little.
        salt: random bytes.
    """
    rounds = 1000
    digest = hashlib.pbkdf2_hmac("sha512", password.encode(), salt, rounds)
    salted, hashed = (base64.b64encode(part).decode() for part in (salt, digest))
    return f"{user}:$7${rounds}${salted}${hashed}\n"


def parse_acl(text: str) -> dict[str, set[tuple[str, str]]]:
    """An access control list -> (`read` or `write`, topic) by user.

    Lines before the first user belong to everybody without a name (key empty), `pattern` lines to
    everybody (key `*`).

    Raises:
        ConfigError: a line that mosquitto would not understand either.
    """
    found: dict[str, set[tuple[str, str]]] = {}
    user = ""
    for number, line in enumerate(text.splitlines(), 1):
        line = line.strip()
        if not line or line.startswith("#"):
            continue
        kind, _, rest = line.partition(" ")
        rest = rest.strip()
        if kind == "user" and rest:
            user = rest
            found.setdefault(user, set())
            continue
        if kind not in ("topic", "pattern") or not rest:
            raise ConfigError(f"line {number} of the access list is none: {line!r}")
        how, _, topic = rest.partition(" ")
        if how not in ("read", "write", "readwrite", "deny"):
            how, topic = "readwrite", rest
        ways: Iterable[str] = ("read", "write") if how == "readwrite" else (how,)
        found.setdefault("*" if kind == "pattern" else user, set()).update(
            (way, topic.strip()) for way in ways
        )
    return found


def _template(name: str) -> Template:
    return Template((_HERE / name).read_text(encoding="utf-8"))
