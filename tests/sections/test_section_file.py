"""Each thing that refuses a section file, before onnxruntime sees it, and only then."""

import contextlib
import hashlib

import msgspec
import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

import ddnn.section
from ddnn.bundle import SelfTest, Tensor
from ddnn.errors import BundleError
from ddnn.section import Section
from ddnn.section_file import OPERATORS, check_file
from tests.bundles import random_bundle
from training.local_sections import local_section
from training.sections import Block, Head, upper_section

BUNDLE = random_bundle()


def role_and_model(role="edge/0"):
    return BUNDLE.manifest.section(role), onnx.load_model_from_string(BUNDLE.sections[role])


def refusal(info, model, **changes):
    """What `Section` says of a file that is what the manifest names, hash and all."""
    data = model if isinstance(model, bytes) else model.SerializeToString()
    changes = {"size_bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()} | changes
    with pytest.raises(BundleError) as caught:
        Section(msgspec.structs.replace(info, **changes), data)
    assert info.role in str(caught.value)
    return str(caught.value)


@pytest.fixture
def not_loaded(monkeypatch):
    """Fails the test when onnxruntime is given the file."""

    def load(*_, **__):
        raise AssertionError("onnxruntime was given a file that should have been refused")

    monkeypatch.setattr(ddnn.section.ort, "InferenceSession", load)


@pytest.mark.usefixtures("not_loaded")
class TestRefusedBeforeLoading:
    def test_bytes_that_are_no_model(self):
        info, _ = role_and_model()
        assert "not an ONNX model" in refusal(info, b"\xff" * 20)

    @pytest.mark.parametrize("extra", [-1, 1])
    def test_file_of_another_size_than_stated(self, extra):
        info, model = role_and_model()
        size = len(model.SerializeToString()) + extra
        assert f"the manifest says {size}" in refusal(info, model, size_bytes=size)

    @pytest.mark.parametrize("version", [11, 17, 19, 24])
    def test_file_of_another_opset_than_the_manifests(self, version):
        info, model = role_and_model()
        model.opset_import[0].version = version
        assert f"opset is [('', {version})]; the manifest says 18" in refusal(info, model)

    def test_opset_that_sections_do_not_use_even_if_the_manifest_says_so(self):
        info, model = role_and_model()
        model.opset_import[0].version = 19
        assert "opset 19 is not the one" in refusal(info, model, opset=19)

    def test_import_of_another_operator_set(self):
        info, model = role_and_model()
        model.opset_import.append(helper.make_opsetid("com.microsoft", 1))
        assert "com.microsoft" in refusal(info, model)

    def test_newer_file_format(self):
        info, model = role_and_model()
        model.ir_version = 11
        assert "IR version 11" in refusal(info, model)

    @pytest.mark.parametrize(
        "operator", ["ConstantOfShape", "RandomNormal", "Loop", "If", "Expand"]
    )
    def test_operator_outside_the_list(self, operator):
        info, model = role_and_model()
        model.graph.node[0].op_type = operator
        assert f"operator '{operator}' is not allowed" in refusal(info, model)

    def test_operator_of_a_custom_domain(self):
        info, model = role_and_model()
        model.graph.node[0].domain = "com.example"
        assert "of domain 'com.example' is not allowed" in refusal(info, model)

    def test_external_data(self, tmp_path):
        info, model = role_and_model()
        (tmp_path / "weights").write_bytes(bytes(1 << 20))
        tensor = model.graph.initializer[0]
        tensor.ClearField("raw_data")
        tensor.data_location = TensorProto.EXTERNAL
        tensor.external_data.add(key="location", value=str(tmp_path / "weights"))
        assert "Tensor has field 13" in refusal(info, model)

    def test_subgraph(self):
        info, model = role_and_model()
        body = helper.make_graph([helper.make_node("Identity", ["x"], ["y"])], "b", [], [])
        model.graph.node[0].attribute.append(helper.make_attribute("body", body))
        assert "Attribute has field 6" in refusal(info, model)

    def test_function(self):
        info, model = role_and_model()
        node = helper.make_node("Add", ["a", "b"], ["c"])
        imports = [helper.make_opsetid("", 18)]
        model.functions.append(helper.make_function("", "Add", ["a", "b"], ["c"], [node], imports))
        assert "Model has field 25" in refusal(info, model)

    def test_sparse_constant(self):
        info, model = role_and_model()
        model.graph.sparse_initializer.add().dims.extend([10**9])
        assert "Graph has field 15" in refusal(info, model)

    def test_metadata(self):
        info, model = role_and_model()
        helper.set_model_props(model, {"session.intra_op": "64"})
        assert "Model has field 14" in refusal(info, model)

    def test_constant_larger_than_its_data(self):
        info, model = role_and_model()
        model.graph.initializer[0].dims[0] = 10**12
        assert "has not the data of" in refusal(info, model)

    def test_constant_of_negative_size(self):
        info, model = role_and_model()
        del model.graph.initializer[0].dims[:]
        model.graph.initializer[0].dims.extend([-1, -1])
        assert "has not the data of" in refusal(info, model)

    def test_constant_of_another_type(self):
        info, model = role_and_model()
        model.graph.initializer.append(numpy_helper.from_array(np.array(["a"], object), "s"))
        assert "Tensor has field 6" in refusal(info, model)
        model.graph.initializer[-1].CopyFrom(numpy_helper.from_array(np.ones(2), "d"))
        assert "element type 11" in refusal(info, model)

    def test_too_many_operators(self):
        info, model = role_and_model()
        for _ in range(1000):
            model.graph.node.append(model.graph.node[0])
        assert "operators; at most 1000" in refusal(info, model)

    def test_input_that_the_manifest_does_not_name(self):
        info, model = role_and_model()
        model.graph.input.append(helper.make_tensor_value_info("more", TensorProto.UINT8, ["N", 1]))
        assert "('more', 'uint8', (1,))" in refusal(info, model)

    @pytest.mark.parametrize("kind", ["inputs", "outputs"])
    @pytest.mark.parametrize("change", ["name", "dtype", "shape", "missing", "order"])
    def test_inputs_and_outputs_other_than_the_manifests(self, kind, change):
        info, model = role_and_model()
        tensors = list(getattr(info, kind))
        if change == "missing":
            tensors.pop()
        elif change == "order":
            tensors.reverse()
        else:
            fields = {"name": "other", "dtype": "int32", "shape": (1, 2)}
            if tensors[0].dtype == "int32":
                fields["dtype"] = "uint8"
            tensors[0] = msgspec.structs.replace(tensors[0], **{change: fields[change]})
        assert f"its {kind} are" in refusal(info, model, **{kind: tuple(tensors)})

    @pytest.mark.parametrize("dims", [[], [1, 6, 8]])
    def test_input_without_a_free_batch_dimension(self, dims):
        info, model = role_and_model()
        shape = model.graph.input[0].type.tensor_type.shape
        del shape.dim[:]
        for size in dims:
            shape.dim.add().dim_value = size
        assert "no free batch dimension" in refusal(info, model)

    def test_text_that_is_no_text(self):
        info, model = role_and_model()
        data = model.SerializeToString()
        assert "refused" in refusal(info, data.replace(b"Gather", b"\xff\xfe\xff\xfe\xff\xfe", 1))

    @settings(max_examples=300, deadline=None, derandomize=True)
    @given(st.data())
    def test_any_damage_is_refused_or_harmless_to_read(self, data):
        info = BUNDLE.manifest.section("local/0")
        good = BUNDLE.sections["local/0"]
        bad = bytearray(good)
        for _ in range(data.draw(st.integers(1, 3))):
            bad[data.draw(st.integers(0, len(bad) - 1))] = data.draw(st.integers(0, 255))
        with contextlib.suppress(BundleError):
            check_file(info, bytes(bad))

    def test_every_cut_is_refused(self):
        info = BUNDLE.manifest.section("local/0")
        good = BUNDLE.sections["local/0"]
        for end in range(len(good)):
            cut = good[:end]
            with pytest.raises(BundleError):
                check_file(msgspec.structs.replace(info, size_bytes=end), cut)


def test_few_bytes_that_ask_for_terabytes_fail_their_self_test():
    """A broadcast is an allowed operator: what it asks for is refused by the arena."""
    side = 2_000_000
    nodes = [
        helper.make_node("Cast", ["scores"], ["f"], to=TensorProto.FLOAT),
        helper.make_node("Reshape", ["f", "flat"], ["row"]),
        helper.make_node("Pad", ["row", "pads"], ["long"]),
        helper.make_node("Reshape", ["long", "upright"], ["column"]),
        helper.make_node("Mul", ["long", "column"], ["square"]),
        helper.make_node("ReduceSum", ["square"], ["sum"], keepdims=1),
        helper.make_node("Cast", ["sum"], ["logits"], to=TensorProto.INT32),
    ]
    constants = {"flat": [1, -1], "pads": [0, 0, 0, side], "upright": [-1, 1]}
    graph = helper.make_graph(
        nodes,
        "s",
        [helper.make_tensor_value_info("scores", TensorProto.UINT8, ["N", 1])],
        [helper.make_tensor_value_info("logits", TensorProto.INT32, ["N", 1])],
        [numpy_helper.from_array(np.array(v), n) for n, v in constants.items()],
    )
    imports = [helper.make_opsetid("", 18)]
    model = helper.make_model(graph, opset_imports=imports, ir_version=10)
    model.ClearField("producer_name")
    info = msgspec.structs.replace(
        BUNDLE.manifest.section("local/0"),
        inputs=(Tensor(name="scores", dtype="uint8", shape=(1,)),),
        outputs=(Tensor(name="logits", dtype="int32", shape=(1,)),),
        self_test=SelfTest(seed="s", batch=1, sha256="0" * 64),
    )
    assert "failed its self-test: " in refusal(info, model)


def test_section_that_answers_differently_fails_its_self_test():
    info, _ = role_and_model()
    other = random_bundle(seed=1).sections["edge/0"]
    assert "failed its self-test (outputs hash to" in refusal(info, other)


def test_graph_that_onnxruntime_does_not_take_is_an_error_with_its_reason():
    info, model = role_and_model()
    model.graph.node[0].input[0] = "nowhere"
    assert "cannot be loaded" in refusal(info, model)


def test_onnxruntime_gets_what_was_checked_and_a_built_section_is_written_the_same_way():
    for info in BUNDLE.manifest.sections:
        assert check_file(info, BUNDLE.sections[info.role]).data == BUNDLE.sections[info.role]


def test_allowed_operators_are_those_that_the_builder_uses():
    rng = np.random.default_rng(0)
    block = Block(
        rng.choice([-1, 1], (3, 3, 3, 3)).astype(np.int8), np.zeros(3, int), np.ones(3) > 0
    )
    head = Head(np.ones((12, 3), np.int8), np.ones(3, int), np.zeros(3, int), 1)
    files = [*BUNDLE.sections.values()]
    files += [local_section(2, 3, kind) for kind in ("MP", "AP")]
    files.append(local_section(2, 3, "GA", table=[0, 2, 1], gate=np.arange(256)))
    linear = Head(np.ones((6, 3), np.int64), np.ones(3, int), np.zeros(3, int))
    files.append(local_section(2, 3, "GC", linear, gate=np.ones((3, 256))))
    hidden = Head(np.ones((8, 2), np.int64), np.ones(1, int), np.zeros(2, int), 1)
    output = Head(np.ones((10, 3), np.int64), np.ones(1, int), np.zeros(3, int))
    files.append(local_section(2, 3, "HC", output, hidden=hidden))
    files += [
        upper_section(2, (3, 3, 3), kind, [block], head, edge_features=True)
        for kind in ("MP", "AP")
    ]
    used = {n.op_type for f in files for n in onnx.load_model_from_string(f).graph.node}
    assert used == OPERATORS


def test_answers_do_not_depend_on_threads_or_on_one_by_one():
    rng = np.random.default_rng(0)
    for info in BUNDLE.manifest.sections:
        one, two = (Section(info, BUNDLE.sections[info.role], threads=n) for n in (1, 2))
        inputs = {t.name: rng.integers(0, 256, (64, *t.shape), np.uint8) for t in info.inputs}
        got, other = one.run_batch(inputs), two.run_batch(inputs)
        for name in got:
            np.testing.assert_array_equal(got[name], other[name])
        for number in range(3):
            rows = one.run_one(*(inputs[t.name][number] for t in info.inputs))
            for tensor, row in zip(info.outputs, rows, strict=True):
                np.testing.assert_array_equal(row, got[tensor.name][number])


@pytest.mark.parametrize("sizes", [(1, 2, 5, 3), (5, 1, 2, 5), (3, 6, 3, 1)])
def test_kept_batches_of_other_sizes_do_not_spoil_one(sizes):
    """They share memory; the next larger one takes their place."""
    rng = np.random.default_rng(0)
    for info in BUNDLE.manifest.sections:
        section, fresh = (Section(info, BUNDLE.sections[info.role]) for _ in range(2))
        for size in sizes:
            inputs = {t.name: rng.integers(0, 256, (size, *t.shape), np.uint8) for t in info.inputs}
            batch = section.batch(size)
            for array, tensor in zip(batch.inputs, info.inputs, strict=True):
                array[...] = inputs[tensor.name]
            batch.run()
            wanted = fresh.run_batch(inputs)
            for array, tensor in zip(batch.outputs, info.outputs, strict=True):
                np.testing.assert_array_equal(array, wanted[tensor.name])
