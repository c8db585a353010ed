"""A small ray caster: convex solids, one sun, cast shadows, supersampled square pictures.

World frame: metres, x east, y north, z up, ground at z = 0. Rays and points are float32 arrays
of shape (3, ...), which keeps every operation on whole planes of numbers. Each solid is convex,
so a ray is inside it between two distances; everything else follows from that one interval.
"""

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
FAR = np.float32(1e6)
SUPERSAMPLING = 3
_TINY = np.float32(1e-9)


@dataclass(frozen=True)
class Solid:
    """One convex, evenly coloured solid.

    `matrix` and `offsets` depend on `kind`: for "poly" the outward face normals (P, 3) and the
    distances (P,) with `normal . x <= offset` inside; for "ball" and "tube" the (3, 3) map from
    `x - centre` to a unit ball, or to a tube of radius 1 and height -1..1 along its third axis
    (`offsets` unused).
    """

    kind: Literal["poly", "ball", "tube"]
    centre: Floats  # (3,) metres
    radius: float  # of a ball around `centre` that holds the solid, metres
    matrix: Floats
    offsets: Floats
    colour: Floats  # (3,) linear RGB reflectance, 0..1
    glow: float = 0.0  # light it gives off itself, in units of its colour


@dataclass(frozen=True)
class Camera:
    """A calibrated pinhole camera with square pictures.

    `rotation` has the rows right, down, forward: `rotation @ (x - position)` is in the camera
    frame. `field_of_view` is the full angle over the picture's width, radians.
    """

    position: Floats  # (3,) metres
    rotation: Floats  # (3, 3)
    field_of_view: float

    def focal_px(self, size: int) -> float:
        """The focal length in pixels of a picture `size` pixels wide."""
        return 0.5 * size / float(np.tan(0.5 * self.field_of_view))

    def project(self, points: NDArray[np.floating], size: int) -> tuple[NDArray, NDArray]:
        """Project world points (..., 3) into a picture of `size` x `size` pixels.

        Returns (..., 2) column and row (0 is the left or upper edge) and the depth (...) in
        metres; a point with depth <= 0 lies behind the camera and its pixel means nothing.
        """
        local = (np.asarray(points, np.float64) - self.position) @ self.rotation.T
        depth = local[..., 2]
        pixel = local[..., :2] / np.where(depth == 0, 1e-9, depth)[..., None]
        return pixel * self.focal_px(size) + 0.5 * size, depth

    def rays(self, size: int) -> Floats:
        """Unit directions (3, size, size) through the pixel centres."""
        step = ((np.arange(size) + 0.5 - 0.5 * size) / self.focal_px(size)).astype(np.float32)
        right, down = np.meshgrid(step, step)
        local = np.stack([right, down, np.ones_like(right)])
        local /= np.sqrt((local * local).sum(axis=0))
        return np.tensordot(self.rotation.T, local, axes=1).astype(np.float32)


def look_at(
    position: tuple[float, float, float],
    target: tuple[float, float, float],
    field_of_view_deg: float,
) -> Camera:
    """The upright camera at `position` (metres) that looks at `target`."""
    forward = np.subtract(target, position)
    forward = forward / np.linalg.norm(forward)
    right = np.cross(forward, (0.0, 0.0, 1.0))
    right /= np.linalg.norm(right)
    rotation = np.stack([right, np.cross(forward, right), forward])
    return Camera(
        np.asarray(position, np.float32),
        rotation.astype(np.float32),
        float(np.radians(field_of_view_deg)),
    )


# ---------------------------------------------------------------------------------- solids


def _solid(kind, centre, radius, matrix, offsets, colour, glow=0.0) -> Solid:
    return Solid(
        kind,
        np.asarray(centre, np.float32),
        float(radius),
        np.asarray(matrix, np.float32),
        np.asarray(offsets, np.float32),
        np.asarray(colour, np.float32),
        glow,
    )


def frustum(base, size, top, height, colour, shift=(0.0, 0.0), glow=0.0) -> Solid:
    """A block that narrows upward (or downward).

    base: (3,) centre of the bottom face; size, top: (length, width) of the bottom and top faces;
    shift: how far the top face's centre lies from above the bottom's; all metres.
    """
    base = np.asarray(base, np.float64)
    signs = np.array([(1, 1), (-1, 1), (-1, -1), (1, -1)])
    low = np.column_stack([signs * np.asarray(size) / 2, np.zeros(4)]) + base
    high = (
        np.column_stack([signs * np.asarray(top) / 2 + np.asarray(shift), np.full(4, height)])
        + base
    )
    normals, offsets = [(0.0, 0.0, -1.0), (0.0, 0.0, 1.0)], [-base[2], base[2] + height]
    for i in range(4):
        j = (i + 1) % 4
        # A face may have shrunk to a line at one end, so take the longer of its two edges.
        edge = max(low[j] - low[i], high[j] - high[i], key=np.linalg.norm)
        normal = np.cross(edge, high[i] - low[i])
        normal /= np.linalg.norm(normal)
        normals.append(tuple(normal))
        offsets.append(float(normal @ low[i]))
    corners = np.concatenate([low, high])
    centre = corners.mean(axis=0)
    radius = np.linalg.norm(corners - centre, axis=1).max()
    return _solid("poly", centre, radius, normals, offsets, colour, glow)


def block(base, size, colour, glow=0.0) -> Solid:
    """An upright block; base: centre of the bottom face, size: length, width, height (m)."""
    return frustum(base, size[:2], size[:2], size[2], colour, glow=glow)


def ball(centre, radii, colour, glow=0.0) -> Solid:
    """An ellipsoid with its axes along x, y, z; radii in metres."""
    return _solid("ball", centre, max(radii), np.diag(1 / np.asarray(radii)), (), colour, glow)


def _along(start, end) -> tuple[NDArray, NDArray, float]:
    """Centre, rotation whose third row points from start to end, and half the length."""
    start, end = np.asarray(start, np.float64), np.asarray(end, np.float64)
    half = float(np.linalg.norm(end - start) / 2)
    axis = (end - start) / (2 * half)
    side = np.cross(axis, (1.0, 0.0, 0.0) if abs(axis[0]) < 0.8 else (0.0, 1.0, 0.0))
    side /= np.linalg.norm(side)
    return (start + end) / 2, np.stack([side, np.cross(axis, side), axis]), half


def limb(start, end, thickness, colour) -> Solid:
    """A spindle (long ellipsoid) from start to end; thickness is its radius, metres."""
    centre, rotation, half = _along(start, end)
    scale = np.array([1 / thickness, 1 / thickness, 1 / (1.12 * half)])
    return _solid("ball", centre, 1.12 * half + thickness, scale[:, None] * rotation, (), colour)


def tube(start, end, radius, colour, glow=0.0) -> Solid:
    """A closed cylinder from start to end, metres."""
    centre, rotation, half = _along(start, end)
    scale = np.array([1 / radius, 1 / radius, 1 / half])
    bound = float(np.hypot(half, radius))
    return _solid("tube", centre, bound, scale[:, None] * rotation, (), colour, glow)


def place(solid: Solid, yaw: float, position) -> Solid:
    """Turn a solid about the world's z axis by yaw (radians), then move it by position (3,)."""
    cos, sin = np.cos(yaw), np.sin(yaw)
    turn = np.array([[cos, -sin, 0.0], [sin, cos, 0.0], [0.0, 0.0, 1.0]])
    position = np.asarray(position, np.float64)
    matrix = (solid.matrix @ turn.T).astype(np.float32)
    offsets = solid.offsets
    if solid.kind == "poly":
        offsets = (offsets + matrix @ position).astype(np.float32)
    centre = (turn @ solid.centre + position).astype(np.float32)
    return replace(solid, matrix=matrix, offsets=offsets, centre=centre)


# ------------------------------------------------------------------------------------- rays


def span(solid: Solid, origin: Floats, rays: Floats) -> tuple[Floats, Floats, NDArray]:
    """Where rays enter and leave a solid.

    origin: (3,) or (3, M); rays: (3, M). Returns two float32 (M,) distances (enter >= leave: no
    hit) and the number of the face entered (M,) (0 except for "poly" faces and a tube's ends).
    """
    if origin.ndim == 1:
        origin = origin[:, None]
    if solid.kind == "poly":
        slope = solid.matrix @ rays
        slope = np.where(np.abs(slope) < _TINY, _TINY, slope)
        distance = (solid.offsets[:, None] - solid.matrix @ origin) / slope
        inward = slope < 0
        enter = np.where(inward, distance, -FAR)
        face = enter.argmax(axis=0)
        leave = np.where(inward, FAR, distance).min(axis=0)
        return np.take_along_axis(enter, face[None], axis=0)[0], leave, face
    start = solid.matrix @ (origin - solid.centre[:, None])
    step = solid.matrix @ rays
    round_axes = 3 if solid.kind == "ball" else 2
    a = np.maximum((step[:round_axes] ** 2).sum(axis=0), _TINY)
    b = (start[:round_axes] * step[:round_axes]).sum(axis=0)
    c = (start[:round_axes] ** 2).sum(axis=0) - np.float32(1)
    root = b * b - a * c
    hit = root > 0
    root = np.sqrt(np.where(hit, root, np.float32(0)))
    enter = np.where(hit, (-b - root) / a, FAR)
    leave = np.where(hit, (-b + root) / a, -FAR)
    if solid.kind == "ball":
        return enter, leave, np.zeros(enter.shape, np.intp)
    along = np.where(np.abs(step[2]) < _TINY, _TINY, step[2])
    first, second = (-1 - start[2]) / along, (1 - start[2]) / along
    cap = np.minimum(first, second)
    leave = np.minimum(leave, np.maximum(first, second))
    return np.maximum(enter, cap), leave, (cap > enter).astype(np.intp)


def normals_at(solid: Solid, points: Floats, rays: Floats, face: NDArray) -> Floats:
    """Outward unit normals (3, M) where rays entered a solid at points (3, M)."""
    if solid.kind == "poly":
        return solid.matrix[face].T
    local = solid.matrix @ (points - solid.centre[:, None])
    if solid.kind == "tube":
        end = face == 1
        local[:2, end] = 0
        local[2] = np.where(end, np.sign(local[2]), np.float32(0))
    normal = solid.matrix.T @ local
    return normal / np.sqrt(np.maximum((normal * normal).sum(axis=0), _TINY))


@dataclass
class Buffers:
    """What each ray of one camera met first; arrays (S, S) or (3, S, S) for S rays a side."""

    camera: Camera
    rays: Floats
    depth: Floats  # distance along the ray, metres
    normal: Floats
    albedo: Floats
    glow: Floats
    owner: NDArray[np.uint8]  # the tag of the solid met (0: background)

    def copy(self) -> "Buffers":
        """A copy that can be drawn into; camera and rays are shared."""
        arrays = (self.depth, self.normal, self.albedo, self.glow, self.owner)
        return Buffers(self.camera, self.rays, *(a.copy() for a in arrays))

    def points(self) -> Floats:
        """World points (3, S, S) that the rays met."""
        return self.camera.position[:, None, None] + self.rays * self.depth


def window(camera: Camera, solid: Solid, side: int) -> tuple[slice, slice] | None:
    """Rows and columns that can show a solid, or None when it is out of view."""
    local = camera.rotation @ (solid.centre - camera.position)
    depth, radius = float(local[2]), solid.radius
    if depth < -radius:
        return None
    if depth < 1.5 * radius + 0.1:
        return slice(0, side), slice(0, side)
    focal = camera.focal_px(side)
    # The outline of a ball off the axis is stretched; 1.3 covers fields of view up to 75 deg.
    reach = 1.3 * focal * radius / (depth - radius) + 1
    column, row = focal * local[0] / depth + side / 2, focal * local[1] / depth + side / 2
    left, right = max(0, int(column - reach)), min(side, int(column + reach) + 1)
    upper, lower = max(0, int(row - reach)), min(side, int(row + reach) + 1)
    if left >= right or upper >= lower:
        return None
    return slice(upper, lower), slice(left, right)


def draw(buffers: Buffers, solids: list[Solid], owner: int) -> None:
    """Cast the rays against solids and keep what is nearer; marks hits with `owner`."""
    side = buffers.depth.shape[0]
    for solid in solids:
        area = window(buffers.camera, solid, side)
        if area is None:
            continue
        rays = buffers.rays[(slice(None), *area)]
        shape = rays.shape[1:]
        rays = rays.reshape(3, -1)
        enter, leave, face = span(solid, buffers.camera.position, rays)
        depth = buffers.depth[area]
        hit = ((enter < leave) & (enter > 0.05)).reshape(shape) & (enter.reshape(shape) < depth)
        if not hit.any():
            continue
        flat = hit.ravel()
        rays, enter, face = rays[:, flat], enter[flat], face[flat]
        points = buffers.camera.position[:, None] + rays * enter
        depth[hit] = enter
        buffers.normal[(slice(None), *area)][:, hit] = normals_at(solid, points, rays, face)
        buffers.albedo[(slice(None), *area)][:, hit] = solid.colour[:, None]
        buffers.glow[area][hit] = solid.glow
        buffers.owner[area][hit] = owner


# ------------------------------------------------------------------------------------ light


@dataclass(frozen=True)
class Light:
    """The light of one scene; colours are linear RGB (3,)."""

    toward_sun: Floats  # (3,) unit vector
    sun: Floats
    sky: Floats  # light from all around
    haze: float  # per metre


def shadow(points: Floats, solids: list[Solid], toward_sun: Floats) -> NDArray[np.bool_]:
    """Which points (3, M) lie in the shadow of a solid."""
    dark = np.zeros(points.shape[1], bool)
    side = np.cross(toward_sun, (0.0, 0.0, 1.0))
    side = (side / np.linalg.norm(side)).astype(np.float32)
    across = np.stack([side, np.cross(toward_sun, side).astype(np.float32)])
    flat = across @ points
    for solid in solids:
        u, v = across @ solid.centre
        close = (np.abs(flat[0] - u) < solid.radius) & (np.abs(flat[1] - v) < solid.radius)
        index = np.flatnonzero(close & ~dark)
        if index.size == 0:
            continue
        start = points[:, index]
        rays = np.broadcast_to(toward_sun[:, None], start.shape)
        enter, leave, _ = span(solid, start, rays)
        dark[index[(enter < leave) & (leave > 0.03)]] = True
    return dark


def shade(buffers: Buffers, light: Light, casters: list[Solid]) -> Floats:
    """Linear RGB (3, S, S) of what the rays met."""
    normal = buffers.normal
    facing = np.tensordot(light.toward_sun, normal, axes=1)
    lit = np.maximum(facing, 0)
    # Lifted off the surface, so that rounding does not put a surface into its own shadow.
    points = buffers.points() + normal * np.float32(0.02)
    index = np.flatnonzero((lit > 0).ravel() & (buffers.depth < 200).ravel())
    dark = shadow(points.reshape(3, -1)[:, index], casters, light.toward_sun)
    lit.reshape(-1)[index[dark]] = 0
    # Sky light comes from above: downward faces keep less than half of it.
    sky = np.float32(0.68) + np.float32(0.32) * normal[2]
    out = light.sky[:, None, None] * sky + light.sun[:, None, None] * lit
    out = out * buffers.albedo + buffers.glow * buffers.albedo
    far = np.exp(-np.float32(light.haze) * np.minimum(buffers.depth, 300))
    return out * far + light.sky[:, None, None] * (1 - far)


def shrink(picture: NDArray, factor: int) -> NDArray:
    """Average (..., S, S) over factor x factor blocks."""
    *rest, high, wide = picture.shape
    blocks = picture.reshape(*rest, high // factor, factor, wide // factor, factor)
    return blocks.mean(axis=(-3, -1), dtype=np.float32)
