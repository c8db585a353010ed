"""The tables, for SQLite and PostgreSQL alike. `migrations/` makes them; a test compares the two.

Sets of members are bit masks (bit n is member n; a site has at most 32 members): eight bytes at
most instead of a JSON list, exact, and "camera 3 was missing" is one operator in both servers.
Times are whole microseconds since 1970, which both servers compare and index exactly.
"""

from __future__ import annotations

import sqlalchemy as sa
from sqlalchemy import (
    BigInteger,
    Column,
    Double,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    SmallInteger,
    String,
    Table,
    Text,
)

metadata = MetaData(
    naming_convention={
        "pk": "pk_%(table_name)s",
        "fk": "fk_%(table_name)s_%(referred_table_name)s",
        "uq": "uq_%(table_name)s_%(column_0_name)s",
    }
)


def _site_key() -> Column[int]:
    return Column("site_id", Integer, ForeignKey("sites.id"), primary_key=True, autoincrement=False)


#: stored: decisions ever taken up, each once. kept: how many are here now. newest_us: time of the
#: newest. kept_from_us: older ones were removed, and are not taken up again. ledger_total and
#: ledger_offset: see `cloud_service.records.ledgers`.
sites = Table(
    "sites",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("name", String(32), nullable=False, unique=True),
    Column("stored", BigInteger, nullable=False),
    Column("kept", BigInteger, nullable=False),
    Column("newest_us", BigInteger, nullable=False),
    Column("kept_from_us", BigInteger, nullable=False),
    Column("ledger_total", BigInteger),
    Column("ledger_offset", BigInteger),
)

#: One row for each decision. latency_bin: see `cloud_service.records.counting`.
decisions = Table(
    "decisions",
    metadata,
    _site_key(),
    Column("slot", BigInteger, primary_key=True, autoincrement=False),
    Column("time_us", BigInteger, nullable=False),
    Column("label", Text),
    Column("probability", Double),
    Column("entropy", Double),
    Column("threshold", Double),
    Column("exit", Text),
    Column("members", Text, nullable=False),
    Column("used", BigInteger, nullable=False),
    Column("absent", BigInteger, nullable=False),
    Column("missing", BigInteger, nullable=False),
    Column("degraded", Text),
    Column("stage_ms", Text, nullable=False),
    Column("payload_bytes", BigInteger, nullable=False),
    Column("bundle_tag", Integer, nullable=False),
    Column("latency_bin", SmallInteger, nullable=False),
    # Pages, ranges and retention go by time: a site whose period changes numbers its slots anew.
    Index("ix_decisions_time", "site_id", "time_us", "slot"),
    Index(
        "ix_decisions_degraded",
        "site_id",
        "time_us",
        "slot",
        sqlite_where=sa.text("degraded IS NOT NULL"),
        postgresql_where=sa.text("degraded IS NOT NULL"),
    ),
    # Rows lie in the order of the key, without a second tree for it.
    sqlite_with_rowid=False,
)

#: Counts over spans of time, added to in the transaction that takes a decision up: `what` is
#: decided, degraded, exit, label, latency, bytes, missing or reported; `name` which one of these.
tallies = Table(
    "tallies",
    metadata,
    _site_key(),
    Column("span_s", Integer, primary_key=True, autoincrement=False),
    Column("start_s", BigInteger, primary_key=True, autoincrement=False),
    Column("what", String(16), primary_key=True),
    Column("name", Text, primary_key=True),
    Column("count", BigInteger, nullable=False),
    sqlite_with_rowid=False,
)

#: The gateway's ledger every few minutes, beside what was stored by then. lost: decisions that it
#: made and that have not come.
ledgers = Table(
    "ledgers",
    metadata,
    _site_key(),
    Column("at_us", BigInteger, primary_key=True, autoincrement=False),
    Column("opened", BigInteger, nullable=False),
    Column("decided", BigInteger, nullable=False),
    Column("degraded", BigInteger, nullable=False),
    Column("expired", BigInteger, nullable=False),
    Column("open", BigInteger, nullable=False),
    Column("unsent", BigInteger, nullable=False),
    Column("stored", BigInteger, nullable=False),
    Column("lost", BigInteger, nullable=False),
    sqlite_with_rowid=False,
)
