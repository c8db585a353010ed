"""A bundle: one trained network as manifest plus sections.

The manifest is canonical JSON (sorted keys, no blanks, UTF-8). Its SHA-256 is the bundle id and
the first 16 bits of that are the tag which every frame message carries. The manifest names every
section by role, hash and size, so the manifest's hash stands for the whole network.

Roles: `device/<camera>`, `local/<edge>`, `edge/<edge>`, `join/local`, `join/edge`, `cloud`.
Tensors, all with a free batch N:

==========  ================================================  ================================
role        inputs                                            outputs
==========  ================================================  ================================
device/n    image u8 (N, H, W, C)                             scores u8 (N, K), features u8 (N, B)
local/k     scores u8 (N, M, K), mask u8 (N, M)               logits i32 (N, K)
edge/k      features u8 (N, M, B), mask u8 (N, M)             logits i32 (N, K),
                                                              edge_features u8 (N, B')
join/x      scores u8 (N, E, K), mask u8 (N, E)               logits i32 (N, K)
cloud       features u8 (N, M', B'), mask u8 (N, M')          logits i32 (N, K)
==========  ================================================  ================================

M counts the members below a node, E the edges, K the classes, B the packed feature bytes. A
masked-out row has no influence on any output.

Several edges have one exit each way together: every edge quantises its own logits to K score
bytes (`ddnn.scores.quantise`, with `edge_scales`), and `join/local` and `join/edge` make of all
edges' scores what the site's local and edge exit say.

Where `topology.offload` is `images` a device section gives `features` alone, and they are the
picture itself, byte by byte: everything is left to the cloud.

Everything here takes bytes and returns values; files are in `ddnn.store`.
"""

from __future__ import annotations

import datetime
import functools
import hashlib
import math
from collections.abc import Mapping
from typing import Annotated, Literal

import msgspec
import numpy as np
import numpy.typing as npt

from ddnn.errors import BundleError
from ddnn.measurements import (
    EXITS,
    Accuracy,
    Calibration,
    ExitDisagreement,
    ExitKey,
    MissingTable,
    Threshold,
    check_calibration,
    check_missing,
)
from ddnn.wire import ESCALATION_MASK_BYTES, MAX_BODY_BYTES

MAX_MANIFEST_BYTES = 1_000_000
MAX_SECTION_BYTES = 64_000_000
#: A section up to this size travels in one message, a larger one in chunks.
WHOLE_SECTION_BYTES = 128 * 1024
CHUNK_BYTES = 64 * 1024
OPSET = 18

Size = Annotated[int, msgspec.Meta(ge=1, le=4096)]
Length = Annotated[int, msgspec.Meta(ge=1, le=MAX_BODY_BYTES)]
Scale = Annotated[float, msgspec.Meta(gt=0.0)]
Sha256 = Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{64}$")]
Role = Annotated[
    str,
    msgspec.Meta(pattern=r"^((device|local|edge)/(0|[1-9]\d{0,3})|join/(local|edge)|cloud)$"),
]


class Image(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Size of what the device sections take, in pixels."""

    height: Size
    width: Size
    channels: Annotated[int, msgspec.Meta(ge=1, le=4)]


class Topology(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Who is below whom: `edges[k]` lists the cameras of edge k.

    Without edges the cameras' features go to the cloud as they are.

    Attributes:
        offload: `images`: these features are the raw pictures. A device runs such a bundle only
            if its owner said so. Unset, and not written, everywhere else.
    """

    cameras: Annotated[int, msgspec.Meta(ge=1, le=32)]
    edges: tuple[tuple[int, ...], ...] = ()
    offload: Literal["images"] | msgspec.UnsetType = msgspec.UNSET

    @property
    def sends_images(self) -> bool:
        """Whether raw pictures leave the devices."""
        return self.offload == "images"


class Tensor(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One input or output of a section; `shape` leaves out the free batch dimension."""

    name: str
    dtype: Literal["uint8", "int32"]
    shape: tuple[Length, ...]


class SelfTest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Expected outputs as a hash: exact sections give these bytes on every machine."""

    seed: str
    batch: Annotated[int, msgspec.Meta(ge=1, le=64)]
    sha256: Sha256


class SectionInfo(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What the manifest says of one section."""

    role: Role
    sha256: Sha256
    size_bytes: Annotated[int, msgspec.Meta(ge=1, le=MAX_SECTION_BYTES)]
    opset: int
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    self_test: SelfTest


class ExitInfo(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One exit: logits times `logit_scale` go into the softmax; None: it always answers."""

    logit_scale: Scale
    threshold: Threshold | None = None


Moment = Annotated[datetime.datetime, msgspec.Meta(tz=True)]


class Terms(
    msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True
):
    """Where and until when a bundle may be taken up; what is left out is not limited.

    Attributes:
        expires: no node begins to run it afterwards; one that runs it goes on, with a warning.
        sites: the only sites that may run it.
        hardware: tier -> machine names as the kernel gives them (`aarch64`, `x86_64`).
        min_version: oldest version of this program that can run it, `major.minor.patch`.
    """

    expires: Moment | None = None
    sites: tuple[str, ...] = ()
    hardware: dict[Literal["device", "edge", "cloud"], tuple[str, ...]] = {}
    min_version: Annotated[str, msgspec.Meta(pattern=r"^\d+\.\d+\.\d+$")] | None = None


class Manifest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Everything a node must know of a bundle before it touches a section.

    Fields that came later are absent, not null, where they are not used: the canonical bytes of
    older manifests, and so their bundle ids, stay what they were.

    Attributes:
        edge_scales: of several edges: logit scale of every `local/k` and every `edge/k`; then
            `exits` holds those of the joins. Not written with one edge or none.
        disagreement: of every exit but the last, as far as calibration has measured it.
    """

    format: Literal[1] = 1
    name: str
    version: Annotated[int, msgspec.Meta(ge=1, le=2**53)]
    created: str
    classes: Annotated[tuple[str, ...], msgspec.Meta(min_length=1, max_length=256)]
    image: Image
    topology: Topology
    exits: dict[ExitKey, ExitInfo]
    edge_scales: dict[ExitKey, Scale] | msgspec.UnsetType = msgspec.UNSET
    sections: Annotated[tuple[SectionInfo, ...], msgspec.Meta(min_length=1, max_length=256)]
    accuracy: Accuracy | None = None
    calibration: Calibration | None = None
    missing: MissingTable | None = None
    disagreement: dict[Literal["local", "edge"], ExitDisagreement] | msgspec.UnsetType = (
        msgspec.UNSET
    )
    training: dict[str, str | int | float | bool | None] = {}
    terms: Terms | msgspec.UnsetType = msgspec.UNSET

    def section(self, role: str) -> SectionInfo | None:
        """The section of that role, or None."""
        return next((s for s in self.sections if s.role == role), None)


#: Made here, not at the first message: msgspec 0.22 crashes where two threads meet a type for the
#: first time at once.
_DECODER = msgspec.json.Decoder(Manifest)


class Signature(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One signature of a manifest, as DSSE writes it; `ddnn.signing` makes and checks them."""

    keyid: Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{16}$")]
    sig: Annotated[bytes, msgspec.Meta(min_length=64, max_length=64)]


class Bundle(msgspec.Struct, frozen=True):
    """A manifest with the bytes of some or all of its sections, every one of them checked.

    Attributes:
        manifest: the decoded manifest.
        payload: the manifest's canonical bytes.
        sections: role -> ONNX bytes; a node holds only the roles that it runs.
        signatures: of the manifest; not checked here (`ddnn.trust` does).
    """

    manifest: Manifest
    payload: bytes
    sections: dict[str, bytes]
    signatures: tuple[Signature, ...] = ()

    @property
    def bundle_id(self) -> str:
        """SHA-256 of the manifest, 64 hex digits."""
        return bundle_id(self.payload)

    @property
    def tag(self) -> int:
        """16 bits of the bundle id, carried by every frame message."""
        return tag(self.payload)


@functools.lru_cache(maxsize=16)  # asked for several times a second, of one or two manifests
def bundle_id(payload: bytes) -> str:
    """SHA-256 of a manifest's canonical bytes, 64 hex digits."""
    return hashlib.sha256(payload).hexdigest()


def tag(payload: bytes) -> int:
    """First 16 bits of the bundle id."""
    return int(bundle_id(payload)[:4], 16)


def encode_manifest(manifest: Manifest) -> bytes:
    """Canonical bytes of a manifest."""
    return msgspec.json.encode(manifest, order="sorted")


def decode_manifest(payload: bytes) -> Manifest:
    """Decode and check a manifest.

    Raises:
        BundleError: oversize, not canonical, of another format, or inconsistent in itself.
    """
    if len(payload) > MAX_MANIFEST_BYTES:
        raise BundleError(
            f"manifest of {len(payload)} bytes is over the limit of {MAX_MANIFEST_BYTES}"
        )
    try:
        manifest = _DECODER.decode(payload)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise BundleError(f"manifest is not valid: {error}") from error
    if encode_manifest(manifest) != payload:
        raise BundleError("manifest is not in its canonical form")
    _check_consistent(manifest)
    return manifest


def check_section(info: SectionInfo, data: bytes) -> bytes:
    """`data`, if it is what the manifest names.

    Raises:
        BundleError: another size or hash.
    """
    if len(data) != info.size_bytes:
        raise BundleError(
            f"section {info.role} has {len(data)} bytes; the manifest says {info.size_bytes}"
        )
    if hashlib.sha256(data).hexdigest() != info.sha256:
        raise BundleError(f"section {info.role} does not have the hash of the manifest")
    return data


def assemble(
    payload: bytes,
    sections: Mapping[str, bytes],
    roles: set[str] | None = None,
    signatures: tuple[Signature, ...] = (),
) -> Bundle:
    """Manifest bytes and section bytes -> Bundle, all checked.

    Args:
        payload: manifest bytes.
        sections: role -> ONNX bytes.
        roles: the roles needed; None: every role of the manifest.
        signatures: of the manifest, carried along.

    Raises:
        BundleError: invalid manifest, a missing or unlisted section, a wrong hash or size.
    """
    manifest = decode_manifest(payload)
    listed = {info.role: info for info in manifest.sections}
    wanted = set(listed) if roles is None else roles
    if missing := wanted - set(sections):
        raise BundleError(f"bundle lacks section {', '.join(sorted(missing))}")
    if unlisted := set(sections) - set(listed):
        raise BundleError(f"section {', '.join(sorted(unlisted))} is not in the manifest")
    checked = {role: check_section(listed[role], data) for role, data in sections.items()}
    return Bundle(manifest, payload, checked, signatures)


def chunk_count(size_bytes: int) -> int:
    """How many messages a section of this size travels in."""
    return 1 if size_bytes <= WHOLE_SECTION_BYTES else -(-size_bytes // CHUNK_BYTES)


def chunks(data: bytes) -> list[bytes]:
    """A section cut as it travels."""
    if chunk_count(len(data)) == 1:
        return [data]
    return [data[i : i + CHUNK_BYTES] for i in range(0, len(data), CHUNK_BYTES)]


def self_test_inputs(info: SectionInfo) -> dict[str, npt.NDArray[np.uint8]]:
    """The self-test's inputs, name -> uint8 (batch, *shape): SHAKE-256 of seed and name.

    A mask is the low bit of each byte, so that missing members are part of every self-test.
    """
    inputs: dict[str, npt.NDArray[np.uint8]] = {}
    for tensor in info.inputs:
        shape = (info.self_test.batch, *tensor.shape)
        stream = hashlib.shake_256(f"{info.self_test.seed}/{tensor.name}".encode())
        values = np.frombuffer(stream.digest(int(np.prod(shape))), np.uint8).reshape(shape)
        inputs[tensor.name] = (values & 1).astype(np.uint8) if tensor.name == "mask" else values
    return inputs


def output_hash(outputs: Mapping[str, npt.NDArray[np.generic]]) -> str:
    """SHA-256 over the outputs of a section in name order, little-endian, with their shapes."""
    digest = hashlib.sha256()
    for name in sorted(outputs):
        array = outputs[name]
        digest.update(f"{name}{array.shape}{array.dtype.name}".encode())
        digest.update(np.ascontiguousarray(array, array.dtype.newbyteorder("<")).tobytes())
    return digest.hexdigest()


def _check_consistent(manifest: Manifest) -> None:
    roles = [info.role for info in manifest.sections]
    if len(set(roles)) != len(roles):
        raise BundleError("manifest names a role twice")
    cameras = manifest.topology.cameras
    below = [camera for edge in manifest.topology.edges for camera in edge]
    if manifest.topology.edges and sorted(below) != list(range(cameras)):
        raise BundleError("manifest's edges do not hold every camera exactly once")
    gateways = max(1, len(manifest.topology.edges))
    for role in roles:
        tier, _, number = role.partition("/")
        limit = {"device": cameras, "local": gateways, "edge": len(manifest.topology.edges)}
        if number.isdigit() and int(number) >= limit[tier]:
            raise BundleError(f"manifest's topology has no place for section {role}")
    if missing := {f"device/{camera}" for camera in range(cameras)} - set(roles):
        raise BundleError(f"manifest lacks section {', '.join(sorted(missing))}")
    for tier in ("local", "edge", "cloud"):
        has_section = any(role.partition("/")[0] == tier for role in roles)
        if has_section != (tier in manifest.exits):
            raise BundleError(f"manifest has a {tier} section or a {tier} exit, but not both")
    if not all(manifest.topology.edges):
        raise BundleError("manifest has an edge without cameras")
    _check_joins(manifest, set(roles))
    _check_offload(manifest, set(roles))
    _check_tensors(manifest)
    exits = tuple(tier for tier in EXITS if tier in manifest.exits)
    if manifest.calibration:
        check_calibration(manifest.calibration, exits)
    if manifest.missing:
        check_missing(manifest.missing, cameras)
    if manifest.disagreement and set(manifest.disagreement) - set(exits[:-1]):
        raise BundleError("manifest says how often an exit that is not early disagrees")


def _check_joins(manifest: Manifest, roles: set[str]) -> None:
    """Several edges: all of them have the same exits, each with a join and a scale."""
    edges = manifest.topology.edges
    if len(edges) < 2:
        if {"join/local", "join/edge"} & roles or manifest.edge_scales is not msgspec.UNSET:
            raise BundleError("manifest joins edges, but its topology has not several")
        return
    if "cloud" not in roles:
        raise BundleError("manifest has several edges and no cloud that joins their features")
    tiers = ["edge"]
    if "local" in manifest.exits:
        tiers.append("local")
    wanted = {f"{tier}/{k}" for tier in tiers for k in range(len(edges))}
    wanted |= {f"join/{tier}" for tier in tiers}
    if missing := wanted - roles:
        raise BundleError(f"manifest of several edges lacks {', '.join(sorted(missing))}")
    if "join/local" in roles and "local" not in tiers:
        raise BundleError("manifest joins local exits that its edges do not have")
    scales = {} if manifest.edge_scales is msgspec.UNSET else manifest.edge_scales
    if set(scales) != set(tiers):
        raise BundleError(f"manifest's edge_scales must be of {' and '.join(sorted(tiers))}")


def _check_offload(manifest: Manifest, roles: set[str]) -> None:
    """Pictures go to the cloud alone, and to nobody who cannot take them."""
    if manifest.topology.sends_images and (
        manifest.topology.edges or "cloud" not in roles or set(manifest.exits) != {"cloud"}
    ):
        raise BundleError("manifest offloads images, which needs a cloud exit and no other")


def _check_tensors(manifest: Manifest) -> None:
    """Shapes that must agree from one tier to the next."""
    image, classes = manifest.image, len(manifest.classes)
    pixels = image.height * image.width * image.channels
    edges = len(manifest.topology.edges)
    for info in manifest.sections:
        tier = info.role.partition("/")[0]
        wanted_inputs, wanted_outputs = _NAMES[tier]
        if tier == "device" and manifest.topology.sends_images:
            wanted_outputs = ("features",)
        if tuple(t.name for t in info.inputs) != wanted_inputs:
            raise BundleError(f"section {info.role} must take {', '.join(wanted_inputs)}")
        if tuple(t.name for t in info.outputs) != wanted_outputs:
            raise BundleError(f"section {info.role} must give {', '.join(wanted_outputs)}")
        for tensor in info.outputs:
            if tensor.name in ("scores", "logits") and tensor.shape != (len(manifest.classes),):
                raise BundleError(f"section {info.role} does not give one value for each class")
            if tensor.dtype != ("int32" if tensor.name == "logits" else "uint8"):
                raise BundleError(f"output {tensor.name} of {info.role} has the wrong dtype")
        if any(tensor.dtype != "uint8" for tensor in info.inputs):
            raise BundleError(f"section {info.role} must take uint8")
        shapes = [tensor.shape for tensor in (*info.inputs, *info.outputs)]
        if wanted_outputs == ("features",) and shapes[1] != (pixels,):
            raise BundleError(f"section {info.role} must give the picture's {pixels} bytes")
        if tier == "join" and shapes[:2] != [(edges, classes), (edges,)]:
            raise BundleError(f"section {info.role} must take the scores of {edges} edges")
        if tier == "cloud" and math.prod(shapes[0]) + ESCALATION_MASK_BYTES > MAX_BODY_BYTES:
            raise BundleError(
                f"the features that the cloud takes do not fit into a message of "
                f"{MAX_BODY_BYTES} bytes"
            )


_NAMES: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "device": (("image",), ("scores", "features")),
    "local": (("scores", "mask"), ("logits",)),
    "edge": (("features", "mask"), ("logits", "edge_features")),
    "join": (("scores", "mask"), ("logits",)),
    "cloud": (("features", "mask"), ("logits",)),
}
