"""Decisions in a database, exactly once by (site, slot): the only file that talks to a server.

SQLite by default, PostgreSQL by its URL. What is decided here:

- A decision is inserted with ON CONFLICT DO NOTHING; what the database says was new is counted in
  the same transaction. One that comes again is a repeat; one that comes again with other contents
  is a conflict: counted, logged, and never written.
- SQLite runs in WAL mode with synchronous=FULL: a commit is on the disk before it returns.
  NORMAL would be faster and lose the last commits with the power, which are acknowledged to the
  broker and gone there. A batch of decisions shares one sync.
- Every failure of the server is a `RecordsError` with the reason; nothing is retried here.
"""

from __future__ import annotations

import contextlib
import logging
import re
import sqlite3
import threading
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import msgspec
import sqlalchemy as sa
from sqlalchemy.engine import Connection

from cloud_service.records import queries, schema, writer
from cloud_service.records.counting import NOTHING_SEEN, SPANS_S, Bucket, Tally, bucket
from cloud_service.records.engine import make_engine, parse
from cloud_service.records.rows import MAX_MEMBERS, decision_of, time_us
from cloud_service.records.tables import decisions, ledgers, sites
from cloud_service.records.writer import Heard
from ddnn.decisions import PublishedDecision
from ddnn.errors import ConfigError, RecordsError

log = logging.getLogger(__name__)

#: A page with filters looks at so many decisions and then says where to go on.
MAX_SCANNED = 20_000
SCANNED_FIRST = 2000
MAX_PAGE = 1000
#: Buckets that are no multiple of a counted span are counted from the decisions themselves.
MAX_FINE_RANGE_S = 900
MAX_BUCKETS = 5000


class Cursor(NamedTuple):
    """Where a page ends: the next one begins below it."""

    time_us: int
    slot: int

    def __str__(self) -> str:
        return f"{self.time_us}_{self.slot}"

    @classmethod
    def parse(cls, text: str) -> Cursor:
        """Text of a cursor -> cursor.

        Raises:
            ConfigError: it is none.
        """
        found = re.fullmatch(r"(-?[0-9]{1,18})_(-?[0-9]{1,18})", text)
        if found is None:
            raise ConfigError(f"{text[:40]!r} is no cursor: take `next` of the page before")
        return cls(int(found[1]), int(found[2]))


class Page(msgspec.Struct, frozen=True):
    """Decisions, newest first. With filters it may hold few, or none, and still have a next.

    Attributes:
        next: where to go on; None: there is nothing older.
    """

    decisions: tuple[PublishedDecision, ...]
    next: Cursor | None


class LedgerRow(msgspec.Struct, frozen=True, kw_only=True):
    """A gateway's ledger at a time, beside what was stored by then.

    Attributes:
        at_s: seconds since 1970.
        stored: decisions stored so far, those from before the ledger began included.
        lost: decisions that the gateway has published and that have not come.
    """

    at_s: float
    opened: int
    decided: int
    degraded: int
    expired: int
    open: int
    unsent: int
    stored: int
    lost: int


class RecordsHealth(msgspec.Struct, frozen=True, kw_only=True):
    """How the database is.

    Attributes:
        ok: it answers and takes decisions.
        reason: why not; None while all is well.
        waiting: decisions that have come and are not stored yet.
        newest_s: time of the newest decision, seconds since 1970; None: there is none.
        size_bytes: of the database; None: not known.
        lost: decisions by site that its gateway has published and that have not come.
        counts: new, repeats, conflicts and so on since this process began.
    """

    ok: bool
    reason: str | None = None
    waiting: int = 0
    newest_s: float | None = None
    size_bytes: int | None = None
    lost: dict[str, int] = {}
    counts: dict[str, int] = {}


class _RefusedError(RecordsError):
    """The server does not take these values, now or ever."""


class Records:
    """One database of decisions. Every method may be called from any thread.

    Args:
        url: `sqlite:///folder/file.db`, a plain file name for the same, or `postgresql://...`.
        max_bytes: the size that `cloud_service.records.retention` keeps the database below; beyond
            it SQLite's file does not grow, come what may. None: no bound.

    Attributes:
        counts: decisions that were new, repeats, conflicts, too_old, refused, sites_over_limit.
        waiting, trouble: set by whoever stores what comes in, for `health`.

    Raises:
        ConfigError: a URL that cannot be one, or of another server.
    """

    def __init__(self, url: str, *, max_bytes: int | None = None) -> None:
        self.url = parse(url)
        self.max_bytes = max_bytes
        self.counts: Counter[str] = Counter()
        self.waiting = 0
        self.trouble: str | None = None
        self._lost: dict[str, int] = {}
        self._conflicting: set[str] = set()
        self._ledger_rows: dict[str, tuple[int, int]] = {}
        self._lock = threading.Lock()
        self._engine = make_engine(self.url, max_bytes)

    @property
    def is_sqlite(self) -> bool:
        """Whether the server is SQLite."""
        return self.url.get_backend_name() == "sqlite"

    @property
    def name(self) -> str:
        """The URL without its password."""
        return self.url.render_as_string(hide_password=True)

    def migrate(self) -> None:
        """Bring the tables to what this program needs; nothing to do is quickly done.

        Raises:
            RecordsError: the database does not answer, or is of a newer program.
        """
        with self.writing() as connection:
            schema.migrate(connection)

    def close(self) -> None:
        """Close all connections."""
        self._engine.dispose()

    # -- taking up ---------------------------------------------------------------------------

    def add(self, batch: Sequence[PublishedDecision]) -> int:
        """Store decisions that are not here yet.

        Returns:
            How many were new.

        Raises:
            RecordsError: none of them was stored; the same call may be made again.
        """
        return self.write(batch)

    def write(self, batch: Sequence[PublishedDecision | Heard]) -> int:
        """Store decisions and ledgers in one transaction, in the order in which they came.

        Decisions must have passed `cloud_service.records.rows.check`.

        Returns:
            How many decisions were new.

        Raises:
            RecordsError: nothing of it was stored; the same call may be made again.
        """
        if not batch:
            return 0
        try:
            with self.writing() as connection:
                written = writer.write(connection, batch, self._ledger_rows)
        except _RefusedError as error:
            if len(batch) > 1:  # the others are none the worse for it
                return sum(self.write([each]) for each in batch)
            log.error("a message of site %s is left out: %s", batch[0].site, error)
            with self._lock:
                self.counts["refused"] += 1
            return 0
        with self._lock:  # only what was committed counts
            self.counts.update(written.counts)
            self._lost.update(written.lost)
            self._ledger_rows.update(written.ledger_rows)
            unheard = written.conflicts.keys() - self._conflicting
            self._conflicting |= unheard
        for site in sorted(unheard):  # once for each: a gateway that does this does it often
            log.error(
                "site %s has sent another decision for slot %d than before: the first one stays",
                site,
                written.conflicts[site],
            )
        return written.counts["new"]

    # -- reading -----------------------------------------------------------------------------

    def sites(self) -> list[str]:
        """Names of the sites that there are decisions or ledgers of, sorted."""
        with self.reading() as connection:
            return list(connection.scalars(sa.select(sites.c.name).order_by(sites.c.name)))

    def decision(self, site: str, slot: int) -> PublishedDecision | None:
        """One decision, or None."""
        with self.reading() as connection:
            found = (
                connection.execute(
                    sa.select(decisions)
                    .join(sites)
                    .where(sites.c.name == site, decisions.c.slot == slot)
                )
                .mappings()
                .first()
            )
        return decision_of(found, site) if found else None

    def page(
        self,
        site: str,
        *,
        before: Cursor | None = None,
        limit: int = 100,
        from_s: float | None = None,
        to_s: float | None = None,
        exit: str | None = None,
        label: str | None = None,
        degraded: bool | None = None,
        missing_camera: int | None = None,
    ) -> Page:
        """Decisions of a site, newest first.

        Args:
            before: `next` of the page before.
            limit: at most so many, 1 to 1000.
            from_s, to_s: times of the slots, seconds since 1970; `to_s` is left out itself.
            exit: `local`, `edge`, `cloud` or `nothing_seen`.
            degraded: only those with a reason, or only those without.
            missing_camera: only those in which this camera (or edge) was missing.
        """
        c = decisions.c
        filters: list[sa.ColumnElement[bool]] = []
        if exit is not None:
            filters.append(c.exit.is_(None) if exit == NOTHING_SEEN else c.exit == exit)
        if label is not None:
            filters.append(c.label == label)
        if degraded is False:
            filters.append(c.degraded.is_(None))
        if missing_camera is not None:
            if not 0 <= missing_camera < MAX_MEMBERS:
                raise ConfigError(f"there is no camera {missing_camera}: they are 0 to 31")
            filters.append(c.missing.op("&")(1 << missing_camera) != 0)
        limit = max(1, min(limit, MAX_PAGE))
        key = sa.tuple_(c.time_us, c.slot)
        with self.reading() as connection:
            site_id = queries.site_id(connection, site)
            if site_id is None:
                return Page((), None)
            within = [c.site_id == site_id, *queries.within(from_s, to_s)]
            if degraded:  # these have an index of their own
                within.append(c.degraded.is_not(None))
            if before is not None:
                within.append(key < sa.tuple_(*map(sa.literal, before)))
            order = (c.time_us.desc(), c.slot.desc())
            end: Cursor | None = None
            rows: Sequence[sa.RowMapping] = ()
            # What is rare would have the whole table searched: look so far and no further. What
            # is not is found nearby, and even counting rows takes time.
            for scanned in (min(SCANNED_FIRST, MAX_SCANNED), MAX_SCANNED) if filters else (None,):
                end = _nth(connection, within, scanned) if scanned else None
                nearby = [] if end is None else [key >= sa.tuple_(*map(sa.literal, end))]
                asked = sa.select(decisions).where(*within, *filters, *nearby)
                rows = connection.execute(asked.order_by(*order).limit(limit + 1)).mappings().all()
                if len(rows) > limit or end is None:
                    break
        found = tuple(decision_of(row, site) for row in rows[:limit])
        if len(rows) > limit:
            last_row = rows[limit - 1]
            return Page(found, Cursor(last_row["time_us"], last_row["slot"]))
        return Page(found, end)

    def iterate(
        self,
        site: str,
        from_s: float | None = None,
        to_s: float | None = None,
        chunk: int = 5000,
    ) -> Iterator[list[PublishedDecision]]:
        """Decisions of a site, oldest first, in chunks; each in a transaction of its own."""
        c = decisions.c
        key = sa.tuple_(c.time_us, c.slot)
        after: Cursor | None = None
        while True:
            with self.reading() as connection:
                site_id = queries.site_id(connection, site)
                if site_id is None:
                    return
                within = [c.site_id == site_id, *queries.within(from_s, to_s)]
                if after is not None:
                    within.append(key > sa.tuple_(*map(sa.literal, after)))
                rows = (
                    connection.execute(
                        sa.select(decisions).where(*within).order_by(c.time_us, c.slot).limit(chunk)
                    )
                    .mappings()
                    .all()
                )
            if not rows:
                return
            after = Cursor(rows[-1]["time_us"], rows[-1]["slot"])
            yield [decision_of(row, site) for row in rows]

    def buckets(
        self,
        site: str,
        from_s: float,
        to_s: float,
        bucket_s: int,
        member_bytes: Sequence[int] | None = None,
    ) -> list[Bucket]:
        """What was decided over time, in buckets that begin at multiples of `bucket_s`.

        Whole minutes come from counts that are kept along with the decisions (whole hours for
        much longer than these); others are counted now, over 15 minutes at most.

        Args:
            from_s, to_s: seconds since 1970; the buckets that these touch.
            member_bytes: for `raw_bytes`: what the raw views below each member are, per frame.

        Returns:
            Every bucket of the range, also those in which nothing was decided.

        Raises:
            ConfigError: more than 5000 buckets, or too long a range for such short ones.
        """
        if bucket_s < 1 or to_s <= from_s:
            raise ConfigError(
                "buckets need a length of at least 1 s, and a range that is not empty"
            )
        first, last = int(from_s // bucket_s), int(-(-to_s // bucket_s))
        if last - first > MAX_BUCKETS:
            raise ConfigError(
                f"{last - first} buckets are too many: take longer ones, or a shorter range"
            )
        span_s = next((span for span in reversed(SPANS_S) if bucket_s % span == 0), None)
        start_s, end_s = first * bucket_s, last * bucket_s
        if span_s is None and end_s - start_s > MAX_FINE_RANGE_S + 2 * bucket_s:
            raise ConfigError(
                "buckets of that length reach over 15 minutes at most; whole minutes over more"
            )
        counts: defaultdict[int, Counter[Tally]] = defaultdict(Counter)
        with self.reading() as connection:
            site_id = queries.site_id(connection, site)
            if site_id is None:
                return []
            if span_s is None:
                found = queries.count_decisions(connection, site_id, start_s, end_s, bucket_s)
            else:
                found = queries.read_tallies(connection, site_id, start_s, end_s, bucket_s, span_s)
            for number, key, count in found:
                counts[number][key] += count
            expired = queries.expired(connection, site_id, start_s, end_s, bucket_s)
        return [
            bucket(
                number * bucket_s,
                counts[number],
                expired=expired.get(number),
                member_bytes=member_bytes,
            )
            for number in range(first, last)
        ]

    def total(self, site: str, from_s: float, to_s: float) -> Bucket:
        """What was decided in a range of time, widened to whole hours."""
        span_s = SPANS_S[-1]
        start_s, end_s = int(from_s // span_s * span_s), int(-(-to_s // span_s) * span_s)
        counts: Counter[Tally] = Counter()
        with self.reading() as connection:
            site_id = queries.site_id(connection, site)
            if site_id is not None:
                # All into one, whatever multiple of its length the range begins at.
                found = queries.read_tallies(connection, site_id, start_s, end_s, span_s, span_s)
                for _, key, count in found:
                    counts[key] += count
        return bucket(start_s, counts)

    def ledger_rows(
        self, site: str, from_s: float | None = None, to_s: float | None = None
    ) -> list[LedgerRow]:
        """What the site's gateway said of its slots over time, oldest first, at most 5000."""
        c = ledgers.c
        conditions = [sites.c.name == site]
        if from_s is not None:
            conditions.append(c.at_us >= time_us(from_s))
        if to_s is not None:
            conditions.append(c.at_us < time_us(to_s))
        asked = sa.select(ledgers).join(sites).where(*conditions).order_by(c.at_us.desc())
        with self.reading() as connection:
            rows = connection.execute(asked.limit(MAX_BUCKETS)).mappings().all()
        names = LedgerRow.__struct_fields__[1:]
        return [
            LedgerRow(at_s=row["at_us"] / 1e6, **{name: row[name] for name in names})
            for row in reversed(rows)
        ]

    def anchor(self, site: str, margin_s: float) -> tuple[int, int] | None:
        """Between which slots some may be missing; None: there is no decision yet.

        Returns:
            A slot that is here and `margin_s` older than the newest, since decisions come out of
            order; and the newest itself.
        """
        c = decisions.c
        with self.reading() as connection:
            row = connection.execute(
                sa.select(sites.c.id, sites.c.newest_us).where(sites.c.name == site)
            ).first()
            if row is None:
                return None
            mine = sa.select(c.slot).where(c.site_id == row.id)
            latest = mine.order_by(c.time_us.desc(), c.slot.desc()).limit(1)
            newest = connection.scalar(latest)
            if newest is None:
                return None
            older = latest.where(c.time_us <= row.newest_us - time_us(margin_s))
            found = connection.scalar(older)
            if found is None:
                found = connection.scalar(mine.order_by(c.time_us, c.slot).limit(1))
        return (newest if found is None else found), newest

    def health(self) -> RecordsHealth:
        """How the database is, asked now. Raises nothing."""
        newest_s, size, reason = None, None, self.trouble
        try:
            with self.reading() as connection:
                newest = connection.scalar(sa.select(sa.func.max(sites.c.newest_us)))
                newest_s = newest / 1e6 if newest is not None else None
                size = self._size(connection)
        except RecordsError as error:
            reason = reason or str(error)
        with self._lock:
            lost = {site: count for site, count in self._lost.items() if count}
            counts = dict(self.counts)
        return RecordsHealth(
            ok=reason is None,
            reason=reason,
            waiting=self.waiting,
            newest_s=newest_s,
            size_bytes=size,
            lost=lost,
            counts=counts,
        )

    def lost(self, site: str) -> int:
        """Decisions that the site's gateway has published and that have not come."""
        with self._lock:
            return self._lost.get(site, 0)

    # -- transactions ------------------------------------------------------------------------

    def _size(self, connection: Connection) -> int:
        if self.is_sqlite:
            pages = connection.exec_driver_sql("PRAGMA page_count").scalar_one()
            size = connection.exec_driver_sql("PRAGMA page_size").scalar_one()
            return int(pages * size)
        asked = sa.select(sa.func.pg_database_size(sa.func.current_database()))
        return int(connection.scalar(asked) or 0)

    @contextlib.contextmanager
    def reading(self) -> Iterator[Connection]:
        """A connection in a transaction that only reads.

        Raises:
            RecordsError: the database does not answer.
        """
        with self._said(), self._engine.connect() as connection:
            yield connection

    @contextlib.contextmanager
    def writing(self) -> Iterator[Connection]:
        """A connection in a transaction that is committed at the end of the block.

        Raises:
            RecordsError: it was not.
        """
        with self._said(), self._engine.connect() as connection:
            connection = connection.execution_options(ddnn_writes=True)
            with connection.begin():
                yield connection

    def run_script(self, script: str) -> None:
        """Run SQLite statements outside of any transaction.

        Other calls of the driver step a statement without columns once; a vacuum's steps are its
        pages.

        Raises:
            RecordsError: the database does not answer.
        """
        with self._said():
            connection = self._engine.raw_connection()
            try:
                cursor: Any = connection.cursor()
                try:
                    cursor.executescript(script)
                except sqlite3.Error as error:
                    raise RecordsError(f"database {self.name}: {error}") from error
            finally:
                connection.close()

    @contextlib.contextmanager
    def _said(self) -> Iterator[None]:
        """What goes wrong with the server -> a sentence."""
        try:
            yield
        except sa.exc.DataError as error:
            raise _RefusedError(f"database {self.name}: {error.orig}") from error
        except sa.exc.DBAPIError as error:
            said = str(error.orig).strip().splitlines() or [type(error.orig).__name__]
            raise RecordsError(f"database {self.name}: {said[0]}") from error
        except sa.exc.TimeoutError as error:
            raise RecordsError(f"database {self.name}: all connections are busy") from error


def _nth(
    connection: Connection, within: Sequence[sa.ColumnElement[bool]], number: int
) -> Cursor | None:
    """The newest decision but so many minus one; None: there are not so many."""
    c = decisions.c
    newest = sa.select(c.time_us, c.slot).where(*within)
    newest = newest.order_by(c.time_us.desc(), c.slot.desc())
    row = connection.execute(newest.offset(number - 1).limit(1)).first()
    return None if row is None else Cursor(*row)
