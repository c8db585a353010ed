"""`ddnn keys`: make signing keys, say which ones a node trusts, sign bundles."""

from __future__ import annotations

import re
from pathlib import Path

import click
import msgspec

from ddnn import topics
from ddnn.bundle import Bundle, Terms, assemble, encode_manifest
from ddnn.errors import ConfigError
from ddnn.key_files import read_keys, read_secret, write_keys, write_secret
from ddnn.rollout import describe
from ddnn.signing import SecretKey
from ddnn.store import read_folder, write_folder
from ddnn.trust import KeySet, TrustedKey
from training.publish import day, signed

FILE = click.Path(dir_okay=False, path_type=Path)


@click.group()
def keys() -> None:
    """Make signing keys, say which ones a node trusts, sign bundles."""


@keys.command()
@click.argument("key", type=FILE)
def new(key: Path) -> None:
    """Make a signing key: KEY holds the secret (mode 0600), KEY.pub what nodes must know.

    Keep KEY where bundles are signed and nowhere else.
    """
    made = SecretKey.new()
    write_secret(key, made)
    public = key.with_name(f"{key.name}.pub")
    public.write_text(f"{made.public_key.hex()}\n")
    click.echo(f"key {made.key_id}: secret in {key}, public in {public}")
    click.echo(f"to trust it on a node: ddnn keys trust TRUSTED_FILE {public}")


@keys.command()
@click.argument("trusted", type=FILE)
@click.argument("public")
@click.option("--name", default="", help="Whose key it is, for people.")
@click.option("--site", "sites", multiple=True, help="The only sites it may sign for (repeatable).")
@click.option("--from", "not_before", help="Not trusted before this day, YYYY-MM-DD.")
@click.option("--until", "not_after", help="Not trusted after this day, YYYY-MM-DD.")
def trust(
    trusted: Path,
    public: str,
    name: str,
    sites: tuple[str, ...],
    not_before: str | None,
    not_after: str | None,
) -> None:
    """Let nodes with the file TRUSTED run what the key PUBLIC (a .pub file or hex) signs.

    Several keys may be trusted at once: trust the next one everywhere, sign with both, then revoke
    the old one. Nodes read the file again for every bundle.
    """
    key = TrustedKey(
        public_key=_public(public),
        name=name,
        sites=tuple(topics.check_name(site) for site in sites),
        not_before=day(not_before),
        not_after=day(not_after, end=True),
    )
    known = read_keys(trusted) if trusted.exists() else KeySet()
    before = known.find(key.key_id)
    if before is not None and before.revoked is not None:
        raise ConfigError(f"key {before} was revoked ({before.revoked}); make a new one")
    others = tuple(other for other in known.keys if other.key_id != key.key_id)
    write_keys(trusted, KeySet(keys=(*others, key)))
    click.echo(f"key {key} is trusted by nodes that have {trusted}")


@keys.command()
@click.argument("trusted", type=FILE)
@click.argument("key_id")
@click.option("--reason", default="revoked", show_default=True, help="Why, for people.")
def revoke(trusted: Path, key_id: str, reason: str) -> None:
    """Refuse what KEY_ID signs from now on, on nodes with the file TRUSTED.

    What runs goes on running; the node's status says that its key was revoked.
    """
    known = read_keys(trusted)
    key = known.find(key_id)
    if key is None:
        there = ", ".join(str(key) for key in known.keys) or "none"
        raise ConfigError(f"{trusted} has no key {key_id!r}; it has: {there}")
    gone = msgspec.structs.replace(key, revoked=reason)
    write_keys(trusted, KeySet(keys=tuple(gone if k is key else k for k in known.keys)))
    click.echo(f"key {key} is revoked for nodes that have {trusted}")


@keys.command("list")
@click.argument("trusted", type=FILE)
def list_keys(trusted: Path) -> None:
    """Show the keys in the file TRUSTED."""
    for key in read_keys(trusted).keys:
        parts = [str(key)]
        if key.not_before:
            parts.append(f"from {key.not_before:%Y-%m-%d}")
        if key.not_after:
            parts.append(f"until {key.not_after:%Y-%m-%d}")
        parts.append(f"sites {', '.join(key.sites)}" if key.sites else "any site")
        if key.revoked is not None:
            parts.append(f"REVOKED: {key.revoked}")
        click.echo("  ".join(parts))


@keys.command()
@click.argument("bundle", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--key", required=True, type=FILE, help="The signing key.")
@click.option("--expires", help="Last day on which nodes begin to run it, YYYY-MM-DD.")
@click.option("--site", "sites", multiple=True, help="The only sites that may run it (repeatable).")
@click.option(
    "--device-machine", "machines", multiple=True, help="Machines of its cameras, like aarch64."
)
@click.option("--min-version", help="Oldest version of ddnn that can run it, like 0.1.0.")
def sign(
    bundle: Path,
    key: Path,
    expires: str | None,
    sites: tuple[str, ...],
    machines: tuple[str, ...],
    min_version: str | None,
) -> None:
    """Sign BUNDLE (a folder); its id stays the same unless a limit is given with it.

    Signing with a second key adds its signature, so that nodes which trust either one take it.
    """
    secret = read_secret(key)
    loaded = read_folder(bundle)
    if expires or sites or machines or min_version:
        loaded = _limited(loaded, expires, sites, machines, min_version)
    write_folder(bundle, signed(loaded, secret))
    click.echo(f"bundle {describe(loaded.payload)} is signed by {secret.key_id}")


def _limited(
    bundle: Bundle,
    expires: str | None,
    sites: tuple[str, ...],
    machines: tuple[str, ...],
    min_version: str | None,
) -> Bundle:
    if min_version and not re.fullmatch(r"\d+\.\d+\.\d+", min_version):
        raise ConfigError(f"--min-version {min_version!r} must be like 0.1.0")
    terms = Terms(
        expires=day(expires, end=True),
        sites=tuple(topics.check_name(site) for site in sites),
        hardware={"device": machines} if machines else {},
        min_version=min_version,
    )
    manifest = msgspec.structs.replace(bundle.manifest, terms=terms)
    return assemble(encode_manifest(manifest), bundle.sections)


def _public(text: str) -> str:
    path = Path(text)
    found = path.read_text().strip() if path.is_file() else text
    if not re.fullmatch("[0-9a-f]{64}", found):
        raise ConfigError(f"{text!r} is neither a .pub file nor a public key of 64 hex digits")
    return found
