"""What a bundle makes of the slots, for a person to agree or disagree with. No torch."""

from __future__ import annotations

import logging
import threading
from collections.abc import Sequence
from pathlib import Path

from ddnn.bundle import Bundle
from ddnn.errors import DdnnError
from ddnn.evaluate import Evaluator
from ddnn.store import MANIFEST, read_folder
from training.labelling.board import Scenes
from training.labelling.queue import Suggestion
from training.recorded.images import load_pictures
from training.recorded.views import View

log = logging.getLogger(__name__)
#: Slots whose pictures are in memory at a time.
AT_ONCE = 500


def suggestions(
    bundle: Bundle, folder: Path, views: Sequence[View], slots: Sequence[int]
) -> dict[int, Suggestion]:
    """Slot -> suggestion. Cameras that the bundle does not know are left out.

    Raises:
        BundleError: a section cannot be loaded.
        DataError: a picture cannot be read.
    """
    manifest = bundle.manifest
    evaluator = Evaluator(bundle)
    image = manifest.image
    shape = image.height, image.width, image.channels
    found: dict[int, Suggestion] = {}
    for begin in range(0, len(slots), AT_ONCE):
        part = slots[begin : begin + AT_ONCE]
        pictures = load_pictures(folder, views, part, manifest.topology.cameras, shape)
        result = evaluator.evaluate(pictures.images, pictures.present)
        for number, slot in enumerate(pictures.slots):
            if result.label[number] >= 0:
                found[int(slot)] = Suggestion(
                    manifest.classes[result.label[number]],
                    float(result.probability[number]),
                    float(result.entropy[number]),
                )
    return found


class Suggester:
    """Keeps a board's suggestions those of the bundle in a folder, also when that is replaced.

    Args:
        bundle: the bundle's folder; nothing need be there yet. None: no suggestions.
        folder, views, scenes: of the data set; the scenes get the suggestions.

    Attributes:
        source: the bundle in words; empty without one.
    """

    def __init__(
        self, bundle: Path | None, folder: Path, views: Sequence[View], scenes: Scenes
    ) -> None:
        self.source = ""
        self._bundle = bundle
        self._folder = folder
        self._views = views
        self._scenes = scenes
        self._asked: tuple[int, int] | None = None
        self._guard = threading.Lock()

    def load(self) -> None:
        """Ask the bundle, if there is one that was not asked before.

        Raises:
            DdnnError: it, or a picture, cannot be used; the suggestions stay as they are.
        """
        if self._bundle is None:
            return
        with self._guard:
            try:
                stat = (self._bundle / MANIFEST).stat()
            except OSError:
                return  # none yet, or just being replaced
            version = stat.st_mtime_ns, stat.st_ino
            if version == self._asked:
                return
            loaded = read_folder(self._bundle)
            said = suggestions(loaded, self._folder, self._views, self._scenes.slots)
            self._asked = version
            self._scenes.suggestions = said
            self.source = f"{loaded.manifest.name}, version {loaded.manifest.version}"

    def refresh(self) -> None:
        """`load` for a running page: what cannot be used is said in the log."""
        try:
            self.load()
        except DdnnError as error:
            log.warning("no new suggestions: %s", error)
