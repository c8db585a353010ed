"""Recording: what is kept, within which bounds, and that training reads it."""

import csv
import io
import os
import threading
import time
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from ddnn.cli import main
from ddnn.config import convert
from ddnn.errors import ConfigError
from device_agent import recording
from device_agent.framing import MASKED, Framing
from device_agent.recording import HourlyLimit, Recorder, Shelf, png
from device_agent.settings import CameraSettings
from device_agent.sources import Frame
from device_agent.viewer import View
from training.datasets.folders import read_folder

DAY = datetime(2026, 5, 1, 12, tzinfo=UTC)


def picture(seed, size=16):
    return np.random.default_rng(seed).integers(0, 256, (size, size, 3)).astype(np.uint8)


def view(slot, size=16):
    return View(picture(slot, size), Frame(picture(slot + 1000, 40), captured_s=float(slot)))


def recorder(folder, framing=None, **values):
    base = {"camera": 2, "source": "replay:x", "record_dir": str(folder), "period_s": 1.0}
    return Recorder(convert(base | values, CameraSettings), framing or Framing())


def files(folder):
    return sorted(str(p.relative_to(folder)) for p in Path(folder).rglob("*.png"))


def slots(folder):
    return sorted({int(Path(f).parts[1]) for f in files(folder)})


def test_every_nth_slot_is_kept_as_the_section_saw_it(tmp_path):
    one = recorder(tmp_path, record_every=10)
    for slot in range(995, 1025):
        one.saw(slot, view(slot), slot + 0.25, float(slot))
    one.close()
    assert files(tmp_path) == [f"1970-01-01/{slot}/2.png" for slot in (1000, 1010, 1020)]
    kept = np.asarray(Image.open(tmp_path / "1970-01-01/1010/2.png"))
    assert np.array_equal(kept, picture(1010))
    rows = list(csv.DictReader((tmp_path / "1970-01-01/table-2.csv").open()))
    assert [row["slot"] for row in rows] == ["1000", "1010", "1020"]
    assert rows[0] == {
        "slot": "1000", "time": "1970-01-01T00:16:40.000+00:00", "camera": "2",
        "reason": "every", "frame_age_ms": "250",
    }  # fmt: skip
    assert one.counts["recorded"] == 3


def test_slots_that_the_gateway_was_unsure_of_are_kept_and_no_others(tmp_path):
    one = recorder(tmp_path, record_unsure=True)
    for slot in range(60):
        one.saw(slot, view(slot), slot, float(slot))
    for slot in (40, 59, 59, 3, 99):  # 3 is forgotten, 99 was never seen
        one.asked(slot, 60.0)
    one.close()
    assert slots(tmp_path) == [40, 59]


def test_nothing_is_kept_of_an_absent_view(tmp_path):
    one = recorder(tmp_path, record_every=1, record_unsure=True)
    one.saw(5, View(None, Frame(picture(0), 5.0)), 5.0, 5.0)
    one.asked(5, 5.0)
    one.close()
    assert files(tmp_path) == []


def test_region_is_kept_masked_and_no_larger_than_wanted(tmp_path):
    framing = Framing((0.5, 0.0, 1.0, 1.0), [[(0.5, 0), (1, 0), (1, 0.5), (0.5, 0.5)]])
    one = recorder(tmp_path, framing, record_every=1, record_region_px=1000)
    one.saw(7, view(7), 7.0, 7.0)
    one.close()
    region = np.asarray(Image.open(tmp_path / "1970-01-01/7/region/2.png"))
    assert region.shape == (40, 20, 3)
    assert (region[:20] == MASKED).all(), "what nobody shall see is on no disk either"
    assert np.array_equal(region[20:], picture(1007, 40)[20:, 20:])
    assert Image.open(io.BytesIO(png(picture(0, 40), 10))).size == (10, 10)


@given(
    st.integers(1, 20),
    st.lists(st.floats(0.0, 4000.0), max_size=100),
)
def test_no_hour_has_more_than_its_limit(per_hour, steps):
    limit = HourlyLimit(per_hour)
    now, taken = 0.0, []
    for step in steps:
        now += step
        if limit.take(now):
            taken.append(now)
    for start in taken:
        assert sum(start <= t < start + 3600.0 for t in taken) <= per_hour
    if steps:
        assert taken


def test_more_than_the_hours_limit_is_counted_and_not_kept(tmp_path):
    one = recorder(tmp_path, record_every=1, record_per_hour=2)
    for slot in range(5):
        one.saw(slot, view(slot), slot, float(slot))
    one.close()
    assert slots(tmp_path) == [0, 1]
    assert one.counts["record_limited"] == 3


def fill(shelf, numbers, size=1000):
    for slot in numbers:
        shelf.put(slot, DAY, bytes(size), None, ("every", 0))


def test_oldest_go_when_there_are_too_many_bytes(tmp_path):
    shelf = Shelf(tmp_path, 0, 5000)
    fill(shelf, range(8, 20))
    assert slots(tmp_path) == [15, 16, 17, 18, 19]
    assert shelf.bytes == 5000


def test_bound_holds_over_a_restart_and_slots_are_ordered_by_number(tmp_path):
    fill(Shelf(tmp_path, 0, 10**6), [9, 10, 11])
    fill(Shelf(tmp_path, 0, 3000), [100])
    assert slots(tmp_path) == [10, 11, 100]


def test_day_that_is_empty_goes_with_its_table(tmp_path):
    shelf = Shelf(tmp_path, 0, 1500)
    shelf.put(1, DAY, bytes(1000), None, ("every", 0))
    shelf.put(2, DAY.replace(day=2), bytes(1000), None, ("every", 0))
    assert sorted(os.listdir(tmp_path)) == ["2026-05-02"]


def test_another_cameras_files_in_the_same_folder_are_left_alone(tmp_path):
    fill(Shelf(tmp_path, 1, 10**6), range(5))
    fill(Shelf(tmp_path, 0, 1000), range(5))
    assert len([f for f in files(tmp_path) if f.endswith("/1.png")]) == 5
    assert [f for f in files(tmp_path) if f.endswith("/0.png")] == ["2026-05-01/4/0.png"]


def test_picture_larger_than_the_bound_is_kept_alone(tmp_path):
    fill(Shelf(tmp_path, 0, 10), [1, 2])
    assert slots(tmp_path) == [2]


def test_disk_that_is_full_costs_pictures_and_nothing_else(tmp_path, monkeypatch):
    one = recorder(tmp_path, record_every=1)

    def full(path, data):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(recording, "_write_whole", full)
    for slot in range(3):
        one.saw(slot, view(slot), slot, float(slot))
    deadline = time.monotonic() + 10
    while one.counts["record_errors"] < 3:
        assert time.monotonic() < deadline
        time.sleep(0.005)
    monkeypatch.undo()
    one.saw(3, view(3), 3.0, 3.0)
    one.close()
    assert slots(tmp_path) == [3]


def test_power_lost_while_writing_leaves_no_half_picture(tmp_path, monkeypatch):
    shelf = Shelf(tmp_path, 0, 10**6)
    monkeypatch.setattr(os, "fsync", lambda _: (_ for _ in ()).throw(OSError("power")))
    with pytest.raises(OSError, match="power"):
        shelf.put(1, DAY, b"half a pict", None, ("every", 0))
    assert files(tmp_path) == []
    assert list(tmp_path.rglob("*.new"))
    Shelf(tmp_path, 0, 10**6)
    assert not list(tmp_path.rglob("*.new")), "the next start clears up"


def test_stalled_disk_delays_no_slot(tmp_path, monkeypatch):
    one = recorder(tmp_path, record_every=1)
    release = threading.Event()
    real = recording._write_whole
    monkeypatch.setattr(recording, "_write_whole", lambda *a: (release.wait(20), real(*a)))
    count = 3 * recording.QUEUED
    for slot in range(count):
        one.saw(slot, view(slot), slot, float(slot))
    assert count - one.counts["record_dropped"] in (recording.QUEUED, recording.QUEUED + 1)
    release.set()
    one.close()
    assert len(slots(tmp_path)) == count - one.counts["record_dropped"]


def test_folder_that_cannot_be_used_is_refused_at_once(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="cannot record"):
        recorder(tmp_path / "file", record_every=1)


# -- ddnn device record ------------------------------------------------------------------------


def test_recorded_folders_of_two_cameras_are_a_data_set_once_sorted(tmp_path):
    source = tmp_path / "pictures"
    source.mkdir()
    for number in range(4):
        Image.fromarray(picture(number, 64)).save(source / f"{number}.png")
    for camera in (0, 1):
        result = CliRunner().invoke(
            main,
            [
                *("device", "record", "--camera", str(camera), "--source", f"folder:{source}"),
                *("--loop", "true", "--period-s", "0.01", "--size", "8x8", "--count", "3"),
                *("--record-dir", str(tmp_path / "record")),
            ],
        )
        assert result.exit_code == 0, result.output
        assert "3 pictures kept" in result.output
    found = sorted((tmp_path / "record").glob("*/*/"))
    assert len(found) == 6
    for number, sample in enumerate(found):  # what a person does by hand
        target = tmp_path / "set" / ("train", "test")[number % 2] / f"class{number // 2 % 2}"
        target.mkdir(parents=True, exist_ok=True)
        sample.rename(target / sample.name)
    data = read_folder(tmp_path / "set")
    assert data.images.shape == (6, 2, 8, 8, 3)
    assert data.present.sum() == 6


def test_recording_without_a_folder_says_which_option():
    result = CliRunner().invoke(main, ["device", "record", "--camera", "0", "--source", "folder:."])
    assert result.exit_code == 1
    assert "--record-dir" in result.output


def test_slots_in_which_the_gate_saw_nothing_leave_a_row_within_a_limit_of_their_own(tmp_path):
    one = recorder(tmp_path, record_every=10, record_per_hour=2)
    for slot in range(100, 141):
        seen = view(slot) if slot == 110 else View(None, Frame(picture(0), float(slot)))
        one.saw(slot, seen, slot, float(slot))
    one.close()
    rows = list(csv.DictReader((tmp_path / "1970-01-01/table-2.csv").open()))
    assert [(row["slot"], row["reason"]) for row in rows] == [
        ("100", "absent"), ("110", "every"), ("120", "absent"),
    ]  # fmt: skip
    assert slots(tmp_path) == [110]
    assert one.counts["record_absent"] == 2


def test_tables_of_days_without_pictures_do_not_pile_up(tmp_path):
    shelf = Shelf(tmp_path, 2, 10**6)
    shelf.put(0, datetime(2026, 1, 1, tzinfo=UTC), png(picture(0)), None, ("every", 0))
    for day in range(100):
        when = datetime.fromtimestamp(DAY.timestamp() + day * 86_400, UTC)
        shelf.note(day, when, ("absent", 0))
    tables = sorted(tmp_path.glob("*/table-2.csv"))
    assert len(tables) == recording.TABLE_DAYS + 2
    assert tables[0].parent.name == "2026-01-01", "that day has a picture"
    assert len(list(tmp_path.iterdir())) == len(tables)
