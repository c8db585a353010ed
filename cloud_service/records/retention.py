"""What is kept for how long: decisions for days, counts of hours for years, within a size.

Work is done in small transactions, so that decisions that come in wait for a few milliseconds at
most. A site remembers up to when its decisions were removed: what a gateway sends again of them
is a repeat, and is not counted a second time.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from typing import NamedTuple

import msgspec
import sqlalchemy as sa
from sqlalchemy.engine import Connection

from cloud_service.records.counting import SPANS_S
from cloud_service.records.rows import time_us
from cloud_service.records.store import Records
from cloud_service.records.tables import decisions, ledgers, sites, tallies
from ddnn.errors import RecordsError

log = logging.getLogger(__name__)

#: Rows of one transaction, and pages that SQLite gives back in one.
CHUNK = 2000
VACUUM_PAGES = 2000
#: Above this share of the bound the oldest decisions go, whatever their age, down to the other.
HIGH, LOW = 0.9, 0.85
#: Bytes of a decision in PostgreSQL with its indexes and counts, rounded up: it does not give space
#: back to the system, so that its own size says nothing of what is in use.
POSTGRES_ROW_BYTES = 320
#: How often it is looked whether the database is near to its bound.
LOOK_EVERY_S = 10.0
_DAY_S = 86_400.0


class Rules(msgspec.Struct, frozen=True, kw_only=True):
    """How long what is kept.

    Attributes:
        keep_days: decisions, and counts of minutes.
        keep_hours_days: counts of hours, and ledgers.
    """

    keep_days: float = 30.0
    keep_hours_days: float = 3650.0


class Removed(NamedTuple):
    """What a compaction has removed.

    Attributes:
        decisions: older than they should be.
        for_room: younger ones, since there was no room for them.
        others: counts and ledgers.
        pages: given back by SQLite.
    """

    decisions: int = 0
    for_room: int = 0
    others: int = 0
    pages: int = 0


def compact(
    records: Records, rules: Rules, now_s: float, stopped: Callable[[], bool] = lambda: False
) -> Removed:
    """Remove what is older than `rules` say, and what there is no room for.

    Args:
        now_s: seconds since 1970.
        stopped: asked between two transactions.

    Raises:
        RecordsError: the database does not answer; what was removed so far is.
    """
    cut_us = time_us(now_s - rules.keep_days * _DAY_S)
    old = others = for_room = pages = 0
    for site_id, _ in _sites(records):
        while not stopped():
            count = _remove_decisions(records, site_id, cut_us)
            old += count
            if count < CHUNK:
                break
    days = dict.fromkeys(SPANS_S[:-1], rules.keep_days) | {SPANS_S[-1]: rules.keep_hours_days}
    for span_s, kept_days in days.items():
        end_s = int(now_s - kept_days * _DAY_S)
        others += _remove_tallies(records, span_s, end_s, stopped)
    others += _remove_ledgers(records, time_us(now_s - rules.keep_hours_days * _DAY_S), stopped)
    if is_crowded(records):
        assert records.max_bytes is not None
        while not stopped() and used_bytes(records) > LOW * records.max_bytes:
            count = _remove_oldest(records)
            for_room += count
            if not count:
                break
    while records.is_sqlite and not stopped():
        given_back = _give_back(records)
        pages += given_back
        if given_back < VACUUM_PAGES:
            break
    return Removed(old, for_room, others, pages)


def is_crowded(records: Records) -> bool:
    """Whether the database is so near to its bound that something must go.

    Raises:
        RecordsError: it does not answer.
    """
    return records.max_bytes is not None and used_bytes(records) > HIGH * records.max_bytes


def used_bytes(records: Records) -> int:
    """Bytes in use: of SQLite exactly, of PostgreSQL as decisions times their usual size."""
    with records.reading() as connection:
        if not records.is_sqlite:
            kept = connection.scalar(sa.select(sa.func.sum(sites.c.kept)))
            return int(kept or 0) * POSTGRES_ROW_BYTES
        used = connection.exec_driver_sql("PRAGMA page_count").scalar_one()
        used -= connection.exec_driver_sql("PRAGMA freelist_count").scalar_one()
        return int(used * connection.exec_driver_sql("PRAGMA page_size").scalar_one())


def _sites(records: Records) -> list[tuple[int, int]]:
    """Numbers of all sites, and how many decisions each has."""
    with records.reading() as connection:
        found = connection.execute(sa.select(sites.c.id, sites.c.kept).order_by(sites.c.id))
        return [(row.id, row.kept) for row in found]


def _remove_decisions(records: Records, site_id: int, cut_us: int) -> int:
    """Remove the oldest of a site that are older than `cut_us`, a chunk at most."""
    c = decisions.c
    old = (
        sa.select(c.time_us)
        .where(c.site_id == site_id, c.time_us < cut_us)
        .order_by(c.time_us)
        .limit(CHUNK)
    )
    with records.writing() as connection:
        times = connection.scalars(old).all()
        if not times:
            return 0
        # A site's slots have different times, but for a change of its period: then some more go.
        until_us = times[-1] + 1
        gone = connection.execute(
            decisions.delete().where(c.site_id == site_id, c.time_us < until_us)
        ).rowcount
        connection.execute(
            sites.update()
            .where(sites.c.id == site_id)
            .values(kept=sites.c.kept - gone, kept_from_us=until_us)
        )
    return gone


def _remove_oldest(records: Records) -> int:
    """Remove a chunk of the site whose decisions reach back furthest."""
    c = decisions.c
    with records.reading() as connection:
        oldest = [
            (
                connection.scalar(sa.select(sa.func.min(c.time_us)).where(c.site_id == site_id)),
                site_id,
            )
            for site_id in connection.scalars(sa.select(sites.c.id).where(sites.c.kept > 0))
        ]
    found = [(at_us, site_id) for at_us, site_id in oldest if at_us is not None]
    return _remove_decisions(records, min(found)[1], 2**62) if found else 0


def _remove_tallies(records: Records, span_s: int, end_s: int, stopped: Callable[[], bool]) -> int:
    removed = 0
    for site_id, _ in _sites(records):
        c = tallies.c
        mine = (c.site_id == site_id, c.span_s == span_s)
        while not stopped():
            with records.writing() as connection:
                first_s = connection.scalar(sa.select(sa.func.min(c.start_s)).where(*mine))
                if first_s is None or first_s + span_s > end_s:
                    break
                # A few dozen rows for each span.
                until_s = min(end_s - span_s + 1, first_s + 20 * span_s)
                gone = tallies.delete().where(*mine, c.start_s < until_s)
                removed += connection.execute(gone).rowcount
    return removed


def _remove_ledgers(records: Records, cut_us: int, stopped: Callable[[], bool]) -> int:
    removed = 0
    for site_id, _ in _sites(records):
        if stopped():
            break
        with records.writing() as connection:
            c = ledgers.c
            gone = ledgers.delete().where(c.site_id == site_id, c.at_us < cut_us)
            removed += connection.execute(gone).rowcount
    return removed


def _give_back(records: Records) -> int:
    """Have SQLite return free pages to the file system, some at a time."""

    def free(connection: Connection) -> int:
        return int(connection.exec_driver_sql("PRAGMA freelist_count").scalar_one())

    with records.reading() as connection:
        before = free(connection)
    if not before:
        return 0
    records.run_script(f"PRAGMA incremental_vacuum({VACUUM_PAGES})")
    with records.reading() as connection:
        return max(0, before - free(connection))


class Keeper:
    """Compacts every so often, on a thread of its own.

    Attributes:
        removed: in all, since this process began.
    """

    def __init__(self, records: Records, rules: Rules, every_s: float = 300.0) -> None:
        self.removed = Removed()
        self._records = records
        self._rules = rules
        self._every_s = every_s
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="retention", daemon=True)

    def start(self) -> None:
        """Begin; the first compaction is after `every_s`."""
        self._thread.start()

    def stop(self, timeout_s: float = 10.0) -> None:
        """End after the transaction in hand."""
        self._stop.set()
        self._thread.join(timeout_s)

    def _run(self) -> None:
        due_s = time.monotonic() + self._every_s
        while not self._stop.wait(min(LOOK_EVERY_S, self._every_s)):
            try:
                if time.monotonic() < due_s and not is_crowded(self._records):
                    continue
                due_s = time.monotonic() + self._every_s
                found = compact(self._records, self._rules, time.time(), self._stop.is_set)
            except RecordsError as error:
                log.warning("old decisions are not removed now: %s", error)
                continue
            self.removed = Removed(*map(sum, zip(self.removed, found, strict=True)))
            if found.for_room:
                log.warning(
                    "%d decisions younger than %g days were removed: the database has its size",
                    found.for_room,
                    self._rules.keep_days,
                )
