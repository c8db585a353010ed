"""The activation record: which bundle a site runs, and from which slot on.

The site's gateway keeps it retained on `ddnn/<site>/model/active`. It carries the manifest's
message, so that a node which comes back finds the bundle that the site runs even where the
publisher has offered another one since. It gives nobody a right: the manifest in it must pass the
same checks as one from the publisher.
"""

from __future__ import annotations

from typing import Annotated

import msgspec

from ddnn.bundle import Sha256
from ddnn.errors import BundleError
from ddnn.signing import MAX_MESSAGE_BYTES

#: Room for everything but the manifest's message, which is in base64.
_OTHER_FIELDS_BYTES = 1024
MAX_RECORD_BYTES = MAX_MESSAGE_BYTES * 4 // 3 + _OTHER_FIELDS_BYTES


class Shadow(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Cameras that have `bundle` staged report every slot that `every` divides by it as well."""

    bundle: Sha256
    every: Annotated[int, msgspec.Meta(ge=1, le=10_000)]


class Activation(
    msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True
):
    """Every node runs `bundle` for the slots from `from_slot` on.

    Attributes:
        version: of that bundle.
        manifest: its manifest as the publisher sent it, with the signatures.
        shadow: a staged bundle that is on trial beside it.
        instead_of: the bundle that ran before and is given up: the site goes back to the one before
            it. The one way to an older version, and only for nodes that changed over lately.
    """

    bundle: Sha256
    version: Annotated[int, msgspec.Meta(ge=1, le=2**53)]
    from_slot: Annotated[int, msgspec.Meta(ge=0, le=2**62)]
    manifest: bytes
    shadow: Shadow | None = None
    instead_of: Sha256 | None = None


#: Made once: see `ddnn.bundle`.
_DECODER = msgspec.json.Decoder(Activation)


def most_bytes(manifest: bytes) -> int:
    """Length of the longest record with this manifest's message."""
    return len(manifest) * 4 // 3 + _OTHER_FIELDS_BYTES


def encode(record: Activation) -> bytes:
    """Record -> JSON."""
    return msgspec.json.encode(record)


def decode(payload: bytes) -> Activation:
    """JSON -> record.

    Raises:
        BundleError: it is none.
    """
    if len(payload) > MAX_RECORD_BYTES:
        raise BundleError(f"activation record of {len(payload)} bytes is over its limit")
    try:
        return _DECODER.decode(payload)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise BundleError(f"activation record is not valid: {error}") from error
