"""A fixed slice of the simulation, and each planted bug caught within it."""

import pytest

from tests.simulation.bugs import BUGS
from tests.simulation.checker import Violation
from tests.simulation.scenarios import SCENARIOS
from tests.simulation.world import Options, World

SEEDS = range(3)
#: A bug must be caught in one of these; most are in the first. A change of anything in a world
#: makes it another one, so that a bug that needs some luck needs some worlds.
BUG_SEEDS = range(20)


def run(scenario, seeds=SEEDS):
    worlds = []
    for seed in seeds:
        worlds.append(World(seed, SCENARIOS[scenario]))
        worlds[-1].run()
    return worlds


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_no_promise_is_broken(scenario):
    worlds = run(scenario)
    begun = {name for world in worlds for name in world.counts if name.startswith("fault.")}
    assert begun >= {f"fault.{kind}" for kind in SCENARIOS[scenario].kinds or ()}


def test_same_seed_gives_the_same_history():
    histories = []
    for _ in range(2):
        world = World(11, Options(episodes=1))
        world.run()
        histories.append((world.counts, world.gateway.ended, world.frames))
    assert histories[0] == histories[1]


def test_without_faults_every_slot_is_decided_by_the_exit_that_is_sure():
    world = World(1, Options(faults=0, episodes=2))
    world.run()
    assert world.gateway.gateway.ledger().get("degraded", 0) <= 2  # cut off at the start
    exits = {n for n in world.gateway.gateway.ledger() if n.startswith("exit.")}
    assert {"exit.local", "exit.edge", "exit.cloud"} <= exits


def test_asking_a_few_at_a_time_breaks_no_promise():
    World(100, Options(ask_at_once=2, episodes=3)).run()


@pytest.mark.parametrize("name", BUGS)
def test_planted_bug_is_caught(name, monkeypatch):
    plant, scenario = BUGS[name]
    plant(monkeypatch)
    with pytest.raises(Violation):
        run(scenario, BUG_SEEDS)
