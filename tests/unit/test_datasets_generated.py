"""The built-in data set: made from geometry, the same every time, and leaking no class."""

import dataclasses
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ddnn.errors import DataError
from training.datasets import generated, load, renderer
from training.datasets.generated import built_in_path, draw_labels, generate, render_scene
from training.datasets.objects import CLASSES, build
from training.datasets.scene import CAMERAS

PAPER_RATES = (0.39, 0.42, 0.52, 0.57, 0.75, 0.59)


@pytest.fixture(scope="module")
def small():
    return generate(8, seed=3)


@pytest.fixture(scope="module")
def built_in():
    return load.load("generated")


def test_same_seed_gives_same_bytes(small, tmp_path):
    again = generate(8, seed=3)
    small.save(tmp_path / "a.npz")
    again.save(tmp_path / "b.npz")
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()


def test_another_seed_gives_other_scenes(small):
    assert not np.array_equal(generate(5, seed=4).images, small.images[:5])


def test_a_sample_depends_on_seed_and_number_alone(small):
    scene = render_scene(int(small.labels[7]), 3, 7)
    assert np.array_equal(scene.images, small.images[7])
    assert np.array_equal(scene.seen, small.seen[7])


def test_every_camera_always_delivers_a_picture_and_some_camera_sees_the_object(small):
    assert small.present.all()
    assert small.images.any(axis=(2, 3, 4)).all()
    assert small.seen.any(axis=1).all()


def test_progress_counts_to_the_end():
    calls = []
    generate(5, size=8, progress=lambda done, total: calls.append((done, total)))
    assert calls == [(i, 5) for i in range(1, 6)]


@pytest.mark.parametrize(("samples", "size"), [(4, 32), (10, 7), (10, 513)])
def test_senseless_sizes_are_refused(samples, size):
    with pytest.raises(DataError, match="cannot generate"):
        generate(samples, size=size)


@given(st.integers(5, 2000), st.integers(0, 2**31))
def test_training_and_test_part_have_the_same_class_shares(samples, seed):
    labels = draw_labels(samples, seed)
    assert labels.shape == (samples,)
    first = samples * 4 // 5
    for part in (labels[:first], labels[first:]):
        counts = np.bincount(part, minlength=3)
        # One class takes what is left when the others are rounded.
        assert np.abs(counts - np.array([0.4, 0.2, 0.4]) * part.size).max() <= 1.0


def test_file_in_the_repository_is_what_the_program_makes(built_in):
    assert built_in_path().exists(), "make it with: ddnn dataset generate"
    for index in (0, 1, 850):
        images = render_scene(int(built_in.labels[index]), 0, index).images
        apart = np.abs(images.astype(int) - built_in.images[index])
        # Another processor may round the odd pixel the other way.
        assert (apart > 0).mean() < 0.01
        assert apart.max() <= 40


def test_sizes_splits_and_presence_are_near_the_papers(built_in):
    assert built_in.images.shape == (851, 6, 32, 32, 3)
    assert (len(built_in.train), len(built_in.test)) == (680, 171)
    assert built_in.classes == ("car", "bus", "person")
    assert np.bincount(built_in.labels[built_in.test]).tolist() == [69, 34, 68]
    assert np.abs(built_in.seen.mean(axis=0) - PAPER_RATES).max() <= 0.05


def test_which_cameras_see_the_object_does_not_tell_its_class(built_in):
    seen, labels = built_in.seen.astype(float), built_in.labels
    train, test = built_in.train, built_in.test
    scores = []
    for label in range(3):
        own = seen[train][labels[train] == label]
        rate = (own.sum(axis=0) + 1) / (len(own) + 2)
        prior = np.log(len(own))
        scores.append(prior + seen[test] @ np.log(rate) + (1 - seen[test]) @ np.log(1 - rate))
    guessed = np.argmax(scores, axis=0)
    majority = np.bincount(labels[test]).max() / len(test)
    assert (guessed == labels[test]).mean() < majority + 0.08


@pytest.mark.parametrize("label", range(3))
def test_view_without_the_object_is_the_scene_without_it_to_the_last_bit(label):
    unseen = 0
    for index in range(3):
        empty, scene = render_scene(None, 11, index), render_scene(label, 11, index)
        assert not empty.seen.any()
        for camera in np.flatnonzero(~scene.seen):
            assert np.array_equal(scene.images[camera], empty.images[camera])
            unseen += 1
        for camera in np.flatnonzero(scene.seen):
            assert not np.array_equal(scene.images[camera], empty.images[camera])
    assert unseen > 0


def test_objects_centre_projects_into_its_mask_in_every_camera_that_sees_it(monkeypatch):
    surroundings = generated.draw_environment
    monkeypatch.setattr(
        generated,
        "draw_environment",
        lambda rng: dataclasses.replace(surroundings(rng), things=[]),
    )
    checked = 0
    for index in range(9):
        label = index % 3
        scene = render_scene(label, 21, index)
        height = (0.7, 1.3, 0.9)[label]
        for camera in np.flatnonzero(scene.seen):
            pixel, depth = CAMERAS[camera].project(scene.foot + np.array([0, 0, height]), 32)
            rows, columns = np.nonzero(scene.mask[camera] > 0)
            assert depth > 0
            if (pixel > 0).all() and (pixel < 32).all():
                assert columns.min() - 1 <= pixel[0] <= columns.max() + 2
                assert rows.min() - 1 <= pixel[1] <= rows.max() + 2
                checked += 1
    assert checked > 15


def test_size_changes_resolution_but_not_the_scene():
    small, large = render_scene(0, 5, 2, size=32), render_scene(0, 5, 2, size=64)
    assert large.images.shape == (6, 64, 64, 3)
    assert np.array_equal(small.seen, large.seen)
    assert np.abs(renderer.shrink(large.mask, 2) - small.mask).max() < 0.35


@pytest.mark.parametrize("name", CLASSES)
def test_objects_stand_on_the_ground_and_are_of_plausible_size(name):
    camera = renderer.look_at((0.0, -60.0, 1.5), (0.0, 0.0, 1.5), 10.0)
    limits = {"car": ((1.2, 1.9), 5.1), "bus": ((2.2, 3.2), 6.9), "person": ((1.5, 2.05), 1.6)}
    (low, high), length = limits[name]
    for seed in range(5):
        parts = build(name, np.random.default_rng(seed), 0.0, (0.0, 0.0, 0.0))
        rays = camera.rays(256)
        shape = rays.shape[1:]
        buffers = renderer.Buffers(
            camera,
            rays,
            np.full(shape, renderer.FAR, np.float32),
            np.zeros((3, *shape), np.float32),
            np.zeros((3, *shape), np.float32),
            np.zeros(shape, np.float32),
            np.zeros(shape, np.uint8),
        )
        renderer.draw(buffers, parts, 2)
        points = buffers.points()[:, buffers.owner == 2]
        assert -0.05 <= points[2].min() < 0.12
        assert low < points[2].max() < high
        assert np.ptp(points[0]) < length


# ------------------------------------------------------------------------------- renderer


@settings(max_examples=50, deadline=None)
@given(
    st.tuples(st.floats(-20, 20), st.floats(-20, -5), st.floats(0.5, 9)),
    st.floats(15, 75),
    st.integers(0, 15),
    st.integers(0, 15),
    st.floats(1, 50),
)
def test_point_on_a_pixels_ray_projects_back_into_that_pixel(position, angle, row, column, far):
    camera = renderer.look_at(position, (0.0, 0.0, 0.0), angle)
    point = camera.position + camera.rays(16)[:, row, column] * far
    pixel, depth = camera.project(point, 16)
    assert np.allclose(pixel, (column + 0.5, row + 0.5), atol=0.02)
    assert 0 < depth <= far * 1.001


@settings(max_examples=50, deadline=None)
@given(st.floats(-3, 3), st.floats(0.3, 3), st.floats(0, 6.3))
def test_rays_through_the_middle_enter_where_the_solid_begins(x, size, yaw):
    ray = np.array([[1.0], [0.0], [0.0]], np.float32)
    start = np.array([-20.0, 0.0, 0.0], np.float32)
    for solid, depth, turn in (
        (renderer.ball((0, 0, 0), (size, size, size), (1, 1, 1)), size, yaw),
        (renderer.tube((0, 0, -1), (0, 0, 1), size, (1, 1, 1)), size, yaw),
        (renderer.tube((-size, 0, 0), (size, 0, 0), 0.5, (1, 1, 1)), size, 0.0),
        (renderer.block((0, 0, -1), (2 * size, 2 * size, 2), (1, 1, 1)), size, np.pi / 2),
    ):
        placed = renderer.place(solid, turn, (x, 0, 0))
        enter, leave, face = renderer.span(placed, start, ray)
        assert enter[0] == pytest.approx(20 + x - depth, abs=0.01)
        assert leave[0] == pytest.approx(20 + x + depth, abs=0.01)
        normal = renderer.normals_at(placed, start[:, None] + ray * enter, ray, face)
        assert np.allclose(normal[:, 0], (-1, 0, 0), atol=0.02)


def test_ray_beside_or_along_a_solid_misses():
    solids = [
        renderer.ball((0, 0, 0), (1, 1, 1), (1, 1, 1)),
        renderer.tube((0, 0, -1), (0, 0, 1), 1, (1, 1, 1)),
        renderer.block((0, 0, -1), (2, 2, 2), (1, 1, 1)),
    ]
    ray = np.array([[1.0], [0.0], [0.0]], np.float32)
    for solid in solids:
        for start in ((-5.0, 1.5, 0.0), (-5.0, 0.0, 1.5)):
            enter, leave, _ = renderer.span(solid, np.array(start, np.float32), ray)
            assert enter[0] >= leave[0]


def test_shadow_falls_away_from_the_sun_only():
    wall = renderer.block((0, 0, 0), (0.2, 4, 2), (1, 1, 1))
    sun = np.array([1, 0, 1], np.float32) / np.sqrt(np.float32(2))
    points = np.array([[-1, 0, 0], [1, 0, 0], [-3, 0, 0], [-1, 3, 0]], np.float32).T
    assert renderer.shadow(points, [wall], sun).tolist() == [True, False, False, False]


def test_nearer_solid_hides_the_farther_one():
    camera = renderer.look_at((0.0, -10.0, 1.0), (0.0, 0.0, 1.0), 30.0)
    rays = camera.rays(9)
    shape = rays.shape[1:]
    buffers = renderer.Buffers(
        camera,
        rays,
        np.full(shape, renderer.FAR, np.float32),
        np.zeros((3, *shape), np.float32),
        np.zeros((3, *shape), np.float32),
        np.zeros(shape, np.float32),
        np.zeros(shape, np.uint8),
    )
    near = renderer.block((0, -5, 0), (1, 1, 2), (1, 0, 0))
    far = renderer.block((0, 0, 0), (3, 1, 2), (0, 1, 0))
    renderer.draw(buffers, [near], 1)
    renderer.draw(buffers, [far], 2)
    assert buffers.owner[4, 4] == 1
    assert buffers.albedo[:, 4, 4].tolist() == [1, 0, 0]
    assert (buffers.owner == 2).any()


# ------------------------------------------------------------------------------- loading


def test_generated_set_is_rendered_when_the_file_is_missing(monkeypatch, tmp_path, small):
    monkeypatch.setattr(load, "built_in_path", lambda: tmp_path / "none.npz")
    monkeypatch.setattr(load, "generate", lambda: small)
    assert load.load("generated") is small


def test_generated_set_has_no_named_splits():
    with pytest.raises(DataError, match="no named splits"):
        load.load("generated", split="random")


def test_data_sets_need_no_torch():
    code = (
        "import sys; sys.modules['torch'] = None\n"
        "import training.datasets.cli, training.datasets.load\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
