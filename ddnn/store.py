"""Bundles on disk.

A bundle folder holds `manifest.json` and `sections/<role, "/" as "-">.onnx`. A node keeps its
last good bundle in a `BundleStore`, written so that a loss of power at any moment leaves either
the old bundle or the new one.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

from ddnn.bundle import Bundle, Manifest, assemble, decode_manifest
from ddnn.errors import BundleError

MANIFEST = "manifest.json"


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
    except OSError as error:
        raise BundleError(f"no bundle can be read at {path}: {error}") from error
    return assemble(payload, sections, wanted)


class BundleStore:
    """The last good bundle of one node, kept in a folder of its own.

    Two slots, `a` and `b`, and the file `current` that names one of them. A new bundle goes to
    the other slot and becomes current by one atomic rename.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = Path(folder)

    def load(self, roles: Callable[[Manifest], set[str]]) -> Bundle | None:
        """The current bundle, or None if there is none.

        Raises:
            BundleError: what is there is damaged.
        """
        try:
            slot = (self._folder / "current").read_text().strip()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise BundleError(f"cannot read {self._folder}: {error}") from error
        if slot not in ("a", "b"):
            raise BundleError(f"{self._folder / 'current'} is damaged")
        return read_folder(self._folder / slot, roles)

    def save(self, bundle: Bundle) -> None:
        """Keep `bundle` as the current one.

        Raises:
            BundleError: it cannot be written; the bundle kept before stays current.
        """
        current = self._folder / "current"
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            old = current.read_text().strip() if current.exists() else "b"
            slot = "b" if old == "a" else "a"
            write_folder(self._folder / slot, bundle)
            _write_durably(self._folder / "current.new", f"{slot}\n".encode())
            (self._folder / "current.new").rename(current)
            _sync_folder(self._folder)
        except OSError as error:
            raise BundleError(f"cannot keep the bundle in {self._folder}: {error}") from error


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


def replace_durably(path: Path, data: bytes) -> None:
    """Write a file so that after a crash it holds `data` or what it held before.

    Raises:
        OSError: it cannot be written; it holds what it held before.
    """
    fresh = path.with_name(f"{path.name}.new")
    _write_durably(fresh, data)
    fresh.rename(path)
    _sync_folder(path.parent)
