"""`ddnn collect`: bring a site's recordings home and say what is there."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import click

from ddnn.cli import set_up_logging
from ddnn.errors import DdnnError
from training.recorded.sources import ON_A_PI, Host, fetch, parse
from training.recorded.summary import lines, summarise
from training.recorded.views import PICTURES, gather, write_views


@click.command()
@click.argument("sources", nargs=-1)
@click.option(
    "--out",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path("recordings"),
    show_default=True,
    help="Data set folder; what it has already is not fetched again.",
)
@click.option(
    "--recordings",
    default=ON_A_PI,
    show_default=True,
    help="Folder of the recordings on a host.",
)
@click.option(
    "--sudo/--no-sudo",
    default=True,
    show_default=True,
    help="Read them there as root: they belong to the service's user.",
)
def collect(sources: tuple[str, ...], out: Path, recordings: str, sudo: bool) -> None:
    """Bring the recordings of a site's cameras home, into one data set folder.

    SOURCES are hosts that ssh reaches with a key (pi@cam0, pi@cam1:2222) or folders on this
    machine. The pictures of all cameras are grouped by slot; views.csv lists every view, present
    or absent. An interrupted run goes on where it was; later ones fetch what is new. Without
    SOURCES only the list and the summary are made again.
    """
    set_up_logging("warning")
    # A mistake in the last name must not come after minutes of fetching from the first.
    places = [parse(source) for source in sources]
    failed = _fetch(places, out / PICTURES, recordings, sudo)
    if not (out / PICTURES).is_dir():
        raise DdnnError("; ".join(failed) or f"there is nothing at {out}: name hosts or folders")
    found = gather(out)
    write_views(out, found.views)
    click.echo(f"{out}: " + "\n".join(lines(summarise(found.views))))
    if found.unreadable:
        click.echo(f"{len(found.unreadable)} pictures cannot be read and are left out", err=True)
    for why in failed:
        click.echo(f"Error: {why}", err=True)
    if failed:
        click.echo("run it again when that is mended: what has come is kept", err=True)
        sys.exit(1)
    click.echo(f"label them: ddnn label {out}")


def _fetch(places: Sequence[Host | Path], target: Path, recordings: str, sudo: bool) -> list[str]:
    """Fetch from each in turn; why some could not be. One camera that is off holds up no other."""
    failed = []
    for place in places:
        click.echo(f"fetching from {place.name if isinstance(place, Host) else place}")
        try:
            fetch(place, target, recordings, sudo=sudo)
        except DdnnError as error:
            failed.append(str(error))
    return failed
