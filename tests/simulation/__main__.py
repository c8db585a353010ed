"""`python -m tests.simulation --hours H --seed S`: simulate so many device-hours of faults.

Every world of a run has a seed of its own, made of S and its number; a broken promise names it, and
`--world SEED` plays that world again, exactly.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections import Counter

from tests.simulation.checker import Violation
from tests.simulation.world import World


def world_seed(seed: int, number: int) -> int:
    return seed * 1_000_003 + number


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--hours", type=float, default=100.0, help="device-hours to simulate")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--world", type=int, help="play this one world again")
    options = parser.parse_args()
    counts: Counter[str] = Counter()
    hours, frames, slots, number, violations = 0.0, 0, 0, 0, 0
    began = time.process_time()
    while hours < options.hours and not violations:
        seed = options.world if options.world is not None else world_seed(options.seed, number)
        world = World(seed)
        try:
            world.run()
        except Violation as violation:
            violations += 1
            print(f"VIOLATION {violation}", flush=True)
            print(f"again: python -m tests.simulation --world {seed}")
        hours += world.device_hours
        frames += world.frames
        slots += len(world.gateway.ended)
        counts.update(world.counts)
        number += 1
        if options.world is not None:
            break
    seconds = time.process_time() - began
    faults = sum(n for name, n in counts.items() if name.startswith("fault."))
    for name, count in sorted(counts.items()):
        print(f"  {name:<34} {count}")
    print(
        f"{hours:.1f} device-hours in {number} worlds: {frames} frames, {slots} slots ended, "
        f"{faults} faults injected, {violations} violations"
    )
    print(f"{seconds:.1f} s of CPU time, {hours / max(seconds, 1e-9) * 60:.0f} device-hours/minute")
    return 1 if violations else 0


if __name__ == "__main__":
    sys.exit(main())
