"""The sections of a bundle as one gateway runs them."""

from __future__ import annotations

import msgspec

from ddnn.bundle import Bundle
from ddnn.place import Place
from ddnn.section import load_sections
from ddnn.tier import I32, ExitName


class GatewaySections:
    """`ddnn.tier.NodeSections` over onnxruntime.

    Args:
        bundle: holds at least the roles of the place.
        place: of the gateway.

    Raises:
        BundleError: a section cannot be loaded or fails its self-test.
    """

    def __init__(self, bundle: Bundle, place: Place) -> None:
        manifest = bundle.manifest
        loaded = load_sections(bundle)
        tiers: tuple[ExitName, ExitName] = ("local", "edge")
        found = {
            tier: loaded[role]
            for role in place.roles(manifest)
            for tier in tiers
            if tier in role.split("/")
        }
        self._local, self._edge = found.get("local"), found.get("edge")
        self._joins = place.kind == "edges"
        self.tag = bundle.tag
        self.members = len(place.numbers)
        self.classes = len(manifest.classes)
        self.scales: dict[ExitName, float] = {
            name: info.logit_scale for name, info in manifest.exits.items()
        }
        if place.has_parent and manifest.edge_scales is not msgspec.UNSET:
            self.scales = dict(manifest.edge_scales)
        self.thresholds: dict[ExitName, float] = {
            name: info.threshold
            for name, info in manifest.exits.items()
            if info.threshold is not None
        }
        self.has_local = self._local is not None
        self.has_edge = self._edge is not None
        self.has_cloud = manifest.section("cloud") is not None
        if self._joins:
            cloud = manifest.section("cloud")
            assert cloud is not None  # decode_manifest has seen to it
            self.score_bytes = self.classes if self.has_local else 0
            self.feature_bytes = self.classes + cloud.inputs[0].shape[1]
            return
        device = manifest.section(f"device/{place.numbers[0]}")
        assert device is not None  # as above
        lengths = {tensor.name: tensor.shape[0] for tensor in device.outputs}
        self.score_bytes = lengths.get("scores", 0)
        self.feature_bytes = lengths["features"]

    def local(self, scores: bytes, mask: bytes) -> I32:
        """Scores (M, K) and mask (M,) -> logits (K,)."""
        assert self._local is not None
        (logits,) = self._local.run_bytes(scores, mask)
        return logits.copy()

    def edge(self, features: bytes, mask: bytes) -> tuple[I32, dict[int, bytes]]:
        """Features (M, B) and mask (M,) -> logits (K,), and what the cloud gets: by its member.

        Of edges, a row is the scores of its edge exit and then its own features.
        """
        assert self._edge is not None
        if self._joins:
            size, split = self.feature_bytes, self.classes
            rows = [features[at : at + size] for at in range(0, len(features), size)]
            (logits,) = self._edge.run_bytes(b"".join(row[:split] for row in rows), mask)
            return logits.copy(), {k: row[split:] for k, row in enumerate(rows) if mask[k]}
        logits, edge_features = self._edge.run_bytes(features, mask)
        return logits.copy(), {0: edge_features.tobytes()}
