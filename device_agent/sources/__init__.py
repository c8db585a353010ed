"""Where frames come from: cameras, streams, files and data sets behind one interface."""

from __future__ import annotations

from pathlib import Path

from ddnn.errors import ConfigError
from device_agent.settings import CameraSettings
from device_agent.sources.base import Capture, Frame, Image, Source, SourceHealth
from device_agent.sources.folder import FolderSource
from device_agent.sources.live import LiveSource
from device_agent.sources.replay import ReplaySource
from device_agent.watchdog import WatchRules

__all__ = ["Frame", "Image", "LiveSource", "ReplaySource", "Source", "SourceHealth", "open_source"]

KINDS = "picamera2:N, v4l2:/dev/videoN, rtsp://..., file:MOVIE, folder:DIR or replay:FILE.npz"


def open_source(settings: CameraSettings) -> Source:
    """The source that the settings name. A camera is opened when a height is first wanted.

    Raises:
        ConfigError: unknown kind of source, or something that it needs is not there.
        DataError: its files cannot be read.
    """
    text = settings.source
    kind, _, rest = text.partition(":")
    if kind == "replay" and rest:
        return ReplaySource(Path(rest), settings.camera)
    if kind == "folder" and rest:
        return FolderSource(Path(rest), loop=settings.loop)
    capture, can_freeze = _capture(settings, kind, rest)
    fps = settings.fps
    return LiveSource(
        capture,
        WatchRules(
            stale_s=max(settings.stale_s, 3.0 / fps),
            frozen_s=settings.frozen_s if can_freeze else 0.0,
            max_failures=settings.camera_failures,
        ),
        fps=fps,
        max_age_s=settings.frame_age_s or max(0.25, 2.0 / fps),
        upside_down=settings.upside_down,
    )


def _capture(settings: CameraSettings, kind: str, rest: str) -> tuple[Capture, bool]:
    """A camera, and whether the same picture again and again would be a fault of its own."""
    if kind == "picamera2" and rest.isdecimal():
        from device_agent.sources.picamera import picamera_capture

        return picamera_capture(int(rest)), True
    if kind == "v4l2" and rest:
        from device_agent.sources.video import v4l2_capture

        return v4l2_capture(rest, settings.usb_size), True
    if kind in ("rtsp", "rtsps") and rest.startswith("//"):
        from device_agent.sources.video import rtsp_capture

        return rtsp_capture(settings.source), False
    if kind == "file" and rest:
        from device_agent.sources.video import file_capture

        return file_capture(rest, loop=settings.loop), False
    raise ConfigError(f"unknown source {settings.source!r}; use {KINDS}")
