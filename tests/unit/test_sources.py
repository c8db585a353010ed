"""Folders, films and streams, and what is said when something that a source needs is not there."""

import builtins
import importlib.util
import os
import socket
import time
from pathlib import Path

import av
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from ddnn.config import convert
from ddnn.errors import ConfigError, DataError, SourceError
from device_agent.settings import CameraSettings
from device_agent.sources import open_source, picamera, video
from device_agent.sources.base import Wanted
from device_agent.sources.video import (
    StreamClock,
    file_capture,
    rtsp_capture,
    scaled,
    without_password,
)


def settings(source, **values):
    return convert({"camera": 0, "source": source} | values, CameraSettings)


# -- folders -----------------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path):
    for number in range(3):
        Image.new("RGB", (8, 6), (number, 0, 0)).save(tmp_path / f"{number}.png")
    (tmp_path / "notes.txt").write_text("no picture")
    return tmp_path


def red(source, slot):
    return int(source.read(slot, 0.0).image[0, 0, 0])


def test_folder_is_shown_once_from_the_first_slot_that_is_asked_for(folder):
    source = open_source(settings(f"folder:{folder}"))
    assert [red(source, slot) for slot in (500, 501, 502)] == [0, 1, 2]
    assert (source.exhausted(502), source.exhausted(503)) == (False, True)
    assert source.read(503, 0.0) is None


def test_looped_folders_show_the_same_number_in_the_same_slot(folder):
    one, other = (open_source(settings(f"folder:{folder}", loop=True)) for _ in range(2))
    red(one, 7)
    assert [red(s, 3001) for s in (one, other)] == [3001 % 3] * 2
    assert not one.exhausted(10**9)


def test_picture_that_cannot_be_read_is_named(folder):
    (folder / "1.png").write_bytes(b"\x89PNG\r\n\x1a\n but not for long")
    source = open_source(settings(f"folder:{folder}", loop=True))
    with pytest.raises(DataError, match=r"1\.png"):
        source.read(1, 0.0)


@pytest.mark.parametrize("make", [lambda p: p / "none", lambda p: p])
def test_folder_that_is_missing_or_empty_is_refused(tmp_path, make):
    with pytest.raises(DataError, match="picture"):
        open_source(settings(f"folder:{make(tmp_path)}"))


# -- films -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def film(tmp_path_factory):
    """Ten pictures at 50 a second, each of one grey, 80 x 60."""
    path = tmp_path_factory.mktemp("film") / "film.mkv"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("ffv1", rate=50)
        stream.width, stream.height, stream.pix_fmt = 80, 60, "bgr0"
        for number in range(10):
            grey = np.full((60, 80, 3), 20 * number, np.uint8)
            for packet in stream.encode(av.VideoFrame.from_ndarray(grey, "rgb24")):
                container.mux(packet)
        for packet in stream.encode():
            container.mux(packet)
    return path


def test_film_is_shown_at_its_own_pace_and_size(film):
    began = time.monotonic()
    frames = list(file_capture(str(film), loop=False)(Wanted(height=30, fps=1000)))
    assert [f.image.shape for f in frames] == [(30, 40, 3)] * 10
    assert [int(f.image[15, 20, 0]) for f in frames] == [20 * n for n in range(10)]
    steps = np.diff([f.captured_s for f in frames])
    assert steps == pytest.approx([0.02] * 9, abs=0.002), "by the film's clock, not the machine's"
    assert time.monotonic() - began >= 0.18


def test_no_more_pictures_than_asked_for_are_made(film):
    frames = list(file_capture(str(film), loop=False)(Wanted(height=30, fps=25)))
    assert len(frames) == 5


def test_looped_film_begins_again_later_in_time(film):
    frames = file_capture(str(film), loop=True)(Wanted(height=30, fps=1000))
    shown = [next(frames) for _ in range(13)]
    frames.close()
    assert int(shown[10].image[0, 0, 0]) == 0
    assert (np.diff([f.captured_s for f in shown]) > 0).all()


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="no list of threads here")
def test_film_is_decoded_and_scaled_on_the_one_thread_that_reads_it(film):
    def threads():
        return set(os.listdir("/proc/self/task"))

    before = threads()
    seen = [threads() for _ in file_capture(str(film), loop=False)(Wanted(30, 1000))]
    assert len(seen) == 10
    assert set().union(*seen) <= before


def test_file_that_is_no_film_is_an_error_with_its_name(tmp_path):
    path = tmp_path / "film.mp4"
    path.write_bytes(b"no film" * 100)
    with pytest.raises(SourceError, match=r"film\.mp4"):
        list(file_capture(str(path), loop=False)(Wanted(30, 10)))


def test_stream_that_does_not_answer_is_an_error_without_its_password():
    frames = rtsp_capture("rtsp://user:secret@127.0.0.1:1/x")(Wanted(30, 10))
    with pytest.raises(SourceError, match="127") as error:
        next(frames)
    assert "secret" not in str(error.value)
    assert without_password("rtsp://user:sec@ret@cam/x?y=1") == "rtsp://***@cam/x?y=1"


def test_stream_that_ends_is_a_failure_and_not_the_end(film):
    frames = rtsp_capture(str(film))(Wanted(30, 1000))
    with pytest.raises(SourceError, match="has ended the stream"):
        list(frames)


def test_stream_that_says_nothing_is_given_up_in_time(monkeypatch):
    monkeypatch.setattr(video, "READ_TIMEOUT_S", 0.3)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"rtsp://user:secret@127.0.0.1:{silent.getsockname()[1]}/x"
        with pytest.raises(SourceError, match="not answered") as error:
            next(rtsp_capture(url)(Wanted(30, 10)))
    assert "secret" not in str(error.value)


@given(
    delays=st.lists(st.floats(0.0, 3.0), min_size=2, max_size=60),
    offset=st.floats(-1e6, 1e6),
)
def test_time_of_a_streams_frame_follows_its_own_clock_and_not_the_networks(delays, offset):
    clock = StreamClock(drift=0.0)
    arrived = 0.0
    best = float("inf")
    for number, delay in enumerate(delays):
        taken = number * 0.1
        arrived = max(arrived, taken + delay)
        best = min(best, arrived - taken)
        got = clock.captured_s(taken + offset, arrived)
        assert got == pytest.approx(taken + best, abs=1e-6), "later than it was by the least delay"
        assert got <= arrived + 1e-6


def test_stream_whose_clock_runs_slow_is_followed():
    clock = StreamClock(drift=1e-3)
    for number in range(10_000):
        got = clock.captured_s(number * 0.1, number * 0.1 * 1.0005 + 0.05)
    assert got == pytest.approx(number * 0.1 * 1.0005 + 0.05, abs=1e-3)


@given(width=st.integers(1, 4000), height=st.integers(1, 4000), wanted=st.integers(1, 2000))
def test_scaled_picture_keeps_its_shape_and_never_grows(width, height, wanted):
    w, h = scaled(width, height, wanted)
    assert 1 <= w <= width
    assert h == min(height, wanted)
    assert abs(w - width * h / height) <= 1


# -- picamera2 ---------------------------------------------------------------------------------


@pytest.mark.parametrize("sensor", [(4608, 2592), (3280, 2464), (1456, 1088), (640, 480)])
@pytest.mark.parametrize("height", [96, 128, 400])
def test_stream_has_the_sensors_shape_and_rows_without_padding(sensor, height):
    width, rows = picamera.stream_size(height, *sensor)
    assert rows >= height
    assert width % 64 == 0
    assert rows % 2 == 0
    assert abs(width / rows - sensor[0] / sensor[1]) < 0.05


def test_picamera2_that_is_not_visible_says_how_to_make_it_so():
    assert importlib.util.find_spec("libcamera") is None
    with pytest.raises(ConfigError, match="--system-site-packages"):
        open_source(settings("picamera2:0"))


class FakePicamera2:
    """The part of picamera2 0.3 that is used, with a sensor of 3280 x 2464."""

    camera_properties = {"PixelArraySize": (3280, 2464)}  # noqa: RUF012 as picamera2 has it
    timeout = False
    closed = False

    def __init__(self, number):
        if number > 0:
            raise IndexError("list index out of range")
        FakePicamera2.last = self

    def create_video_configuration(self, **values):
        return values

    def configure(self, configuration):
        self.configuration = configuration

    def start(self):
        self.taken_ns = time.clock_gettime_ns(time.CLOCK_BOOTTIME)

    def capture_request(self, wait):
        assert wait is False
        return self

    def get_result(self, timeout):
        if self.timeout:
            raise TimeoutError
        return self

    def make_array(self, name):
        width, height = self.configuration[name]["size"]
        return np.full((height, width, 3), 9, np.uint8)

    def get_metadata(self):
        return {"SensorTimestamp": self.taken_ns - 40_000_000}

    def release(self):
        self.released = True

    def close(self):
        self.closed = True


@pytest.fixture
def fake_picamera2(monkeypatch):
    module = type(importlib.util)("picamera2")
    module.Picamera2 = FakePicamera2
    real = builtins.__import__
    monkeypatch.setattr(
        builtins, "__import__", lambda n, *a, **k: module if n == "picamera2" else real(n, *a, **k)
    )
    monkeypatch.setattr(picamera.importlib.util, "find_spec", lambda name: object())


def test_pi_camera_gives_small_pictures_with_the_sensors_time(fake_picamera2):
    frames = picamera.picamera_capture(0)(Wanted(128, 20))
    frame = next(frames)
    camera = FakePicamera2.last
    assert frame.image.shape == (146, 192, 3)
    assert camera.configuration["controls"]["FrameDurationLimits"] == (50_000, 50_000)
    assert 0.04 <= time.monotonic() - frame.captured_s < 5
    assert camera.released
    frames.close()
    assert camera.closed


def test_pi_camera_that_stops_delivering_is_closed_with_a_reason(fake_picamera2, monkeypatch):
    monkeypatch.setattr(FakePicamera2, "timeout", True)
    with pytest.raises(SourceError, match="cable"):
        next(picamera.picamera_capture(0)(Wanted(128, 20)))
    assert FakePicamera2.last.closed


def test_pi_camera_that_is_not_plugged_in_is_named(fake_picamera2):
    with pytest.raises(SourceError, match="no camera 1"):
        next(picamera.picamera_capture(1)(Wanted(128, 20)))


# -- settings ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "source", ["moon:x", "picamera2:", "picamera2:a", "v4l2:", "rtsp:x", "file:", "folder:", ""]
)
def test_unknown_source_is_refused_with_those_there_are(source):
    with pytest.raises(ConfigError, match="picamera2:N"):
        open_source(settings(source))


@pytest.mark.parametrize("source", ["v4l2:/dev/none", "file:/none.mp4"])
def test_device_or_film_that_is_not_there_is_refused_at_once(source):
    with pytest.raises(ConfigError, match="there is no"):
        open_source(settings(source))


def test_missing_pyav_says_what_to_install(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"ddnn\[device-video\]"):
        open_source(settings("rtsp://cam/x"))


@pytest.mark.parametrize(
    "values",
    [
        {"region": [0.5, 0, 0.5, 1]},
        {"region": [0, 0, 1]},
        {"region": [0, 0, 1, 1.1]},
        {"mask": [[[0, 0], [1, 1]]]},
        {"mask": [[[0, 0], [1, 1], [0, 2]]]},
        {"usb_size": "big"},
        {"capture_fps": 1000},
    ],
)
def test_region_or_mask_that_makes_no_sense_is_refused(values):
    with pytest.raises(ConfigError):
        settings("picamera2:0", **values)
