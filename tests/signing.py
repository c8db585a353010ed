"""Keys and trust for tests."""

import datetime

import msgspec

from ddnn import bundle as b
from ddnn.signing import SecretKey, seal
from ddnn.trust import Home, KeySet, Trust, TrustedKey
from tests import bundles

KEY = SecretKey(b"k" * 32)
OTHER = SecretKey(b"o" * 32)
WALL = 1_800_000_000.0
HOME = Home("s1", "device", "aarch64", "0.1.0")


def moment(days):
    """So many days after `WALL`."""
    return datetime.datetime.fromtimestamp(WALL + 86_400 * days, datetime.UTC)


def trusted(key=KEY, **fields):
    return TrustedKey(public_key=key.public_key.hex(), **fields)


def trust(*keys, home=HOME):
    """Trust in these keys; without any, in `KEY`."""
    return Trust(home, lambda: KeySet(keys=keys or (trusted(),)))


def signed(bundle, *keys):
    signatures = tuple(key.sign(bundle.payload) for key in keys or (KEY,))
    return msgspec.structs.replace(bundle, signatures=signatures)


def message(bundle):
    return seal(bundle.payload, bundle.signatures)


def with_terms(version=1, marker=b"", **terms):
    """A bundle of `tests.bundles` with these terms, not signed."""
    datas = bundles.sections(marker)
    manifest = bundles.manifest(datas, version=version, terms=b.Terms(**terms))
    return b.assemble(b.encode_manifest(manifest), datas)
