"""How often the motion gate is wrong, on scenes of the built-in data set's renderer.

    python -m benchmarks.gate [--scenes N] [--write-docs]

For every scene and camera: the empty scene with fresh sensor noise in every picture while the gate
learns, then empty pictures under changing light, then pictures with the object in it. A view in
which the object is seen (the data set's own meaning: 3 pixels or more) and the gate says absent is
a false absent; an empty view, or one in which the object is hidden or out of sight, that the gate
lets through is a false present. Results go to build/bench/gate.json.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from device_agent.gate import Gate, GateRules
from training.datasets.generated import CLASSES, render_shots
from training.datasets.scene import CAMERAS

ROOT = Path(__file__).resolve().parent.parent
OUT = ROOT / "build" / "bench" / "gate.json"
DOCS = ROOT / "docs" / "pi.md"
BEGIN, END = "<!-- made by benchmarks.gate: begin -->", "<!-- end -->"
PERIOD_S = 0.1
LEARNT, EMPTY, WITH = 200, 60, 10
#: The data set's first scenes are what networks are trained on; these are none of them.
SEED = 77


class Counts(NamedTuple):
    """Views counted over scenes, cameras and pictures.

    Attributes:
        empty, false_present: views with nothing in them, and those that were let through.
        seen, false_absent: views with the object, and those that were held back.
        objects, lost: (scene, camera) pairs with the object, and those in which it was held back
            in every picture.
    """

    empty: int = 0
    false_present: int = 0
    seen: int = 0
    false_absent: int = 0
    objects: int = 0
    lost: int = 0

    def __add__(self, other: tuple) -> Counts:  # type: ignore[override]
        return Counts(*(a + b for a, b in zip(self, other, strict=True)))


LIGHTS = ("steady", "clouds", "flicker")


def light(kind: str, count: int, rng: np.random.Generator) -> NDArray[np.float32]:
    """How bright the scene is in `count` pictures, 0.1 s apart.

    steady; clouds: down to 60 % and back within 6 s; flicker: +-8 % from picture to picture.
    """
    if kind == "clouds":
        return (0.8 + 0.2 * np.cos(np.arange(count) * 2 * np.pi / 60)).astype(np.float32)
    if kind == "flicker":
        return rng.uniform(0.92, 1.08, count).astype(np.float32)
    return np.ones(count, np.float32)


def measure(scenes: int, kind: str = "steady", rules: GateRules | None = None) -> list[Counts]:
    """Counts of each camera, over so many scenes."""
    counts = [Counts() for _ in CAMERAS]
    for index in range(scenes):
        rng = np.random.default_rng([SEED, index])
        levels = light(kind, EMPTY + WITH, rng)
        learnt = np.ones(LEARNT, np.float32)
        before, _ = render_shots(None, SEED, index, np.concatenate([learnt, levels[:EMPTY]]))
        label = index % len(CLASSES)
        after, seen = render_shots(label, SEED, index, levels[EMPTY:])
        for camera in range(len(CAMERAS)):
            counts[camera] += _one(before[:, camera], after[:, camera], bool(seen[camera]), rules)
    return counts


def _one(
    before: NDArray[np.uint8], after: NDArray[np.uint8], seen: bool, rules: GateRules | None
) -> Counts:
    gate = Gate((rules or GateRules())._replace(hold_s=0.0))
    said = [gate.look(view, number * PERIOD_S) for number, view in enumerate([*before, *after])]
    assert all(said[: LEARNT - 1]), "while it learns everything is let through"
    empty, there = said[LEARNT + 1 : LEARNT + EMPTY], said[LEARNT + EMPTY :]
    if not seen:
        return Counts(len(empty) + len(there), sum(empty) + sum(there))
    lost = int(not any(there))
    return Counts(len(empty), sum(empty), len(there), len(there) - sum(there), 1, lost)


def table(results: dict[str, list[Counts]]) -> str:
    """Markdown."""
    lines = [
        "| light | camera | false absent | objects never let through | false present |",
        "|---|---|---|---|---|",
    ]
    for kind, counts in results.items():
        rows = [("all", sum(counts, Counts()))]
        if kind == "steady":
            rows += [(str(camera), each) for camera, each in enumerate(counts)]
        for name, c in rows:
            lines.append(
                f"| {kind} | {name} | {_share(c.false_absent, c.seen)} "
                f"| {c.lost} of {c.objects} | {_share(c.false_present, c.empty)} |"
            )
    return "\n".join(lines)


def _share(part: int, whole: int) -> str:
    return f"{100 * part / max(1, whole):.2f} % of {whole}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--scenes", type=int, default=30)
    parser.add_argument("--write-docs", action="store_true")
    args = parser.parse_args()
    results = {kind: measure(args.scenes, kind) for kind in LIGHTS}
    text = table(results)
    print(text)
    OUT.parent.mkdir(parents=True, exist_ok=True)
    OUT.write_text(json.dumps({k: [c._asdict() for c in v] for k, v in results.items()}, indent=1))
    if args.write_docs:
        whole = DOCS.read_text()
        head, _, rest = whole.partition(BEGIN)
        _, _, tail = rest.partition(END)
        said = f"{args.scenes} scenes, six cameras each.\n\n{text}"
        DOCS.write_text(f"{head}{BEGIN}\n\n{said}\n\n{END}{tail}")


if __name__ == "__main__":
    main()
