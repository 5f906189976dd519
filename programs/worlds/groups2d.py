"""Groups of 2D Shapes: scenes of three levels below the root, for graphs deeper than GSGN's own.

A scene has 1 to 4 groups on black, one a quadrant of the image. A group is of one of six types, two
of a single object, two of two objects, two of three; its type fixes which objects sit where in its
frame. Objects are the six of `shapes2d` that have one part or two, alike in shape, smaller. Position,
size and angle of a group and the colour of every part are random.

    number ~ Uniform{min, …, max}      type ~ Uniform{0, …, 5}      factor ~ Uniform(0.85, 1.15)
    angle  ~ Uniform(-π, π)            colour of a part ~ Uniform{7 colours}
    centre   as in `shapes2d`, layout `quadrants`

# differs: this world is ours; no paper has groups of objects.

Parts of one object are 2.6 to 2.8 units apart (a unit is the radius of a disc of size 1), parts of
different objects of a group at least 5.3: the window of an object holds no part of another.

Shape legend: B images, G = 4 groups, O = 3 objects of a group, P = 2 parts of an object, S pixels per
side.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from programs.blocks import render
from programs.scene import Nodes, Scene
from programs.worlds import shapes2d
from programs.worlds.shapes2d import COLOURS, centres, rasterise, tables

VERSION = "2"
"""Part of the cache key: raise it with every change of the drawn scenes."""
GROUPS, OBJECTS, PARTS = 4, 3, 2
GAP = 8 / 64
"""Least distance between parts of different groups, in the image frame: 4 px at 64 x 64."""
UNIT = 5.2 / 64
"""Radius of a disc of size 1, in the image frame: 21 px of area at 64 x 64, 85 at 128 x 128."""
OBJECT_TYPES = shapes2d.TYPES[:6]
"""A disc, a square, a triangle; disc and square, square and triangle, triangle and disc."""

# (type of object, x, y) of every object, in units; y points down
TYPES: tuple[tuple[tuple[int, float, float], ...], ...] = (
    ((2, 0.0, 0.0),),
    ((3, 0.0, 0.0),),
    ((0, 0.0, -2.7), (4, 0.0, 2.6)),
    ((5, 0.0, -2.7), (3, 0.0, 2.7)),
    ((0, 0.0, -3.2), (1, -2.75, 1.6), (2, 2.75, 1.6)),
    ((5, 0.0, -2.9), (0, -2.75, 2.2), (1, 2.75, 2.2)),
)


@dataclass(frozen=True)
class Config:
    """Options of the world."""

    size: int = 128  # pixels per side
    min_groups: int = 1
    max_groups: int = GROUPS

    def __post_init__(self) -> None:
        if self.size < 64:
            raise ValueError(f"size={self.size}: expected at least 64 pixels per side")
        if not 1 <= self.min_groups <= self.max_groups <= GROUPS:
            raise ValueError(
                f"min_groups={self.min_groups}, max_groups={self.max_groups}: "
                f"expected 1 <= min_groups <= max_groups <= {GROUPS}"
            )


def world(batch: int, generator: torch.Generator, config: Config = Config()) -> Scene:
    """Draw `batch` scenes with their truth.

    Returns:
        A Scene with groups (4 slots), objects (12; slots 3k to 3k + 2 belong to group k) and parts
        (24; slots 2k and 2k + 1 belong to object k), absent slots in between; `category` is the type
        of the group (0 to 5), of the object (0 to 5), and the part's shape (0 to 2), -1 where absent.
        Centres of groups and objects are those of the boxes around them in the group's orientation.
    """
    return with_masks(*draw(batch, generator, config))


def draw(batch: int, generator: torch.Generator, config: Config) -> tuple[Scene, Tensor]:
    """Draw scenes without masks, and their label map (B, S, S) uint8: 0, or 1 + the part's slot."""
    uniform = lambda: torch.rand(batch, GROUPS, generator=generator)  # noqa: E731
    number = torch.randint(
        config.min_groups, config.max_groups + 1, (batch, 1), generator=generator
    )
    pres = uniform().argsort(1).argsort(1) < number
    kind = torch.randint(len(TYPES), (batch, GROUPS), generator=generator)
    size = UNIT * (0.85 + 0.3 * uniform())
    angle = math.pi * (2 * uniform() - 1)
    colour = torch.randint(len(COLOURS), (batch, GROUPS * OBJECTS * PARTS), generator=generator)

    member = OBJECT[kind]  # (B, G, O)
    object_pres = pres[..., None] & (member >= 0)
    shape = SHAPE[member]  # (B, G, O, P); an absent member, -1, gets any shape
    part_pres = object_pres[..., None] & (shape >= 0)
    poses = _poses(part_pres, kind, size, angle, generator)
    levels = (
        _nodes(pres, poses[0], kind, GROUPS),
        _nodes(object_pres.flatten(1), poses[1], member.flatten(1), OBJECTS),
        _nodes(part_pres.flatten(1), poses[2], shape.flatten(1), PARTS),
    )
    image, labels = rasterise(
        part_pres.flatten(1), shape.flatten(1), poses[2], COLOURS[colour], config.size
    )
    return Scene(image, levels, torch.zeros_like(image)), labels


def with_masks(scene: Scene, labels: Tensor) -> Scene:
    """Add the masks of all levels (bool) that a label map describes."""
    parts = labels[:, None] == torch.arange(1, GROUPS * OBJECTS * PARTS + 1)[:, None, None]
    objects = parts.unflatten(1, (-1, PARTS)).any(2)
    return scene.with_masks((objects.unflatten(1, (-1, OBJECTS)).any(2), objects, parts))


def _poses(
    part_pres: Tensor, kind: Tensor, size: Tensor, angle: Tensor, generator: torch.Generator
) -> tuple[Tensor, Tensor, Tensor]:
    """Poses of groups (B, G, 2, 3), objects (B, GO, 2, 3) and parts (B, GOP, 2, 3), with centres drawn here.

    Args:
        part_pres: (B, G, O, P) bool.
        kind, size, angle: (B, G) type, unit in the image frame, radians.
    """
    member, still = OBJECT[kind], torch.zeros(())
    turned = render.pose(torch.zeros(2), (size * HALF[kind])[..., None], angle)  # not placed yet
    objects = render.pose(PLACE[kind], SCALE[kind][..., None], still)
    parts = render.pose(PART_PLACE[member], PART_SCALE[member][..., None], still)
    parts = render.chain(objects[..., None, :, :], parts)
    offset = render.chain(turned[:, :, None, None], parts)[..., 2].flatten(2, 3)
    radius = (size[..., None, None] * CIRCLE[member]).flatten(2)
    centre = centres(part_pres.flatten(2), offset, radius, GAP, "quadrants", generator)
    groups = torch.cat([turned[..., :2], centre[..., None]], -1)
    objects = render.chain(groups[:, :, None], objects).flatten(1, 2)
    return groups, objects, render.chain(groups[:, :, None, None], parts).flatten(1, 3)


def _nodes(pres: Tensor, pose: Tensor, category: Tensor, degree: int) -> Nodes:
    """A level from presences (B, N) bool, poses, types (B, N), and the number of slots per parent."""
    parent = torch.arange(pres.shape[1]).div(degree, rounding_mode="floor").expand(pres.shape)
    return Nodes(pres.float(), pose, torch.ones(pres.shape), parent, category.where(pres, -1))


def _group_tables() -> tuple[Tensor, ...]:
    """By type of group, OBJECT, PLACE and SCALE of its objects in its frame, and in units HALF, half
    the side of the square around it."""
    flat = tuple(
        tuple((s, x + u, y + v, e) for k, x, y in group for s, u, v, e in OBJECT_TYPES[k])
        for group in TYPES
    )
    _, part_place, _, _, half = tables(flat)
    kind = torch.full((len(TYPES), OBJECTS), -1)
    place, scale = torch.zeros(len(TYPES), OBJECTS, 2), torch.ones(len(TYPES), OBJECTS)
    for t, group in enumerate(TYPES):
        first = 0  # part of the object
        for o, (k, _, _) in enumerate(group):
            kind[t, o], scale[t, o] = k, OBJECT_HALF[k] / half[t]
            place[t, o] = part_place[t, first] - scale[t, o] * PART_PLACE[k, 0]
            first += len(OBJECT_TYPES[k])
    return kind, place, scale, half


SHAPE, PART_PLACE, PART_SCALE, CIRCLE, OBJECT_HALF = tables(OBJECT_TYPES)
OBJECT, PLACE, SCALE, HALF = _group_tables()
