"""The database, on SQLite and on a real PostgreSQL."""

import sqlite3
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cloud_service.records import store as store_module
from cloud_service.records.engine import parse
from cloud_service.records.ledgers import Ledger
from cloud_service.records.rows import time_us
from cloud_service.records.store import Cursor, Records
from cloud_service.records.tables import metadata
from cloud_service.records.writer import MAX_SITES, Heard
from ddnn.errors import ConfigError, RecordsError
from tests.postgres import Postgres
from tests.records import decision, decisions


@pytest.fixture(scope="session")
def postgres():
    server = Postgres()
    server.start()
    yield server
    server.close()


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.live)])
def url(request, tmp_path):
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/decisions.db"
    server = request.getfixturevalue("postgres")
    server.empty()
    return server.url


@pytest.fixture
def records(url):
    opened = Records(url)
    opened.migrate()
    yield opened
    opened.close()


def everything(records, site="s1"):
    return [each for chunk in records.iterate(site) for each in chunk]


# -- tables ----------------------------------------------------------------------------------


def test_migrations_make_the_tables_that_the_program_uses(records):
    with records._engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        assert compare_metadata(context, metadata) == []


def test_migrations_keep_sqlite_rows_in_the_order_of_the_key(tmp_path):
    """Alembic does not compare that."""
    records = Records(f"{tmp_path}/a.db")
    records.migrate()
    records.close()
    other = sa.create_engine(f"sqlite:///{tmp_path}/b.db")
    metadata.create_all(other)
    other.dispose()

    def tables(name):
        connection = sqlite3.connect(tmp_path / name)
        found = connection.execute(
            "SELECT name, sql FROM sqlite_master WHERE name NOT LIKE 'alembic%'"
        ).fetchall()
        connection.close()
        return {table: "WITHOUT ROWID" in sql for table, sql in found if sql}

    assert tables("a.db") == tables("b.db")
    assert tables("a.db")["decisions"]


def test_migrating_again_changes_nothing(records):
    records.add([decision(1)])
    records.migrate()
    assert everything(records) == [decision(1)]


def test_two_programs_that_start_at_once_migrate_once(url):
    failures = []

    def start():
        opened = Records(url)
        try:
            opened.migrate()
        except RecordsError as error:
            failures.append(error)
        opened.close()

    threads = [threading.Thread(target=start) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []


def test_database_of_a_newer_program_is_refused(records):
    with records.writing() as connection:
        connection.exec_driver_sql("UPDATE alembic_version SET version_num = 'zzzz'")
    with pytest.raises(RecordsError, match="newer version"):
        records.migrate()


# -- exactly once ----------------------------------------------------------------------------


def test_decision_that_comes_again_is_stored_once(records):
    assert records.add([decision(1), decision(2)]) == 2
    assert records.add([decision(2), decision(3), decision(3)]) == 1
    assert everything(records) == [decision(1), decision(2), decision(3)]
    assert (records.counts["new"], records.counts["repeats"]) == (3, 2)


def test_other_decision_for_the_same_slot_never_overwrites_the_first(records, caplog):
    records.add([decision(1)])
    assert records.add([decision(1, label="car"), decision(1)]) == 0
    assert records.add([decision(1, payload_bytes=37)]) == 0
    assert everything(records) == [decision(1)]
    assert records.counts["conflicts"] == 2
    assert caplog.text.count("another decision for slot 1") == 1


def test_conflict_within_one_batch_keeps_the_first(records):
    assert records.add([decision(1), decision(1, label="car")]) == 1
    assert everything(records) == [decision(1)]
    assert records.counts["conflicts"] == 1


def test_same_slot_of_two_sites_is_two_decisions(records):
    assert records.add([decision(1), decision(1, site="s2")]) == 2
    assert records.sites() == ["s1", "s2"]


@settings(
    max_examples=15,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(st.lists(st.tuples(st.lists(decisions, max_size=4), st.booleans()), max_size=4))
def test_whatever_comes_in_whatever_order_each_key_is_there_once_and_as_first_seen(
    records, batches
):
    with records.writing() as connection:
        for table in reversed(metadata.sorted_tables):
            connection.execute(table.delete())
    first = {}
    for batch, again in batches:
        for each in batch:
            first.setdefault((each.site, each.slot), each)
        records.add(batch)
        if again:
            assert records.add(batch) == 0
    found = {(d.site, d.slot): d for site in records.sites() for d in everything(records, site)}
    assert found == first


def test_two_writers_at_once_store_each_decision_once(url):
    opened = [Records(url), Records(url)]
    opened[0].migrate()
    new = [0, 0]

    def write(number):
        for start in range(0, 400, 20):
            new[number] += opened[number].add([decision(start + n) for n in range(20)])

    threads = [threading.Thread(target=write, args=(n,)) for n in (0, 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(new) == 400
    [found] = opened[0].buckets("s1", 0, 300, 300)
    assert found.decided == 400
    for each in opened:
        each.close()


def test_sites_are_bounded(records, monkeypatch):
    monkeypatch.setattr("cloud_service.records.writer.MAX_SITES", 2)
    assert MAX_SITES > 2
    records.add([decision(1, site="a"), decision(1, site="b")])
    assert records.add([decision(1, site="c"), decision(2, site="a")]) == 1
    assert records.counts["sites_over_limit"] == 1


# -- pages -----------------------------------------------------------------------------------


@pytest.fixture
def filled(records):
    records.add(
        [
            decision(
                n,
                exit=["local", "edge", None][n % 3],
                label=["bus", "car", None][n % 3],
                degraded="overload" if n % 10 == 0 else None,
                missing=(n % 4,),
                used=(),
                absent=(),
            )
            for n in range(1000)
        ]
    )
    return records


def walk(records, **filters):
    found, before, pages = [], None, 0
    while True:
        page = records.page("s1", before=before, **filters)
        found += page.decisions
        pages += 1
        if page.next is None:
            return [each.slot for each in found], pages
        before = page.next


@pytest.mark.parametrize(
    ("filters", "wanted"),
    [
        ({}, lambda n: True),
        ({"exit": "edge"}, lambda n: n % 3 == 1),
        ({"exit": "nothing_seen"}, lambda n: n % 3 == 2),
        ({"label": "car"}, lambda n: n % 3 == 1),
        ({"degraded": True}, lambda n: n % 10 == 0),
        ({"degraded": False}, lambda n: n % 10 != 0),
        ({"missing_camera": 2}, lambda n: n % 4 == 2),
        ({"missing_camera": 31}, lambda n: False),
        ({"from_s": 20.0, "to_s": 30.0}, lambda n: 200 <= n < 300),
        ({"from_s": 20.0, "to_s": 30.0, "degraded": True}, lambda n: n in range(200, 300, 10)),
    ],
    ids=lambda value: "" if callable(value) else str(value),
)
def test_pages_hold_each_wanted_decision_once_newest_first(filled, monkeypatch, filters, wanted):
    expected = [n for n in range(999, -1, -1) if wanted(n)]
    assert walk(filled, limit=90, **filters)[0] == expected
    # The same where a page may look at a few decisions only.
    monkeypatch.setattr(store_module, "MAX_SCANNED", 70)
    monkeypatch.setattr(store_module, "SCANNED_FIRST", 30)
    slots, pages = walk(filled, limit=90, **filters)
    assert slots == expected
    assert pages < 30


def test_page_stays_in_place_while_newer_decisions_come(filled):
    first = filled.page("s1", limit=10)
    filled.add([decision(n) for n in range(1000, 1100)])
    second = filled.page("s1", limit=10, before=first.next)
    assert [each.slot for each in second.decisions] == list(range(989, 979, -1))


def test_decisions_of_a_site_that_changed_its_period_come_by_time(records):
    records.add([decision(1000, time_s=100.0), decision(101, time_s=101.0)])
    assert [each.slot for each in records.page("s1").decisions] == [101, 1000]


def test_page_of_an_unknown_site_is_empty(records):
    assert records.page("nowhere") == store_module.Page((), None)
    assert records.buckets("nowhere", 0, 300, 300) == []
    assert records.anchor("nowhere", 30.0) is None
    assert everything(records, "nowhere") == []


@given(st.text(max_size=60))
def test_cursor_is_refused_or_read_back(text):
    try:
        found = Cursor.parse(text)
    except ConfigError:
        return
    assert Cursor.parse(str(found)) == found


# -- buckets ---------------------------------------------------------------------------------


def test_buckets_of_any_length_count_the_same(filled):
    def total(bucket_s):
        found = filled.buckets("s1", 0, 100, bucket_s, member_bytes=[7] * 4)
        return (
            sum(each.decided for each in found),
            sum(each.degraded for each in found),
            sum(each.payload_bytes for each in found),
            sum(each.raw_bytes for each in found),
            sum(each.by_exit.get("edge", 0) for each in found),
            sum(each.missing.get(3, 0) for each in found),
        )

    assert total(300) == total(3600) == total(86_400) == total(60) == total(7) == total(1)
    assert total(300)[:3] == (900, 100, 36_000)
    assert [each.start_s for each in filled.buckets("s1", 0, 100, 30)] == [0, 30, 60, 90]


def test_too_many_or_too_long_buckets_are_refused(filled):
    with pytest.raises(ConfigError, match="too many"):
        filled.buckets("s1", 0, 1e9, 300)
    with pytest.raises(ConfigError, match="whole minutes"):
        filled.buckets("s1", 0, 86_400, 30)
    with pytest.raises(ConfigError, match="not empty"):
        filled.buckets("s1", 10, 10, 60)


# -- ledgers ---------------------------------------------------------------------------------


def heard(decided, at_s, site="s1", **counts):
    return Heard(site, Ledger(opened=decided, decided=decided, **counts), at_s)


def test_ledger_counts_the_decisions_before_it_in_its_batch(records):
    records.write([decision(1), decision(2), heard(7, 1000.0), decision(3)])
    assert records.lost("s1") == 0
    records.write([heard(8, 1001.0), decision(4), decision(4), heard(9, 1002.0)])
    assert records.lost("s1") == 0
    records.write([heard(11, 1003.0)])
    assert records.lost("s1") == 2
    assert records.health().lost == {"s1": 2}


def test_lost_decisions_are_known_after_a_restart(url):
    records = Records(url)
    records.migrate()
    records.write([decision(1), heard(10, 1000.0)])
    records.close()
    again = Records(url)
    again.write([heard(15, 2000.0)])
    assert again.lost("s1") == 5
    again.close()


def test_ledger_is_kept_every_few_minutes_and_when_something_is_lost(records):
    for second in range(0, 900, 20):
        counts = {"expired": second // 100}
        records.write([heard(100, 6000.0 + second, **counts)])
    records.write([heard(101, 6900.5)])
    rows = records.ledger_rows("s1", 0, 10_000)
    assert [row.at_s for row in rows] == [6000.0, 6300.0, 6600.0, 6900.5]
    assert rows[-1].lost == 1
    found = records.buckets("s1", 6000, 6900, 300)
    assert [each.expired for each in found] == [None, 3, 3]


# -- health and errors -----------------------------------------------------------------------


def test_health_says_how_much_there_is(records):
    assert records.health().ok
    assert records.health().newest_s is None
    records.add([decision(1234)])
    found = records.health()
    assert (found.ok, found.newest_s) == (True, 123.4)
    assert found.size_bytes > 4096


def test_anchor_is_a_stored_slot_before_the_newest(filled):
    assert filled.anchor("s1", 30.0) == (699, 999)
    assert filled.anchor("s1", 1000.0) == (0, 999)


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("", "name a database"),
        ("sqlite://", "in memory"),
        ("mysql://a/b", "not mysql"),
        ("http:///x y:z", "not http"),
        ("sqlite:////no/such/folder/a.db", "does not exist"),
    ],
)
def test_url_that_cannot_be_is_one_sentence(url, says):
    with pytest.raises(ConfigError, match=says):
        Records(url)


def test_password_is_never_shown():
    assert "secret" not in Records("postgresql://me:secret@host/db").name
    assert parse("postgresql://me:secret@host/db").password == "secret"


def test_sqlite_syncs_each_commit(tmp_path):
    records = Records(f"{tmp_path}/a.db")
    records.migrate()
    with records.reading() as connection:
        values = [
            connection.exec_driver_sql(f"PRAGMA {name}").scalar_one()
            for name in ("journal_mode", "synchronous", "auto_vacuum")
        ]
    records.close()
    assert values == ["wal", 2, 2]


def test_records_keep_what_was_added_when_the_process_is_killed(tmp_path):
    script = (
        "import os, signal, sys\n"
        "from cloud_service.records.store import Records\n"
        "from tests.records import decision\n"
        f"r = Records({str(tmp_path / 'a.db')!r}); r.migrate()\n"
        "r.add([decision(n) for n in range(500)])\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    root = Path(__file__).resolve().parents[2]
    subprocess.run([sys.executable, "-c", script], cwd=root, check=False, timeout=60)
    records = Records(f"{tmp_path}/a.db")
    assert len(everything(records)) == 500
    records.close()


def test_times_are_whole_microseconds():
    assert time_us(0.1 + 0.2) == 300_000
