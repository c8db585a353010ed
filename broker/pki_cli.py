"""`ddnn pki`: certificates of brokers and nodes."""

from __future__ import annotations

import json
from pathlib import Path

import click

from broker.pki import CA_DAYS, NODE_DAYS, Authority, Kind, Record, now_utc, write_private
from broker.plan import place_of
from ddnn import access
from ddnn.errors import ConfigError

_ca = click.option(
    "--ca",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path("ca"),
    show_default=True,
    help="The authority's folder; of a site: SITE_FOLDER/ca.",
)
_out = click.option(
    "--out",
    type=click.Path(file_okay=False, path_type=Path),
    default=None,
    help="Folder for certificate, key and ca.crt; else one named after the identity.",
)
_days = click.option(
    "--days",
    type=click.IntRange(1, 3650),
    default=NODE_DAYS,
    show_default=True,
    help="How long it is valid.",
)
password_file = click.option(
    "--password-file",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    envvar="DDNN_CA_PASSWORD_FILE",
    show_envvar=True,
    default=None,
    help="File with the password of the authority's key; else the key is not encrypted.",
)


def read_password(path: Path | None) -> bytes | None:
    """The first line of the password file.

    Raises:
        ConfigError: it is empty or cannot be read.
    """
    if path is None:
        return None
    try:
        password = path.read_bytes().partition(b"\n")[0].rstrip(b"\r")
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}") from error
    if not password:
        raise ConfigError(f"the password file {path} is empty")
    return password


@click.group()
def pki() -> None:
    """Certificates of brokers and nodes.

    `ddnn site build` does this for a whole site; these commands do it one by one.
    """


@pki.command()
@_ca
@click.option("--name", default="ddnn", show_default=True, help="Name of the authority.")
@click.option(
    "--days",
    type=click.IntRange(1, 36500),
    default=CA_DAYS,
    show_default=True,
    help="How long it is valid.",
)
@password_file
def init(ca: Path, name: str, days: int, password_file: Path | None) -> None:
    """Make an authority."""
    Authority.create(ca, name, now_utc(), days=days, password=read_password(password_file))
    click.echo(f"{ca}: keep ca.key to yourself; nodes get ca.crt")


@pki.command()
@click.argument("identity")
@_ca
@_out
@click.option(
    "--host",
    "hosts",
    multiple=True,
    help="For a broker: a name or address by which it is called; may be repeated.",
)
@_days
@password_file
def issue(
    identity: str,
    ca: Path,
    out: Path | None,
    hosts: tuple[str, ...],
    days: int,
    password_file: Path | None,
) -> None:
    """Issue a certificate with a new key for IDENTITY (s1.device-3, s1.gateway, ...)."""
    _issue(Authority(ca, read_password(password_file)), identity, out, hosts, days)


@pki.command()
@click.argument("identity")
@_ca
@_out
@_days
@click.option("--revoke-old", is_flag=True, help="Revoke the certificates it has now.")
@password_file
def renew(
    identity: str,
    ca: Path,
    out: Path | None,
    days: int,
    revoke_old: bool,
    password_file: Path | None,
) -> None:
    """Issue IDENTITY's certificate anew, with a new key and the names it has.

    The old one stays valid until its end, unless it is revoked.
    """
    authority = Authority(ca, read_password(password_file))
    own = [record for record in authority.records() if record.identity == identity]
    if not own:
        raise ConfigError(f"{identity!r} has no certificate yet: ddnn pki issue")
    _issue(authority, identity, out, own[-1].hosts, days)
    if revoke_old:
        valid_before = {record.serial for record in own if not record.revoked}
        for serial in valid_before:
            authority.revoke(identity, now_utc(), serial=serial)
        click.echo(f"revoked {len(valid_before)}; {_reload(ca)}")


def _issue(
    authority: Authority, identity: str, out: Path | None, hosts: tuple[str, ...], days: int
) -> None:
    stem = "broker" if hosts else place_of(access.parse(identity))[1]
    kind: Kind = "broker" if hosts else "node"
    issued = authority.issue(identity, now_utc(), kind=kind, hosts=hosts, days=days)
    folder = out or Path(identity)
    write_private(folder / f"{stem}.key", issued.key)
    write_private(folder / f"{stem}.crt", issued.certificate)
    write_private(folder / "ca.crt", (authority.folder / "ca.crt").read_bytes())
    click.echo(f"{folder}: {stem}.crt {stem}.key ca.crt, {identity}, {days} days")


@pki.command()
@click.argument("identity")
@_ca
@click.option("--serial", default=None, help="Only this certificate (`ddnn pki list`).")
@password_file
def revoke(identity: str, ca: Path, serial: str | None, password_file: Path | None) -> None:
    """Revoke IDENTITY's certificates."""
    try:
        number = int(serial, 16) if serial else None
    except ValueError:
        raise ConfigError(f"{serial!r} is no serial number; `ddnn pki list` shows them") from None
    authority = Authority(ca, read_password(password_file))
    revoked = authority.revoke(identity, now_utc(), serial=number)
    click.echo(f"revoked {len(revoked)} of {identity}; {_reload(ca)}")


def _reload(ca: Path) -> str:
    if (ca.parent / "site.toml").is_file():
        return f"now: ddnn site build {ca.parent}, copy its folder `broker`, reload the broker"
    return f"now: copy {ca / 'crl.pem'} to the broker and reload it"


@pki.command("list")
@_ca
@click.option("--json", "as_json", is_flag=True, help="For programs.")
@password_file
def list_(ca: Path, as_json: bool, password_file: Path | None) -> None:
    """List every certificate and when it ends."""
    now = now_utc()
    records = Authority(ca, read_password(password_file)).records()
    if as_json:
        click.echo(
            json.dumps([_as_json(record, record.state(now)) for record in records], indent=1)
        )
        return
    for record in records:
        days = (record.not_after - now).days
        click.echo(
            f"{record.identity:<20} {record.state(now):<8} {record.not_after:%Y-%m-%d} "
            f"{days:>5} d  {record.serial:x}  {' '.join(record.hosts)}".rstrip()
        )


def _as_json(record: Record, state: str) -> dict[str, object]:
    return {
        "identity": record.identity,
        "kind": record.kind,
        "state": state,
        "not_before": record.not_before.isoformat(),
        "not_after": record.not_after.isoformat(),
        "serial": f"{record.serial:x}",
        "hosts": list(record.hosts),
    }
