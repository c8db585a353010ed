"""The agent's rules: a view in, a summary out; a request in, features out. No I/O.

The device section makes scores and packed features of one view in one call. The scores leave at
once as a SUMMARY; the features stay in a ring of the last slots and leave only on REQUEST.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from ddnn import wire
from ddnn.bundle import Bundle, SectionInfo
from ddnn.errors import BundleError
from ddnn.wire import Flag, Frame, Kind
from device_agent.sources.base import Image


class DeviceSection(Protocol):
    """What an agent needs of a `ddnn.section.Section`."""

    def run_one(self, *inputs: npt.NDArray[np.uint8]) -> tuple[npt.NDArray[Any], ...]:
        """Image (H, W, C) uint8 -> scores (K,) uint8, features (B,) uint8."""
        ...


def onnx_section(info: SectionInfo, data: bytes) -> DeviceSection:
    """A section in onnxruntime, which is imported only here: a simulation does without it.

    Raises:
        BundleError: it cannot be loaded or fails its self-test.
    """
    from ddnn.section import Section

    return Section(info, data)


class Agent:
    """One camera's agent. Its methods may be called from several threads.

    Args:
        camera: number of this camera in the bundle.
        boot: boot id of this process.
        ring_slots: how many slots' features are kept for requests.
        make_section: makes a bundle's section run.
    """

    def __init__(
        self,
        camera: int,
        boot: int,
        ring_slots: int = 64,
        make_section: Callable[[SectionInfo, bytes], DeviceSection] = onnx_section,
    ) -> None:
        self.camera = camera
        self.role = f"device/{camera}"
        self.counts: Counter[str] = Counter()
        self._boot = boot
        self._ring_slots = ring_slots
        self._lock = threading.Lock()
        self._make_section = make_section
        self._section: DeviceSection | None = None
        self._tag = 0
        self._view: tuple[int, ...] = ()
        self._ring = np.zeros((0, 0), np.uint8)
        self._ring_slot = np.zeros(0, np.int64)

    def load(self, bundle: Bundle) -> None:
        """Run this bundle from the next view on; the ring starts empty.

        Raises:
            BundleError: its section cannot be used; the one running stays.
        """
        info = bundle.manifest.section(self.role)
        if info is None:
            raise BundleError(f"bundle has no section {self.role} for this camera")
        section = self._make_section(info, bundle.sections[self.role])
        feature_bytes = next(t.shape[0] for t in info.outputs if t.name == "features")
        with self._lock:
            self._section, self._tag, self._view = section, bundle.tag, info.inputs[0].shape
            self._ring = np.zeros((self._ring_slots, feature_bytes), np.uint8)
            self._ring_slot = np.full(self._ring_slots, -1, np.int64)

    @property
    def boot(self) -> int:
        """Boot id in the messages."""
        return self._boot

    @property
    def view_shape(self) -> tuple[int, ...] | None:
        """(H, W, C) of the views that the running bundle's section takes; None: no bundle yet."""
        return self._view or None

    def restart(self) -> None:
        """Forget all views and go on as another boot: slot numbers begin a new life."""
        with self._lock:
            self._boot = (self._boot + 1) % 2**16
            self._ring_slot[:] = -1

    def view(self, slot: int, image: Image | None) -> bytes | None:
        """The SUMMARY of this slot's view; None image: an absent one.

        Returns:
            The message, or None when there is no bundle yet or the view does not fit it.
        """
        with self._lock:
            if self._section is None:
                self.counts["views_without_bundle"] += 1
                return None
            if image is None:
                self.counts["absent"] += 1
                return wire.encode(
                    Kind.SUMMARY, tag=self._tag, boot=self._boot, slot=slot, flags=Flag.ABSENT
                )
            if image.shape != self._view:
                self.counts["views_of_wrong_size"] += 1
                return None
            scores, features = self._section.run_one(image)
            place = slot % self._ring_slots
            self._ring[place] = features
            self._ring_slot[place] = slot
            return wire.encode(
                Kind.SUMMARY, tag=self._tag, boot=self._boot, slot=slot, body=scores.tobytes()
            )

    def features(self, request: Frame, near: int) -> bytes | None:
        """The FEATURES message that a REQUEST asks for.

        A slot that has left the ring is answered with ABSENT, so that the gateway need not wait.

        Args:
            near: the present slot, to unwrap the request's.

        Returns:
            The message, or None when the request is not one or is of another bundle.
        """
        with self._lock:
            if request.kind is not Kind.REQUEST or request.tag != self._tag or not len(self._ring):
                self.counts["requests_refused"] += 1
                return None
            slot = wire.unwrap_slot(request.slot, near)
            place = slot % self._ring_slots
            if self._ring_slot[place] != slot:
                self.counts["requests_too_late"] += 1
                return wire.encode(
                    Kind.FEATURES, tag=self._tag, boot=self._boot, slot=slot, flags=Flag.ABSENT
                )
            self.counts["features_sent"] += 1
            return wire.encode(
                Kind.FEATURES,
                tag=self._tag,
                boot=self._boot,
                slot=slot,
                body=self._ring[place].tobytes(),
            )
