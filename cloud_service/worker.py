"""What a cloud worker answers: an ESCALATION in, an ANSWER out. No I/O.

One request's way: `accept` reads it and says which section answers it; it waits in
`cloud_service.batching`; `run` answers a batch of requests of one section. `answer` does all of it
for one request.
"""

from __future__ import annotations

import threading
import weakref
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from ddnn import wire
from ddnn.bundle import Bundle, SectionInfo
from ddnn.errors import BundleError, WireError
from ddnn.wire import Flag, Frame, Kind


class CloudBatch(Protocol):
    """What a worker needs of a `ddnn.section.Batch`: features (N, M, B), mask (N, M) -> logits."""

    @property
    def inputs(self) -> tuple[npt.NDArray[np.uint8], ...]:
        """`features` (N, M, B) uint8 and `mask` (N, M) uint8, to be filled."""
        ...

    @property
    def outputs(self) -> tuple[npt.NDArray[Any], ...]:
        """`logits` (N, K) int32 of the last run."""
        ...

    def run(self) -> None:
        """Inputs -> outputs."""
        ...


class CloudSection(Protocol):
    """What a worker needs of a `ddnn.section.Section`."""

    info: SectionInfo

    def batch(self, size: int) -> CloudBatch:
        """A batch of `size` requests; it may be the one that was given out before."""
        ...


class Request(NamedTuple):
    """An ESCALATION that `section` can answer. Those of one section can be answered together.

    Its features stay bytes until its batch is put together: arrays are made once for all of them.

    Attributes:
        frame: checked; its tag, boot and slot are in the answer, so that the asker knows its
            question again.
    """

    section: CloudSection
    frame: Frame


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

    Sites that run the same section share one copy of it, in memory and in batches.

    Args:
        make_section: makes a bundle's section run.
    """

    def __init__(
        self, make_section: Callable[[SectionInfo, bytes], CloudSection] = onnx_section
    ) -> None:
        self.counts: Counter[str] = Counter()
        self._lock = threading.Lock()
        self._running = threading.Lock()
        self._make_section = make_section
        self._sites: dict[str, _Served] = {}
        self._made: weakref.WeakValueDictionary[SectionInfo, CloudSection] = (
            weakref.WeakValueDictionary()
        )

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
        # The same file, which its hash says, with the same inputs, outputs and self-test.
        section = self._made.get(info)
        if section is None:
            section = self._made[info] = self._make_section(info, bundle.sections["cloud"])
        with self._lock:
            self._sites.setdefault(site, _Served()).stage(bundle.tag, section)

    def switch(self, site: str, bundle: Bundle) -> None:
        """`site` runs this bundle, now or soon; of the others only the one before is kept."""
        with self._lock:
            if served := self._sites.get(site):
                served.switch(bundle.tag)

    def wait_idle(self) -> None:
        """Return when no answer is being worked out: soon, or never where a section hangs."""
        with self._running:
            return

    def accept(self, site: str, payload: bytes) -> Request | bytes | None:
        """Read an ESCALATION of `site`.

        Returns:
            A request for `run`; or the ANSWER right away, UNSERVED, of a bundle that this worker
            does not have, so that the gateway need not wait for its deadline; or None: it is no
            escalation.
        """
        try:
            frame = wire.decode(payload)
            if frame.kind is not Kind.ESCALATION:
                raise WireError(f"{frame.kind.name} where an ESCALATION belongs")
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
            wire.check_escalation(frame.body, *section.info.inputs[0].shape)
        except WireError:
            self.counts["malformed"] += 1
            return None
        return Request(section, frame)

    def run(self, requests: Sequence[Request]) -> list[bytes]:
        """The ANSWERs to requests of one section, in their order.

        Sections are exact: a request's answer does not depend on what shares its batch.
        """
        frames = [request.frame for request in requests]
        with self._running:  # a batch is the section's own
            batch = requests[0].section.batch(len(frames))
            wire.unpack_escalations([frame.body for frame in frames], *batch.inputs)
            batch.run()
            bodies = wire.pack_logits(batch.outputs[0])
        self.counts["answered"] += len(frames)
        size = len(bodies) // len(frames)
        return [
            wire.encode(
                Kind.ANSWER,
                tag=frame.tag,
                boot=frame.boot,
                slot=frame.slot,
                body=bodies[at : at + size],
            )
            for at, frame in zip(range(0, len(bodies), size), frames, strict=True)
        ]

    def answer(self, site: str, payload: bytes) -> bytes | None:
        """The ANSWER to an ESCALATION of `site`, or None when it is not one."""
        accepted = self.accept(site, payload)
        return self.run([accepted])[0] if isinstance(accepted, Request) else accepted
