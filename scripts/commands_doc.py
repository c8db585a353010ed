"""Write docs/commands.md and docs/*.schema.json from the program, so that they cannot disagree."""

import json
import sys
from collections.abc import Callable
from importlib.metadata import entry_points
from pathlib import Path

import click
import msgspec

from ddnn.audit import Audit, Estimate
from ddnn.cli import main
from ddnn.decisions import PublishedDecision

DOCS = Path(__file__).resolve().parent.parent / "docs"
HEAD = """# Commands

Made by `make docs` from `ddnn COMMAND --help`; do not edit. Every option with an environment
variable is also a key of a TOML file given by `--config`.
"""


def render() -> str:
    """docs/commands.md."""
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


def schema(message: type[msgspec.Struct]) -> str:
    """The JSON Schema of a message."""
    dialect = {"$schema": "https://json-schema.org/draft/2020-12/schema"}
    return json.dumps(dialect | msgspec.json.schema(message), indent=1, sort_keys=True) + "\n"


MADE: dict[str, Callable[[], str]] = {
    "commands.md": render,
    "decision.schema.json": lambda: schema(PublishedDecision),
    "audit.schema.json": lambda: schema(Audit),
    "audit-estimate.schema.json": lambda: schema(Estimate),
}

if __name__ == "__main__":
    for name, make in MADE.items():
        document = DOCS / name
        if sys.argv[1:] != ["--check"]:
            document.write_text(make())
        elif not document.exists() or document.read_text() != make():
            sys.exit(f"docs/{name} is old: run make docs")
