"""`ddnn site check`: what is wrong, or soon will be, in a site's folder."""

from __future__ import annotations

import stat
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Literal, NamedTuple

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import serialization

from broker import production
from broker.pki import PkiError, Record, read_record
from broker.plan import Plan, place_of, read_plan
from broker.site import broker_folder, node_settings
from ddnn import access, topics
from ddnn.config import read_toml
from ddnn.errors import ConfigError


class Finding(NamedTuple):
    """One thing to look at; an `error` must not go into service."""

    level: Literal["error", "warning"]
    text: str


def check(folder: Path, now: datetime) -> list[Finding]:
    """Everything found, errors first; empty: all is well.

    It needs no authority key, so that it can run wherever the folder is.
    """
    try:
        plan = read_plan(folder)
    except ConfigError as error:
        return [Finding("error", str(error))]
    found = [
        *_configuration(folder, plan),
        *_access_list(folder, plan),
        *_certificates(folder, plan, now),
        *_settings(folder, plan),
        *_permissions(folder),
    ]
    return sorted(found, key=lambda finding: finding.level)


def _configuration(folder: Path, plan: Plan) -> Iterator[Finding]:
    path = folder / "broker" / "mosquitto.conf"
    if not path.is_file():
        yield Finding("error", f"{path} is missing: ddnn site build")
        return
    text = path.read_text(encoding="utf-8", errors="replace")
    expected = _lines(production.render_config(plan, broker_folder(folder, plan)))
    given = _lines(text)
    keys = {line.split()[0] for line in expected}
    for line in given:
        if line in expected:
            continue
        key = line.split()[0]
        if key not in keys:
            yield Finding("error", f"mosquitto.conf: {key!r} is not of this site's configuration")
        elif key == "allow_anonymous":
            yield Finding(
                "error", "mosquitto.conf lets everybody in: allow_anonymous must be false"
            )
        else:
            yield Finding("error", f"mosquitto.conf: {line!r} does not follow from site.toml")
    for line in expected:
        if line not in given:
            yield Finding("error", f"mosquitto.conf lacks {line!r}: ddnn site build")


def _lines(text: str) -> list[str]:
    stripped = (line.strip() for line in text.splitlines())
    return [line for line in stripped if line and not line.startswith("#")]


def _access_list(folder: Path, plan: Plan) -> Iterator[Finding]:
    path = folder / "broker" / "acl"
    if not path.is_file():
        yield Finding("error", f"{path} is missing: ddnn site build")
        return
    try:
        given = production.parse_acl(path.read_text(encoding="utf-8", errors="replace"))
    except ConfigError as error:
        yield Finding("error", f"acl: {error}")
        return
    rights = {str(identity): may for identity, may in plan.identities().items()}
    for user, lines in given.items():
        if user in ("", "*"):
            yield Finding("error", "acl: rights for everybody; each line must belong to a user")
            continue
        if user not in rights:
            yield Finding("error", f"acl: {user} is not in site.toml")
            continue
        may = {"write": rights[user].writes, "read": rights[user].reads}
        for way, topic in sorted(lines):
            if not any(topics.matches(allowed, topic) for allowed in may.get(way, ())):
                yield Finding("error", f"acl: too wide: {user} may {way} {topic}")
        for way, allowed in may.items():
            for topic in allowed:
                if not any(w == way and topics.matches(t, topic) for w, t in lines):
                    yield Finding("warning", f"acl: {user} cannot {way} {topic}: ddnn site build")
    revoked = _revoked(folder)
    for identity in rights:
        name, stem = place_of(access.parse(identity))
        record = _record(folder / "nodes" / name / f"{stem}.crt")
        blocked = record is not None and record.serial in revoked
        if identity not in given and not blocked:
            yield Finding("warning", f"acl: {identity} may do nothing: ddnn site build")
        if blocked:
            yield Finding("warning", f"{identity} is revoked; ddnn pki issue lets it in again")


def _record(path: Path) -> Record | None:
    try:
        return read_record(path)
    except PkiError:
        return None


def _revoked(folder: Path) -> set[int]:
    try:
        revoked = x509.load_pem_x509_crl((folder / "broker" / "crl.pem").read_bytes())
    except (OSError, ValueError):
        return set()
    return {entry.serial_number for entry in revoked}


def _certificates(folder: Path, plan: Plan, now: datetime) -> Iterator[Finding]:
    broker = folder / "broker"
    try:
        ca = x509.load_pem_x509_certificate((broker / "ca.crt").read_bytes())
    except (OSError, ValueError) as error:
        yield Finding("error", f"broker/ca.crt cannot be read ({error}): ddnn site build")
        return
    left = (ca.not_valid_after_utc - now).days
    if left < 365:
        level: Literal["error", "warning"] = "error" if left < 0 else "warning"
        yield Finding(level, f"the authority ends in {left} days; a new one means new ca.crt files")
    try:
        revoked = x509.load_pem_x509_crl((broker / "crl.pem").read_bytes())
        if (revoked.next_update_utc or ca.not_valid_after_utc) <= now:
            yield Finding(
                "error", "broker/crl.pem is out of date: the broker would refuse everybody"
            )
        own = folder / "ca" / "crl.pem"
        if own.is_file() and own.read_bytes() != (broker / "crl.pem").read_bytes():
            yield Finding("error", "broker/crl.pem is not the authority's: ddnn site build")
    except (OSError, ValueError) as error:
        yield Finding("error", f"broker/crl.pem cannot be read ({error}): ddnn site build")

    places = [(str(plan.broker_identity), broker, "broker")]
    for each in plan.identities():
        if each != plan.browser:
            name, stem = place_of(each)
            places.append((str(each), folder / "nodes" / name, stem))
    if plan.browser and not (broker / "passwords").is_file():
        yield Finding("error", "broker/passwords is missing: ddnn site build")
    if plan.upstream:
        yield from _bridge_files(broker / "bridge", now)
    for identity, place, stem in places:
        if not (place / f"{stem}.crt").is_file():
            # A folder that was handed to its node may be gone from here; the broker's may not.
            missing = f"{place / f'{stem}.crt'} is missing"
            yield Finding("error" if stem == "broker" else "warning", missing)
            continue
        yield from _pair(place, stem, ca, now)
        record = _record(place / f"{stem}.crt")
        if record is None:
            continue
        if record.identity != identity:
            yield Finding("error", f"{place / stem}.crt is {record.identity}'s, not {identity}'s")
        if stem == "broker":
            for name in sorted(set(plan.broker.names) - set(record.hosts)):
                yield Finding("error", f"the broker's certificate lacks the name {name}")
            if not record.hosts:
                yield Finding("error", "the broker's certificate has no names (SAN) at all")


def _pair(place: Path, stem: str, ca: x509.Certificate, now: datetime) -> Iterator[Finding]:
    """One certificate with its key."""
    name = f"{place.name}/{stem}"
    try:
        certificate = x509.load_pem_x509_certificate((place / f"{stem}.crt").read_bytes())
        key = serialization.load_pem_private_key((place / f"{stem}.key").read_bytes(), None)
    except (OSError, TypeError, ValueError) as error:
        yield Finding("error", f"{name}.crt or {name}.key cannot be read: {error}")
        return
    if certificate.public_key() != key.public_key():
        yield Finding("error", f"{name}.key belongs to another certificate")
    try:
        certificate.verify_directly_issued_by(ca)
    except (ValueError, TypeError, InvalidSignature):
        yield Finding("error", f"{name}.crt is not signed by this site's authority")
    days = (certificate.not_valid_after_utc - now).days
    if now >= certificate.not_valid_after_utc:
        yield Finding("error", f"{name}.crt has expired: ddnn site build")
    elif now < certificate.not_valid_before_utc:
        yield Finding("error", f"{name}.crt is not valid yet: is the clock right?")
    elif days < 30:
        yield Finding("warning", f"{name}.crt expires in {days} days: ddnn site build")


def _bridge_files(place: Path, now: datetime) -> Iterator[Finding]:
    if not (place / "node.crt").is_file():
        yield Finding(
            "error",
            f"{place} is missing: the cloud broker's owner makes it (nodes/<site>.bridge there)",
        )
        return
    try:
        ca = x509.load_pem_x509_certificate((place / "ca.crt").read_bytes())
    except (OSError, ValueError) as error:
        yield Finding("error", f"{place / 'ca.crt'} cannot be read: {error}")
        return
    yield from _pair(place, "node", ca, now)


def _settings(folder: Path, plan: Plan) -> Iterator[Finding]:
    for identity in plan.identities().keys() - {plan.browser}:
        if place_of(identity)[1] != "node":
            continue  # in another one's settings
        name, values = node_settings(identity, plan)
        path = folder / "nodes" / str(identity) / name
        if not path.is_file():
            continue
        try:
            given = read_toml(path)
        except ConfigError as error:
            yield Finding("error", str(error))
            continue
        for key, value in values.items():
            if given.get(key) != value:
                yield Finding(
                    "warning",
                    f"{identity}/{name}: {key} is {given.get(key)!r}, site.toml says {value!r}",
                )


def _permissions(folder: Path) -> Iterator[Finding]:
    """Private keys and passwords that others may read; a repository that would take them in."""
    secret = [*folder.glob("**/*.key"), *folder.glob("**/password*")]
    for path in sorted(secret):
        mode = stat.S_IMODE(path.stat().st_mode)
        if mode & 0o077:
            yield Finding(
                "error",
                f"{path.relative_to(folder)} has mode {mode:04o}: others may read it; chmod 600, "
                "and if they could have, revoke it or make another",
            )
    if not (folder / ".gitignore").is_file():
        yield Finding("warning", f"{folder} has no .gitignore: keys could end in a repository")
