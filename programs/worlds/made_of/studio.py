"""CLEVR's studio: its camera, its four lamps, its colours and its two materials.

The worlds that `programs.worlds.made_of.tracer` draws share this file. CLEVR shifts its camera by up to 0.5
and its three near lamps by up to 1 along each axis.

# differs: the look is matched by eye. Places of camera and lamps are close to CLEVR's, but not read from its
Blender scene; powers are the tracer's own; ambient light replaces inter-reflection; edges of cubes are
sharp.

Shape legend: B scenes, N nodes, S pixels per side.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from programs.blocks import render
from programs.scene import Nodes
from programs.worlds.made_of import tracer
from programs.worlds.made_of.tracer import BALL, BOX, CYLINDER, Camera, Lamps, Solids

RGB = {
    "gray": (87, 87, 87),
    "red": (173, 35, 35),
    "blue": (42, 75, 215),
    "green": (29, 105, 20),
    "brown": (129, 74, 25),
    "purple": (129, 38, 192),
    "cyan": (41, 208, 208),
    "yellow": (255, 238, 51),
}
COLOURS = torch.tensor([*RGB.values()], dtype=torch.float64) / 255
"""(8, 3) colours of things, taken as linear, as in CLEVR."""
MATERIALS = ("rubber", "metal")
SHAPES = ("cube", "sphere", "cylinder")
SOLID = torch.tensor([BOX, BALL, CYLINDER])
HALF = torch.tensor([[math.sqrt(0.5)] * 3, [1.0] * 3, [1.0] * 3], dtype=torch.float64)
"""(3, 3) half-widths of a thing of radius 1, by shape."""
EYE = (7.4811, -6.5076, 5.3437)
TARGET = 0.0, 0.0, -0.18
"""World point in the middle of the square that is cut out of CLEVR's pictures."""
FIELD = 0.274
"""Tangent of half the square's angle of view."""
LAMPS = (  # place, radius, power
    ((6.4467, -2.9052, 4.2584), 0.5, 15.0),  # key
    ((-4.6711, -4.0136, 3.0112), 0.7, 3.5),  # fill
    ((-1.1685, 2.646, 5.8157), 0.7, 9.0),  # back
    ((11.6608, -6.628, 25.8232), 1.5, 200.0),  # far above: shifted as little as a sun
)
SHIFTED = 3
"""Number of lamps that are shifted, from the first."""


def camera(
    batch: int,
    generator: torch.Generator,
    eye: tuple[float, float, float] = EYE,
    target: tuple[float, float, float] = TARGET,
    field: float = FIELD,
) -> Camera:
    """One camera per scene at `eye`, each coordinate shifted by up to 0.5."""
    shift = uniform(generator, batch, 3) - 0.5
    aim = torch.tensor(target, dtype=torch.float64).expand(batch, -1)
    return Camera(torch.tensor(eye, dtype=torch.float64) + shift, aim, field)


def lamps(batch: int, generator: torch.Generator) -> Lamps:
    """The lamps of every scene."""
    place, radius, power = (torch.tensor(c, dtype=torch.float64) for c in zip(*LAMPS, strict=True))
    place = place.repeat(batch, 1, 1)
    place[:, :SHIFTED] += 2 * uniform(generator, batch, SHIFTED, 3) - 1
    return Lamps(place, radius, power)


def uniform(generator: torch.Generator, *shape: int) -> Tensor:
    """Uniform float64 numbers in [0, 1)."""
    return torch.rand(shape, generator=generator, dtype=torch.float64)


def stand(shape: Tensor, radius: Tensor, place: Tensor, yaw: Tensor) -> Tensor:
    """Frames (..., 3, 4) of CLEVR's shapes on the floor at `place` (..., 2); arbitrary for shape -1."""
    half = HALF[shape.clamp(min=0)] * radius[..., None]
    return tracer.upright(torch.cat([place, half[..., 2:]], -1), half, yaw)


def solid(shape: Tensor) -> Tensor:
    """The tracer's solids for CLEVR's shapes, -1 where there is none."""
    return SOLID[shape].where(shape >= 0, -1)


def photograph(
    solids: Solids, camera: Camera, lamps: Lamps, size: int, samples: int
) -> tuple[Tensor, Tensor]:
    """Images (B, 3, S, S), and maps (B, S, S) uint8 of the visible solid at pixels' middles: 0, or 1 + its
    index."""
    labels, _ = tracer.see(solids, camera, size)
    image = tracer.picture(solids, camera, lamps, size, samples)
    return image, (labels + 1).to(torch.uint8)


def pixels(solids: Solids, camera: Camera, size: int) -> Tensor:
    """(B, N) number of pixels that show each solid."""
    labels, _ = tracer.see(solids, camera, size)
    return F.one_hot(labels.flatten(1).long() + 1, solids.shape.shape[1] + 1).sum(1)[:, 1:]


def nodes(
    box: Tensor,
    middle: Tensor,
    camera: Camera,
    category: Tensor,
    parent: Tensor | None = None,
    attributes: Tensor | None = None,
) -> Nodes:
    """The truth of one level: poses from boxes, depths as distances from the eye.

    Args:
        box: (B, N, 4) left, top, right, bottom in the image frame.
        middle: (B, N, 3) in the world.
        category: (B, N), -1 where there is nothing; the pose is the image's there.
        parent: (B, N), the root by default.
        attributes: (B, N, A).
    """
    there = category >= 0
    box = box.where(there[..., None], torch.tensor([-1.0, -1, 1, 1], dtype=box.dtype))
    low, high = box[..., :2].float(), box[..., 2:].float()
    pose = render.pose((low + high) / 2, (high - low) / 2, torch.zeros(()))
    far = (middle - camera.eye[:, None]).norm(dim=-1).where(there, 0)
    parent = torch.zeros_like(category) if parent is None else parent.expand(len(box), -1)
    return Nodes(there.float(), pose, far.float(), parent, category, attributes)


def check_picture(size: int, samples: int) -> None:
    """Check the options of a ray-traced world.

    Raises:
        ValueError: an option is out of range.
    """
    if size < 32:
        raise ValueError(f"size={size}: expected at least 32 pixels per side")
    if not 1 <= samples <= 4:
        raise ValueError(f"samples={samples}: expected 1 to 4 along a pixel's side")
