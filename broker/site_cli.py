"""`ddnn site`: everything a site needs, from one file."""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import msgspec

from broker import lint, site
from broker.mosquitto import LocalBroker, free_port
from broker.pki import NODE_DAYS, now_utc
from broker.pki_cli import password_file, read_password
from broker.plan import BrokerPlan, Plan, Upstream, read_plan
from broker.production import render_config
from ddnn.config import convert
from ddnn.errors import ConfigError, DdnnError

_folder = click.argument("folder", type=click.Path(file_okay=False, path_type=Path))


@click.group("site")
def site_command() -> None:
    """A site's topology, certificates, access rights and broker configuration."""


def _add_address(function: Callable[..., Any]) -> Callable[..., Any]:
    for option in (
        click.option("--upstream", default=None, help="HOST[:PORT] of a cloud broker above."),
        click.option("--broker-user", default="mosquitto", show_default=True,
                     help="User that root's mosquitto becomes."),
        click.option("--broker-folder", default="",
                     help="Where the folder `broker` will lie on its machine; else it stays here."),
        click.option("--websockets-port", type=click.IntRange(0, 65535), default=0,
                     show_default=True, help="Second listener for browsers; 0: none."),
        click.option("--bind", default="", help="Address that the broker listens on; else all."),
        click.option("--port", type=click.IntRange(1, 65535), default=8883, show_default=True,
                     help="The broker's port."),
        click.option("--host", "hosts", multiple=True,
                     help="Name or address by which nodes call the broker; may be repeated. "
                     "The first one stands in their settings."),
    ):  # fmt: skip
        function = option(function)
    return function


@site_command.command()
@_folder
@click.option("--site", "name", default=None, help="Its name; none for a cloud broker.")
@click.option("--cameras", type=click.IntRange(1, 32), default=None, help="How many.")
@click.option(
    "--edges",
    type=click.IntRange(0, 32),
    default=0,
    show_default=True,
    help="Edge gateways, for a bundle of several edges.",
)
@click.option("--period-s", type=float, default=0.1, show_default=True, help="Seconds per slot.")
@click.option("--worker", "workers", multiple=True,
              help="A cloud worker at this broker; may be repeated.")  # fmt: skip
@click.option("--dashboard/--no-dashboard", default=True, show_default=True,
              help="Whether `ddnn dashboard` connects to this broker.")  # fmt: skip
@click.option("--bridged-site", "bridged", multiple=True,
              help="A site whose own broker is bridged to this one; may be repeated.")  # fmt: skip
@_add_address
@password_file
def init(
    folder: Path,
    name: str | None,
    cameras: int | None,
    edges: int,
    period_s: float,
    workers: tuple[str, ...],
    dashboard: bool,
    bridged: tuple[str, ...],
    hosts: tuple[str, ...],
    port: int,
    bind: str,
    websockets_port: int,
    broker_folder: str,
    broker_user: str,
    upstream: str | None,
    password_file: Path | None,
) -> None:
    """Make a new site in FOLDER; asks for what is not given.

    A cloud broker for other sites is one without --site and --cameras, with --bridged-site.
    """
    if not bridged:
        name = name or click.prompt("Name of the site", default="s1")
        cameras = cameras or click.prompt("How many cameras", type=click.IntRange(1, 32))
    if not hosts:
        hosts = tuple(click.prompt("Names and addresses of the broker, with blanks").split())
    values = {
        "site": name or "",
        "period_s": period_s,
        "cameras": list(range(cameras or 0)),
        "edges": edges,
        "workers": workers,
        "dashboard": dashboard,
        "bridged_sites": bridged,
        "broker": BrokerPlan(
            names=hosts,
            port=port,
            bind=bind,
            websockets_port=websockets_port,
            folder=broker_folder,
            user=broker_user,
        ),
        "upstream": _upstream(upstream),
    }
    plan = convert({key: msgspec.to_builtins(value) for key, value in values.items()}, Plan)
    site.init(folder, plan)
    _build(folder, password_file, NODE_DAYS)


def _upstream(text: str | None) -> Upstream | None:
    if text is None:
        return None
    host, colon, port = text.partition(":")
    if colon and not port.isdigit():
        raise ConfigError(f"--upstream {text!r} must be HOST or HOST:PORT")
    return Upstream(host=host, port=int(port)) if colon else Upstream(host=host)


@site_command.command()
@_folder
@click.option(
    "--days",
    type=click.IntRange(1, 3650),
    default=NODE_DAYS,
    show_default=True,
    help="How long new certificates are valid.",
)
@password_file
def build(folder: Path, days: int, password_file: Path | None) -> None:
    """Make what follows from FOLDER/site.toml.

    Run it after every change of that file and, to renew certificates, at least every month. It
    renews what ends within 30 days and leaves the rest alone.
    """
    _build(folder, password_file, days)


def _build(folder: Path, password_file: Path | None, days: int) -> None:
    changes = site.build(folder, now_utc(), password=read_password(password_file), days=days)
    made = [change.what for change in changes if not change.needs_attention]
    certificates = [what for what in made if what.startswith("certificate")]
    for what in certificates if len(certificates) <= 3 else ():
        click.echo(what)
    if len(certificates) > 3:
        click.echo(f"{len(certificates)} certificates")
    for what in made:
        if not what.startswith("certificate") and what.startswith("broker/"):
            click.echo(what)
    for change in changes:
        if change.needs_attention:
            click.echo(f"attention: {change.what}", err=True)
    if not changes:
        click.echo("all is up to date")
    _show(lint.check(folder, now_utc()))


@site_command.command()
@_folder
@click.option("--start", is_flag=True, help="Also start mosquitto with it for a moment.")
@click.option("--json", "as_json", is_flag=True, help="For programs.")
def check(folder: Path, start: bool, as_json: bool) -> None:
    """Look for what is wrong in FOLDER; ends with 1 if anything must not go into service."""
    found = lint.check(folder, now_utc())
    if start and not any(finding.level == "error" for finding in found):
        found += _start(folder)
    if as_json:
        click.echo(json.dumps([finding._asdict() for finding in found], indent=1))
    else:
        _show(found)
        if not found:
            click.echo("all is well")
    if any(finding.level == "error" for finding in found):
        sys.exit(1)


def _show(found: list[lint.Finding]) -> None:
    for finding in found:
        click.echo(f"{finding.level}: {finding.text}", err=True)


def _start(folder: Path) -> list[lint.Finding]:
    """Whether this machine's mosquitto takes the configuration; on a port of its own."""
    try:
        with tempfile.TemporaryDirectory() as scratch, trial_broker(folder, Path(scratch)):
            return []
    except DdnnError as error:
        return [lint.Finding("error", f"mosquitto refuses it: {error}")]


def trial_broker(folder: Path, scratch: Path) -> LocalBroker:
    """The site's broker as this user on a free port of loopback, with its data in `scratch`."""
    plan = read_plan(folder)
    here = str((folder / "broker").resolve())

    def config(port: int) -> str:
        changes = {"port": port, "bind": "127.0.0.1", "data": str(scratch), "user": "root"}
        browsers = free_port() if plan.broker.websockets_port else 0
        trial = msgspec.structs.replace(plan.broker, websockets_port=browsers, **changes)
        return render_config(msgspec.structs.replace(plan, broker=trial, upstream=None), here)

    return LocalBroker(directory=scratch, config=config)
