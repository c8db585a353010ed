"""The shapes of the paper's Figure 2 as files: what `ddnn train --preset` begins with.

`training/presets/<name>.toml` holds a title, the name of a topology, whether one camera is
enough, and under `[network]` and `[training]` fields of `NetworkOptions` and `TrainOptions`.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import fields
from functools import lru_cache
from importlib.resources import files
from typing import Any

import msgspec
import numpy as np

from ddnn.config import convert, nearest
from ddnn.errors import ConfigError
from training.datasets.base import MultiCameraSet
from training.options import NetworkOptions, TrainOptions

Value = bool | int | float | str | tuple[int, ...]


class Preset(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One preset.

    Attributes:
        title: in a few words.
        topology: one of `training.options.TOPOLOGIES`.
        one_camera: of a data set with several, only one is used.
        network, training: options by name; what is not there has its usual value.
    """

    title: str
    topology: str
    one_camera: bool = False
    network: dict[str, Value] = {}
    training: dict[str, Value] = {}


@lru_cache(maxsize=1)
def presets() -> Mapping[str, Preset]:
    """Every preset by name, in order.

    Raises:
        ConfigError: a file among them is not one.
    """
    folder = files("training") / "presets"
    found = {file.name: file.read_text() for file in folder.iterdir() if ".toml" in file.name}
    return {name.removesuffix(".toml"): parse(text, name) for name, text in sorted(found.items())}


def preset(name: str) -> Preset:
    """The preset of that name.

    Raises:
        ConfigError: there is none; the known ones are named.
    """
    try:
        return presets()[name]
    except KeyError:
        raise ConfigError(f"unknown preset {name!r}; known: {', '.join(presets())}") from None


def parse(text: str, source: str) -> Preset:
    """A preset's TOML.

    Raises:
        ConfigError: not TOML, an unknown key (the nearest known one is named), or a wrong type.
    """
    try:
        found = convert(tomllib.loads(text), Preset, source)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{source}: {error}") from error
    for table, options in ((found.network, NetworkOptions), (found.training, TrainOptions)):
        known = [field.name for field in fields(options)]
        for key in table:
            if key not in known:
                raise ConfigError(f"unknown key {key!r} in {source}{nearest(key, known)}")
    return found


def one_camera(samples: MultiCameraSet) -> int:
    """The camera that sees the object in most training samples; of equals the first."""
    return int(np.argmax(samples.seen[samples.train].sum(axis=0)))


def as_text(value: Any) -> Any:
    """An option's value as the command line would have it: lists as `16,32`."""
    return ",".join(map(str, value)) if isinstance(value, tuple) else value
