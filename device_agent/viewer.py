"""What the section sees in a slot: the source's frame, framed and past the gate."""

from __future__ import annotations

from typing import NamedTuple

from device_agent.framing import Framing
from device_agent.gate import Gate, GateRules
from device_agent.settings import CameraSettings
from device_agent.sources import Frame, Image, Source


class View(NamedTuple):
    """One slot's view.

    Attributes:
        image: (H, W, C) as the section takes it; None: nothing is there.
        frame: what it was made of.
    """

    image: Image | None
    frame: Frame


class Viewer:
    """One camera's way from source to section.

    Args:
        source: where frames come from; closed by whoever opened it.
        framing: region and masks.
        gate: None: every view is shown.
        height: rows of the pictures to ask for; 0: as many as the section's shape calls for.
    """

    def __init__(
        self, source: Source, framing: Framing, gate: Gate | None = None, height: int = 0
    ) -> None:
        self.source = source
        self.framing = framing
        self.gate = gate
        self._height = height

    def prepare(self, shape: tuple[int, ...]) -> None:
        """Have the source deliver what views of `shape` (H, W, C) need."""
        self.source.want(self._height or self.framing.height_for(shape[0]))

    def view(self, slot: int, at_s: float, shape: tuple[int, ...]) -> View | None:
        """The view of the slot that begins at monotonic `at_s`; None: no frame was taken for it.

        Raises:
            DataError: a picture cannot be read.
        """
        self.prepare(shape)
        frame = self.source.read(slot, at_s)
        if frame is None:
            return None
        if frame.image is None:
            return View(None, frame)
        image = self.framing.view(frame.image, shape)
        if self.gate is not None and not self.gate.look(image, at_s):
            return View(None, frame)
        return View(image, frame)


def make_viewer(settings: CameraSettings, source: Source) -> Viewer:
    """A viewer by the settings."""
    rules = GateRules(
        sigmas=settings.gate_sigmas,
        area=settings.gate_area,
        hold_s=settings.gate_hold_s,
        learn_s=settings.gate_learn_s,
        absorb_s=settings.gate_absorb_s,
    )
    return Viewer(
        source,
        Framing(settings.region, settings.mask),
        Gate(rules) if settings.gate else None,
        settings.capture_height,
    )
