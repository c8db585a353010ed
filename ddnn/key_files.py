"""Keys in files, secret ones and trusted ones, and what the settings of a node say of trust."""

from __future__ import annotations

import os
import platform
from importlib.metadata import version
from pathlib import Path

import msgspec

from ddnn.config import NodeSettings
from ddnn.errors import ConfigError
from ddnn.loopback import is_loopback
from ddnn.signing import SecretKey
from ddnn.store import replace_durably
from ddnn.trust import Home, KeySet, TierName, Trust

#: Made once: see `ddnn.bundle`.
_DECODER = msgspec.json.Decoder(KeySet)


def trust_of(settings: NodeSettings, site: str, tier: TierName) -> Trust:
    """What a node of this site accepts.

    The file of trusted keys is read again for every manifest, so that a key can be revoked
    without a restart; while it cannot be read, everything is refused.
    """
    home = Home(site, tier, platform.machine(), version("ddnn"))
    if settings.trusted_keys:
        path = Path(settings.trusted_keys)
        return Trust(home, lambda: read_keys(path))
    unsigned = None
    if settings.allow_unsigned:
        unsigned = "allow_unsigned is set"
    elif is_loopback(settings.broker):
        unsigned = "there are no trusted keys, and the broker is on this machine"
    return Trust(home, unsigned=unsigned)


def check_keys(settings: NodeSettings) -> None:
    """For a node's start: a wrong setting should stop it and not show as refused bundles.

    Raises:
        ConfigError: the settings name a file of trusted keys that cannot be read.
    """
    if settings.trusted_keys:
        read_keys(Path(settings.trusted_keys))


def read_keys(path: Path) -> KeySet:
    """The key set in a file.

    Raises:
        ConfigError: it cannot be read or is none.
    """
    try:
        return _DECODER.decode(Path(path).read_bytes())
    except (OSError, msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"cannot read trusted keys from {path}: {error}") from error


def write_keys(path: Path, keys: KeySet) -> None:
    """Write a key set as readable JSON, at once as a whole.

    Raises:
        ConfigError: it cannot be written.
    """
    path = Path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        replace_durably(path, msgspec.json.format(msgspec.json.encode(keys), indent=2) + b"\n")
    except OSError as error:
        raise ConfigError(f"cannot write trusted keys to {path}: {error}") from error


def read_secret(path: Path) -> SecretKey:
    """The signing key in a file of 64 hex digits.

    Raises:
        ConfigError: it cannot be read, holds none, or others than its owner may read it.
    """
    try:
        with Path(path).open() as file:
            mode = os.fstat(file.fileno()).st_mode & 0o777
            text = file.read(200).strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"cannot read the key {path}: {error}") from error
    if mode & 0o077:
        raise ConfigError(
            f"the key {path} can be read by others (mode {mode:o}): revoke it if they may have; "
            f"else chmod 600 {path}"
        )
    try:
        seed = bytes.fromhex(text)
    except ValueError:
        seed = b""
    if len(seed) != 32:
        raise ConfigError(f"{path} holds no signing key (`ddnn keys new` makes one)")
    return SecretKey(seed)


def write_secret(path: Path, key: SecretKey) -> None:
    """Write a signing key to a new file, mode 0600 from its first moment on.

    Raises:
        ConfigError: the file exists or cannot be written.
    """
    try:
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w") as file:
            file.write(f"{key.seed.hex()}\n")
    except FileExistsError:
        raise ConfigError(f"{path} exists; a key is never overwritten") from None
    except OSError as error:
        raise ConfigError(f"cannot write the key {path}: {error}") from error
