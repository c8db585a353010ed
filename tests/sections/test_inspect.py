"""`ddnn inspect`: the page shows what is there, and the costs are those of the parameters."""

import datetime
import json

import msgspec
import pytest
from click.testing import CliRunner

from ddnn.bundle import Terms, assemble, encode_manifest
from ddnn.cli import main
from ddnn.measurements import Calibration, CurvePoint, MissingCameras, MissingTable
from ddnn.store import write_folder
from tests.arm64.bundles import random_bundle
from tests.signing import KEY, OTHER, signed
from training.cost import Cost, section_cost
from training.inspect import drawing

EDGES = ((0, 1, 2), (3, 4))


def bundle(edges=EDGES, cloud=(9,), *, kind="CC", **shape):
    return random_bundle(1, (20, 12, 3), (5, 6), edges, (7,), cloud, kind, **shape)


def inspect(tmp_path, made, *options):
    write_folder(tmp_path / "b", made)
    return CliRunner().invoke(main, ["inspect", str(tmp_path / "b"), *options])


def changed(made, **fields):
    manifest = msgspec.structs.replace(made.manifest, **fields)
    return assemble(encode_manifest(manifest), made.sections)


@pytest.mark.parametrize(
    ("role", "cost"),
    [
        # 20 x 12 -> 10 x 6 -> 5 x 3 -> 3 x 2 -> 2 x 1
        ("device/0", Cost(5 * 27 + 6 * 45 + 90 * 3, 11, 240 * 5 * 27, 60 * 6 * 45 + 90 * 3)),
        ("edge/0", Cost(7 * 18 * 9 + 42 * 3, 7, 0, 15 * 7 * 18 * 9 + 42 * 3)),
        ("cloud", Cost(9 * 14 * 9 + 18 * 3, 9, 0, 6 * 9 * 14 * 9 + 18 * 3)),
        ("local/0", Cost(0, 0, 9 * 3, 0)),
        ("join/local", Cost(0, 0, 2 * 3, 0)),
    ],
)
def test_costs_are_those_of_the_parameters(role, cost):
    made = bundle()
    assert section_cost(made.manifest.section(role), made.sections[role]) == cost


def test_cloud_that_takes_pictures_costs_what_its_devices_would_have():
    cut_before, cut_after = bundle(edges=(), pictures=True), bundle(edges=())
    costs = [
        {i.role: section_cost(i, b.sections[i.role]) for i in b.manifest.sections}
        for b in (cut_before, cut_after)
    ]
    assert costs[0]["device/0"] == Cost(0, 0, 0, 0)
    device, cloud, whole = costs[1]["device/0"], costs[1]["cloud"], costs[0]["cloud"]
    exit_ = Cost(90 * 3, 0, 0, 90 * 3)  # which nobody needs then
    assert whole == Cost(*(2 * (d - e) + c for d, e, c in zip(device, exit_, cloud, strict=True)))


@pytest.mark.parametrize("kind", ["MP", "AP"])
def test_local_aggregators_without_weights_add_up_their_scores(kind):
    made = bundle(kind=kind)
    info = made.manifest.section("local/0")
    assert section_cost(info, made.sections["local/0"]) == Cost(0, 0, 9, 0)


def test_page_names_everything(tmp_path):
    made = bundle()
    result = inspect(tmp_path, made)
    assert result.exit_code == 0, result.output
    for text in (
        made.bundle_id,
        f"tag         {made.tag:04x}",
        "signed by   nobody",
        "car, bus, person",
        "12 x 20, 3 channels",
        "device/0..4",
        "edge/1",
        "entropy < 0.8",
    ):
        assert text in result.output
    assert max(map(len, result.output.splitlines())) <= 100


def test_drawing_of_several_edges():
    assert drawing(bundle()) == [
        "  camera 0   --+",
        "  camera 1   --+--> edge 0 --+",
        "  camera 2   --+             +--> site: local < 0.8, edge < 0.8 --> cloud",
        "                             |",
        "  camera 3   --+--> edge 1 --+",
        "  camera 4   --+",
    ]


def test_drawing_of_a_bundle_whose_pictures_go_to_the_cloud():
    assert drawing(bundle(edges=(), pictures=True)) == [
        "  camera 0   --+--> gateway 0: no exit, passes pictures on --+--> cloud",
        "  camera 1   --+",
    ]


def test_drawing_of_other_shapes():
    assert drawing(bundle(edges=())) == [
        "  camera 0   --+--> gateway 0: local < 0.8 --+--> cloud",
        "  camera 1   --+",
    ]
    assert drawing(bundle(edges=((0,),), cloud=(), local=False)) == [
        "  camera 0   -----> gateway 0: edge"
    ]


def test_measurements_are_shown_where_the_manifest_has_them(tmp_path):
    made = bundle(edges=((0, 1),))
    point = CurvePoint(
        thresholds={"local": 0.25, "edge": 0.5},
        exit_shares={"local": 0.125, "edge": 0.5, "cloud": 0.375},
        accuracy=0.987,
        camera_bytes=45.67,
        cloud_bytes=8.9,
    )
    lost = MissingCameras(cameras=(1,), answered=0.99, overall=0.876, local=0.777, last=0.666)
    made = changed(
        made,
        calibration=Calibration(goal="bytes=18", samples=50, curve=(point,)),
        missing=MissingTable(split="test", samples=171, sets=(lost,)),
        training={"seed": 5},
    )
    output = inspect(tmp_path, made).output
    for text in (
        "bytes=18",
        "0.2500",
        "98.7%",
        "12.5%",
        "45.7",
        "8.9",
        "87.6%",
        "77.7%",
        "seed = 5",
    ):
        assert text in output, text


def test_many_sets_of_missing_cameras_are_cut_short_and_the_worst_is_told(tmp_path):
    sets = tuple(
        MissingCameras(cameras=cameras, answered=1.0, overall=0.5 + n / 100, local=None, last=0.5)
        for n, cameras in enumerate((a, b) for b in range(6) for a in range(b))
    )
    made = random_bundle(1, (8, 8, 1), (2,), (tuple(range(6)),), (3,), (4,), "CC")
    made = changed(made, missing=MissingTable(split="test", samples=9, sets=sets))
    output = inspect(tmp_path, made).output
    assert "and 3 more sets; the worst: without 2, 5, 62.0%" in output


def test_json_is_the_manifest_with_costs(tmp_path):
    made = bundle()
    found = json.loads(inspect(tmp_path, made, "--json").output)
    assert found["bundle_id"] == made.bundle_id
    assert found["signed_by"] == []
    assert found["manifest"]["topology"] == {"cameras": 5, "edges": [[0, 1, 2], [3, 4]]}
    assert found["manifest"]["sections"][0]["cost"]["binary_weights"] == 675


def test_page_says_who_signed_a_bundle_and_what_limits_it(tmp_path):
    terms = Terms(
        expires=datetime.datetime(2027, 6, 30, 23, 59, 59, tzinfo=datetime.UTC),
        sites=("s1", "s2"),
        hardware={"device": ("aarch64",)},
        min_version="0.1.0",
    )
    plain, made = bundle(), signed(changed(bundle(), terms=terms), KEY, OTHER)
    output = inspect(tmp_path, made).output
    assert f"signed by   {KEY.key_id}, {OTHER.key_id}\n" in output
    limits = "until 2027-06-30 23:59 UTC; site s1, s2; device aarch64; ddnn 0.1.0 or later"
    assert f"limits      {limits}\n" in output
    found = json.loads(inspect(tmp_path, made, "--json").output)
    assert found["signed_by"] == [KEY.key_id, OTHER.key_id]
    output = inspect(tmp_path / "plain", plain).output
    assert "signed by   nobody\n" in output
    assert "limits" not in output


def test_damaged_bundle_is_an_error_not_a_page(tmp_path):
    write_folder(tmp_path / "b", bundle())
    section = tmp_path / "b" / "sections" / "cloud.onnx"
    section.write_bytes(section.read_bytes()[:-1])
    result = CliRunner().invoke(main, ["inspect", str(tmp_path / "b")])
    assert result.exit_code == 1
    assert "section cloud has" in result.output
    result = CliRunner().invoke(main, ["inspect", str(tmp_path)])
    assert "no bundle can be read" in result.output
