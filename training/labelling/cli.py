"""`ddnn label`: serve the labelling page until stopped."""

from __future__ import annotations

import socket
import threading
from pathlib import Path

import click

from ddnn.cli import set_up_logging, stop_event
from ddnn.errors import ConfigError, DataError

ADDRESS = "127.0.0.1"
#: Where `ddnn train FOLDER` puts its bundle.
OWN_BUNDLE = "bundle"


@click.command()
@click.argument("folder", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option(
    "--bundle",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Bundle that makes suggestions  [default: FOLDER/bundle, if `ddnn train` has made one].",
)
@click.option("--suggest/--no-suggest", default=True, show_default=True, help="Make suggestions.")
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    default=8090,
    show_default=True,
    help="Port on this machine; 0: any that is free.",
)
@click.option("--classes", help="Classes to begin with, such as car,bus,person.")
def label(folder: Path, bundle: Path | None, suggest: bool, port: int, classes: str | None) -> None:
    """Label the slots of FOLDER, a data set of `ddnn collect`, on a page in the browser.

    Only a browser on this machine reaches it; from elsewhere: ssh -L 8090:localhost:8090 HOST.
    Every label is in FOLDER/labels.csv, on the disk, before the next picture is shown.
    """
    import uvicorn  # with the page seconds to import; `--help` needs neither

    from training.labelling.board import Scenes
    from training.labelling.page import make_app
    from training.labelling.suggest import Suggester
    from training.recorded.labels import Labels
    from training.recorded.views import read_views

    set_up_logging("warning")
    views = read_views(folder)
    with Labels(folder) as labels:
        for name in (classes or "").split(","):
            if name.strip() and name.strip() not in labels.classes:
                labels.add_class(name)
        known = Scenes(views, {})
        if not known.slots:
            raise DataError(f"{folder} holds no pictures: `ddnn collect` brings them")
        if suggest and (bundle or (folder / OWN_BUNDLE).is_dir()):
            click.echo(f"asking {bundle or folder / OWN_BUNDLE} about {len(known.slots)} slots")
        own = (bundle or folder / OWN_BUNDLE) if suggest else None
        suggester = Suggester(own, folder, views, known)
        suggester.load()
        listener = _listen(port)
        server = uvicorn.Server(
            uvicorn.Config(
                make_app(folder, known, labels, suggester),
                log_level="warning",
                timeout_graceful_shutdown=2,
            )
        )
        stop = stop_event()
        # Not on this thread: there uvicorn would take SIGTERM for itself.
        thread = threading.Thread(target=server.run, args=([listener],), name="page", daemon=True)
        thread.start()
        click.echo(f"label at http://localhost:{listener.getsockname()[1]}/ (Ctrl-C ends)")
        while thread.is_alive() and not stop.wait(0.2):
            pass
        ended_by_itself = not thread.is_alive()
        server.should_exit = True
        thread.join(5.0)
        done = labels.all()
        click.echo(f"{sum(slot in done for slot in known.slots)} of {len(known.slots)} labelled")
    if ended_by_itself:
        raise DataError("the page ended; see above")


def _listen(port: int) -> socket.socket:
    """A socket that only this machine reaches.

    Raises:
        ConfigError: the port is taken.
    """
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((ADDRESS, port))
        listener.listen(64)
    except OSError as error:
        listener.close()
        raise ConfigError(f"port {port} cannot be used ({error}); --port names another") from error
    return listener
