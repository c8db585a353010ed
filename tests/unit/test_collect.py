"""Recordings brought home: what arrives, what an interruption leaves, what a person is told."""

import csv
import os
import shutil
import stat
import subprocess
import sys
from datetime import UTC, datetime

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from ddnn.cli import main
from ddnn.errors import ConfigError, DataError, DdnnError
from device_agent.recording import Shelf, png
from training.recorded.quality import BLURRED, sharpness, warnings
from training.recorded.sources import Host, fetch, parse
from training.recorded.summary import lines, summarise
from training.recorded.views import PICTURES, View, gather, read_views, write_views

START = 1_770_000_000


def picture(seed, size=16, low=0, high=256):
    values = np.random.default_rng(seed).integers(low, high, (size, size, 3))
    return values.astype(np.uint8)


def record(folder, camera, slots, *, absent=(), region=False, **look):
    """What a camera's agent writes, by its own code; slots of one second."""
    shelf = Shelf(folder, camera, 10**9)
    for slot in sorted([*slots, *absent]):
        when = datetime.fromtimestamp(slot, UTC)
        if slot in absent:
            shelf.note(slot, when, ("absent", 5))
            continue
        image = picture(slot * 40 + camera, **look)
        shelf.put(slot, when, png(image), png(image) if region else None, ("every", 5))
    return folder


def slots(count, every=10):
    return [START + every * n for n in range(count)]


def collect(*args):
    return CliRunner().invoke(main, ["collect", *map(str, args)], catch_exceptions=False)


def test_views_of_all_cameras_are_grouped_by_slot_with_those_that_were_absent(tmp_path):
    zero = record(tmp_path / "zero", 0, slots(4), absent=[START + 40])
    one = record(tmp_path / "one", 1, slots(5)[1:], region=True)
    result = collect(zero, one, "--out", tmp_path / "set")
    assert result.exit_code == 0
    views = read_views(tmp_path / "set")
    assert [(v.slot - START, v.camera, v.state) for v in views] == [
        (0, 0, "present"),
        (10, 0, "present"), (10, 1, "present"),
        (20, 0, "present"), (20, 1, "present"),
        (30, 0, "present"), (30, 1, "present"),
        (40, 0, "absent"), (40, 1, "present"),
    ]  # fmt: skip
    assert [v.time_s for v in views] == [v.slot for v in views]
    assert all((tmp_path / "set" / v.file).is_file() for v in views if v.state == "present")
    assert "slots by number of pictures: 1: 2, 2: 3" in result.output


def test_second_run_fetches_what_is_new_and_forgets_nothing_that_the_camera_has_dropped(tmp_path):
    zero = record(tmp_path / "zero", 0, slots(3))
    assert collect(zero, "--out", tmp_path / "set").exit_code == 0
    first = tmp_path / "set" / read_views(tmp_path / "set")[0].file
    fetched_ns = first.stat().st_mtime_ns, first.stat().st_ino
    shutil.rmtree(zero)
    record(zero, 0, slots(5)[3:])
    assert collect(zero, "--out", tmp_path / "set").exit_code == 0
    views = read_views(tmp_path / "set")
    assert [v.slot for v in views] == slots(5)
    assert [v.time_s for v in views] == slots(5), "also of those whose table is gone"
    assert (first.stat().st_mtime_ns, first.stat().st_ino) == fetched_ns


def test_half_a_file_of_an_interrupted_copy_is_neither_counted_nor_kept(tmp_path):
    zero = record(tmp_path / "zero", 0, slots(2))
    target = tmp_path / "set" / PICTURES
    day = next(zero.glob("*-*"))
    half = target / day.name / str(START) / ".0.png.new"
    half.parent.mkdir(parents=True)
    half.write_bytes(b"half")
    whole = target / day.name / str(START + 10) / "0.png"
    whole.parent.mkdir(parents=True)
    whole.write_bytes(b"torn by another program")
    assert collect(zero, "--out", tmp_path / "set").exit_code == 0
    assert len(read_views(tmp_path / "set")) == 2
    assert not half.exists()


def test_damaged_picture_is_left_out_and_named(tmp_path):
    zero = record(tmp_path / "zero", 0, slots(2))
    broken = next(zero.glob(f"*/{START}/0.png"))
    broken.write_bytes(b"\x89PNG no more")
    result = collect(zero, "--out", tmp_path / "set")
    assert result.exit_code == 0
    assert "1 pictures cannot be read" in result.output
    assert [v.slot for v in read_views(tmp_path / "set")] == [START + 10]


def test_picture_whose_row_was_lost_with_the_power_has_its_slots_time(tmp_path):
    zero = record(tmp_path / "zero", 0, slots(4))
    table = next(zero.glob("*/table-0.csv"))
    rows = table.read_text().splitlines(keepends=True)
    table.write_text("".join(rows[:-1]) + rows[-1][:7])
    assert collect(zero, "--out", tmp_path / "set").exit_code == 0
    assert [v.time_s for v in read_views(tmp_path / "set")] == slots(4)


def test_folder_that_cannot_be_reached_does_not_hold_up_the_others_and_fails_the_run(
    tmp_path, monkeypatch
):
    zero = record(tmp_path / "zero", 0, slots(2))
    monkeypatch.setenv("PATH", str(tmp_path))  # no rsync, no ssh
    result = collect("pi@nowhere", zero, "--out", tmp_path / "set")
    assert result.exit_code == 1
    assert "apt install rsync" in result.output
    assert len(read_views(tmp_path / "set")) == 2


@pytest.mark.parametrize("text", ["-oProxyCommand=x", "pi@cam0:/etc", "no such folder", "a b", ""])
def test_source_that_is_neither_folder_nor_host_is_refused(text, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    if text == "":
        text = "./nothing"
    with pytest.raises(ConfigError, match=r"pi@cam0"):
        parse(text)


def test_hosts_are_read_as_make_deploy_reads_them():
    assert parse("pi@cam0") == Host("pi@cam0", None)
    assert parse("pi@cam0.local:2222") == Host("pi@cam0.local", 2222)
    assert parse("[fe80::1]:22") == Host("[fe80::1]", 22)


@pytest.fixture
def fake_ssh(tmp_path, monkeypatch):
    """An `ssh` that runs what it is told on this machine, and a `sudo` that is none."""
    # `make setup-dev` unpacks one beside Python where the system has none.
    search = f"{os.environ['PATH']}:{os.path.dirname(sys.executable)}"
    if shutil.which("rsync", path=search) is None:
        pytest.skip("no rsync on this machine")
    programs = tmp_path / "bin"
    programs.mkdir()
    log = tmp_path / "ssh.log"
    ssh = f'#!/bin/sh\necho "$@" >>{log}\nwhile [ "$1" != cam0 ]; do shift; done\nshift\nexec $*\n'
    for name, text in (("ssh", ssh), ("sudo", '#!/bin/sh\nshift\nexec "$@"\n')):
        path = programs / name
        path.write_text(text)
        path.chmod(path.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{programs}:{search}")
    return log


def test_host_is_read_by_rsync_over_ssh_as_root(tmp_path, fake_ssh):
    pi = record(tmp_path / "pi", 3, slots(3), absent=[START + 30])
    (pi / ".hidden").write_text("half")
    result = collect("pi@cam0:2222", "--recordings", pi, "--out", tmp_path / "set")
    assert result.exit_code == 0, result.output
    assert "-p 2222" in fake_ssh.read_text()
    assert "sudo -n rsync --server --sender" in fake_ssh.read_text()
    assert [v.state for v in read_views(tmp_path / "set")] == ["present"] * 3 + ["absent"]
    assert not list((tmp_path / "set").rglob(".hidden"))


def test_rsyncs_own_words_are_shown_when_it_fails(tmp_path, fake_ssh):
    with pytest.raises(DdnnError, match=r"pi@cam0: rsync ended with 23: .*No such file"):
        fetch(Host("pi@cam0", None), tmp_path / "set", str(tmp_path / "nothing"), sudo=False)


@pytest.mark.parametrize(
    "row",
    [
        "x,2026-01-01T00:00:00+00:00,0,present,every,a.png,8,8,1,1",
        "1,2026-01-01T00:00:00+00:00,0,perhaps,every,a.png,8,8,1,1",
        "1,2026-01-01T00:00:00+00:00,0,present,every,../../a.png,8,8,1,1",
        "1,yesterday,0,present,every,a.png,8,8,1,1",
        "1",
    ],
)
def test_table_with_a_row_that_is_none_is_refused_with_its_line(tmp_path, row):
    write_views(tmp_path, [])
    with (tmp_path / "views.csv").open("a") as file:
        file.write(row + "\n")
    with pytest.raises(DataError, match="line 2"):
        read_views(tmp_path)


def test_views_are_read_as_they_were_written(tmp_path):
    views = [
        View(7, 1.5, 0, "present", "every", "pictures/d/7/0.png", 8, 6, 10.0, 99.5),
        View(7, 1.5, 1, "absent", "absent", "", 0, 0, 0.0, 0.0),
    ]
    write_views(tmp_path, views)
    assert read_views(tmp_path) == views
    with (tmp_path / "views.csv").open() as file:
        assert next(csv.reader(file))[:4] == ["slot", "time", "camera", "state"]


def test_dark_and_blurred_cameras_are_named(tmp_path):
    many = slots(12)
    folder = tmp_path / "set" / PICTURES
    record(folder, 0, many)
    record(folder, 1, many, high=30)
    record(folder, 2, many, low=128, high=129)
    record(folder, 3, [slot + 1 for slot in many])
    text = "\n".join(lines(summarise(gather(tmp_path / "set").views)))
    assert "camera 1: dark" in text
    assert "camera 2: blurred" in text
    assert "camera 3: never in one slot with another camera" in text
    assert "camera 0:" not in text


def test_warnings_wait_for_enough_pictures():
    assert warnings([0.0] * 9, [0.0] * 9, 100.0) == []
    assert len(warnings([0.0] * 10, [0.0] * 10, 100.0)) == 2


def test_blurring_a_picture_lowers_its_sharpness():
    from PIL import ImageFilter

    sharp = Image.fromarray(picture(0, 32)).convert("L")
    soft = sharp.filter(ImageFilter.GaussianBlur(3))
    values = [sharpness(np.asarray(one, np.float32)) for one in (sharp, soft)]
    assert values[1] < 0.1 * values[0]
    assert values[0] > BLURRED
    assert sharpness(np.zeros((2, 9), np.float32)) == 0.0


def test_make_collect_without_hosts_says_what_to_name():
    command = ["make", "-o", "setup", "collect", f"VENV={sys.prefix}"]
    result = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert result.returncode == 2
    assert "HOSTS=" in result.stdout + result.stderr
