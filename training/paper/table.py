"""A table of measured numbers over seeds, and its Markdown and JSON."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple


class Number(NamedTuple):
    """One measured quantity, once for each seed."""

    values: tuple[float, ...]

    @classmethod
    def of(cls, values: Sequence[float]) -> Number:
        """From any sequence."""
        return cls(tuple(float(v) for v in values))

    @property
    def mean(self) -> float:
        """Over the seeds."""
        return statistics.fmean(self.values)

    @property
    def spread(self) -> float | None:
        """Sample standard deviation over the seeds; None with one."""
        return statistics.stdev(self.values) if len(self.values) > 1 else None


Cell = Number | float | int | str | None


@dataclass(frozen=True)
class Column:
    """Where a value is in the rows, and how it is shown.

    Attributes:
        key, title: in the rows, for people.
        unit: `%` of shares 0..1, `B`, `bit` or nothing.
    """

    key: str
    title: str
    unit: str = ""


@dataclass
class Table:
    """Rows by column key.

    Attributes:
        name: file and JSON key.
        title, note: for people.
        columns: what is shown, left to right.
        rows: may hold more than is shown.
    """

    name: str
    title: str
    note: str
    columns: list[Column]
    rows: list[dict[str, Cell]] = field(default_factory=list)

    def markdown(self) -> str:
        """The table alone, as Markdown."""
        shown = [c for c in self.columns if any(row.get(c.key) is not None for row in self.rows)]
        lines = [
            "| " + " | ".join(_title(column) for column in shown) + " |",
            "|" + "---|" * len(shown),
        ]
        for row in self.rows:
            lines.append("| " + " | ".join(_text(row.get(c.key), c.unit) for c in shown) + " |")
        return "\n".join(lines)

    def as_json(self) -> dict[str, Any]:
        """Plain values: a number over seeds becomes mean, spread and values."""
        return {
            "title": self.title,
            "note": self.note,
            "columns": [vars(column) for column in self.columns],
            "rows": [{key: _plain(cell) for key, cell in row.items()} for row in self.rows],
        }

    def column(self, key: str) -> list[float | None]:
        """Means of one column, for a plot."""
        return [mean_of(row.get(key)) for row in self.rows]


def mean_of(cell: Cell) -> float | None:
    """A cell's value or mean; None for text and nothing."""
    if isinstance(cell, Number):
        return cell.mean
    return None if isinstance(cell, str) or cell is None else float(cell)


def spread_of(cell: Cell) -> float:
    """A cell's spread; 0 where there is none."""
    return (cell.spread or 0.0) if isinstance(cell, Number) else 0.0


def _title(column: Column) -> str:
    return f"{column.title} ({column.unit})" if column.unit else column.title


def _text(cell: Cell, unit: str) -> str:
    if cell is None:
        return "–"
    if isinstance(cell, str):
        return cell
    scale, digits = (100, 1) if unit == "%" else (1, 1 if unit == "B" else 2)
    if isinstance(cell, int) or (unit == "bit"):
        return str(round(mean_of(cell) or 0))
    if isinstance(cell, float):
        return f"{cell * scale:.{digits}f}"
    text = f"{cell.mean * scale:.{digits}f}"
    return text if cell.spread is None else f"{text} ± {cell.spread * scale:.{digits}f}"


def _plain(cell: Cell) -> Any:
    if not isinstance(cell, Number):
        return cell
    spread = None if cell.spread is None else round(cell.spread, 6)
    return {
        "mean": round(cell.mean, 6),
        "spread": spread,
        "values": [round(v, 6) for v in cell.values],
    }
