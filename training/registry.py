"""What was published, kept by the publisher: one bundle folder for each version of each site."""

from __future__ import annotations

import os
from pathlib import Path
from typing import NamedTuple

from ddnn.bundle import Bundle
from ddnn.errors import BundleError
from ddnn.store import MANIFEST, read_folder, write_folder


class Entry(NamedTuple):
    """One published bundle."""

    version: int
    short_id: str
    path: Path


def default_folder() -> Path:
    """`$XDG_DATA_HOME/ddnn/registry`, or what the XDG convention says instead."""
    base = os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share"
    return Path(base) / "ddnn" / "registry"


class Registry:
    """Bundles by site and version, below one folder.

    Args:
        folder: None: `default_folder`.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self.folder = folder or default_folder()

    def keep(self, site: str, bundle: Bundle) -> Path:
        """Keep a published bundle.

        Raises:
            BundleError: it cannot be written.
        """
        path = self.folder / site / f"{bundle.manifest.version:08d}-{bundle.bundle_id[:12]}"
        write_folder(path, bundle)
        return path

    def entries(self, site: str) -> list[Entry]:
        """What was published to `site`, oldest version first."""
        found = []
        for path in (self.folder / site).glob(f"*-*/{MANIFEST}"):
            version, _, short_id = path.parent.name.partition("-")
            if version.isdigit():
                found.append(Entry(int(version), short_id, path.parent))
        return sorted(found)

    def find(self, site: str, wanted: str) -> Bundle:
        """The bundle with this version, or with an id that begins so.

        Raises:
            BundleError: there is none, or several.
        """
        entries = self.entries(site)
        chosen = [e for e in entries if wanted == str(e.version)] or [
            e for e in entries if e.short_id.startswith(wanted[:12])
        ]
        if len(chosen) != 1:
            known = ", ".join(f"{e.version} ({e.short_id})" for e in entries) or "none"
            raise BundleError(
                f"{len(chosen)} bundles of site {site} in {self.folder} are {wanted!r}; "
                f"there are: {known}"
            )
        return read_folder(chosen[0].path)
