"""Questions to the database that more than one method of `Records` asks, or that count."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from cloud_service.records.counting import NOTHING_SEEN, Tally
from cloud_service.records.rows import members_of, time_us
from cloud_service.records.tables import decisions, ledgers, sites, tallies

#: Number of the bucket since 1970, what, how many.
Counted = tuple[int, Tally, int]


def site_id(connection: Connection, name: str) -> int | None:
    """Number of a site, or None where there is none of that name."""
    return connection.scalar(sa.select(sites.c.id).where(sites.c.name == name))


def within(from_s: float | None, to_s: float | None) -> list[sa.ColumnElement[bool]]:
    """Conditions on a decision's time."""
    found = []
    if from_s is not None:
        found.append(decisions.c.time_us >= time_us(from_s))
    if to_s is not None:
        found.append(decisions.c.time_us < time_us(to_s))
    return found


def read_tallies(
    connection: Connection, site: int, start_s: int, end_s: int, bucket_s: int, span_s: int
) -> Iterator[Counted]:
    """Counts of a range, added up to buckets that are multiples of the span."""
    c = tallies.c
    number = c.start_s // bucket_s
    asked = (
        sa.select(number, c.what, c.name, sa.func.sum(c.count))
        .where(c.site_id == site, c.span_s == span_s, c.start_s >= start_s, c.start_s < end_s)
        .group_by(number, c.what, c.name)
    )
    for bucket, what, name, count in connection.execute(asked):
        yield bucket, Tally(what, name), int(count)


def count_decisions(
    connection: Connection, site: int, start_s: int, end_s: int, bucket_s: int
) -> Iterator[Counted]:
    """The same, of the decisions themselves."""
    c = decisions.c
    number = c.time_us // (bucket_s * 1_000_000)
    alike = (c.exit, c.label, c.degraded, c.latency_bin, c.missing, c.used, c.absent)
    asked = (
        sa.select(number, *alike, sa.func.count(), sa.func.sum(c.payload_bytes))
        .where(c.site_id == site, *within(start_s, end_s))
        .group_by(number, *alike)
    )
    for (
        bucket,
        exit,
        label,
        degraded,
        latency,
        missing,
        used,
        absent,
        count,
        payload,
    ) in connection.execute(asked):
        yield bucket, Tally("degraded", degraded) if degraded else Tally("decided"), count
        yield bucket, Tally("exit", exit or NOTHING_SEEN), count
        if label is not None:
            yield bucket, Tally("label", label), count
        yield bucket, Tally("latency", str(latency)), count
        yield bucket, Tally("bytes"), int(payload)
        for member in members_of(missing):
            yield bucket, Tally("missing", str(member)), count
        for member in (*members_of(used), *members_of(absent)):
            yield bucket, Tally("reported", str(member)), count


def expired(
    connection: Connection, site: int, start_s: int, end_s: int, bucket_s: int
) -> dict[int, int]:
    """Slots that ended without an answer, by bucket: what the gateway's ledger has grown by."""
    c = ledgers.c
    asked = (
        sa.select(c.at_us, c.expired)
        .where(c.site_id == site, c.at_us >= time_us(start_s), c.at_us < time_us(end_s))
        .order_by(c.at_us)
    )
    found: dict[int, int] = {}
    for (_, before), (at_us, after) in pairwise(connection.execute(asked)):
        bucket = at_us // (bucket_s * 1_000_000)
        # A ledger that has begun anew says nothing of the time between.
        found[bucket] = found.get(bucket, 0) + max(0, after - before)
    return found
