"""The things that the generated data set shows: cars, buses and people, built from solids.

Each builder returns solids in the object's own frame (metres; x forward, y left, z up, the
object's foot at the origin) and draws everything about it from the generator it is given. All
classes take their colours from the same palette: colour alone gives no class away.
"""

import numpy as np

from training.datasets.renderer import Solid, ball, block, frustum, limb, place, tube

CLASSES = ("car", "bus", "person")


def rgb(red: float, green: float, blue: float) -> np.ndarray:
    """Linear RGB reflectance from the usual 0..255 screen values."""
    return (np.array([red, green, blue]) / 255) ** 2.2


PALETTE = [
    rgb(235, 235, 230),
    rgb(190, 195, 200),
    rgb(110, 115, 120),
    rgb(45, 45, 50),
    rgb(200, 40, 35),
    rgb(150, 30, 40),
    rgb(40, 80, 190),
    rgb(30, 50, 100),
    rgb(60, 150, 215),
    rgb(45, 140, 70),
    rgb(240, 195, 40),
    rgb(240, 130, 35),
    rgb(170, 130, 85),
    rgb(130, 70, 150),
]
_GLASS = rgb(38, 48, 62)
_TYRE = rgb(25, 25, 27)
_RIM = rgb(150, 152, 156)
_LAMP = rgb(255, 250, 225)
_TAIL = rgb(225, 25, 20)
_SKIN = [rgb(245, 205, 170), rgb(215, 165, 125), rgb(150, 100, 65), rgb(95, 62, 42)]
_HAIR = [rgb(30, 25, 22), rgb(85, 55, 35), rgb(200, 165, 100), rgb(150, 150, 150)]


def pick(rng: np.random.Generator, colours: list[np.ndarray]) -> np.ndarray:
    """One of the colours, a little lighter or darker."""
    return np.clip(colours[rng.integers(len(colours))] * rng.uniform(0.8, 1.2), 0, 1)


def _wheels(length: float, width: float, radius: float, inset: float) -> list[Solid]:
    parts = []
    for x in (length / 2 - inset, -length / 2 + inset):
        for side in (1, -1):
            outer = side * (width / 2 + 0.03)
            parts.append(tube((x, outer - side * 0.26, radius), (x, outer, radius), radius, _TYRE))
            rim = (x, outer + side * 0.015, radius)
            parts.append(tube((x, outer, radius), rim, 0.58 * radius, _RIM))
    return parts


def car(rng: np.random.Generator) -> list[Solid]:
    """A hatchback, saloon, estate or small off-roader, 3.4 to 4.9 m long."""
    paint = pick(rng, PALETTE)
    length, width = rng.uniform(3.4, 4.9), rng.uniform(1.65, 1.9)
    wheel = rng.uniform(0.31, 0.38)
    waist = rng.uniform(0.78, 0.98)  # top of the lower body
    roof = waist + rng.uniform(0.48, 0.66)
    rear = rng.choice([0.04, 0.10, 0.24])  # estate, hatchback, saloon: share of length behind
    front = rng.uniform(0.27, 0.34)
    cabin = length * (1 - front - rear)
    middle = length * (0.5 - front) - cabin / 2
    slope = rng.uniform(0.62, 0.74)
    glass = frustum(
        (middle, 0, waist - 0.02),
        (cabin, width - 0.1),
        (cabin * slope, width - 0.42),
        roof - waist,
        _GLASS,
        shift=(-0.05 * cabin, 0),
    )
    parts = [
        frustum((0, 0, 0.24), (length, width), (length * 0.96, width - 0.08), waist - 0.24, paint),
        glass,
        frustum(
            (middle - 0.05 * cabin, 0, roof - 0.04),
            (cabin * slope + 0.06, width - 0.38),
            (cabin * slope - 0.1, width - 0.5),
            0.07,
            paint,
        ),
        block((0, 0, 0.2), (length + 0.06, width - 0.06, 0.2), _TYRE),
        *_wheels(length, width, wheel, length * 0.19),
    ]
    # The pillar between the doors parts the side windows, as on any car.
    parts.append(block((middle - 0.04 * cabin, 0, waist), (0.1, width - 0.2, 0.3), paint))
    for side in (1, -1):
        y = side * (width / 2 - 0.25)
        parts.append(ball((length / 2 - 0.02, y, waist - 0.2), (0.07, 0.19, 0.09), _LAMP, 0.5))
        parts.append(ball((-length / 2 + 0.02, y, waist - 0.16), (0.06, 0.2, 0.1), _TAIL, 0.3))
    if rng.random() < 0.2:
        load = frustum((middle - 0.1, 0, roof + 0.05), (1.2, 0.8), (1.0, 0.7), 0.22, _TYRE)
        parts.append(load)
    return parts


def bus(rng: np.random.Generator) -> list[Solid]:
    """A minibus or short city bus, 5.0 to 6.6 m long, with a band of windows."""
    paint, second = pick(rng, PALETTE), pick(rng, PALETTE)
    length, width, height = rng.uniform(5.0, 6.6), rng.uniform(1.95, 2.3), rng.uniform(2.3, 2.85)
    floor, sill = 0.3, rng.uniform(1.05, 1.25)
    parts = [
        block((0, 0, floor), (length, width, sill - floor), second),
        frustum((0, 0, sill), (length, width), (length - 0.25, width - 0.2), height - sill, paint),
        *_wheels(length, width, rng.uniform(0.4, 0.46), length * 0.2),
    ]
    panes = int(rng.integers(4, 6))
    pitch = (length - 0.5) / panes
    window_height = (height - sill) * 0.58
    for i in range(panes):
        x = -length / 2 + 0.25 + (i + 0.5) * pitch
        # The pane is a thin slab through the whole body, so it shows on both sides.
        parts.append(block((x, 0, sill + 0.1), (pitch - 0.16, width + 0.02, window_height), _GLASS))
    parts += [
        block(
            (length / 2 - 0.05, 0, sill - 0.05), (0.14, width - 0.2, window_height + 0.2), _GLASS
        ),
        block((-length / 2 + 0.05, 0, sill + 0.2), (0.14, width - 0.4, window_height), _GLASS),
        block(
            (length / 2 - 0.1, 0, height - 0.36), (0.22, width * 0.55, 0.24), rgb(250, 170, 50), 0.6
        ),
    ]
    door = -1 if rng.random() < 0.5 else 1
    parts.append(
        block((length / 2 - 0.75, door * (width / 2), 0.35), (0.75, 0.06, 1.6), rgb(60, 72, 84))
    )
    for side in (1, -1):
        y = side * (width / 2 - 0.3)
        parts.append(ball((length / 2, y, 0.7), (0.06, 0.2, 0.12), _LAMP, 0.5))
        parts.append(ball((-length / 2, y, 0.9), (0.05, 0.12, 0.22), _TAIL, 0.3))
    if rng.random() < 0.6:
        parts.append(block((-0.15 * length, 0, height), (1.3, 1.1, 0.22), rgb(200, 200, 200)))
    return parts


def person(rng: np.random.Generator) -> list[Solid]:
    """Someone standing or walking, 1.55 to 1.95 m, some with a bag, a coat or a hat."""
    top, trousers = pick(rng, PALETTE), pick(rng, PALETTE)
    skin, hair = pick(rng, _SKIN), pick(rng, _HAIR)
    tall = rng.uniform(1.55, 1.95)
    stout = rng.uniform(0.9, 1.3)
    hip, shoulder = 0.5 * tall, 0.82 * tall
    stride = rng.uniform(0.0, 0.42)
    swing = rng.uniform(0.4, 1.0) * stride
    parts = []
    for side in (1, -1):
        foot = (side * stride * 0.8, side * 0.11, 0.05)
        parts.append(limb((0, side * 0.1, hip + 0.04), foot, 0.1 * stout, trousers))
        parts.append(ball((foot[0] + 0.06, foot[1], 0.06), (0.15, 0.07, 0.06), _TYRE))
        hand = (-side * swing, side * (0.27 * stout + 0.03), hip + 0.02)
        parts.append(limb((0, side * 0.22 * stout, shoulder), hand, 0.075 * stout, top))
        parts.append(ball(hand, (0.06, 0.05, 0.07), skin))
    chest = 0.5 * (hip + shoulder)
    parts += [
        frustum(
            (0, 0, hip - 0.06),
            (0.26 * stout, 0.34 * stout),
            (0.24 * stout, 0.46 * stout),
            shoulder - hip + 0.1,
            top,
        ),
        ball((0, 0, shoulder + 0.01), (0.13 * stout, 0.24 * stout, 0.09), top),
        ball((0.01, 0, tall - 0.13), (0.11, 0.095, 0.14), skin),
        ball((-0.03, 0, tall - 0.09), (0.11, 0.105, 0.11), hair),
    ]
    extra = rng.random()
    if extra < 0.2:
        parts.append(
            block((-0.26, 0, chest - 0.15), (0.2, 0.32, 0.45), pick(rng, PALETTE))
        )  # backpack
    elif extra < 0.38:
        parts.append(
            frustum((0, 0, 0.45 * hip), (0.6, 0.55), (0.3, 0.36), 0.62 * hip, top)
        )  # coat or skirt
    elif extra < 0.52:
        parts.append(block((0, 0.42, 0.25 * hip), (0.5, 0.2, 0.4), pick(rng, PALETTE)))  # bag
    if rng.random() < 0.2:
        parts.append(ball((0.02, 0, tall - 0.03), (0.16, 0.15, 0.07), pick(rng, PALETTE)))  # hat
    return parts


BUILDERS = {"car": car, "bus": bus, "person": person}


def build(name: str, rng: np.random.Generator, yaw: float, position) -> list[Solid]:
    """A new object of a class, standing at position (3,) metres, turned by yaw (radians)."""
    return [place(part, yaw, position) for part in BUILDERS[name](rng)]
