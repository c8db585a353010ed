"""Training on sets too large to look at all of after every epoch."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

torch = pytest.importorskip("torch")

from tests.export.test_export import options_for, tiny_set  # noqa: E402
from training.augment import Draws  # noqa: E402
from training.datasets.base import evenly  # noqa: E402
from training.network import Network  # noqa: E402
from training.options import TrainOptions  # noqa: E402
from training.train import samples_of, settle, step_loss, train  # noqa: E402

DATA = tiny_set(samples=300)
OPTIONS = TrainOptions(epochs=2, batch=64)


def pictures_seen(monkeypatch, network):
    seen = []
    forward = network.forward

    def counted(images, *others):
        seen.append(len(images))
        return forward(images, *others)

    monkeypatch.setattr(network, "forward", counted)
    return seen


def test_large_set_settles_the_batch_norms_on_part_of_it(monkeypatch):
    network = Network(options_for(DATA))
    samples = samples_of(DATA, DATA.train)
    seen = pictures_seen(monkeypatch, network)
    monkeypatch.setattr("training.train.SETTLED_SAMPLES", 100)
    settle(network, samples, OPTIONS)
    assert seen == [64, 64]


def test_small_set_settles_the_batch_norms_on_all_of_it(monkeypatch):
    network = Network(options_for(DATA))
    seen = pictures_seen(monkeypatch, network)
    settle(network, samples_of(DATA, DATA.train), OPTIONS)
    assert sum(seen) == len(DATA.train)


def test_large_validation_part_chooses_the_model_by_part_of_it(monkeypatch):
    judged = []

    def accuracies(answers, samples, counted=None):
        judged.append(len(samples))
        return {"local/0": 0.5}

    monkeypatch.setattr("training.train._accuracies", accuracies)
    monkeypatch.setattr("training.train.VALIDATED_SAMPLES", 10)
    _, validation = train(DATA, options_for(DATA), OPTIONS)
    assert set(judged) == {10}
    assert len(validation) > 20, "thresholds are still chosen on all of it"


def test_settling_takes_the_statistics_of_the_weights_as_they_are():
    network = Network(options_for(DATA))
    samples = samples_of(DATA, DATA.train)
    settle(network, samples, OPTIONS)
    before = [b.clone() for name, b in network.named_buffers() if name.endswith("mean")]
    with torch.no_grad():
        for parameter in network.devices.parameters():
            parameter.neg_()
    settle(network, samples, OPTIONS)
    after = [b for name, b in network.named_buffers() if name.endswith("mean")]
    assert all(not torch.allclose(a, b) for a, b in zip(before, after, strict=True))


def gradients(local_masks):
    """Of one step with fresh weights, by parameter."""
    torch.manual_seed(0)
    network = Network(options_for(DATA, local_aggregation="GC")).train()
    batch = samples_of(DATA, DATA.train[:32])
    options = TrainOptions(batch=32, local_masks=local_masks)
    draws = Draws(torch.Generator().manual_seed(0), len(batch))
    step_loss(network, batch, options, draws).backward()
    return {name: parameter.grad for name, parameter in network.named_parameters()}


def test_sets_of_cameras_teach_devices_and_local_exit_and_nothing_above():
    without, with_sets = gradients(0), gradients(2)
    changed = {
        name.split(".")[0]
        for name, gradient in without.items()
        if not torch.allclose(gradient, with_sets[name], atol=1e-7)
    }
    assert changed == {"devices", "locals"}


@given(st.lists(st.integers(0, 9999), unique=True), st.integers(1, 50))
def test_even_part_is_of_the_index_in_order_and_no_larger(values, most):
    index = np.array(sorted(values), np.int64)
    part = evenly(index, most)
    assert len(part) == min(len(index), most)
    assert (np.diff(part) > 0).all()
    assert np.isin(part, index).all()
