"""What a site did over time, from the records: exits, traffic, latency."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from typing import NamedTuple, Protocol

from nicegui import run, ui

from cloud_service.pages import charts
from cloud_service.pages.look import Box, Card, Field, Text
from cloud_service.pages.now import put
from cloud_service.records.counting import Bucket
from cloud_service.views import SiteView
from cloud_service.words import share, shorten, size
from ddnn.errors import DdnnError

#: Asked of the database again at the earliest, for all readers together.
FRESH_S = 5.0
MAX_CACHED = 200


class History(Protocol):
    """What the pages need of `cloud_service.records.Records`."""

    def buckets(self, site: str, from_s: float, to_s: float, bucket_s: int) -> list[Bucket]:
        """What was decided over time."""
        ...


class Span(NamedTuple):
    """A time to look back over, in buckets of this length, seconds."""

    name: str
    length_s: int
    bucket_s: int


SPANS = (
    Span("15 minutes", 900, 10),
    Span("2 hours", 7200, 60),
    Span("1 day", 86_400, 900),
    Span("1 week", 604_800, 7200),
    Span("1 month", 2_592_000, 21_600),
)


class Shared:
    """The database's answers, kept for a moment: many readers cost as much as one."""

    def __init__(self, records: History | None) -> None:
        self._records = records
        self._kept: dict[tuple[str, Span], tuple[float, asyncio.Task[list[Bucket] | str]]] = {}

    async def buckets(self, site: str, span: Span) -> list[Bucket] | str:
        """Buckets of the last `span`, or why there are none."""
        if self._records is None:
            return "This dashboard keeps no records: start it with a database."
        now = time.monotonic()
        kept = self._kept.get((site, span))
        if kept is None or (now - kept[0] >= FRESH_S and kept[1].done()):
            if len(self._kept) >= MAX_CACHED:
                self._kept.clear()
            # Who comes while it is asked waits for the same answer.
            kept = self._kept[site, span] = (now, asyncio.create_task(self._ask(site, span)))
        # One reader who goes away does not take the answer from the others.
        return await asyncio.shield(kept[1])

    async def _ask(self, site: str, span: Span) -> list[Bucket] | str:
        assert self._records is not None
        to_s = time.time()
        try:
            found = await run.io_bound(
                self._records.buckets, site, to_s - span.length_s, to_s, span.bucket_s
            )
        except DdnnError as error:
            return f"The records cannot be read: {shorten(str(error))}"
        return found or []  # None while the process ends


class HistoryPanel:
    """Three charts over a span that the reader chooses."""

    def __init__(self, site: str, shared: Shared) -> None:
        self._site, self._shared = site, shared
        self._span = SPANS[0]
        self._view: SiteView | None = None
        with Card("history", "Over time", "wide"):
            with Box("div", "row spread"):
                self._said = Text("p", "", "soft small")
                with Box("div", "row"):
                    label = Text("label", "Last")
                    choice = Field("select", self._chosen)
                    choice.name_it(label)
                    with choice:
                        for number, span in enumerate(SPANS):
                            Text("option", span.name, value=str(number))
            self._charts = Box("div", "charts")
            with self._charts:
                self._exits = self._chart("Where decisions left, percent")
                self._traffic = self._chart("Bytes per frame, all cameras together")
                self._latency = self._chart("Latency, ms, first summary to decision")

    @staticmethod
    def _chart(title: str) -> ui.echart:
        with Box("div"):
            Text("h3", title)
            return ui.echart({}, renderer="svg").classes("chart")

    async def _chosen(self, value: str) -> None:
        if value.isdecimal() and int(value) < len(SPANS):
            self._span = SPANS[int(value)]
        if self._view is not None:
            await self.update(self._view)

    async def update(self, view: SiteView) -> None:
        """Show the span up to now."""
        self._view = view
        found = await self._shared.buckets(self._site, self._span)
        there = not isinstance(found, str) and any(b.decided or b.degraded for b in found)
        self._charts.set_visibility(there)
        if isinstance(found, str):
            self._said.show(found)
            return
        raw = view.bundle.raw_bytes if view.bundle else 0
        self._said.show(_summary(found, raw) if there else "No decision in this time.")
        if there:
            names = view.bundle.exits if view.bundle else ("local", "edge", "cloud")
            put(self._exits, charts.exits(found, names))
            put(self._traffic, charts.traffic(found, raw))
            put(self._latency, charts.latency(found))


def _summary(buckets: Sequence[Bucket], raw_bytes: int) -> str:
    """The whole span in one sentence, for those who do not read charts."""
    count = sum(b.decided + b.degraded for b in buckets)
    sent = sum(b.payload_bytes for b in buckets)
    by_exit: dict[str, int] = {}
    for bucket in buckets:
        for name, n in bucket.by_exit.items():
            by_exit[name] = by_exit.get(name, 0) + n
    left = ", ".join(
        f"{charts.EXIT_NAMES.get(name, name)} {share(n / count)}"
        for name, n in sorted(by_exit.items(), key=lambda pair: -pair[1])
    )
    saved = f"; {size(raw_bytes * count - sent)} less than raw views" if raw_bytes else ""
    return f"{count} decisions: {left}. Cameras sent {size(sent)}{saved}."
