"""Small recordings for tests: shapes as cameras would have recorded and a person labelled them."""

from datetime import UTC, datetime

import numpy as np

from device_agent.recording import Shelf, png
from tests.arm64.bundles import random_bundle
from training.recorded.labels import CLASSES as CLASS_FILE
from training.recorded.labels import HEADER, LABELS
from training.recorded.views import PICTURES, gather, write_views

START = 1_770_000_000
CLASSES = ("disc", "cross", "ring")


def shape_picture(label, random, size=16):
    """A noisy picture (size, size, 3) uint8 of a disc, a cross or a ring somewhere in it."""
    row, column = random.uniform(0.35, 0.65, 2) * size
    y, x = np.mgrid[:size, :size]
    distance = np.hypot(y - row, x - column)
    inside = {
        "disc": distance < 0.28 * size,
        "cross": (abs(y - row) < 0.08 * size) | (abs(x - column) < 0.08 * size),
        "ring": (distance < 0.36 * size) & (distance > 0.22 * size),
    }[label]
    ground = random.integers(20, 90, 3)
    picture = np.where(inside[..., None], ground + random.integers(90, 150), ground)
    return np.clip(picture + random.normal(0, 6, (size, size, 3)), 1, 255).astype(np.uint8)


def slots_of(count, every=20, stretch=10, pause=600):
    """Slot numbers (of one second): stretches of `stretch`, with a pause between them."""
    return [START + n * every + n // stretch * pause for n in range(count)]


def record(folder, labels, cameras, slots, *, seed=0, size=16, absent=0.2):
    """What the cameras' own recorders write of scenes of these labels."""
    random = np.random.default_rng(seed)
    shelves = [Shelf(folder, camera, 10**9) for camera in range(cameras)]
    for slot, label in zip(slots, labels, strict=True):
        when = datetime.fromtimestamp(slot, UTC)
        there = random.random(cameras) >= absent
        there[random.integers(cameras)] = True
        for shelf, seen in zip(shelves, there, strict=True):
            if seen:
                shelf.put(slot, when, png(shape_picture(label, random, size)), None, ("every", 3))
            else:
                shelf.note(slot, when, ("absent", 3))


def labelled_folder(folder, count=90, cameras=2, classes=CLASSES, **how):
    """A collected and labelled data set; the classes in turn, a stretch of time each."""
    folder.mkdir(parents=True, exist_ok=True)
    slots = how.pop("slots", None) or slots_of(count)
    labels = how.pop("labels", None) or [classes[n // 5 % len(classes)] for n in range(count)]
    record(folder / PICTURES, labels, cameras, slots, **how)
    write_views(folder, gather(folder).views)
    (folder / CLASS_FILE).write_text("".join(f"{name}\n" for name in classes))
    rows = (f"{slot},{label},\n" for slot, label in zip(slots, labels, strict=True))
    (folder / LABELS).write_text(HEADER + "".join(rows))
    return folder


def small_bundle(cameras=2, size=16, seed=1):
    """A bundle of random weights for such pictures; its classes are others."""
    everybody = (tuple(range(cameras)),)
    return random_bundle(seed, (size, size, 3), (4,), everybody, (8,), (8,), "CC")
