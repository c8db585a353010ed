"""The journal: what was written is read, and damage ends the reading without an exception."""

import os

import pytest

from ddnn import journal
from ddnn.journal import Accepted, Base, Ended, Kept, Memory, Sent
from ddnn.journal_file import JournalFile

RECORDS = [
    Base({"opened": 3, "decided": 3}, 10, (11, 12, 14)),
    Kept(14, b'{"slot":14}', True),
    Accepted(15, 0, b"frame"),
    Accepted(15, 1, b"other"),
    Ended(15, ("decided", "exit.local"), b'{"slot":15}'),
    Sent(15),
    Accepted(16, 0, b"frame"),
]
DATA = b"".join(map(journal.encode, RECORDS))


def memory(records):
    made = Memory(remembered_slots=100, max_decisions=10)
    for record in records:
        made.apply(record)
    return made


def says(made):
    return (
        made.counts,
        made.closed.dump(),
        dict(made.unsent),
        dict(made.recent),
        {slot: list(frames) for slot, frames in made.open.items()},
    )


def test_records_are_read_as_they_were_written():
    assert journal.read(DATA) == (RECORDS, len(DATA), False)


def test_journal_cut_at_any_byte_gives_the_whole_records_before_it():
    for cut in range(len(DATA)):
        found = journal.read(DATA[:cut])
        assert found.records == RECORDS[: len(found.records)]
        assert found.damaged == (found.good_bytes != cut)


@pytest.mark.parametrize("at", range(0, len(DATA), 3))
def test_flipped_bit_is_never_read_as_data(at):
    damaged = bytearray(DATA)
    damaged[at] ^= 4
    found = journal.read(bytes(damaged))
    assert found.damaged
    assert found.records == RECORDS[: len(found.records)]


def test_memory_of_a_rotated_journal_is_the_same():
    made = memory(RECORDS)
    assert made.counts == {"opened": 4, "decided": 4, "exit.local": 1}
    assert 15 in made.closed
    assert set(made.unsent) == {14}
    assert set(made.open) == {16}
    assert says(memory(made.records())) == says(made)


def test_second_end_of_a_slot_is_ignored():
    made = memory([*RECORDS, Ended(15, ("expired",)), Accepted(15, 2, b"late")])
    assert made.counts["expired"] == 0
    assert 15 not in made.open


def test_recent_decisions_are_bounded():
    made = memory(Ended(slot, ("decided",), b"{}") for slot in range(50))
    assert list(made.recent) == list(range(40, 50))


# -- the file ----------------------------------------------------------------------------------


def file(path, snapshot=lambda: b"", **options):
    return JournalFile(path / "j", snapshot, **options)


def test_appended_bytes_are_there_without_a_close(tmp_path):
    one = file(tmp_path, lambda: b"snapshot ")
    one.append(b"not written: the snapshot has it")
    one.append(b"a")
    one.append(b"b")
    assert file(tmp_path).read() == b"snapshot ab"


def test_missing_journal_is_empty(tmp_path):
    assert file(tmp_path).read() == b""


def test_long_journal_is_written_anew(tmp_path):
    one = file(tmp_path, lambda: b"short", max_bytes=100)
    for _ in range(100):
        one.append(b"0123456789")
    assert one.counts["journal_rotations"] > 5
    assert os.path.getsize(tmp_path / "j") < 130


def test_snapshot_longer_than_the_limit_is_not_written_for_every_record(tmp_path):
    one = file(tmp_path, lambda: bytes(1000), max_bytes=100)
    for _ in range(100):
        one.append(b"0123456789")
    assert one.counts["journal_rotations"] <= 2


def test_folder_that_cannot_be_written_is_counted_and_raises_nothing(tmp_path):
    (tmp_path / "file").write_text("")
    one = file(tmp_path / "file")
    for _ in range(200):
        one.append(b"x")
    assert one.counts["journal_errors"] >= 2


def test_disk_that_takes_data_again_gets_the_whole_journal(tmp_path, monkeypatch):
    one = file(tmp_path, lambda: b"everything")
    one.append(b"a")
    right = os.write

    def full(descriptor, data):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "write", full)
    for _ in range(10):
        one.append(b"lost")
    monkeypatch.setattr(os, "write", right)
    for _ in range(70):
        one.append(b"+")
    assert file(tmp_path).read().startswith(b"everything")


def test_half_written_record_is_taken_back(tmp_path, monkeypatch):
    one = file(tmp_path, lambda: b"start")
    one.append(b"")
    right = os.write
    monkeypatch.setattr(os, "write", lambda descriptor, data: right(descriptor, bytes(data)[:2]))
    one.append(b"long record")
    monkeypatch.undo()
    assert file(tmp_path).read() == b"start"
