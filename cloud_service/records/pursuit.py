"""Asking gateways again for decisions that may have been missed; see `recall` in the protocol.

Pure. A gateway has its last 1024 decisions and publishes at most 256 for one request, one request
each half second, without a word where it refuses; nothing marks the end of an answer. So we ask
from a slot that is here already: its repeat tells that the request was answered, and fewer than
256 that this was all. A broker that never lost anything costs a few hundred repeats after a
reconnect.

When to ask: after each connect and after a gateway's start, as soon as its status says that it is
there; and when its ledger counts decisions that do not come. Few sites at a time, since all their
answers go through one queue at the broker.
"""

from __future__ import annotations

from typing import NamedTuple

#: Decisions that a gateway publishes for one request.
ANSWER_SIZE = 256
#: How long an answer may take; doubled with each attempt.
WAIT_S = 2.0
ATTEMPTS = 4
#: Decisions that a ledger counts may be on their way for so long.
LOST_AFTER_S = 5.0
#: Sites that are asked at the same time.
MAX_AT_ONCE = 8
MAX_SITES = 10_000


class Ask(NamedTuple):
    """Publish a request for everything from this slot on."""

    site: str
    from_slot: int


class _Site:
    """What is known of one site."""

    def __init__(self) -> None:
        self.life: tuple[int, float | None] | None = None
        self.online = False
        self.is_wanted = False
        self.from_slot = 0
        self.newest = 0
        self.asked_at: float | None = None
        self.attempt = 0
        self.heard: set[int] = set()
        self.lost = 0
        self.lost_since: float | None = None
        self.lost_when_asked = 0
        self.given_up = 0


class Pursuit:
    """All sites.

    Attributes:
        unanswered: sites whose gateway has not answered the last request.
    """

    def __init__(self) -> None:
        self.unanswered: set[str] = set()
        self._sites: dict[str, _Site] = {}

    def connected(self) -> None:
        """A new connection: whatever was asked on the old one is void."""
        for site in self._sites.values():
            site.asked_at, site.life, site.online = None, None, False

    def gateway(self, name: str, life: tuple[int, float | None], *, online: bool) -> None:
        """A site's gateway has said how it is; `life` tells one start of it from the next."""
        site = self._site(name)
        if site is None:
            return
        if online and not (site.online and site.life == life):
            site.is_wanted = True
        site.life, site.online = life, online

    def lost(self, name: str, count: int, now: float) -> None:
        """A site's ledger counts so many decisions more than have come."""
        site = self._site(name)
        if site is None:
            return
        site.lost = count
        site.given_up = min(site.given_up, count)
        if count <= site.given_up:
            site.lost_since = None
        elif site.lost_since is None:
            site.lost_since = now
        elif now - site.lost_since >= LOST_AFTER_S and site.online:
            site.is_wanted = True

    def next_site(self) -> str | None:
        """A site that is to be asked: `begin` follows, with what the database says of it."""
        if sum(site.asked_at is not None for site in self._sites.values()) >= MAX_AT_ONCE:
            return None
        for name, site in self._sites.items():
            if site.is_wanted and site.online and site.asked_at is None:
                return name
        return None

    def begin(self, name: str, anchor: int | None, newest: int | None, now: float) -> Ask:
        """Ask a site.

        Args:
            anchor: a slot that is here, from which on some may be missing; None: nothing is here.
            newest: the greatest slot that is here.
        """
        site = self._sites[name]
        site.is_wanted, site.attempt = False, 0
        site.lost_when_asked = site.lost
        site.from_slot, site.newest = anchor or 0, 2**63 if newest is None else newest
        return self._ask(name, site, now)

    def stored(self, name: str, slot: int) -> None:
        """A decision has come, new or not."""
        site = self._sites.get(name)
        if site is None or site.asked_at is None or slot < site.from_slot:
            return
        site.heard.add(slot)
        if len(site.heard) > 8 * ANSWER_SIZE:  # of a site that decides faster than it answers
            site.heard.remove(max(site.heard))

    def on_time(self, now: float) -> list[Ask]:
        """Go on with, or repeat, or end what was asked."""
        asks = []
        for name, site in self._sites.items():
            if site.asked_at is None or now < site.asked_at + WAIT_S * 2**site.attempt:
                continue
            covered = sorted(site.heard)[:ANSWER_SIZE]
            if not covered or covered[0] > site.newest:
                site.attempt += 1
                if site.attempt < ATTEMPTS:
                    asks.append(self._ask(name, site, now))
                else:
                    self._end(name, site, answered=False)
            elif len(covered) == ANSWER_SIZE and covered[-1] > site.from_slot:
                site.attempt, site.from_slot = 0, covered[-1]
                site.newest = max(site.newest, site.from_slot)
                asks.append(self._ask(name, site, now))
            else:
                self._end(name, site, answered=True)
        return asks

    def _ask(self, name: str, site: _Site, now: float) -> Ask:
        site.asked_at = now
        site.heard = set()
        return Ask(name, site.from_slot)

    def _end(self, name: str, site: _Site, *, answered: bool) -> None:
        site.asked_at = None
        if answered:
            self.unanswered.discard(name)
            # What was missing before it was asked for and has not come, the gateway no longer
            # has; what went missing since then is asked for next.
            site.given_up, site.lost_since = min(site.lost_when_asked, site.lost), None
        else:
            self.unanswered.add(name)

    def _site(self, name: str) -> _Site | None:
        site = self._sites.get(name)
        if site is None and len(self._sites) < MAX_SITES:
            site = self._sites[name] = _Site()
        return site
