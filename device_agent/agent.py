"""The agent's rules: a view in, a summary out; a request in, features out. No I/O.

The device section makes scores and packed features of one view in one call. The scores leave at
once as a SUMMARY; the features stay in a ring of the last slots and leave only on REQUEST.

A bundle is loaded next to the one that runs (`stage`) and takes over at a slot (`switch`): views of
earlier slots still go to the one before, and so do requests for them, by the tag that they carry.

A bundle may leave everything to the cloud: then a device's features are the picture itself, and a
SUMMARY says no more than that there is one. Such a bundle is refused unless the device's owner has
allowed pictures to leave it.
"""

from __future__ import annotations

import math
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
        """Image (H, W, C) uint8 -> scores (K,) uint8 (where it has them), features (B,) uint8."""
        ...


def onnx_section(info: SectionInfo, data: bytes) -> DeviceSection:
    """A section in onnxruntime, which is imported only here: a simulation does without it.

    Raises:
        BundleError: it cannot be loaded or fails its self-test.
    """
    from ddnn.section import Section

    return Section(info, data)


class _Loaded:
    """One bundle's section, and the features that it made, by slot."""

    def __init__(
        self, section: DeviceSection, bundle_tag: int, info: SectionInfo, ring_slots: int
    ) -> None:
        feature_bytes = next(t.shape[0] for t in info.outputs if t.name == "features")
        self.section = section
        self.tag = bundle_tag
        self.view: tuple[int, ...] = info.inputs[0].shape
        self.ring = np.zeros((ring_slots, feature_bytes), np.uint8)
        self.ring_slot = np.full(ring_slots, -1, np.int64)


class Agent:
    """One camera's agent. Its methods may be called from several threads.

    Args:
        camera: number of this camera in the bundle.
        boot: boot id of this process.
        ring_slots: how many slots' features are kept for requests.
        send_images: whether a bundle may send the pictures themselves.
        make_section: makes a bundle's section run.
    """

    def __init__(
        self,
        camera: int,
        boot: int,
        ring_slots: int = 64,
        make_section: Callable[[SectionInfo, bytes], DeviceSection] = onnx_section,
        *,
        send_images: bool = False,
    ) -> None:
        self.camera = camera
        self.role = f"device/{camera}"
        self.counts: Counter[str] = Counter()
        self._boot = boot
        self._ring_slots = ring_slots
        self._lock = threading.Lock()
        self._make_section = make_section
        self._send_images = send_images
        self._running: _Loaded | None = None
        self._before: _Loaded | None = None
        self._staged: _Loaded | None = None
        self._from_slot: int | None = None
        self._since = 0
        self._try_every = 0

    def load(self, bundle: Bundle) -> None:
        """Run this bundle from the next view on.

        Raises:
            BundleError: its section cannot be used, or it sends pictures and may not; the one
                running stays.
        """
        self.stage(bundle)
        self.switch(bundle, 0)
        self.begun(bundle)

    def stage(self, bundle: Bundle) -> None:
        """Load this bundle's section next to the one that runs.

        Raises:
            BundleError: it cannot be used, or it sends pictures and may not; everything stays as
                it is.
        """
        if bundle.manifest.topology.sends_images and not self._send_images:
            raise BundleError(
                "bundle sends raw pictures to the cloud, and this device does not allow that; "
                "its owner can, with the setting send_images = true"
            )
        info = bundle.manifest.section(self.role)
        if info is None:
            raise BundleError(f"bundle has no section {self.role} for this camera")
        section = self._make_section(info, bundle.sections[self.role])
        with self._lock:
            self._staged = _Loaded(section, bundle.tag, info, self._ring_slots)
            self._from_slot = None
            self._try_every = 0

    def try_out(self, bundle: Bundle | None, every: int) -> None:
        """Make summaries with the staged bundle too, of slots that `every` divides; None: none."""
        with self._lock:
            self._try_every = every if bundle is not None else 0

    def switch(self, bundle: Bundle, from_slot: int) -> None:
        """Run the staged bundle for views of slots from `from_slot` on."""
        with self._lock:
            if self._staged is None or self._staged.tag != bundle.tag:
                return  # it runs already
            self._from_slot = from_slot

    def begun(self, bundle: Bundle) -> None:
        """The slot of the switch has come, whether or not there was a view of it."""
        with self._lock:
            if self._staged is not None and self._staged.tag == bundle.tag:
                self._take_over()

    @property
    def boot(self) -> int:
        """Boot id in the messages."""
        return self._boot

    def view_shape(self, slot: int) -> tuple[int, ...] | None:
        """(H, W, C) of the view that the section of this slot takes; None: no bundle yet."""
        with self._lock:
            loaded = self._of(slot)
            return loaded.view if loaded else None

    @property
    def raw_bytes(self) -> int:
        """What one raw view of the running bundle would take; 0: no bundle yet."""
        with self._lock:
            return math.prod(self._running.view) if self._running else 0

    def restart(self) -> None:
        """Forget all views and go on as another boot: slot numbers begin a new life."""
        with self._lock:
            self._boot = (self._boot + 1) % 2**16
            for loaded in (self._running, self._before, self._staged):
                if loaded:
                    loaded.ring_slot[:] = -1

    def view(self, slot: int, image: Image | None) -> bytes | None:
        """The SUMMARY of this slot's view; None image: an absent one.

        Returns:
            The message, or None when there is no bundle yet or the view does not fit it.
        """
        with self._lock:
            loaded = self._of(slot)
            if loaded is None:
                self.counts["views_without_bundle"] += 1
                return None
            if image is None:
                self.counts["absent"] += 1
            elif image.shape != loaded.view:
                self.counts["views_of_wrong_size"] += 1
                return None
            if self._before and slot - int(self._before.ring_slot.max()) > self._ring_slots:
                self._before = None  # what it remembers has left the ring by now
            return self._summary(loaded, slot, image)

    def shadow(self, slot: int, image: Image | None) -> bytes | None:
        """The SUMMARY of the same view by the staged bundle, where that is on trial; else None."""
        with self._lock:
            staged = self._staged
            if staged is None or not self._try_every or slot % self._try_every:
                return None
            if image is not None and image.shape != staged.view:
                return None
            self.counts["shadows"] += 1
            return self._summary(staged, slot, image)

    def _of(self, slot: int) -> _Loaded | None:
        """What runs the view of this slot; the staged bundle takes over when its slot has come."""
        if self._from_slot is not None and slot >= self._from_slot and self._staged:
            self._take_over()
        if self._before and slot < self._since:
            return self._before  # a view that was begun before the switch
        return self._running

    def _summary(self, loaded: _Loaded, slot: int, image: Image | None) -> bytes:
        tag, boot = loaded.tag, self._boot
        if image is None:
            return wire.encode(Kind.SUMMARY, tag=tag, boot=boot, slot=slot, flags=Flag.ABSENT)
        *scores, features = loaded.section.run_one(image)
        place = slot % self._ring_slots
        loaded.ring[place] = features
        loaded.ring_slot[place] = slot
        body = scores[0].tobytes() if scores else b""
        return wire.encode(Kind.SUMMARY, tag=tag, boot=boot, slot=slot, body=body)

    def _take_over(self) -> None:
        """The staged bundle runs from now on."""
        self._before, self._running, self._staged = self._running, self._staged, None
        self._since, self._from_slot = self._from_slot or 0, None

    def features(self, request: Frame, near: int) -> bytes | None:
        """The FEATURES message that a REQUEST asks for.

        A slot that has left the ring is answered with ABSENT, so that the gateway need not wait.

        Args:
            near: the present slot, to unwrap the request's.

        Returns:
            The message, or None when the request is not one or is of another bundle.
        """
        with self._lock:
            loaded = next(
                (
                    one
                    for one in (self._running, self._before, self._staged)
                    if one and one.tag == request.tag
                ),
                None,
            )
            if request.kind is not Kind.REQUEST or loaded is None:
                self.counts["requests_refused"] += 1
                return None
            tag, boot = loaded.tag, self._boot
            slot = wire.unwrap_slot(request.slot, near)
            place = slot % self._ring_slots
            if loaded.ring_slot[place] != slot:
                self.counts["requests_too_late"] += 1
                return wire.encode(Kind.FEATURES, tag=tag, boot=boot, slot=slot, flags=Flag.ABSENT)
            self.counts["features_sent"] += 1
            body = loaded.ring[place].tobytes()
            return wire.encode(Kind.FEATURES, tag=tag, boot=boot, slot=slot, body=body)
