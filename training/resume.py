"""How `ddnn train --resume` finds the options that a run was begun with. No torch here."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import click
import msgspec

#: A run's options, in its folder.
COMMAND = "command.json"


class Start(NamedTuple):
    """How a training begins.

    Attributes:
        resume: the run folder to go on with.
        device: as `--device` names it.
        command: every option's value, for a later `--resume`.
        first: whether this is the only or the first process of it; that one speaks and writes.
    """

    resume: Path | None
    device: str
    command: dict[str, Any]
    first: bool


def resumed(ctx: click.Context, _param: click.Parameter, folder: Path | None) -> Path | None:
    """Options that are not given again are those of the run in `folder`."""
    if folder is None:
        return None
    try:
        given = msgspec.json.decode((folder / COMMAND).read_bytes(), type=dict[str, Any])
    except (OSError, msgspec.DecodeError) as error:
        raise click.BadParameter(f"{folder} is no run folder of ddnn train: {error}") from error
    ctx.default_map = {**(ctx.default_map or {}), **given}
    return folder


def command_line(ctx: click.Context) -> dict[str, Any]:
    """Every option's value as `resumed` wants it; paths hold from any folder."""
    given = {name: value for name, value in ctx.params.items() if name != "resume"}
    if Path(given["data"]).exists():
        given["data"] = Path(given["data"])
    found: dict[str, Any] = {}
    for name, value in given.items():
        if isinstance(value, tuple):
            found[name] = ",".join(map(str, value))
        elif isinstance(value, Path):
            found[name] = str(value.resolve())
        elif value is not None:
            found[name] = value
    return found
