"""What a bundle makes of the slots, for a person to agree or disagree with. No torch."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ddnn.bundle import Bundle
from ddnn.evaluate import Evaluator
from training.labelling.queue import Suggestion
from training.recorded.images import load_pictures
from training.recorded.views import View

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
