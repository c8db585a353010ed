"""`ddnn dashboard`: the pages, the HTTP API and the database of decisions, in one process.

One message's way: the *watching* client hears what is for people to see (statuses, ledgers, scores,
decisions) and hands it to the `Overview`, from which the pages are made; the *recording* client
hears the decisions once more, and acknowledges each one when it is in the database. Two
connections, so that a database that is away stops no page, and a page's right to change settings
is not the recorder's.

One request's way: TLS, `guard.asgi.Guard` (whose request is it, and may it?), then the API's routes
or NiceGUI's pages. The web server has the main thread; it starts whether or not broker and database
are there, and `/readyz` says which is not.

At SIGTERM the web server stops taking requests and ends those that are under way; then the batch in
hand is stored. What was not acknowledged the broker keeps.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Annotated

import msgspec
import uvicorn
from fastapi import FastAPI, Request
from nicegui import context, ui
from starlette.middleware.gzip import GZipMiddleware
from starlette.types import ASGIApp

from cloud_service import api
from cloud_service.guard import login
from cloud_service.guard.asgi import VISITOR, Guard
from cloud_service.guard.door import Door
from cloud_service.guard.users import UsersFile
from cloud_service.overview import Overview
from cloud_service.pages import RUN_OPTIONS, add_pages
from cloud_service.records.consumer import Consumer
from cloud_service.records.consumer import session as records_session
from cloud_service.records.retention import Keeper, Rules
from cloud_service.records.store import Records
from ddnn import access, metrics, topics
from ddnn.access import CLOUD
from ddnn.config import NodeSettings
from ddnn.errors import ConfigError, DdnnError
from ddnn.loopback import is_loopback
from ddnn.message import Message, Publish
from ddnn.metrics import Sample
from ddnn.metrics_settings import (
    MetricsCa,
    MetricsCert,
    MetricsHost,
    MetricsKey,
    MetricsPort,
    MetricsToken,
    open_metrics,
)
from ddnn.mqtt import Client
from ddnn.notify import Notifier
from ddnn.tls import TlsFiles

log = logging.getLogger(__name__)

#: How often the process looks whether it is to stop, whether it has connections, and says that it
#: is alive.
LOOK_EVERY_S = 0.2
#: Requests under way get so long at the end.
GRACE_S = 5
#: Of one browser's message; a page's events are far shorter.
MAX_SOCKET_MESSAGE = 1_000_000
MAX_CONCURRENT = 1000
LOOPBACK_NAMES = ("localhost", "127.0.0.1", "::1")


class DashboardSettings(NodeSettings, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Settings of `ddnn dashboard`."""

    node: Annotated[
        str,
        msgspec.Meta(
            description="Name of this dashboard at its broker, one of its own for each. With a "
            "certificate the broker goes by that one's name."
        ),
    ] = access.SHOWING
    records_cert: Annotated[
        str,
        msgspec.Meta(
            description="Certificate of the connection that records decisions (PEM); with tls_cert "
            "it needs one of its own.",
            extra={"file": True},
        ),
    ] = ""
    records_key: Annotated[
        str, msgspec.Meta(description="Its private key (PEM).", extra={"file": True})
    ] = ""
    database: Annotated[
        str,
        msgspec.Meta(
            description="Database of decisions: a file's name for SQLite, or postgresql://..."
        ),
    ] = "decisions.db"
    keep_days: Annotated[
        float, msgspec.Meta(ge=0.01, le=36_500, description="How long every decision is kept.")
    ] = 30.0
    keep_hours_days: Annotated[
        float,
        msgspec.Meta(ge=0.1, le=36_500, description="How long the counts of each hour are kept."),
    ] = 3650.0
    database_mb: Annotated[
        int,
        msgspec.Meta(
            ge=0, le=10**7, description="SQLite's file does not grow beyond; 0: no bound, MB."
        ),
    ] = 0
    scores: Annotated[
        bool,
        msgspec.Meta(
            description="Show each camera's scores: all summaries of all sites come here, too."
        ),
    ] = True
    host: Annotated[
        str,
        msgspec.Meta(
            description="Address of the web server; one that others can reach needs users, and "
            "web_cert or behind_proxy."
        ),
    ] = "127.0.0.1"
    http_port: Annotated[
        int, msgspec.Meta(ge=1, le=65535, description="Port of the web server.")
    ] = 8080
    names: Annotated[
        tuple[str, ...],
        msgspec.Meta(
            description="Host names and addresses by which browsers call it, beside this "
            "machine's own; requests for others are refused."
        ),
    ] = ()
    users: Annotated[
        str,
        msgspec.Meta(
            description="File of users and tokens (ddnn dashboard user add); empty: everybody on "
            "this machine is an operator.",
            extra={"file": True},
        ),
    ] = ""
    session_hours: Annotated[
        float, msgspec.Meta(ge=0.1, le=8760, description="After so long one must log in again.")
    ] = 12.0
    web_cert: Annotated[
        str,
        msgspec.Meta(
            description="Certificate of the web server, with its chain (PEM), for TLS.",
            extra={"file": True},
        ),
    ] = ""
    web_key: Annotated[
        str, msgspec.Meta(description="Its private key (PEM).", extra={"file": True})
    ] = ""
    behind_proxy: Annotated[
        str,
        msgspec.Meta(
            description="Address of a proxy that speaks TLS with browsers and is believed "
            "(X-Forwarded-For, X-Forwarded-Proto); empty: none."
        ),
    ] = ""
    metrics_port: MetricsPort = 0
    metrics_host: MetricsHost = "127.0.0.1"
    metrics_cert: MetricsCert = ""
    metrics_key: MetricsKey = ""
    metrics_ca: MetricsCa = ""
    metrics_token: MetricsToken = ""

    def __post_init__(self) -> None:
        topics.check_name(self.node, "node")

    @property
    def records_tls(self) -> TlsFiles | None:
        """Files of the recording connection; a broker knows a node by its certificate, and lets
        nobody in twice at once.

        Raises:
            ConfigError: they are not complete.
        """
        if self.tls_cert and not self.records_cert:
            raise ConfigError(
                "records_cert and records_key are missing: the connection that records decisions "
                "needs a certificate of its own (ddnn site build makes both)"
            )
        return TlsFiles.of(self.tls_ca, self.records_cert, self.records_key)

    @property
    def has_tls(self) -> bool:
        """Whether browsers come by TLS, here or at the proxy."""
        return bool(self.web_cert or self.behind_proxy)


def check_exposure(settings: DashboardSettings) -> None:
    """Refuse settings that would let strangers in, or passwords be overheard.

    Raises:
        ConfigError: what is missing.
    """
    if bool(settings.web_cert) != bool(settings.web_key):
        raise ConfigError("web_cert and web_key belong together: give both or none")
    if settings.web_cert and settings.behind_proxy:
        raise ConfigError("web_cert and behind_proxy exclude each other: who speaks TLS?")
    if is_loopback(settings.host) and not settings.behind_proxy:
        return
    where = (
        f"host {settings.host} can be reached by others"
        if not settings.behind_proxy
        else "behind a proxy others can reach this"
    )
    if not settings.users:
        raise ConfigError(
            f"{where}: set up users first (ddnn dashboard user add NAME --users FILE, and the "
            "setting users)"
        )
    if not settings.has_tls:
        raise ConfigError(
            f"{where}: give web_cert and web_key (TLS), or say which proxy in front of it speaks "
            "TLS (behind_proxy)"
        )
    if not settings.names:
        raise ConfigError(
            f"{where}: say by which names browsers call it, for example "
            'names = ["ddnn.example.org"]'
        )


class Dashboard:
    """Runs until `stop` is set.

    Args:
        settings: of the process.
        stop: ends it.

    Raises:
        ConfigError: the settings would let strangers in, or a file cannot be used.
    """

    def __init__(self, settings: DashboardSettings, stop: threading.Event) -> None:
        check_exposure(settings)
        self._settings = settings
        self._stop = stop
        self._notifier = Notifier()
        users = UsersFile(Path(settings.users)) if settings.users else None
        self.door = Door(users, tls=settings.has_tls, life_s=settings.session_hours * 3600.0)
        self.overview = Overview()
        limit = settings.database_mb * 1_000_000 or None
        self.records = Records(settings.database, max_bytes=limit)
        where = settings.broker, settings.port
        recording_tls = settings.records_tls
        self._watching = Client(
            *where, settings.node, keepalive_s=settings.keepalive_s, tls=settings.tls,
            on_up=lambda: self.overview.linked(True),
        )  # fmt: skip
        self._recording = Client(
            *where, f"{settings.node}-records", keepalive_s=settings.keepalive_s, tls=recording_tls,
            session=records_session(),
        )  # fmt: skip
        self._server: uvicorn.Server | None = None
        self._consumer = Consumer(self.records, self._recording)
        kept = Rules(keep_days=settings.keep_days, keep_hours_days=settings.keep_hours_days)
        self._keeper = Keeper(self.records, kept)
        self.guard = Guard(self._application(), self.door, {*LOOPBACK_NAMES, *settings.names})
        self._metrics = open_metrics(settings, CLOUD, settings.node, self.metrics)

    # -- the process ---------------------------------------------------------------------------

    def run(self) -> None:
        """Serve until stopped; then store what is in hand."""
        for topic in (*Overview.filters(scores=self._settings.scores), topics.decision_filter()):
            self._watching.subscribe(topic, self._hear, qos=0)
        self._consumer.start()
        self._keeper.start()
        self._recording.start()
        self._watching.start()
        if self._metrics:
            self._metrics.start()
        try:
            self._serve()
        finally:
            self._notifier.stopping()
            self._watching.stop()
            self._consumer.stop()
            self._keeper.stop()
            self._recording.stop()
            if self._metrics:
                self._metrics.stop()
            self.records.close()

    def _serve(self) -> None:
        settings = self._settings
        config = uvicorn.Config(
            GZipMiddleware(self.guard, minimum_size=1000),
            host=settings.host,
            port=settings.http_port,
            ssl_certfile=settings.web_cert or None,
            ssl_keyfile=settings.web_key or None,
            proxy_headers=bool(settings.behind_proxy),
            forwarded_allow_ips=settings.behind_proxy or [],
            server_header=False,
            access_log=False,
            log_config=None,
            log_level="warning",
            limit_concurrency=MAX_CONCURRENT,
            ws_max_size=MAX_SOCKET_MESSAGE,
            ws_per_message_deflate=False,
            timeout_graceful_shutdown=GRACE_S,
        )
        try:
            config.load()
        except (OSError, ValueError) as error:
            raise ConfigError(
                f"web_cert {settings.web_cert} and web_key {settings.web_key}: {error}"
            ) from error
        server = self._server = uvicorn.Server(config)
        with contextlib.suppress(SystemExit):  # its way to say that it could not start; told below
            server.run()
        if not server.started and not self._stop.is_set():
            raise DdnnError(
                f"cannot serve at {settings.host} port {settings.http_port}: is the port taken?"
            )

    async def _until_stopped(self) -> None:
        """Beside the requests on the event loop: whether to stop, and what systemd should know."""
        server = self._server
        assert server is not None
        while not server.started:
            await asyncio.sleep(0.05)
        scheme = "https" if self._settings.web_cert else "http"
        host = f"[{self._settings.host}]" if ":" in self._settings.host else self._settings.host
        log.info("dashboard at %s://%s:%d", scheme, host, self._settings.http_port)
        self._notifier.ready()
        while not self._stop.is_set():
            self._notifier.alive(time.monotonic())
            up = self._watching.connected.is_set()
            self.overview.linked(up, None if up else self._watching.trouble.describe())
            await asyncio.sleep(LOOK_EVERY_S)
        server.should_exit = True

    def _hear(self, message: Message) -> None:
        self.overview.hear(message.topic, message.payload, message.retain, time.time())

    # -- the web -------------------------------------------------------------------------------

    def _application(self) -> ASGIApp:
        @contextlib.asynccontextmanager
        async def life(_app: FastAPI) -> AsyncIterator[None]:
            task = asyncio.create_task(self._until_stopped())
            yield
            task.cancel()

        # Its own pages of documentation would load scripts from elsewhere.
        app = FastAPI(
            title="DDNN", lifespan=life, docs_url=None, redoc_url=None,
            openapi_url="/api/v1/openapi.json",
        )  # fmt: skip
        app.include_router(login.router(self.door))
        api.install(app, self.overview, self.records, {"broker": self._why_no_broker})
        add_pages(self.overview, self.records, self.send, self.may_tune)
        # Answers are compressed outside the guard, which gives scripts their nonces.
        ui.run_with(app, gzip_middleware_factory=None, **RUN_OPTIONS)
        return app

    def _why_no_broker(self) -> str | None:
        """For readiness."""
        both = (self._watching, self._recording)
        return next((c.trouble.describe() for c in both if not c.connected.is_set()), None)

    def may_tune(self, request: Request) -> bool:
        """Whether whoever asked for this page may change settings now."""
        visitor = request.scope.get(VISITOR)
        who = visitor.now() if visitor is not None else None
        return who is not None and who.role == "operator"

    def send(self, topic: str, payload: bytes, retain: bool) -> None:
        """Publish what a page's visitor wants; checked here, whatever the page has checked.

        Raises:
            DdnnError: the visitor is no operator (any more), or there is no connection.
        """
        request = context.client.request
        if request is None or not self.may_tune(request):
            self.door.counts["role"] += 1
            raise DdnnError("only operators may change settings; log in as one")
        if not self._watching.connected.is_set():
            raise DdnnError(self._watching.trouble.describe())
        if self._watching.send(Publish(topic, payload, qos=1, retain=retain)) is None:
            raise DdnnError("the message was not taken; the log says why")
        who = request.scope[VISITOR].now()
        log.info("%s set %s", who.name if who else "somebody", topic)

    # -- metrics -------------------------------------------------------------------------------

    def metrics(self) -> list[Sample]:
        """Everything that `/metrics` shows; on the threads of its server."""
        health = self.records.health()
        sites = self.overview.sites()
        found = [
            Sample("ddnn_dashboard_sites", len(sites)),
            Sample("ddnn_dashboard_database_up", float(health.ok)),
            Sample("ddnn_dashboard_waiting", health.waiting),
            Sample("ddnn_dashboard_sockets", self.guard.sockets),
            Sample("ddnn_dashboard_sessions", len(self.door.sessions)),
        ]
        if health.size_bytes is not None:
            found.append(Sample("ddnn_dashboard_database_bytes", health.size_bytes))
        if health.newest_s is not None:
            name = "ddnn_dashboard_newest_decision_timestamp_seconds"
            found.append(Sample(name, health.newest_s))
        found += metrics.prefixed("ddnn_dashboard_requests_total", self.guard.answers.copy(), "")
        found += metrics.prefixed("ddnn_dashboard_refused_total", self.door.counts.copy(), "")
        found += metrics.prefixed("ddnn_events_total", self._consumer.counts.copy(), "")
        for site in sites[: metrics.MAX_SITES]:
            view = self.overview.site(site)
            if view is not None:
                found += [
                    Sample("ddnn_node_up", float(node.alive), (node.node,), site=site)
                    for node in view.nodes
                ]
        return found + self._watching.metrics()
