"""Settings: typed, bounded, from a TOML file, `DDNN_...` variables and options.

A service's settings are one `msgspec.Struct` whose fields are annotated with
`msgspec.Meta(description=..., ge=..., le=...)`; `options` turns it into command-line options.
What is given later in this list wins: default, TOML file, environment, option.
"""

from __future__ import annotations

import difflib
import functools
import os
import tomllib
import typing
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, TypeVar

import click
import msgspec

from ddnn import topics
from ddnn.errors import ConfigError

T = TypeVar("T", bound=msgspec.Struct)
Port = Annotated[int, msgspec.Meta(ge=1, le=65535)]


class NodeSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What every service needs to reach its broker."""

    broker: Annotated[str, msgspec.Meta(description="Host name or address of the broker.")] = (
        "localhost"
    )
    port: Annotated[int, msgspec.Meta(ge=1, le=65535, description="Port of the broker.")] = 1883
    keepalive_s: Annotated[
        int, msgspec.Meta(ge=2, le=600, description="MQTT keepalive in seconds.")
    ] = 10
    store: Annotated[
        str, msgspec.Meta(description="Folder for the last good bundle; empty: keep none.")
    ] = ""
    log_level: Annotated[
        typing.Literal["debug", "info", "warning", "error"],
        msgspec.Meta(description="debug, info, warning or error."),
    ] = "info"


class SiteSettings(NodeSettings, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a service of one site needs."""

    site: Annotated[str, msgspec.Meta(description="Site name, first level of its topics.")] = "s1"
    period_s: Annotated[
        float,
        msgspec.Meta(
            ge=0.001, le=3600.0, description="Seconds per slot; the same for a site's nodes."
        ),
    ] = 0.1

    def __post_init__(self) -> None:
        topics.check_name(self.site)


def read_toml(path: Path) -> dict[str, Any]:
    """The table in a TOML file.

    Raises:
        ConfigError: it cannot be read or parsed.
    """
    try:
        return tomllib.loads(Path(path).read_text())
    except (OSError, tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"cannot read settings from {path}: {error}") from error


def convert(values: dict[str, Any], settings: type[T], source: str = "settings") -> T:
    """A table -> settings.

    Raises:
        ConfigError: an unknown key (the nearest known one is named), a wrong type or bound.
    """
    known = [field.name for field in msgspec.structs.fields(settings)]
    for key in values:
        if key not in known:
            near = difflib.get_close_matches(key, known, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else f"; known are {', '.join(known)}"
            raise ConfigError(f"unknown key {key!r} in {source}{hint}")
    try:
        return msgspec.convert(values, settings, strict=False)
    except msgspec.ValidationError as error:
        raise ConfigError(f"{source}: {error}") from error


def options(settings: type[T]) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Decorate a click command so that it is called with one `settings` argument.

    Every field becomes an option, `--config` names the TOML file.
    """

    hints = typing.get_type_hints(settings, include_extras=True)
    lists = {name for name, hint in hints.items() if _is_list(hint)}

    def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        def wrapped(config: str | None, **given: Any) -> Any:
            known = {field.name for field in msgspec.structs.fields(settings)}
            values = read_toml(Path(config)) if config else {}
            own = {name: given.pop(name) for name in list(given) if name in known}
            values |= {name: value for name, value in own.items() if value is not None}
            values |= {n: _list(n, v) for n, v in own.items() if v is not None and n in lists}
            return function(convert(values, settings, config or "settings"), **given)

        result: Callable[..., Any] = wrapped
        for field in reversed(msgspec.structs.fields(settings)):
            meta = next(
                (m for m in typing.get_args(hints[field.name]) if isinstance(m, msgspec.Meta)),
                None,
            )
            required = field.default is msgspec.NODEFAULT
            default = "" if required or field.default == "" else f"  [default: {field.default}]"
            description = (meta.description if meta else "") or ""
            result = click.option(
                f"--{field.name.replace('_', '-')}",
                field.name,
                envvar=f"DDNN_{field.name.upper()}",
                show_envvar=True,
                default=None,
                help=description + _bounds(meta) + default,
            )(result)
        return click.option(
            "--config",
            type=click.Path(exists=True, dir_okay=False),
            envvar="DDNN_CONFIG",
            help="TOML file with these settings.",
        )(result)

    return decorate


def _is_list(hint: Any) -> bool:
    return typing.get_origin(typing.get_args(hint)[0] if typing.get_args(hint) else hint) is tuple


def _list(name: str, text: str) -> Any:
    """A list given as text (an option, a variable): JSON, which for lists is TOML's form, too."""
    try:
        return msgspec.json.decode(text)
    except msgspec.DecodeError as error:
        raise ConfigError(f"{name} must be a list such as [0, 0.2, 1, 1]: {error}") from error


def _bounds(meta: msgspec.Meta | None) -> str:
    if meta is None or (meta.ge is None and meta.le is None):
        return ""
    return f" From {meta.ge} to {meta.le}." if meta.le is not None else f" At least {meta.ge}."


def boot_id() -> int:
    """A random 16-bit number that tells one start of a process from the next."""
    return int.from_bytes(os.urandom(2), "little")
