"""Checks of what a node will run: trusted keys and the factory bundle."""

from __future__ import annotations

import time
from pathlib import Path

from ddnn.config import NodeSettings
from ddnn.doctor.finding import Finding
from ddnn.errors import BundleError, ConfigError
from ddnn.key_files import check_keys, trust_of
from ddnn.signing import seal
from ddnn.store import read_folder
from ddnn.trust import ClockError, TierName


def check_trust(settings: NodeSettings, site: str, tier: TierName) -> Finding:
    """Whose bundles this node would run."""
    try:
        check_keys(settings)
    except ConfigError as error:
        return Finding("trust", "failure", str(error), "copy the file here, or name the right one")
    note = trust_of(settings, site, tier).note
    if note is None:
        return Finding("trust", "ok", f"bundles signed by the keys in {settings.trusted_keys}")
    return Finding("trust", "warning", note, "ddnn keys trust, and give this node the file")


def check_factory(settings: NodeSettings, site: str, tier: TierName, folder: str) -> Finding:
    """Whether this node would start with its factory bundle."""
    if not folder:
        return Finding("bundle", "skipped", "no factory bundle")
    try:
        bundle = read_folder(Path(folder))
        sealed = seal(bundle.payload, bundle.signatures)
        trust_of(settings, site, tier).admit(sealed, time.time())
    except ClockError as error:
        return Finding("bundle", "warning", f"{folder}: {error}", "it is judged when the clock is")
    except BundleError as error:
        return Finding(
            "bundle",
            "failure",
            f"{folder}: {error}",
            "ddnn keys sign BUNDLE --key KEY, with a key that this node trusts",
        )
    said = f"version {bundle.manifest.version} of {', '.join(bundle.manifest.classes)}"
    return Finding("bundle", "ok", f"starts without a broker: {said}")
