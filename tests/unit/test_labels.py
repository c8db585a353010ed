"""Labels on disk, the queue of slots, and what a tab does with keys."""

import os
import subprocess
import sys
from datetime import datetime

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ddnn.errors import ConfigError, DataError
from training.labelling.board import Board, Scenes
from training.labelling.guard import is_own
from training.labelling.queue import KEYS, Suggestion, Wanted, key_of, queue
from training.recorded.labels import LEFT_OUT, Labels, read_classes, read_labels
from training.recorded.views import View


def store(folder, *classes):
    labels = Labels(folder)
    for name in classes:
        labels.add_class(name)
    return labels


# -- on disk -----------------------------------------------------------------------------------


def test_labels_and_classes_are_there_again_in_their_order(tmp_path):
    with store(tmp_path, "van", "bus, long", "Bär") as labels:
        assert labels.change(5, None, "bus, long")
        assert labels.change(4, None, "Bär")
        assert labels.change(5, "bus, long", LEFT_OUT)
        assert labels.change(4, "Bär", None)
        assert labels.change(6, None, "Bär")
    with Labels(tmp_path) as labels:
        assert labels.all() == {5: LEFT_OUT, 6: "Bär"}
        assert list(labels.classes) == ["van", "bus, long", "Bär"]
    rows = (tmp_path / "labels.csv").read_text().splitlines()
    assert rows[0] == "slot,label,time"
    assert [row.split(",")[0] for row in rows[1:]] == ["5", "6"], "one row per slot, in order"
    assert datetime.fromisoformat(rows[1].split(",")[2]).tzinfo is not None


KILLED = """
import os, sys
from pathlib import Path
from training.recorded.labels import Labels
labels = Labels(Path(sys.argv[1]))
labels.add_class("car")
for slot in range(100_000):
    labels.change(slot, None, "car")
    os.write(1, b"%d\\n" % slot)
"""


def test_every_label_that_was_said_to_be_kept_survives_a_kill(tmp_path):
    command = [sys.executable, "-c", KILLED, str(tmp_path)]
    child = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    kept = [int(child.stdout.readline()) for _ in range(50)]
    child.kill()
    kept += [int(line) for line in child.stdout.read().split("\n")[:-1]]
    child.wait(10)
    with Labels(tmp_path) as labels:
        assert set(kept) <= set(labels.all())
        assert len(labels.all()) <= len(kept) + 1


@given(cut=st.integers(1, 200))
@settings(max_examples=60, deadline=None)
def test_file_cut_short_at_any_byte_loses_only_the_row_that_was_cut(cut, tmp_path_factory):
    folder = tmp_path_factory.mktemp("cut")
    with store(folder, "car", "bus") as labels:
        for slot in range(5):
            labels.change(slot, None, "car" if slot % 2 else "bus")
    path = folder / "labels.csv"
    whole = path.read_bytes()
    head = whole.index(b"\n") + 1
    path.write_bytes(whole[: max(head, len(whole) - cut)])
    left = path.read_bytes().count(b"\n") - 1
    with Labels(folder) as labels:
        assert sorted(labels.all()) == list(range(left))
        labels.change(9, None, "car")
    assert read_labels(folder)[9] == "car"


def test_second_process_is_refused_and_let_in_when_the_first_has_ended(tmp_path):
    with Labels(tmp_path), pytest.raises(ConfigError, match="open in another"):
        Labels(tmp_path)
    Labels(tmp_path).close()


def test_disk_that_takes_nothing_keeps_the_label_before_and_says_so(tmp_path, monkeypatch):
    with store(tmp_path, "car", "bus") as labels:
        labels.change(1, None, "car")
        before = (tmp_path / "labels.csv").read_bytes()
        write = os.write
        monkeypatch.setattr(os, "write", lambda fd, data: write(fd, data[:3]))
        with pytest.raises(DataError, match="disk is full"):
            labels.change(1, "car", "bus")
        monkeypatch.undo()
        assert labels.get(1) == "car"
        assert (tmp_path / "labels.csv").read_bytes() == before
        assert labels.change(1, "car", "bus")
    assert read_labels(tmp_path) == {1: "bus"}


@pytest.mark.parametrize("name", ["", "  ", "-", "x" * 41, "a\nb", "a\x00"])
def test_name_that_is_no_class_is_refused(tmp_path, name):
    with Labels(tmp_path) as labels, pytest.raises(ConfigError, match="name"):
        labels.add_class(name)


def test_class_that_is_there_unknown_or_in_use_is_refused(tmp_path):
    with store(tmp_path, "car", "bus") as labels:
        with pytest.raises(ConfigError, match="already"):
            labels.add_class(" car ")
        with pytest.raises(ConfigError, match="no class 'boat'"):
            labels.change(1, None, "boat")
        labels.change(1, None, "car")
        with pytest.raises(ConfigError, match="1 slots are 'car'"):
            labels.remove_class("car")
        labels.remove_class("bus")
    assert read_classes(tmp_path) == ["car"]


@pytest.mark.parametrize("text", ["x,y\n1,car\n", "slot,label,time\none,car,\n", "\xff"])
def test_file_that_holds_no_labels_is_refused_and_left_alone(tmp_path, text):
    path = tmp_path / "labels.csv"
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(DataError):
        read_labels(tmp_path)
    if text.isascii():
        with pytest.raises(DataError):
            Labels(tmp_path)
        assert path.read_text() == text


def test_labels_written_by_a_spreadsheet_are_read_without_times(tmp_path):
    (tmp_path / "labels.csv").write_text("slot,label,time\n7,car\n\n8,bus,\n")
    assert read_labels(tmp_path) == {7: "car", 8: "bus"}
    with Labels(tmp_path) as labels:
        assert list(labels.classes) == ["car", "bus"]


# -- queue and board -----------------------------------------------------------------------------


def view(slot, camera, state="present"):
    return View(slot, float(slot), camera, state, "every", "f" if state == "present" else "",
                8, 8, 1.0, 1.0)  # fmt: skip


def scenes(count=6, suggestions=None):
    views = [
        view(slot, camera) for slot in range(count) for camera in (0, 1) if slot != 2 or camera
    ]
    return Scenes([*views, view(2, 0, "absent"), view(99, 0, "absent")], suggestions or {})


SAID = {n: Suggestion("car", 1 - n / 10, n / 10) for n in range(1, 6)}


@given(
    show=st.sampled_from(["unlabelled", "uncertain", "labelled", "all", "doubtful"]),
    label=st.sampled_from([None, "car", "bus"]),
    camera=st.sampled_from([None, 0, 1]),
    order=st.sampled_from(["time", "uncertain"]),
    labels=st.dictionaries(st.integers(0, 5), st.sampled_from(["car", "bus", LEFT_OUT])),
)
def test_queue_holds_each_wanted_slot_once_in_the_wanted_order(show, label, camera, order, labels):
    all_scenes = scenes()
    found = queue(
        all_scenes.slots, all_scenes.seen_by, labels, SAID, Wanted(show, label, camera, order)
    )
    assert len(found) == len(set(found))
    assert set(found) <= set(range(6))
    for slot in range(6):
        own = labels.get(slot, SAID[slot].label if slot in SAID else None)
        fits = (label is None or own == label) and not (camera == 0 and slot == 2)
        shown = {
            "all": True,
            "labelled": slot in labels,
            "unlabelled": slot not in labels,
            "uncertain": slot not in labels and slot in (0, 5),
            "doubtful": slot in labels and slot in (1, 2) and labels[slot] != "car",
        }[show]
        assert (slot in found) == (fits and shown)
    if order == "time":
        assert found == sorted(found)
    else:
        assert found == sorted(found, key=lambda n: -2.0 if n == 0 else -SAID[n].entropy)


def test_slot_in_which_all_were_absent_is_not_shown():
    assert 99 not in scenes().slots


@pytest.fixture
def labels(tmp_path):
    with store(tmp_path, "car", "bus") as opened:
        yield opened


def test_keys_label_and_go_on_and_undo_comes_back(labels):
    board = Board(scenes(), labels)
    for key in "12X":
        board.press(key, board.slot)
    assert labels.all() == {0: "car", 1: "bus", 2: LEFT_OUT}
    assert board.slot == 3
    board.press("u", 3)
    assert (board.slot, board.shown, labels.get(2)) == (2, None, None)
    board.press("1", 2)
    assert (board.slot, labels.get(2)) == (3, "car")
    for _ in range(3):
        board.press("U", board.slot)
    assert labels.all() == {}
    board.press("u", board.slot)
    assert board.message == "nothing to undo"


def test_key_that_was_pressed_before_the_picture_was_there_counts_for_nothing(labels):
    board = Board(scenes(), labels)
    board.press("1", 0)
    board.press("2", 0)
    assert labels.all() == {0: "car"}


@pytest.mark.parametrize("key", ["3", "Shift", "Escape", "", "12", "0", "ä", "Enter"])
def test_key_without_a_meaning_does_nothing(labels, key):
    board = Board(scenes(), labels)
    board.press(key, 0)
    assert labels.all() == {}
    assert board.slot == 0


def test_slot_that_another_tab_has_labelled_meanwhile_is_not_overwritten(labels):
    one, other = Board(scenes(), labels), Board(scenes(), labels)
    one.press("1", 0)
    other.press("2", 0)
    assert labels.get(0) == "car"
    assert "car" in other.message
    other.press("2", 0)
    assert labels.get(0) == "bus", "now that it has seen it, it may"
    one.press("u", one.slot)
    assert labels.get(0) == "bus"
    assert "not undone" in one.message


def test_two_tabs_that_go_on_in_turn_label_every_slot_once(labels):
    boards = [Board(scenes(), labels), Board(scenes(), labels)]
    for turn in range(20):
        board = boards[turn % 2]
        board.look_again()
        if board.slot is not None:
            board.press("1", board.slot)
    assert labels.all() == dict.fromkeys(range(6), "car")
    assert boards[0].slot is None or boards[0].shown == "car"


def test_most_uncertain_come_first_and_zero_agrees(labels):
    board = Board(scenes(suggestions=SAID), labels)
    assert board.wanted.order == "uncertain"
    board.press("ArrowRight", board.slot)
    assert board.slot == 5
    board.press("0", 5)
    assert labels.get(5) == "car"
    assert board.slot == 4


def test_suggestion_of_a_class_that_is_not_there_is_not_taken(labels):
    board = Board(scenes(1, {0: Suggestion("tram", 0.9, 0.1)}), labels)
    board.press("0", board.slot)
    assert labels.all() == {}
    assert "no class 'tram'" in board.message


def test_filtering_keeps_the_slot_shown_where_it_still_fits(labels):
    board = Board(scenes(), labels)
    board.press("ArrowRight", 0)
    board.press("ArrowRight", 1)
    board.choose(Wanted(camera=1))
    assert board.slot == 2
    board.choose(Wanted(camera=0))
    assert board.slot == 0
    board.choose(Wanted(show="labelled"))
    assert board.slot is None
    board.press("1", None)
    assert labels.all() == {}


def test_no_two_classes_share_a_key():
    keys = [key_of(n) for n in range(len(KEYS))]
    assert len(set(keys)) == len(keys)
    assert not set(keys) & set("xu0? ")
    assert key_of(len(KEYS)) == ""


@pytest.mark.parametrize(
    ("host", "origin", "own"),
    [
        ("localhost:8090", None, True),
        ("127.0.0.1:8090", "http://127.0.0.1:8090", True),
        ("[::1]:8090", None, True),
        ("evil.example:8090", None, False),
        ("evil.example", "http://evil.example", False),
        ("localhost:8090", "http://evil.example", False),
        ("localhost:8090", "http://localhost:3000", False),
        ("localhost:8090", "null", False),
        ("", None, False),
        ("[bad", None, False),
    ],
)
def test_only_this_machines_own_page_is_served(host, origin, own):
    headers = {"host": host} | ({"origin": origin} if origin else {})
    assert is_own(headers) is own
