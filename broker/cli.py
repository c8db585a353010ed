"""`ddnn broker`: a broker in the foreground, for development or for a site's folder."""

import getpass
import signal
import threading
from pathlib import Path

import click
import msgspec

from broker.mosquitto import LocalBroker
from broker.plan import read_plan
from broker.production import render_config
from ddnn.errors import DdnnError


@click.command()
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    default=1883,
    show_default=True,
    help="TCP port on 127.0.0.1; 0 takes a free one.",
)
@click.option(
    "--directory",
    type=click.Path(file_okay=False, path_type=Path),
    default=None,
    help="Folder for the configuration and the log; else a temporary one.",
)
@click.option(
    "--persistence",
    type=click.Path(file_okay=False, path_type=Path),
    default=None,
    help="Folder where the broker saves retained messages and sessions; else memory only.",
)
@click.option(
    "--site",
    type=click.Path(file_okay=False, path_type=Path),
    default=None,
    help="A site's folder: run its broker, as configured there (`ddnn site`).",
)
def broker(port: int, directory: Path | None, persistence: Path | None, site: Path | None) -> None:
    """Run an MQTT broker until Ctrl-C.

    Without --site it listens on this machine's loopback only and asks for no password: for
    development.
    """
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    local = LocalBroker(port or None, directory=directory, persistence_dir=persistence)
    if site is not None:
        local = _of_site(site, directory)
    scheme = "mqtts" if site else "mqtt"
    with local:
        click.echo(f"{scheme}://{local.host}:{local.port}  (log: {local.log_path}, Ctrl-C ends it)")
        while not stop.wait(0.5):
            if not local.is_running:
                raise DdnnError(f"mosquitto ended by itself; its log ends:\n{local.log_tail()}")
    click.echo("broker ended")


def _of_site(folder: Path, directory: Path | None) -> LocalBroker:
    """The site's broker as this user, whoever that is: only its own service has a user for it."""
    plan = read_plan(folder)
    own = msgspec.structs.replace(plan.broker, user=getpass.getuser(), folder="")
    plan = msgspec.structs.replace(plan, broker=own)
    place = (folder / "broker").resolve()
    (place / "data").mkdir(exist_ok=True)
    return LocalBroker(
        plan.broker.port,
        directory=directory or place / "run",
        config=lambda _port: render_config(plan, str(place)),
    )
