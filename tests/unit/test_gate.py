"""The motion gate on made-up scenes, and on the renderer's with and without an object."""

import numpy as np
import pytest

from benchmarks.gate import Counts, light, measure
from device_agent.gate import Gate, GateRules
from training.datasets.generated import render_scene, render_shots

RULES = GateRules(learn_s=5.0, absorb_s=60.0, hold_s=0.0)
PERIOD_S = 0.1


class Scene:
    """A textured background with sensor noise; `show` gives the gate one picture of it."""

    def __init__(self, rules=RULES, size=32, low=60, high=180):
        self.random = np.random.default_rng(4)
        self.background = self.random.uniform(low, high, (size, size, 3))
        self.gate = Gate(rules)
        self.now = 1000.0

    def show(self, *, light=1.0, thing=None, times=1, colour=(230, 20, 20)):
        said = []
        for _ in range(times):
            picture = self.background.copy()
            if thing is not None:
                picture[thing] = colour
            picture = picture * light + self.random.normal(0, 2, picture.shape)
            self.now += PERIOD_S
            said.append(self.gate.look(np.clip(picture, 0, 255).astype(np.uint8), self.now))
        return said

    def learnt(self):
        self.show(times=60)
        return self


SMALL = np.s_[10:13, 10:13]
LARGE = np.s_[4:20, 4:20]


def test_nothing_is_held_back_before_the_scene_is_learnt():
    scene = Scene()
    assert all(scene.show(times=40))
    assert scene.gate.state == "learning"


def test_empty_scene_is_absent_and_a_small_thing_is_not():
    scene = Scene().learnt()
    assert not any(scene.show(times=100))
    assert scene.gate.state == "absent"
    assert all(scene.show(thing=SMALL, times=5))
    assert scene.gate.state == "present"
    assert not any(scene.show(times=20))


@pytest.mark.parametrize("level", [0.6, 0.9, 1.1, 1.4, (1.1, 1.0, 0.85)])
def test_change_of_light_or_white_balance_is_nothing(level):
    assert not any(Scene().learnt().show(light=np.array(level), times=30))


@pytest.mark.parametrize("level", [0.7, 1.3])
def test_thing_that_comes_with_a_change_of_light_is_seen(level):
    assert all(Scene().learnt().show(light=level, thing=LARGE, times=10))


def test_something_counts_as_there_for_a_while_after_it_went():
    scene = Scene(RULES._replace(hold_s=1.05)).learnt()
    scene.show(thing=SMALL)
    said = scene.show(times=20)
    assert said == [True] * 10 + [False] * 10


def test_thing_that_stays_becomes_scenery_slowly_and_leaves_no_ghost_when_it_passed():
    scene = Scene().learnt()
    assert all(scene.show(thing=LARGE, times=20))
    assert not any(scene.show(times=3)), "gone without a trace"
    assert all(scene.show(thing=LARGE, times=100)), "twice the learning time"
    scene.show(thing=LARGE, times=3000)
    assert not any(scene.show(thing=LARGE, times=10)), "five times the absorbing time"


def test_turned_camera_is_learnt_anew():
    scene = Scene().learnt()
    scene.background = scene.background[::-1, ::-1].copy()
    assert all(scene.show(times=20))
    scene.show(times=100)
    assert not any(scene.show(times=20))


def test_night_without_light_is_absent_and_a_lamp_is_not():
    scene = Scene(low=2, high=8).learnt()
    assert not any(scene.show(times=20))
    assert all(scene.show(thing=SMALL, times=5))


def test_burnt_out_sky_is_no_motion_when_a_cloud_passes():
    scene = Scene()
    scene.background[:12] = 300  # brighter than the sensor can tell
    scene.learnt()
    for level in (1.0, 0.9, 0.8, 0.9, 1.0, 1.1):
        assert not any(scene.show(light=level, times=5))


def test_another_size_of_view_starts_over():
    scene = Scene().learnt()
    scene.background = scene.background[:16, :16]
    assert scene.show() == [True]
    assert scene.gate.state == "learning"


def test_time_that_stands_still_or_jumps_does_no_harm():
    scene = Scene().learnt()
    for step in (0.0, 0.0, 1e6, -3.0):
        scene.now += step
        scene.show(times=2)
    assert np.isfinite(scene.gate.changed)


@pytest.mark.parametrize("shape", [(8, 8, 1), (5, 7, 3), (1, 1, 3)])
def test_any_shape_of_view_goes_through(shape):
    gate = Gate(RULES)
    for number in range(80):
        gate.look(np.full(shape, 100 + number % 3, np.uint8), number * PERIOD_S)
    assert gate.state == "absent"


# -- the built-in data set's scenes ------------------------------------------------------------


@pytest.fixture(scope="module")
def measured():
    """What `python -m benchmarks.gate` measures, with a few scenes."""
    return {kind: sum(measure(3, kind), Counts()) for kind in ("steady", "flicker")}


@pytest.mark.parametrize("kind", ["steady", "flicker"])
def test_gate_on_rendered_scenes_holds_back_the_empty_and_nothing_else(measured, kind):
    counts = measured[kind]
    assert counts.empty > 1000
    assert counts.seen > 50
    assert counts.false_absent <= 0.02 * counts.seen
    assert counts.false_present <= 0.01 * counts.empty
    assert counts.lost == 0


def test_shots_of_a_scene_differ_by_noise_and_light_alone():
    shots, seen = render_shots(1, 0, 3, light("steady", 2, np.random.default_rng(0)))
    scene = render_scene(1, 0, 3)
    assert np.array_equal(seen, scene.seen)
    assert not np.array_equal(shots[0], shots[1])
    near = np.abs(shots.astype(int) - scene.images)[:, :4]
    assert np.percentile(near, 99) < 16
    dark, _ = render_shots(1, 0, 3, np.array([0.5], np.float32))
    assert dark.mean() < 0.85 * shots.mean()
