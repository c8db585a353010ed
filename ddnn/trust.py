"""Whose bundles a node takes up, when and where: every such rule, as values and without I/O.

`Trust.admit` answers for one manifest message, in this order:

1. A message over the limit is refused before anything in it is looked at.
2. One signature of a key that this node trusts is enough. A key counts within its own dates, for
   the sites that it may sign for, and as long as it is not revoked; several keys may be trusted at
   once, which is how one follows another.
3. Nothing of a manifest is parsed before a signature of it was found good.
4. After its `expires` nobody begins to run a bundle (an old one could be offered for ever), and a
   node that does not know the date does not either.
5. A bundle that names sites, hardware or a version of this program is for those only.

Without any trusted key a node takes unsigned bundles only where its owner said so or where the
broker is on the same machine, and says so in its status (`Trust.note`).

A bundle that runs is never stopped by any of this: `Trust.warning` says what is wrong with it.
"""

from __future__ import annotations

import datetime
from collections.abc import Callable
from typing import Annotated, Literal, NamedTuple

import msgspec

from ddnn.bundle import Bundle, Manifest, Moment, Signature, Terms, decode_manifest
from ddnn.clock import EARLIEST_WALL_S
from ddnn.errors import BundleError, ConfigError
from ddnn.signing import Sealed, fits, key_id, unseal

TierName = Literal["device", "edge", "cloud"]


class ClockError(BundleError):
    """A date must be judged and the clock is not set: to be tried again when it is."""


class TrustedKey(
    msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True
):
    """One public key and what its owner may do.

    Attributes:
        public_key: 64 hex digits.
        name: for people.
        not_before, not_after: when its signatures count, by this node's clock.
        sites: the only sites it may sign for; empty: any.
        revoked: why it is not trusted any more.
    """

    public_key: Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{64}$")]
    name: str = ""
    not_before: Moment | None = None
    not_after: Moment | None = None
    sites: tuple[str, ...] = ()
    revoked: str | None = None

    @property
    def key_id(self) -> str:
        """As in signatures."""
        return key_id(bytes.fromhex(self.public_key))

    def __str__(self) -> str:
        return f"{self.key_id} ({self.name})" if self.name else self.key_id


class KeySet(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The keys that a node trusts, and those that it does not trust any more."""

    format: Literal[1] = 1
    keys: Annotated[tuple[TrustedKey, ...], msgspec.Meta(max_length=256)] = ()

    def find(self, name: str) -> TrustedKey | None:
        """The key with this id, or None."""
        return next((key for key in self.keys if key.key_id == name), None)


class Home(NamedTuple):
    """Where a bundle would run.

    Attributes:
        site: whose node this is.
        tier: what kind of node.
        machine: as the kernel names it, for example `aarch64`.
        version: of this program.
    """

    site: str
    tier: TierName
    machine: str
    version: str


class Trust:
    """What one node of one site accepts.

    Args:
        home: the node.
        keys: gives the keys trusted now, or None where there are none; may raise ConfigError.
        unsigned: why a bundle without a good signature is taken where there are no keys; None: it
            is not.
    """

    def __init__(
        self,
        home: Home,
        keys: Callable[[], KeySet | None] = lambda: None,
        unsigned: str | None = None,
    ) -> None:
        self._home = home
        self._keys = keys
        self._unsigned = unsigned

    def admit(self, message: bytes, wall_s: float) -> tuple[Sealed, Manifest]:
        """A manifest message that this node may act on.

        Args:
            wall_s: seconds since 1970.

        Raises:
            BundleError: it may not, and why.
        """
        sealed, manifest = self.believe(message, wall_s)
        if manifest.terms is not msgspec.UNSET:
            self._check_terms(manifest.terms, wall_s)
        return sealed, manifest

    def believe(self, message: bytes, wall_s: float) -> tuple[Sealed, Manifest]:
        """A manifest message that somebody trusted has signed, wherever and until when it may run.

        Raises:
            BundleError: nobody has, or it is no manifest.
        """
        sealed = unseal(message)
        self._check_signed(sealed, wall_s)
        return sealed, decode_manifest(sealed.payload)

    @property
    def note(self) -> str | None:
        """For the status of a node that believes what is not signed."""
        try:
            keys = self._keys()
        except ConfigError as error:
            return str(error)
        if keys is not None:
            return None
        if self._unsigned:
            return f"bundles of anybody are run, signed or not: {self._unsigned}"
        return "no trusted keys: every bundle is refused; set --trusted-keys"

    def warning(self, bundle: Bundle, wall_s: float) -> str | None:
        """What would be refused of a bundle that runs already; None: nothing."""
        try:
            self._check_signed(Sealed(bundle.payload, bundle.signatures), wall_s)
            if bundle.manifest.terms is not msgspec.UNSET:
                self._check_terms(bundle.manifest.terms, wall_s)
        except ClockError:
            return None  # the clock says so itself
        except BundleError as error:
            return f"goes on running, but would not be taken up again: {error}"
        return None

    def _check_signed(self, sealed: Sealed, wall_s: float) -> None:
        try:
            keys = self._keys()
        except ConfigError as error:
            raise BundleError(str(error)) from error
        if keys is None:
            if self._unsigned is None:
                raise BundleError(
                    "this node has no trusted keys (--trusted-keys), so it runs no bundle; "
                    "--allow-unsigned true lets it run anybody's"
                )
            return
        if not sealed.signatures:
            raise BundleError("the manifest is not signed")
        reasons = []
        for signature in sealed.signatures:
            try:
                self._check_signature(keys, signature, sealed.payload, wall_s)
            except ClockError:
                raise
            except BundleError as error:
                reasons.append(str(error))
            else:
                return
        raise BundleError("; ".join(reasons))

    def _check_signature(
        self, keys: KeySet, signature: Signature, payload: bytes, wall_s: float
    ) -> None:
        key = keys.find(signature.keyid)
        if key is None:
            raise BundleError(f"signed by key {signature.keyid}, which is not trusted here")
        if key.revoked is not None:
            raise BundleError(f"signed by key {key}, which is revoked: {key.revoked}")
        if not fits(payload, signature, bytes.fromhex(key.public_key)):
            raise BundleError(f"the signature of key {key} does not fit the manifest")
        if key.sites and self._home.site not in key.sites:
            raise BundleError(f"key {key} may not sign for site {self._home.site}")
        if key.not_before or key.not_after:
            now = _date(wall_s, "the dates of its key")
            if key.not_before and now < key.not_before:
                raise BundleError(f"key {key} is not valid before {key.not_before:%Y-%m-%d}")
            if key.not_after and now > key.not_after:
                raise BundleError(f"key {key} was valid until {key.not_after:%Y-%m-%d}")

    def _check_terms(self, terms: Terms, wall_s: float) -> None:
        home = self._home
        if terms.expires is not None and _date(wall_s, "its date of expiry") > terms.expires:
            raise BundleError(f"the bundle expired on {terms.expires:%Y-%m-%d %H:%M %Z}")
        if terms.sites and home.site not in terms.sites:
            raise BundleError(f"the bundle is for site {', '.join(terms.sites)}, not {home.site}")
        machines = terms.hardware.get(home.tier)
        if machines is not None and home.machine not in machines:
            raise BundleError(
                f"the bundle's {home.tier} sections are for {', '.join(machines)}; "
                f"this machine is {home.machine}"
            )
        if terms.min_version and _numbers(home.version) < _numbers(terms.min_version):
            raise BundleError(
                f"the bundle needs ddnn {terms.min_version}; this node has {home.version}"
            )


def _date(wall_s: float, what: str) -> datetime.datetime:
    if wall_s < EARLIEST_WALL_S:
        raise ClockError(f"the clock is not set yet, so {what} cannot be judged")
    return datetime.datetime.fromtimestamp(wall_s, datetime.UTC)


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split(".")[:3] if part.isdigit())
