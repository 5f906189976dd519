"""CLEVR's studio: its camera, its four lamps, its colours and its two materials.

Shared by the worlds that `programs.tracer` draws. Places and powers are those of CLEVR's Blender scene as
`kubric` has them; CLEVR shifts the camera by up to 0.5 and its three near lamps by up to 1 along each axis.

# differs: the look is matched by eye: powers are the tracer's own, and there is no inter-reflection but light
from everywhere; edges of cubes are sharp.

Shape legend: B scenes, N nodes, S pixels a side.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from programs import render
from programs.tracer import Camera, Lamps

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
"""(8, 3), taken for linear, as CLEVR takes them."""
MATERIALS = ("rubber", "metal")
EYE = (7.4811, -6.5076, 5.3437)
LAMPS = (  # place, radius, power
    ((6.4467, -2.9052, 4.2584), 0.5, 15.0),  # key
    ((-4.6711, -4.0136, 3.0112), 0.7, 3.5),  # fill
    ((-1.1685, 2.646, 5.8157), 0.7, 9.0),  # back
    ((11.6608, -6.628, 25.8232), 1.5, 200.0),  # far above: shifted as little as a sun
)
SHIFTED = 3
"""Lamps that are shifted: the first so many."""


def camera(
    batch: int,
    generator: torch.Generator,
    field: float,
    target: tuple[float, float, float] = (0.0, 0.0, 0.0),
    eye: tuple[float, float, float] = EYE,
) -> Camera:
    """A camera a scene at `eye`, each coordinate shifted by up to 0.5."""
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
    """float64 in [0, 1)."""
    return torch.rand(shape, generator=generator, dtype=torch.float64)


def box_pose(box: Tensor) -> Tensor:
    """Poses (..., 2, 3) of upright boxes (..., 4): left, top, right, bottom in the image frame."""
    low, high = box[..., :2], box[..., 2:]
    return render.pose((low + high) / 2, (high - low) / 2, torch.zeros(())).float()


def visible(labels: Tensor, number: int) -> Tensor:
    """Pixels (B, N) that show each node, of maps (B, S, S) with -1 where there is none."""
    return F.one_hot(labels.flatten(1).long() + 1, number + 1).sum(1)[:, 1:]
