"""What a network is made of, and how it is trained: two frozen sets of options."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal, get_args

from ddnn.bundle import Topology
from ddnn.errors import ConfigError

Aggregation = Literal["MP", "AP", "CC"]
#: GA, gated average, GC, gated CC, and HC, CC beside a hidden layer, are for scores: features are
#: bits, without a degree of confidence.
LocalAggregation = Literal["MP", "AP", "CC", "GA", "GC", "HC"]
FEATURE_AGGREGATIONS: tuple[str, ...] = get_args(Aggregation)
AGGREGATIONS: tuple[str, ...] = get_args(LocalAggregation)
UpperWeights = Literal["binary", "int8"]
#: Weights of an edge's or the cloud's blocks are whole numbers from minus this to this. Doubled,
#: as a section holds them, int8 ones fit into a byte, and two products with an activation of at
#: most 129 into 16 bits, where onnxruntime's sums of bytes saturate on older x86.
WEIGHT_LEVELS: dict[str, int] = {"binary": 1, "int8": 63}
#: Names of `topology`; each for any number of cameras.
TOPOLOGIES = (
    "devices-edge-cloud", "devices-edges-cloud", "devices-edge", "devices-cloud", "cloud",
)  # fmt: skip
Offload = Literal["features", "images"]


def topology(name: str, cameras: int) -> tuple[tuple[int, ...], ...]:
    """The edges of a named shape: `edges[k]` lists the cameras of edge k; () has no edge.

    Raises:
        ConfigError: an unknown name, or too few cameras for it.
    """
    if name not in TOPOLOGIES:
        raise ConfigError(f"unknown topology {name!r}; known: {', '.join(TOPOLOGIES)}")
    every = tuple(range(cameras))
    if name in ("devices-cloud", "cloud"):
        return ()
    if name == "devices-edges-cloud":
        if cameras < 2:
            raise ConfigError("topology devices-edges-cloud needs two or more cameras")
        half = (cameras + 1) // 2
        return (every[:half], every[half:])
    return (every,)


def shape(name: str, cameras: int) -> dict[str, Any]:
    """The fields of `NetworkOptions` that a named topology fixes.

    Raises:
        ConfigError: as `topology`.
    """
    fixed: dict[str, Any] = {"edges": topology(name, cameras)}
    if name == "devices-edge":
        fixed["cloud_filters"] = ()
    if name == "cloud":
        fixed |= {"local_exit": False, "offload": "images"}
    return fixed


@dataclass(frozen=True, kw_only=True)
class NetworkOptions:
    """One DDNN, complete.

    Attributes:
        cameras, classes: their numbers.
        height, width, channels: of every camera's picture, pixels.
        edges: `edges[k]` lists the cameras of edge k; (): features go to the cloud as they are.
        device_filters: filters of each ConvP block of a device section, one or more blocks.
        edge_filters: the same of an edge section.
        cloud_filters: the same of the cloud section; () for no cloud.
        local_exit: whether gateways have a local exit.
        upper_weights: of the blocks of edge and cloud sections.
        shared: one set of device weights for all cameras.
        local_aggregation: how scores become one answer: MP (largest), AP (mean), CC (linear),
            GA (mean, each camera weighed by how sure it is), GC (linear, weighed likewise),
            HC (linear, beside a layer of hidden units).
        feature_aggregation: how features are joined: MP (or), AP (sum), CC (side by side).
        offload: where the network is cut: `features`: devices run their blocks and send what
            comes out; `images`: they send their pictures, and the cloud runs those blocks too.

    Raises:
        ConfigError: options that make no network.
    """

    cameras: int
    classes: int
    height: int
    width: int
    channels: int
    edges: tuple[tuple[int, ...], ...]
    device_filters: tuple[int, ...] = (4,)
    edge_filters: tuple[int, ...] = (32,)
    cloud_filters: tuple[int, ...] = (64, 64)
    local_exit: bool = True
    shared: bool = False
    local_aggregation: LocalAggregation = "AP"
    feature_aggregation: Aggregation = "CC"
    upper_weights: UpperWeights = "binary"
    offload: Offload = "features"

    def __post_init__(self) -> None:
        for name, low, high in (("cameras", 1, 32), ("classes", 2, 256), ("channels", 1, 4)):
            if not low <= getattr(self, name) <= high:
                raise ConfigError(f"{name} must be {low} to {high}, is {getattr(self, name)}")
        if min(self.height, self.width) < 1 or max(self.height, self.width) > 4096:
            raise ConfigError(f"pictures of {self.height} x {self.width} pixels are not possible")
        filters = (*self.device_filters, *self.edge_filters, *self.cloud_filters)
        if not self.device_filters or not all(1 <= f <= 4096 for f in filters):
            raise ConfigError("a device needs one block or more, each of 1 to 4096 filters")
        if self.edges and not self.edge_filters:
            raise ConfigError("an edge needs one block or more")
        if self.edges and sorted(c for e in self.edges for c in e) != list(range(self.cameras)):
            raise ConfigError("the edges must hold every camera exactly once")
        if not all(self.edges):
            raise ConfigError("an edge without cameras makes no sense")
        if not (self.local_exit or self.edges or self.cloud_filters):
            raise ConfigError("a network needs one exit or more")
        if len(self.edges) > 1 and not self.cloud_filters:
            raise ConfigError("several edges need a cloud that joins them")
        if self.offload not in get_args(Offload):
            raise ConfigError(f"offload must be one of {', '.join(get_args(Offload))}")
        if self.offload == "images" and (self.edges or self.local_exit or not self.cloud_filters):
            raise ConfigError("where pictures go to the cloud it has the only exit")
        for name, known in (
            ("local_aggregation", AGGREGATIONS),
            ("feature_aggregation", FEATURE_AGGREGATIONS),
            ("upper_weights", tuple(WEIGHT_LEVELS)),
        ):
            if getattr(self, name) not in known:
                raise ConfigError(f"{name} must be one of {', '.join(known)}")
        if self.upper_weights == "int8" and self.feature_aggregation == "AP":
            raise ConfigError("upper_weights int8 needs features joined by CC or MP, not AP")

    @property
    def gateways(self) -> tuple[tuple[int, ...], ...]:
        """The cameras of each local exit: those of each edge, else all."""
        return self.edges or (tuple(range(self.cameras)),)

    def as_topology(self) -> Topology:
        """The same as the manifest says it."""
        if self.offload == "images":
            return Topology(cameras=self.cameras, offload="images")
        return Topology(cameras=self.cameras, edges=self.edges)


@dataclass(frozen=True, kw_only=True)
class TrainOptions:
    """How a network is trained.

    Attributes:
        epochs: passes over the fitting part.
        batch: samples in a step, of all processes together.
        learning_rate: of Adam at the start; falls to 0 along a cosine.
        camera_dropout: chance of each camera to be left out of a sample's aggregation.
        local_masks: local exits learn each sample from so many more sets of cameras, of any size
            with the same chance.
        device_loss: weight of each camera's own answer on the views that see the object.
        distillation: weight of the local exit learning the last exit's answer.
        shift_px, brightness, contrast, noise: strength of augmentation; 8-bit grey levels,
            contrast as a share.
        colour: strength of a change of each colour channel on its own, as a share.
        recolour: chance of a sample to have its colour channels mixed up.
        flip: mirror all views of a sample together, at random.
        hold_gamma: keep the gamma of a block's batch norm where the sign has a gradient.
        patience: end when so many epochs brought no better network; 0: never. The first half of
            the epochs always runs.
        validation_share: part of the training split that chooses model and thresholds.
        seed: of everything random.
    """

    epochs: int = 60
    batch: int = 32
    learning_rate: float = 3e-3
    camera_dropout: float = 0.2
    local_masks: int = 0
    device_loss: float = 0.3
    distillation: float = 0.0
    shift_px: int = 1
    brightness: float = 25.0
    contrast: float = 0.2
    noise: float = 4.0
    colour: float = 0.0
    recolour: float = 0.0
    flip: bool = False
    hold_gamma: bool = True
    patience: int = 0
    validation_share: float = 0.15
    seed: int = 0

    def __post_init__(self) -> None:
        if self.epochs < 1 or self.batch < 2:
            raise ConfigError("training needs 1 epoch or more, of batches of 2 samples or more")
        if self.patience < 0:
            raise ConfigError(f"patience must be 0 epochs or more, is {self.patience}")
        if self.local_masks < 0:
            raise ConfigError(f"local masks must be 0 or more, are {self.local_masks}")
        if not 0 <= self.camera_dropout < 1:
            raise ConfigError(f"camera dropout must be 0 to below 1, is {self.camera_dropout}")


#: What changes training pictures, by name. `strong` is for few distinct objects that are seen
#: again and again (parked cars): it trades accuracy on those for accuracy on new ones.
AUGMENTATIONS: dict[str, dict[str, int | float | bool]] = {
    "light": {},
    "strong": {
        "shift_px": 3,
        "brightness": 35.0,
        "contrast": 0.3,
        "noise": 6.0,
        "colour": 0.1,
        "recolour": 0.5,
        "flip": True,
    },
}


def describe(*options: NetworkOptions | TrainOptions) -> dict[str, str | int | float | bool | None]:
    """Options as flat values for the manifest; lists become text such as `0,1,2;3,4,5`."""
    flat: dict[str, str | int | float | bool | None] = {}
    for part in options:
        for name, value in asdict(part).items():
            if name == "edges":
                value = ";".join(",".join(map(str, edge)) for edge in value)
            elif isinstance(value, tuple):
                value = ",".join(map(str, value))
            flat[name] = value
    return flat
