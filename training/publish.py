"""`ddnn publish`: push a bundle to a site in retained messages, sections first."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Annotated

import click
import msgspec

from ddnn import config, topics
from ddnn.bundle import Bundle, bundle_id, chunks, decode_manifest
from ddnn.cli import set_up_logging
from ddnn.errors import BundleError, DdnnError
from ddnn.mqtt import Client, Message
from ddnn.rollout import describe
from ddnn.status import Status
from ddnn.status import decode as decode_status
from ddnn.store import read_folder


class PublishSettings(config.SiteSettings, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Settings of `ddnn publish`."""

    timeout_s: Annotated[
        float, msgspec.Meta(ge=0.1, le=3600, description="Longest wait for the broker and nodes.")
    ] = 30.0
    wait: Annotated[
        bool, msgspec.Meta(description="Wait until every node that is online runs the bundle.")
    ] = True


def publish_bundle(client: Client, site: str, bundle: Bundle, timeout_s: float) -> int:
    """Put `bundle` on the site's retained topics: every chunk acknowledged, then the manifest.

    Returns:
        How many bytes were sent.

    Raises:
        BundleError: a section is missing from it.
        DdnnError: a message is over the broker's packet limit, or not acknowledged in time.
    """
    if missing := {info.role for info in bundle.manifest.sections} - set(bundle.sections):
        raise BundleError(f"bundle lacks section {', '.join(sorted(missing))}")
    deadline = time.monotonic() + timeout_s
    messages = [
        (topics.section(site, info.sha256, number), chunk)
        for info in {info.sha256: info for info in bundle.manifest.sections}.values()
        for number, chunk in enumerate(chunks(bundle.sections[info.role]))
    ]
    for batch in (messages, [(topics.manifest(site), bundle.payload)]):
        sent = [client.publish(topic, data, qos=1, retain=True) for topic, data in batch]
        for info in sent:
            info.wait_for_publish(max(0.1, deadline - time.monotonic()))
            if not info.is_published():
                raise DdnnError(f"the broker did not take the bundle within {timeout_s:g} s")
    return sum(len(data) for _, data in messages) + len(bundle.payload)


class _Fleet:
    """Statuses of a site's nodes, as they come in."""

    def __init__(self) -> None:
        self.running: bytes | None = None
        self._nodes: dict[str, Status] = {}

    def on_manifest(self, message: Message) -> None:
        self.running = message.payload or None

    def on_status(self, message: Message) -> None:
        report = decode_status(message.payload)
        if report is not None:
            self._nodes[message.topic] = report

    def behind(self, site: str, wanted: str) -> dict[str, str]:
        """Nodes that are online and do not run bundle `wanted`, with what they say instead."""
        late = {}
        for report in list(self._nodes.values()):
            runs = report.sites.get(site) if report.sites else report.bundle
            if report.state == "online" and runs != wanted:
                late[report.node] = report.refused or f"runs {runs[:12] if runs else 'nothing'}"
        return late

    def online(self) -> int:
        return sum(report.state == "online" for report in list(self._nodes.values()))


@click.command()
@click.argument("bundle", type=click.Path(exists=True, file_okay=False, path_type=Path))
@config.options(PublishSettings)
def publish(settings: PublishSettings, bundle: Path) -> None:
    """Push BUNDLE (a folder) to the site's nodes.

    Ends well only when every node that is online runs it; otherwise says which does not and why.
    """
    set_up_logging(settings.log_level)
    loaded = read_folder(bundle)
    site = settings.site
    fleet = _Fleet()
    client = Client(settings.broker, settings.port, f"{site}-publisher", tls=settings.tls)
    client.subscribe(topics.manifest(site), fleet.on_manifest)
    client.subscribe(topics.status_filter(site), fleet.on_status)
    client.subscribe(topics.status_filter("_cloud"), fleet.on_status)
    client.start()
    try:
        client.wait_connected(settings.timeout_s)
        time.sleep(0.3)  # what is retained arrives right after subscribing
        _refuse_older(fleet.running, loaded)
        size = publish_bundle(client, site, loaded, settings.timeout_s)
        click.echo(
            f"published bundle {describe(loaded.payload)} version {loaded.manifest.version} "
            f"to site {site}: {len(loaded.sections)} sections, {size} bytes"
        )
        if settings.wait:
            _wait_for_nodes(fleet, site, loaded, settings.timeout_s)
    finally:
        client.stop()


def _refuse_older(running: bytes | None, bundle: Bundle) -> None:
    """Every node would refuse it; so say it before anything is overwritten."""
    if running is None or running == bundle.payload:
        return
    try:
        version = decode_manifest(running).version
    except BundleError:
        return  # what is there is no usable manifest: nothing to protect
    if bundle.manifest.version <= version:
        raise BundleError(
            f"the site has version {version} (bundle {bundle_id(running)[:12]}); this one is "
            f"version {bundle.manifest.version}. Export it again with a higher --version."
        )


def _wait_for_nodes(fleet: _Fleet, site: str, bundle: Bundle, timeout_s: float) -> None:
    deadline = time.monotonic() + timeout_s
    while (late := fleet.behind(site, bundle.bundle_id)) and time.monotonic() < deadline:
        time.sleep(0.05)
    if late:
        for node, why in sorted(late.items()):
            click.echo(f"  {node}: {why}", err=True)
        click.echo(f"{len(late)} of {fleet.online()} nodes do not run it", err=True)
        sys.exit(1)
    click.echo(f"running on all {fleet.online()} nodes that are online")
