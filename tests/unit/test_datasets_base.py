"""The form of a data set: what is refused, subsets, stratified splits."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ddnn.errors import DataError
from training.datasets.base import MultiCameraSet, split_validation, stratified_split


def make(**changes):
    images = np.full((6, 3, 4, 5, 3), 9, np.uint8)
    images[0, 1] = 0
    present = np.ones((6, 3), bool)
    present[0, 1] = False
    fields = {
        "images": images,
        "labels": np.array([0, 1, 0, 1, 0, 1]),
        "seen": present.copy(),
        "present": present,
        "classes": ("cat", "dog"),
        "name": "tiny",
        "train": np.arange(4),
        "test": np.array([4, 5]),
    }
    return MultiCameraSet(**(fields | changes))


def test_shape_is_known():
    data = make()
    assert (len(data), data.cameras, data.image_shape) == (6, 3, (4, 5, 3))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"images": np.zeros((6, 3, 4, 5, 3), np.float32)}, "images must be uint8"),
        ({"images": np.zeros((6, 4, 5, 3), np.uint8)}, "images must be uint8"),
        ({"images": np.zeros((6, 0, 4, 5, 3), np.uint8)}, "must not be empty"),
        ({"labels": np.zeros(6, np.int32)}, "labels must be int64"),
        ({"labels": np.zeros(5, np.int64)}, "labels must be int64"),
        ({"labels": np.array([0, 1, 2, 0, 0, 0])}, "labels must be 0..1"),
        ({"labels": np.array([0, -1, 1, 0, 0, 0])}, "labels must be 0..1"),
        ({"classes": ("cat",)}, "two or more"),
        ({"classes": ("cat", "cat")}, "two or more"),
        ({"classes": ["cat", "dog"]}, "two or more"),
        ({"seen": np.ones((6, 3), bool)}, "cannot be seen"),
        ({"seen": np.ones((6, 2), bool)}, "seen must be bool"),
        ({"present": np.ones((6, 3), np.uint8)}, "present must be bool"),
        (
            {"present": np.zeros((6, 3), bool), "seen": np.zeros((6, 3), bool)},
            "must be blank",
        ),
        ({"train": np.arange(4, dtype=np.int32)}, "train must be a flat int64"),
        ({"train": np.array([0, 6])}, "train must index"),
        ({"test": np.array([-1])}, "test must index"),
        ({"test": np.array([5, 5])}, "test names a sample twice"),
        ({"test": np.array([3, 4])}, "share 1 samples"),
    ],
)
def test_parts_that_do_not_fit_are_refused(changes, message):
    with pytest.raises(DataError, match=message):
        make(**changes)


def test_subset_keeps_each_sample_in_its_split():
    part = make().subset(np.array([5, 0, 2]), name="part")
    assert part.name == "part"
    assert part.labels.tolist() == [1, 0, 0]
    assert (part.train.tolist(), part.test.tolist()) == ([1, 2], [0])
    assert not part.present[1, 1]


@pytest.mark.parametrize("index", [[6], [-1], [1, 1], []])
def test_subset_of_what_is_not_there_is_refused(index):
    with pytest.raises(DataError, match="subset"):
        make().subset(np.array(index, np.int64))


def test_cameras_are_selected_in_the_order_asked():
    part = make().select_cameras([1, 0])
    assert part.cameras == 2
    assert part.present[0].tolist() == [False, True]


@pytest.mark.parametrize("cameras", [[], [3], [-1], [0, 0]])
def test_cameras_that_are_not_there_are_refused(cameras):
    with pytest.raises(DataError, match="cameras must be"):
        make().select_cameras(cameras)


@given(
    st.lists(st.integers(0, 4), min_size=1, max_size=200),
    st.floats(0.01, 0.99),
    st.integers(0, 2**31),
)
def test_stratified_split_keeps_every_class_on_both_sides(labels, share, seed):
    labels = np.array(labels)
    index = np.flatnonzero(np.arange(labels.size) % 3 != 1)
    rest, part = stratified_split(labels, index, share, seed)
    assert sorted([*rest, *part]) == index.tolist()
    for label in np.unique(labels[index]):
        size = (labels[index] == label).sum()
        chosen = (labels[part] == label).sum()
        assert chosen == (0 if size == 1 else np.clip(round(share * size), 1, size - 1))
    again = stratified_split(labels, index, share, seed)
    assert np.array_equal(again[0], rest)
    assert np.array_equal(again[1], part)


@pytest.mark.parametrize("share", [0.0, 1.0, -1.0, float("nan")])
def test_impossible_share_is_refused(share):
    with pytest.raises(DataError, match="share"):
        stratified_split(np.zeros(4, int), np.arange(4), share, 0)


def test_validation_part_comes_from_the_training_part_alone():
    data = make()
    fit, validation = split_validation(data, 0.5, seed=1)
    assert sorted([*fit, *validation]) == data.train.tolist()
    assert sorted(data.labels[validation]) == [0, 1]
