"""What goes into a node's engine and what comes out of it, as values."""

from __future__ import annotations

from typing import Literal, Protocol

import msgspec
import numpy as np
import numpy.typing as npt

from ddnn.exit_rule import Verdict

I32 = npt.NDArray[np.int32]
ExitName = Literal["local", "edge", "cloud"]
Stage = Literal["summaries", "parent", "features", "answer"]


class NodeSections(Protocol):
    """The sections a node runs; `ddnn.node.GatewaySections` is one of a bundle.

    Attributes:
        tag: bundle tag of all of them.
        members: how many members the node has.
        classes: K.
        score_bytes: length of a summary's body: K, or 0 where members' sections give no scores.
        feature_bytes: length of one member's FEATURES body.
        thresholds: of the local and edge exits.
        scales: logit scale of each exit.
        has_local, has_edge, has_cloud: which exits exist.
    """

    tag: int
    members: int
    classes: int
    score_bytes: int
    feature_bytes: int
    thresholds: dict[ExitName, float]
    scales: dict[ExitName, float]
    has_local: bool
    has_edge: bool
    has_cloud: bool

    def local(self, scores: bytes, mask: bytes) -> I32:
        """Scores (M, K) and mask (M,) -> logits (K,).

        Both are bytes, one for each number: so they come and so a section's memory takes them.
        Scores of a member that is not there are 0.
        """
        ...

    def edge(self, features: bytes, mask: bytes) -> tuple[I32, dict[int, bytes]]:
        """Features (M, B) and mask (M,) -> logits (K,), and what the cloud gets: by its member."""
        ...


class TierConfig(msgspec.Struct, frozen=True, kw_only=True):
    """Times in seconds and bounds of one engine.

    Attributes:
        summary_wait_s, features_wait_s, answer_wait_s: longest time in each stage.
        backlog_wait_s: instead of `summary_wait_s` for a slot that a BACKLOG frame opens: cameras
            come back from an outage seconds apart.
        parent_wait_s: of a node with a parent: how long its features may be asked for, and
            `backlog_wait_s` longer where it waited that long itself.
        silent_after_slots: a member that misses so many slots in a row is not waited for until it
            reports again, whatever its status says: a hung camera costs a few deadlines, not one
            per slot.
        ask_at_once: how many members are asked for features at once, those with the clearest
            scores first; the edge exit is tried after each step. 0: all at once.
        max_open_slots, max_open_bytes: what is held at once; the oldest slot is decided early.
        remembered_slots: numbers of ended slots that are kept.
    """

    summary_wait_s: float = 0.5
    features_wait_s: float = 1.0
    answer_wait_s: float = 2.0
    backlog_wait_s: float = 3.0
    parent_wait_s: float = 3.0
    silent_after_slots: int = 3
    ask_at_once: int = 0
    max_open_slots: int = 256
    max_open_bytes: int = 64_000_000
    remembered_slots: int = 4096

    def below_a_parent(self, delay_s: float = 0.0) -> TierConfig:
        """The same for a node with a parent, which waits as `above_nodes` says.

        Args:
            delay_s: how long other nodes' members may hold reports back.
        """
        return msgspec.structs.replace(self, parent_wait_s=3 * self.summary_wait_s + 1.0 + delay_s)

    def above_nodes(self) -> TierConfig:
        """The same for a node whose members are nodes that wait for members of their own.

        Its first member may report at once and its last one only after a whole wait; so with
        features. It waits for twice as long.
        """
        return msgspec.structs.replace(
            self,
            summary_wait_s=2 * self.summary_wait_s,
            features_wait_s=2 * self.features_wait_s,
            backlog_wait_s=2 * self.backlog_wait_s,
        )


class Decision(msgspec.Struct, frozen=True, kw_only=True):
    """What the site says of one slot.

    Attributes:
        slot: whole slot number.
        label: class index; None when no member saw anything.
        exit: whose answer it is; None when nobody saw anything.
        used, absent, missing: member numbers: in the answer; reported an empty view; silent.
        degraded: None, or why a deeper exit did not decide.
        stage_s: seconds spent in each stage.
        payload_bytes: frame payload bytes received from members for this slot.
        verdicts: what each exit that was asked has said.
    """

    slot: int
    tag: int
    label: int | None
    probability: float | None
    entropy: float | None
    threshold: float | None
    exit: ExitName | None
    used: tuple[int, ...]
    absent: tuple[int, ...]
    missing: tuple[int, ...]
    degraded: str | None
    stage_s: dict[Stage, float]
    payload_bytes: int
    verdicts: dict[ExitName, Verdict] = {}


class Expired(msgspec.Struct, frozen=True):
    """No exit could say anything of `slot`; nothing is published, the ledger counts it."""

    slot: int
    reason: str


class Request(msgspec.Struct, frozen=True):
    """Ask `member` for its features of `slot`."""

    member: int
    slot: int


class Escalate(msgspec.Struct, frozen=True):
    """Ask the cloud about `slot`; `body` is an ESCALATION body."""

    slot: int
    body: bytes


class Report(msgspec.Struct, frozen=True):
    """Of a node with a parent: its SUMMARY of `slot`; `scores` is None when nobody saw anything.

    `late`: after an outage, so that it says nothing of who is alive.
    """

    slot: int
    scores: bytes | None
    late: bool = False


class Feed(msgspec.Struct, frozen=True):
    """Of a node with a parent: its FEATURES of `slot`; None: it has none (any more).

    `partial`: without those of some members that it asked.
    """

    slot: int
    features: bytes | None
    partial: bool = False


class Passed(msgspec.Struct, frozen=True):
    """Of a node with a parent: it is done with `slot`, the rest is the parent's."""

    slot: int


class Failed(msgspec.Struct, frozen=True):
    """A section, or the engine itself, has raised over `slot`: a person should know.

    How the slot has ended is said by another action.
    """

    slot: int
    error: Exception


Action = Request | Escalate | Decision | Expired | Report | Feed | Passed | Failed
