"""Who is below a gateway, which sections it runs, and on which topics it hears its members."""

import pytest

from ddnn.bundle import Topology
from ddnn.errors import BundleError
from ddnn.place import Place, edge_gateways
from tests.arm64.bundles import random_bundle

SEVERAL = Topology(cameras=5, edges=((0, 3), (1, 2, 4)))
ONE = Topology(cameras=2, edges=((1, 0),))
NONE = Topology(cameras=2)


def test_one_gateway_hears_all_cameras():
    for topology, numbers in ((ONE, (1, 0)), (NONE, (0, 1))):
        place = Place.of(topology)
        assert place == Place(None, "cameras", numbers)
        assert not place.has_parent
        assert place.hears("s") == {f"device-{n}": (f"s/s/{n}", f"s/f/{n}") for n in (0, 1)}
    assert Place.of(ONE).member(0) == 1


def test_edge_gateway_hears_its_own_cameras_alone():
    place = Place.of(SEVERAL, 1)
    assert place.has_parent
    assert place.hears("s") == {f"device-{n}": (f"s/s/{n}", f"s/f/{n}") for n in (1, 2, 4)}
    assert [place.member(number) for number in range(6)] == [None, 0, 1, None, 2, None]
    assert place.node(2) == "device-4"
    assert place.request("s", 2) == "s/q/4"


def test_sites_gateway_above_several_edges_hears_no_camera():
    place = Place.of(SEVERAL)
    assert not place.has_parent
    assert place.hears("s") == {f"gateway-{k}": (f"s/S/{k}", f"s/F/{k}") for k in (0, 1)}
    assert place.node(1) == "gateway-1"
    assert place.request("s", 1) == "s/Q/1"
    assert list(edge_gateways(SEVERAL)) == [0, 1]
    assert not edge_gateways(ONE)
    assert not edge_gateways(NONE)


def test_each_section_is_run_by_one_place():
    manifest = random_bundle(1, (6, 5, 3), (2,), ((0,), (1, 2)), (3,), (4,), "CC").manifest
    roles = [Place.of(manifest.topology, edge).roles(manifest) for edge in (None, 0, 1)]
    assert roles == [{"join/local", "join/edge"}, {"local/0", "edge/0"}, {"local/1", "edge/1"}]


@pytest.mark.parametrize(("topology", "edge"), [(ONE, 0), (NONE, 0), (SEVERAL, 2)])
def test_edge_gateway_without_a_place_is_refused(topology, edge):
    with pytest.raises(BundleError, match=f"edge gateway {edge} has no place"):
        Place.of(topology, edge)
