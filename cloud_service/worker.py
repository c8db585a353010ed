"""What a cloud worker answers: an ESCALATION in, an ANSWER out. No I/O."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from ddnn import wire
from ddnn.bundle import Bundle, SectionInfo
from ddnn.errors import BundleError, WireError
from ddnn.wire import Flag, Kind


class CloudSection(Protocol):
    """What a worker needs of a `ddnn.section.Section`."""

    info: SectionInfo

    def run_one(self, *inputs: npt.NDArray[np.uint8]) -> tuple[npt.NDArray[Any], ...]:
        """Features (M, B) uint8 and mask (M,) uint8 -> logits (K,) int32."""
        ...


def onnx_section(info: SectionInfo, data: bytes) -> CloudSection:
    """A section in onnxruntime, which is imported only here: a simulation does without it.

    Raises:
        BundleError: it cannot be loaded or fails its self-test.
    """
    from ddnn.section import Section

    return Section(info, data)


class _Served:
    """One site's cloud sections: the one that runs, the one before, and the one that is ready.

    All three are served, each by its tag: while a site changes over it asks for two of them, and
    what it asks last before a change is still under way afterwards.
    """

    def __init__(self) -> None:
        self.sections: dict[int, CloudSection] = {}
        self.running: int | None = None
        self.before: int | None = None
        self.staged: int | None = None

    def stage(self, tag: int, section: CloudSection) -> None:
        self.staged = tag
        self.sections[tag] = section
        self._keep_three()

    def switch(self, tag: int) -> None:
        if tag != self.running and tag in self.sections:
            self.before, self.running, self.staged = self.running, tag, None
            self._keep_three()

    def _keep_three(self) -> None:
        kept = {self.running, self.before, self.staged}
        self.sections = {tag: section for tag, section in self.sections.items() if tag in kept}


class Worker:
    """Cloud sections of every site it has heard of, by site and bundle tag.

    Args:
        make_section: makes a bundle's section run.
    """

    def __init__(
        self, make_section: Callable[[SectionInfo, bytes], CloudSection] = onnx_section
    ) -> None:
        self.counts: Counter[str] = Counter()
        self._lock = threading.Lock()
        self._make_section = make_section
        self._sites: dict[str, _Served] = {}

    def load(self, site: str, bundle: Bundle) -> None:
        """Serve `site` with this bundle's cloud section from now on; the one before is kept.

        Raises:
            BundleError: its cloud section cannot be used; the one served stays.
        """
        self.stage(site, bundle)
        self.switch(site, bundle)

    def stage(self, site: str, bundle: Bundle) -> None:
        """Serve `site` with this bundle's cloud section too.

        Raises:
            BundleError: its cloud section cannot be used; the one served stays.
        """
        info = bundle.manifest.section("cloud")
        if info is None:
            raise BundleError("bundle has no cloud section")
        section = self._make_section(info, bundle.sections["cloud"])
        with self._lock:
            self._sites.setdefault(site, _Served()).stage(bundle.tag, section)

    def switch(self, site: str, bundle: Bundle) -> None:
        """`site` runs this bundle, now or soon; of the others only the one before is kept."""
        with self._lock:
            if served := self._sites.get(site):
                served.switch(bundle.tag)

    def wait_idle(self) -> None:
        """Return when no answer is being worked out: at once, or never where a section hangs."""
        with self._lock:
            return

    def answer(self, site: str, payload: bytes) -> bytes | None:
        """The ANSWER to an ESCALATION of `site`, or None when it is not one.

        A bundle that this worker does not have is answered with UNSERVED, so that the gateway
        need not wait for its deadline.
        """
        try:
            frame = wire.decode(payload)
            if frame.kind is not Kind.ESCALATION:
                raise WireError(f"{frame.kind.name} where an ESCALATION belongs")
        except WireError:
            self.counts["malformed"] += 1
            return None
        with self._lock:
            served = self._sites.get(site)
            section = served.sections.get(frame.tag) if served else None
            if section is None:
                self.counts["unserved"] += 1
                return wire.encode(
                    Kind.ANSWER,
                    tag=frame.tag,
                    boot=frame.boot,
                    slot=frame.slot,
                    flags=Flag.UNSERVED,
                )
            members, feature_bytes = section.info.inputs[0].shape
            try:
                features, mask = wire.unpack_escalation(frame.body, members, feature_bytes)
            except WireError:
                self.counts["malformed"] += 1
                return None
            (logits,) = section.run_one(features, mask)
            body = wire.pack_logits(logits.astype(np.int32))
        self.counts["answered"] += 1
        # Tag, boot and slot are the asker's own, so that it knows its question again.
        return wire.encode(Kind.ANSWER, tag=frame.tag, boot=frame.boot, slot=frame.slot, body=body)
