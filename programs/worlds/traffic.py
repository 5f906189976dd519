"""Traffic: a street from a fixed camera, 1 to 6 cars and their shadows (as in Real-Traffic; RELATE, DeNF).

    light  ~ Uniform(0.85, 1.15)                 of the whole scene
    number ~ Uniform{min, …, max}, then car by car:
    lane   ~ Uniform{4 lanes}, two each way      place ~ Uniform along it
    length ~ Uniform(0.3, 0.42)                  colour ~ Uniform{8 colours}
    drift  ~ Uniform(-0.03, 0.03) across the lane,  heading ~ the lane's, give or take 0.06
    place again while an earlier car is on the lane and less than a length and `APART` away
    image  = street · light, shadows, cars

The street, asphalt with grain, lane marks, kerbs and grass, is the same in every scene. A shadow lies
`SHADOW` to the right and below its car, darkens the street under it by half, and is no part of the car.

# differs: the published footage has no truth; this world has its described features, a fixed view and 1 to
6 cars.

A node's `category` is its colour. Its frame is the box along the car, x towards its front. Cars do not overlap:
`depth` is 1. Lengths are in the image frame, whose side is 2. Slots are in the order drawn.

Shape legend: B images, N = max_objects slots, S pixels per side.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from programs.blocks import render
from programs.scene import Nodes, Scene
from programs.worlds import with_visible_masks as with_masks

__all__ = ["VERSION", "Config", "draw", "street", "with_masks", "world"]

VERSION = "1"
"""Part of the cache key: raise it with every change of the drawn scenes."""
MOST = 8
"""Largest number of cars per scene: with more, few draws have room for all."""
LANES = torch.tensor([-0.54, -0.18, 0.18, 0.54])
"""Middles of the lanes; cars on the upper two drive to the left."""
LENGTHS, WIDTH, APART = (0.3, 0.42), 0.19, 0.06
SHADOW = 0.05
LIGHT = 0.85, 1.15
PALETTE = torch.tensor(
    [
        *((200, 30, 30), (30, 60, 180), (235, 235, 235), (25, 25, 28)),
        *((220, 190, 40), (40, 130, 60), (150, 155, 165), (200, 110, 40)),
    ]
)
"""(8, 3) colours of cars: red, blue, white, black, yellow, green, silver, orange."""


@dataclass(frozen=True)
class Config:
    """Options of the world."""

    size: int = 128  # pixels per side
    min_objects: int = 1
    max_objects: int = 6

    def __post_init__(self) -> None:
        if self.size < 32:
            raise ValueError(f"size={self.size}: expected at least 32 pixels per side")
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
    number = torch.randint(config.min_objects, slots + 1, (batch, 1), generator=generator)
    pres = torch.arange(slots) < number
    colour = torch.randint(len(PALETTE), (batch, slots), generator=generator)
    lane, along, length = _places(pres, generator)
    drift, turn = 2 * torch.rand(2, batch, slots, generator=generator) - 1
    away = torch.where(lane < len(LANES) // 2, math.pi, 0.0)
    centre = torch.stack([along, LANES[lane] + 0.03 * drift], -1)
    half = torch.stack([length, torch.full_like(length, WIDTH)], -1) / 2
    pose = render.pose(centre, half, away + 0.06 * turn)
    light = torch.empty(batch, 1, 1, 1).uniform_(*LIGHT, generator=generator)

    image, labels = _paint(pres, pose, colour, light, config.size)
    objects = Nodes(
        pres.float(),
        pose,
        torch.ones_like(length),
        torch.zeros_like(lane),
        colour.where(pres, -1),
    )
    background = (street(config.size) * light).clamp(0, 1)
    return Scene(image, (objects,), background), labels


def street(size: int) -> Tensor:
    """(3, size, size) the picture without cars, in light 1, for any size."""
    grain = torch.from_numpy(np.random.default_rng(7).normal(0.0, 1.0, (4, 256, 256))).float()
    y, x = torch.meshgrid(*[(2 * torch.arange(256) + 1) / 256 - 1] * 2, indexing="ij")
    coarse = F.avg_pool2d(grain[:1], 17, stride=1, padding=8)[0] * 6
    asphalt = 0.36 + 0.03 * coarse + 0.02 * grain[1]
    picture = asphalt.expand(3, -1, -1).clone()
    edges = (LANES[1:] + LANES[:-1]) / 2
    dashes = ((x * 4) % 1 < 0.5) & ((y - edges[:, None, None]).abs() < 0.012)[[0, 2]].any(0)
    middle = (y - edges[1]).abs() < 0.016
    picture[:, dashes | middle] = 0.8
    picture[2, middle] = 0.35
    kerb, grass = (y.abs() > 0.74) & (y.abs() < 0.8), y.abs() >= 0.8
    picture[:, kerb] = (0.62 + 0.03 * grain[2])[kerb]
    green = torch.tensor([0.22, 0.42, 0.16])[:, None, None] * (1 + 0.2 * coarse + 0.1 * grain[3])
    picture[:, grass] = green[:, grass]
    return F.interpolate(picture[None], (size, size), mode="area")[0].clamp(0, 1)


def _places(pres: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
    """Lane, place along it and length (B, N), slot by slot, again while two cars are too near."""
    lane = torch.zeros(pres.shape, dtype=torch.long)
    along, length = torch.zeros(pres.shape), torch.full(pres.shape, LENGTHS[0])
    for k in range(pres.shape[1]):
        todo = pres[:, k].nonzero()[:, 0]
        while len(todo):
            place, long = torch.rand(2, len(todo), generator=generator)
            lane[todo, k] = torch.randint(len(LANES), (len(todo),), generator=generator)
            along[todo, k] = 0.9 * (2 * place - 1)
            length[todo, k] = LENGTHS[0] + (LENGTHS[1] - LENGTHS[0]) * long
            gap = (along[todo, k, None] - along[todo, :k]).abs()
            need = (length[todo, k, None] + length[todo, :k]) / 2 + APART
            near = (lane[todo, k, None] == lane[todo, :k]) & (gap < need)
            todo = todo[near.any(1)]
    return lane, along, length


def _paint(
    pres: Tensor, pose: Tensor, colour: Tensor, light: Tensor, size: int
) -> tuple[Tensor, Tensor]:
    """Images (B, 3, S, S) with anti-aliased edges, and labels (B, S, S) by the pixels' centres."""
    image = (street(size) * light).clamp(0, 1)
    labels = torch.zeros(len(image), size, size, dtype=torch.uint8)
    shifted = pose.clone()
    shifted[..., 2] += SHADOW
    for k in range(pres.shape[1]):
        dark, _ = _body(shifted[:, k], size)
        image = image * (1 - 0.5 * dark * pres[:, k, None, None, None])
    for k in range(pres.shape[1]):
        cover, (u, v) = _body(pose[:, k], size)
        paint = (PALETTE[colour[:, k]] / 255)[..., None, None] * light
        glass = ((u > 0.15) & (u < 0.5) | (u > -0.75) & (u < -0.55)) & (v.abs() < 0.8)
        paint = torch.where(glass.unsqueeze(1), torch.tensor(0.12), paint).clamp(0, 1)
        cover = cover * pres[:, k, None, None, None]
        image = cover * paint + (1 - cover) * image
        labels[cover[:, 0] > 0.5] = k + 1
    return image, labels


def _body(pose: Tensor, size: int) -> tuple[Tensor, tuple[Tensor, Tensor]]:
    """Share of a pixel (B, 1, S, S) that a car with round corners covers, and the pixels in the car's
    frame."""
    u, v = render.pixel_grid(render.inverse(pose), size).unbind(-1)
    half = pose[..., :2].norm(dim=-2)[..., None, None]  # (B, 2, 1, 1)
    radius = 0.04
    x, y = u.abs() * half[:, 0] - half[:, 0] + radius, v.abs() * half[:, 1] - half[:, 1] + radius
    outside = (x.clamp(min=0).square() + y.clamp(min=0).square()).sqrt()
    distance = outside + torch.maximum(x, y).clamp(max=0) - radius
    return (0.5 - distance * size / 2).clamp(0, 1).unsqueeze(1), (u, v)
