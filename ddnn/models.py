"""A node's bundle: from retained topics, checked, kept on disk, handed over to run."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from ddnn import topics
from ddnn.bundle import Bundle, Manifest
from ddnn.errors import BundleError
from ddnn.message import Message
from ddnn.rollout import Chunk, Stager, describe
from ddnn.store import BundleStore

log = logging.getLogger(__name__)


class Subscriber(Protocol):
    """What is needed of a `ddnn.mqtt.Client`."""

    def subscribe(self, topic_filter: str, handler: Callable[[Message], None], /) -> None: ...
    def unsubscribe(self, topic_filter: str, /) -> None: ...


class Keeper(Protocol):
    """What is needed of a `ddnn.store.BundleStore`."""

    def load(self, roles: Callable[[Manifest], set[str]], /) -> Bundle | None: ...
    def save(self, bundle: Bundle, /) -> None: ...


class ModelFeed:
    """Follows one site's retained manifest and activates what passes every check.

    Args:
        client: the node's connection; its handlers run on the network thread.
        site: whose models.
        roles: which sections of a manifest this node runs.
        activate: makes a complete bundle the running one; raises BundleError to refuse it.
        store: folder for the last good bundle, or None to keep none.
        changed: called after a bundle was activated or refused, to report it.
    """

    def __init__(
        self,
        client: Subscriber,
        site: str,
        roles: Callable[[Manifest], set[str]],
        activate: Callable[[Bundle], None],
        *,
        store: Path | Keeper | None = None,
        changed: Callable[[], None] = lambda: None,
    ) -> None:
        self.refused: str | None = None
        self.active: Bundle | None = None
        self._client = client
        self._site = site
        self._roles = roles
        self._activate = activate
        self._store = BundleStore(store) if isinstance(store, Path) else store
        self._changed = changed
        self._stager = Stager(roles)
        self._subscribed: set[Chunk] = set()
        self._lock = threading.RLock()

    @property
    def bundle_id(self) -> str | None:
        """Id of the running bundle, or None."""
        return self.active.bundle_id if self.active else None

    @property
    def version(self) -> int | None:
        """Version of the running bundle, or None."""
        return self.active.manifest.version if self.active else None

    def start(self) -> None:
        """Run the bundle kept on disk, if there is one, and follow the site's manifest."""
        self.restore()
        self._client.subscribe(topics.manifest(self._site), self.on_manifest)

    def restore(self) -> None:
        """Run the bundle kept on disk, if there is a usable one."""
        if not self._store:
            return
        try:
            kept = self._store.load(self._roles)
        except BundleError as error:
            log.warning("the bundle kept on disk is not usable: %s", error)
            return
        if kept is not None:
            with self._lock:
                self._run(kept, keep=False)

    def on_manifest(self, message: Message) -> None:
        """Take a manifest that the broker sent."""
        if not message.payload:  # a cleared retained topic: keep running what runs
            return
        with self._lock:
            try:
                bundle = self._stager.offer_manifest(message.payload)
            except BundleError as error:
                self._refuse(message.payload, error)
                return
            if bundle is not None:
                self._run(bundle, keep=True)
            self._follow_chunks()

    def _on_chunk(self, message: Message) -> None:
        sha256, _, number = message.topic.rpartition("/")
        chunk = Chunk(sha256.rpartition("/")[2], int(number))
        with self._lock:
            try:
                bundle = self._stager.offer_chunk(chunk, message.payload)
            except BundleError as error:
                self._refuse(b"", error)
                return
            if bundle is not None:
                self._run(bundle, keep=True)
            self._follow_chunks()

    def _follow_chunks(self) -> None:
        """Subscribe to what is missing and to nothing else."""
        wanted = set(self._stager.wanted)
        for chunk in self._subscribed - wanted:
            self._client.unsubscribe(topics.section(self._site, *chunk))
        for chunk in sorted(wanted - self._subscribed):
            self._client.subscribe(topics.section(self._site, *chunk), self._on_chunk)
        self._subscribed = wanted

    def _run(self, bundle: Bundle, *, keep: bool) -> None:
        try:
            self._activate(bundle)
        except BundleError as error:
            self._refuse(bundle.payload, error)
            return
        self.active, self.refused = bundle, None
        self._stager.activated(bundle)
        log.info("running bundle %s version %d", describe(bundle.payload), bundle.manifest.version)
        if keep and self._store:
            try:
                self._store.save(bundle)
            except BundleError as error:
                log.warning("%s; it will be fetched again after a restart", error)
        self._changed()

    def _refuse(self, payload: bytes, error: BundleError) -> None:
        self.refused = str(error)
        log.warning("bundle %s refused: %s", describe(payload) if payload else "", error)
        self._changed()
