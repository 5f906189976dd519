"""A small ray tracer: pictures of solids on a floor, and the solid at each pixel.

A solid is convex, given in its own frame as

    x² + y² + a z² + b z + c ≤ 0  (QUADRIC)      and      n · (x, y, z) ≤ h for some planes  (PLANES)

and placed in the world by an affine map: rotation times scale, and a shift. A ray is transformed to that
frame; its stretch inside the solid is its stretch inside the quadric, cut by plane after plane. The tracer
assumes that solids do not intersect and that none is behind the camera.

The picture is the floor z = 0 and the solids, lit by lamps that are discs (so that shadows are soft) and by
ambient light. Rubber scatters; metal mirrors its surroundings once, and shows the lamps. Radiance is linear
until the last step, the conversion to sRGB.

Nothing here is random: the points of a lamp that shadow rays go to are the same in every picture.

World frame: z up, lengths in CLEVR's unit. Camera frame: x right, y down, z forward. Image frame: [-1, 1]², as
everywhere. A ray is eye + t d with d of length 1 along the camera's z.

Shape legend: B scenes, N solids, L lamps, S pixels per side.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numba
import numpy as np
import torch
from torch import Tensor

SHAPES = ("ball", "box", "cylinder", "cone", "prism")
BALL, BOX, CYLINDER, CONE, PRISM = range(5)
"""Kinds of solids in [-1, 1]³: the unit ball, the cube, the upright cylinder and cone of radius 1, and the
upright prism on an equilateral triangle of circumradius 1 with a corner at y = 1."""

AMBIENT = 0.2
"""Ambient light, in units of the light of a lamp of power 1 at a distance of 1."""
FLOOR = 0.5
"""The floor's albedo."""
SKY = 0.35
"""Radiance of the sky, as mirrored in metal."""
SHINE = 1.0
"""Strength of the highlights on rubber."""
GLOSS = 24
"""Exponent of the highlights on rubber."""
SCATTERED = 0.28
"""Share of light that metal scatters."""
MIRRORED = 0.85
"""Share of light that metal mirrors."""
LAMP = 13.0
"""Brightness of a lamp's image in metal."""
MOST = 64
"""Largest number of rays to a lamp: each has a bit of 64."""
TINY, ZERO = 1e-6, (0.0, 0.0, 0.0)


@dataclass(frozen=True)
class Solids:
    """The solids of a batch of scenes."""

    shape: Tensor
    """(B, N) int64, an index of SHAPES; -1 where there is none"""
    frame: Tensor
    """(B, N, 3, 4) float64 map from the solid's frame to the world; the axes are orthogonal"""
    colour: Tensor
    """(B, N, 3) linear, in [0, 1]"""
    metal: Tensor
    """(B, N) bool"""

    def __getitem__(self, index: Tensor) -> Solids:
        return Solids(self.shape[index], self.frame[index], self.colour[index], self.metal[index])


@dataclass(frozen=True)
class Camera:
    """One camera per scene, upright, with a square picture."""

    eye: Tensor
    """(B, 3) float64"""
    target: Tensor
    """(B, 3) the point in the middle of the picture"""
    field: float
    """tangent of half the angle of view"""

    def __getitem__(self, index: Tensor) -> Camera:
        return Camera(self.eye[index], self.target[index], self.field)

    @property
    def axes(self) -> Tensor:
        """(B, 3, 3) the camera's x, y and z in the world, row by row."""
        forward = torch.nn.functional.normalize(self.target - self.eye, dim=-1)
        up = torch.zeros_like(forward)
        up[:, 2] = 1
        right = torch.nn.functional.normalize(torch.linalg.cross(forward, up), dim=-1)
        return torch.stack([right, torch.linalg.cross(forward, right), forward], 1)


@dataclass(frozen=True)
class Lamps:
    """Discs that face the origin."""

    place: Tensor
    """(B, L, 3) float64"""
    radius: Tensor
    """(L,)"""
    power: Tensor
    """(L,) light at a distance of 1, in the direction of the lamp's normal"""


def upright(centre: Tensor, half: Tensor, yaw: Tensor) -> Tensor:
    """Frames (..., 3, 4) of solids that stand on the floor, turned by `yaw` about the vertical.

    Args:
        centre: (..., 3).
        half: (..., 3) half-widths along the solid's own axes.
        yaw: (...) radians, from x towards y.
    """
    cos, sin, zero = yaw.cos(), yaw.sin(), torch.zeros_like(yaw)
    across, along = torch.stack([cos, sin, zero], -1), torch.stack([-sin, cos, zero], -1)
    up = torch.stack([zero, zero, zero + 1], -1)
    return torch.cat(
        [torch.stack([across, along, up], -1) * half[..., None, :], centre[..., None]], -1
    )


def boxes(solids: Solids, camera: Camera) -> Tensor:
    """The upright boxes (B, N, 4) around the solids' whole projections, hidden parts included.

    A solid is the convex hull of balls, discs and points (HULL). A plane through the eye touches one with
    centre m and axes e_k, in the camera's frame, if (n · m)² = Σ_k (n · e_k)². The planes that show as the
    line x = u are n = (1, 0, -u), so the box's sides are the roots of a quadratic. The same for y.

    Returns:
        Left, top, right and bottom, in the image frame; arbitrary for absent solids.
    """
    hull = HULL[solids.shape.clamp(min=0)]  # (B, N, K, 6)
    axes = camera.axes[:, None]
    linear = axes @ solids.frame[..., :3]
    shift = axes @ (solids.frame[..., 3] - camera.eye[:, None])[..., None]
    middle = (linear[:, :, None] @ hull[..., :3, None] + shift[:, :, None])[..., 0]
    spread = linear[:, :, None] * hull[..., None, 3:]
    cross = spread @ spread.mT
    a = middle[..., 2:].square() - cross[..., 2, 2, None]
    b = middle[..., :2] * middle[..., 2:] - cross[..., :2, 2]
    c = middle[..., :2].square() - cross.diagonal(dim1=-2, dim2=-1)[..., :2]
    root = (b.square() - a * c).clamp(min=0).sqrt()
    low, high = ((b - root) / a).amin(2), ((b + root) / a).amax(2)
    return torch.cat([low, high], -1) / camera.field


def unproject(camera: Camera, point: Tensor, height: Tensor) -> Tensor:
    """(B, N, 3) world points of places (B, N, 2) in the image, at the `height` (B, N) above the floor."""
    ray = torch.cat([point * camera.field, torch.ones_like(point[..., :1])], -1) @ camera.axes
    eye = camera.eye[:, None]
    return eye + ray * ((height - eye[..., 2]) / ray[..., 2])[..., None]


def see(solids: Solids, camera: Camera, size: int) -> tuple[Tensor, Tensor]:
    """The solids that the middles of the pixels show.

    Returns:
        (B, S, S) int8 the solid's number, -1 for the floor, and (B, S, S) float32 its distance from the eye
        (of the floor, infinite).
    """
    labels = torch.empty(len(solids.shape), size, size, dtype=torch.int8)
    distance = torch.empty(labels.shape, dtype=torch.float32)
    for b, (things, slots, eye) in enumerate(_scenes(solids, camera)):
        depth, first = _cast(things, eye, size)
        labels[b] = torch.from_numpy(slots[first])
        distance[b] = torch.from_numpy(depth * _stretch(eye.field, size))
    return labels, distance


def picture(
    solids: Solids, camera: Camera, lamps: Lamps, size: int, samples: int = 2, shadows: int = 4
) -> Tensor:
    """Images (B, 3, S, S) float32 in [0, 1].

    Args:
        samples: rays per pixel, along each side; one if they all meet the floor.
        shadows: rays from the point that they meet to each lamp, if a solid may be between.
    Raises:
        ValueError: more than `MOST` rays from a pixel to a lamp.
    """
    if not 1 <= samples**2 * shadows <= MOST:
        raise ValueError(
            f"samples={samples}, shadows={shadows}: expected samples² · shadows to be 1 to {MOST}"
        )
    image = np.empty((len(solids.shape), size, size, 3), np.float32)
    place = lamps.place.numpy()
    axes = _discs(lamps)
    for b, (things, _, eye) in enumerate(_scenes(solids, camera)):
        lights = Lights(place[b], *(a[b] for a in axes), lamps.radius.numpy(), lamps.power.numpy())
        _paint(things, eye, lights, samples, shadows, image[b])
    return _srgb(torch.from_numpy(image).permute(0, 3, 1, 2).contiguous())


def _srgb(x: Tensor) -> Tensor:
    """sRGB values of radiances, 1 the brightest."""
    x = x.clamp(0, 1)
    return torch.where(
        x <= 0.0031308, 12.92 * x, 1.055 * x.clamp(min=0.0031308) ** (1 / 2.4) - 0.055
    )


class Things(NamedTuple):
    """The n present solids of one scene, as the compiled functions take them."""

    shape: np.ndarray  # (n,)
    centre: np.ndarray  # (n, 3)
    inverse: np.ndarray  # (n, 3, 3) from the world to the solid's frame
    bound: np.ndarray  # (n,) radius of a ball around it
    box: np.ndarray  # (n, 4) in the image
    colour: np.ndarray  # (n, 3)
    metal: np.ndarray  # (n,)


class Eye(NamedTuple):
    """The camera of one scene."""

    place: np.ndarray  # (3,)
    axes: np.ndarray  # (3, 3)
    field: float


class Lights(NamedTuple):
    """The lamps of one scene."""

    place: np.ndarray  # (L, 3)
    across: np.ndarray  # (L, 3) radius of the disc
    along: np.ndarray  # (L, 3) another, at right angles
    facing: np.ndarray  # (L, 3) unit vector
    radius: np.ndarray  # (L,)
    power: np.ndarray  # (L,)


def _scenes(solids: Solids, camera: Camera) -> Any:
    """Each scene's Things, the numbers of its solids (and -1 after them), and its Eye."""
    linear = solids.frame[..., :3]
    width = linear.norm(dim=-2)  # (B, N, 3)
    side = width[..., :2].amax(-1)
    reach = torch.where(solids.shape == BOX, width[..., :2].norm(dim=-1), side).square()
    ball = solids.shape == BALL
    bound = torch.where(ball, width.amax(-1), (reach + width[..., 2].square()).sqrt())
    inverse = linear.mT / width.square().clamp(min=TINY**2)[..., None]
    columns = (solids.shape, solids.frame[..., 3], inverse, bound, boxes(solids, camera))
    columns = [c.contiguous().numpy() for c in (*columns, solids.colour.double(), solids.metal)]
    place, axes = camera.eye.numpy(), camera.axes.contiguous().numpy()
    for b, shape in enumerate(columns[0]):
        (slots,) = (shape >= 0).nonzero()
        things = Things(*(c[b, slots] for c in columns))
        yield things, np.append(slots, -1).astype(np.int8), Eye(place[b], axes[b], camera.field)


def _discs(lamps: Lamps) -> list[np.ndarray]:
    """Two radii at right angles, and the direction, of every lamp: (B, L, 3) each."""
    facing = -torch.nn.functional.normalize(lamps.place, dim=-1)
    up = torch.tensor([0.0, 0.0, 1.0], dtype=facing.dtype).expand_as(facing)
    across = torch.nn.functional.normalize(torch.linalg.cross(facing, up), dim=-1)
    along = torch.linalg.cross(facing, across)
    radius = lamps.radius[:, None]
    return [t.contiguous().numpy() for t in (across * radius, along * radius, facing)]


def _stretch(field: float, size: int) -> np.ndarray:
    """(S, S) length of a ray's direction."""
    axis = field * ((2 * np.arange(size) + 1) / size - 1)
    return np.sqrt(1 + axis[:, None] ** 2 + axis**2)


def _tables() -> tuple[np.ndarray, np.ndarray, np.ndarray, Tensor]:
    """QUADRIC (5, 3): a, b and c; PLANES (5, 6, 4): n and h; SIDES (5,): number of planes; HULL (5, 8, 6):
    centres and half-axes of the balls, discs and points whose hull is the solid, padded by repeats."""
    quadric = np.array([[1, 0, -1], [0, 0, -1e9], [0, 0, -1], [-0.25, 0.5, -0.25], [0, 0, -1e9]])
    up, down = [0, 0, 1, 1], [0, 0, -1, 1]
    third = [math.pi * (1.5 + 2 * k / 3) for k in range(3)]
    planes = [
        [],
        [up, down, [1, 0, 0, 1], [-1, 0, 0, 1], [0, 1, 0, 1], [0, -1, 0, 1]],
        [up, down],
        [up, down],
        [up, down, *([math.cos(w), math.sin(w), 0, 0.5] for w in third)],
    ]
    corners = [(-math.cos(w), -math.sin(w)) for w in third]
    pieces = [
        [[0, 0, 0, 1, 1, 1]],
        [[x, y, z, 0, 0, 0] for x in (-1, 1) for y in (-1, 1) for z in (-1, 1)],
        [[0, 0, z, 1, 1, 0] for z in (-1, 1)],
        [[0, 0, -1, 1, 1, 0], [0, 0, 1, 0, 0, 0]],
        [[x, y, z, 0, 0, 0] for x, y in corners for z in (-1, 1)],
    ]
    table, sides = np.zeros((5, 6, 4)), np.array([len(p) for p in planes])
    hull = torch.zeros(5, 8, 6, dtype=torch.float64)
    for k, own in enumerate(planes):
        for i, plane in enumerate(own):
            table[k, i] = plane
        hull[k] = torch.tensor((pieces[k] * 8)[:8])
    return quadric, table, sides, hull


QUADRIC, PLANES, SIDES, HULL = _tables()

Vector = tuple[float, float, float]


def _compiled(function: Callable, **options: bool) -> Callable:
    """Compile, and keep the result for the next process if numba has a folder for it."""
    try:
        return numba.njit(cache=True, error_model="numpy", **options)(function)
    except RuntimeError:  # no folder that numba knows of can be written
        return numba.njit(error_model="numpy", **options)(function)


def _inlined(function: Callable) -> Callable:
    """Compile a function that is called often, inlined: passing tuples of arrays takes longer than its
    work."""
    return _compiled(function, forceinline=True)


@_inlined
def _dot(a: Vector, b: Vector) -> float:
    return a[0] * b[0] + a[1] * b[1] + a[2] * b[2]


@_inlined
def _plus(a: Vector, t: float, b: Vector) -> Vector:
    """a + t b."""
    return a[0] + t * b[0], a[1] + t * b[1], a[2] + t * b[2]


@_inlined
def _times(a: Vector, b: Vector) -> Vector:
    return a[0] * b[0], a[1] * b[1], a[2] * b[2]


@_inlined
def _row(table: np.ndarray, k: int) -> Vector:
    return table[k, 0], table[k, 1], table[k, 2]


@_inlined
def _unit(a: Vector) -> Vector:
    s = 1 / math.sqrt(_dot(a, a))
    return s * a[0], s * a[1], s * a[2]


@_inlined
def _mirrored(d: Vector, n: Vector) -> Vector:
    return _plus(d, -2 * _dot(d, n), n)


@_inlined
def _local(things: Things, k: int, v: Vector) -> Vector:
    """A direction of the world in a solid's frame."""
    m = things.inverse[k]
    return _dot(_row(m, 0), v), _dot(_row(m, 1), v), _dot(_row(m, 2), v)


@_inlined
def _within(shape: int, o: Vector, d: Vector) -> tuple[float, float, int]:
    """The stretch of the line o + t d inside a solid, all in its frame: from, to (empty unless to > from), and
    the plane where it enters, -1 for the quadric."""
    a, b, c = QUADRIC[shape, 0], QUADRIC[shape, 1], QUADRIC[shape, 2]
    square = d[0] * d[0] + d[1] * d[1] + a * d[2] * d[2]
    half = o[0] * d[0] + o[1] * d[1] + a * o[2] * d[2] + 0.5 * b * d[2]
    rest = o[0] * o[0] + o[1] * o[1] + a * o[2] * o[2] + b * o[2] + c
    if abs(square) < 1e-14:
        square = 1e-14
    root = half * half - square * rest
    if root < 0:
        return 1.0, 0.0, -1
    root = math.sqrt(root)
    near, far, side = (-half - root) / square, (-half + root) / square, -1
    if square < 0:  # along a cone: of its two halves, the one below the apex
        near, far = (-math.inf, far) if d[2] > 0 else (near, math.inf)
    for k in range(SIDES[shape]):
        n = _row(PLANES[shape], k)
        along, gap = _dot(n, d), PLANES[shape, k, 3] - _dot(n, o)
        if along < 0:
            if gap / along > near:
                near, side = gap / along, k
        elif along > 0:
            far = min(far, gap / along)
        elif gap < 0:
            return 1.0, 0.0, -1
    return near, far, side


@_inlined
def _normal(things: Things, k: int, p: Vector, side: int) -> Vector:
    """The unit normal of a solid where a ray enters it, p in its frame."""
    shape = things.shape[k]
    if side >= 0:
        n = _row(PLANES[shape], side)
    else:
        n = (p[0], p[1], QUADRIC[shape, 0] * p[2] + 0.5 * QUADRIC[shape, 1])
    m = things.inverse[k]
    return _unit(
        (
            n[0] * m[0, 0] + n[1] * m[1, 0] + n[2] * m[2, 0],
            n[0] * m[0, 1] + n[1] * m[1, 1] + n[2] * m[2, 1],
            n[0] * m[0, 2] + n[1] * m[1, 2] + n[2] * m[2, 2],
        )
    )


@_inlined
def _ray(eye: Eye, x: float, y: float) -> Vector:
    """The direction of a place of the image frame, of length 1 along the camera's z."""
    d = _plus(_row(eye.axes, 2), eye.field * x, _row(eye.axes, 0))
    return _plus(d, eye.field * y, _row(eye.axes, 1))


@_compiled
def _cast(things: Things, eye: Eye, side: int) -> tuple[np.ndarray, np.ndarray]:
    """Distance and solid (-1: none) at which the rays through a grid end."""
    depth, first = np.full((side, side), np.inf), np.full((side, side), -1, np.int64)
    place = (eye.place[0], eye.place[1], eye.place[2])
    for k in range(len(things.shape)):
        o = _local(things, k, _plus(place, -1.0, _row(things.centre, k)))
        edge = (things.box[k] + 1) * (0.5 * side)
        for i in range(max(0, math.floor(edge[1])), min(side, math.ceil(edge[3]))):
            for j in range(max(0, math.floor(edge[0])), min(side, math.ceil(edge[2]))):
                d = _ray(eye, (2 * j + 1) / side - 1, (2 * i + 1) / side - 1)
                near, far, _ = _within(things.shape[k], o, _local(things, k, d))
                if TINY < near < far and near < depth[i, j]:
                    depth[i, j], first[i, j] = near, k
    return depth, first


@_compiled
def _nearest(things: Things, o: Vector, d: Vector, own: int) -> tuple[float, int]:
    """Distance and solid at which a ray from the surface of the solid `own` ends."""
    depth, first = math.inf, -1
    for k in range(len(things.shape)):
        to = _plus(_row(things.centre, k), -1.0, o)
        along = _dot(to, d)
        if k == own or _dot(to, to) * _dot(d, d) - along * along > things.bound[k] ** 2 * _dot(
            d, d
        ):
            continue
        from_here = _local(things, k, to)
        start = (-from_here[0], -from_here[1], -from_here[2])
        near, far, _ = _within(things.shape[k], start, _local(things, k, d))
        if TINY < near < far and near < depth:
            depth, first = near, k
    return depth, first


@_inlined
def _lit(
    things: Things, lights: Lights, p: Vector, n: Vector, own: int, rays: int, turn: float
) -> float:
    """Light at p on the surface of the solid `own` (-1: the floor) with unit normal n."""
    total = AMBIENT * (0.5 + 0.5 * n[2]) * _open(things, p, n, own)
    for k in range(len(lights.power)):
        to = _plus(_row(lights.place, k), -1.0, p)
        distance = math.sqrt(_dot(to, to))
        falls, leaves = _dot(to, n) / distance, -_dot(to, _row(lights.facing, k)) / distance
        if falls > 0 and leaves > 0:
            seen = _unshadowed(things, lights, k, p, to, own, rays, turn)
            total += lights.power[k] * falls * leaves * seen / distance**2
    return total


@_inlined
def _open(things: Things, p: Vector, n: Vector, own: int) -> float:
    """Share of the surroundings of p that solids leave free, treated as balls."""
    taken = 0.0
    for k in range(len(things.shape)):
        to = _plus(_row(things.centre, k), -1.0, p)
        square, above = _dot(to, to), _dot(to, n)
        if k != own and above > 0:
            r = 0.75 * things.bound[k]
            taken += r * r * above / (max(square, r * r) * math.sqrt(square))
    return max(0.0, 1 - taken)


@_inlined
def _unshadowed(
    things: Things,
    lights: Lights,
    lamp: int,
    p: Vector,
    to: Vector,
    own: int,
    rays: int,
    turn: float,
) -> float:
    """Share of a lamp's disc that is visible from p, by rays to points of it."""
    open_rays, square, blocked = rays, _dot(to, to), 0
    for k in range(len(things.shape)):
        c = _plus(_row(things.centre, k), -1.0, p)
        along = _dot(c, to) / square
        wide = things.bound[k] + max(0.0, along) * lights.radius[lamp]
        behind = along < 0 and along * along * square > things.bound[k] ** 2
        if k == own or behind or _dot(c, c) - along * along * square > wide * wide:
            continue
        m = _local(things, k, c)
        o = (-m[0], -m[1], -m[2])
        for i in range(rays):
            if blocked >> i & 1:
                continue
            angle, out = 2 * math.pi * (0.618034 * i + turn), math.sqrt((i + 0.5) / rays)
            ray = _plus(to, out * math.cos(angle), _row(lights.across, lamp))
            ray = _plus(ray, out * math.sin(angle), _row(lights.along, lamp))
            near, far, _ = _within(things.shape[k], o, _local(things, k, ray))
            if near < far and far > TINY and near < 1:
                blocked |= 1 << i
                open_rays -= 1
    return open_rays / rays


@_inlined
def _gleam(lights: Lights, p: Vector, r: Vector, metal: bool) -> float:
    """Highlights: the lamps' images in the direction r from p, sharp on metal, wide on rubber."""
    total = 0.0
    for k in range(len(lights.power)):
        to = _plus(_row(lights.place, k), -1.0, p)
        distance = math.sqrt(_dot(to, to))
        cos, strength = _dot(to, r) / distance, lights.power[k] / distance**2
        if cos <= 0:
            continue
        if metal:
            off = math.sqrt(max(0.0, 1 - cos * cos)) * distance / lights.radius[k]
            total += LAMP * strength * max(0.0, min(1.0, 2 - 2.4 * off))
        else:
            total += SHINE * strength * cos**GLOSS
    return total


@_compiled
def _shade(
    things: Things,
    lights: Lights,
    o: Vector,
    d: Vector,
    depth: float,
    k: int,
    rays: int,
    turn: float,
) -> tuple[float, float, float]:
    """Radiance, without reflections, at the end of a ray: on the solid k, the floor or the sky."""
    if k < 0 and d[2] >= -TINY:
        return SKY, SKY, SKY
    if k < 0:
        p, n = _plus(o, -o[2] / d[2], d), (0.0, 0.0, 1.0)
    else:
        p, n = _meet(things, o, d, depth, k)
    light = _lit(things, lights, p, n, k, rays, turn)
    if k < 0:
        return FLOOR * light, FLOOR * light, FLOOR * light
    colour, metal = _row(things.colour, k), things.metal[k]
    gleam = _gleam(lights, p, _unit(_mirrored(d, n)), metal)
    if not metal:
        return _plus((gleam, gleam, gleam), light, colour)
    tint = _plus((0.4, 0.4, 0.4), 0.6, colour)
    return _plus(_plus(ZERO, SCATTERED * light, colour), gleam, tint)


@_inlined
def _meet(things: Things, o: Vector, d: Vector, depth: float, k: int) -> tuple[Vector, Vector]:
    """The point of the solid k where a ray enters it, and the normal there."""
    start = _local(things, k, _plus(o, -1.0, _row(things.centre, k)))
    step = _local(things, k, d)
    _, _, side = _within(things.shape[k], start, step)
    return _plus(o, depth, d), _normal(things, k, _plus(start, depth, step), side)


@_compiled
def _look(
    things: Things,
    lights: Lights,
    o: Vector,
    d: Vector,
    depth: float,
    k: int,
    rays: int,
    turn: float,
) -> tuple[float, float, float]:
    """Radiance at the end of a ray, with reflections."""
    own = _shade(things, lights, o, d, depth, k, rays, turn)
    if k < 0 or not things.metal[k]:
        return own
    p, n = _meet(things, o, d, depth, k)
    r = _mirrored(d, n)
    there, other = _nearest(things, p, r, k)
    seen = _shade(things, lights, p, r, there, other, rays, turn)
    return _plus(own, MIRRORED, _times(_row(things.colour, k), seen))


@_compiled
def _paint(
    things: Things, eye: Eye, lights: Lights, samples: int, shadows: int, image: np.ndarray
) -> None:
    """Fill `image` (S, S, 3) with radiances."""
    size = len(image)
    depth, first = _cast(things, eye, size * samples)
    o = (eye.place[0], eye.place[1], eye.place[2])
    for i in range(size):
        for j in range(size):
            rows, columns = i * samples, j * samples
            n = 1
            for s in range(samples**2):
                if first[rows + s // samples, columns + s % samples] >= 0:
                    n = samples
            turn = (52.9829189 * ((0.06711056 * j + 0.00583715 * i) % 1)) % 1  # as even as may be
            total = ZERO
            for s in range(n * n):
                a, b = s // n, s % n
                d = _ray(
                    eye, (2 * j + (2 * b + 1) / n) / size - 1, (2 * i + (2 * a + 1) / n) / size - 1
                )
                end, k = depth[rows + a, columns + b], first[rows + a, columns + b]
                rays = shadows if n == samples else shadows * samples**2
                seen = _look(things, lights, o, d, end, k, rays, turn + 0.414214 * s)
                total = _plus(total, 1 / n**2, seen)
            image[i, j, 0], image[i, j, 1], image[i, j, 2] = total
