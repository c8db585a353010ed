"""`ddnn top`: the same picture as the dashboard's, in a terminal.

It needs no dashboard and no database, only the broker: it listens, and changes nothing.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterable
from typing import Annotated, ClassVar

import click
import msgspec
from rich.text import Text
from textual.app import App, ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import VerticalScroll
from textual.widgets import DataTable, Footer, Static

from cloud_service.overview import Overview
from cloud_service.views import Link, NodeView, SiteView
from cloud_service.words import (
    answer,
    clock,
    duration,
    how,
    name_of,
    share,
    shorten,
    size,
    troubles,
    tuning_words,
)
from ddnn import config, topics
from ddnn.cli import set_up_logging
from ddnn.config import NodeSettings
from ddnn.errors import DdnnError
from ddnn.mqtt import Client, Message

EVERY_S = 0.5
CONNECT_S = 5.0
#: With --once: what is retained has come when nothing has for so long, or after the second time.
QUIET_S = 0.5
LISTEN_S = 3.0
#: A decision shows more than what is retained: it is waited for a little.
DECISION_S = 1.5
ROWS = 10


class TopSettings(NodeSettings, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Settings of `ddnn top`."""

    site: Annotated[
        str, msgspec.Meta(description="Site to show; empty: every site that may be read.")
    ] = ""

    def __post_init__(self) -> None:
        if self.site:
            topics.check_name(self.site)


class Ear:
    """Hears the broker for an overview."""

    def __init__(self, settings: TopSettings, overview: Overview) -> None:
        self.heard = 0
        self._overview = overview
        self._client = Client(
            settings.broker,
            settings.port,
            # Several people may look at once.
            f"ddnn-top-{os.getpid()}",
            keepalive_s=settings.keepalive_s,
            on_up=lambda: overview.linked(True),
            on_down=lambda: overview.linked(False, "the connection was lost"),
            tls=settings.tls,
        )
        wanted = settings.site or "+"
        filters = Overview.filters(scores=False, site=wanted)
        for topic_filter in (*filters, topics.decision(wanted)):
            self._client.subscribe(topic_filter, self._on_message)

    def _on_message(self, message: Message) -> None:
        self.heard += 1
        self._overview.hear(message.topic, message.payload, message.retain, time.time())

    def start(self) -> None:
        """Connect in the background."""
        self._client.start()

    def wait(self) -> None:
        """Wait for a connection.

        Raises:
            DdnnError: there was none in time.
        """
        self._client.wait_connected(CONNECT_S)

    def look(self) -> None:
        """Tell the overview why there is no connection, if there is none."""
        if not self._client.connected.is_set():
            self._overview.linked(False, self._client.trouble.describe())

    def stop(self) -> None:
        """Hang up."""
        self._client.stop()


# -- lines: a snapshot is all of them, the terminal's parts are some -------------------------------


def head_lines(view: SiteView) -> list[str]:
    """The last decision and the main numbers."""
    recent, bundle = view.recent, view.bundle
    runs = "no bundle" if bundle is None else f"{bundle.name} version {bundle.version}"
    rate = "–" if recent.per_s is None else f"{recent.per_s:.1f}/s"
    left = ", ".join(
        f"{name} {share(n / recent.decided)}"
        for name, n in sorted(recent.exits.items(), key=lambda pair: -pair[1])
    )
    sent = "" if recent.payload_bytes is None else f"   {size(recent.payload_bytes)}/frame"
    if bundle and recent.payload_bytes:
        sent += f" ({bundle.raw_bytes / recent.payload_bytes:.0f}x less than raw views)"
    p50, p99 = recent.latency_ms_p50, recent.latency_ms_p99
    latency = "" if p50 is None else f"   latency p50 {p50:.0f} ms, p99 {p99 or p50:.0f} ms"
    return [
        f"site {view.site}   bundle {runs}",
        f"{answer(view.latest)}   {how(view.latest)}",
        f"{rate}   {left}{sent}{latency}",
        f"cameras {_cameras(view)}   settings: {_settings(view)}",
    ]


def trouble_lines(view: SiteView) -> list[str]:
    """What is wrong, most urgent first."""
    found = [f"! {each.where}: {each.text}" for each in troubles(view)]
    return found or ["all is well"]


def node_rows(view: SiteView) -> list[tuple[str, str, str, str]]:
    """Node, whether it is there, how far it is with the bundle, and since when it was heard."""
    steps = {step.node: step.progress for step in view.rollout.nodes} if view.rollout else {}
    return [
        (
            name_of(node),
            _there(node),
            steps.get(node.node, ""),
            "" if node.age_s is None else f"{duration(node.age_s)} ago",
        )
        for node in view.nodes
    ]


def decision_rows(view: SiteView, count: int = ROWS) -> list[tuple[str, str, str, str, str]]:
    """The last decisions, newest first."""
    rows = []
    for seen in view.decisions[:count]:
        decision = seen.decision
        total = len(decision.used) + len(decision.absent) + len(decision.missing)
        latency = "" if seen.latency_ms is None else f"{seen.latency_ms:.0f} ms"
        used = f"{len(decision.used)} of {total} {decision.members}"
        exit_ = f"{decision.exit or '–'}{f' ({decision.degraded})' if decision.degraded else ''}"
        rows.append((clock(decision.time_s), shorten(answer(seen)), shorten(exit_), used, latency))
    return rows


def snapshot(overview: Overview, wanted: str = "") -> list[str]:
    """Everything as plain lines."""
    views = [overview.site(name) for name in overview.sites() if wanted in ("", name)]
    lines: list[str] = []
    for view in views:
        if view is None:
            continue
        lines += [*head_lines(view), *trouble_lines(view), ""]
        lines += _columns([("NODE", "STATE", "BUNDLE", "HEARD"), *node_rows(view)])
        if rollout := view.rollout:
            lines += ["", f"roll-out of version {rollout.version}: {rollout.stage}"]
        if view.decisions:
            lines += ["", *_columns(decision_rows(view))]
        lines.append("")
    return lines or ["no site has been heard of"]


def _columns(rows: Iterable[tuple[str, ...]]) -> list[str]:
    rows = list(rows)
    widths = [max(len(cell) for cell in column) for column in zip(*rows, strict=True)]
    return [
        "  ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)).rstrip() for row in rows
    ]


def _cameras(view: SiteView) -> str:
    alive = sum(node.alive for node in view.cameras)
    gone = ", ".join(map(str, view.missing.cameras))
    promised = view.missing.promised
    accuracy = f", accuracy {share(promised.overall)}" if promised else ""
    return f"{alive} of {len(view.cameras)}{f', missing {gone}' if gone else ''}{accuracy}"


def _settings(view: SiteView) -> str:
    state = view.settings.state
    words = tuning_words(view.settings.asked)
    return words if state == "default" else f"{words} ({state})"


def _there(node: NodeView) -> str:
    return "there" if node.alive else node.why or "offline"


def _link_line(link: Link) -> str:
    return "live" if link.up else f"NO CONNECTION TO THE BROKER: {link.why or ''}"


# -- in a terminal ---------------------------------------------------------------------------------


class Top(App[None]):
    """One site at a time; keys change it.

    Args:
        overview: what is shown.
        ear: hears for it; None: somebody else does.
    """

    TITLE = "ddnn top"
    CSS = """
    #link { height: 1; color: $text-muted; }
    #head { height: 4; }
    #troubles { height: auto; max-height: 8; margin: 1 0; }
    DataTable { height: auto; max-height: 16; margin-bottom: 1; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("q", "quit", "Quit"),
        Binding("n", "next_site(1)", "Next site"),
        Binding("p", "next_site(-1)", "Previous site"),
        Binding("space", "pause", "Pause"),
    ]

    def __init__(self, overview: Overview, ear: Ear | None = None, site: str = "") -> None:
        super().__init__()
        self._overview, self._ear = overview, ear
        self._site = site
        self._paused = False

    def compose(self) -> ComposeResult:
        """The screen's parts, from above."""
        yield Static(id="link", markup=False)
        with VerticalScroll():
            yield Static(id="head", markup=False)
            yield Static(id="troubles", markup=False)
            yield DataTable(id="nodes", cursor_type="none", zebra_stripes=True)
            yield DataTable(id="decisions", cursor_type="none")
        yield Footer()

    def on_mount(self) -> None:
        """Begin to show."""
        self.query_one("#nodes", DataTable).add_columns("Node", "State", "Bundle", "Heard")
        titles = ("Time", "Answer", "Exit", "Used", "Latency")
        self.query_one("#decisions", DataTable).add_columns(*titles)
        self.renew()
        self.set_interval(EVERY_S, self.renew)

    def action_next_site(self, step: int) -> None:
        """Show another site."""
        sites = self._overview.sites()
        if sites:
            at = sites.index(self._site) if self._site in sites else -step
            self._site = sites[(at + step) % len(sites)]
            self.renew()

    def action_pause(self) -> None:
        """Let the picture stand still, or go on."""
        self._paused = not self._paused
        self.renew()

    def renew(self) -> None:
        """Show what is known now."""
        if self._ear is not None:
            self._ear.look()
        sites = self._overview.sites()
        if not self._site and sites:
            self._site = sites[0]
        where = f"site {sites.index(self._site) + 1} of {len(sites)}" if self._site in sites else ""
        still = "   paused" if self._paused else ""
        line = f"{_link_line(self._overview.link)}   {where}{still}"
        self.query_one("#link", Static).update(line)
        view = self._overview.site(self._site) if self._site else None
        if view is None:
            name = f" {self._site}" if self._site else ""
            self.query_one("#head", Static).update(f"Nothing has been heard of a site{name} yet.")
            return
        if self._paused:
            return
        self.query_one("#head", Static).update("\n".join(head_lines(view)))
        self.query_one("#troubles", Static).update("\n".join(trouble_lines(view)))
        self._fill("#nodes", node_rows(view))
        self._fill("#decisions", decision_rows(view))

    def _fill(self, which: str, rows: Iterable[tuple[str, ...]]) -> None:
        """Cells are texts of others: shown as they are, never as markup."""
        table = self.query_one(which, DataTable)
        table.clear()
        for row in rows:
            table.add_row(*(Text(cell) for cell in row))


@click.command()
@click.option("--once", is_flag=True, help="Print what there is and end.")
@config.options(TopSettings)
def top(settings: TopSettings, once: bool) -> None:
    """Watch sites in a terminal: cameras, decisions, roll-outs and what is wrong.

    Without a terminal (in a pipe) it prints what there is and ends, as with --once.
    """
    plain = once or not sys.stdout.isatty()
    # A terminal that is drawn on is no place for lines: it shows itself why nothing comes.
    set_up_logging(settings.log_level if plain else "critical")
    overview = Overview()
    ear = Ear(settings, overview)
    ear.start()
    try:
        if plain:
            ear.wait()
            _listen(ear, overview)
            click.echo("\n".join(snapshot(overview, settings.site)))
        else:
            Top(overview, ear, settings.site).run()
    finally:
        ear.stop()


def _listen(ear: Ear, overview: Overview) -> None:
    """Until what is retained has come, and a decision where one comes soon.

    Raises:
        DdnnError: nothing has come at all.
    """
    began = time.monotonic()
    heard, since = -1, began
    while (now := time.monotonic()) - began < LISTEN_S:
        if ear.heard != heard:
            heard, since = ear.heard, now
        decided = any(brief.idle_s is not None for brief in overview.briefs())
        if heard and now - since >= QUIET_S and (decided or now - began >= DECISION_S):
            break
        if heard and decided and now - began >= DECISION_S:
            break
        time.sleep(0.05)
    if not ear.heard:
        raise DdnnError("the broker has nothing to say of any site: is a gateway running there?")
