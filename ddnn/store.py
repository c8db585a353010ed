"""Bundles on disk.

A bundle folder holds `manifest.json`, `sections/<role, "/" as "-">.onnx`, and `signatures.json` if
anybody has signed the manifest. A node keeps its last good bundle in a `BundleStore`, written so
that a loss of power at any moment leaves either the old bundle or the new one.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Collection
from pathlib import Path

import msgspec

from ddnn.bundle import Bundle, Manifest, Signature, assemble, decode_manifest
from ddnn.errors import BundleError

MANIFEST = "manifest.json"
SIGNATURES = "signatures.json"
#: Made once: see `ddnn.bundle`.
_SIGNATURES = msgspec.json.Decoder(tuple[Signature, ...])


def section_file(role: str) -> str:
    """File name of a section inside a bundle folder."""
    return f"sections/{role.replace('/', '-')}.onnx"


def write_folder(path: Path, bundle: Bundle) -> None:
    """Write `bundle` to a new or existing bundle folder, durably, replacing it as a whole.

    Raises:
        BundleError: `path` exists and is no bundle folder, or cannot be written.
    """
    path = Path(path)
    if path.exists() and not (path / MANIFEST).is_file() and any(path.iterdir()):
        raise BundleError(f"{path} is not empty and holds no bundle; it is left alone")
    fresh = path.with_name(f".{path.name}.new")
    old = path.with_name(f".{path.name}.old")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        for leftover in (fresh, old):
            shutil.rmtree(leftover, ignore_errors=True)
        (fresh / "sections").mkdir(parents=True)
        for role, data in sorted(bundle.sections.items()):
            _write_durably(fresh / section_file(role), data)
        if bundle.signatures:
            _write_durably(fresh / SIGNATURES, msgspec.json.encode(bundle.signatures))
        _write_durably(fresh / MANIFEST, bundle.payload)
        _sync_folder(fresh / "sections")
        _sync_folder(fresh)
        if path.exists():
            path.rename(old)
        fresh.rename(path)
        _sync_folder(path.parent)
        shutil.rmtree(old, ignore_errors=True)
    except OSError as error:
        raise BundleError(f"cannot write bundle to {path}: {error}") from error


def read_folder(path: Path, roles: Callable[[Manifest], set[str]] | None = None) -> Bundle:
    """Read and check a bundle folder: all sections, or those that `roles` names.

    Raises:
        BundleError: no bundle there, or anything about it wrong.
    """
    path = Path(path)
    try:
        payload = (path / MANIFEST).read_bytes()
        manifest = decode_manifest(payload)
        wanted = roles(manifest) if roles else {info.role for info in manifest.sections}
        sections = {role: (path / section_file(role)).read_bytes() for role in wanted}
        signatures = _read_signatures(path / SIGNATURES)
    except OSError as error:
        raise BundleError(f"no bundle can be read at {path}: {error}") from error
    return assemble(payload, sections, wanted, signatures)


def _read_signatures(path: Path) -> tuple[Signature, ...]:
    try:
        return _SIGNATURES.decode(path.read_bytes())
    except FileNotFoundError:
        return ()
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise BundleError(f"{path} is damaged: {error}") from error


class BundleStore:
    """What one node keeps of one site: its last good bundle, and what it has of the next one.

    Two slots, `a` and `b`, and the file `current` that names one of them. A new bundle goes to
    the other slot (`stage`) and becomes current by one atomic rename (`promote`). Chunks on their
    way to a bundle are in `parts`; they are not synced, since a torn one shows by its length or by
    the hash of its section, and is fetched again. `activation.json` is a gateway's.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = Path(folder)

    def load(self, roles: Callable[[Manifest], set[str]]) -> Bundle | None:
        """The current bundle, or None if there is none.

        Raises:
            BundleError: what is there is damaged.
        """
        slot = self._current()
        return None if slot is None else read_folder(self._folder / slot, roles)

    def load_staged(self, roles: Callable[[Manifest], set[str]]) -> Bundle | None:
        """The bundle that was staged and not yet promoted, or None if there is none (whole)."""
        try:
            current = self._current()
            other = self._folder / _other(current)
            if not (other / MANIFEST).exists():
                return None
            staged = read_folder(other, roles)
            if current is None:
                return staged
            payload = (self._folder / current / MANIFEST).read_bytes()
        except (BundleError, OSError):
            return None  # it was being written: it is fetched again
        return staged if staged.manifest.version > decode_manifest(payload).version else None

    def stage(self, bundle: Bundle) -> None:
        """Write `bundle` to the slot that is not current.

        Raises:
            BundleError: it cannot be written; the current one is untouched.
        """
        write_folder(self._folder / _other(self._current()), bundle)
        shutil.rmtree(self._folder / "parts", ignore_errors=True)

    def promote(self, bundle: Bundle) -> None:
        """Make `bundle` the current one; writes it first where it was not staged.

        Raises:
            BundleError: it cannot be written; the bundle kept before stays current.
        """
        slot = _other(self._current())
        try:
            if _payload(self._folder / slot) != bundle.payload:
                write_folder(self._folder / slot, bundle)
            replace_durably(self._folder / "current", f"{slot}\n".encode())
        except OSError as error:
            raise BundleError(f"cannot keep the bundle in {self._folder}: {error}") from error

    def keep_chunk(self, sha256: str, number: int, data: bytes) -> None:
        """Keep one chunk of a bundle that is being collected.

        Raises:
            BundleError: it cannot be written.
        """
        path = self._folder / "parts" / f"{sha256}.{number}"
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
        except OSError as error:
            raise BundleError(f"cannot keep a chunk in {path.parent}: {error}") from error

    def chunk(self, sha256: str, number: int) -> bytes | None:
        """A chunk kept before, or None."""
        try:
            return (self._folder / "parts" / f"{sha256}.{number}").read_bytes()
        except OSError:
            return None

    def forget_chunks(self, keep: Collection[str] = ()) -> None:
        """Remove the chunks of all sections but those with these hashes."""
        for path in (self._folder / "parts").glob("*"):
            if path.name.partition(".")[0] not in keep:
                path.unlink(missing_ok=True)

    def keep_activation(self, payload: bytes) -> None:
        """Keep the activation record that the gateway is about to publish.

        Raises:
            BundleError: it cannot be written; the one kept before stays.
        """
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            replace_durably(self._folder / "activation.json", payload)
        except OSError as error:
            raise BundleError(f"cannot write to {self._folder}: {error}") from error

    def activation(self) -> bytes | None:
        """The activation record kept last, or None."""
        try:
            return (self._folder / "activation.json").read_bytes()
        except OSError:
            return None

    def _current(self) -> str | None:
        try:
            slot = (self._folder / "current").read_text().strip()
        except FileNotFoundError:
            return None
        except (OSError, UnicodeDecodeError) as error:
            raise BundleError(f"cannot read {self._folder}: {error}") from error
        if slot not in ("a", "b"):
            raise BundleError(f"{self._folder / 'current'} is damaged")
        return slot


def _other(slot: str | None) -> str:
    return "b" if slot == "a" else "a"


def _payload(folder: Path) -> bytes | None:
    try:
        return (folder / MANIFEST).read_bytes()
    except FileNotFoundError:
        return None


def replace_durably(path: Path, data: bytes) -> None:
    """Write a file so that after a crash it holds `data` or what it held before.

    Raises:
        OSError: it cannot be written; it holds what it held before.
    """
    fresh = path.with_name(f"{path.name}.new")
    _write_durably(fresh, data)
    fresh.replace(path)
    _sync_folder(path.parent)


def _write_durably(path: Path, data: bytes) -> None:
    with path.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def _sync_folder(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
