"""What a cloud worker answers: an ESCALATION in, an ANSWER out. No I/O."""

from __future__ import annotations

import threading
from collections import Counter, OrderedDict
from collections.abc import Callable
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from ddnn import wire
from ddnn.bundle import Bundle, SectionInfo
from ddnn.errors import BundleError, WireError
from ddnn.wire import Flag, Kind

#: Bundles served per site: the one before is still asked for while a site changes over.
BUNDLES_PER_SITE = 2


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
        self._sections: dict[str, OrderedDict[int, CloudSection]] = {}

    def load(self, site: str, bundle: Bundle) -> None:
        """Serve `site` with this bundle's cloud section too; the one before is kept.

        Raises:
            BundleError: its cloud section cannot be used; the one served stays.
        """
        info = bundle.manifest.section("cloud")
        if info is None:
            raise BundleError("bundle has no cloud section")
        section = self._make_section(info, bundle.sections["cloud"])
        with self._lock:
            served = self._sections.setdefault(site, OrderedDict())
            served[bundle.tag] = section
            served.move_to_end(bundle.tag)
            while len(served) > BUNDLES_PER_SITE:
                served.popitem(last=False)

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
            served = self._sections.get(site)
            section = served.get(frame.tag) if served else None
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
