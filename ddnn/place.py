"""Where a gateway stands in its site: whose gateway it is, and who is below it.

A site has one gateway that decides. Its members are the cameras, or, where the bundle's topology
has several edges, edge gateways: one for each edge, each with the cameras of that edge below it.
They run the same engine (`ddnn.tier`); this says which sections, which members and which topics
are theirs. Pure.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

from ddnn import topics
from ddnn.bundle import Manifest, Topology
from ddnn.errors import BundleError

MemberKind = Literal["cameras", "edges"]


class Place(NamedTuple):
    """One gateway's place.

    Attributes:
        edge: number of this edge gateway; None: the site's own, which decides.
        kind: what its members are.
        numbers: of the members, in the order in which its sections take them.
    """

    edge: int | None
    kind: MemberKind
    numbers: tuple[int, ...]

    @classmethod
    def of(cls, topology: Topology, edge: int | None = None) -> Place:
        """The place of edge gateway number `edge`, or of the site's gateway.

        Raises:
            BundleError: the topology has no such edge gateway.
        """
        edges = topology.edges
        if edge is None:
            if below := edge_gateways(topology):
                return cls(None, "edges", tuple(below))
            return cls(None, "cameras", edges[0] if edges else tuple(range(topology.cameras)))
        if not edge_gateways(topology):
            raise BundleError(
                f"edge gateway {edge} has no place in this bundle: its topology has not several "
                "edges; run `ddnn gateway` without --edge"
            )
        if edge >= len(edges):
            raise BundleError(
                f"edge gateway {edge} has no place in this bundle: its edges are 0 to "
                f"{len(edges) - 1}"
            )
        return cls(edge, "cameras", edges[edge])

    @classmethod
    def of_cameras(cls, count: int) -> Place:
        """The site's gateway over cameras 0 to count - 1."""
        return cls(None, "cameras", tuple(range(count)))

    @property
    def has_parent(self) -> bool:
        """Whether it reports to the site's gateway instead of deciding."""
        return self.edge is not None

    def roles(self, manifest: Manifest) -> set[str]:
        """The sections it runs."""
        number = "0" if self.edge is None else str(self.edge)
        possible = {f"local/{number}", f"edge/{number}"}
        if self.kind == "edges":
            possible = {"join/local", "join/edge"}
        return {role for role in possible if manifest.section(role)}

    def member(self, number: int) -> int | None:
        """Index of the member with this number, or None: it is somebody else's."""
        return self.numbers.index(number) if number in self.numbers else None

    def node(self, index: int) -> str:
        """Name of a member's node, as in its status."""
        number = self.numbers[index]
        return f"device-{number}" if self.kind == "cameras" else gateway_node(number)

    def hears(self, site: str) -> dict[str, tuple[str, str]]:
        """Topics of each member's summaries and features, by node; of nobody else's."""
        heard: dict[str, tuple[str, str]] = {}
        for index, n in enumerate(self.numbers):
            if self.kind == "edges":
                heard[self.node(index)] = (
                    topics.edge_summary(site, n),
                    topics.edge_features(site, n),
                )
            else:
                heard[self.node(index)] = topics.summary(site, n), topics.features(site, n)
        return heard

    def raw_bytes(self, manifest: Manifest) -> tuple[int, ...]:
        """By member: what the raw views of its cameras would take in one slot."""
        image, edges = manifest.image, manifest.topology.edges
        view = image.height * image.width * image.channels
        if self.kind == "edges":
            return tuple(view * len(edges[n]) for n in self.numbers)
        return (view,) * len(self.numbers)

    def request(self, site: str, index: int) -> str:
        """Topic on which a member is asked for its features."""
        ask = topics.request if self.kind == "cameras" else topics.edge_request
        return ask(site, self.numbers[index])


def edge_gateways(topology: Topology) -> range:
    """Numbers of the edge gateways that a site with this topology runs beside its own gateway."""
    return range(len(topology.edges) if len(topology.edges) > 1 else 0)


def gateway_node(edge: int | None) -> str:
    """Node name of a gateway: `gateway`, or `gateway-<edge>` of an edge gateway."""
    return "gateway" if edge is None else f"gateway-{edge}"
