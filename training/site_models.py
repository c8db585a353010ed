"""`ddnn models` and `ddnn retire`: what runs where, and what is not needed any more."""

from __future__ import annotations

import threading
import time

import click

from ddnn import config, topics
from ddnn.bundle import decode_manifest
from ddnn.cli import set_up_logging
from ddnn.errors import BundleError, DdnnError
from ddnn.mqtt import Message, Publish
from ddnn.rollout import describe
from ddnn.signing import unseal
from training.fleet import HEAR_S, Fleet, FleetSettings, connected


@click.command()
@config.options(FleetSettings)
def models(settings: FleetSettings) -> None:
    """Show which bundle is offered, which one the site runs, and what each node says."""
    set_up_logging(settings.log_level)
    with connected(settings) as (_, fleet):
        click.echo(f"offered  {_named(fleet.offered)}")
        record = fleet.record
        since = f", from slot {record.from_slot} on" if record else ""
        click.echo(f"active   {_named(record.manifest if record else None)}{since}")
        for name, node in fleet.nodes.items():
            state = (node.bundle or "none")[:12] if node.online else "offline"
            parts = [f"{name:<12} {state:<12}"]
            if node.staged:
                parts.append(f"staged {node.staged[:12]}")
            if node.refused:
                parts.append(f"refused {(node.refused_id or '')[:12]}: {node.refused}")
            parts += [f"{kind}: {text}" for kind, text in node.notes.items()]
            click.echo("  ".join(parts).rstrip())


@click.command()
@config.options(FleetSettings)
def retire(settings: FleetSettings) -> None:
    """Clear the retained sections that neither the offered nor the running bundle names."""
    set_up_logging(settings.log_level)
    with connected(settings) as (client, fleet):
        sizes: dict[str, int] = {}
        heard_at = time.monotonic()
        lock = threading.Lock()

        def on_section(message: Message) -> None:
            nonlocal heard_at
            with lock:
                heard_at = time.monotonic()
                sizes[message.topic] = len(message.payload)

        client.subscribe(topics.section_filter(settings.site), on_section)
        while time.monotonic() - heard_at < 2 * HEAR_S:
            time.sleep(0.05)
        client.unsubscribe(topics.section_filter(settings.site))
        needed = _needed(fleet)
        with lock:
            spare = {t: n for t, n in sizes.items() if n and t.split("/")[4] not in needed}
        for topic in sorted(spare):
            info = client.send(Publish(topic, b"", qos=1, retain=True))
            if info is not None:
                info.wait_for_publish(settings.timeout_s)
        click.echo(
            f"cleared {len(spare)} of {len(sizes)} retained sections, "
            f"{sum(spare.values())} of {sum(sizes.values())} bytes"
        )


def _needed(fleet: Fleet) -> set[str]:
    """Hashes of the sections that a node may still ask for.

    Raises:
        DdnnError: that cannot be told.
    """
    messages = [fleet.offered, fleet.record.manifest if fleet.record else None]
    if not any(messages):
        raise DdnnError("the broker retains no manifest of this site: nothing is cleared")
    try:
        manifests = [decode_manifest(unseal(m).payload) for m in messages if m]
    except BundleError as error:
        raise DdnnError(
            f"a manifest of this site is not usable, nothing is cleared: {error}"
        ) from error
    return {info.sha256 for manifest in manifests for info in manifest.sections}


def _named(message: bytes | None) -> str:
    if message is None:
        return "none"
    try:
        payload, signatures = unseal(message)
        version = decode_manifest(payload).version
    except BundleError as error:
        return f"not usable: {error}"
    by = ", ".join(signature.keyid for signature in signatures)
    return f"{describe(payload)} version {version}, {f'signed by {by}' if by else 'not signed'}"
