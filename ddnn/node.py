"""The sections of a bundle as one gateway runs them."""

from __future__ import annotations

import numpy as np

from ddnn.bundle import Bundle, Manifest
from ddnn.section import Section, load_sections
from ddnn.tier import I32, U8, ExitName


def gateway_roles(manifest: Manifest, edge: int = 0) -> set[str]:
    """Roles that the gateway of edge number `edge` runs."""
    return {role for role in (f"local/{edge}", f"edge/{edge}") if manifest.section(role)}


class GatewaySections:
    """`ddnn.tier.NodeSections` over onnxruntime.

    Args:
        bundle: holds at least the roles of `gateway_roles`.
        edge: number of the edge in the bundle's topology.

    Raises:
        BundleError: a section cannot be loaded or fails its self-test.
    """

    def __init__(self, bundle: Bundle, edge: int = 0) -> None:
        manifest = bundle.manifest
        loaded = load_sections(bundle)
        self._local: Section | None = loaded.get(f"local/{edge}")
        self._edge: Section | None = loaded.get(f"edge/{edge}")
        edges = manifest.topology.edges
        cameras = edges[edge] if edges else tuple(range(manifest.topology.cameras))
        device = manifest.section(f"device/{cameras[0]}")
        assert device is not None  # decode_manifest has seen to it
        self.tag = bundle.tag
        self.members = len(cameras)
        self.classes = len(manifest.classes)
        self.feature_bytes = next(t.shape[0] for t in device.outputs if t.name == "features")
        self.scales: dict[ExitName, float] = {
            name: info.logit_scale for name, info in manifest.exits.items()
        }
        self.thresholds: dict[ExitName, float] = {
            name: info.threshold
            for name, info in manifest.exits.items()
            if info.threshold is not None
        }
        self.has_local = self._local is not None
        self.has_edge = self._edge is not None
        self.has_cloud = manifest.section("cloud") is not None

    def local(self, scores: U8, mask: U8) -> I32:
        """Scores (M, K) and mask (M,) -> logits (K,)."""
        assert self._local is not None
        (logits,) = self._local.run_one(scores, mask)
        return logits.astype(np.int32)

    def edge(self, features: U8, mask: U8) -> tuple[I32, bytes]:
        """Features (M, B) and mask (M,) -> logits (K,), packed edge features."""
        assert self._edge is not None
        logits, edge_features = self._edge.run_one(features, mask)
        return logits.astype(np.int32), edge_features.tobytes()
