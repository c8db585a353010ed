"""What is removed and what stays; files that decisions are exported to."""

import csv
import json
import time

import pytest
from click.testing import CliRunner
from pyarrow import parquet

from cloud_service.records import retention
from cloud_service.records.cli import decisions as command
from cloud_service.records.export import FIELDS, export
from cloud_service.records.ledgers import Ledger
from cloud_service.records.retention import Keeper, Rules, compact, used_bytes
from cloud_service.records.store import Records
from cloud_service.records.writer import Heard
from ddnn.cli import main
from ddnn.decisions import PublishedDecision
from ddnn.errors import RecordsError
from tests.records import decision

DAY = 86_400.0


@pytest.fixture
def records(tmp_path):
    opened = Records(f"{tmp_path}/decisions.db")
    opened.migrate()
    yield opened
    opened.close()


def everything(records, site="s1"):
    return [each for chunk in records.iterate(site) for each in chunk]


def by_day(days, site="s1"):
    """One decision for each day."""
    return [decision(n, site=site, time_s=n * DAY, used=(0,)) for n in days]


# -- retention -------------------------------------------------------------------------------


def test_old_decisions_go_and_their_hours_stay(records):
    records.add(by_day(range(100)) + by_day(range(90, 100), "s2"))
    removed = compact(records, Rules(keep_days=30), 100 * DAY)
    assert removed.decisions == 70
    assert [each.slot for each in everything(records)] == list(range(70, 100))
    assert len(everything(records, "s2")) == 10
    assert sum(each.decided for each in records.buckets("s1", 0, 100 * DAY, 86_400)) == 100
    fine = records.buckets("s1", 60 * DAY, 71 * DAY, 300)
    assert sum(each.decided for each in fine) == 1
    assert compact(records, Rules(keep_days=30), 100 * DAY) == retention.Removed()


def test_removed_decision_that_comes_again_is_not_counted_again(records):
    records.add(by_day(range(100)))
    compact(records, Rules(keep_days=30), 100 * DAY)
    assert records.add(by_day(range(100))) == 0
    assert records.counts["too_old"] == 70
    assert sum(each.decided for each in records.buckets("s1", 0, 100 * DAY, 86_400)) == 100


def test_hours_and_ledgers_go_after_their_own_time(records):
    for day in range(70, 100):
        records.write([decision(day, time_s=day * DAY), Heard("s1", Ledger(opened=day), day * DAY)])
    compact(records, Rules(keep_days=5, keep_hours_days=10), 100 * DAY)
    assert sum(each.decided for each in records.buckets("s1", 0, 100 * DAY, 86_400)) == 10
    assert [row.opened for row in records.ledger_rows("s1")] == list(range(90, 100))


def test_work_is_done_in_small_transactions(records, monkeypatch):
    monkeypatch.setattr(retention, "CHUNK", 7)
    records.add(by_day(range(100)))
    assert compact(records, Rules(keep_days=30), 100 * DAY).decisions == 70
    [row] = [n for _, n in retention._sites(records)]
    assert row == 30


def test_compaction_that_is_stopped_goes_on_the_next_time(records, monkeypatch):
    monkeypatch.setattr(retention, "CHUNK", 7)
    records.add(by_day(range(100)))
    turns = iter([False, False])
    first = compact(records, Rules(keep_days=30), 100 * DAY, lambda: next(turns, True))
    assert first.decisions == 14
    assert compact(records, Rules(keep_days=30), 100 * DAY).decisions == 56


def test_database_gives_its_space_back(records, tmp_path):
    records.add([decision(n) for n in range(6000)])
    before = records.health().size_bytes
    removed = compact(records, Rules(keep_days=30), 1000 * DAY)
    assert removed.decisions == 6000
    assert removed.pages > 50
    assert records.health().size_bytes < before / 5


def test_without_room_the_oldest_decisions_go_whatever_their_age(tmp_path):
    bound = 1_500_000
    records = Records(f"{tmp_path}/decisions.db", max_bytes=bound)
    records.migrate()
    records.add([decision(n, site="old") for n in range(2000)])
    slot = 2000
    for _ in range(12):
        records.add([decision(n) for n in range(slot, slot + 1000)])
        slot += 1000
        if retention.is_crowded(records):
            removed = compact(records, Rules(keep_days=30), slot / 10)
            assert removed.for_room > 0
            assert used_bytes(records) <= retention.LOW * bound
    assert records.health().size_bytes <= bound
    assert everything(records)[-1].slot == slot - 1
    assert len(everything(records, "old")) < 2000
    records.close()


def test_full_database_says_so_and_takes_decisions_again_when_there_is_room(tmp_path):
    records = Records(f"{tmp_path}/decisions.db", max_bytes=400_000)
    records.migrate()
    slot, said = 0, None
    while said is None and slot < 100_000:
        try:
            records.add([decision(n) for n in range(slot, slot + 500)])
            slot += 500
        except RecordsError as error:
            said = str(error)
    assert "full" in said
    assert len(everything(records)) == slot
    compact(records, Rules(keep_days=30), slot / 10)
    assert records.add([decision(n) for n in range(slot, slot + 100)]) == 100
    records.close()


def test_keeper_compacts_by_itself(records):
    now = time.time()
    records.add([decision(1, time_s=now - 40 * DAY), decision(2, time_s=now)])
    keeper = Keeper(records, Rules(), every_s=0.01)
    keeper.start()
    deadline = time.monotonic() + 20
    while len(everything(records)) > 1 and time.monotonic() < deadline:
        time.sleep(0.01)
    keeper.stop()
    assert [each.slot for each in everything(records)] == [2]


# -- export ----------------------------------------------------------------------------------

SOME = [
    decision(1),
    decision(2, label=None, exit=None, probability=None, entropy=None, used=(), absent=(0, 1, 2)),
    decision(3, label='bus, "red"\n', degraded="overload", stage_ms={"a": 0.1, "b": 1e-7}),
]


def test_csv_can_be_read_back_whole(tmp_path):
    assert export([SOME[:2], SOME[2:]], tmp_path / "a.csv", "csv") == 3
    rows = list(csv.DictReader((tmp_path / "a.csv").open(newline="")))
    texts = {"site", "label", "exit", "members", "degraded"}
    found = [
        PublishedDecision(
            **{
                name: None
                if row[name] == ""
                else row[name]
                if name in texts
                else _plain(json.loads(row[name]))
                for name in FIELDS
            }
        )
        for row in rows
    ]
    assert found == SOME


def test_parquet_can_be_read_back_whole(tmp_path):
    assert export([SOME[:2], SOME[2:]], tmp_path / "a.parquet", "parquet") == 3
    rows = parquet.read_table(tmp_path / "a.parquet").to_pylist()
    found = [
        PublishedDecision(**{n: dict(v) if n == "stage_ms" else _plain(v) for n, v in row.items()})
        for row in rows
    ]
    assert found == SOME


def _plain(value):
    return tuple(value) if isinstance(value, list) else value


def test_export_of_nothing_has_its_columns(tmp_path):
    export([], tmp_path / "a.csv", "csv")
    export([], tmp_path / "a.parquet", "parquet")
    assert (tmp_path / "a.csv").read_text() == ",".join(FIELDS) + "\n"
    assert parquet.read_schema(tmp_path / "a.parquet").names == list(FIELDS)


def test_export_that_fails_leaves_the_file_that_was_there(tmp_path):
    out = tmp_path / "a.csv"
    out.write_text("before")

    def chunks():
        yield SOME
        raise RecordsError("the database is gone")

    with pytest.raises(RecordsError):
        export(chunks(), out, "csv")
    assert out.read_text() == "before"
    assert [each.name for each in tmp_path.iterdir()] == ["a.csv"]


# -- the command -----------------------------------------------------------------------------


def run(*arguments):
    return CliRunner().invoke(main, ["decisions", *map(str, arguments)])


def test_command_exports_a_site_and_a_range(records, tmp_path):
    records.add([decision(n) for n in range(6000)] + [decision(1, site="s2")])
    out = tmp_path / "a.parquet"
    done = run("export", "--database", records.url.database, "--out", out, "--site", "s1",
               "--from", "100", "--to", "1970-01-01T00:01:50Z")  # fmt: skip
    assert done.exit_code == 0, done.output
    assert "100 decisions" in done.output
    assert parquet.read_table(out)["slot"].to_pylist() == list(range(1000, 1100))
    done = run("export", "--database", records.url.database, "--out", tmp_path / "all.csv")
    assert "6001 decisions" in done.output


def test_command_counts(records):
    now = time.time()
    records.add([decision(1, time_s=now), decision(2, time_s=now, degraded="overload")])
    done = run("stats", "--database", records.url.database)
    assert done.exit_code == 0, done.output
    assert "s1: 2 decisions" in done.output
    assert "overload 1 (50.0%)" in done.output
    assert "latency" in done.output


def test_command_compacts(records):
    records.add(by_day(range(100)))
    done = run("compact", "--database", records.url.database, "--keep-days", "30")
    assert done.exit_code == 0, done.output
    assert "removed 100 old decisions" in done.output


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["export", "--out", "a.csv"], "no database"),
        (["export", "--out", "a.txt"], "--format"),
        (["stats"], "no database"),
        (["compact"], "no database"),
    ],
)
def test_mistake_is_one_sentence(tmp_path, arguments, says):
    done = run(*arguments, "--database", tmp_path / "none.db")
    assert done.exit_code == 1
    assert says in done.output
    assert "Traceback" not in done.output


def test_unknown_site_names_those_that_there_are(records):
    records.add([decision(1)])
    done = run("stats", "--database", records.url.database, "--site", "s9")
    assert done.exit_code == 1
    assert "it has s1" in done.output


def test_group_has_help():
    assert command.commands.keys() == {"export", "stats", "compact"}
