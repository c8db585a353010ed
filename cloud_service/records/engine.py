"""A database's URL -> SQLAlchemy engine, set up as this program needs it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import URL, Connection, Engine, make_url

from ddnn.errors import ConfigError

#: How long a write waits for another one.
LOCK_TIMEOUT_S = 10.0
_PAGE_BYTES = 4096
#: A server that is gone without a word is given up after so many milliseconds.
_NETWORK_TIMEOUT_MS = 10_000
_STATEMENT_TIMEOUT_MS = 60_000


def parse(text: str) -> URL:
    """A database's URL, or an SQLite file's name.

    Raises:
        ConfigError: it is none, or of a server that this program does not know.
    """
    if "://" not in text:
        if not text:
            raise ConfigError("name a database: a file, sqlite:///FILE or postgresql://HOST/NAME")
        return URL.create("sqlite", database=text)
    try:
        url = make_url(text)
    except sa.exc.ArgumentError as error:
        raise ConfigError(
            "the database's URL cannot be read: it must look like "
            "sqlite:///FILE or postgresql://USER@HOST/NAME"
        ) from error
    kind = url.get_backend_name()
    if kind == "sqlite":
        if not url.database or url.database == ":memory:":
            raise ConfigError("a database in memory keeps nothing: name a file, sqlite:///FILE")
        return url
    if kind in ("postgresql", "postgres"):
        return url.set(drivername="postgresql+psycopg")
    raise ConfigError(f"databases are sqlite:///FILE or postgresql://HOST/NAME, not {kind}")


def make_engine(url: URL, max_bytes: int | None) -> Engine:
    """An engine that connects when it is used.

    Args:
        max_bytes: SQLite's file does not grow beyond.

    Raises:
        ConfigError: the driver is not installed, or the file's folder does not exist.
    """
    if url.get_backend_name() == "sqlite":
        folder = Path(url.database or "").absolute().parent
        if not folder.is_dir():
            raise ConfigError(f"the database's folder {folder} does not exist")
        return _sqlite(url, max_bytes)
    milliseconds = f"-c statement_timeout={_STATEMENT_TIMEOUT_MS}"
    milliseconds += f" -c lock_timeout={round(LOCK_TIMEOUT_S * 1000)}"
    arguments: dict[str, Any] = {
        "connect_timeout": 5,
        "tcp_user_timeout": _NETWORK_TIMEOUT_MS,
        "options": milliseconds,
        "application_name": "ddnn",
        "client_encoding": "utf8",
    }
    try:
        return sa.create_engine(
            url, connect_args=arguments, pool_pre_ping=True, pool_timeout=5, pool_recycle=3600
        )
    except ModuleNotFoundError as error:
        raise ConfigError("PostgreSQL needs its driver: pip install 'ddnn[postgres]'") from error


def _sqlite(url: URL, max_bytes: int | None) -> Engine:
    engine = sa.create_engine(url, connect_args={"timeout": LOCK_TIMEOUT_S}, pool_timeout=5)

    @sa.event.listens_for(engine, "connect")
    def set_up(connection: Any, _record: Any) -> None:
        # The driver's own idea of when a transaction begins is not ours; see `begin`.
        connection.isolation_level = None
        # Before the first table, so that removed decisions give their pages back.
        connection.execute("PRAGMA auto_vacuum = INCREMENTAL")
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("PRAGMA foreign_keys = ON")
        # The write-ahead log shrinks again after a burst.
        connection.execute("PRAGMA journal_size_limit = 16777216")
        connection.execute("PRAGMA cache_size = -16000")
        if max_bytes is not None:
            connection.execute(f"PRAGMA max_page_count = {max(64, max_bytes // _PAGE_BYTES)}")

    @sa.event.listens_for(engine, "begin")
    def begin(connection: Connection) -> None:
        # A reader that turns into a writer would fail at once where another one writes.
        writes = connection.get_execution_options().get("ddnn_writes")
        connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")

    return engine
