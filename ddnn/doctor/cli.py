"""`ddnn doctor`."""

from __future__ import annotations

import json
import logging
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import click
import msgspec

from ddnn.config import FactoryBundle, SiteSettings, convert, read_settings
from ddnn.doctor import connection, host, models
from ddnn.doctor.finding import Finding, Machine
from ddnn.errors import ConfigError
from ddnn.trust import TierName

_MARKS = {"ok": "ok", "skipped": "-", "warning": "warning", "failure": "FAILURE"}


@click.command()
@click.option(
    "--config",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    envvar="DDNN_CONFIG",
    default=None,
    help="The node's own settings file.",
)
@click.option("--offline", is_flag=True, help="Leave the broker alone.")
@click.option("--json", "as_json", is_flag=True, help="For programs.")
def doctor(config: Path | None, offline: bool, as_json: bool) -> None:
    """Look whether a node can work here, and say what to do where it cannot.

    Ends with 1 if something fails. It connects with the node's own certificate: a broker that
    knows nodes by their certificates ends the connection of the running node for a moment, unless
    --offline is given.
    """
    found = []
    settings, tier, factory = _settings(config)
    findings = examine(settings, Machine(), offline=offline, tier=tier, factory=factory)
    for finding in _quietly(findings):
        found.append(finding)
        if not as_json:
            click.echo(f"{_MARKS[finding.level]:<8} {finding.check:<12} {finding.text}")
            if finding.advice:
                click.echo(f"{'':<21} -> {finding.advice}")
    if as_json:
        click.echo(json.dumps([finding._asdict() for finding in found], indent=1))
    if any(finding.level == "failure" for finding in found):
        sys.exit(1)


def _quietly(findings: Iterator[Finding]) -> Iterator[Finding]:
    """The report says it all; the client's own lines would be in between."""
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        yield from findings
    finally:
        logging.disable(before)


def _settings(config: Path | None) -> tuple[SiteSettings, TierName, str]:
    """What a node's settings file says of broker, site and store; the rest is its own affair.

    And what kind of node it is, as its settings tell, and its factory bundle.
    """
    if config is None:
        return SiteSettings(), "device", ""
    values = read_settings(config, _Factory)
    known = {field.name for field in msgspec.structs.fields(SiteSettings)}
    settings = convert({k: v for k, v in values.items() if k in known}, SiteSettings, str(config))
    tier: TierName = "device" if "camera" in values else "cloud" if "worker" in values else "edge"
    return settings, tier, str(values.get("factory_bundle", ""))


class _Factory(SiteSettings, frozen=True, kw_only=True):
    """For the files that a settings file names."""

    factory_bundle: FactoryBundle = ""


def examine(
    settings: SiteSettings,
    machine: Machine,
    *,
    offline: bool,
    tier: TierName = "device",
    factory: str = "",
) -> Iterator[Finding]:
    """Every check, in the order in which one depends on the other."""
    now = datetime.now(UTC)
    yield host.check_python(machine)
    yield host.check_onnxruntime(machine)
    yield host.check_camera(machine)
    yield host.check_clock(machine, time.time())
    yield host.check_disk(machine, Path(settings.store or "."))
    yield from host.check_wear(machine)
    yield host.check_memory(machine)
    yield host.check_temperature(machine)
    yield host.check_throttling(machine)
    yield models.check_trust(settings, settings.site, tier)
    yield models.check_factory(settings, settings.site, tier, factory)
    try:
        tls = settings.tls
    except ConfigError as error:
        yield Finding("certificate", "failure", str(error), "see the node's settings file")
        return
    yield from connection.check_certificate(tls, now)
    if offline:
        yield Finding("broker", "skipped", "--offline")
        return
    reachable = connection.check_reachable(settings.broker, settings.port, tls)
    yield reachable
    if reachable.level == "failure":
        return
    if tls is not None:
        yield connection.check_broker_certificate(settings.broker, settings.port, tls, now)
    yield from connection.check_session(settings.broker, settings.port, tls, settings.site)
