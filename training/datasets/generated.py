"""The built-in data set: one new object per scene, rendered for six cameras at once.

Everything about sample i follows from (seed, i) alone; the surroundings and the object have
random generators of their own, so nothing in a view without the object depends on its class.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ddnn.errors import DataError
from training.datasets.base import MultiCameraSet
from training.datasets.objects import CLASSES, build
from training.datasets.renderer import SUPERSAMPLING, Floats, draw, shade, shrink
from training.datasets.scene import (
    CAMERAS,
    Environment,
    Site,
    build_site,
    choose_place,
    draw_environment,
)

SAMPLES = 851
SIZE_PX = 32
SHARES = (0.4, 0.2, 0.4)  # of CLASSES
SEEN_PX = 3.0  # visible area (pixels of a 32 x 32 picture) from which an object counts as seen
_OBJECT = 2
_SENSOR = 3  # number of the sensors' own stream of random numbers


@dataclass(frozen=True)
class Scene:
    """One sample with what is known about it.

    images (D, H, W, 3) uint8; seen (D,) bool; mask (D, H, W) float32, the object's share of each
    pixel (all 0 where it is not seen); foot (3,) metres, where it stands on the ground; heading:
    direction of travel, radians.
    """

    images: NDArray[np.uint8]
    seen: NDArray[np.bool_]
    mask: Floats
    foot: NDArray[np.float64]
    heading: float


@cache
def _site(side: int) -> Site:
    return build_site(side)


def _develop(
    linear: Floats, environment: Environment, camera: int, exposure: np.float32, noise: Floats
) -> NDArray:
    """From light (3, H, W) to an 8-bit picture (H, W, 3): exposure, noise, tone curve."""
    size = linear.shape[-1]
    offset = (np.arange(size, dtype=np.float32) + 0.5) / size - 0.5
    corner = 1 - 0.35 * (offset[:, None] ** 2 + offset[None, :] ** 2)
    light = (
        linear
        * exposure
        * (environment.cast[camera] * environment.gain[camera])[:, None, None]
        * corner
    )
    light = np.maximum(light, 0)
    # Photon noise grows with the root of the light, on top of the sensor's own.
    light = light + noise * environment.noise[camera] * (0.4 + np.sqrt(light))
    picture = np.clip(light, 0, 1) ** np.float32(1 / 2.2)
    # Seven bits, as from a cheap sensor: the eighth would be noise, and half of the file. Never
    # zero, so that no picture is mistaken for a blank one.
    return (np.rint(picture * 126) * 2 + 2).astype(np.uint8).transpose(1, 2, 0)


def render_scene(label: int | None, seed: int, index: int, size: int = SIZE_PX) -> Scene:
    """Render sample `index` of `seed` with an object of class `label` (None: without one)."""
    lit = _light_scene(label, seed, index, size)
    sensor = np.random.default_rng([seed, index, _SENSOR])
    return Scene(_take(lit, sensor), lit.seen, lit.mask, lit.foot, lit.heading)


def render_shots(
    label: int | None, seed: int, index: int, light: Floats, size: int = SIZE_PX
) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    """Pictures one after the other of one scene: the same but for the sensors' noise.

    light: (T,) how bright the scene is in each of them; the cameras do not adjust. Returns images
    (T, D, size, size, 3) and seen (D,).
    """
    lit = _light_scene(label, seed, index, size)
    # Other noise than in `render_scene`'s picture, and than with another label.
    sensor = np.random.default_rng([seed, index, _SENSOR, 1 if label is None else 2 + label])
    return np.stack([_take(lit, sensor, float(level)) for level in light]), lit.seen


@dataclass(frozen=True)
class _Lit:
    """A scene before the sensors: light (D, 3, H, W), and each camera's exposure (D,)."""

    linear: list[Floats]
    exposure: list[np.float32]
    environment: Environment
    seen: NDArray[np.bool_]
    mask: Floats
    foot: NDArray[np.float64]
    heading: float


def _take(lit: _Lit, sensor: np.random.Generator, level: float = 1.0) -> NDArray[np.uint8]:
    """One picture (D, H, W, 3) by each camera."""
    pictures = []
    for camera, (linear, exposure) in enumerate(zip(lit.linear, lit.exposure, strict=True)):
        noise = sensor.standard_normal(linear.shape, np.float32)
        exposed = exposure * np.float32(level)
        pictures.append(_develop(linear, lit.environment, camera, exposed, noise))
    return np.stack(pictures)


def _light_scene(label: int | None, seed: int, index: int, size: int) -> _Lit:
    place_rng, object_rng, surroundings = (
        np.random.default_rng([seed, index, stream]) for stream in range(_SENSOR)
    )
    foot, heading = choose_place(place_rng)
    if label is not None and CLASSES[label] == "person":
        heading = float(object_rng.uniform(0, 2 * np.pi))
    solids = [] if label is None else build(CLASSES[label], object_rng, heading, foot)
    environment = draw_environment(surroundings)
    site = _site(size * SUPERSAMPLING)
    # A pixel of a larger picture covers less: keep the meaning of "seen" at any size.
    least = SEEN_PX * (size / SIZE_PX) ** 2
    lights, exposures, seen, masks = [], [], [], []
    for number in range(len(CAMERAS)):
        empty = site.empty[number].copy()
        draw(empty, environment.things, 1)
        full = empty.copy()
        draw(full, solids, _OBJECT)
        mask = shrink((full.owner == _OBJECT).astype(np.float32), SUPERSAMPLING)
        visible = float(mask.sum()) >= least
        casters = site.casters + environment.things
        without = shade(empty, environment.light, casters)
        # The camera had set its exposure before the object came.
        exposure = np.float32(0.22 / without.mean())
        # Below the limit the object is left out with its shadow: an unseen view shows nothing
        # of it, not even a sliver that would tell a network what a person cannot tell.
        linear = shade(full, environment.light, casters + solids) if visible else without
        lights.append(shrink(linear, SUPERSAMPLING))
        exposures.append(exposure)
        seen.append(visible)
        masks.append(mask if visible else np.zeros_like(mask))
    return _Lit(lights, exposures, environment, np.array(seen), np.stack(masks), foot, heading)


def draw_labels(samples: int, seed: int) -> NDArray[np.int64]:
    """Labels (N,) in random order, in the same shares in training (the first 80 %) and test."""
    rng = np.random.default_rng([seed, 2**20])
    parts = []
    for size in (_train_size(samples), samples - _train_size(samples)):
        counts = [round(size * share) for share in SHARES[1:]]
        labels = np.repeat(np.arange(len(CLASSES)), [size - sum(counts), *counts])
        parts.append(rng.permutation(labels))
    return np.concatenate(parts).astype(np.int64)


def _train_size(samples: int) -> int:
    return samples * 4 // 5


def generate(
    samples: int = SAMPLES,
    seed: int = 0,
    size: int = SIZE_PX,
    progress: Callable[[int, int], None] | None = None,
) -> MultiCameraSet:
    """Render a data set: images (N, 6, size, size, 3) uint8, the first 80 % for training.

    An object that no camera sees is moved on: the sample is drawn again from its next index
    block, so that every sample shows its object somewhere. progress(done, total) is called
    after every sample. Raises DataError for sizes that make no sense.
    """
    if samples < 5 or not 8 <= size <= 512:
        raise DataError(
            f"cannot generate {samples} samples of {size} x {size}: "
            "need at least 5 samples and a size of 8 to 512"
        )
    labels = draw_labels(samples, seed)
    images = np.empty((samples, len(CAMERAS), size, size, 3), np.uint8)
    seen = np.empty((samples, len(CAMERAS)), bool)
    for index in range(samples):
        for attempt in range(20):
            scene = render_scene(int(labels[index]), seed, index + attempt * 2**24, size)
            if scene.seen.any():
                break
        images[index], seen[index] = scene.images, scene.seen
        if progress is not None:
            progress(index + 1, samples)
    split = _train_size(samples)
    return MultiCameraSet(
        images=images,
        labels=labels,
        seen=seen,
        present=np.ones_like(seen),
        classes=CLASSES,
        name="generated",
        train=np.arange(split),
        test=np.arange(split, samples),
    )


def built_in_path() -> Path:
    """Where the built-in set (seed 0) lies in a checkout."""
    return Path(__file__).resolve().parents[2] / "data" / "generated.npz"
