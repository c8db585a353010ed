"""Region, masks and area-averaging."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from device_agent.framing import MASKED, WHOLE, Framing, covered, pixel_box


def picture(height, width, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3)).astype(np.uint8)


def test_picture_of_the_sections_size_is_passed_on_as_it_is():
    image = picture(16, 16)
    assert Framing().view(image, (16, 16, 3)) is image


def test_whole_multiple_is_the_mean_of_each_block():
    image = picture(32, 48)
    means = image.reshape(8, 4, 8, 6, 3).mean(axis=(1, 3))
    assert np.abs(Framing().view(image, (8, 8, 3)) - means).max() <= 0.5 + 1e-3


def area_mean(image, top, bottom, left, right):
    """By the definition: the integral over the rectangle, pixel by pixel, divided by its area."""
    total, area = np.zeros(3), 0.0
    for y in range(int(top), int(np.ceil(bottom))):
        for x in range(int(left), int(np.ceil(right))):
            share = max(0.0, min(bottom, y + 1) - max(top, y))
            share *= max(0.0, min(right, x + 1) - max(left, x))
            total += share * image[y, x]
            area += share
    return total / area


@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_every_pixel_is_the_mean_of_what_it_covers(data):
    height, width = data.draw(st.integers(5, 24)), data.draw(st.integers(5, 24))
    rows, columns = data.draw(st.integers(1, 9)), data.draw(st.integers(1, 9))
    left, right = sorted(data.draw(st.tuples(st.floats(0, 0.4), st.floats(0.6, 1))))
    top, bottom = sorted(data.draw(st.tuples(st.floats(0, 0.4), st.floats(0.6, 1))))
    image = picture(height, width, seed=data.draw(st.integers(0, 99)))
    view = Framing((left, top, right, bottom)).view(image, (rows, columns, 3))
    for r in range(rows):
        for c in range(columns):
            y = [(top + (bottom - top) * n / rows) * height for n in (r, r + 1)]
            x = [(left + (right - left) * n / columns) * width for n in (c, c + 1)]
            assert np.abs(view[r, c] - area_mean(image, *y, *x)).max() <= 0.51


@given(st.integers(0, 255), st.integers(3, 40), st.integers(3, 40))
def test_one_shade_stays_that_shade_at_any_size(shade, height, width):
    image = np.full((height, width, 3), shade, np.uint8)
    assert (Framing().view(image, (7, 5, 3)) == shade).all()


def test_masked_pixels_do_not_depend_on_the_picture():
    framing = Framing((0.0, 0.0, 1.0, 1.0), [[(0, 0), (0.5, 0), (0.5, 1), (0, 1)]])
    one, other = (framing.view(picture(32, 32, seed), (8, 8, 3)) for seed in (1, 2))
    assert (one[:, :4] == MASKED).all()
    assert (other[:, :4] == MASKED).all()
    assert (one[:, 4:] != other[:, 4:]).any()


def test_pixel_that_a_mask_only_touches_is_masked_as_well():
    mask = covered([[(0, 0), (0.3, 0), (0.3, 1), (0, 1)]], WHOLE, 4, 4)
    assert mask.tolist() == [[True, True, False, False]] * 4


def test_mask_is_in_shares_of_the_whole_picture_whatever_the_region():
    right_half = [[(0.5, 0), (1, 0), (1, 1), (0.5, 1)]]
    assert covered(right_half, (0.5, 0, 1, 1), 4, 4).all()
    assert not covered(right_half, (0, 0, 0.5, 1), 4, 4).any()


def test_polygon_with_a_dent_masks_only_its_inside():
    arrow = [[(0, 0), (1, 0), (1, 1), (0.5, 0.25), (0, 1)]]
    mask = covered(arrow, WHOLE, 8, 8)
    assert mask[0].all()
    assert not mask[7, 3:5].any()
    assert mask[6, 0]
    assert mask[6, 7]


def test_masking_leaves_the_cameras_own_picture_alone():
    image = picture(16, 16)
    before = image.copy()
    Framing(WHOLE, [[(0, 0), (1, 0), (1, 1)]]).view(image, (16, 16, 3))
    assert np.array_equal(image, before)


def test_grey_section_gets_the_brightness():
    image = np.zeros((8, 8, 3), np.uint8)
    image[..., 1] = 100
    assert Framing().view(image, (4, 4, 1)).tolist() == np.full((4, 4, 1), 59).tolist()


def test_section_of_other_channels_is_refused():
    with pytest.raises(ValueError, match="channels"):
        Framing().view(picture(8, 8), (4, 4, 2))


def test_another_size_of_picture_is_followed():
    framing = Framing()
    for size in (16, 24, 16):
        assert framing.view(picture(size, size), (8, 8, 3)).shape == (8, 8, 3)


def test_cut_is_the_region_in_its_own_resolution_with_masks():
    framing = Framing((0.5, 0.25, 1.0, 0.75), [[(0.75, 0), (1, 0), (1, 1), (0.75, 1)]])
    image = picture(40, 60)
    cut = framing.cut(image)
    assert pixel_box(framing.region, image.shape) == (30, 10, 60, 30)
    assert np.array_equal(cut[:, :15], image[10:30, 30:45])
    assert (cut[:, 15:] == MASKED).all()


def test_camera_is_asked_for_enough_rows_for_the_region():
    assert Framing((0, 0.25, 1, 0.75)).height_for(96) == 384
    assert Framing().height_for(32) == 96


def test_picture_turned_without_a_copy_is_averaged_as_if_it_were_one():
    image = picture(24, 32)
    turned = Framing((0.1, 0, 1, 0.9)).view(image[::-1, ::-1], (8, 8, 3))
    copied = Framing((0.1, 0, 1, 0.9)).view(image[::-1, ::-1].copy(), (8, 8, 3))
    assert np.array_equal(turned, copied)
