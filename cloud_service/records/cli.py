"""`ddnn decisions`: export, count and compact the database of decisions."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, get_args

import click

from cloud_service.records.export import Format, export
from cloud_service.records.retention import Rules, compact
from cloud_service.records.store import Records
from ddnn.cli import set_up_logging
from ddnn.errors import ConfigError, RecordsError

_database = click.option(
    "--database",
    envvar="DDNN_DATABASE",
    show_envvar=True,
    required=True,
    help="File of the database, or its URL: sqlite:///FILE, postgresql://USER@HOST/NAME.",
)


class Moment(click.ParamType[float]):
    """A time: seconds since 1970, or ISO 8601 (without a zone: of this machine)."""

    name = "time"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        """Text -> seconds since 1970."""
        try:
            return float(value)
        except ValueError:
            try:
                return datetime.fromisoformat(value).timestamp()
            except ValueError:
                self.fail(f"{value!r} is no time such as 2026-05-01 or 2026-05-01T12:00Z")


def _range(command: Callable[..., Any]) -> Callable[..., Any]:
    to = click.option("--to", "to_s", type=Moment(), help="Only those before this time.")
    since = click.option("--from", "from_s", type=Moment(), help="Only those from this time on.")
    return since(to(command))


@click.group()
def decisions() -> None:
    """Export, count or compact the database of decisions.

    The service that writes it may go on meanwhile.
    """


@decisions.command("export")
@_database
@click.option("--site", help="Only this site's; all sites otherwise.")
@_range
@click.option("--format", "kind", type=click.Choice(get_args(Format)), help="By --out's ending.")
@click.option("--out", required=True, type=click.Path(dir_okay=False, path_type=Path))
def export_command(
    database: str,
    site: str | None,
    from_s: float | None,
    to_s: float | None,
    kind: Format | None,
    out: Path,
) -> None:
    """Write decisions to a CSV or Parquet file, by site, oldest first.

    The file is there once it is whole.
    """
    chosen: Format | None = kind or ("parquet" if out.suffix == ".parquet" else None)
    chosen = chosen or ("csv" if out.suffix == ".csv" else None)
    if chosen is None:
        raise ConfigError("say --format csv or --format parquet, or let --out end so")
    with _opened(database) as records:
        names = _chosen(records, site)
        chunks = (chunk for name in names for chunk in records.iterate(name, from_s, to_s))
        try:
            done = export(chunks, out, chosen)
        except OSError as error:
            raise RecordsError(f"cannot write {out}: {error}") from error
    click.echo(f"{done} decisions in {out}")


@decisions.command()
@_database
@click.option("--site", help="Only this site's; all sites otherwise.")
@_range
def stats(database: str, site: str | None, from_s: float | None, to_s: float | None) -> None:
    """Count decisions by site: exits, classes, degraded ones, lost ones, traffic and latency.

    Without times: the last 24 hours. Whole hours are counted.
    """
    end_s = time.time() if to_s is None else to_s
    begin_s = end_s - 86_400 if from_s is None else from_s
    with _opened(database) as records:
        health = records.health()
        click.echo(f"database  {records.name}  {(health.size_bytes or 0) / 1e6:.1f} MB")
        for name in _chosen(records, site):
            for line in _describe(records, name, begin_s, end_s):
                click.echo(line)


@decisions.command("compact")
@_database
@click.option("--keep-days", type=click.FloatRange(min=0.01), default=30.0, show_default=True)
@click.option(
    "--keep-hours-days", type=click.FloatRange(min=0.1), default=3650.0, show_default=True
)
@click.option("--max-mb", type=click.IntRange(min=1), help="Size to stay below.")
def compact_command(
    database: str, keep_days: float, keep_hours_days: float, max_mb: int | None
) -> None:
    """Remove what is older, or what there is no room for, and give the space back.

    `ddnn dashboard` does the same by itself, by its own settings.
    """
    rules = Rules(keep_days=keep_days, keep_hours_days=keep_hours_days)
    with _opened(database, None if max_mb is None else max_mb * 1_000_000) as records:
        found = compact(records, rules, time.time())
    click.echo(
        f"removed {found.decisions} old decisions, {found.for_room} for room, "
        f"{found.others} counts and ledgers; gave {found.pages} pages back"
    )


@contextmanager
def _opened(database: str, max_bytes: int | None = None) -> Iterator[Records]:
    """An existing database, brought up to date."""
    set_up_logging("warning")
    records = Records(database, max_bytes=max_bytes)
    if records.is_sqlite and not Path(records.url.database or "").exists():
        raise ConfigError(f"there is no database {records.url.database}")
    try:
        records.migrate()
        yield records
    finally:
        records.close()


def _chosen(records: Records, site: str | None) -> list[str]:
    names = records.sites()
    if site is None:
        return names
    if site not in names:
        raise ConfigError(f"the database has no site {site!r}; it has {', '.join(names) or 'none'}")
    return [site]


def _describe(records: Records, site: str, from_s: float, to_s: float) -> list[str]:
    found = records.total(site, from_s, to_s)
    newest = records.page(site, limit=1).decisions
    total = found.decided + found.degraded
    lines = [f"{site}: {total} decisions since {_when(found.start_s)}"]
    if newest:
        lines.append(f"  newest     slot {newest[0].slot}, {_when(newest[0].time_s)}")
    for name, counts in (
        ("exits", found.by_exit), ("classes", found.by_label), ("degraded", found.by_degraded)
    ):  # fmt: skip
        shares = (f"{key} {count} ({100 * count / total:.1f}%)" for key, count in counts.items())
        lines.append(f"  {name:<10} {'  '.join(shares) or 'none'}")
    lines.append(f"  payload    {found.payload_bytes} bytes")
    if found.latency_ms_p50 is not None:
        lines.append(f"  latency    p50 {found.latency_ms_p50} ms  p99 {found.latency_ms_p99} ms")
    rows = records.ledger_rows(site, from_s, to_s)
    if rows:
        row = rows[-1]
        lines.append(
            f"  ledger     {row.opened} sent = {row.decided} decided + {row.degraded} degraded + "
            f"{row.expired} expired + {row.open} open; {row.lost} lost"
        )
    return lines


def _when(at_s: float) -> str:
    return datetime.fromtimestamp(at_s, UTC).strftime("%Y-%m-%d %H:%M:%SZ")
