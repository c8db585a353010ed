"""How often early exits disagree with the last one, as a manifest says it."""

import msgspec
import numpy as np
import pytest

from ddnn.bundle import assemble, decode_manifest, encode_manifest
from ddnn.drift import Expected, expected_of
from ddnn.errors import BundleError
from ddnn.evaluate import evaluate
from ddnn.measurements import ExitDisagreement
from ddnn.store import read_folder
from tests.arm64.bundles import random_bundle
from tests.bundles import CLASSES, every_exit_used
from training.datasets.base import MultiCameraSet
from training.inspect import page
from training.measure import Measured, disagreement, thresholds_of

SHAPES = {
    "devices, cloud": ((4,), (), (), (8,), "CC", {}),
    "devices, edge, cloud": ((4,), ((0, 1, 2),), (6,), (8,), "CC", {}),
    "several edges": ((4,), ((0, 2), (1,)), (6,), (8,), "CC", {}),
    "cloud only": ((4,), (), (), (8,), "CC", {"pictures": True}),
}


@pytest.mark.parametrize("shape", SHAPES)
def test_it_is_counted_over_the_samples_that_leave_early(shape):
    *fields, more = SHAPES[shape]
    made = random_bundle(4, (14, 18, 3), *fields, **more)
    cameras = made.manifest.topology.cameras
    rng = np.random.default_rng(2)
    images = rng.integers(0, 256, (80, cameras, 14, 18, 3)).astype(np.uint8)
    present = rng.random((80, cameras)) < 0.7
    images[~present] = 0
    bundle = every_exit_used(made, images, present)
    everything = np.arange(80)
    data = MultiCameraSet(
        images=images, labels=rng.integers(0, 3, 80), seen=present, present=present,
        classes=CLASSES, name="noise", train=everything[:0], test=everything,
    )  # fmt: skip
    measured = Measured(bundle, data, everything)
    found = disagreement(measured, thresholds_of(bundle.manifest))
    result = evaluate(bundle, images, present)
    last = list(result.exits)[-1]
    wanted = {}
    for n in range(80):
        exit_ = str(result.exit[n])
        if present[n].any() and exit_ != last:
            answered, disagreed = wanted.get(exit_, (0, 0))
            differs = result.label[n] != result.exits[last].label[n]
            wanted[exit_] = answered + 1, disagreed + bool(differs)
    assert {name: (one.answered, one.disagreed) for name, one in found.items()} == wanted
    assert set(found) == set(result.exits) - {last}


def with_disagreement(**found):
    bundle = random_bundle(4, (14, 18, 3), (4,), ((0, 1),), (6,), (8,), "CC")
    manifest = msgspec.structs.replace(bundle.manifest, disagreement=found)
    return assemble(encode_manifest(manifest), bundle.sections)


def test_manifest_carries_it_to_the_gateway():
    bundle = with_disagreement(local=ExitDisagreement(answered=90, disagreed=9))
    assert expected_of(bundle.manifest) == {"local": Expected(90, 9)}


def test_inspect_says_it():
    bundle = with_disagreement(local=ExitDisagreement(answered=90, disagreed=9))
    text = "the local exit disagrees with the last one in 9 of 90 validation samples"
    assert text in "\n".join(page(bundle))


def test_manifest_from_before_keeps_its_bytes_and_expects_nothing():
    bundle = read_folder("models/reference")
    assert encode_manifest(bundle.manifest) == bundle.payload
    assert expected_of(bundle.manifest) == {}


def test_more_disagreements_than_answers_are_refused():
    payload = with_disagreement(local=ExitDisagreement(answered=90, disagreed=9)).payload
    with pytest.raises(BundleError, match="more samples disagreed"):
        decode_manifest(payload.replace(b'"disagreed":9', b'"disagreed":91'))


def test_disagreement_of_the_last_exit_is_refused():
    payload = with_disagreement(local=ExitDisagreement(answered=90, disagreed=9)).payload
    wrong = payload.replace(b'"disagreement":{"local"', b'"disagreement":{"cloud"')
    with pytest.raises(BundleError):
        decode_manifest(wrong)
    bundle = random_bundle(4, (14, 18, 3), (4,), (), (), (8,), "CC")
    manifest = msgspec.structs.replace(
        bundle.manifest, disagreement={"edge": ExitDisagreement(answered=1, disagreed=0)}
    )
    with pytest.raises(BundleError, match="not early"):
        decode_manifest(encode_manifest(manifest))
