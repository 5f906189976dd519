"""2D Shapes: coloured compositional objects on black (GSGN, ICLR 2021, section 4 and appendix E).

A scene has 1 to 4 objects. An object is of one of ten types, three of a single part, three of two
parts, four of three; its type fixes the parts' shapes, relative positions, sizes and angles, and
parts never touch. Position, size and angle of an object and the colour of every part are random.

    number ~ Uniform{min, …, max}      type ~ Uniform{0, …, 9}      factor ~ Uniform(0.75, 1.25)
    angle  ~ Uniform(-π, π)            colour of a part ~ Uniform{7 colours}
    centre ~ Uniform(±45 % of a quadrant's half-width around its centre), one object per quadrant,
             moved inwards until the object is inside the image; again where objects touch

# differs: the paper's set was never published. This is a reconstruction: shapes, types and layouts are our
own, sizes are calibrated to the printed figures (at 128 x 128 about 180 px per part and at most 390 px per
object; ours have 179 and 374).

# differs: the paper groups the parts of a detector by overlapping boxes, which is right in 95 % of its
scenes. Here it is right in 63 % with true boxes (upright, around parts' frames), as parts do not touch; in
92 % with boxes 1.2 times as wide, as a detector's are, and in 97 % with 1.3 times. Boxes of objects never
overlap.

Layouts: `quadrants` holds at most one object per quadrant of the image, since a graph of out-degree 4
    cannot represent more; `free` places objects anywhere (boxes overlap in about 2 % of scenes).

Shape legend: B images, O = 4 objects, P = 3 parts of an object, S pixels per side, W of a window.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from programs.blocks import render
from programs.blocks.names import unknown
from programs.scene import Nodes, Scene
from programs.worlds import numbers

VERSION = "3"
"""Part of the cache key: raise it with every change of the drawn scenes."""
OBJECTS, PARTS = 4, 3
JITTER = 0.45
"""Largest distance of an object's centre from its quadrant's, per axis, in half-widths of the quadrant."""
GAP = 12 / 64
"""Least distance between parts of different objects, in the image frame: 12 px at 128 x 128.

Parts of one object are as near as 2 px, so that parts that belong together can be recognised."""
LAYOUTS = ("quadrants", "free")
DISC, SQUARE, TRIANGLE = range(3)
_RGB = ("ff2828", "28dc28", "3c50ff", "ffe61e", "f03cf0", "28e1e1", "ff8c14")
COLOURS = torch.tensor([list(bytes.fromhex(rgb)) for rgb in _RGB]) / 255.0
"""(7, 3): red, green, blue, yellow, magenta, cyan, orange."""

UNIT = 7.6 / 64
"""Radius of a disc of size 1, in the image frame: 181 px of area at 128 x 128."""
EXTENT = torch.tensor([1.0, 0.886, 1.555])
"""Half-side of a square and circumradius of a triangle with the area of that disc."""

Types = tuple[tuple[tuple[int, float, float, float], ...], ...]
# (shape, x, y, size) of every part, in units of the disc's radius; y points down. Gaps are at least
# .35 of a unit, so that at 128 x 128 pixels no two parts have neighbouring pixels, and few at 64 x 64
TYPES: Types = (
    ((DISC, 0.0, 0.0, 1.1),),
    ((SQUARE, 0.0, 0.0, 1.1),),
    ((TRIANGLE, 0.0, 0.0, 1.1),),
    ((DISC, -1.23, 0.0, 1.1), (SQUARE, 1.23, 0.0, 0.9)),
    ((SQUARE, -1.23, 0.0, 1.0), (TRIANGLE, 1.42, 0.0, 1.0)),
    ((TRIANGLE, -1.42, 0.0, 1.1), (DISC, 1.23, 0.0, 0.9)),
    # an L
    ((DISC, -1.23, -1.23, 1.0), (SQUARE, 1.23, -1.23, 1.0), (TRIANGLE, -1.23, 1.52, 0.9)),
    # a pyramid
    ((TRIANGLE, 0.0, -1.28, 1.0), (SQUARE, -1.28, 1.19, 0.9), (DISC, 1.28, 1.19, 0.9)),
    # its mirror
    ((SQUARE, -1.23, 1.23, 1.05), (TRIANGLE, 1.38, 1.23, 0.9), (DISC, 1.23, -1.33, 0.8)),
    # a repeated shape
    ((DISC, -1.23, -1.14, 0.9), (DISC, 1.23, -1.14, 0.9), (SQUARE, 0.0, 1.14, 1.0)),
)


@dataclass(frozen=True)
class Config:
    """Options of the world; the defaults are the paper's."""

    size: int = 128  # pixels per side
    layout: str = "quadrants"
    min_objects: int = 1
    max_objects: int = OBJECTS
    without: tuple[int, ...] = ()  # numbers in between that no scene has

    def __post_init__(self) -> None:
        if self.size < 32:
            raise ValueError(f"size={self.size}: expected at least 32 pixels per side")
        if self.layout not in LAYOUTS:
            raise ValueError(unknown("layout", self.layout, LAYOUTS))
        numbers(self, OBJECTS)


def world(batch: int, generator: torch.Generator, config: Config = Config()) -> Scene:
    """Draw `batch` scenes with their truth.

    Returns:
        A Scene with objects (4 slots) and parts (slots 3k to 3k + 2 belong to object k), absent
        slots in between; `category` is the object's type (0 to 9) and the part's shape (0 to 2), -1
        where absent. The centre of an object is that of the box around it in its own orientation,
        the centre of a part its centroid.
    """
    return with_masks(*draw(batch, generator, config))


def draw(batch: int, generator: torch.Generator, config: Config) -> tuple[Scene, Tensor]:
    """Draw scenes without masks, and their label map (B, S, S) uint8: 0, or 1 + the part's slot."""
    some = torch.tensor(numbers(config, OBJECTS))
    number = some[torch.randint(len(some), (batch, 1), generator=generator)]
    pres = _uniform(generator, batch, OBJECTS).argsort(1).argsort(1) < number
    kind = torch.randint(len(TYPES), (batch, OBJECTS), generator=generator)
    size = UNIT * (0.75 + 0.5 * _uniform(generator, batch, OBJECTS))
    angle = math.pi * (2 * _uniform(generator, batch, OBJECTS) - 1)
    colour = torch.randint(len(COLOURS), (batch, OBJECTS * PARTS), generator=generator)

    shape = SHAPE[kind]
    part_pres = pres[..., None] & (shape >= 0)
    half, radius = size * HALF[kind], size[..., None] * CIRCLE[kind]
    here = render.pose(torch.zeros(2), half[..., None], angle)  # at the origin, for now
    local = render.pose(PLACE[kind], SCALE[kind][..., None], torch.zeros(()))
    part_pose = render.chain(here[..., None, :, :], local)
    centre = centres(part_pres, part_pose[..., 2], radius, GAP, config.layout, generator)
    pose = torch.cat([here[..., :2], centre[..., None]], -1)
    part_pose = render.chain(pose[..., None, :, :], local)

    flat = lambda t: t.flatten(1, 2)  # noqa: E731 - (B, O, P, …) -> (B, OP, …)
    shape, part_pres, part_pose = flat(shape), flat(part_pres), flat(part_pose)
    image, labels = rasterise(part_pres, shape, part_pose, COLOURS[colour], config.size)
    parent = torch.arange(OBJECTS * PARTS).div(PARTS, rounding_mode="floor").expand(batch, -1)
    objects = Nodes(
        pres.float(), pose, torch.ones_like(size), torch.zeros_like(kind), kind.where(pres, -1)
    )
    parts = Nodes(
        part_pres.float(),
        part_pose,
        torch.ones(part_pres.shape),
        parent,
        shape.where(part_pres, -1),
    )
    return Scene(image, (objects, parts), torch.zeros_like(image)), labels


def with_masks(scene: Scene, labels: Tensor) -> Scene:
    """Add the masks of both levels (bool) that a label map describes."""
    parts = labels[:, None] == torch.arange(1, OBJECTS * PARTS + 1)[:, None, None]
    return scene.with_masks((parts.unflatten(1, (OBJECTS, PARTS)).any(2), parts))


def _uniform(generator: torch.Generator, *shape: int) -> Tensor:
    return torch.rand(shape, generator=generator)


def centres(
    pres: Tensor,
    offset: Tensor,
    radius: Tensor,
    gap: float,
    layout: str,
    generator: torch.Generator,
) -> Tensor:
    """Draw centres (B, O, 2) of the objects, again where the layout's rules are broken.

    The circles around the parts, at `offset` (B, O, P, 2) from their object and of `radius`
    (B, O, P), lie inside the image and, between objects, at least `gap` apart, in the image frame.
    """
    batch, number, parts = pres.shape
    slots = torch.tensor([[-0.5, -0.5], [0.5, -0.5], [-0.5, 0.5], [0.5, 0.5]])
    room = 1 - torch.where(pres, offset.norm(dim=-1) + radius, 0).amax(-1)[..., None]  # (B, O, 1)
    owner = torch.arange(number).repeat_interleave(parts)
    other = owner[:, None] != owner
    centre = torch.zeros(batch, number, 2)
    todo = torch.arange(batch)
    while len(todo):
        u = 2 * _uniform(generator, len(todo), number, 2) - 1
        free = room[todo]
        if layout == "quadrants":
            centre[todo] = (slots + JITTER * 0.5 * u).clamp(-free, free)
        else:
            centre[todo] = free * u
        place = (centre[todo, :, None] + offset[todo]).flatten(1, 2)
        r, there = radius[todo].flatten(1), pres[todo].flatten(1)
        distance = (place[:, :, None] - place[:, None]).norm(dim=-1)
        near = distance < r[:, :, None] + r[:, None] + gap
        clash = near & other & there[:, :, None] & there[:, None]
        todo = todo[clash.flatten(1).any(1)]
    return centre


def rasterise(
    pres: Tensor, shape: Tensor, pose: Tensor, colour: Tensor, size: int
) -> tuple[Tensor, Tensor]:
    """Rasterise all present parts, each in a window around its centre.

    Returns:
        Images (B, 3, S, S) with anti-aliased edges; label maps (B, S, S) by the pixels' centres.
    """
    batch = len(pres)
    image, slot = pres.nonzero(as_tuple=True)
    pose, shape, colour = pose[image, slot], shape[image, slot], colour[image, slot]
    reach = pose[:, :, 0].norm(dim=1) * torch.where(shape == SQUARE, math.sqrt(2), 1.0)
    window = 2 * math.ceil(float(reach.max()) * size / 2 + 1) + 1
    middle = ((pose[:, :, 2] + 1) * size / 2 - 0.5).round().long()
    offset = torch.arange(window) - window // 2
    columns, rows = middle[:, :1] + offset, middle[:, 1:] + offset  # (parts, W)
    x = (2 * columns + 1) / size - 1 - pose[:, :1, 2]
    y = (2 * rows + 1) / size - 1 - pose[:, 1:, 2]
    distance = _distance(x[:, None, :], y[:, :, None], pose, shape) * size / 2
    cover = (0.5 - distance).clamp(0, 1)
    across, down = ((i >= 0) & (i < size) for i in (columns, rows))
    inside = across[:, None, :] & down[:, :, None]
    part, row, column = (inside & (cover > 0)).nonzero(as_tuple=True)
    pixel = (image[part] * size + rows[part, row]) * size + columns[part, column]
    cover, distance = cover[part, row, column], distance[part, row, column]

    pixels = torch.zeros(batch * size * size, 3)
    pixels.index_add_(0, pixel, cover[:, None] * colour[part])
    labels = torch.zeros(batch * size * size, dtype=torch.uint8)
    labels[pixel[distance <= 0]] = (slot[part] + 1).to(torch.uint8)[distance <= 0]
    pixels = pixels.clamp(max=1).view(batch, size, size, 3).permute(0, 3, 1, 2).contiguous()
    return pixels, labels.view(batch, size, size)


def _distance(x: Tensor, y: Tensor, pose: Tensor, shape: Tensor) -> Tensor:
    """(parts, W, W) signed distance to the shape's edge in the image frame, negative inside."""
    extent = pose[:, :, 0].norm(dim=1)
    cos, sin = (pose[:, i, 0, None, None] / extent[:, None, None] for i in (0, 1))
    u, v = cos * x + sin * y, cos * y - sin * x
    extent, shape = extent[:, None, None], shape[:, None, None]
    disc = (u.square() + v.square()).sqrt() - extent
    square = torch.maximum(u.abs(), v.abs()) - extent
    # an equilateral triangle, apex up: three half-planes at half the circumradius
    slant = 0.5 * math.sqrt(3) * u.abs() - 0.5 * v
    triangle = torch.maximum(v, slant) - extent / 2
    return torch.where(shape == DISC, disc, torch.where(shape == SQUARE, square, triangle))


def tables(types: Types) -> tuple[Tensor, ...]:
    """Tables by type: `shape`, `place` and `scale` of the parts in the object's frame; and in units
    `circle`, the radius around a part, and `half`, half the side of the square around the object."""
    number = max(map(len, types))
    shape = torch.full((len(types), number), -1)
    place, scale = torch.zeros(len(types), number, 2), torch.ones(len(types), number)
    circle, half = torch.zeros(len(types), number), torch.zeros(len(types))
    for t, parts in enumerate(types):
        boxes = []
        for p, (s, x, y, size) in enumerate(parts):
            e = size * float(EXTENT[s])
            shape[t, p], scale[t, p], place[t, p] = s, e, torch.tensor([x, y])
            circle[t, p] = e * (math.sqrt(2) if s == SQUARE else 1)
            left, top, bottom = (0.5 * math.sqrt(3) * e, e, 0.5 * e) if s == TRIANGLE else (e, e, e)
            boxes.append([x - left, y - top, x + left, y + bottom])
        low, high = torch.tensor(boxes)[:, :2].amin(0), torch.tensor(boxes)[:, 2:].amax(0)
        half[t] = (high - low).max() / 2
        place[t, : len(parts)] -= (low + high) / 2
        place[t] /= half[t]
        scale[t] /= half[t]
    return shape, place, scale, circle, half


SHAPE, PLACE, SCALE, CIRCLE, HALF = tables(TYPES)
