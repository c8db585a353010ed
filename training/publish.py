"""`ddnn publish` and `ddnn rollback`: push a bundle to a site in retained messages."""

from __future__ import annotations

import datetime
import sys
import time
from pathlib import Path
from typing import Annotated

import click
import msgspec

from ddnn import activation, config, topics
from ddnn.bundle import Bundle, Terms, assemble, encode_manifest
from ddnn.cli import set_up_logging
from ddnn.errors import BundleError, ConfigError, DdnnError
from ddnn.key_files import read_secret
from ddnn.mqtt import Client, Publish
from ddnn.rollout import describe, offer
from ddnn.signing import SecretKey
from ddnn.store import read_folder
from training.fleet import Fleet, FleetSettings, connected
from training.registry import Registry


class PublishSettings(FleetSettings, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Settings of `ddnn publish` and `ddnn rollback`."""

    key: Annotated[
        str, msgspec.Meta(description="File of the key to sign with; empty: as it is in the folder")
    ] = ""
    registry: Annotated[
        str, msgspec.Meta(description="Folder of what was published; empty: ~/.local/share/ddnn.")
    ] = ""
    wait: Annotated[
        bool, msgspec.Meta(description="Wait until every node that is online runs the bundle.")
    ] = True


def signed(bundle: Bundle, key: SecretKey) -> Bundle:
    """The same bundle, with this key's signature beside those that it has."""
    others = tuple(s for s in bundle.signatures if s.keyid != key.key_id)
    return msgspec.structs.replace(bundle, signatures=(*others, key.sign(bundle.payload)))


def with_version(bundle: Bundle, version: int, expires: datetime.datetime | None = None) -> Bundle:
    """The same network as another bundle of that version, not signed.

    Raises:
        BundleError: it has expired, and no later date is given.
    """
    manifest = msgspec.structs.replace(bundle.manifest, version=version)
    terms = manifest.terms
    if expires:
        terms = Terms() if terms is msgspec.UNSET else terms
        terms = msgspec.structs.replace(terms, expires=expires)
        manifest = msgspec.structs.replace(manifest, terms=terms)
    elif terms is not msgspec.UNSET and _is_over(terms.expires):
        raise BundleError(
            f"that bundle expired on {terms.expires:%Y-%m-%d}; --expires gives it another day"
        )
    return assemble(encode_manifest(manifest), bundle.sections)


def _is_over(moment: datetime.datetime | None) -> bool:
    return moment is not None and moment < datetime.datetime.now(datetime.UTC)


def day(text: str | None, *, end: bool = False) -> datetime.datetime | None:
    """The first second of a day in UTC, or its last one."""
    if not text:
        return None
    try:
        day = datetime.date.fromisoformat(text)
    except ValueError:
        raise ConfigError(f"{text!r} is not a day like 2027-12-31") from None
    time = datetime.time(23, 59, 59) if end else datetime.time()
    return datetime.datetime.combine(day, time, datetime.UTC)


def publish_bundle(client: Client, site: str, bundle: Bundle, timeout_s: float) -> int:
    """Put `bundle` on the site's retained topics: every chunk acknowledged, then the manifest.

    Returns:
        How many bytes were sent.

    Raises:
        BundleError: a section is missing from it.
        DdnnError: a message, or the gateway's about it, is over the broker's packet limit (nothing
            was sent then), or not acknowledged in time.
    """
    if missing := {info.role for info in bundle.manifest.sections} - set(bundle.sections):
        raise BundleError(f"bundle lacks section {', '.join(sorted(missing))}")
    deadline = time.monotonic() + timeout_s
    messages = offer(site, bundle)
    # The gateway says the manifest again when the site changes over. If that were too large, it
    # would be alone with the new bundle.
    record = Publish(topics.active(site), bytes(activation.most_bytes(messages[-1].payload)))
    # The largest one, so that the error names a limit that is enough for all.
    largest = max(
        [*messages, record], key=lambda message: len(message.topic) + len(message.payload)
    )
    client.check_size(largest.topic, largest.payload)
    for batch in (messages[:-1], messages[-1:]):
        sent = [client.publish(m.topic, m.payload, qos=1, retain=True) for m in batch]
        for info in sent:
            info.wait_for_publish(max(0.1, deadline - time.monotonic()))
            if not info.is_published():
                raise DdnnError(f"the broker did not take the bundle within {timeout_s:g} s")
    return sum(len(message.payload) for message in messages)


@click.command()
@click.argument("bundle", type=click.Path(exists=True, file_okay=False, path_type=Path))
@config.options(PublishSettings)
def publish(settings: PublishSettings, bundle: Path) -> None:
    """Push BUNDLE (a folder) to the site's nodes.

    Shows how far each node is. Ends well only when every node that is online runs it; otherwise
    says which does not and why.
    """
    set_up_logging(settings.log_level)
    loaded = read_folder(bundle)
    if settings.key:
        loaded = signed(loaded, read_secret(Path(settings.key)))
    with connected(settings) as (client, fleet):
        _refuse_older(fleet, loaded)
        _push(settings, client, fleet, loaded)


@click.command()
@click.option("--to", "wanted", help="Version or id to go back to  [default: the one before].")
@click.option("--expires", help="Last day on which nodes begin to run it, YYYY-MM-DD.")
@config.options(PublishSettings)
def rollback(settings: PublishSettings, wanted: str | None, expires: str | None) -> None:
    """Go back to a bundle that was published before.

    It is published again as the newest version, signed anew: no node takes an older version.
    """
    set_up_logging(settings.log_level)
    registry = _registry(settings)
    with connected(settings) as (client, fleet):
        newest = fleet.newest()
        highest = max([e.version for e in registry.entries(settings.site)], default=0)
        if newest is not None:
            highest = max(highest, newest[1].version)
        loaded = registry.find(settings.site, wanted or _before(registry, settings.site, newest))
        again = with_version(loaded, highest + 1, day(expires, end=True))
        if settings.key:
            again = signed(again, read_secret(Path(settings.key)))
        elif loaded.signatures:
            raise DdnnError("the bundle was signed; say which --key signs its new version")
        click.echo(f"bundle {describe(loaded.payload)} becomes version {highest + 1}")
        _push(settings, client, fleet, again)


def _registry(settings: PublishSettings) -> Registry:
    return Registry(Path(settings.registry) if settings.registry else None)


def _before(registry: Registry, site: str, newest: tuple[str, object] | None) -> str:
    """Id of the bundle published before the one that the site has."""
    entries = registry.entries(site)
    if newest is not None:
        ids = [entry.short_id for entry in entries]
        if newest[0][:12] in ids:
            entries = entries[: ids.index(newest[0][:12])]
    if not entries:
        raise BundleError(f"{registry.folder} holds no bundle that site {site} had before")
    return entries[-1].short_id


def _push(settings: PublishSettings, client: Client, fleet: Fleet, bundle: Bundle) -> None:
    site = settings.site
    # First the registry: what is on the broker must be known to a rollback.
    _registry(settings).keep(site, bundle)
    size = publish_bundle(client, site, bundle, settings.timeout_s)
    by = ", ".join(signature.keyid for signature in bundle.signatures)
    click.echo(
        f"published bundle {describe(bundle.payload)} version {bundle.manifest.version} "
        f"to site {site}: {len(bundle.sections)} sections, {size} bytes, "
        f"{f'signed by {by}' if by else 'not signed'}"
    )
    if settings.wait:
        _wait_for_nodes(fleet, bundle, settings.timeout_s)


def _refuse_older(fleet: Fleet, bundle: Bundle) -> None:
    """Every node would refuse it; so say it before anything is overwritten."""
    newest = fleet.newest()
    if newest is None or newest[0] == bundle.bundle_id:
        return
    present, manifest = newest
    if bundle.manifest.version <= manifest.version:
        raise BundleError(
            f"the site has version {manifest.version} (bundle {present[:12]}); this one is "
            f"version {bundle.manifest.version}. Export it again with a higher --version, or "
            "`ddnn rollback` to it."
        )


def _wait_for_nodes(fleet: Fleet, bundle: Bundle, timeout_s: float) -> None:
    """Show each node's progress until all run it, one refuses it for good, or time is up."""
    wanted = bundle.bundle_id
    deadline = time.monotonic() + timeout_s
    shown: dict[str, str] = {}
    refused_since: float | None = None
    while True:
        for name, node in fleet.nodes.items():
            now = node.on(wanted)
            if node.online and shown.get(name) != now:
                click.echo(f"  {name:<12} {now}")
                shown[name] = now
        late = fleet.behind(wanted)
        if not late or time.monotonic() > deadline:
            break
        refusing = any(why.startswith("refused") for why in late.values())
        refused_since = (refused_since or time.monotonic()) if refusing else None
        settled = all(why == "staged" or why.startswith("refused") for why in late.values())
        if settled and refused_since and time.monotonic() - refused_since > 2.0:
            break  # nobody will change his mind
        time.sleep(0.05)
    if late:
        gateway = next((n for n in fleet.nodes.values() if n.name.startswith("gateway")), None)
        for node, why in sorted(late.items()):
            click.echo(f"  {node}: {why}", err=True)
        if gateway is None or not gateway.online:
            click.echo("no gateway is online: nobody tells the nodes to change over", err=True)
        else:
            for what in ("rollout", "canary"):
                if what in gateway.notes:
                    click.echo(f"gateway: {gateway.notes[what]}", err=True)
        click.echo(f"{len(late)} of {fleet.online()} nodes do not run it", err=True)
        sys.exit(1)
    click.echo(f"running on all {fleet.online()} nodes that are online")
