"""A bundle's sections, fetched from retained topics: only those of this node, and only what lacks.

`begin` takes a manifest that the node trusts; every chunk that is missing then gets a subscription
of its own, which ends when the chunk has come. What has come is kept on disk, so that a node that
starts again need not fetch it twice.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import Protocol

from ddnn import topics
from ddnn.bundle import Bundle, Manifest
from ddnn.errors import BundleError
from ddnn.message import Message
from ddnn.rollout import Chunk, Stager
from ddnn.signing import Sealed

log = logging.getLogger(__name__)


class Subscriber(Protocol):
    """What is needed of a `ddnn.mqtt.Client`."""

    def subscribe(
        self, topic_filter: str, handler: Callable[[Message], None], /, *, retained: bool = True
    ) -> None: ...
    def unsubscribe(self, topic_filter: str, /) -> None: ...


class ChunkKeeper(Protocol):
    """What is needed of a `ddnn.store.BundleStore`."""

    def keep_chunk(self, sha256: str, number: int, data: bytes, /) -> None: ...
    def chunk(self, sha256: str, number: int, /) -> bytes | None: ...
    def forget_chunks(self, keep: set[str], /) -> None: ...


class Fetcher:
    """Fetches one bundle at a time for one node of one site.

    Not thread-safe by itself: its owner calls it under `lock`, which it takes for what comes from
    the network.

    Args:
        client: the node's connection.
        site: whose models.
        roles: which sections of a manifest this node needs.
        store: keeps chunks over a restart, or None.
        lock: the owner's.
        complete: called with a bundle whose sections are all here and of the right hash.
        refused: called with a bundle's id when one of its sections turned out to be wrong.
    """

    def __init__(
        self,
        client: Subscriber,
        site: str,
        roles: Callable[[Manifest], set[str]],
        store: ChunkKeeper | None,
        lock: threading.RLock,
        complete: Callable[[Bundle], None],
        refused: Callable[[str | None, BundleError], None],
    ) -> None:
        self.stager = Stager(roles)
        self._client = client
        self._site = site
        self._store = store
        self._lock = lock
        self._complete = complete
        self._refused = refused
        self._subscribed: set[Chunk] = set()
        self._spoiled: set[str] = set()

    @property
    def fetching(self) -> str | None:
        """Id of the bundle that is being fetched, or None."""
        return self.stager.collecting

    def begin(self, sealed: Sealed) -> None:
        """Fetch what this node lacks of a bundle; `follow` must be called afterwards.

        Raises:
            BundleError: it is refused, and why; what was being fetched goes on.
        """
        complete = self.stager.offer_manifest(*sealed)
        if self._store:
            self._store.forget_chunks({chunk.sha256 for chunk in self.stager.wanted})
        if complete is not None:
            self._complete(complete)
            return
        for chunk in self.stager.wanted if self._store else ():
            kept = self._store.chunk(*chunk) if self._store else None
            if kept is not None:
                self._take(chunk, kept)

    def follow(self) -> None:
        """Subscribe to what is missing and to nothing else."""
        wanted = set(self.stager.wanted)
        for chunk in self._subscribed - wanted:
            self._client.unsubscribe(topics.section(self._site, *chunk))
        for chunk in sorted(wanted - self._subscribed):
            topic = topics.section(self._site, *chunk)
            # What is retained of a spoiled section is known to be wrong; to be sent it again and
            # again would be endless. Only what is published from now on can help.
            retained = chunk.sha256 not in self._spoiled
            self._client.subscribe(topic, self.on_chunk, retained=retained)
        self._subscribed = wanted

    def look_again(self) -> None:
        """The manifest was sent (again): sections that were wrong may have been, too."""
        for chunk in [chunk for chunk in self._subscribed if chunk.sha256 in self._spoiled]:
            self._client.unsubscribe(topics.section(self._site, *chunk))
            self._subscribed.remove(chunk)
        self._spoiled.clear()

    def on_chunk(self, message: Message) -> None:
        """Take a chunk from its topic."""
        sha256, _, number = message.topic.rpartition("/")
        chunk = Chunk(sha256.rpartition("/")[2], int(number))
        with self._lock:
            if self._store and chunk in self.stager.wanted:
                try:
                    self._store.keep_chunk(*chunk, message.payload)
                except BundleError as error:
                    log.warning("%s; it will be fetched again after a restart", error)
            self._take(chunk, message.payload)
            self.follow()

    def _take(self, chunk: Chunk, data: bytes) -> None:
        try:
            complete = self.stager.offer_chunk(chunk, data)
        except BundleError as error:
            self._spoiled.add(chunk.sha256)
            if self._store:
                self._store.forget_chunks({c.sha256 for c in self.stager.wanted} - {chunk.sha256})
            self._refused(self.fetching, error)
            return
        if complete is not None:
            self._complete(complete)
