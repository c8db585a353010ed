"""`ddnn dataset`: generate, show, sheet."""

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from ddnn.errors import DataError
from training.datasets.cli import dataset
from training.datasets.load import load
from training.datasets.sheet import HEAD_PX, LABEL_PX, choose, contact_sheet


def run(*arguments):
    result = CliRunner().invoke(dataset, [str(a) for a in arguments])
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


@pytest.fixture
def gray(tmp_path):
    """A set of gray views of 8 x 6, the first view of the first sample absent."""
    images = np.full((9, 2, 8, 6, 1), 200, np.uint8)
    images[0, 0] = 0
    path = tmp_path / "gray.npz"
    np.savez(path, X=images, y=np.arange(9) % 3, classes=["a", "b", "c"])
    return path


def test_generated_file_loads_and_is_described(tmp_path):
    out = tmp_path / "new" / "set.npz"
    result = run("generate", "--samples", 10, "--size", 12, "--seed", 2, "--out", out)
    assert result.exit_code == 0, result.output
    assert "10 samples, 6 cameras, 12 x 12 pixels, 3 channels" in result.output
    data = load(out)
    assert data.images.shape == (10, 6, 12, 12, 3)
    assert data.name == "generated"


def test_show_tells_sizes_classes_split_and_presence(gray):
    text = run("show", gray).output
    assert "gray: 9 samples, 2 cameras, 6 x 8 pixels, 1 channel\n" in text
    assert "test:   3 samples (a 1, b 1, c 1)" in text
    assert "present: 0.89  1.00" in text


def test_sheet_has_a_row_per_sample_and_a_column_per_camera(gray, tmp_path):
    out = tmp_path / "pictures" / "sheet.png"
    assert run("sheet", gray, "--out", out, "--rows", 4).exit_code == 0
    with Image.open(out) as picture:
        assert picture.width > LABEL_PX + 2 * 90
        assert picture.height > HEAD_PX + 4 * 120


def test_sheet_frames_views_that_show_the_object(gray):
    data = load(gray)
    seen = contact_sheet(data, np.array([1]))
    hidden = contact_sheet(data, np.array([0]))
    corner = (LABEL_PX + 2, HEAD_PX + 2)
    assert seen.getpixel(corner) != (245, 245, 242)
    assert hidden.getpixel(corner) == (245, 245, 242)


def test_sheet_shows_the_classes_in_turn(gray):
    data = load(gray)
    chosen = choose(data, 6, "all", seed=0)
    assert data.labels[chosen].tolist() == [0, 1, 2, 0, 1, 2]
    assert len(choose(data, 99, "test", seed=0)) == len(data.test)


def test_empty_part_is_refused(gray):
    data = load(gray)
    with pytest.raises(DataError, match="no test samples"):
        choose(data.subset(data.train), 3, "test", seed=0)


def test_unknown_data_set_is_an_error_for_a_person(tmp_path):
    with pytest.raises(DataError, match="there is no data set"):
        run("show", tmp_path / "nothing.npz")
