"""`ddnn device` and the commands below it."""

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from ddnn.cli import main
from ddnn.store import BundleStore
from device_agent.framing import Framing
from device_agent.preview import MASK_COLOUR, REGION_COLOUR, draw
from tests.bundles import random_bundle


def ddnn(*args):
    return CliRunner().invoke(main, ["device", *map(str, args)])


@pytest.fixture
def pictures(tmp_path):
    folder = tmp_path / "pictures"
    folder.mkdir()
    picture = np.zeros((120, 160, 3), np.uint8)
    picture[:, 80:] = (0, 0, 250)
    Image.fromarray(picture).save(folder / "0.png")
    return folder


def test_without_a_commands_name_it_is_the_agent():
    bare, named = ddnn("--camera", 0), ddnn("run", "--camera", 0)
    assert bare.exit_code == named.exit_code == 1
    assert "source" in bare.output
    assert bare.output == named.output


def test_help_shows_all_commands_and_runs_none():
    result = ddnn("--help")
    assert result.exit_code == 0
    assert {"run", "preview"} <= set(result.output.split())


def test_preview_shows_picture_region_and_view_side_by_side(tmp_path, pictures):
    out = tmp_path / "p.png"
    result = ddnn(
        "preview", "--camera", 0, "--source", f"folder:{pictures}", "--size", "16x12",
        "--region", "[0.5, 0, 1, 1]", "--mask", "[[[0, 0], [0.2, 0], [0.2, 1], [0, 1]]]",
        "--out", out,
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    assert "picture 160 x 120, section 12 x 16" in result.output
    sheet = np.asarray(Image.open(out))
    assert sheet.shape == (480, 640 + 8 + 12 * 30, 3)
    assert tuple(sheet[200, 320]) == REGION_COLOUR
    assert sheet[200, 60, 0] > 50, "the mask is shaded red"
    assert (sheet[:, 650:] == (0, 0, 250)).all(), "the section sees the right half only"


def test_preview_takes_the_size_of_the_bundle_in_the_store(tmp_path, pictures):
    store, bundle = BundleStore(tmp_path / "store"), random_bundle(size=24)
    store.stage(bundle)
    store.promote(bundle)
    out = tmp_path / "p.png"
    result = ddnn(
        "preview", "--camera", 0, "--source", f"folder:{pictures}",
        "--store", tmp_path / "store", "--out", out,
    )  # fmt: skip
    assert "section 24 x 24" in result.output


def test_preview_reads_the_agents_own_settings_file(tmp_path, pictures):
    config = tmp_path / "device.toml"
    config.write_text(
        f'camera = 0\nsource = "folder:{pictures}"\nring_slots = 32\n'
        "region = [0, 0.5, 1, 1]\nmask = [[[0, 0], [1, 0], [1, 1]]]\n"
    )
    result = ddnn("preview", "--config", config, "--out", tmp_path / "p.png")
    assert result.exit_code == 0, result.output


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["--source", "replay:none.npz"], "none.npz"),
        (["--source", "picamera2:0"], "--system-site-packages"),
        (["--region", "0 0 1 1"], "list such as"),
        (["--region", "[0.9, 0, 0.1, 1]"], "left < right"),
        (["--size", "big"], "rows x columns"),
        (["--out", "/nowhere/p.png"], "cannot write"),
    ],
)
def test_mistake_in_preview_is_one_line_that_says_what_to_do(tmp_path, pictures, args, said):
    common = ["--camera", 0, "--source", f"folder:{pictures}", "--out", tmp_path / "p.png"]
    result = ddnn("preview", *common, *args)
    assert result.exit_code == 1
    assert said in result.output
    assert "Traceback" not in result.output


def test_preview_of_a_sample_without_a_view_says_so(tmp_path):
    np.savez(
        tmp_path / "r.npz", images=np.zeros((1, 1, 8, 8, 3), np.uint8), present=np.zeros((1, 1))
    )
    result = ddnn("preview", "--camera", 0, "--source", f"replay:{tmp_path / 'r.npz'}")
    assert result.exit_code == 1
    assert "no picture" in result.output


def test_grey_sections_view_is_drawn_grey():
    sheet = draw(np.full((480, 640, 3), 77, np.uint8), Framing(), (32, 32, 1))
    assert (sheet[100, 700:] == 77).all()


def test_mask_in_a_small_picture_is_drawn_as_well():
    framing = Framing(mask=[[(0, 0), (1, 0), (1, 1), (0, 1)]])
    sheet = draw(np.zeros((32, 32, 3), np.uint8), framing, (32, 32, 3))
    assert sheet.shape[0] == 480
    assert (sheet[200, 200] > 0).tolist() == (np.array(MASK_COLOUR) > 0).tolist()
