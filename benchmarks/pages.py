"""Where a benchmark's results go: JSON in build/bench, a table in docs/benchmarks.md."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec

from benchmarks.machine import machine

ROOT = Path(__file__).resolve().parent.parent
BENCH = ROOT / "build" / "bench"
PAGE = ROOT / "docs" / "benchmarks.md"


def keep(name: str, results: Any) -> Path:
    """Write build/bench/<name>.json, with what it ran on."""
    BENCH.mkdir(parents=True, exist_ok=True)
    path = BENCH / f"{name}.json"
    said = {"machine": machine(), "results": results}
    path.write_bytes(msgspec.json.format(msgspec.json.encode(said), indent=2) + b"\n")
    return path


def machine_line() -> str:
    """The line below a table."""
    return f"Machine: {', '.join(f'{key} {value}' for key, value in machine().items())}."


def write_block(name: str, text: str, page: Path = PAGE) -> None:
    """Put `text` between the marks of `name` in a page.

    Raises:
        SystemExit: the page has no such marks.
    """
    begin, end = f"<!-- made by benchmarks.{name}: begin -->", f"<!-- {name}: end -->"
    before, found, rest = page.read_text().partition(begin)
    _, closed, after = rest.partition(end)
    if not found or not closed:
        raise SystemExit(f"{page} has no place for this table: {begin} ... {end}")
    page.write_text(f"{before}{begin}\n\n{text}\n\n{end}{after}")


def table(head: list[str], rows: list[list[str]]) -> str:
    """Markdown."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
