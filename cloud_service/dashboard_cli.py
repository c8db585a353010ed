"""`ddnn dashboard`: the process, and who may use it."""

from __future__ import annotations

from pathlib import Path

import click

from cloud_service.dashboard import Dashboard, DashboardSettings
from cloud_service.guard.rules import Role
from cloud_service.guard.users import Users, make_token, make_user, read_users, write_users
from ddnn import config
from ddnn.cli import set_up_logging, stop_event
from ddnn.errors import ConfigError

_users = click.option(
    "--users",
    "path",
    type=click.Path(dir_okay=False, path_type=Path),
    envvar="DDNN_USERS",
    show_envvar=True,
    default=Path("users.json"),
    show_default=True,
    help="The users file, as in the setting of that name.",
)
_role = click.option(
    "--role",
    type=click.Choice(["viewer", "operator"]),
    default="viewer",
    show_default=True,
    help="Operators also set thresholds and budgets.",
)
_name = click.argument("name")


@click.group(invoke_without_command=True)
@config.options(DashboardSettings)
def dashboard(settings: DashboardSettings) -> None:
    """Show all sites of a broker in a browser, and record their decisions.

    Without users it serves this machine only, and everybody on it. It starts without broker and
    database, says what is missing, and goes on when they are there.
    """
    if click.get_current_context().invoked_subcommand is None:
        set_up_logging(settings.log_level)
        Dashboard(settings, stop_event()).run()


@dashboard.group()
def user() -> None:
    """People who may log in."""


@dashboard.group()
def token() -> None:
    """Programs that may use the HTTP API."""


@user.command("add")
@_name
@_role
@_users
@click.option(
    "--password-file",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    default=None,
    help="Its first line is the password; else it is asked for.",
)
def user_add(name: str, role: Role, path: Path, password_file: Path | None) -> None:
    """Add NAME, or give NAME another password and role; sessions of before end."""
    if password_file:
        password = password_file.read_text(encoding="utf-8").partition("\n")[0].rstrip("\r")
    else:
        password = click.prompt("Password", hide_input=True, confirmation_prompt=True)
    made = make_user(name, role, password)
    found = _read(path)
    others = tuple(each for each in found.users if each.name != name)
    write_users(path, Users(users=(*others, made), tokens=found.tokens))
    click.echo(f"{name}: {role}, in {path}")


@user.command("remove")
@_name
@_users
def user_remove(name: str, path: Path) -> None:
    """Remove NAME; sessions of NAME end."""
    found = read_users(path)
    if found.user(name) is None:
        raise ConfigError(f"{path} has no user {name!r}: {_names(found)}")
    write_users(
        path, Users(users=tuple(u for u in found.users if u.name != name), tokens=found.tokens)
    )
    click.echo(f"{name} removed from {path}")


@user.command("list")
@_users
def user_list(path: Path) -> None:
    """Who may log in, and which programs have tokens."""
    found = read_users(path)
    for person in found.users:
        click.echo(f"user   {person.name}  {person.role}")
    for program in found.tokens:
        click.echo(f"token  {program.name}  {program.role}")


@token.command("add")
@_name
@_role
@_users
def token_add(name: str, role: Role, path: Path) -> None:
    """Make a token for the program NAME. It is shown once; the file has its digest only.

    A program sends it as `Authorization: Bearer TOKEN`.
    """
    found = _read(path)
    if any(each.name == name for each in found.tokens):
        raise ConfigError(f"{path} has a token {name!r} already: remove it first")
    made = make_token(name, role)
    write_users(path, Users(users=found.users, tokens=(*found.tokens, made.entry)))
    click.echo(made.text)


@token.command("remove")
@_name
@_users
def token_remove(name: str, path: Path) -> None:
    """Remove the token of the program NAME."""
    found = read_users(path)
    left = tuple(each for each in found.tokens if each.name != name)
    if len(left) == len(found.tokens):
        raise ConfigError(f"{path} has no token {name!r}: {_names(found)}")
    write_users(path, Users(users=found.users, tokens=left))
    click.echo(f"token {name} removed from {path}")


def _read(path: Path) -> Users:
    return read_users(path) if path.exists() else Users()


def _names(found: Users) -> str:
    names = [*(u.name for u in found.users), *(t.name for t in found.tokens)]
    return f"it has {', '.join(names)}" if names else "it is empty"
