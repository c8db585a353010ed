"""Decisions -> a CSV or Parquet file, chunk by chunk: as much memory for a year as for an hour."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Iterable
from pathlib import Path
from typing import IO, Literal, Protocol

import msgspec
import pyarrow as pa
from pyarrow import parquet

from ddnn.decisions import PublishedDecision

Format = Literal["csv", "parquet"]
FIELDS = PublishedDecision.__struct_fields__

_MEMBERS = pa.list_(pa.uint8())
_SCHEMA = pa.schema(
    [
        ("site", pa.string()),
        ("slot", pa.int64()),
        ("time_s", pa.float64()),
        ("label", pa.string()),
        ("probability", pa.float64()),
        ("entropy", pa.float64()),
        ("threshold", pa.float64()),
        ("exit", pa.string()),
        ("members", pa.string()),
        ("used", _MEMBERS),
        ("absent", _MEMBERS),
        ("missing", _MEMBERS),
        ("degraded", pa.string()),
        ("stage_ms", pa.map_(pa.string(), pa.float64())),
        ("payload_bytes", pa.int64()),
        ("bundle_tag", pa.int32()),
    ]
)


class _Writer(Protocol):
    def write(self, chunk: list[PublishedDecision]) -> None: ...
    def close(self) -> None: ...


def export(chunks: Iterable[list[PublishedDecision]], out: Path, kind: Format) -> int:
    """Write decisions to a file, which is there under its name once it is whole.

    Returns:
        How many were written.

    Raises:
        OSError: it cannot be written; what was there before stays.
    """
    fresh = out.with_name(f"{out.name}.part")
    done = 0
    try:
        with fresh.open("wb") as file:
            writer: _Writer = _Csv(file) if kind == "csv" else _Parquet(file)
            for chunk in chunks:
                writer.write(chunk)
                done += len(chunk)
            writer.close()
            file.flush()
            os.fsync(file.fileno())
        fresh.replace(out)
        return done
    finally:
        fresh.unlink(missing_ok=True)


class _Csv:
    """One line each; sets of members and stages as JSON, what is null as an empty field."""

    def __init__(self, file: IO[bytes]) -> None:
        self._text = io.TextIOWrapper(file, encoding="utf-8", newline="")
        self._writer = csv.writer(self._text, lineterminator="\n")
        self._writer.writerow(FIELDS)

    def write(self, chunk: list[PublishedDecision]) -> None:
        for decision in chunk:
            self._writer.writerow([_text(getattr(decision, name)) for name in FIELDS])

    def close(self) -> None:
        """Hand everything to the file, which stays open."""
        self._text.detach()


def _text(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, str):
        return value
    return msgspec.json.encode(value).decode()


class _Parquet:
    """One row group for each chunk."""

    def __init__(self, file: IO[bytes]) -> None:
        self._writer = parquet.ParquetWriter(file, _SCHEMA, compression="zstd")

    def write(self, chunk: list[PublishedDecision]) -> None:
        columns = []
        for field in _SCHEMA:
            values = [getattr(decision, field.name) for decision in chunk]
            if field.name == "stage_ms":
                values = [list(stages.items()) for stages in values]
            columns.append(pa.array(values, field.type))
        self._writer.write_batch(pa.record_batch(columns, schema=_SCHEMA))

    def close(self) -> None:
        """Write the file's footer."""
        self._writer.close()
