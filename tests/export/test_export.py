"""From training to a bundle: checked against torch, reproducible, loadable."""

import dataclasses

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from ddnn.bundle import decode_manifest  # noqa: E402
from ddnn.errors import BundleError  # noqa: E402
from ddnn.evaluate import evaluate  # noqa: E402
from ddnn.store import read_folder, write_folder  # noqa: E402
from training import export as export_module  # noqa: E402
from training.cost import section_cost  # noqa: E402
from training.datasets.base import MultiCameraSet  # noqa: E402
from training.export import Label, build_sections, export  # noqa: E402
from training.network import Network  # noqa: E402
from training.options import NetworkOptions, TrainOptions, topology  # noqa: E402
from training.train import train  # noqa: E402


def tiny_set(samples=48, cameras=3, image=(8, 8, 3), seed=0):
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 3, samples)
    present = rng.random((samples, cameras)) < 0.8
    present[np.arange(samples), rng.integers(0, cameras, samples)] = True
    images = rng.integers(0, 120, (samples, cameras, *image), dtype=np.uint8)
    images += (labels * 60).astype(np.uint8)[:, None, None, None, None]
    images[~present] = 0
    return MultiCameraSet(
        images=images,
        labels=labels.astype(np.int64),
        seen=present.copy(),
        present=present,
        classes=("a", "b", "c"),
        name="tiny",
        train=np.arange(0, samples * 3 // 4),
        test=np.arange(samples * 3 // 4, samples),
    )


def options_for(data, shape="devices-edge-cloud", **changes):
    height, width, channels = data.image_shape
    fields = {
        "edges": topology(shape, data.cameras),
        "device_filters": (2,),
        "edge_filters": (3,),
        "cloud_filters": () if shape == "devices-edge" else (4,),
    }
    return NetworkOptions(
        cameras=data.cameras, classes=len(data.classes), height=height, width=width,
        channels=channels, **(fields | changes),
    )  # fmt: skip


def random_network(options, seed=0):
    """Untrained, with batch norms as odd as training could ever leave them."""
    torch.manual_seed(seed)
    network = Network(options)
    for name, value in network.state_dict().items():
        if name.endswith("gamma"):
            # Of both signs, and some exactly 0.
            value.copy_((torch.randn(value.shape) * 2).round() / 2)
        elif name.endswith("beta"):
            value.copy_(torch.randn(value.shape).round() / 2)
        elif name.endswith("running_mean"):
            value.copy_((torch.randn(value.shape) * 3).round())
        elif name.endswith("running_var"):
            value.copy_(torch.rand(value.shape) * 50 + 0.5)
        elif name.endswith("output.weight"):
            # HC's hidden units begin without a say.
            value.copy_(torch.randn(value.shape))
    with torch.no_grad():
        for norm in (block.norm for block in network.devices.blocks[:1]):
            norm.running_mean.mul_(200)
            norm.running_var.mul_(10_000)
    return network.eval()


LABEL = Label("tiny", 1, {"seed": 0})


@pytest.mark.parametrize("aggregation", ["MP", "AP", "CC", "GA", "GC", "HC"])
@pytest.mark.parametrize(
    "shape", ["devices-edge-cloud", "devices-edges-cloud", "devices-edge", "devices-cloud"]
)
def test_every_shape_is_exported_as_torch_computes_it(shape, aggregation):
    data = tiny_set()
    features = "CC" if aggregation in ("GA", "GC", "HC") else aggregation
    options = options_for(data, shape, local_aggregation=aggregation, feature_aggregation=features)
    bundle = export(random_network(options), data, data.train, LABEL)
    assert decode_manifest(bundle.payload) == bundle.manifest
    result = evaluate(bundle, data.images, data.present)
    assert len(result.label) == len(data)
    assert set(result.exits) == set(bundle.manifest.exits)


@pytest.mark.parametrize("image", [(16, 10, 1), (12, 20, 3), (5, 3, 4)])
@pytest.mark.parametrize("filters", [(3,), (5, 2), (2, 3, 4)])
@pytest.mark.parametrize("shared", [False, True])
def test_any_image_and_number_of_blocks(image, filters, shared):
    data = tiny_set(image=image, cameras=2)
    options = options_for(data, device_filters=filters, shared=shared, edge_filters=(3, 5))
    bundle = export(random_network(options), data, data.train, LABEL)
    if shared:
        assert bundle.sections["device/0"] == bundle.sections["device/1"]


@pytest.mark.parametrize("aggregation", ["MP", "CC"])
def test_byte_weights_of_edge_and_cloud_are_exported_as_torch_computes_them(aggregation):
    data = tiny_set()
    options = options_for(
        data, upper_weights="int8", feature_aggregation=aggregation, edge_filters=(3, 5)
    )
    network = random_network(options)
    bundle = export(network, data, data.train, LABEL)
    costs = {i.role: section_cost(i, bundle.sections[i.role]) for i in bundle.manifest.sections}
    assert costs["device/0"].byte_weights == 0
    joined = 2 * (3 if aggregation == "CC" else 1)
    assert costs["edge/0"].byte_weights == 9 * (joined * 3 + 3 * 5)
    assert costs["cloud"].byte_weights == 9 * 5 * 4
    trained, validation = train(data, options, TrainOptions(epochs=1, batch=8))
    assert export(trained, data, validation, LABEL)


def test_local_exit_alone_makes_a_bundle():
    data = tiny_set()
    options = options_for(data, "devices-cloud", cloud_filters=())
    bundle = export(random_network(options), data, data.train, LABEL)
    assert set(bundle.manifest.exits) == {"local"}
    assert set(evaluate(bundle, data.images, data.present).exit) == {"local"}


@pytest.mark.parametrize("part", ["Block", "Head"])
def test_wrong_section_is_noticed_before_anything_is_written(part, monkeypatch):
    data = tiny_set()
    network = random_network(options_for(data))
    name = {"Block": "fold_block", "Head": "fold_scores"}[part]
    honest = getattr(export_module, name)

    def wrong(*args):
        made = honest(*args)
        if part == "Block":
            return dataclasses.replace(made, flip=~made.flip)
        return dataclasses.replace(made, offset=made.offset + (3 << made.shift))

    monkeypatch.setattr(export_module, name, wrong)
    with pytest.raises(BundleError, match="torch"):
        export(network, data, data.train, LABEL)


def test_training_twice_gives_the_same_sections(tmp_path, monkeypatch):
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1700000000")
    data = tiny_set()
    torch.set_num_threads(1)
    bundles = []
    for _ in range(2):
        results = []
        network, validation = train(
            data, options_for(data), TrainOptions(epochs=2, batch=8), results.append
        )
        assert [r.epoch for r in results] == [1, 2]
        assert not set(validation) & set(data.test)
        bundles.append(export(network, data, validation, LABEL))
    first, second = bundles
    assert first.sections == second.sections
    assert first.payload == second.payload
    assert first.manifest.created == "2023-11-14T22:13:20Z"
    write_folder(tmp_path / "bundle", first)
    loaded = read_folder(tmp_path / "bundle")
    result = evaluate(loaded, data.images[data.test], data.present[data.test])
    accuracy = float(np.mean(result.label == data.labels[data.test]))
    assert loaded.manifest.accuracy.overall == pytest.approx(accuracy)


def test_another_seed_gives_another_network():
    data = tiny_set()
    sections = [
        build_sections(train(data, options_for(data), TrainOptions(epochs=1, seed=seed))[0]).files
        for seed in (0, 1)
    ]
    assert sections[0]["device/0"] != sections[1]["device/0"]


def test_torch_and_sections_decide_alike():
    data = tiny_set(samples=200)
    network, validation = train(data, options_for(data), TrainOptions(epochs=3, batch=16))
    bundle = export(network, data, validation, LABEL)
    result = evaluate(bundle, data.images, data.present)
    with torch.no_grad():
        answers = network(torch.from_numpy(data.images).float(), torch.from_numpy(data.present))
    for name, logits in (
        ("local", answers.local[0]),
        ("edge", answers.edge[0]),
        ("cloud", answers.cloud),
    ):
        scale = bundle.manifest.exits[name].logit_scale
        got = result.exits[name].logits * scale
        got, wanted = (a - a.mean(1, keepdims=True) for a in (got, logits.numpy()))
        assert np.abs(got - wanted).max() < 0.1
