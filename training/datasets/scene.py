"""The place that the generated data set shows: a small roundabout watched by six cameras.

Objects pass or stand at one of four places on the ring. Four places make six pairs: five cameras
look along a pair each (a near place, a far place), the sixth is a wide overview of three. So
which cameras see an object follows from where it is, for all classes alike, and the presence
rates follow from how often each place is used (`PLACE_SHARES`).
"""

from dataclasses import dataclass

import numpy as np

from training.datasets.objects import PALETTE, pick, rgb
from training.datasets.renderer import (
    FAR,
    Buffers,
    Camera,
    Floats,
    Light,
    Solid,
    ball,
    block,
    draw,
    frustum,
    limb,
    look_at,
    place,
    tube,
)

PLACES = ((-4.0, -4.0), (4.0, -4.0), (-4.0, 4.0), (4.0, 4.0))  # metres
PLACE_SHARES = (0.19, 0.22, 0.24, 0.35)

# The paper's presence rates are .39 .42 .52 .57 .75 .59; the pairs are chosen to come near them.
CAMERAS: tuple[Camera, ...] = (
    look_at((-17.0, -4.0, 4.0), (0.0, -4.0, 0.85), 18.5),
    look_at((-4.0, 17.0, 4.2), (-4.0, 0.0, 0.85), 18.5),
    look_at((13.2, 13.2, 4.4), (0.0, 0.0, 0.85), 18.5),
    look_at((4.0, -17.0, 3.9), (4.0, 0.0, 0.85), 18.5),
    look_at((-9.9, 9.9, 4.4), (2.6, 1.2, 0.3), 43.0),  # OVERVIEW
    look_at((17.0, 4.0, 4.1), (0.0, 4.0, 0.85), 18.5),
)

OVERVIEW = 4
# Parked things before each camera: at most how many, and the chance of each.
CLUTTER = ((1, 0.25), (1, 0.25), (1, 0.25), (1, 0.25), (2, 0.7), (1, 0.6))
NOISE = (1.0, 1.0, 1.0, 1.0, 7.0, 1.0)  # an older sensor in the overview
_OWNER_SCENE = 1
_SITE_SEED = 20170905  # fixes the look of the place, whatever the samples' seed


@dataclass(frozen=True)
class Environment:
    """What differs from scene to scene besides the object."""

    light: Light
    things: list[Solid]  # parked things, which may hide the object
    gain: Floats  # (D,) exposure
    cast: Floats  # (D, 3) white balance
    noise: Floats  # (D,) sensor noise, share of full scale


# ---------------------------------------------------------------------------------- the place


def _lattice(u: Floats, v: Floats, table: Floats) -> Floats:
    """Smooth noise: bilinear look-up in a square table that repeats."""
    n = len(table)
    i, j = np.floor(u).astype(int), np.floor(v).astype(int)
    a, b = u - i, v - j
    i, j = i % n, j % n
    k, m = (i + 1) % n, (j + 1) % n
    upper = table[i, j] * (1 - a) + table[k, j] * a
    return upper * (1 - b) + (table[i, m] * (1 - a) + table[k, m] * a) * b


def _ground_colour(x: Floats, y: Floats) -> Floats:
    """Reflectance (3, M) of the ground at x, y (M,): ring road, kerb, paving, grass."""
    table = np.random.default_rng(_SITE_SEED).random((64, 64)).astype(np.float32)
    grain = 0.6 * _lattice(x * 1.1, y * 1.1, table) + 0.4 * _lattice(x * 4.3, y * 4.3, table)
    radius = np.hypot(x, y)
    arm = np.minimum(np.abs(x), np.abs(y))  # distance from the middle of the roads leading out
    road = (radius < 8.2) | ((arm < 2.2) & (radius < 60))
    kerb = ~road & ((radius < 8.55) | (arm < 2.5))
    paved = ~road & ~kerb & (radius < 13.5)
    seam = (np.mod(x, 1.2) < 0.09) | (np.mod(y, 1.2) < 0.09)
    out = np.empty((3, x.size), np.float32)
    out[:] = rgb(86, 120, 58)[:, None] * (0.55 + 0.9 * grain)
    out[:, paved] = rgb(168, 160, 148)[:, None] * (0.8 + 0.35 * grain[paved])
    out[:, paved & seam] *= 0.72
    out[:, kerb] = rgb(196, 194, 188)[:, None] * (0.8 + 0.3 * grain[kerb])
    out[:, road] = rgb(126, 126, 128)[:, None] * (0.75 + 0.4 * grain[road])
    angle = np.arctan2(y, x)
    dash = (np.abs(radius - 6.0) < 0.1) & (np.mod(angle * 6.0 / 1.6, 1) < 0.5)
    edge = road & (np.abs(radius - 7.9) < 0.08)
    zebra = (arm < 2.0) & (radius > 9.0) & (radius < 11.5) & (np.mod(arm, 0.9) < 0.45)
    out[:, dash | edge | (zebra & road)] = rgb(222, 222, 214)[:, None]
    return out


def _tree(x: float, y: float, height: float, rng: np.random.Generator) -> list[Solid]:
    trunk = tube((x, y, 0), (x, y, 0.6 * height), 0.13, rgb(82, 62, 46))
    crown = []
    for _ in range(3):
        dx, dy, dz = rng.uniform(-0.5, 0.5, 3)
        green = rgb(58, 100, 46) * rng.uniform(0.7, 1.4)
        radii = tuple(rng.uniform(0.7, 1.15, 3))
        crown.append(ball((x + dx, y + dy, 0.75 * height + dz), radii, green))
    return [trunk, *crown]


def _fixtures() -> tuple[list[Solid], list[Solid]]:
    """Houses around the place, and what stands in it for good (island, trees, lamp posts)."""
    rng = np.random.default_rng(_SITE_SEED + 1)
    plaster = [rgb(205, 190, 165), rgb(180, 110, 85), rgb(200, 200, 196), rgb(150, 140, 150)]
    houses = []
    for turn in range(4):
        for offset in (-22.0, -9.0, 9.0, 22.0):
            size = (rng.uniform(10.0, 12.5), 6.0, rng.uniform(5.0, 10.0))
            house = block((offset, 24.0 + rng.uniform(0, 2), 0), size, pick(rng, plaster))
            houses.append(place(house, turn * np.pi / 2, (0, 0, 0)))
    inside = [
        tube((0, 0, 0), (0, 0, 0.3), 1.7, rgb(150, 148, 140)),
        ball((0, 0, 0.25), (1.45, 1.45, 0.3), rgb(70, 110, 55)),
        frustum((0, 0, 0.3), (0.8, 0.8), (0.55, 0.55), 0.9, rgb(170, 165, 155)),
    ]
    for x, y in ((-17, -8), (-9, -17), (8, -18), (18, -8), (18, 9), (9, 18), (-18, 8), (-12, 17.5)):
        inside += _tree(x, y, rng.uniform(4.0, 5.5), rng)
    for x, y in ((-9.3, -9.3), (9.3, -9.3), (-1.5, 9.5), (9.5, 1.5)):
        inside.append(tube((x, y, 0), (x, y, 5.5), 0.08, rgb(70, 74, 78)))
        inside.append(ball((x, y, 5.5), (0.3, 0.3, 0.15), rgb(230, 230, 220)))
    return houses, inside


def _paint_houses(buffers: Buffers) -> None:
    """Draw rows of windows on the walls of the houses (all of them upright)."""
    wall = (buffers.owner == _OWNER_SCENE) & (np.abs(buffers.normal[2]) < 0.5)
    x, y, z = buffers.points()[:, wall]
    normal = buffers.normal[:, wall]
    along = np.where(np.abs(normal[0]) > np.abs(normal[1]), y, x)
    pane = (np.mod(along, 2.1) > 0.65) & (np.mod(along, 2.1) < 1.65)
    pane &= (np.mod(z, 2.8) > 1.0) & (np.mod(z, 2.8) < 2.3)
    colour = buffers.albedo[:, wall]
    colour[:, pane] = rgb(58, 66, 80)[:, None]
    course = np.mod(z, 0.4) < 0.08
    colour[:, course & ~pane] *= 0.85
    buffers.albedo[:, wall] = colour


@dataclass(frozen=True)
class Site:
    """The fixed place as each camera sees it, computed once per picture size."""

    empty: tuple[Buffers, ...]
    casters: list[Solid]


def build_site(side: int) -> Site:
    """Cast every camera's rays (side x side) into the empty place."""
    houses, inside = _fixtures()
    empty = []
    for camera in CAMERAS:
        rays = camera.rays(side)
        shape = rays.shape[1:]
        down = np.minimum(rays[2], np.float32(-1e-6))
        depth = np.where(rays[2] < -1e-6, -camera.position[2] / down, FAR).astype(np.float32)
        normal = np.zeros((3, *shape), np.float32)
        normal[2] = 1
        buffers = Buffers(
            camera,
            rays,
            depth,
            normal,
            np.zeros((3, *shape), np.float32),
            np.zeros(shape, np.float32),
            np.zeros(shape, np.uint8),
        )
        ground = depth < 200
        x, y, _ = buffers.points()[:, ground]
        buffers.albedo[:, ground] = _ground_colour(x, y)
        # Above the horizon there is only sky, as bright as the sky light (see `shade`).
        buffers.albedo[:, ~ground] = 1
        draw(buffers, houses, _OWNER_SCENE)
        _paint_houses(buffers)
        draw(buffers, inside, 0)
        empty.append(buffers)
    return Site(tuple(empty), inside)


# ------------------------------------------------------------------------ what changes


def choose_place(rng: np.random.Generator) -> tuple[Floats, float]:
    """Where the object is: foot (3,) metres, and the direction of travel (radians)."""
    x, y = PLACES[rng.choice(len(PLACES), p=PLACE_SHARES)]
    outward = np.array([x, y]) / np.hypot(x, y)
    tangent = np.array([-outward[1], outward[0]])
    foot = np.array([x, y]) + rng.uniform(-0.6, 0.6) * tangent + rng.uniform(-0.35, 0.35) * outward
    heading = np.arctan2(tangent[1], tangent[0]) + rng.uniform(-0.2, 0.2)
    if rng.random() < 0.5:
        heading += np.pi
    return np.array([*foot, 0.0]), float(heading)


def _thing(rng: np.random.Generator, x: float, y: float) -> list[Solid]:
    """Something parked at x, y that can stand in the way."""
    kind = rng.choice(["bin", "box", "post", "hedge", "board", "tree"])
    yaw, at = rng.uniform(0, np.pi), (x, y, 0.0)
    if kind == "bin":
        parts = [tube((0, 0, 0), (0, 0, 1.05), 0.3, pick(rng, PALETTE))]
    elif kind == "box":
        size = (rng.uniform(0.5, 1.0), rng.uniform(0.5, 1.0), rng.uniform(0.6, 1.5))
        parts = [block((0, 0, 0), size, pick(rng, PALETTE))]
    elif kind == "post":
        parts = [tube((0, 0, 0), (0, 0, 3.6), 0.09, rgb(120, 122, 126))]
    elif kind == "hedge":
        green = rgb(62, 98, 48) * rng.uniform(0.7, 1.3)
        parts = [limb((-0.9, 0, 0.5), (0.9, 0, 0.5), 0.55, green)]
    elif kind == "board":
        parts = [
            block((0, 0, 0.9), (1.1, 0.06, 0.9), pick(rng, PALETTE)),
            tube((0, 0, 0), (0, 0, 0.9), 0.05, rgb(90, 90, 95)),
        ]
    else:
        return _tree(x, y, rng.uniform(3.2, 4.2), rng)
    return [place(part, yaw, at) for part in parts]


def _container(rng: np.random.Generator, x: float, y: float, yaw: float) -> list[Solid]:
    """A windowless container that hides nearly all behind it."""
    size = (rng.uniform(2.2, 3.2), 1.0, rng.uniform(2.3, 2.7))
    paint = pick(rng, PALETTE)
    parts = [block((0, 0, 0.1), size, paint)]
    for x_rib in (-0.9, -0.3, 0.3, 0.9):
        parts.append(block((x_rib, 0, 0.15), (0.08, 1.06, size[2] - 0.1), paint * 0.7))
    return [place(part, yaw, (x, y, 0.0)) for part in parts]


def draw_environment(rng: np.random.Generator, hidden: float = 0.025) -> Environment:
    """Light, parked things and camera settings of one scene.

    hidden: chance per camera that a container is parked right in front of it.
    """
    azimuth, height = rng.uniform(0, 2 * np.pi), np.radians(rng.uniform(28, 62))
    toward = np.array(
        [np.cos(azimuth) * np.cos(height), np.sin(azimuth) * np.cos(height), np.sin(height)]
    )
    clear = rng.uniform(0.3, 1.0)  # overcast .. sunny
    warm = rng.uniform(-0.06, 0.08)
    light = Light(
        toward.astype(np.float32),
        np.asarray(np.array([1 + warm, 1.0, 1 - warm]) * (0.25 + 1.15 * clear), np.float32),
        np.asarray(np.array([0.92, 0.98, 1.08]) * (0.75 - 0.35 * clear), np.float32),
        rng.uniform(0.001, 0.008),
    )
    things: list[Solid] = []
    for number, camera in enumerate(CAMERAS):
        ahead = camera.rotation[2, :2] / np.linalg.norm(camera.rotation[2, :2])
        aside = np.array([-ahead[1], ahead[0]])
        if rng.random() < hidden:
            x, y = camera.position[:2] + 6.0 * ahead + rng.uniform(-0.3, 0.3) * aside
            yaw = float(np.arctan2(aside[1], aside[0])) + rng.uniform(-0.15, 0.15)
            things += _container(rng, x, y, yaw)
        for _ in range(rng.binomial(*CLUTTER[number])):
            # Off the middle of the picture more often than in it; the wide overview stands
            # among planters that fill more of its view.
            wide = number == OVERVIEW
            reach = rng.uniform(3.2, 4.6) if wide else rng.uniform(5.0, 7.0)
            offset = rng.choice([-1, 1]) * rng.uniform(0.1 if wide else 0.6, 1.4)
            x, y = camera.position[:2] + reach * ahead + offset * aside
            things += _thing(rng, float(x), float(y))
    count = len(CAMERAS)
    return Environment(
        light,
        things,
        np.exp(rng.normal(0, 0.06, count)).astype(np.float32),
        np.exp(rng.normal(0, 0.02, (count, 3))).astype(np.float32),
        (rng.uniform(0.002, 0.005, count) * NOISE).astype(np.float32),
    )
