"""The HTTP API: what `Overview` and `Records` know, as JSON under `/api/v1`.

Answers are written by msgspec from the values themselves, and OpenAPI's schemas are made of the
same types, so that there is one description of each. Errors are problem details (RFC 9457).
Who may ask is not decided here.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Coroutine, Mapping
from typing import Annotated, Any

import msgspec
from fastapi import APIRouter, FastAPI, HTTPException, Path, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute

from cloud_service.overview import Overview
from cloud_service.records.counting import Bucket
from cloud_service.records.store import MAX_PAGE, Cursor, LedgerRow, Records, RecordsHealth
from cloud_service.views import (
    Brief,
    BundleView,
    MissingNow,
    NodeView,
    Rollout,
    SettingsView,
    SiteView,
)
from ddnn.decisions import PublishedDecision
from ddnn.errors import ConfigError, RecordsError
from ddnn.measurements import Calibration, MissingTable

log = logging.getLogger(__name__)

#: Why a part of the service cannot do its work; None while it can.
Check = Callable[[], str | None]
#: What a client that was told "not now" should wait, seconds.
RETRY_AFTER_S = 5


class Problem(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What went wrong (RFC 9457).

    Attributes:
        reasons: each of them, where there are several.
    """

    title: str
    status: int
    detail: str
    reasons: tuple[str, ...] = ()


class Sites(msgspec.Struct, frozen=True):
    """All sites: those that are heard of, in short, and those of which there are only records."""

    sites: tuple[Brief, ...]
    recorded: tuple[str, ...]


class Nodes(msgspec.Struct, frozen=True):
    """The nodes of a site."""

    nodes: tuple[NodeView, ...]


class Decisions(msgspec.Struct, frozen=True):
    """A page of decisions, newest first.

    Attributes:
        next: `before` of the next page; null: there is nothing older. With filters a page may
            hold few decisions, or none, and still have a next one.
    """

    decisions: tuple[PublishedDecision, ...]
    next: str | None


class LedgerNow(msgspec.Struct, frozen=True, kw_only=True):
    """What became of a site's slots.

    Attributes:
        ledger: the gateway's counts, as last heard; edges: of edge gateways, by name.
        lost: decisions that the gateway has published and that are not in the database.
    """

    ledger: dict[str, int]
    edges: dict[str, dict[str, int]]
    lost: int


class LedgerHistory(msgspec.Struct, frozen=True):
    """Ledgers over time, oldest first."""

    rows: tuple[LedgerRow, ...]


class Bundles(msgspec.Struct, frozen=True):
    """The bundle that a site runs, and the change to another one; null: none was heard of."""

    running: BundleView | None
    rollout: Rollout | None


class Settings(msgspec.Struct, frozen=True):
    """Thresholds and other settings in force, and the curve along which they may be moved."""

    settings: SettingsView
    calibrated: dict[str, float]
    calibration: Calibration | None


class Missing(msgspec.Struct, frozen=True):
    """Which cameras are missing now, and what the bundle measured without which of them."""

    now: MissingNow
    table: MissingTable | None


class Buckets(msgspec.Struct, frozen=True):
    """What was decided over time, oldest first, `bucket_s` seconds each."""

    bucket_s: int
    buckets: tuple[Bucket, ...]


class Alive(msgspec.Struct, frozen=True):
    """The process lives."""

    status: str


class Ready(msgspec.Struct, frozen=True):
    """Every part of the service does its work."""

    ready: bool


_TYPES = (
    Problem, Sites, Nodes, Decisions, LedgerNow, LedgerHistory, Bundles, Settings, Missing,
    Buckets, Alive, Ready, SiteView, PublishedDecision, RecordsHealth,
)  # fmt: skip
_REFERENCE = "#/components/schemas/"


def install(
    app: FastAPI, overview: Overview, records: Records, checks: Mapping[str, Check] | None = None
) -> None:
    """Put the API, health and readiness into an app, and their schemas into its OpenAPI.

    Args:
        checks: for readiness, beside the database: what each part of the service says of itself.
    """
    app.include_router(router(overview, records))
    app.include_router(
        health_router({"database": lambda: records.health().reason, **(checks or {})})
    )
    describe(app)


def describe(app: FastAPI) -> None:
    """Add the schemas of this module's answers to an app's OpenAPI document."""
    make = app.openapi

    def openapi() -> dict[str, Any]:
        document = make()
        _, schemas = msgspec.json.schema_components(_TYPES, ref_template=_REFERENCE + "{name}")
        for path in document["paths"].values():
            for operation in path.values():
                if "Problem" in str(operation["responses"].get("400")):
                    operation["responses"].pop("422", None)  # FastAPI's own; ours is the 400
        document.setdefault("components", {}).setdefault("schemas", {}).update(schemas)
        return document

    app.openapi = openapi  # type: ignore[method-assign]


def problem(status: int, title: str, detail: str, reasons: tuple[str, ...] = ()) -> Response:
    """An error's response."""
    said = Problem(title=title, status=status, detail=detail, reasons=reasons)
    headers = {"Retry-After": str(RETRY_AFTER_S)} if status == 503 else None
    return Response(
        msgspec.json.encode(said), status, headers, media_type="application/problem+json"
    )


class ProblemRoute(APIRoute):
    """A route whose errors are problem details, in whatever app it is."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handle = super().get_route_handler()

        async def handled(request: Request) -> Response:
            try:
                return await handle(request)
            except RequestValidationError as error:
                reasons = tuple(
                    f"{'.'.join(map(str, each['loc'][1:]))}: {each['msg']}"
                    for each in error.errors()
                )
                return problem(400, "Bad request", "; ".join(reasons), reasons)
            except HTTPException as error:
                return problem(error.status_code, "Not found", str(error.detail))
            except ConfigError as error:
                return problem(400, "Bad request", str(error))
            except RecordsError as error:
                # The reason may name hosts and files: it is for the log, and for readiness.
                log.warning("%s: %s", request.url.path, error)
                return problem(
                    503, "Database not available", "the database does not answer; try again later"
                )

        return handled


def _json(value: object) -> Response:
    return Response(msgspec.json.encode(value), media_type="application/json")


def _answers(kind: type, *errors: int) -> dict[int | str, dict[str, Any]]:
    def of(name: str, media_type: str, description: str) -> dict[str, Any]:
        content = {media_type: {"schema": {"$ref": _REFERENCE + name}}}
        return {"description": description, "content": content}

    said = (kind.__doc__ or "").partition("\n\n")[0]
    found: dict[int | str, dict[str, Any]] = {200: of(kind.__name__, "application/json", said)}
    texts = {400: "A parameter is wrong.", 404: "There is no such thing.", 503: "Not now."}
    for status in errors:
        found[status] = of("Problem", "application/problem+json", texts[status])
    return found


_LATEST_S = 4_102_444_800
FromS = Annotated[
    float | None, Query(alias="from", ge=0, le=_LATEST_S, description="Seconds since 1970.")
]
ToS = Annotated[
    float | None, Query(alias="to", ge=0, le=_LATEST_S, description="The same; left out itself.")
]
Site = Annotated[str, Path(pattern="^[A-Za-z0-9][A-Za-z0-9_-]{0,31}$")]
#: PostgreSQL keeps no NUL.
Label = Annotated[str | None, Query(max_length=200, pattern="^[^\\x00]*$")]


def router(overview: Overview, records: Records) -> APIRouter:
    """The API under `/api/v1`."""
    api = APIRouter(prefix="/api/v1", tags=["v1"], route_class=ProblemRoute)

    def view(site: str) -> SiteView:
        found = overview.site(site)
        if found is None:
            raise HTTPException(404, f"nothing was heard of a site {site!r}")
        return found

    def recorded(site: str) -> None:
        if overview.site(site) is None and site not in records.sites():
            raise HTTPException(404, f"there is no site {site!r}")

    @api.get("/sites", responses=_answers(Sites, 503), response_class=Response)
    def sites() -> Response:
        """Every site in one line."""
        briefs = overview.briefs()
        heard = {brief.site for brief in briefs}
        return _json(Sites(briefs, tuple(n for n in records.sites() if n not in heard)))

    @api.get("/sites/{site}", responses=_answers(SiteView, 400, 404), response_class=Response)
    def site(site: Site) -> Response:
        """Everything that is known of a site now."""
        return _json(view(site))

    @api.get("/sites/{site}/nodes", responses=_answers(Nodes, 400, 404), response_class=Response)
    def nodes(site: Site) -> Response:
        """Cameras, gateways and workers, and whether they are there."""
        return _json(Nodes(view(site).nodes))

    @api.get(
        "/sites/{site}/decisions",
        responses=_answers(Decisions, 400, 404, 503),
        response_class=Response,
    )
    def decisions(
        site: Site,
        before: Annotated[str | None, Query(description="`next` of the page before.")] = None,
        limit: Annotated[int, Query(ge=1, le=MAX_PAGE)] = 100,
        from_s: FromS = None,
        to_s: ToS = None,
        exit: Annotated[
            str | None, Query(description="local, edge, cloud or nothing_seen.", max_length=32)
        ] = None,
        label: Label = None,
        degraded: bool | None = None,
        missing_camera: Annotated[int | None, Query(ge=0, le=31)] = None,
    ) -> Response:
        """Decisions, newest first, page by page."""
        page = records.page(
            site,
            before=None if before is None else Cursor.parse(before),
            limit=limit,
            from_s=from_s,
            to_s=to_s,
            exit=exit,
            label=label,
            degraded=degraded,
            missing_camera=missing_camera,
        )
        if not page.decisions:
            recorded(site)
        return _json(Decisions(page.decisions, None if page.next is None else str(page.next)))

    @api.get(
        "/sites/{site}/decisions/{slot}",
        responses=_answers(PublishedDecision, 400, 404, 503),
        response_class=Response,
    )
    def decision(site: Site, slot: Annotated[int, Path(ge=-(10**18), le=10**18)]) -> Response:
        """One decision."""
        found = records.decision(site, slot)
        if found is None:
            raise HTTPException(404, f"there is no decision of site {site!r} for slot {slot}")
        return _json(found)

    @api.get(
        "/sites/{site}/buckets", responses=_answers(Buckets, 400, 404, 503), response_class=Response
    )
    def buckets(
        site: Site,
        from_s: Annotated[float, Query(alias="from", ge=0, le=_LATEST_S)],
        to_s: Annotated[float, Query(alias="to", ge=0, le=_LATEST_S)],
        bucket_s: Annotated[int, Query(ge=1, le=31 * 86_400)] = 3600,
    ) -> Response:
        """What was decided over time: exits, classes, degraded, traffic, latency."""
        recorded(site)
        seen = overview.site(site)
        each = member_bytes(seen.bundle) if seen and seen.bundle else None
        found = records.buckets(site, from_s, to_s, bucket_s, each)
        return _json(Buckets(bucket_s, tuple(found)))

    @api.get(
        "/sites/{site}/ledger", responses=_answers(LedgerNow, 400, 404), response_class=Response
    )
    def ledger(site: Site) -> Response:
        """What became of every slot."""
        seen = view(site)
        lost = records.lost(site)
        return _json(LedgerNow(ledger=seen.ledger, edges=seen.edge_ledgers, lost=lost))

    @api.get(
        "/sites/{site}/ledger/history",
        responses=_answers(LedgerHistory, 400, 404, 503),
        response_class=Response,
    )
    def ledger_history(site: Site, from_s: FromS = None, to_s: ToS = None) -> Response:
        """The same over time, beside what was stored: sent = decided + degraded + expired."""
        recorded(site)
        return _json(LedgerHistory(tuple(records.ledger_rows(site, from_s, to_s))))

    @api.get(
        "/sites/{site}/bundles", responses=_answers(Bundles, 400, 404), response_class=Response
    )
    def bundles(site: Site) -> Response:
        """The running bundle, and how far a change to another one is."""
        seen = view(site)
        return _json(Bundles(seen.bundle, seen.rollout))

    @api.get(
        "/sites/{site}/settings", responses=_answers(Settings, 400, 404), response_class=Response
    )
    def settings(site: Site) -> Response:
        """Thresholds in force, what was asked for, and the calibrated curve."""
        seen = view(site)
        bundle = seen.bundle
        calibrated = bundle.thresholds if bundle else {}
        return _json(Settings(seen.settings, calibrated, bundle.calibration if bundle else None))

    @api.get(
        "/sites/{site}/missing", responses=_answers(Missing, 400, 404), response_class=Response
    )
    def missing(site: Site) -> Response:
        """Missing cameras, and the accuracy that the bundle promises without them."""
        seen = view(site)
        return _json(Missing(seen.missing, seen.bundle.missing if seen.bundle else None))

    @api.get("/database", responses=_answers(RecordsHealth), response_class=Response)
    def database() -> Response:
        """How the database of decisions is."""
        return _json(records.health())

    return api


def health_router(checks: Mapping[str, Check]) -> APIRouter:
    """`/healthz`: the process lives. `/readyz`: it does its work, or 503 and why not."""
    health = APIRouter(tags=["health"], route_class=ProblemRoute)

    @health.get("/healthz", responses=_answers(Alive), response_class=Response)
    async def healthz() -> Response:
        """Always 200: whoever starts processes anew should do so only where this is silent."""
        return _json(Alive("alive"))

    @health.get("/readyz", responses=_answers(Ready, 503), response_class=Response)
    def readyz() -> Response:
        """Whether every part works; 503 with the reasons where one does not."""
        said = ((name, check()) for name, check in checks.items())
        reasons = tuple(f"{name}: {reason}" for name, reason in said if reason)
        if reasons:
            return problem(503, "Not ready", "; ".join(reasons), reasons)
        return _json(Ready(True))

    return health


def member_bytes(bundle: BundleView) -> tuple[int, ...]:
    """What the raw views below each member of a site's gateway are, bytes per frame."""
    each = bundle.raw_bytes // bundle.cameras
    if len(bundle.edges) > 1:
        return tuple(each * len(cameras) for cameras in bundle.edges)
    return (each,) * bundle.cameras
