"""The `ddnn` command.

Each package registers its commands as entry points of the group `ddnn.commands`; a command is
imported only when it is run, so that a device needs no part of the cloud or of training.
"""

from __future__ import annotations

import logging
import signal
import sys
import threading
from importlib.metadata import EntryPoint, entry_points
from types import FrameType
from typing import Any

import click

from ddnn.errors import DdnnError


class _Commands(click.Group):
    """A group whose members are entry points."""

    def _entry_points(self) -> dict[str, EntryPoint]:
        return {point.name: point for point in entry_points(group="ddnn.commands")}

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted(self._entry_points())

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        point = self._entry_points().get(cmd_name)
        if point is None:
            return None
        try:
            command = point.load()
        except ModuleNotFoundError as error:
            return _unavailable(cmd_name, error.name or str(error))
        return command if isinstance(command, click.Command) else None

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except DdnnError as error:
            raise click.ClickException(str(error)) from error


def _unavailable(name: str, module: str) -> click.Command:
    """Stands in for a command whose extra is not installed."""
    extras = dict.fromkeys(("gateway", "inspect", "keys", "models"), "edge") | {"broker": "demo"}
    extras |= dict.fromkeys(("publish", "retire", "rollback"), "edge")
    extras |= dict.fromkeys(("collect", "evaluate"), "label")
    extras |= {"decisions": "dashboard", "top": "dashboard"}
    extras |= {"pki": "admin", "site": "admin", "doctor": "device"}
    extra = ({"train": "training", "dataset": "training"} | extras).get(name, name)

    def explain(**_: object) -> None:
        raise click.ClickException(
            f"`ddnn {name}` needs the module {module!r}: pip install 'ddnn[{extra}]'"
        )

    return click.Command(
        name,
        callback=explain,
        help=f"(not installed: pip install 'ddnn[{extra}]')",
        context_settings={"ignore_unknown_options": True, "allow_extra_args": True},
    )


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="ddnn")
def main() -> None:
    """Distributed deep neural networks over cameras, an edge gateway and the cloud."""


def set_up_logging(level: str) -> None:
    """One line per record on standard error."""
    logging.basicConfig(
        level=level.upper(),
        stream=sys.stderr,
        format="%(asctime)s %(levelname).1s %(name)s: %(message)s",
    )


def stop_event() -> threading.Event:
    """An event that SIGTERM and SIGINT set, for a clean shutdown."""
    event = threading.Event()

    def stop(_signal: int, _frame: FrameType | None) -> None:
        event.set()

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
    return event
