"""Settings that a site takes while it runs: retained JSON on `ddnn/<site>/settings`."""

from __future__ import annotations

from typing import Annotated

import msgspec

from ddnn.errors import ConfigError

MAX_BYTES = 10_000
Threshold = Annotated[float, msgspec.Meta(ge=0.0, le=1.0)]


class Tuning(
    msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True
):
    """What may be changed; None: as the bundle says.

    Attributes:
        local_threshold, edge_threshold: T of the exit, within the bundle's calibrated range.
        budget_bytes_s: hold the cameras' frame payload at this many bytes per second by moving
            the local T along the bundle's curve; excludes `local_threshold`.
        audit_share: of the early exits' decisions, so many are audited; None: as the gateway's own
            settings say.
    """

    local_threshold: Threshold | None = None
    edge_threshold: Threshold | None = None
    budget_bytes_s: Annotated[float, msgspec.Meta(ge=1.0, le=1e9)] | None = None
    audit_share: Annotated[float, msgspec.Meta(ge=0.0, le=1.0)] | None = None

    def __post_init__(self) -> None:
        if self.local_threshold is not None and self.budget_bytes_s is not None:
            raise ValueError("local_threshold and budget_bytes_s exclude each other")


#: Made once: see `ddnn.bundle`.
_DECODER = msgspec.json.Decoder(Tuning)


def encode(tuning: Tuning) -> bytes:
    """Tuning -> JSON; the bundle's own settings are an empty payload, which clears the topic."""
    return b"" if tuning == Tuning() else msgspec.json.encode(tuning)


def decode(payload: bytes) -> Tuning:
    """JSON -> Tuning; an empty payload (a cleared topic) is the bundle's own settings.

    Raises:
        ConfigError: it is not valid, and why.
    """
    if not payload:
        return Tuning()
    if len(payload) > MAX_BYTES:
        raise ConfigError(f"settings of {len(payload)} bytes are over the limit of {MAX_BYTES}")
    try:
        return _DECODER.decode(payload)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ConfigError(f"settings are not valid: {error}") from error
