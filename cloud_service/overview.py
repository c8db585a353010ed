"""The picture of all sites for several threads: a lock and a clock around `Picture`."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from cloud_service.picture import Picture
from cloud_service.views import Brief, Link, SiteView
from ddnn.decisions import PublishedDecision


class Overview:
    """What is known of all sites. Every method may be called from any thread.

    Args:
        clock: seconds since 1970.
    """

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self._lock = threading.Lock()
        self._clock = clock
        self._picture = Picture()
        self._link = Link(up=False)

    @staticmethod
    def filters(*, scores: bool = True, site: str = "+") -> tuple[str, ...]:
        """What to subscribe to, beside the decisions; see `Picture.filters`."""
        return Picture.filters(scores=scores, site=site)

    def hear(self, topic: str, payload: bytes, retained: bool, now_s: float) -> None:
        """Take a message. A malformed one is counted and never raises."""
        with self._lock:
            self._picture.hear(topic, payload, retained, now_s)

    def decided(self, decision: PublishedDecision, now_s: float) -> None:
        """Take a decision that is decoded already; a repeat changes nothing."""
        with self._lock:
            self._picture.decided(decision, now_s)

    def linked(self, up: bool, why: str | None = None) -> None:
        """Say whether there is a connection to the broker, and if not, why.

        Without one nodes grow old: nothing that is shown pretends to be fresh.
        """
        with self._lock:
            if up != self._link.up or self._link.since_s is None:
                self._link = Link(up, why, self._clock())
            elif why != self._link.why:
                self._link = Link(up, why, self._link.since_s)

    @property
    def link(self) -> Link:
        """The connection to the broker."""
        return self._link

    def sites(self) -> tuple[str, ...]:
        """Names of all sites, ascending."""
        with self._lock:
            return self._picture.sites()

    def site(self, name: str) -> SiteView | None:
        """A site as it is now; None: nothing was heard of it."""
        with self._lock:
            return self._picture.site(name, self._clock())

    def revision(self, name: str) -> int:
        """Another one whenever something of the site was heard; 0: nothing was."""
        with self._lock:
            return self._picture.revision(name)

    def briefs(self) -> tuple[Brief, ...]:
        """Every site in one line."""
        with self._lock:
            return self._picture.briefs(self._clock())

    def counts(self) -> dict[str, int]:
        """Messages that were not used, by reason."""
        with self._lock:
            return dict(self._picture.counts)
