"""Settings of a camera: where its pictures come from and what becomes of them."""

from __future__ import annotations

from typing import Annotated

import msgspec

from ddnn.config import SiteSettings

Relative = Annotated[float, msgspec.Meta(ge=0, le=1)]
Point = tuple[Relative, Relative]


class CameraSettings(SiteSettings, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is common to all commands that look through a camera."""

    camera: Annotated[
        int, msgspec.Meta(ge=0, le=31, description="Number of this camera in the bundle.")
    ]
    source: Annotated[
        str,
        msgspec.Meta(
            description="Where pictures come from: picamera2:N, v4l2:/dev/videoN, rtsp://..., "
            "file:MOVIE, folder:DIR of pictures, or replay:FILE.npz for a data set."
        ),
    ]
    loop: Annotated[bool, msgspec.Meta(description="file and folder begin again at their end.")] = (
        False
    )
    capture_height: Annotated[
        int,
        msgspec.Meta(
            ge=0,
            le=2160,
            description="Rows of a captured picture, pixels; 0: two for each that the section "
            "takes of it, at least 96.",
        ),
    ] = 0
    capture_fps: Annotated[
        float,
        msgspec.Meta(ge=0, le=120, description="Pictures per second; 0: two per slot, 1 to 30."),
    ] = 0.0
    upside_down: Annotated[
        bool,
        msgspec.Meta(description="The camera hangs head down: turn its pictures by 180 degrees."),
    ] = False
    usb_size: Annotated[
        str,
        msgspec.Meta(pattern=r"^\d{2,4}x\d{2,4}$", description="Size asked of a v4l2 camera."),
    ] = "640x480"
    frame_age_s: Annotated[
        float,
        msgspec.Meta(
            ge=0,
            le=60,
            description="How long before its slot a picture may have been taken, seconds; 0: two "
            "pictures' time, at least 0.25.",
        ),
    ] = 0.0
    stale_s: Annotated[
        float,
        msgspec.Meta(
            ge=0.5, le=600, description="Without a new picture so long: the camera is reopened."
        ),
    ] = 5.0
    frozen_s: Annotated[
        float,
        msgspec.Meta(
            ge=0,
            le=3600,
            description="With the same picture, bit for bit, so long: reopened (picamera2 and "
            "v4l2 only; of a file or stream it is no fault). 0: never.",
        ),
    ] = 10.0
    camera_failures: Annotated[
        int,
        msgspec.Meta(
            ge=0,
            le=1000,
            description="So many failures in a row are tried again; with one more the agent ends "
            "with status 1.",
        ),
    ] = 5
    region: Annotated[
        tuple[Relative, Relative, Relative, Relative],
        msgspec.Meta(
            description="What the section sees of the picture: left, top, right, bottom, as "
            "shares of its width and height."
        ),
    ] = (0.0, 0.0, 1.0, 1.0)
    mask: Annotated[
        tuple[tuple[Point, ...], ...],
        msgspec.Meta(
            description="Polygons that nobody shall see: lists of points [x, y], as shares of the "
            "whole picture."
        ),
    ] = ()

    gate: Annotated[
        bool,
        msgspec.Meta(
            description="Report a view in which nothing differs from the empty scene as absent."
        ),
    ] = False
    gate_sigmas: Annotated[
        float,
        msgspec.Meta(
            ge=2,
            le=50,
            description="How many standard deviations of its own a pixel must differ by.",
        ),
    ] = 5.0
    gate_area: Annotated[
        float,
        msgspec.Meta(
            ge=0, le=0.5, description="Share of the section's pixels that must differ, at least."
        ),
    ] = 0.003
    gate_hold_s: Annotated[
        float,
        msgspec.Meta(ge=0, le=3600, description="Something counts as there so long after it went."),
    ] = 0.5
    gate_learn_s: Annotated[
        float,
        msgspec.Meta(
            ge=1,
            le=3600,
            description="Time in which the empty scene is learnt and followed, seconds; until it "
            "has passed nothing is held back.",
        ),
    ] = 20.0
    gate_absorb_s: Annotated[
        float,
        msgspec.Meta(
            ge=10,
            le=86_400,
            description="Time in which something that stays becomes part of the scene, seconds.",
        ),
    ] = 600.0

    record_dir: Annotated[
        str,
        msgspec.Meta(
            description="Folder for pictures kept for labelling and training; empty: none are kept."
        ),
    ] = ""
    record_every: Annotated[
        int,
        msgspec.Meta(
            ge=0,
            le=10**9,
            description="Keep the slots whose number is a multiple of this, which are the same on "
            "all cameras; 0: none.",
        ),
    ] = 0
    record_unsure: Annotated[
        bool,
        msgspec.Meta(
            description="Keep the slots whose features the gateway asks for: it was unsure of them."
        ),
    ] = False
    record_region_px: Annotated[
        int,
        msgspec.Meta(
            ge=0,
            le=2160,
            description="Keep the region in the camera's resolution, too, at most so many pixels "
            "high or wide; 0: no.",
        ),
    ] = 0
    record_size: Annotated[
        str,
        msgspec.Meta(
            pattern=r"^[1-9]\d{0,3}x[1-9]\d{0,3}$",
            description="Rows x columns of pictures kept while there is no bundle that says.",
        ),
    ] = "32x32"
    record_per_hour: Annotated[
        int, msgspec.Meta(ge=1, le=36_000, description="Slots kept in any hour, at most.")
    ] = 360
    record_mb: Annotated[
        int,
        msgspec.Meta(ge=1, le=10**6, description="MB kept; beyond it the oldest go."),
    ] = 500

    @property
    def record_shape(self) -> tuple[int, int, int]:
        """(H, W, C) of `record_size`."""
        height, _, width = self.record_size.partition("x")
        return int(height), int(width), 3

    def __post_init__(self) -> None:
        super().__post_init__()
        left, top, right, bottom = self.region
        if right - left < 0.01 or bottom - top < 0.01:
            raise ValueError(
                "region must be [left, top, right, bottom] with left < right and top < bottom"
            )
        if any(len(polygon) < 3 for polygon in self.mask):
            raise ValueError("every polygon of mask must have three points or more")

    @property
    def fps(self) -> float:
        """Pictures per second that the camera is asked for."""
        return self.capture_fps or min(30.0, max(1.0, 2.0 / self.period_s))
