"""What a cloud worker answers: an ESCALATION in, an ANSWER out. No I/O."""

from __future__ import annotations

import threading
from collections import Counter

import numpy as np

from ddnn import wire
from ddnn.bundle import Bundle
from ddnn.errors import BundleError, WireError
from ddnn.section import Section
from ddnn.wire import Flag, Kind


class Worker:
    """Cloud sections of every site it has heard of, by site and bundle tag."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self._lock = threading.Lock()
        self._sections: dict[str, tuple[int, Section]] = {}

    def load(self, site: str, bundle: Bundle) -> None:
        """Serve `site` with this bundle's cloud section from now on.

        Raises:
            BundleError: its cloud section cannot be used; the one served stays.
        """
        info = bundle.manifest.section("cloud")
        if info is None:
            raise BundleError("bundle has no cloud section")
        section = Section(info, bundle.sections["cloud"])
        with self._lock:
            self._sections[site] = (bundle.tag, section)

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
            tag, section = self._sections.get(site, (None, None))
            if section is None or tag != frame.tag:
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
