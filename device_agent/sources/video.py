"""USB cameras, network streams and video files through PyAV (FFmpeg).

PyAV and not OpenCV: FFmpeg's time limits and low-latency options are in reach, every frame has
its time stamp, and python3-picamera2 brings it to a Raspberry Pi anyway. Frames are scaled by
FFmpeg before they become arrays, and only as many as are asked for.
"""

from __future__ import annotations

import importlib.util
import math
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from ddnn.errors import ConfigError, SourceError
from device_agent.sources.base import Capture, Frame, Wanted

READ_TIMEOUT_S = 5.0
#: A kernel's time stamp that is further from the clock than this is not one of that clock.
PLAUSIBLE_AGE_S = 2.0


class StreamClock:
    """When a frame was taken, from a stream's own time and its arrival. Pure.

    A stream's time says how far apart frames were taken, arrival says only that it was earlier:
    bursts and delays are the network's. So the least delay seen is taken to be the stream's, and
    may creep up by `drift`, since no two clocks run alike.
    """

    def __init__(self, drift: float = 1e-3) -> None:
        self._drift = drift
        self._offset_s: float | None = None
        self._arrived_s = 0.0

    def captured_s(self, stream_s: float, arrived_s: float) -> float:
        """Monotonic seconds at which the frame of `stream_s` that came at `arrived_s` was taken."""
        offset = arrived_s - stream_s
        if self._offset_s is not None:
            slack = max(0.0, arrived_s - self._arrived_s) * self._drift
            offset = min(offset, self._offset_s + slack)
        self._offset_s, self._arrived_s = offset, arrived_s
        return stream_s + offset


def v4l2_capture(device: str, size: str) -> Capture:
    """A camera that Linux shows as /dev/videoN, at `size` ("640x480") or what is nearest.

    Raises:
        ConfigError: PyAV or the device is not there.
    """
    _need_av()
    if not Path(device).exists():
        raise ConfigError(
            f"there is no {device}; `v4l2-ctl --list-devices` shows cameras, and "
            "/dev/v4l/by-id/ has names that stay the same"
        )

    def frames(wanted: Wanted) -> Iterator[Frame]:
        options = {"video_size": size, "framerate": f"{wanted.fps:g}", "timestamps": "default"}
        clock = StreamClock()

        def when(stream_s: float, arrived_s: float) -> float:
            # A USB camera's frames carry the monotonic time at which the transfer began.
            if 0.0 <= arrived_s - stream_s < PLAUSIBLE_AGE_S:
                return stream_s
            return clock.captured_s(stream_s, arrived_s)

        yield from _frames(device, wanted, when, format="video4linux2,v4l2", options=options)
        raise SourceError(f"{device} has stopped delivering; was it unplugged?")

    return frames


def rtsp_capture(url: str) -> Capture:
    """A network camera.

    Raises:
        ConfigError: PyAV is not there.
    """
    _need_av()

    def frames(wanted: Wanted) -> Iterator[Frame]:
        options = {"rtsp_transport": "tcp", "fflags": "nobuffer", "flags": "low_delay"}
        yield from _frames(url, wanted, StreamClock().captured_s, options=options)
        raise SourceError(f"{without_password(url)} has ended the stream")

    return frames


def file_capture(path: str, *, loop: bool) -> Capture:
    """A video file, shown as fast as it was filmed, once or again and again.

    Raises:
        ConfigError: PyAV or the file is not there.
    """
    _need_av()
    if not Path(path).is_file():
        raise ConfigError(f"there is no video file {path}")

    def frames(wanted: Wanted) -> Iterator[Frame]:
        while True:
            film = _Film()
            yield from _frames(path, wanted, film.captured_s)
            if not loop:
                return

    return frames


class _Film:
    """Shows frames when their time has come, counted from the first one."""

    def __init__(self) -> None:
        self._offset_s: float | None = None

    def captured_s(self, stream_s: float, arrived_s: float) -> float:
        if self._offset_s is None:
            self._offset_s = arrived_s - stream_s
        due_s = stream_s + self._offset_s
        time.sleep(max(0.0, due_s - arrived_s))
        return due_s


def _frames(
    url: str, wanted: Wanted, when: Callable[[float, float], float], **how: Any
) -> Iterator[Frame]:
    """Frames of whatever FFmpeg can open; `when` makes a monotonic time of a stream's.

    Raises:
        SourceError: it cannot be opened, or it breaks off.
    """
    import av
    from av.video.reformatter import VideoReformatter

    shown = without_password(url)
    # One for all frames: each frame's own would set up the scaling anew. From version 17 on PyAV
    # scales on all processors unless told, which costs more than it saves at these sizes.
    scaler = VideoReformatter()
    alone = {"threads": 1} if int(av.__version__.partition(".")[0]) >= 17 else {}
    heard_s = time.monotonic()
    try:
        with av.open(url, timeout=READ_TIMEOUT_S, **how) as container:
            if not container.streams.video:
                raise SourceError(f"{shown} has no pictures in it")
            stream = container.streams.video[0]
            stream.thread_type = "NONE"  # threads would hold back a frame each
            next_s = -math.inf
            for packet in container.demux(stream):
                heard_s = time.monotonic()
                for picture in _decoded(packet):
                    if picture.time is None:
                        continue
                    captured_s = when(picture.time, time.monotonic())
                    if captured_s < next_s:
                        continue
                    next_s = captured_s + 0.9 / wanted.fps
                    width, height = scaled(picture.width, picture.height, wanted.height)
                    small: Any = scaler.reformat(
                        picture, width, height, "rgb24", interpolation="AREA", **alone
                    )
                    yield Frame(small.to_ndarray(), captured_s)
    except av.FFmpegError as error:
        # FFmpeg has many words for a time limit that has passed; the clock has one.
        if time.monotonic() - heard_s >= 0.9 * READ_TIMEOUT_S:
            raise SourceError(f"{shown} has not answered for {READ_TIMEOUT_S:g} s") from error
        raise SourceError(f"{shown}: {str(error).replace(url, shown)}") from error


def _decoded(packet: Any) -> Any:
    """A packet's frames; none of a damaged one, or of those before a stream's first whole frame.

    If there is nothing but those, the watchdog notices.
    """
    import av

    try:
        return packet.decode()
    except av.error.InvalidDataError:
        return []


def scaled(width: int, height: int, wanted_height: int) -> tuple[int, int]:
    """A picture's size (pixels) at `wanted_height`, with its shape; never larger than it is."""
    if wanted_height >= height:
        return width, height
    return max(1, round(width * wanted_height / height)), wanted_height


def without_password(url: str) -> str:
    """`url` as it may be shown."""
    return re.sub(r"//[^/]*@", "//***@", url)


def _need_av() -> None:
    if importlib.util.find_spec("av") is None:
        raise ConfigError(
            "cameras by v4l2 and rtsp, and video files, need PyAV: pip install 'ddnn[device-video]'"
        )
