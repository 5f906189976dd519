"""Compositional CLEVR: objects of stacked parts in CLEVR's studio (GSGN, ICLR 2021, section 4, E and F).

A scene has 1 to 4 objects upright on the floor. An object is of one of ten types, three of a single part,
three of two parts, four of three, which touch; its type fixes the parts' shapes, relative places and sizes.
Size, place and angle of an object, colour and material of every part are random.

    number ~ Uniform{min, …, max}      type ~ Uniform{0, …, 9}      factor ~ Uniform(0.85, 1.15)
    angle  ~ Uniform(-π, π)            colour, material of a part ~ Uniform{7 colours}, Uniform{rubber, metal}
    aim    ~ Uniform(±55 % of a quadrant's half-width around its centre), one object per quadrant of the image:
             the object's middle in the image, moved inwards until the object is inside the image
    aim and angle of an object again if it is not inside, or larger than .55 of the image, or if its parts
    do not fit into quadrants of its box; those of all again if objects' floor areas meet, or a part has
    less than 100 visible px at 128 x 128, in 3.5 % of the scenes less than 40 px

# differs: the paper's set was never published. This is a reconstruction: shapes, types, layouts and camera
are our own, calibrated to the printed figures. In brackets are our figures, of 4,000 scenes at 128 x 128
(seed 0): scenes whose least visible part has < 100, 100 to 200, > 200 px: 0.4, 29.5, 70.1 % (0.3, 32.8,
67.0); an object 1,200 to 1,300 px on average (1,247; a part 591); boxes of objects overlap in about 1 scene
of 5 (0.16). The seven-part set (`compositional_clevr7`), the same of 2,000: 0.2, 33, 67 % (0.1, 32.9,
67.1); 1,150 to 1,200 px (1,144); boxes overlap in 0.12.

Layouts: `quadrants` holds at most one object per quadrant of the image and one part per quadrant of an object's
box, since a graph of out-degree 4 cannot represent more; a part on the border between two counts for
either. Parts in quadrants of one row are at least .4 half-sides of the box apart in x, those of one column
in y. If parts are nearer, for example three on one axis, as in version 2, they share cells of the graph,
which can separate them in few positions of its window only; the paper's 99 % of right structures imply that
its set had none. `free` places objects anywhere in the image (boxes overlap in 36 % of scenes, an object
has 1,162 px).

Places are checked at 128 x 128 whatever the image's size, so the same seed draws the same scenes at any
size. A node's pose is the upright box around its whole projection, its depth the distance from the eye.

Shape legend: B images, O = 4 objects, P = 3 parts of an object, M objects of any images, S pixels per side.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass

import torch
from torch import Tensor

from programs.blocks.names import unknown
from programs.scene import Nodes, Scene
from programs.worlds import numbers
from programs.worlds import with_visible_masks as with_masks
from programs.worlds.made_of import studio, tracer
from programs.worlds.made_of.tracer import BALL, BOX, CONE, CYLINDER, PRISM, Camera, Solids

__all__ = ["VERSION", "Config", "draw", "with_masks", "world"]

VERSION = "3"
"""Part of the cache key: raise it with every change of the drawn scenes."""
VARIANTS = {"compositional_clevr7": {"parts": 7}}
"""Fields of each variant: with seven kinds of parts (GSGN, appendix F) also cones, ellipsoids, prisms,
discs."""
OBJECTS, PARTS = 4, 3
LAYOUTS = ("quadrants", "free")
EYE = 6.2, -5.4, 6.6
"""The camera's place, with CLEVR's azimuth, but nearer and higher."""
TARGET = 0.0, 0.0, 0.2
"""Point in the middle of the picture."""
FIELD = 0.275
"""Tangent of half the camera's angle of view."""
UNIT = 0.682
"""World units of a length of 1 in the tables."""
FACTOR = 0.85, 1.15
"""Range of an object's factor on `UNIT`."""
JITTER = 0.55
"""Reach of the aim at an object around its quadrant's centre, in half-widths of the quadrant."""
GAP = 0.1
"""Least distance between objects' floor areas, in world units."""
LEAST = 100
"""Least number of visible pixels of a part, at GRID pixels per side."""
LEAST_RARE = 40
"""Least number of visible pixels of a part in a few scenes."""
RARE = 0.035
"""Share of the scenes for which `LEAST_RARE` holds."""
GRID = 128
"""Pixels per side of the picture in which scenes are checked, whatever the image's size."""
EDGE = 0.97
"""Coordinate of the edge to which a box beyond the image is moved, in the image frame."""
LARGEST = 0.55
"""Largest half-side of an object's box, in the image frame; GSGN's windows end at 0.59 (eq. 16)."""
REACH = 0.05
"""Largest distance of a part beyond its quadrant of the object's box, in half-sides: a child's reach."""
APART = 0.4
"""Least distance of parts in a row of quadrants along x, in a column along y, in half-sides of the box."""
QUADRANTS = torch.tensor([[-1.0, -1], [1, -1], [-1, 1], [1, 1]], dtype=torch.float64)
WAYS = torch.tensor([*itertools.permutations(range(4), PARTS)])
"""(24, P) all assignments of quadrants to the parts of an object."""
PAIRS = torch.tensor([*itertools.combinations(range(PARTS), 2)])
SIDES = (QUADRANTS[WAYS[:, PAIRS[:, 1]]] - QUADRANTS[WAYS[:, PAIRS[:, 0]]]) / 2
"""(24, 3, 2) side of a pair's first part on which the second lies, -1, 0 or 1 along each axis."""
OWNER = torch.arange(OBJECTS * PARTS).div(PARTS, rounding_mode="floor")
HUES = [k for k, name in enumerate(studio.RGB) if name != "gray"]

KINDS = ("cube", "cylinder", "sphere", "cone", "ellipsoid", "prism", "disc")
CUBE, TUBE, SPHERE, SPIKE, EGG, WEDGE, DISC = range(7)
SOLID = torch.tensor([BOX, CYLINDER, BALL, CONE, BALL, PRISM, CYLINDER])
HALF = torch.tensor(
    [
        [0.8, 0.8, 0.8],
        [0.85, 0.85, 0.85],
        [1.0, 1.0, 1.0],
        [1.0, 1.0, 1.0],
        [1.15, 1.15, 0.65],
        [1.15, 1.15, 0.75],
        [1.2, 1.2, 0.4],
    ],
    dtype=torch.float64,
)
"""(7, 3) half-widths of a part of size 1."""

# (kind, size, x, y, the part it stands on, -1 for the floor) of every part, lengths in units of size
Part = tuple[int, float, float, float, int]
THREE: tuple[tuple[Part, ...], ...] = (
    ((CUBE, 1.0, 0, 0, -1),),
    ((TUBE, 1.0, 0, 0, -1),),
    ((SPHERE, 1.0, 0, 0, -1),),
    ((CUBE, 0.9, 0, 0, -1), (SPHERE, 0.68, 0, 0, 0)),
    ((TUBE, 0.9, 0, 0, -1), (CUBE, 0.7, 0, 0, 0)),
    ((CUBE, 0.95, 0, 0, -1), (TUBE, 0.68, 0, 0, 0)),
    ((TUBE, 0.78, -0.7, 0, -1), (SPHERE, 0.66, -0.7, 0, 0), (CUBE, 0.8, 0.64, 0, -1)),
    ((TUBE, 1.05, 0, 0, -1), (SPHERE, 0.52, -0.52, 0, 0), (SPHERE, 0.52, 0.52, 0, 0)),
    ((CUBE, 0.85, 0, 0, -1), (TUBE, 0.64, 0, 0, 0), (SPHERE, 0.55, 0, -1.23, -1)),
    ((TUBE, 0.68, -0.6, 0, -1), (TUBE, 0.68, 0.6, 0, -1), (CUBE, 0.8, 0, 0, 0)),
)
SEVEN: tuple[tuple[Part, ...], ...] = (
    ((CUBE, 1.0, 0, 0, -1),),
    ((SPIKE, 1.1, 0, 0, -1),),
    ((EGG, 1.05, 0, 0, -1),),
    ((CUBE, 0.9, 0, 0, -1), (SPHERE, 0.66, 0, 0, 0)),
    ((TUBE, 0.9, 0, 0, -1), (SPIKE, 0.75, 0, 0, 0)),
    ((WEDGE, 1.0, 0, 0, -1), (EGG, 0.68, 0, 0, 0)),
    ((TUBE, 0.74, -0.67, 0, -1), (SPHERE, 0.62, -0.67, 0, 0), (CUBE, 0.76, 0.62, 0, -1)),
    ((DISC, 1.0, 0, 0, -1), (SPHERE, 0.56, -0.57, 0, 0), (SPIKE, 0.62, 0.57, 0, 0)),
    ((WEDGE, 0.8, 0, -0.75, -1), (DISC, 0.7, 0, -0.75, 0), (EGG, 0.7, 0, 0.97, -1)),
    ((TUBE, 0.63, -0.56, 0, -1), (TUBE, 0.63, 0.56, 0, -1), (CUBE, 0.76, 0, 0, 0)),
)
TYPES = {3: THREE, 7: SEVEN}


@dataclass(frozen=True)
class Config:
    """Options of the world; the defaults are the paper's."""

    size: int = 128  # pixels per side
    layout: str = "quadrants"
    min_objects: int = 1
    max_objects: int = OBJECTS
    without: tuple[int, ...] = ()  # numbers in between that no scene has
    parts: int = 3  # or 7: kinds of parts
    samples: int = 2  # rays per pixel, along each side

    def __post_init__(self) -> None:
        studio.check_picture(self.size, self.samples)
        if self.layout not in LAYOUTS:
            raise ValueError(unknown("layout", self.layout, LAYOUTS))
        numbers(self, OBJECTS)
        if self.parts not in TYPES:
            raise ValueError(f"parts={self.parts}: expected 3 or 7 kinds of parts")


def world(batch: int, generator: torch.Generator, config: Config = Config()) -> Scene:
    """Draw `batch` scenes with their truth.

    Returns:
        A Scene with objects (4 slots, in `quadrants` slot k for the k-th quadrant, row by row) and parts
        (slots 3k to 3k + 2 belong to object k), absent slots in between; `category` is the object's type
        (0 to 9) and the part's shape (an index of KINDS), -1 where absent.
    """
    return with_masks(*draw(batch, generator, config))


@dataclass(frozen=True)
class Types:
    """The parts of objects of each type, in units of the object's size."""

    kind: Tensor
    """(10, P) kinds of the parts, -1 where there is none"""
    offset: Tensor
    """(10, P, 3) offset of a part's middle from the object's place on the floor"""
    half: Tensor
    """(10, P, 3) half-widths"""
    height: Tensor
    """(10,) heights of objects"""

    def frames(self, kind: Tensor, size: Tensor, place: Tensor, yaw: Tensor) -> Tensor:
        """Frames (..., P, 3, 4) of the parts of objects of type `kind`, at `place` (..., 2), turned by
        `yaw`."""
        offset, half = (t[kind] * size[..., None, None] for t in (self.offset, self.half))
        cos, sin = yaw.cos()[..., None], yaw.sin()[..., None]
        x, y, z = offset.unbind(-1)
        x, y = cos * x - sin * y + place[..., :1], sin * x + cos * y + place[..., 1:]
        return tracer.upright(torch.stack([x, y, z], -1), half, yaw[..., None].expand_as(x))


def _types(table: tuple[tuple[Part, ...], ...]) -> Types:
    kind = torch.full((len(table), PARTS), -1)
    offset, half = torch.ones(2, len(table), PARTS, 3, dtype=torch.float64)
    for t, parts in enumerate(table):
        for p, (k, size, x, y, below) in enumerate(parts):
            kind[t, p], half[t, p] = k, size * HALF[k]
            floor = offset[t, below, 2] + half[t, below, 2] if below >= 0 else 0.0
            offset[t, p] = torch.tensor([x, y, float(floor + half[t, p, 2])], dtype=torch.float64)
    return Types(kind, offset, half, (offset + half)[..., 2].where(kind >= 0, 0).amax(1))


@dataclass(frozen=True)
class Plan:
    """The contents of scenes, before their places are drawn."""

    pres: Tensor
    """(B, O) bool"""
    kind: Tensor
    """(B, O) type"""
    size: Tensor
    """(B, O) world units of a length of 1"""
    colour: Tensor
    """(B, OP, 3)"""
    metal: Tensor
    """(B, OP) bool"""
    least: Tensor
    """(B, 1) least number of visible pixels of every part"""
    types: Types

    def __getitem__(self, index: Tensor) -> Plan:
        own = (self.pres, self.kind, self.size, self.colour, self.metal, self.least)
        return Plan(*(t[index] for t in own), self.types)

    @property
    def shape(self) -> Tensor:
        """(B, O, P) kind of part, -1 where absent."""
        return self.types.kind[self.kind].where(self.pres[..., None], -1)

    def solids(self, place: Tensor, yaw: Tensor) -> Solids:
        """The parts, objects at `place` (B, O, 2) on the floor, turned by `yaw` (B, O)."""
        frame = self.types.frames(self.kind, self.size, place, yaw)
        solid = SOLID[self.shape].where(self.shape >= 0, -1)
        return Solids(solid.flatten(1), frame.flatten(1, 2), self.colour, self.metal)


def draw(batch: int, generator: torch.Generator, config: Config) -> tuple[Scene, Tensor]:
    """Draw scenes without masks, and their label map (B, S, S) uint8: 0, or 1 + the part's slot."""
    plan = _plan(batch, generator, config)
    camera = studio.camera(batch, generator, EYE, TARGET, FIELD)
    lamps = studio.lamps(batch, generator)
    solids = _arrange(plan, camera, generator, config)
    image, labels = studio.photograph(solids, camera, lamps, config.size, config.samples)
    return Scene(image, _truth(plan, solids, camera)), labels


def _plan(batch: int, generator: torch.Generator, config: Config) -> Plan:
    some = torch.tensor(numbers(config, OBJECTS))
    number = some[torch.randint(len(some), (batch, 1), generator=generator)]
    pres = studio.uniform(generator, batch, OBJECTS).argsort(1).argsort(1) < number
    kind = torch.randint(10, (batch, OBJECTS), generator=generator)
    low, high = FACTOR
    size = UNIT * (low + (high - low) * studio.uniform(generator, batch, OBJECTS))
    colour = torch.randint(len(HUES), (batch, OBJECTS * PARTS), generator=generator)
    metal = torch.randint(2, colour.shape, generator=generator) == 1
    colour = studio.COLOURS[torch.tensor(HUES)[colour]]
    rare = studio.uniform(generator, batch, 1) < RARE
    least = torch.where(rare, LEAST_RARE, LEAST)
    return Plan(pres, kind, size, colour, metal, least, _types(TYPES[config.parts]))


def _arrange(plan: Plan, camera: Camera, generator: torch.Generator, config: Config) -> Solids:
    """Draw places and angles of objects, again where the rules are broken."""
    place = torch.zeros(*plan.pres.shape, 2, dtype=torch.float64)
    yaw, todo = torch.zeros(plan.pres.shape, dtype=torch.float64), torch.arange(len(place))
    while len(todo):
        some, eye = plan[todo], camera[todo]
        place[todo], yaw[todo] = _stand(some, eye, generator, config)
        solids = some.solids(place[todo], yaw[todo])
        good = _apart(solids)
        seen = studio.pixels(solids[good], eye[good], GRID)
        good[good.clone()] = ((seen >= some.least[good]) | (solids.shape[good] < 0)).all(1)
        todo = todo[~good]
    return plan.solids(place, yaw)


def _stand(
    plan: Plan, camera: Camera, generator: torch.Generator, config: Config
) -> tuple[Tensor, Tensor]:
    """Places (B, O, 2) and angles (B, O) that are right for each object by itself."""
    scene, slot = plan.pres.nonzero(as_tuple=True)
    place, yaw = torch.zeros(*plan.pres.shape, 2).double(), torch.zeros(plan.pres.shape).double()
    while len(scene):
        kind, size, eye = plan.kind[scene, slot], plan.size[scene, slot], camera[scene]
        aim = 2 * studio.uniform(generator, len(scene), 2) - 1
        if config.layout == "quadrants":
            aim = QUADRANTS[slot] / 2 + JITTER / 2 * aim
        turn = 2 * math.pi * studio.uniform(generator, len(scene))
        for _ in range(2):
            height = plan.types.height[kind] * size / 2
            where = tracer.unproject(eye, aim[:, None], height[:, None])[:, 0, :2]
            part = _boxes(plan.types, kind, plan.types.frames(kind, size, where, turn), eye)
            whole = around(part, plan.types.kind[kind] >= 0)
            out = (whole.abs() - EDGE).clamp(min=0)
            aim = aim + out[:, :2] - out[:, 2:]
        place[scene, slot], yaw[scene, slot] = where, turn
        good = (whole.abs().amax(1) < 1) & (_half(whole).amax(1) <= LARGEST)
        if config.layout == "quadrants":
            good &= _in_quadrants(part, whole, plan.types.kind[kind] >= 0, slot)
        scene, slot = scene[~good], slot[~good]
    return place, yaw


def _boxes(types: Types, kind: Tensor, frame: Tensor, camera: Camera) -> Tensor:
    """Boxes (M, P, 4) of the parts of objects, each seen by its own camera."""
    solid = SOLID[types.kind[kind]]
    return tracer.boxes(Solids(solid, frame, frame[..., 3], solid > 0), camera)


def around(part: Tensor, there: Tensor) -> Tensor:
    """Boxes (..., 4) around those of the parts (..., P, 4) that are `there` (..., P)."""
    low = part[..., :2].where(there[..., None], math.inf).amin(-2)
    high = part[..., 2:].where(there[..., None], -math.inf).amax(-2)
    return torch.cat([low, high], -1)


def _half(box: Tensor) -> Tensor:
    """(..., 2) half the sides of boxes (..., 4)."""
    return (box[..., 2:] - box[..., :2]) / 2


def _in_quadrants(part: Tensor, whole: Tensor, there: Tensor, slot: Tensor) -> Tensor:
    """(M,) whether objects are in their quadrants of the image, and their parts in different ones of theirs.

    Parts in quadrants of one row are APART in x, those of one column in y.
    """
    centre = (whole[:, 2:] + whole[:, :2]) / 2
    local = ((part[..., :2] + part[..., 2:]) / 2 - centre[:, None]) / _half(whole)[:, None]
    fits = (local[:, :, None] * QUADRANTS).amin(-1) > -REACH  # (M, P, 4)
    fits |= ~there[..., None]
    each = torch.stack([fits[:, p, WAYS[:, p]] for p in range(PARTS)]).all(0)  # (M, 24)
    step = local[:, PAIRS[:, 1]] - local[:, PAIRS[:, 0]]
    both = there[:, PAIRS].all(-1)
    # parts of different rows and columns need no minimum distance
    apart = (step[:, None] * SIDES >= APART) | (SIDES == 0)
    apart = apart.all(-1) | (SIDES != 0).all(-1) | ~both[:, None]
    each &= apart.all(-1)
    return each.any(1) & ((centre * QUADRANTS[slot]).amin(1) > 0)


def _apart(solids: Solids) -> Tensor:
    """(B,) whether circles around the floor areas of parts are GAP apart between objects."""
    centre, wide = solids.frame[..., :2, 3], solids.frame[..., :2, :2].norm(dim=-2)
    radius = torch.where(solids.shape == BOX, wide.norm(dim=-1), wide[..., 0])
    distance = (centre[:, :, None] - centre[:, None]).norm(dim=-1)
    there = solids.shape >= 0
    clash = distance < radius[:, :, None] + radius[:, None] + GAP
    clash &= (OWNER[:, None] != OWNER) & there[:, :, None] & there[:, None]
    return ~clash.flatten(1).any(1)


def _truth(plan: Plan, solids: Solids, camera: Camera) -> tuple[Nodes, Nodes]:
    """The truth: an object's box encloses its parts' boxes, its middle is the mean of theirs."""
    there, pair = plan.shape >= 0, (OBJECTS, PARTS)
    part, middle = tracer.boxes(solids, camera), solids.frame[..., 3]
    whole = around(part.unflatten(1, pair), there)
    mean = (middle.unflatten(1, pair) * there[..., None]).sum(2)
    mean = mean / there.sum(2, keepdim=True).clamp(min=1)
    objects = studio.nodes(whole, mean, camera, plan.kind.where(plan.pres, -1))
    return objects, studio.nodes(part, middle, camera, plan.shape.flatten(1), OWNER)
