"""Whether every decision that a gateway made is here: its ledger beside our count. Pure.

A gateway publishes after each second how many decisions it has made since its journal began.
The difference to what was stored, the **offset**, is whatever it made before our time; it stays
the same while nothing is lost. It is greater while decisions are on their way, so the smallest
one ever seen counts, and what a later one is above it is **lost**, or still to come. Where the
ledger begins anew (a gateway without its journal) so does the offset.

That needs ledger and count of the same moment in the stream of messages: a ledger that the broker
retained is older than decisions that have come since, and is left out by the caller.
"""

from __future__ import annotations

import msgspec

from ddnn.errors import WireError

Counts = dict[str, int]
#: Made once: see `ddnn.bundle`.
_DECODER = msgspec.json.Decoder(Counts)
_MAX = 2**53


class Ledger(msgspec.Struct, frozen=True, kw_only=True):
    """What a gateway says has become of its slots; see docs/protocol.md."""

    opened: int = 0
    decided: int = 0
    degraded: int = 0
    expired: int = 0
    open: int = 0
    unsent: int = 0

    @property
    def published(self) -> int:
        """Decisions that have left the gateway."""
        return self.decided + self.degraded - self.unsent


class Balance(msgspec.Struct, frozen=True, kw_only=True):
    """What is remembered of a site's ledgers between two of them.

    Attributes:
        total: the last ledger's decisions.
        offset: the smallest difference so far between it and our count.
    """

    total: int
    offset: int


def decode(payload: bytes) -> Ledger:
    """JSON -> ledger.

    Raises:
        WireError: it is none.
    """
    try:
        counts = _DECODER.decode(payload)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise WireError(f"not a ledger: {error}") from error
    known = {name: counts.get(name, 0) for name in Ledger.__struct_fields__}
    if any(not 0 <= count <= _MAX for count in known.values()):
        raise WireError("not a ledger: a count is out of bounds")
    return Ledger(**known)


def compare(before: Balance | None, ledger: Ledger, stored: int) -> tuple[Balance, int]:
    """Take the next ledger.

    Args:
        before: of the ledger before it; None: there was none.
        stored: decisions stored of what came before this ledger.

    Returns:
        What to remember, and how many decisions have not come.
    """
    total = ledger.decided + ledger.degraded
    offset = ledger.published - stored
    if before is None or total < before.total:
        return Balance(total=total, offset=offset), 0
    smallest = min(before.offset, offset)
    return Balance(total=total, offset=smallest), offset - smallest
