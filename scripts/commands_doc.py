"""Write docs/commands.md from the commands' own help, so that the two cannot disagree."""

import sys
from importlib.metadata import entry_points
from pathlib import Path

import click

from ddnn.cli import main

DOCUMENT = Path(__file__).resolve().parent.parent / "docs" / "commands.md"
HEAD = """# Commands

Made by `make docs` from `ddnn COMMAND --help`; do not edit. Every option with an environment
variable is also a key of a TOML file given by `--config`.
"""


def render() -> str:
    """The whole document."""
    parts = [HEAD]
    with click.Context(main, info_name="ddnn", terminal_width=96, max_content_width=96) as root:
        for point in sorted(entry_points(group="ddnn.commands"), key=lambda point: point.name):
            parts += _describe(point.load(), root, point.name)
    return "\n".join(parts)


def _describe(command: click.Command, parent: click.Context, name: str) -> list[str]:
    with click.Context(
        command, parent=parent, info_name=name, terminal_width=96, max_content_width=96
    ) as context:
        text = "\n".join(line.rstrip() for line in command.get_help(context).splitlines())
        parts = [f"## {context.command_path}\n\n```\n{text}\n```\n"]
        if isinstance(command, click.Group):
            for inner in command.list_commands(context):
                child = command.get_command(context, inner)
                assert child is not None
                parts += _describe(child, context, inner)
    return parts


if __name__ == "__main__":
    if sys.argv[1:] == ["--check"]:
        sys.exit(DOCUMENT.read_text() != render() and "docs/commands.md is old: run make docs")
    DOCUMENT.write_text(render())
