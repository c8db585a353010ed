"""Payload bytes that a frame costs, by our wire format and by the paper's formula.

Ours (`ddnn.wire`; K classes, B packed feature bytes, D cameras):

- every camera reports: 10 + K bytes, or 10 if it sees nothing;
- of a frame that the local exit does not answer, every camera that sees something sends its
  features: 10 + B bytes;
- of a frame that goes to the cloud, the gateway sends one message: 10 + 4 bytes and the edge's
  features, or those of every camera that sees something where there is no edge. Stated on its
  own: it is another leg, often another network.
- several edges are members of the site's gateway as cameras are of an edge's: each sends it 10 + K
  bytes, or 10 if its cameras see nothing, and of a frame that the local exit does not answer
  10 + K bytes and its features. That leg is within the site, and stated on its own too.

What goes down (10 bytes to each camera asked, 10 + 4 K bytes of answer) and what MQTT and TCP add
is not part of it. Where pictures go to the cloud, summaries have no scores and features are the
picture.

Source of the paper's formula: DDNN paper, section III-E, bytes per device and sample:
4 |C| + (1 - l) f o / 8, with l the share that exits locally and f o bits of features.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from ddnn.bundle import Manifest
from ddnn.wire import ESCALATION_MASK_BYTES, HEADER_BYTES

F64 = npt.NDArray[np.float64]


class Sizes(NamedTuple):
    """Body sizes of one bundle's messages.

    Attributes:
        classes: K.
        score_bytes: of a camera's summary: K, or 0 where pictures go to the cloud.
        feature_bytes: B of one camera.
        edge_feature_bytes: of each edge, or () where cameras' features go to the cloud.
        edges: the cameras of each edge.
    """

    classes: int
    score_bytes: int
    feature_bytes: int
    edge_feature_bytes: tuple[int, ...]
    edges: tuple[tuple[int, ...], ...]


def sizes_of(manifest: Manifest) -> Sizes:
    """What the manifest's tensors say."""
    tensors = {
        (info.role, tensor.name): tensor.shape
        for info in manifest.sections
        for tensor in info.outputs
    }
    return Sizes(
        classes=len(manifest.classes),
        score_bytes=tensors.get(("device/0", "scores"), (0,))[0],
        feature_bytes=tensors["device/0", "features"][0],
        edge_feature_bytes=tuple(
            tensors[f"edge/{k}", "edge_features"][0] for k in range(len(manifest.topology.edges))
        ),
        edges=manifest.topology.edges,
    )


def camera_bytes(sizes: Sizes, present: npt.NDArray[np.bool_], asked: npt.NDArray[np.bool_]) -> F64:
    """Mean bytes that one camera sends for each of N frames.

    Args:
        present: (N, D), the cameras that see something.
        asked: (N,), frames whose features are asked for.

    Returns:
        (N,): of all D cameras together, divided by D.
    """
    there = present.sum(axis=1)
    summaries = HEADER_BYTES * present.shape[1] + sizes.score_bytes * there
    features = there * (HEADER_BYTES + sizes.feature_bytes) * asked
    result: F64 = (summaries + features) / present.shape[1]
    return result


def cloud_bytes(
    sizes: Sizes, present: npt.NDArray[np.bool_], passed_on: npt.NDArray[np.bool_]
) -> F64:
    """Bytes that the site's gateway sends to the cloud for each of N frames.

    Args:
        present: (N, D), the cameras that see something.
        passed_on: (N,), frames that go to the cloud.

    Returns:
        (N,).
    """
    if sizes.edges:
        features = (_there(sizes, present) * np.array(sizes.edge_feature_bytes)).sum(axis=1)
    else:
        features = present.sum(axis=1) * sizes.feature_bytes
    head = present.any(axis=1) * (HEADER_BYTES + ESCALATION_MASK_BYTES)
    return ((head + features) * passed_on).astype(np.float64)


def edge_bytes(sizes: Sizes, present: npt.NDArray[np.bool_], asked: npt.NDArray[np.bool_]) -> F64:
    """Mean bytes that one of several edges sends to the site's gateway for each of N frames.

    Args:
        present: (N, D), the cameras that see something.
        asked: (N,), frames whose features are asked for.

    Returns:
        (N,): of all edges together, divided by their number.
    """
    there = _there(sizes, present)
    summaries = HEADER_BYTES + sizes.classes * there
    features = there * (HEADER_BYTES + sizes.classes + np.array(sizes.edge_feature_bytes))
    result: F64 = (summaries + features * asked[:, None]).mean(axis=1)
    return result


def _there(sizes: Sizes, present: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    """(N, E): the edges some camera of which sees something."""
    return np.stack([present[:, list(edge)].any(axis=1) for edge in sizes.edges], axis=1)


def paper_bytes(classes: int, local_share: float, feature_bits: int) -> float:
    """The paper's formula: 4 |C| + (1 - l) f o / 8, bytes per device and sample."""
    return 4 * classes + (1 - local_share) * feature_bits / 8
