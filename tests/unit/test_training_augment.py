"""Augmentation keeps samples consistent; camera dropout leaves somebody."""

import pytest

torch = pytest.importorskip("torch")

from training.augment import Draws, augment, cameras_left, drop_cameras  # noqa: E402
from training.options import TrainOptions  # noqa: E402

STILL = {"shift_px": 0, "brightness": 0.0, "contrast": 0.0, "noise": 0.0}


def random(seed=0):
    return torch.Generator().manual_seed(seed)


def draws(images):
    return Draws(random(), len(images))


def pictures(n=16, d=3):
    return torch.randint(0, 256, (n, d, 6, 8, 3), generator=random()).float()


def test_values_stay_whole_bytes_and_blank_views_stay_blank():
    present = torch.rand(16, 3, generator=random()) < 0.5
    images = pictures() * present[:, :, None, None, None]
    out = augment(images, present, TrainOptions(), draws(images))
    assert torch.equal(out, out.round())
    assert 0 <= out.min() <= out.max() <= 255
    assert not out[~present].any()


def test_no_augmentation_changes_nothing():
    images, present = pictures(), torch.ones(16, 3, dtype=torch.bool)
    assert torch.equal(augment(images, present, TrainOptions(**STILL), draws(images)), images)


def test_mirror_turns_all_views_of_a_sample_or_none():
    images, present = pictures(), torch.ones(16, 3, dtype=torch.bool)
    out = augment(images, present, TrainOptions(**STILL, flip=True), draws(images))
    turned = (out == images.flip(3)).flatten(2).all(2)
    same = (out == images).flatten(2).all(2)
    assert ((turned.all(1)) | (same.all(1))).all()
    assert turned.any()
    assert same.any()


def test_shift_repeats_the_edge():
    images = torch.zeros(64, 1, 5, 5, 1)
    images[:, :, :, 0] = 255
    present = torch.ones(64, 1, dtype=torch.bool)
    out = augment(images, present, TrainOptions(**(STILL | {"shift_px": 2})), draws(images))
    widths = out[:, 0, 2, :, 0].eq(255).sum(1)
    assert set(widths.tolist()) <= {0, 1, 2, 3}
    assert widths.max() == 3


@pytest.mark.parametrize("chance", [0.0, 0.5, 0.99])
def test_dropout_only_takes_away_and_never_everything(chance):
    present = torch.rand(500, 4, generator=random()) < 0.5
    kept = drop_cameras(present, chance, Draws(random(1), 500))
    assert not (kept & ~present).any()
    assert torch.equal(kept.any(1), present.any(1))
    if chance == 0:
        assert torch.equal(kept, present)


def test_cameras_left_are_some_of_those_there():
    present = torch.rand(500, 4, generator=random()) < 0.5
    left = cameras_left(present, Draws(random(1), 500))
    assert not (left & ~present).any()
    assert torch.equal(left.any(1), present.any(1))


def test_every_number_of_cameras_is_left_equally_often():
    present = torch.ones(8000, 4, dtype=torch.bool)
    left = cameras_left(present, Draws(random(1), 8000))
    counts = left.sum(1).bincount(minlength=5)
    assert counts[0] == 0
    assert (counts[1:] / 8000 - 0.25).abs().max() < 0.03
    assert (left.float().mean(0) - 0.625).abs().max() < 0.03, "no camera is lost more than another"
