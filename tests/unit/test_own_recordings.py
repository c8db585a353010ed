"""A labelled recording as a data set: how it is split, what is refused, what a person is told."""

import json
import math
from fractions import Fraction

import numpy as np
import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from ddnn.cli import main
from ddnn.errors import DataError
from ddnn.store import write_folder
from tests.recordings import CLASSES, labelled_folder, slots_of, small_bundle
from training.cli import train
from training.comparing import compare, mcnemar, wilson
from training.datasets.base import split_validation
from training.datasets.load import load
from training.evaluate import evaluate_samples, samples_for, verdict
from training.labelling.suggest import suggestions
from training.own.defaults import defaults
from training.own.findings import advice, find
from training.preset import preset
from training.recorded.images import load_pictures
from training.recorded.labels import LEFT_OUT, Labels
from training.recorded.split import by_time
from training.recorded.views import gather, read_views, write_views


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return labelled_folder(tmp_path_factory.mktemp("set") / "yard")


# -- by time -----------------------------------------------------------------------------------


@given(
    st.lists(st.floats(0, 1e6, allow_nan=False), min_size=1, max_size=120),
    st.integers(1, 4),
    st.integers(0, 3),
)
@settings(max_examples=25, deadline=None)
def test_parts_are_disjoint_whole_blocks_with_a_guard_between(times, classes, seed):
    times = np.array(times)
    labels = np.random.default_rng(seed).integers(0, classes, len(times))
    parts = by_time(times, labels, seed)
    every = np.concatenate([parts.fit, parts.validation, parts.test])
    assert len(np.unique(every)) == len(every)
    assert set(every.tolist()) <= set(range(len(times)))
    for a, b in ((parts.fit, parts.validation), (parts.fit, parts.test),
                 (parts.validation, parts.test)):  # fmt: skip
        if len(a) and len(b):
            assert np.abs(times[a][:, None] - times[b]).min() >= parts.guard_s
    again = by_time(times, labels, seed)
    assert all(np.array_equal(a, b) for a, b in zip(parts[:3], again[:3], strict=True))


def test_pictures_of_one_stretch_of_time_stay_in_one_part():
    slots = np.array(slots_of(200), np.float64)
    labels = np.arange(200) // 10 % 3
    parts = by_time(slots, labels)
    part = np.full(200, -1)
    for number, index in enumerate(parts[:3]):
        part[index] = number
    stretches = part.reshape(20, 10)
    assert all(len(set(row) - {-1}) == 1 for row in stretches)
    for index, share in ((parts.test, 0.2), (parts.validation, 0.15)):
        assert set(labels[index]) == {0, 1, 2}
        assert 0.5 * share < len(index) / 200 < 2 * share


def test_recording_without_pauses_keeps_a_distance_between_its_parts():
    times = np.arange(2000.0)
    parts = by_time(times, np.arange(2000) // 100 % 2)
    assert parts.guard_s > 1.0
    nearest = np.abs(parts.fit[:, None] - parts.test).min()
    assert nearest >= parts.guard_s
    assert len(parts.fit) > 1000


# -- as a data set -------------------------------------------------------------------------------


def test_folder_is_read_through_the_one_interface_with_its_validation_part(folder):
    data = load(folder)
    assert data.classes == CLASSES
    assert data.images.shape[1:] == (2, 16, 16, 3)
    assert 0.03 < (~data.present).mean() < 0.3
    fit, validation = split_validation(data, seed=5)
    assert np.array_equal(validation, data.validation)
    assert len(fit)
    assert not set(fit) & set(data.test)
    part = data.subset(np.concatenate([data.validation, data.test, fit[:3]]))
    assert len(part.train) == len(data.validation) + 3
    assert np.array_equal(part.images[part.validation], data.images[data.validation])
    assert data.subset(data.validation).validation is None, "nothing is left to fit"


def test_data_set_keeps_its_validation_part_in_a_file(folder, tmp_path):
    data = load(folder)
    data.save(tmp_path / "set.npz")
    again = load(tmp_path / "set.npz")
    assert np.array_equal(again.validation, data.validation)
    assert np.array_equal(again.images, data.images)


def test_slots_left_out_or_without_a_label_are_no_samples(tmp_path):
    folder = labelled_folder(tmp_path / "set")
    slots = slots_of(90)
    with Labels(folder) as labels:
        labels.change(slots[0], labels.get(slots[0]), LEFT_OUT)
        labels.change(slots[1], labels.get(slots[1]), None)
    assert len(load(folder)) == 88


def test_picture_of_another_size_is_made_to_fit_from_the_region(tmp_path):
    folder = labelled_folder(tmp_path / "set", count=45)
    view = next(v for v in read_views(folder) if v.state == "present")
    path = folder / view.file
    Image.new("RGB", (8, 8), (255, 0, 0)).save(path)
    (path.parent / "region").mkdir()
    Image.new("RGB", (64, 64), (0, 0, 255)).save(path.parent / "region" / path.name)
    (folder / "views.csv").unlink()
    views = gather(folder).views
    write_views(folder, views)
    pictures = load_pictures(folder, views, [view.slot], 2, (16, 16, 3))
    assert pictures.resized == 1
    assert pictures.images[0, view.camera, 5, 5].tolist() == [0, 0, 255]


@pytest.mark.parametrize(
    ("how", "reason"),
    [
        ({"classes": ("disc",)}, "every label is 'disc'"),
        ({"count": 5}, "5 slots are labelled: 40 is the least"),
        ({"labels": ["ring"] * 4 + ["disc", "cross"] * 43}, "ring has 4 slots: 10 is the least"),
        ({"labels": ["ring"] * 15 + ["disc"] * 75, "classes": ("ring", "disc"),
          "slots": [*range(1000, 1015), *range(100_000, 175_000, 1000)]},
         "ring was recorded in one short stretch of time"),
    ],
)  # fmt: skip
def test_recording_that_carries_no_model_is_refused_with_the_reason(tmp_path, how, reason):
    folder = labelled_folder(tmp_path / "set", **how)
    with pytest.raises(DataError, match="cannot be trained on yet") as refused:
        load(folder)
    assert reason in str(refused.value)


def test_camera_without_any_picture_is_refused(tmp_path):
    folder = labelled_folder(tmp_path / "set", cameras=3)
    for path in folder.glob("pictures/*/*/1.png"):
        path.unlink()
    write_views(folder, gather(folder).views)
    with pytest.raises(DataError, match="camera 1 has no picture"):
        load(folder)


def test_nothing_labelled_says_how_to_label(tmp_path):
    folder = labelled_folder(tmp_path / "set", count=6)
    (folder / "labels.csv").unlink()
    with pytest.raises(DataError, match=f"ddnn label {folder}"):
        load(folder)


def test_training_refuses_before_anything_is_written(tmp_path):
    folder = labelled_folder(tmp_path / "set", count=5)
    result = CliRunner().invoke(main, ["train", str(folder), "--site", "yard"])
    assert result.exit_code == 1
    assert "40 is the least" in result.output
    assert not (folder / "bundle").exists()


def test_few_samples_are_shown_more_often():
    few, many = defaults(60, 32), defaults(5000, 96)
    assert few["epochs"] > many["epochs"]
    assert few["batch"] < many["batch"]
    assert (few["filters"], many["filters"]) == ("4", "4,8")


def options(*arguments):
    """What `ddnn train` makes of these arguments."""
    with train.make_context("train", [str(a) for a in arguments]) as context:
        return context.params


def test_folders_defaults_give_way_to_presets_and_options(folder, monkeypatch):
    monkeypatch.setattr("training.own.defaults.TWO_BLOCKS_PX", 16)
    chosen = options(folder, "--site", "yard")
    assert chosen["data"] == str(folder)
    assert (chosen["out"], chosen["run_dir"]) == (folder / "bundle", folder / "runs")
    assert chosen["epochs"] == defaults(90, 16)["epochs"]
    assert chosen["patience"] == 25
    assert chosen["filters"] == (4, 8)
    name = "c-devices-cloud"
    assert preset(name).network["device_filters"] == (4,)
    for arguments in ((folder, "--preset", name), ("--preset", name, folder)):
        chosen = options(*arguments, "--epochs", "3")
        assert chosen["filters"] == (4,)
        assert (chosen["epochs"], chosen["batch"]) == (3, defaults(90, 16)["batch"])


# -- statistics ----------------------------------------------------------------------------------


@given(st.integers(0, 300), st.integers(0, 300))
def test_mcnemars_p_is_the_exact_binomial_one(a, b):
    n = a + b
    tail = sum(Fraction(math.comb(n, k), 2**n) for k in range(min(a, b) + 1))
    assert mcnemar(a, b) == pytest.approx(float(min(1, 2 * tail)))


def test_mcnemar_of_thousands_does_not_overflow():
    assert mcnemar(2000, 2000) == 1.0
    assert 0 < mcnemar(2000, 2300) < 1e-4


@given(st.integers(0, 200), st.integers(0, 200))
def test_wilsons_interval_holds_the_share_and_narrows_with_more_samples(right, wrong):
    few = wilson(np.array([True] * right + [False] * wrong, bool))
    assert 0 <= few.low <= few.value <= few.high <= 1
    if right + wrong:
        more = wilson(np.array(([True] * right + [False] * wrong) * 10, bool))
        assert more.high - more.low < few.high - few.low


def test_two_bundles_that_differ_by_chance_are_not_told_apart():
    random = np.random.default_rng(0)
    first = random.random(300) < 0.8
    coin = first.copy()
    coin[:6] = ~coin[:6]
    assert verdict(compare(first, coin)).startswith("no difference beyond chance")
    better = first | (random.random(300) < 0.5)
    pair = compare(first, better)
    assert pair.difference.low > 0
    assert pair.p < 0.001
    assert verdict(pair).startswith("the other bundle is better")
    assert verdict(compare(better, first)).startswith("the first bundle is better")


# -- with a bundle -------------------------------------------------------------------------------


def test_evaluation_of_a_folder_is_the_engines_and_counts_every_sample(folder):
    bundle = small_bundle()
    classes = bundle.manifest.classes
    data = load(folder)
    renamed = data.__class__(**{**data.__dict__, "classes": classes})
    samples = samples_for_renamed(renamed)
    result = evaluate_samples(bundle, samples)
    assert result.confusion.sum() == len(samples.chosen)
    assert result.accuracy.value == pytest.approx(
        np.trace(result.confusion) / result.confusion.sum()
    )
    assert sum(result.exits.values()) == pytest.approx(1.0, abs=1e-3)


def samples_for_renamed(data):
    from training.evaluate import Samples

    return Samples(data, data.test, "test")


def relabelled(folder, tmp_path, classes):
    """The same recording with other names for its classes."""
    import shutil

    own = tmp_path / "own"
    shutil.copytree(folder, own)
    for name in ("labels.csv", "classes.txt"):
        text = (own / name).read_text()
        for old, new in zip(CLASSES, classes, strict=True):
            text = text.replace(old, new)
        (own / name).write_text(text)
    return own


def test_bundles_of_other_cameras_and_picture_sizes_are_compared_on_the_same_samples(
    folder, tmp_path
):
    small, large = small_bundle(2, 16), small_bundle(1, 32, seed=2)
    own = relabelled(folder, tmp_path, small.manifest.classes)
    assert np.array_equal(
        samples_for(small, str(own), None, "test").chosen,
        samples_for(large, str(own), None, "test").chosen,
    )
    write_folder(tmp_path / "a", small)
    write_folder(tmp_path / "b", large)
    command = ["evaluate", str(tmp_path / "a"), str(own), "--against", str(tmp_path / "b")]
    result = CliRunner().invoke(main, [*command, "--json"], catch_exceptions=False)
    facts = json.loads(result.stdout)
    assert facts["samples"] == len(load(own).test)
    pair = facts["pair"]
    gain = facts["against"]["accuracy"]["value"] - facts["bundle"]["accuracy"]["value"]
    assert pair["difference"]["value"] == pytest.approx(gain)
    assert (pair["only_second"] - pair["only_first"]) / pair["samples"] == pytest.approx(gain)
    text = CliRunner().invoke(main, command, catch_exceptions=False).stdout
    assert "answered as" in text
    assert "p = " in text


def test_labels_that_the_bundle_does_not_know_are_named(folder, tmp_path):
    write_folder(tmp_path / "a", small_bundle())
    result = CliRunner().invoke(main, ["evaluate", str(tmp_path / "a"), str(folder)])
    assert result.exit_code == 1
    assert "has labels cross, disc, ring" in result.output


def test_suggestions_are_the_bundles_answers_and_more_cameras_do_no_harm(folder):
    bundle = small_bundle(cameras=1)
    views = read_views(folder)
    slots = slots_of(90)
    said = suggestions(bundle, folder, views, slots)
    seen = {v.slot for v in views if v.camera == 0 and v.state == "present"}
    assert set(said) == seen
    assert all(s.label in bundle.manifest.classes and 0 <= s.entropy <= 1 for s in said.values())


def test_report_names_the_camera_that_matters_and_what_is_short(folder):
    data = load(folder)
    bundle = small_bundle()
    renamed = data.__class__(**{**data.__dict__, "classes": bundle.manifest.classes})
    found = find(bundle, renamed, curve=[(20, 0.4), (40, 0.6)])
    assert [c.camera for c in found.cameras] == [0, 1]
    assert found.verdict == "not yet", "weights were drawn at random"
    said = " ".join(advice(found, days=1, unlabelled=1000))
    assert "recorded on one day" in said
    assert "From 20 to 40 slots the accuracy rose by 20 points" in said
    assert "1000 recorded slots are not labelled" in said
    assert "only 30 slots of" in said


def test_site_of_one_camera_gets_a_report_too(tmp_path):
    folder = labelled_folder(tmp_path / "set", cameras=1, absent=0.0)
    bundle = small_bundle(cameras=1)
    data = load(folder)
    renamed = data.__class__(**{**data.__dict__, "classes": bundle.manifest.classes})
    (camera,) = find(bundle, renamed).cameras
    assert camera.share == 1.0
    assert camera.without == 0.0


def test_class_that_the_test_does_not_have_is_said_to_be_untested(folder):
    bundle = small_bundle()
    data = load(folder)
    kept = data.test[data.labels[data.test] != 2]
    some = data.__class__(**{**data.__dict__, "test": kept, "classes": bundle.manifest.classes})
    found = find(bundle, some)
    name = bundle.manifest.classes[2]
    assert found.per_class[name] is None
    assert f"No {name} is in the test" in " ".join(advice(found, days=5, unlabelled=0))
