"""The paper's own numbers, from figures.json beside this file, which says where each is from."""

from __future__ import annotations

import json
from functools import cache
from importlib import resources
from typing import Any

#: The paper's data set: its figures stand next to ours only for sets like it.
CAMERAS, CLASSES = 6, 3
NAMES = ("threshold_sweep", "filters", "aggregation", "adding_cameras", "missing_camera")


@cache
def _all() -> dict[str, Any]:
    text = resources.files(__package__).joinpath("figures.json").read_text("utf-8")
    figures: dict[str, Any] = json.loads(text)
    return figures


def rows(figure: str) -> list[dict[str, Any]]:
    """Rows of a figure (threshold_sweep, filters, aggregation, ...) by column name."""
    table = _all()[figure]
    return [dict(zip(table["columns"], row, strict=True)) for row in table["rows"]]


def source(figure: str) -> str:
    """Where that figure's numbers are from."""
    text: str = _all()[figure]["source"]
    return text


def authors_float(data_name: str) -> dict[str, Any] | None:
    """What the authors' later float network gives on a data set of this name, or None.

    Args:
        data_name: as `MultiCameraSet.name` has it, such as `epfl_mvmc random`.
    """
    key = data_name.replace("epfl_mvmc", "epfl").replace(" ", "_")
    found: dict[str, Any] | None = _all()["authors_float"]["runs"].get(key)
    return found
