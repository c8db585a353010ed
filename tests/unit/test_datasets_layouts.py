"""Every layout a data set may come in, and one clear error for all others."""

import numpy as np
import pytest
from PIL import Image

from ddnn.errors import DataError
from training.datasets.load import load

RNG = np.random.default_rng(0)


def views(count=10, cameras=3, size=8):
    images = RNG.integers(1, 256, (count, cameras, size, size, 3)).astype(np.uint8)
    images[0, 1] = 0
    return images


def write(path, **arrays):
    np.savez(path, **arrays)
    return path


def test_named_splits_with_absent_and_unseen_views(tmp_path):
    images = views()
    y_cam = np.zeros((10, 3), int)
    y_cam[0, 1] = y_cam[2, 2] = -1
    arrays = {
        "X": images,
        "y": np.arange(10) % 2,
        "y_cam": y_cam,
        "classes": np.array(["cat", "dog"]),
        "train_random": np.arange(8),
        "test_random": np.array([8, 9]),
        "train_object": np.arange(2, 10),
        "test_object": np.array([0, 1]),
    }
    path = write(tmp_path / "set.npz", **arrays)
    data = load(path)
    assert (data.name, data.classes) == ("set random", ("cat", "dog"))
    assert np.array_equal(data.images, images)
    assert not data.present[0, 1]
    assert data.present.sum() == 29
    assert not data.seen[2, 2]
    assert load(path, split="object").test.tolist() == [0, 1]
    with pytest.raises(DataError, match="no split 'moon'; it has random, object"):
        load(path, split="moon")


@pytest.mark.parametrize("channels_first", [False, True])
def test_plain_layout_is_split_by_label(tmp_path, channels_first):
    images = views(20)
    stored = np.moveaxis(images, -1, 2) if channels_first else images
    data = load(write(tmp_path / "x.npz", X=stored, y=np.arange(20) % 2))
    assert np.array_equal(data.images, images)
    assert len(data.test) == 4
    assert sorted([*data.train, *data.test]) == list(range(20))
    assert data.labels[data.test].tolist().count(0) == 2
    assert data.classes == ("class 0", "class 1")


def test_what_is_saved_is_loaded(tmp_path):
    data = load(write(tmp_path / "x.npz", X=views(), y=np.arange(10) % 2))
    data.save(tmp_path / "again.npz")
    again = load(tmp_path / "again.npz")
    assert again.name == data.name
    for field in ("images", "labels", "seen", "present", "train", "test"):
        assert np.array_equal(getattr(again, field), getattr(data, field)), field


def test_authors_mvmc_layout(tmp_path):
    images = RNG.random((10, 6, 3, 4, 4)).astype(np.float32) * 0.5
    labels = np.full((10, 6), 3)
    labels[:, 0] = np.arange(10) % 3
    labels[4, 5] = -1
    data = load(write(tmp_path / "MVMC.npz", X=images, y=labels))
    assert data.images.shape == (10, 6, 4, 4, 3)
    assert data.images[:, 0].max(axis=(1, 2, 3)).tolist() == [255] * 10
    assert data.labels.tolist() == [i % 3 for i in range(10)]
    assert not data.present[:, 1:].any()
    assert data.classes == ("car", "bus", "person")
    assert (len(data.train), len(data.test)) == (8, 2)


def test_digits_are_padded_and_cut_into_six_cameras(tmp_path):
    train = RNG.integers(0, 256, (5, 28, 28)).astype(np.uint8)
    test = RNG.integers(0, 256, (3, 28, 28)).astype(np.uint8)
    path = write(
        tmp_path / "m.npz", X_train=train, y_train=np.arange(5), X_test=test, y_test=np.arange(3)
    )
    data = load(path)
    assert data.images.shape == (8, 6, 16, 10, 1)
    assert (data.train.tolist(), data.test.tolist()) == ([0, 1, 2, 3, 4], [5, 6, 7])
    padded = np.pad(train[0], 2)
    assert np.array_equal(data.images[0, 0, :, :, 0], padded[:16, :10])  # top left
    assert np.array_equal(data.images[0, 1, :, :, 0], padded[16:, :10])  # bottom left
    assert np.array_equal(data.images[0, 4, :, :, 0], padded[:16, 20:30])  # top right


def test_colour_pictures_of_any_grid(tmp_path):
    picture = RNG.integers(0, 256, (4, 3, 32, 32)).astype(np.uint8)
    arrays = {"X_train": picture, "y_train": [0, 1, 0, 1], "X_test": picture, "y_test": [0] * 4}
    data = load(write(tmp_path / "c.npz", **arrays), grid=(2, 1))
    assert data.images.shape == (8, 2, 32, 16, 3)
    with pytest.raises(DataError, match="cannot be cut"):
        load(tmp_path / "c.npz", grid=(99, 1))


def test_folder_of_pictures(tmp_path):
    for split, label, sample, cameras in [
        ("train", "car", "a", ("cam1", "cam2", "cam10")),
        ("train", "bus", "b", ("cam1", "cam10")),
        ("test", "car", "c", ("cam2",)),
    ]:
        folder = tmp_path / split / label / sample
        folder.mkdir(parents=True)
        for camera in cameras:
            Image.new("RGB", (6, 4), (len(camera), 2, 3)).save(folder / f"{camera}.png")
    data = load(tmp_path)
    assert data.images.shape == (3, 3, 4, 6, 3)
    assert data.classes == ("bus", "car")
    assert [data.classes[label] for label in data.labels] == ["bus", "car", "car"]
    assert data.present.tolist() == [[True, False, True], [True] * 3, [False, True, False]]
    assert data.images[1, :, 0, 0, 0].tolist() == [4, 4, 5]  # cam10 comes last
    assert (data.train.tolist(), data.test.tolist()) == ([0, 1], [2])


def test_folder_with_pictures_of_two_sizes_is_refused(tmp_path):
    folder = tmp_path / "train" / "car" / "a"
    folder.mkdir(parents=True)
    Image.new("RGB", (6, 4)).save(folder / "1.png")
    Image.new("RGB", (6, 5)).save(folder / "2.png")
    with pytest.raises(DataError, match="6 x 5"):
        load(tmp_path)


def test_empty_folder_is_refused(tmp_path):
    with pytest.raises(DataError, match="no pictures"):
        load(tmp_path)


def test_file_that_is_no_picture_is_refused_by_name(tmp_path):
    folder = tmp_path / "train" / "car" / "a"
    folder.mkdir(parents=True)
    (folder / "1.png").write_text("not a picture")
    with pytest.raises(DataError, match=r"1\.png"):
        load(tmp_path)


@pytest.mark.parametrize(
    "arrays",
    [
        {"pictures": np.zeros((3, 4))},
        {"X": np.zeros((3, 4)), "y": np.zeros(3)},
        {"X": views(), "y": np.zeros(7)},
        {},
    ],
)
def test_other_npz_gets_an_error_with_what_was_found_and_what_is_expected(tmp_path, arrays):
    with pytest.raises(DataError, match="layouts") as error:
        load(write(tmp_path / "odd.npz", **arrays))
    for key in arrays:
        assert f"{key}: " in str(error.value)
    assert "train|test/<class>/<sample>/<camera>.png" in str(error.value)


def test_pickled_arrays_are_never_loaded(tmp_path):
    path = write(tmp_path / "p.npz", X=np.array([object()]), y=np.zeros(1))
    with pytest.raises(DataError, match="cannot be read"):
        load(path)


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 truncated", b"hello"])
def test_file_that_is_no_npz_is_refused(tmp_path, content):
    (tmp_path / "x.npz").write_bytes(content)
    with pytest.raises(DataError, match="cannot be read"):
        load(tmp_path / "x.npz")


def test_split_where_there_is_none_is_refused(tmp_path):
    path = write(tmp_path / "x.npz", X=views(), y=np.arange(10) % 2)
    with pytest.raises(DataError, match="no named splits"):
        load(path, split="random")


def test_missing_data_set_is_refused_with_its_path(tmp_path):
    with pytest.raises(DataError, match="nowhere"):
        load(tmp_path / "nowhere.npz")
