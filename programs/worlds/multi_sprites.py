"""Multi-Sprites: white sprites on black (Discrete-AIR, section 3.1 and appendix F).

    number ~ Uniform{min, …, max}, 0 to 3 in the paper; object by object:
    class  ~ Uniform{square, triangle, ellipse}
    centre ~ Uniform(0.2, 0.8)² of the image's side        size ~ Uniform(0.185, 0.32) of it
    angle  ~ Uniform(-π, π)
    centre, size and angle again while the object shares 10 % or more of the smaller area with an earlier
    object: 25 % of the draws of the second object, 46 % of the third image = the union of the objects, with
        anti-aliased edges

Size is the side of the square, the side of the triangle (equilateral) and the long axis of the
ellipse, whose axes are as 5 to 3. An object's canonical frame is the tight box around it in its own
orientation (the triangle's apex is up at angle 0), its centre the centre of that box.

# differs: the paper's set was never published and its text gives no numbers. Its figure 4 prints places of
0.23 to 0.73 and sizes of 0.18 to 0.31; its appendix G warns of sprites of some tens of pixels. Ours have at
least 60 px of area at 64 x 64, and squares reach at most 1.7 px beyond the border. White on black, the
threshold of the overlap, the ellipse's axes, the triangle's equal sides and keeping the class of an object
that is drawn again are our reading, too.

Objects are in the order drawn, from slot 0. As all are white, no object is in front: `depth` is 1, and a
pixel that two objects cover is in both masks.

Shape legend: B images, N = max_objects slots, S pixels per side, M objects drawn at once.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from programs.blocks import render
from programs.scene import Nodes, Scene
from programs.worlds import pack, unpack

VERSION = "1"
"""Part of the cache key: raise it with every change of the drawn scenes."""
MOST = 5
"""Largest number of objects per scene: with more, few draws are without overlap."""
SQUARE, TRIANGLE, ELLIPSE = range(3)
ASPECT = torch.tensor([[1.0, 1.0], [1.0, math.sqrt(3) / 2], [1.0, 0.6]])
"""(3, 2) sides of the box around a sprite of size 1, by class."""
REACH = 0.6
"""Largest coordinate of a centre, in the image frame."""
SIZES = 0.185, 0.32
"""Least and largest size, in sides of the image."""
GRID = 64
"""Pixels per side of the picture in which overlap is counted, whatever the image's size."""


@dataclass(frozen=True)
class Config:
    """Options of the world; the defaults are the paper's."""

    size: int = 64  # pixels per side
    min_objects: int = 0
    max_objects: int = 3
    overlap: float = 0.1  # objects share less than this of the smaller area

    def __post_init__(self) -> None:
        if self.size < 32:
            raise ValueError(f"size={self.size}: expected at least 32 pixels per side")
        if not 0 <= self.min_objects <= self.max_objects or not 1 <= self.max_objects <= MOST:
            raise ValueError(
                f"min_objects={self.min_objects}, max_objects={self.max_objects}: "
                f"expected 0 <= min_objects <= max_objects, which is 1 to {MOST}"
            )
        if not 0 < self.overlap <= 1:
            raise ValueError(
                f"overlap={self.overlap}: expected a share of the area, over 0 and at most 1"
            )


def world(batch: int, generator: torch.Generator, config: Config = Config()) -> Scene:
    """Draw `batch` scenes with their truth, a Scene of one level; `category` is -1 where absent."""
    return with_masks(*draw(batch, generator, config))


def draw(batch: int, generator: torch.Generator, config: Config) -> tuple[Scene, Tensor]:
    """Draw scenes without masks, and their label map (B, S, S) uint8, bit k of slot k's pixels."""
    slots = config.max_objects
    number = torch.randint(config.min_objects, slots + 1, (batch, 1), generator=generator)
    pres = torch.arange(slots) < number
    kind = torch.randint(len(ASPECT), (batch, slots), generator=generator)
    centre, size, angle = _places(pres, kind, config.overlap, generator)

    image, masks = _paint(pres, (kind, centre, size, angle), config.size)
    pose = render.pose(centre, size[..., None] * ASPECT[kind], angle)
    depth, root = torch.ones_like(size), torch.zeros_like(kind)
    objects = Nodes(pres.float(), pose, depth, root, kind.where(pres, -1))
    return Scene(image, (objects,), torch.zeros_like(image)), pack(masks)


def with_masks(scene: Scene, labels: Tensor) -> Scene:
    """Add the masks (bool) that a label map describes."""
    return scene.with_masks((unpack(labels, scene.objects.pres.shape[1]),))


def _places(
    pres: Tensor, kind: Tensor, overlap: float, generator: torch.Generator
) -> tuple[Tensor, Tensor, Tensor]:
    """Centres (B, N, 2), sizes and angles (B, N), slot by slot, again while there is overlap."""
    batch, slots = pres.shape
    centre, size = torch.zeros(batch, slots, 2), torch.full((batch, slots), SIZES[0])
    angle, masks = torch.zeros(batch, slots), torch.zeros(batch, slots, GRID, GRID).bool()
    for k in range(slots):
        todo = pres[:, k].nonzero()[:, 0]
        while len(todo):
            x, y, s, a = torch.rand(4, len(todo), generator=generator)
            centre[todo, k] = REACH * (2 * torch.stack([x, y], -1) - 1)
            size[todo, k] = SIZES[0] + (SIZES[1] - SIZES[0]) * s
            angle[todo, k] = math.pi * (2 * a - 1)
            what = (t[todo, k] for t in (kind, centre, size, angle))
            masks[todo, k] = own = _distance(*what, GRID) <= 0
            before = masks[todo, :k]
            shared = (before & own[:, None]).sum((-2, -1))
            smaller = torch.minimum(before.sum((-2, -1)), own.sum((-2, -1))[:, None])
            todo = todo[(shared >= overlap * smaller).any(1)]
    return centre, size, angle


def _paint(pres: Tensor, sprites: tuple[Tensor, ...], size: int) -> tuple[Tensor, Tensor]:
    """Images (B, 1, S, S) with anti-aliased edges, and masks (B, N, S, S) by the pixels' centres."""
    batch, slots = pres.shape
    image, masks = torch.zeros(batch, size, size), torch.zeros(batch, slots, size, size).bool()
    for k in range(slots):
        here = pres[:, k].nonzero()[:, 0]
        distance = _distance(*(t[here, k] for t in sprites), size) * size / 2
        image[here] = torch.maximum(image[here], (0.5 - distance).clamp(0, 1))
        masks[here, k] = distance <= 0
    return image[:, None], masks


def _distance(kind: Tensor, centre: Tensor, size: Tensor, angle: Tensor, pixels: int) -> Tensor:
    """Signed distance to the sprites' edges, negative inside, at the pixels of the image.

    For ellipses it is a first-order approximation, exact at the edge.

    Args:
        kind, size, angle: (...)
        centre: (..., 2)
        pixels: number of pixels per side of the image.
    Returns:
        (..., pixels, pixels) in the image frame, in which a size is half a sprite's side.
    """
    axis = (2 * torch.arange(pixels) + 1) / pixels - 1
    kind, size, angle = (t[..., None, None] for t in (kind, size, angle))
    x, y = axis - centre[..., 0, None, None], axis[:, None] - centre[..., 1, None, None]
    cos, sin = angle.cos(), angle.sin()
    u, v = cos * x + sin * y, cos * y - sin * x
    square = torch.maximum(u.abs(), v.abs()) - size
    half = 0.5 * math.sqrt(3)  # half a triangle's height, in sides; two sides slant
    triangle = torch.maximum(v - half * size, half * (u.abs() - 0.5 * size) - 0.5 * v)
    p, q = u / size, v / (float(ASPECT[ELLIPSE, 1]) * size)
    level = (p.square() + q.square()).sqrt()
    slope = (p.square() + (q / ASPECT[ELLIPSE, 1]).square()).sqrt() / size
    ellipse = level * (level - 1) / slope.clamp(min=1e-6)
    return torch.where(kind == SQUARE, square, torch.where(kind == TRIANGLE, triangle, ellipse))
