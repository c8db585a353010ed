"""Signed manifests: DSSE envelopes over Ed25519, the only file that imports PyNaCl.

A signed manifest travels as a DSSE envelope (https://github.com/secure-systems-lab/dsse), which
in-toto and the OpenSSF's model signing use too: what is signed is the payload's type and its very
bytes, so that they are believed or not before anything parses them. The envelope is not part of
the bundle id: signing a bundle, or signing it again with the next key, leaves its id as it is.

    {"payload":"<base64>","payloadType":"...","signatures":[{"keyid":"...","sig":"<base64>"}]}

A manifest that nobody signed travels bare.

PyNaCl and not `cryptography`: both are PyCA's, and this one adds a fifth of the memory to a service
(`benchmarks.import_memory`).
"""

from __future__ import annotations

import hashlib
from typing import Annotated, Literal, NamedTuple

import msgspec
from nacl.exceptions import BadSignatureError
from nacl.exceptions import ValueError as NaclValueError
from nacl.signing import SigningKey, VerifyKey

from ddnn.bundle import MAX_MANIFEST_BYTES, Signature
from ddnn.errors import BundleError

PayloadType = Literal["application/vnd.ddnn.manifest+json"]
PAYLOAD_TYPE: PayloadType = "application/vnd.ddnn.manifest+json"
MAX_SIGNATURES = 8
#: Base64 makes four bytes of three; the rest is room for the signatures.
MAX_MESSAGE_BYTES = MAX_MANIFEST_BYTES * 4 // 3 + 4096
_BEGIN = b'{"payload":'


class _Envelope(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    payload: bytes
    payloadType: PayloadType
    signatures: Annotated[
        tuple[Signature, ...], msgspec.Meta(min_length=1, max_length=MAX_SIGNATURES)
    ]


#: Made once: see `ddnn.bundle`.
_DECODER = msgspec.json.Decoder(_Envelope)


class Sealed(NamedTuple):
    """A manifest as it travels: canonical bytes and signatures, neither of them checked."""

    payload: bytes
    signatures: tuple[Signature, ...] = ()


def seal(payload: bytes, signatures: tuple[Signature, ...]) -> bytes:
    """Manifest and signatures -> message; without a signature the manifest itself."""
    if not signatures:
        return payload
    return msgspec.json.encode(_Envelope(payload, PAYLOAD_TYPE, signatures))


def unseal(message: bytes) -> Sealed:
    """Message -> manifest bytes and signatures. Nothing is believed yet.

    Raises:
        BundleError: oversize, or an envelope that is not one.
    """
    if len(message) > MAX_MESSAGE_BYTES:
        raise BundleError(
            f"manifest message of {len(message)} bytes is over the limit of {MAX_MESSAGE_BYTES}"
        )
    if not message.startswith(_BEGIN):
        return Sealed(message)
    try:
        envelope = _DECODER.decode(message)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise BundleError(f"the manifest's envelope is not valid: {error}") from error
    if msgspec.json.encode(envelope) != message:
        raise BundleError("the manifest's envelope is not in its canonical form")
    return Sealed(envelope.payload, envelope.signatures)


def signed_bytes(payload: bytes) -> bytes:
    """What a signature is over: DSSE's pre-authentication encoding."""
    return b"DSSEv1 %d %s %d %s" % (
        len(PAYLOAD_TYPE),
        PAYLOAD_TYPE.encode(),
        len(payload),
        payload,
    )


def key_id(public_key: bytes) -> str:
    """Name of a key: the first 16 hex digits of the SHA-256 of its 32 bytes."""
    return hashlib.sha256(public_key).hexdigest()[:16]


def fits(payload: bytes, signature: Signature, public_key: bytes) -> bool:
    """Whether `signature` is this key's over this manifest."""
    try:
        VerifyKey(public_key).verify(signed_bytes(payload), signature.sig)
    except (BadSignatureError, NaclValueError):
        return False
    return True


class SecretKey:
    """A signing key, made of 32 secret bytes (`ddnn.key_files` keeps them)."""

    def __init__(self, seed: bytes) -> None:
        self._key = SigningKey(seed)

    @classmethod
    def new(cls) -> SecretKey:
        """A key that nobody had before."""
        return cls(bytes(SigningKey.generate()))

    @property
    def seed(self) -> bytes:
        """The 32 secret bytes."""
        return bytes(self._key)

    @property
    def public_key(self) -> bytes:
        """The 32 bytes that others need to check what this key has signed."""
        return bytes(self._key.verify_key)

    @property
    def key_id(self) -> str:
        """Name of this key."""
        return key_id(self.public_key)

    def sign(self, payload: bytes) -> Signature:
        """This key's signature of a manifest's canonical bytes."""
        return Signature(self.key_id, self._key.sign(signed_bytes(payload)).signature)
