"""A trained network -> a bundle, every section checked against torch before it is believed."""

from __future__ import annotations

import datetime
import os
from collections.abc import Mapping
from typing import NamedTuple

import msgspec
import numpy as np
import numpy.typing as npt
import torch

from ddnn.bundle import (
    Bundle,
    ExitInfo,
    Image,
    Manifest,
    SectionInfo,
    assemble,
    encode_manifest,
)
from ddnn.errors import BundleError
from ddnn.scores import STEPS_PER_NAT, quantise
from ddnn.section import Section
from ddnn.tier import ExitName
from training.datasets.base import MultiCameraSet
from training.describe import describe_section
from training.fold import fold_block, fold_exits, fold_local, fold_scores
from training.goal import HIGHEST_ACCURACY, Goal
from training.local_sections import local_section
from training.measure import Measured, accuracy, calibration, choose, disagreement, missing_table
from training.network import SCORE_ZERO, Network
from training.pictures import picture_section, whole_section
from training.sections import device_section, upper_section

CHECKED_SAMPLES = 48
U8 = npt.NDArray[np.uint8]


class Sections(NamedTuple):
    """Section files by role, and what one step of each exit's logits is worth.

    Attributes:
        scales: of the site's exits.
        edge_scales: of several edges, of their own exits; else empty.
    """

    files: dict[str, bytes]
    scales: dict[ExitName, float]
    edge_scales: dict[ExitName, float]


class Label(NamedTuple):
    """What the manifest says beside the network itself.

    Attributes:
        name, version: of the bundle.
        training: flat facts about the training, such as its seed.
    """

    name: str
    version: int
    training: Mapping[str, str | int | float | bool | None]


@torch.no_grad()
def build_sections(network: Network) -> Sections:
    """Every section file of `network` (in eval mode, with its score scale set)."""
    options = network.options
    files: dict[str, bytes] = {}
    scales: dict[ExitName, float] = {}
    image = (options.height, options.width, options.channels)
    score_scale = float(network.score_scale)
    devices = []
    for camera in range(options.cameras):
        group = 0 if options.shared else camera
        blocks = [
            fold_block(block, slice(group * f, (group + 1) * f), 1 if number else 255)
            for number, (block, f) in enumerate(
                zip(network.devices.blocks, options.device_filters, strict=True)
            )
        ]
        devices.append(blocks)
        if options.offload == "images":
            files[f"device/{camera}"] = picture_section(image)
            continue
        head = fold_scores(network.devices.exit, group, score_scale)
        files[f"device/{camera}"] = device_section(image, blocks, head)
    if network.locals:
        kind = options.local_aggregation
        numbers, scales["local"] = fold_local(list(network.locals), score_scale)
        for k, (own, members) in enumerate(zip(numbers, options.gateways, strict=True)):
            files[f"local/{k}"] = local_section(len(members), options.classes, kind, **own)
    joined = options.feature_aggregation
    shape = network.devices.feature_shape
    for tier, upper in (("edge", list(network.edges)), ("cloud", [network.cloud])):
        if not upper or upper[0] is None:
            continue
        heads, scales[tier] = fold_exits([section.exit for section in upper])
        for k, (section, head) in enumerate(zip(upper, heads, strict=True)):
            if tier == "edge":
                members = len(options.edges[k])
            else:
                members = len(options.edges) or options.cameras
            # Where AP adds up features, the first block's inputs reach as far as members.
            largest = members if joined == "AP" else 1
            blocks = [
                fold_block(block, slice(None), 1 if number else largest)
                for number, block in enumerate(section.blocks)
            ]
            if options.offload == "images":
                files["cloud"] = whole_section(image, devices, joined, blocks, head)
                continue
            files[f"edge/{k}" if tier == "edge" else "cloud"] = upper_section(
                members, shape, joined, blocks, head, edge_features=tier == "edge"
            )
        shape = upper[0].feature_shape
    edge_scales: dict[ExitName, float] = {}
    for tier, join in network.joins.items():
        edge_scales[tier] = scales[tier]
        (own,), scales[tier] = fold_local([join], 1 / STEPS_PER_NAT)
        files[f"join/{tier}"] = local_section(len(options.edges), options.classes, "AP", **own)
    return Sections(files, scales, edge_scales)


def export(
    network: Network,
    data: MultiCameraSet,
    validation: npt.NDArray[np.int64],
    label: Label,
    goal: Goal = HIGHEST_ACCURACY,
) -> Bundle:
    """Export, check, calibrate for `goal` on validation samples, measure on the test split.

    Raises:
        BundleError: a section does not do what the network does.
        GoalError: the goal cannot be reached.
    """
    network = network.eval()
    built = build_sections(network)
    infos = tuple(describe_section(role, data_) for role, data_ in sorted(built.files.items()))
    check_against_torch(network, built, infos, data, validation)
    names: list[ExitName] = list(built.scales)
    options = network.options
    manifest = Manifest(
        name=label.name,
        version=label.version,
        created=_now(),
        classes=data.classes,
        image=Image(height=options.height, width=options.width, channels=options.channels),
        topology=options.as_topology(),
        exits={
            name: ExitInfo(
                logit_scale=built.scales[name], threshold=None if name == names[-1] else 0.5
            )
            for name in names
        },
        edge_scales=built.edge_scales or msgspec.UNSET,
        sections=infos,
        training=dict(label.training),
    )
    draft = assemble(encode_manifest(manifest), built.files)
    measured = Measured(draft, data, validation)
    choice = choose(measured, goal)
    manifest = msgspec.structs.replace(
        manifest,
        exits={
            name: msgspec.structs.replace(info, threshold=choice.thresholds.get(name))
            for name, info in manifest.exits.items()
        },
        calibration=calibration(measured, goal, choice),
        disagreement=disagreement(measured, choice.thresholds) or msgspec.UNSET,
    )
    chosen = assemble(encode_manifest(manifest), built.files)
    if len(data.test):
        tested = Measured(chosen, data, data.test)
        manifest = msgspec.structs.replace(manifest, accuracy=accuracy(tested, choice.thresholds))
    manifest = msgspec.structs.replace(manifest, missing=missing_table(chosen, data, validation))
    return assemble(encode_manifest(manifest), built.files)


@torch.no_grad()
def check_against_torch(
    network: Network,
    built: Sections,
    infos: tuple[SectionInfo, ...],
    data: MultiCameraSet,
    index: npt.NDArray[np.int64],
) -> None:
    """Run torch (float64) and the sections on real and random pictures with random masks.

    Features must agree in every bit. Scores and logits, which the sections hold in whole steps,
    must agree to within their rounding.

    Raises:
        BundleError: they do not.
    """
    options = network.options
    rng = np.random.default_rng(0)
    real = data.images[index[:CHECKED_SAMPLES]]
    noise = rng.integers(0, 256, (16, *real.shape[1:]), np.uint8)
    flat = np.broadcast_to(
        rng.integers(0, 256, (8, real.shape[1], 1, 1, 1), np.uint8), (8, *real.shape[1:])
    )
    images = np.concatenate([real, noise, flat])
    mask = rng.random(images.shape[:2]) < 0.7
    sections = {i.role: Section(i, built.files[i.role]) for i in infos}
    exact = _double(network)
    pictures, there = torch.from_numpy(images).double(), torch.from_numpy(mask)
    scores, features = exact.devices(pictures, there)
    sums = {}
    for camera in range(options.cameras):
        got = sections[f"device/{camera}"].run_batch(
            {"image": np.ascontiguousarray(images[:, camera])}
        )
        sums[camera] = got
        if options.offload == "images":
            if not np.array_equal(got["features"], images[:, camera].reshape(len(images), -1)):
                raise BundleError(f"section device/{camera} does not give the picture")
            continue
        _same_bits(f"device/{camera}", got["features"], features[:, camera])
        steps = torch.floor(scores[:, camera] / exact.score_scale + 0.5)
        wanted = steps.clamp(-SCORE_ZERO, 127).numpy() + SCORE_ZERO
        _close(f"device/{camera}", got["scores"], wanted, 1.0)
    packed = np.stack([sums[c]["features"] for c in range(options.cameras)], 1)
    masked = {"mask": mask.astype(np.uint8)}
    answers: dict[ExitName, list[npt.NDArray[np.int32]]] = {"local": [], "edge": []}
    some_below = np.stack([mask[:, list(below)].any(1) for below in options.gateways], 1)
    for k, members in enumerate(map(list, options.gateways)):
        if f"local/{k}" not in sections:
            continue
        scores_u8 = np.stack([sums[c]["scores"] for c in range(options.cameras)], 1)
        quantised = (torch.from_numpy(scores_u8).double() - SCORE_ZERO) * exact.score_scale
        got = sections[f"local/{k}"].run_batch(
            {
                "scores": np.ascontiguousarray(scores_u8[:, members]),
                "mask": np.ascontiguousarray(masked["mask"][:, members]),
            }
        )["logits"]
        wanted = exact.locals[k](quantised[:, members], there[:, members])
        some = some_below[:, k]
        own_scales = built.edge_scales or built.scales
        # MP of several gateways rounds its factor to 1/1024 of it; all else is finer, but for GA,
        # whose gates leave fewer bits for its factors.
        within = 0.02 * (1 if options.local_aggregation != "GA" else 1 + wanted.abs().max().item())
        _close(f"local/{k}", (got * own_scales["local"])[some], wanted.numpy()[some], within)
        answers["local"].append(got)
    upward, up_there, up_packed, up_mask = features, there, packed, masked["mask"]
    if exact.edges:
        passed, passed_bytes = [], []
        for k, members in enumerate(map(list, options.edges)):
            run = {
                "features": np.ascontiguousarray(packed[:, members]),
                "mask": np.ascontiguousarray(masked["mask"][:, members]),
            }
            got = sections[f"edge/{k}"].run_batch(run)
            logits, own = exact.edges[k](features[:, members], there[:, members])
            _same_bits(f"edge/{k}", got["edge_features"], own)
            own_scales = built.edge_scales or built.scales
            _close(f"edge/{k}", got["logits"] * own_scales["edge"], logits.numpy(), 0.05)
            answers["edge"].append(got["logits"])
            passed.append(own)
            passed_bytes.append(got["edge_features"])
        upward, up_packed = torch.stack(passed, 1), np.stack(passed_bytes, 1)
        up_there, up_mask = torch.from_numpy(some_below), some_below.astype(np.uint8)
    for tier, scale in built.edge_scales.items():
        up_scores = np.stack([quantise(logits, scale) for logits in answers[tier]], 1)
        got = sections[f"join/{tier}"].run_batch({"scores": up_scores, "mask": up_mask})["logits"]
        nats = (torch.from_numpy(up_scores).double() - SCORE_ZERO) / STEPS_PER_NAT
        wanted = exact.joins[tier](nats, up_there)
        some = some_below.any(1)
        _close(f"join/{tier}", (got * built.scales[tier])[some], wanted.numpy()[some], 0.02)
    if exact.cloud is not None:
        got = sections["cloud"].run_batch({"features": up_packed, "mask": up_mask})
        logits, _ = exact.cloud(upward, up_there)
        _close("cloud", got["logits"] * built.scales["cloud"], logits.numpy(), 0.05)


def _double(network: Network) -> Network:
    exact = Network(network.options)
    exact.load_state_dict(network.state_dict())
    return exact.double().eval()


def _same_bits(role: str, packed: npt.NDArray[np.generic], wanted: torch.Tensor) -> None:
    bits = wanted.flatten(1).numpy() > 0
    if not np.array_equal(packed, np.packbits(bits, axis=1, bitorder="little")):
        apart = np.mean(np.asarray(packed) != np.packbits(bits, axis=1, bitorder="little"))
        raise BundleError(f"section {role}: {apart:.2%} of the feature bytes differ from torch")


def _close(role: str, got: npt.ArrayLike, wanted: npt.ArrayLike, within: float) -> None:
    apart = np.abs(np.asarray(got, np.float64) - np.asarray(wanted, np.float64))
    if apart.size and apart.max() > within:
        raise BundleError(f"section {role}: {apart.max():.4g} from torch, {within:g} allowed")


def _now() -> str:
    """Time of making, RFC 3339; $SOURCE_DATE_EPOCH (seconds since 1970) if it is set."""
    epoch = os.environ.get("SOURCE_DATE_EPOCH")
    if epoch is None:
        now = datetime.datetime.now(datetime.UTC)
    else:
        try:
            now = datetime.datetime.fromtimestamp(int(epoch), datetime.UTC)
        except (ValueError, OverflowError, OSError) as error:
            raise BundleError(f"SOURCE_DATE_EPOCH is no time: {epoch!r}") from error
    return now.strftime("%Y-%m-%dT%H:%M:%SZ")
