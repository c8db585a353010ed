"""A node's bundles: collected from retained topics, staged, and run from an agreed slot on.

One bundle's way, from top to bottom: `on_manifest` hears what the publisher offers; `_pursue`
checks it and asks for what is missing; `_stage` loads it next to the one that runs, tests it and
keeps it on disk; `on_active` hears from which slot on the site runs it; `on_time` makes it the
running one when that slot has come.

1. A node without a bundle runs the first one that it has staged at once, unless the site is known
   to run another one. Should it hear so later, it goes over to that one.
2. Any other change waits for the gateway's activation record.
3. Of two bundles, the one that the site runs is fetched before the one that is offered.
4. An offer older than one that was heard before is refused, and so is a record of a bundle older
   than the one that runs; but for `GO_BACK_S` after a change the gateway can take the change back,
   to the very bundle that ran before.
5. What is refused leaves everything as it is; the reason is in the status.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from ddnn import activation, topics
from ddnn.activation import Activation
from ddnn.bundle import Bundle, Manifest, bundle_id
from ddnn.clock import EARLIEST_WALL_S
from ddnn.errors import BundleError
from ddnn.message import Message
from ddnn.metrics import Sample
from ddnn.rollout import Chunk, Stager, describe
from ddnn.signing import seal, unseal
from ddnn.store import BundleStore
from ddnn.trust import ClockError, Trust

log = logging.getLogger(__name__)
#: So long after a change of bundle its gateway may take it back.
GO_BACK_S = 1800.0


class Subscriber(Protocol):
    """What is needed of a `ddnn.mqtt.Client`."""

    def subscribe(
        self, topic_filter: str, handler: Callable[[Message], None], /, *, retained: bool = True
    ) -> None: ...
    def unsubscribe(self, topic_filter: str, /) -> None: ...


class Keeper(Protocol):
    """What is needed of a `ddnn.store.BundleStore`."""

    def load(self, roles: Callable[[Manifest], set[str]], /) -> Bundle | None: ...
    def load_staged(self, roles: Callable[[Manifest], set[str]], /) -> Bundle | None: ...
    def stage(self, bundle: Bundle, /) -> None: ...
    def promote(self, bundle: Bundle, /) -> None: ...
    def keep_chunk(self, sha256: str, number: int, data: bytes, /) -> None: ...
    def chunk(self, sha256: str, number: int, /) -> bytes | None: ...
    def forget_chunks(self, keep: set[str], /) -> None: ...
    def keep_activation(self, payload: bytes, /) -> None: ...
    def activation(self) -> bytes | None: ...


class Runner(Protocol):
    """What a node does with bundles."""

    def stage(self, bundle: Bundle, /) -> None:
        """Load and test `bundle` next to the one that runs; the one staged before is let go of.

        Raises:
            BundleError: it cannot be used; everything stays as it is.
        """

    def switch(self, bundle: Bundle, from_slot: int, /) -> None:
        """Run the staged `bundle` for slots from `from_slot` on; may be called again to move it."""

    def try_out(self, bundle: Bundle | None, every: int, /) -> None:
        """Run the staged `bundle` in shadow, on slots that `every` divides; None: no more."""

    def begun(self, bundle: Bundle, /) -> None:
        """That slot has come: `bundle` is the running one, whatever is staged after it."""


class ModelFeed:
    """Follows one site's manifest and activation record.

    Its methods may be called from any thread.

    Args:
        client: the node's connection; its handlers run on the network thread.
        site: whose models.
        roles: which sections of a manifest this node needs.
        runner: what runs them.
        trust: whose bundles are taken up.
        period_s: of the site's slots; None: of a node that runs several bundles side by side and
            needs no slot.
        store: folder for the bundles, or None to keep none.
        changed: called when what the status says of bundles has changed.
        overheard: called with every manifest and activation record before it is looked at.
        later: does what takes long (loading, testing, writing to disk), in order; a
            `ddnn.background.Background`, or at once.
        wall: seconds since 1970.
    """

    def __init__(
        self,
        client: Subscriber,
        site: str,
        roles: Callable[[Manifest], set[str]],
        runner: Runner,
        trust: Trust,
        *,
        period_s: float | None = None,
        store: Path | Keeper | None = None,
        changed: Callable[[], None] = lambda: None,
        overheard: Callable[[Message], None] = lambda message: None,
        later: Callable[[Callable[[], None]], None] = lambda work: work(),
        wall: Callable[[], float] = time.time,
    ) -> None:
        self.refused: str | None = None
        self.refused_id: str | None = None
        self.active: Bundle | None = None
        self.staged: Bundle | None = None
        self.record: Activation | None = None
        self._client = client
        self._site = site
        self._roles = roles
        self._runner = runner
        self._trust = trust
        self._period_s = period_s
        self._store = BundleStore(store) if isinstance(store, Path) else store
        self._changed = changed
        self._overheard = overheard
        self._later = later
        self._loading: str | None = None
        self._wall = wall
        self._stager = Stager(roles)
        self._offer: bytes | None = None
        self._highest = 0
        self._due: int | None = None
        self._before: Bundle | None = None
        self._changed_at = 0.0
        self._provisional = False
        self._clock_refused = False
        self._unjudged: Activation | None = None
        self._subscribed: set[Chunk] = set()
        self._spoiled: set[str] = set()
        self._lock = threading.RLock()

    # -- what there is -----------------------------------------------------------------------

    @property
    def bundle_id(self) -> str | None:
        """Id of the running bundle, or None."""
        return self.active.bundle_id if self.active else None

    @property
    def staged_id(self) -> str | None:
        """Id of the bundle that is ready to run next, or None."""
        staged = self.staged
        return staged.bundle_id if staged else None

    @property
    def version(self) -> int | None:
        """Version of the running bundle, or None."""
        return self.active.manifest.version if self.active else None

    def notes(self) -> dict[str, str]:
        """For the status: what a person should know of trust and bundle."""
        active = self.active
        found = {
            "trust": self._trust.note,
            "bundle": self._trust.warning(active, self._wall()) if active else None,
        }
        return {name: text for name, text in found.items() if text}

    def metrics(self) -> list[Sample]:
        """Which bundles there are; for `/metrics`."""
        active, staged, site = self.active, self.staged, self._site
        found = [Sample("ddnn_bundle_refused", float(self.refused is not None), site=site)]
        if active is not None:
            found.append(Sample("ddnn_bundle_version", active.manifest.version, site=site))
        for state, bundle in (("running", active), ("staged", staged)):
            if bundle is not None:
                labels = (state, bundle.bundle_id[:12], str(bundle.manifest.version))
                found.append(Sample("ddnn_bundle_info", 1, labels, site=site))
        return found

    # -- life --------------------------------------------------------------------------------

    def start(self) -> None:
        """Run the bundle kept on disk, if there is one, and follow the site's topics."""
        self.restore()
        # The record first: retained messages come in the order of subscribing.
        self._client.subscribe(topics.active(self._site), self.on_active)
        self._client.subscribe(topics.manifest(self._site), self.on_manifest)

    def restore(self) -> None:
        """Run the bundle kept on disk, if there is a usable one, and stage the one after it."""
        if not self._store:
            return
        with self._lock:
            try:
                kept = self._store.load(self._roles)
                if kept is not None:
                    self._runner.stage(kept)
                    self._runner.switch(kept, 0)
                    self._runner.begun(kept)
                    self._now_runs(kept)
            except BundleError as error:
                log.warning("the bundle kept on disk is not usable: %s", error)
            try:
                record = self._store.activation()
                self.record = activation.decode(record) if record else None
            except BundleError as error:
                log.warning("the activation record kept on disk is not usable: %s", error)
            staged = self._store.load_staged(self._roles)
            if staged is not None and self.active is not None:
                try:
                    self._trust.admit(seal(staged.payload, staged.signatures), self._wall())
                    self._stage(staged, keep=False)
                except BundleError as error:
                    log.warning("the staged bundle kept on disk is not usable: %s", error)

    def on_time(self) -> None:
        """Make the staged bundle the running one when its slot has come; judge dates again.

        Does not wait: while a bundle is being loaded, it is for the next call.
        """
        if not self._lock.acquire(blocking=False):
            return
        try:
            if self._due is not None and self._slot() >= self._due:
                self._promote()
            if self._before is not None and not self._may_go_back():
                self._before = None
            if self._clock_refused and self._wall() >= EARLIEST_WALL_S:
                self._clock_refused = False
                record, self._unjudged = self._unjudged, None
                if record is not None:
                    self.follow(record)
                self._pursue()
        finally:
            self._lock.release()

    # -- messages ------------------------------------------------------------------------------

    def on_manifest(self, message: Message) -> None:
        """Take a manifest that the publisher offers."""
        self._overheard(message)
        if not message.payload:  # a cleared retained topic: keep running what runs
            return
        with self._lock:
            self._offer = message.payload
            self._look_again_at_spoiled()
            self._pursue()

    def on_active(self, message: Message) -> None:
        """Take the gateway's activation record."""
        self._overheard(message)
        if not message.payload:
            return
        try:
            record = activation.decode(message.payload)
        except BundleError as error:
            log.warning("site %s: %s", self._site, error)
            return
        self.follow(record)

    def decide(self, record: Activation) -> None:
        """Follow a record of this node's own making, once it is on disk.

        Raises:
            BundleError: it cannot be written; nothing changes.
        """
        if self._store:
            self._store.keep_activation(activation.encode(record))
        self.follow(record)

    def follow(self, record: Activation) -> None:
        """Run what `record` says, as soon as it is here."""
        with self._lock:
            try:
                self._check_record(record)
            except ClockError:
                self._unjudged, self._clock_refused = record, True
                return
            except BundleError as error:
                self._say_refused(record.bundle, error)
                return
            if self.record is not None:
                goes_back = record.instead_of is not None and self._goes_back(record)
                if record.version < self.record.version and not goes_back:
                    return  # of a gateway that has forgotten, or an old copy
                if record.bundle == self.record.instead_of:
                    return  # given up
            before, self.record = self.record, record
            self._provisional = self._provisional and record.bundle != self.bundle_id
            moved = before is not None and before.from_slot != record.from_slot
            if moved and self.active and record.bundle == self.bundle_id:
                # A wrong clock had changed it over too early.
                self._runner.switch(self.active, record.from_slot)
            self._switch_if_told()
            self._try_out_if_told()
            self._pursue()

    def _check_record(self, record: Activation) -> None:
        """What a record says of its bundle must be what a trusted key has signed.

        Else one with a version out of this world would make every later one an old one.

        Raises:
            BundleError: it is not.
        """
        if self.active is not None and record.bundle == self.bundle_id:
            version = self.active.manifest.version
        else:
            sealed, manifest = self._trust.believe(record.manifest, self._wall())
            if bundle_id(sealed.payload) != record.bundle:
                raise BundleError("the activation record holds another bundle's manifest")
            version = manifest.version
        if record.version != version:
            raise BundleError(f"the activation record says version {record.version} of {version}")

    def _may_go_back(self) -> bool:
        return 0.0 <= self._wall() - self._changed_at <= GO_BACK_S

    def _goes_back(self, record: Activation) -> bool:
        """Stage the bundle before the last change again, where `record` takes that change back."""
        before = self._before
        if before is None or before.bundle_id != record.bundle or not self._may_go_back():
            return False
        if record.instead_of != self.bundle_id:
            return False
        try:
            self._runner.stage(before)
        except BundleError as error:
            self._say_refused(before.bundle_id, error)
            return False
        self.staged, self._due = before, None
        return True

    def _on_chunk(self, message: Message) -> None:
        sha256, _, number = message.topic.rpartition("/")
        chunk = Chunk(sha256.rpartition("/")[2], int(number))
        with self._lock:
            if self._store and chunk in self._stager.wanted:
                try:
                    self._store.keep_chunk(*chunk, message.payload)
                except BundleError as error:
                    log.warning("%s; it will be fetched again after a restart", error)
            self._take(chunk, message.payload)
            self._follow_chunks()

    # -- collecting ----------------------------------------------------------------------------

    def _pursue(self) -> None:
        """Begin to collect what this node should have next, if that is not under way."""
        for message, is_offer in self._targets():
            try:
                target = bundle_id(unseal(message).payload)
                if target == self.bundle_id:
                    continue
                if target not in (self.staged_id, self._loading, self._stager.collecting):
                    self._collect(message, is_offer=is_offer)
            except BundleError as error:
                self._refuse(message, error)
                continue
            break  # one at a time
        self._follow_chunks()

    def _targets(self) -> list[tuple[bytes, bool]]:
        """Manifest messages to go for, the first one first; whether each is an offer."""
        targets = []
        record = self.record
        if record is not None and record.bundle != self.bundle_id:
            lowest = 0 if self._provisional else self.version or 0
            targets += [(record.manifest, False)] if record.version > lowest else []
        if self._offer is not None:
            targets.append((self._offer, True))
        return targets

    def _collect(self, message: bytes, *, is_offer: bool) -> None:
        sealed, manifest = self._trust.admit(message, self._wall())
        if is_offer:
            if manifest.version < self._highest:
                raise BundleError(
                    f"bundle version {manifest.version} is not newer than version "
                    f"{self._highest}, which was offered before"
                )
            self._highest = manifest.version
        elif self._provisional:
            self._stager.forget_running()
        complete = self._stager.offer_manifest(*sealed)
        if self._store:
            self._store.forget_chunks({chunk.sha256 for chunk in self._stager.wanted})
        if complete is not None:
            self._load(complete)
            return
        for chunk in self._stager.wanted if self._store else ():
            kept = self._store.chunk(*chunk) if self._store else None
            if kept is not None:
                self._take(chunk, kept)

    def _take(self, chunk: Chunk, data: bytes) -> None:
        try:
            complete = self._stager.offer_chunk(chunk, data)
        except BundleError as error:
            self._spoiled.add(chunk.sha256)
            if self._store:
                self._store.forget_chunks({c.sha256 for c in self._stager.wanted} - {chunk.sha256})
            self._say_refused(self._stager.collecting, error)
            return
        if complete is not None:
            self._load(complete)

    def _follow_chunks(self) -> None:
        """Subscribe to what is missing and to nothing else."""
        wanted = set(self._stager.wanted)
        for chunk in self._subscribed - wanted:
            self._client.unsubscribe(topics.section(self._site, *chunk))
        for chunk in sorted(wanted - self._subscribed):
            topic = topics.section(self._site, *chunk)
            # What is retained of a spoiled section is known to be wrong; to be sent it again and
            # again would be endless. Only what is published from now on can help.
            retained = chunk.sha256 not in self._spoiled
            self._client.subscribe(topic, self._on_chunk, retained=retained)
        self._subscribed = wanted

    def _look_again_at_spoiled(self) -> None:
        """The manifest was sent (again): its sections may have been, too."""
        for chunk in [chunk for chunk in self._subscribed if chunk.sha256 in self._spoiled]:
            self._client.unsubscribe(topics.section(self._site, *chunk))
            self._subscribed.remove(chunk)
        self._spoiled.clear()

    # -- running -------------------------------------------------------------------------------

    def _load(self, bundle: Bundle) -> None:
        """Stage a complete bundle when there is time."""

        def load() -> None:
            with self._lock:
                if self._loading == bundle.bundle_id:  # else another one is wanted by now
                    self._loading = None
                    self._stage(bundle, keep=True)

        self._loading = bundle.bundle_id
        self._later(load)

    def _stage(self, bundle: Bundle, *, keep: bool) -> None:
        try:
            self._runner.stage(bundle)
        except BundleError as error:
            self._say_refused(bundle.bundle_id, error)
            return
        self.staged, self._due = bundle, None
        self.refused = self.refused_id = None
        version = bundle.manifest.version
        log.info("staged bundle %s version %d", describe(bundle.payload), version)
        if keep and self._store:
            try:
                self._store.stage(bundle)
            except BundleError as error:
                log.warning("%s; it will be fetched again after a restart", error)
        if self.active is None and self.record is None:
            self._runner.switch(bundle, 0)
            self._promote()
            self._provisional = True
            return
        self._switch_if_told()
        self._try_out_if_told()
        self._changed()

    def _try_out_if_told(self) -> None:
        shadow = self.record.shadow if self.record else None
        if shadow is not None and shadow.bundle == self.staged_id:
            self._runner.try_out(self.staged, shadow.every)
        else:
            self._runner.try_out(None, 0)

    def _switch_if_told(self) -> None:
        staged, record = self.staged, self.record
        if staged is None or record is None or record.bundle != staged.bundle_id:
            return
        if self._due == record.from_slot:
            return
        try:  # again: it may have expired, or its key been revoked, since it was staged
            self._trust.admit(seal(staged.payload, staged.signatures), self._wall())
        except BundleError as error:
            self._say_refused(staged.bundle_id, error)
            return
        self._runner.switch(staged, record.from_slot)
        self._due = record.from_slot
        log.info("bundle %s runs from slot %d on", describe(staged.payload), record.from_slot)
        if self._period_s is None or self.active is None or self._slot() >= self._due:
            self._promote()

    def _promote(self) -> None:
        bundle = self.staged
        assert bundle is not None
        self.staged = self._due = None
        self._runner.begun(bundle)
        self._before, self._changed_at = self.active, self._wall()
        self._now_runs(bundle)
        self._later(lambda: self._keep(bundle))
        self._pursue()
        self._changed()

    def _keep(self, bundle: Bundle) -> None:
        """Make `bundle` the one that this node starts with."""
        if self._store:
            try:
                self._store.promote(bundle)
            except BundleError as error:
                log.warning("%s; it will be fetched again after a restart", error)

    def _now_runs(self, bundle: Bundle) -> None:
        self.active, self._provisional = bundle, False
        self._stager.activated(bundle)
        log.info("running bundle %s version %d", describe(bundle.payload), bundle.manifest.version)

    def _slot(self) -> int:
        assert self._period_s is not None
        return int(self._wall() / self._period_s)

    # -- refusing ------------------------------------------------------------------------------

    def _refuse(self, message: bytes, error: BundleError) -> None:
        self._clock_refused = self._clock_refused or isinstance(error, ClockError)
        try:
            self._say_refused(bundle_id(unseal(message).payload), error)
        except BundleError:
            self._say_refused(None, error)

    def _say_refused(self, refused_id: str | None, error: BundleError) -> None:
        if (self.refused, self.refused_id) == (str(error), refused_id):
            return  # said already: a status for each repetition would be somebody's lever
        self.refused, self.refused_id = str(error), refused_id
        log.warning("bundle %s refused: %s", (refused_id or "unknown")[:12], error)
        self._changed()
