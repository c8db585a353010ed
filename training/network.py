"""The DDNN as a torch module: devices, local exits, edges, cloud.

A camera that is masked (blank, absent or dropped) takes no part: its score is left out of the
local exit and its features are 0, which is neither -1 nor +1. The mask is an input, so that one
network answers for every set of cameras.
"""

from __future__ import annotations

from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor, nn

from ddnn.scores import STEPS_PER_NAT
from training.binary import FC, BinaryConv2d, BinaryLinear, ConvP, pooled_size
from training.options import WEIGHT_LEVELS, Aggregation, LocalAggregation, NetworkOptions

#: A device's score as a byte: this many steps mean 0.
SCORE_ZERO = 128
#: Gamma of a block's batch norm while training. The sign after it makes gamma a matter of
#: gradients alone; free, it drifts and deep exits come out 10 to 30 % wrong in some runs
#: (docs/training.md).
GAMMA_RANGE = (0.3, 1.0)
#: GA as training begins: a member's gate is half open where its scores are so far apart.
GATE_MIDDLE, GATE_SLOPE = 2.0, 1.0
#: A gate of GA as a whole number is 0 to this.
GATE_STEPS = 63
#: HC: so many hidden units, each held within 0 and this.
HIDDEN_UNITS, HIDDEN_TOP = 64, 8.0
#: A gate of GC, times its factor, as a whole number is 0 to this.
GATED_STEPS = 255


class Answers(NamedTuple):
    """What every exit says; logits before the softmax.

    Attributes:
        devices: (N, D, K), each camera's own scores.
        local: one (N, K) for each gateway, or none.
        edge: one (N, K) for each edge, or none.
        cloud: (N, K) or None.
        joined: of several edges, by tier: (N, K), what their local or edge exits say together.
    """

    devices: Tensor
    local: list[Tensor]
    edge: list[Tensor]
    cloud: Tensor | None
    joined: dict[str, Tensor]

    def last(self) -> Tensor:
        """(N, K) of the exit that always answers."""
        if self.cloud is not None:
            return self.cloud
        return self.edge[0] if self.edge else self.local[0]


class DeviceBank(nn.Module):
    """All device sections side by side: pictures -> scores and -1/+1 features.

    With separate weights the cameras are groups of one convolution; with shared weights they
    are samples of one.
    """

    def __init__(self, options: NetworkOptions) -> None:
        super().__init__()
        self.options = options
        groups = 1 if options.shared else options.cameras
        sizes = (options.channels, *options.device_filters)
        self.blocks = nn.ModuleList(
            ConvP(groups * inputs, groups * outputs, groups) for inputs, outputs in pairwise(sizes)
        )
        features = sizes[-1]
        height, width = options.height, options.width
        for _ in options.device_filters:
            height, width = pooled_size(height), pooled_size(width)
        self.feature_shape = (features, height, width)
        self.exit = FC(features * height * width, options.classes, groups)

    def forward(self, images: Tensor, present: Tensor) -> tuple[Tensor, Tensor]:
        """images (N, D, H, W, C), present (N, D) -> scores (N, D, K), features (N, D, f, h, w)."""
        n, d = images.shape[:2]
        x = images.movedim(-1, 2)
        if self.options.shared:
            x, there = x.flatten(0, 1), present.reshape(n * d, 1)
        else:
            x, there = x.flatten(1, 2), present
        for block in self.blocks:
            x = block(x, there)
        groups = there.shape[1]
        scores = self.exit(x.flatten(1).unflatten(1, (groups, -1)), there)
        return scores.reshape(n, d, self.options.classes), x.reshape(n, d, *self.feature_shape)


class LocalExit(nn.Module):
    """Members' scores -> one answer, for any mask.

    MP: the largest score of each class. AP: their mean, times a factor learned for each number
    of members present (it changes no label, but says how far six agreeing cameras may be trusted
    more than one). CC: a linear map; a masked member adds nothing. GA: as AP, but the scores of a
    member weigh as much as its gate says, a learned sigmoid of how far its largest score is above
    its smallest: a camera that cannot tell what it sees does not water down those that can.
    GC: GA's gates and factors before CC's linear map. HC: CC, who is there as more inputs, and a
    layer of hidden units beside it: what a member's scores mean may depend on the others' and on
    who is missing. The units begin without a say.
    """

    def __init__(self, members: int, classes: int, aggregation: LocalAggregation) -> None:
        super().__init__()
        self.aggregation = aggregation
        self.members, self.classes = members, classes
        if aggregation in ("AP", "GA"):
            self.log_factor = nn.Parameter(0.5 * torch.arange(1, members + 1).log())
        elif aggregation == "GC":
            # One for all: the linear map adds up, where AP and GA take the mean.
            self.log_factor = nn.Parameter(torch.zeros(members))
        elif aggregation == "MP":
            self.log_factor = nn.Parameter(torch.zeros(()))
        if aggregation in ("GA", "GC"):
            self.gate_slope = nn.Parameter(torch.tensor(GATE_SLOPE))
            self.gate_offset = nn.Parameter(torch.tensor(-GATE_SLOPE * GATE_MIDDLE))
        if aggregation == "HC":
            self.hidden = nn.Linear(members * (classes + 1), HIDDEN_UNITS)
            self.output = nn.Linear(HIDDEN_UNITS, classes)
            nn.init.zeros_(self.output.weight)
            mean = torch.eye(classes).repeat(1, members) / members
            self.weight = nn.Parameter(torch.cat([mean, torch.zeros(classes, members)], 1))
        if aggregation in ("CC", "GC"):
            # Gates begin half open.
            begin = 1.0 if aggregation == "CC" else 2.0
            self.weight = nn.Parameter(begin * torch.eye(classes).repeat(1, members) / members)
            self.bias = nn.Parameter(torch.zeros(classes))

    def factors(self) -> Tensor:
        """AP, GA, GC: factor by number of members present, (M + 1,), the first one 0."""
        return torch.cat([self.log_factor.new_zeros(1), self.log_factor.exp()])

    def gates(self, spread: Tensor) -> Tensor:
        """GA: weights 0..1 of members whose scores are so far apart; in eval mode whole steps."""
        gates = torch.sigmoid(self.gate_slope * spread + self.gate_offset)
        return gates if self.training else torch.round(GATE_STEPS * gates) / GATE_STEPS

    def gated_steps(self) -> Tensor:
        """GC: how many steps of a gate times its factor make 1, so that the largest fits."""
        return GATED_STEPS / self.factors().max()

    def factored_gates(self, spread: Tensor, count: Tensor) -> Tensor:
        """GC: gates (N, M, 1) of scores so far apart times the factor for `count` (N,) members."""
        gates = torch.sigmoid(self.gate_slope * spread + self.gate_offset)
        gates = gates * self.factors()[count][:, None, None]
        if self.training:
            return gates
        steps = self.gated_steps()
        return torch.round(steps * gates) / steps

    def forward(self, scores: Tensor, mask: Tensor) -> Tensor:
        """scores (N, M, K), mask (N, M) bool -> logits (N, K)."""
        if self.aggregation == "MP":
            lowest = -SCORE_ZERO * torch.ones_like(scores)
            return torch.where(mask[..., None], scores, lowest).amax(1) * self.log_factor.exp()
        kept = torch.where(mask[..., None], scores, torch.zeros_like(scores))
        count = mask.sum(1)
        if self.aggregation in ("GA", "GC"):
            spread = kept.amax(2, keepdim=True) - kept.amin(2, keepdim=True)
            if self.aggregation == "GA":
                kept = kept * self.gates(spread)
            else:
                kept = kept * self.factored_gates(spread, count)
        if self.aggregation in ("AP", "GA"):
            mean = kept.sum(1) / count.clamp(min=1)[:, None]
            return mean * self.factors()[count][:, None]
        if self.aggregation == "HC":
            joined = torch.cat([kept.flatten(1), mask.to(kept.dtype)], 1)
            hidden = self.hidden(joined).clamp(0, HIDDEN_TOP)
            return joined @ self.weight.T + self.output(hidden)
        return kept.flatten(1) @ self.weight.T + self.bias


def join_features(features: Tensor, mask: Tensor, aggregation: Aggregation) -> Tensor:
    """features (N, M, f, h, w) of -1/+1 and mask (N, M) -> (N, channels, h, w).

    CC: channels M * f, a masked member 0. AP: sum over the members there. MP: largest over the
    members there; with nobody there, -1.
    """
    there = mask[:, :, None, None, None].to(features.dtype)
    if aggregation == "CC":
        return (features * there).flatten(1, 2)
    if aggregation == "AP":
        return (features * there).sum(1)
    return (features * there + (there - 1)).amax(1)


class Fusion(nn.Module):
    """An edge or the cloud: members' features -> answer and features of its own."""

    def __init__(
        self,
        members: int,
        shape: tuple[int, int, int],
        filters: tuple[int, ...],
        classes: int,
        aggregation: Aggregation,
        levels: int = 1,
    ) -> None:
        super().__init__()
        self.aggregation: Aggregation = aggregation
        features, height, width = shape
        sizes = (features * members if aggregation == "CC" else features, *filters)
        self.blocks = nn.ModuleList(
            ConvP(inputs, outputs, levels=levels) for inputs, outputs in pairwise(sizes)
        )
        for _ in filters:
            height, width = pooled_size(height), pooled_size(width)
        self.feature_shape = (sizes[-1], height, width)
        self.exit = FC(sizes[-1] * height * width, classes)

    def forward(self, features: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """features (N, M, f, h, w), mask (N, M) -> logits (N, K), features (N, f', h', w')."""
        x = join_features(features, mask, self.aggregation)
        for block in self.blocks:
            x = block(x)
        return self.exit(x.flatten(1)[:, None])[:, 0], x


class Network(nn.Module):
    """The whole DDNN.

    Attributes:
        score_scale: what one step of a device's quantised score is worth; set by `calibrate`.
    """

    score_scale: Tensor

    def __init__(self, options: NetworkOptions) -> None:
        super().__init__()
        self.options = options
        self.devices = DeviceBank(options)
        shape = self.devices.feature_shape
        members = [len(gateway) for gateway in options.gateways]
        self.locals = nn.ModuleList(
            LocalExit(m, options.classes, options.local_aggregation)
            for m in (members if options.local_exit else [])
        )
        joined = options.feature_aggregation
        levels = WEIGHT_LEVELS[options.upper_weights]
        self.edges = nn.ModuleList(
            Fusion(len(edge), shape, options.edge_filters, options.classes, joined, levels)
            for edge in options.edges
        )
        if self.edges:
            shape = self.edges[0].feature_shape
        self.cloud: Fusion | None = None
        if options.cloud_filters:
            below = len(options.edges) or options.cameras
            self.cloud = Fusion(
                below, shape, options.cloud_filters, options.classes, joined, levels
            )
        # Several edges: their answers, as the score bytes that go up, make the site's.
        tiers = [tier for tier in ("local", "edge") if tier == "edge" or options.local_exit]
        self.joins = nn.ModuleDict(
            {tier: LocalExit(len(options.edges), options.classes, "AP") for tier in tiers}
            if len(options.edges) > 1
            else {}
        )
        self.register_buffer("score_scale", torch.tensor(1 / 16))

    def forward(self, images: Tensor, mask: Tensor, present: Tensor | None = None) -> Answers:
        """Answers of every exit.

        Args:
            images: (N, D, H, W, C), pixel values 0..255 as float.
            mask: (N, D) bool, the cameras that take part.
            present: (N, D) bool, the cameras whose pictures count in the devices' batch norm
                (training only); None: those of `mask`.
        """
        present = mask if present is None else present
        scores, features = self.devices(images, present)
        return self.fuse(scores, features, mask)

    def fuse(self, scores: Tensor, features: Tensor, mask: Tensor) -> Answers:
        """Everything above the devices: scores (N, D, K), features (N, D, f, h, w), mask."""
        scores_u8 = self.quantised(scores)
        local = [
            exit_(scores_u8[:, gateway], mask[:, gateway])
            for exit_, gateway in zip(self.locals, map(list, self.options.gateways), strict=False)
        ]
        edge, passed = [], []
        for section, members in zip(self.edges, map(list, self.options.edges), strict=True):
            logits, own = section(features[:, members], mask[:, members])
            edge.append(logits)
            passed.append(own)
        if passed:
            features = torch.stack(passed, 1)
            mask = torch.stack([mask[:, list(e)].any(1) for e in self.options.edges], 1)
        own = {"local": local, "edge": edge}
        joined = {
            tier: join(torch.stack([self.edge_scores(logits) for logits in own[tier]], 1), mask)
            for tier, join in self.joins.items()
        }
        cloud = self.cloud(features, mask)[0] if self.cloud is not None else None
        return Answers(scores, local, edge, cloud, joined)

    def edge_scores(self, logits: Tensor) -> Tensor:
        """Logits (N, K) of an edge's exit as the receiver of its score bytes sees them.

        The same as `ddnn.scores.quantise`, centred and in nats; the gradient passes through the
        rounding.
        """
        steps = (logits - logits.amax(1, keepdim=True)) * STEPS_PER_NAT
        if not self.training:
            steps = torch.round(steps)
        return (steps.clamp(-255, 0) + 255 - SCORE_ZERO) / STEPS_PER_NAT

    def quantised(self, scores: Tensor) -> Tensor:
        """Scores as the receiver of their bytes sees them; the gradient passes straight through."""
        if self.training:
            return scores
        steps = torch.floor(scores / self.score_scale + 0.5).clamp(-SCORE_ZERO, 127)
        return steps * self.score_scale

    @torch.no_grad()
    def set_score_scale(self, scores: Tensor) -> None:
        """Choose the scale so that the given scores (any shape) just fit into a byte."""
        largest = scores.abs().max().clamp(min=1e-3)
        self.score_scale.copy_((largest / 127).float())

    @torch.no_grad()
    def keep_trainable(self, hold_gamma: bool = True) -> None:
        """After a step of the optimizer: bring back what has left the range with a gradient.

        Latent weights stay within -1..1. The gamma of a block's batch norm stays within
        GAMMA_RANGE: below, a block's bits are all decided by beta and its channel is dead; above,
        most sums lie outside -1..1, where the sign passes no gradient back.

        Args:
            hold_gamma: False leaves gamma alone, to see what that costs.
        """
        for module in self.modules():
            if isinstance(module, BinaryConv2d | BinaryLinear):
                module.latent.clamp_(-1, 1)
            elif isinstance(module, ConvP) and hold_gamma:
                module.norm.gamma.clamp_(*GAMMA_RANGE)
