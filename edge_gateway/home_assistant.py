"""When Home Assistant is told of the site: what is said is in `ddnn.home_assistant`.

The message is retained, and published again on every connect, at every change of bundle and
whenever Home Assistant says that it has started: a broker or a Home Assistant that has forgotten
everything has its device back.

What was announced is kept in a file, so that nothing of it stays behind: turned off, or with
another prefix, the gateway clears the topic of before; with a bundle of fewer cameras it takes
their entities away first. Without a folder for that it knows of this process's own only.
"""

from __future__ import annotations

import logging
from pathlib import Path

import msgspec

from ddnn import home_assistant, topics
from ddnn.bundle import Manifest
from ddnn.message import Publish
from ddnn.store import replace_durably

log = logging.getLogger(__name__)


class Announced(msgspec.Struct, frozen=True):
    """What Home Assistant has been told: where, and the platform of each component."""

    topic: str
    components: dict[str, str]


#: Made once: see `ddnn.bundle`.
_DECODER = msgspec.json.Decoder(Announced)


class HomeAssistant:
    """Announces one site.

    Args:
        site: of the gateway.
        prefix: of discovery; empty: the site is not announced.
        version: of this program.
        folder: where to keep what was announced; None: nowhere.
    """

    def __init__(self, site: str, prefix: str, version: str, folder: Path | None) -> None:
        self._site = site
        self._prefix = prefix
        self._version = version
        self._path = folder / f"{site}.home-assistant.json" if folder else None
        self._manifest: Manifest | None = None
        self._before = self._read()
        self.birth_topic = topics.home_assistant_status(prefix) if prefix else None

    def on_connected(self) -> list[Publish]:
        """The broker is there (again)."""
        return self._clear() + self._announce()

    def on_bundle(self, manifest: Manifest) -> list[Publish]:
        """The site runs this bundle, now or soon."""
        self._manifest = manifest
        return self._announce()

    def on_birth(self, payload: bytes) -> list[Publish]:
        """Home Assistant says something of itself."""
        return self._announce() if payload == home_assistant.BIRTH else []

    def _clear(self) -> list[Publish]:
        """Clear the topic of another prefix, or of a setting that is off now."""
        before = self._before
        own = topics.discovery(self._prefix, self._site) if self._prefix else ""
        if before is None or before.topic == own:
            return []
        self._keep(None)
        log.info("Home Assistant is told no more on %s", before.topic)
        return [home_assistant.removal(before.topic)]

    def _announce(self) -> list[Publish]:
        manifest = self._manifest
        if not self._prefix or manifest is None:
            return []
        found = home_assistant.components(self._site, manifest)
        now = Announced(
            topics.discovery(self._prefix, self._site),
            {name: str(component["platform"]) for name, component in found.items()},
        )
        before = self._before.components if self._before else {}
        gone = {name: platform for name, platform in before.items() if name not in found}
        if now != self._before:
            self._keep(now)
        say = (self._site, manifest, self._prefix, self._version)
        parting = [home_assistant.discovery(*say, gone=gone)] if gone else []
        return [*parting, home_assistant.discovery(*say)]

    def _read(self) -> Announced | None:
        if self._path is None:
            return None
        try:
            return _DECODER.decode(self._path.read_bytes())
        except FileNotFoundError:
            return None
        except (OSError, msgspec.DecodeError, UnicodeDecodeError) as error:
            log.warning("what Home Assistant was told is not known: %s: %s", self._path, error)
            return None

    def _keep(self, announced: Announced | None) -> None:
        self._before = announced
        if self._path is None:
            return
        try:
            if announced is None:
                self._path.unlink(missing_ok=True)
            else:
                self._path.parent.mkdir(parents=True, exist_ok=True)
                replace_durably(self._path, msgspec.json.encode(announced))
        except OSError as error:
            log.warning("what Home Assistant is told is not kept: %s", error)
