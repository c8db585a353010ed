"""The retained status of a node: `ddnn/<site>/status/<node>`, readable JSON."""

from __future__ import annotations

from typing import Literal

import msgspec


class Status(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a node says of itself.

    Attributes:
        node: for example `device-3`.
        state: `offline` is the will's and the clean end's.
        boot: boot id of this start of the process.
        bundle: id of the running bundle; None: it has none yet and reports nothing.
        version: that bundle's version.
        refused: why the last bundle offered was refused.
        counts: since this start.
        finished: a replay source has shown all its samples.
        sites: of a cloud worker: bundle id by site.
        notes: what a person should know (`clock`, `settings`, `cloud`, `certificate`, `flood`);
            absent while all is well.
    """

    node: str
    state: Literal["online", "offline"]
    boot: int
    bundle: str | None = None
    version: int | None = None
    refused: str | None = None
    counts: dict[str, int] = {}
    finished: bool = False
    sites: dict[str, str] = {}
    notes: dict[str, str] = {}


def encode(status: Status) -> bytes:
    """Status -> JSON."""
    return msgspec.json.encode(status)


def decode(payload: bytes) -> Status | None:
    """JSON -> Status; None if it is not one (or the retained topic was cleared)."""
    try:
        return msgspec.json.decode(payload, type=Status)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
