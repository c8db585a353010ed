"""A Raspberry Pi camera through picamera2."""

from __future__ import annotations

import importlib.util
import time
from collections.abc import Iterator
from typing import Any

from ddnn.errors import ConfigError, SourceError
from device_agent.sources.base import Capture, Frame, Wanted

#: A camera that has not delivered for so long will not.
REQUEST_TIMEOUT_S = 4.0
MISSING = (
    "picamera2 is not to be seen from this Python. On Raspberry Pi OS: "
    "`sudo apt install python3-picamera2`, and the virtual environment must be one that sees the "
    "system's packages: `python3 -m venv --system-site-packages FOLDER`. (It cannot come from "
    "pip: it needs the system's libcamera.)"
)


def picamera_capture(number: int) -> Capture:
    """Camera `number` of `rpicam-hello --list-cameras`.

    Raises:
        ConfigError: picamera2 is not there.
    """
    if importlib.util.find_spec("picamera2") is None or not importlib.util.find_spec("libcamera"):
        raise ConfigError(MISSING)

    def frames(wanted: Wanted) -> Iterator[Frame]:
        camera = _open(number)
        try:
            _configure(camera, wanted)
            camera.start()
            while True:
                job = camera.capture_request(wait=False)
                try:
                    request = job.get_result(timeout=REQUEST_TIMEOUT_S)
                except TimeoutError as error:
                    raise SourceError(
                        f"the camera delivers nothing for {REQUEST_TIMEOUT_S:g} s; is its cable "
                        "well seated?"
                    ) from error
                try:
                    image = request.make_array("main")
                    taken_ns = request.get_metadata().get("SensorTimestamp")
                finally:
                    request.release()
                yield Frame(image, _monotonic_s(taken_ns))
        finally:
            camera.close()

    return frames


def _open(number: int) -> Any:
    try:
        from picamera2 import Picamera2
    except (ImportError, ValueError) as error:
        # ValueError: "numpy.dtype size changed": bookworm's simplejpeg was built for numpy 1.
        raise SourceError(
            f"picamera2 cannot be imported ({error}). If it speaks of numpy: bookworm's picamera2 "
            "needs numpy 1 in the virtual environment, `pip install 'numpy<2'`"
        ) from error
    try:
        return Picamera2(number)
    except (IndexError, RuntimeError) as error:  # the older ones raise the first
        if isinstance(error, IndexError) or "No camera number" in str(error):
            raise SourceError(
                f"there is no camera {number}; `rpicam-hello --list-cameras` shows those there are"
            ) from error
        raise SourceError(f"the camera cannot be opened: {error.__cause__ or error}") from error


def _configure(camera: Any, wanted: Wanted) -> None:
    """One small stream, scaled by the camera's own hardware: no full picture is ever copied."""
    sensor = camera.camera_properties.get("PixelArraySize", (4, 3))
    interval_us = round(1e6 / wanted.fps)
    configuration = camera.create_video_configuration(
        # picamera2 names formats from the last byte: this one is red, green, blue in an array.
        main={"format": "BGR888", "size": stream_size(wanted.height, *sensor)},
        buffer_count=4,
        queue=False,
        controls={"FrameDurationLimits": (interval_us, interval_us)},
    )
    camera.configure(configuration)


def stream_size(height: int, sensor_width: int, sensor_height: int) -> tuple[int, int]:
    """Width and height (pixels) of a stream at least `height` high with the sensor's shape.

    The width is a multiple of 64 bytes' worth of pixels, so that rows need no padding, and the
    height follows it.
    """
    width = -(-height * sensor_width // sensor_height)
    width = -(-width // 64) * 64
    rows = -(-width * sensor_height // sensor_width)
    return width, rows + rows % 2


def _monotonic_s(taken_ns: int | None) -> float:
    """A sensor timestamp (nanoseconds since boot) as time.monotonic() would have read."""
    now = time.monotonic()
    if taken_ns is None:
        return now
    # The two clocks differ by the time that the machine was suspended.
    age_s = time.clock_gettime(time.CLOCK_BOOTTIME) - taken_ns * 1e-9
    return now - max(0.0, age_s)
