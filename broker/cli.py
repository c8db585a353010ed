"""`ddnn broker`: a local broker in the foreground, for development."""

import signal
import threading
from pathlib import Path

import click

from broker.mosquitto import LocalBroker
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
def broker(port: int, directory: Path | None, persistence: Path | None) -> None:
    """Run a local MQTT broker until Ctrl-C.

    It listens on this machine's loopback only and asks for no password: for development.
    """
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    local = LocalBroker(port or None, directory=directory, persistence_dir=persistence)
    with local:
        click.echo(f"mqtt://{local.host}:{local.port}  (log: {local.log_path}, Ctrl-C ends it)")
        while not stop.wait(0.5):
            if not local.is_running:
                raise DdnnError(f"mosquitto ended by itself; its log ends:\n{local.log_tail()}")
    click.echo("broker ended")
