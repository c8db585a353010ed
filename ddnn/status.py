"""The retained status of a node: `ddnn/<site>/status/<node>`, readable JSON."""

from __future__ import annotations

from typing import Literal

import msgspec

from ddnn.health import Health
from ddnn.tuning import Tuning


class Status(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a node says of itself.

    Attributes:
        node: for example `device-3`.
        state: `offline` is the will's and the clean end's.
        boot: boot id of this start of the process.
        bundle: id of the running bundle; None: it has none yet and reports nothing.
        version: that bundle's version.
        staged: id of the bundle that is loaded, tested and ready to run next.
        refused: why the last bundle offered was refused.
        refused_id: which one that was, where it can be told.
        counts: since this start.
        finished: a replay source has shown all its samples.
        sites, sites_staged, sites_refused: of a cloud worker: by site, the id of the bundle that
            runs and of the one that is ready, and why the last one offered was refused.
        since_s: when this process started, seconds since 1970 by its own clock then. The will has
            the same, so that a reader tells the will of this life from one before.
        at_s: when this was published.
        every_s: another one comes within so long; a node whose last one is older than twice that
            is not there, whatever it says.
        settings: of the site's gateway: the settings of a running site that are in force.
        health: of the camera and the machine.
        notes: what a person should know: `clock`, `settings`, `cloud`, `certificate`, `flood`,
            `trust`, `bundle`, `rollout`, `canary`, `drift`; absent while all is well.
    """

    node: str
    state: Literal["online", "offline"]
    boot: int
    bundle: str | None = None
    version: int | None = None
    staged: str | None = None
    refused: str | None = None
    refused_id: str | None = None
    counts: dict[str, int] = {}
    finished: bool = False
    sites: dict[str, str] = {}
    sites_staged: dict[str, str] = {}
    sites_refused: dict[str, str] = {}
    since_s: float | None = None
    at_s: float | None = None
    every_s: float | None = None
    settings: Tuning | None = None
    health: Health | None = None
    notes: dict[str, str] = {}


#: Made once: see `ddnn.bundle`.
_DECODER = msgspec.json.Decoder(Status)


def encode(status: Status) -> bytes:
    """Status -> JSON."""
    return msgspec.json.encode(status)


def decode(payload: bytes) -> Status | None:
    """JSON -> Status; None if it is not one (or the retained topic was cleared)."""
    try:
        return _DECODER.decode(payload)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
