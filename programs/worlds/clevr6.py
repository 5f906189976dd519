"""CLEVR6: 3 to 6 things on the floor of CLEVR's studio (CLEVR, CVPR 2017; IODINE, ICML 2019; DeNF).

    number ~ Uniform{min, …, max}, then thing by thing:
    shape  ~ Uniform{cube, sphere, cylinder}      radius ~ Uniform{0.7, 0.35}, half a cube's diagonal
    colour ~ Uniform{8 colours}                   material ~ Uniform{rubber, metal}
    place  ~ Uniform(-3, 3)²                      angle  ~ Uniform(-π, π)
    place again, 50 times at most, while an earlier thing is nearer than 0.25, or than 0.4 along one of the
    camera's two directions on the floor; all again after that, or if one has less than 89 visible px at 128
    x 128

The picture is the cut of Greff et al. from CLEVR's 320 x 240: rows 29 to 221, columns 64 to 256. CLEVR's
limit of 200 px is 89 px at that scale.

# differs: CLEVR counts pixels before the cut, which may remove things; here every thing of the truth is in
the picture.

The published pictures themselves are read by ``--images FILE.hdf5`` (`inference.images`).

A node's `category` is its shape (an index of SHAPES), its `attributes` are the numbers of its colour (of
`studio.RGB`), its size (0 large, 1 small) and its material (of `studio.MATERIALS`). Things are in the order
drawn, from slot 0. A pose is the upright box around the whole projection, depth the distance from the eye.

Shape legend: B images, N = max_objects slots, S pixels per side.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from programs.scene import Scene
from programs.worlds import with_visible_masks as with_masks
from programs.worlds.made_of import studio, tracer
from programs.worlds.made_of.tracer import Camera, Solids

__all__ = ["VERSION", "Config", "draw", "with_masks", "world"]

VERSION = "2"
"""Part of the cache key: raise it with every change of the drawn scenes."""
MOST = 8
"""Largest number of things per scene: with more, few draws have enough visible pixels of each."""
SHAPES, RADII = studio.SHAPES, (0.7, 0.35)
SPREAD, APART, MARGIN = 3.0, 0.25, 0.4
TRIES = 50
"""Largest number of places tried for a thing."""
LEAST = 89
"""Least number of visible pixels of a thing, at GRID pixels per side."""
GRID = 128
"""Pixels per side of the picture in which visible pixels are counted, whatever the image's size."""


@dataclass(frozen=True)
class Config:
    """Options of the world; the defaults are the papers'."""

    size: int = 128  # pixels per side
    min_objects: int = 3
    max_objects: int = 6
    samples: int = 2  # rays per pixel, along each side

    def __post_init__(self) -> None:
        studio.check_picture(self.size, self.samples)
        if not 1 <= self.min_objects <= self.max_objects <= MOST:
            raise ValueError(
                f"min_objects={self.min_objects}, max_objects={self.max_objects}: "
                f"expected 1 <= min_objects <= max_objects <= {MOST}"
            )


def world(batch: int, generator: torch.Generator, config: Config = Config()) -> Scene:
    """Draw `batch` scenes with their truth, a Scene of one level; `category` is -1 where absent."""
    return with_masks(*draw(batch, generator, config))


def draw(batch: int, generator: torch.Generator, config: Config) -> tuple[Scene, Tensor]:
    """Draw scenes without masks, and their label map (B, S, S) uint8: 0, or 1 + the visible slot."""
    slots = config.max_objects
    choose = lambda n: torch.randint(n, (batch, slots), generator=generator)  # noqa: E731
    number = torch.randint(config.min_objects, slots + 1, (batch, 1), generator=generator)
    shape = choose(len(SHAPES)).where(torch.arange(slots) < number, -1)
    colour, size, metal = choose(len(studio.RGB)), choose(len(RADII)), choose(2)
    radius = torch.tensor(RADII, dtype=torch.float64)[size]
    camera, lamps = studio.camera(batch, generator), studio.lamps(batch, generator)

    frame = torch.zeros(batch, slots, 3, 4, dtype=torch.float64)
    todo = torch.arange(batch)
    while len(todo):
        place, done = _places(shape[todo], radius[todo], camera[todo], generator)
        yaw = 2 * math.pi * studio.uniform(generator, len(todo), slots)
        frame[todo] = studio.stand(shape[todo], radius[todo], place, yaw)
        seen = studio.pixels(_solids(shape, frame, todo[done]), camera[todo[done]], GRID)
        done[done.clone()] = ((seen >= LEAST) | (shape[todo[done]] < 0)).all(1)
        todo = todo[~done]
    solids = Solids(studio.solid(shape), frame, studio.COLOURS[colour], metal == 1)
    image, labels = studio.photograph(solids, camera, lamps, config.size, config.samples)
    attributes = torch.stack([colour, size, metal], -1).float()
    nodes = studio.nodes(
        tracer.boxes(solids, camera), frame[..., 3], camera, shape, attributes=attributes
    )
    return Scene(image, (nodes,)), labels


def _solids(shape: Tensor, frame: Tensor, index: Tensor) -> Solids:
    """Solids of some scenes, with arbitrary colours and materials."""
    frame = frame[index]
    return Solids(studio.solid(shape[index]), frame, frame[..., 3], shape[index] < 0)


def _places(
    shape: Tensor, radius: Tensor, camera: Camera, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Places (B, N, 2) on the floor, one after the other, and whether (B,) `TRIES` sufficed."""
    batch, slots = shape.shape
    place, found = torch.zeros(batch, slots, 2, dtype=torch.float64), torch.ones(batch).bool()
    wide = radius * studio.HALF[shape.clamp(min=0), 0]  # a cube's half-width, as CLEVR takes it
    floor = torch.nn.functional.normalize(camera.axes[:, [0, 2], :2], dim=-1)  # right, away
    for k in range(slots):
        todo = (found & (shape[:, k] >= 0)).nonzero()[:, 0]
        for _ in range(TRIES):
            place[todo, k] = SPREAD * (2 * studio.uniform(generator, len(todo), 2) - 1)
            step = place[todo, k, None] - place[todo, :k]
            gap = step.norm(dim=-1) - wide[todo, k, None] - wide[todo, :k]
            near = (gap < APART) | ((step @ floor[todo].mT).abs() < MARGIN).any(-1)
            todo = todo[near.any(1)]
        found[todo] = False
    return place, found
