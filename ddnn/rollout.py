"""Staging a bundle from retained messages, as rules without I/O.

A node hears the manifest first and then asks only for the sections of its own roles:

1. A manifest is decoded and checked before anything else is looked at. (Who may have sent it is
   `ddnn.trust`'s question, and comes first.)
2. A manifest of the bundle that the node has already is ignored.
3. A manifest of a version not newer than the one running is refused (rollback); so is one whose
   tag is that of the one running, since frames could not tell the two apart.
4. A section that the node has already, by its hash, is not fetched again.
5. Only sections that the manifest names are collected, each chunk at most once, none longer
   than its place in the section; a chunk too many or too long is counted and dropped.
6. A section whose hash does not fit is forgotten; its chunks are wanted again.
7. When all sections are there the bundle is complete; what it replaces keeps running until then.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import NamedTuple

from ddnn import topics
from ddnn.bundle import (
    CHUNK_BYTES,
    WHOLE_SECTION_BYTES,
    Bundle,
    Manifest,
    SectionInfo,
    Signature,
    assemble,
    bundle_id,
    check_section,
    chunk_count,
    chunks,
    decode_manifest,
    tag,
)
from ddnn.errors import BundleError
from ddnn.message import Publish
from ddnn.signing import seal


class Chunk(NamedTuple):
    """One retained message that is wanted: chunk `number` of the section with this hash."""

    sha256: str
    number: int


class Stager:
    """Collects one bundle at a time; a newer manifest replaces a half-collected one.

    Args:
        roles: which sections of a manifest this node runs.
        running: payload of the manifest that the node runs now, or None.
    """

    def __init__(self, roles: Callable[[Manifest], set[str]], running: bytes | None = None) -> None:
        self._roles = roles
        self._running = running
        self._have: dict[str, bytes] = {}
        self._payload: bytes | None = None
        self._signatures: tuple[Signature, ...] = ()
        self._wanted: dict[str, SectionInfo] = {}
        self._parts: dict[Chunk, bytes] = {}
        self.counts: Counter[str] = Counter()

    @property
    def wanted(self) -> list[Chunk]:
        """The chunks still missing."""
        return [
            chunk
            for sha256, info in self._wanted.items()
            if sha256 not in self._have
            for number in range(chunk_count(info.size_bytes))
            if (chunk := Chunk(sha256, number)) not in self._parts
        ]

    @property
    def collecting(self) -> str | None:
        """Id of the bundle whose sections are being collected, or None."""
        return None if self._payload is None else bundle_id(self._payload)

    def offer_manifest(
        self, payload: bytes, signatures: tuple[Signature, ...] = ()
    ) -> Bundle | None:
        """Take a retained manifest; afterwards `wanted` tells what to fetch.

        Returns:
            A complete bundle, if this node has every section that it needs.

        Raises:
            BundleError: it is refused, and why; what was staged or running stays.
        """
        if payload in (self._running, self._payload):
            return None
        manifest = decode_manifest(payload)
        if self._running is not None:
            running = decode_manifest(self._running)
            if manifest.version <= running.version:
                raise BundleError(
                    f"bundle version {manifest.version} is not newer than the running "
                    f"version {running.version}"
                )
            if tag(payload) == tag(self._running):
                raise BundleError(
                    f"its tag {tag(payload):04x} is the running bundle's too: "
                    "publish it again under another version"
                )
        roles = self._roles(manifest)
        wanted = {}
        for role in sorted(roles):
            info = manifest.section(role)
            if info is None:
                raise BundleError(f"bundle has no section {role} for this node")
            wanted[info.sha256] = info
        # What was collected for another manifest may be a section of this one as well.
        self._parts = {c: data for c, data in self._parts.items() if c.sha256 in wanted}
        self._payload, self._signatures, self._wanted = payload, signatures, wanted
        return self._complete()

    def offer_chunk(self, chunk: Chunk, data: bytes) -> Bundle | None:
        """Take one retained chunk; the complete bundle once it is the last one.

        Raises:
            BundleError: the section it completes is wrong; its chunks are wanted again.
        """
        info = self._wanted.get(chunk.sha256)
        if (
            info is None
            or chunk not in self.wanted
            or len(data) != _chunk_bytes(info, chunk.number)
        ):
            self.counts["chunks_dropped"] += 1
            return None
        self._parts[chunk] = data
        if any(other.sha256 == chunk.sha256 for other in self.wanted):
            return None
        try:
            check_section(info, self._section(info))
        except BundleError:
            self._parts = {c: d for c, d in self._parts.items() if c.sha256 != chunk.sha256}
            raise
        return self._complete()

    def activated(self, bundle: Bundle) -> None:
        """Say that `bundle` is what the node runs from now on."""
        self._running = bundle.payload
        self._have = {
            info.sha256: bundle.sections[info.role]
            for info in bundle.manifest.sections
            if info.role in bundle.sections
        }

    def forget_running(self) -> None:
        """Take any version: what runs was begun without knowing what the site runs."""
        self._running = None

    def abandon(self) -> None:
        """Forget what is staged, so that the same manifest may be offered again."""
        self._payload, self._signatures, self._wanted, self._parts = None, (), {}, {}

    def _section(self, info: SectionInfo) -> bytes:
        if info.sha256 in self._have:
            return self._have[info.sha256]
        count = chunk_count(info.size_bytes)
        return b"".join(self._parts[Chunk(info.sha256, i)] for i in range(count))

    def _complete(self) -> Bundle | None:
        if self._payload is None or self.wanted:
            return None
        manifest = decode_manifest(self._payload)
        roles = self._roles(manifest)
        sections = {
            info.role: self._section(info) for info in manifest.sections if info.role in roles
        }
        bundle = assemble(self._payload, sections, roles, self._signatures)
        self.abandon()
        return bundle


def _chunk_bytes(info: SectionInfo, index: int) -> int:
    """Exact length of chunk `number` of a section."""
    if info.size_bytes <= WHOLE_SECTION_BYTES:
        return info.size_bytes
    return min(CHUNK_BYTES, info.size_bytes - index * CHUNK_BYTES)


def offer(site: str, bundle: Bundle) -> list[Publish]:
    """A whole bundle as retained messages: every chunk, then the manifest."""
    messages = [
        Publish(topics.section(site, info.sha256, number), part, qos=1, retain=True, keep=True)
        for info in {info.sha256: info for info in bundle.manifest.sections}.values()
        for number, part in enumerate(chunks(bundle.sections[info.role]))
    ]
    message = seal(bundle.payload, bundle.signatures)
    return [*messages, Publish(topics.manifest(site), message, qos=1, retain=True, keep=True)]


def describe(payload: bytes) -> str:
    """Short name of a manifest's bundle for people: the first 12 digits of its id."""
    return bundle_id(payload)[:12]
