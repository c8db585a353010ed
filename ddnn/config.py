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
from ddnn.tls import TlsFiles

T = TypeVar("T", bound=msgspec.Struct)
Port = Annotated[int, msgspec.Meta(ge=1, le=65535)]
#: For the services that begin without a broker.
FactoryBundle = Annotated[
    str,
    msgspec.Meta(
        description="Folder of a bundle to run until one comes, where none is in the store; it is "
        "trusted no more than others. Empty: none.",
        extra={"file": True},
    ),
]


class NodeSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What every service needs to reach its broker."""

    broker: Annotated[str, msgspec.Meta(description="Host name or address of the broker.")] = (
        "localhost"
    )
    port: Annotated[
        int,
        msgspec.Meta(
            ge=0, le=65535, description="Port of the broker; 0: 8883 with TLS, 1883 without."
        ),
    ] = 0
    tls_ca: Annotated[
        str,
        msgspec.Meta(
            description="CA that signs the broker (PEM); empty: no TLS.", extra={"file": True}
        ),
    ] = ""
    tls_cert: Annotated[
        str, msgspec.Meta(description="This node's certificate (PEM).", extra={"file": True})
    ] = ""
    tls_key: Annotated[
        str,
        msgspec.Meta(
            description="Its private key; credential:NAME for one of systemd's.",
            extra={"file": True},
        ),
    ] = ""
    keepalive_s: Annotated[
        int, msgspec.Meta(ge=2, le=600, description="MQTT keepalive in seconds.")
    ] = 10
    store: Annotated[
        str, msgspec.Meta(description="Folder for the last good bundle; empty: keep none.")
    ] = ""
    trusted_keys: Annotated[
        str,
        msgspec.Meta(
            description="File of the keys whose bundles are run; empty: any bundle of a broker "
            "on this machine, none of another.",
            extra={"file": True},
        ),
    ] = ""
    allow_unsigned: Annotated[
        bool,
        msgspec.Meta(description="Without trusted keys: run bundles of any broker, unsigned too."),
    ] = False
    log_level: Annotated[
        typing.Literal["debug", "info", "warning", "error"],
        msgspec.Meta(description="debug, info, warning or error."),
    ] = "info"

    @property
    def tls(self) -> TlsFiles | None:
        """The files for TLS, or None: a connection without it.

        Raises:
            ConfigError: they are not complete.
        """
        return TlsFiles.of(self.tls_ca, self.tls_cert, self.tls_key)


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


def read_settings(path: Path, settings: type[msgspec.Struct]) -> dict[str, Any]:
    """The table in a TOML file; files that it names are relative to its own folder.

    Raises:
        ConfigError: it cannot be read or parsed.
    """
    values = read_toml(path)
    hints = typing.get_type_hints(settings, include_extras=True)
    for name, value in values.items():
        meta = _meta(hints.get(name))
        is_file = bool(meta and meta.extra and meta.extra.get("file"))
        if is_file and isinstance(value, str) and value and ":" not in value:
            values[name] = str(Path(path).parent / value)
    return values


def convert(values: dict[str, Any], settings: type[T], source: str = "settings") -> T:
    """A table -> settings.

    Raises:
        ConfigError: an unknown key (the nearest known one is named), a wrong type or bound.
    """
    known = [field.name for field in msgspec.structs.fields(settings)]
    for key in values:
        if key not in known:
            raise ConfigError(f"unknown key {key!r} in {source}{nearest(key, known)}")
    try:
        return msgspec.convert(values, settings, strict=False)
    except msgspec.ValidationError as error:
        raise ConfigError(f"{source}: {error}") from error


def nearest(key: str, known: list[str]) -> str:
    """For the end of an error on an unknown key: the nearest known one, or all of them."""
    near = difflib.get_close_matches(key, known, n=1)
    return f"; did you mean {near[0]!r}?" if near else f"; known are {', '.join(known)}"


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
            values = read_settings(Path(config), settings) if config else {}
            own = {name: given.pop(name) for name in list(given) if name in known}
            values |= {name: value for name, value in own.items() if value is not None}
            values |= {n: _list(n, v) for n, v in own.items() if v is not None and n in lists}
            return function(convert(values, settings, config or "settings"), **given)

        result: Callable[..., Any] = wrapped
        for field in reversed(msgspec.structs.fields(settings)):
            meta = _meta(hints[field.name])
            required = field.default is msgspec.NODEFAULT
            empty = required or field.default in ("", None)
            default = "" if empty else f"  [default: {field.default}]"
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


def _meta(hint: Any) -> msgspec.Meta | None:
    """What a field's annotation says; of one that may be None, what it says otherwise."""
    parts = typing.get_args(hint)
    found = next((part for part in parts if isinstance(part, msgspec.Meta)), None)
    return found or next((m for part in parts if (m := _meta(part)) is not None), None)


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
