"""Dead leaves: flat objects that lie one on the other (ECON, sections 2 and C.1).

Colours are integers from 0 to 255.

    background  ~ Uniform{0, …, 127}³, flat
    number      ~ Uniform{min, …, max}; for each, back to front in a uniformly random order:
    class       ~ Uniform{classes}, each at most once, or any number of times with `repeats`
    centre      ~ Uniform(the places where the object is wholly inside the image)
    colour      its class's, or Uniform{128, …, 255}³
    x           <- m_t ⊙ colour + (1 - m_t) ⊙ x, the full mask m_t binary
    r_t         = m_t ⊙ Π_t' in front (1 - m_t'), its visible region                               (1, 2)

An object's frame is the upright square of its size, whatever its class: a circle touches its four sides, a
square fills it, a triangle stands on it with equal sides, its apex and base as far from the middle.

# differs: the paper gives neither the image's nor the objects' size. Its best models have 2 latent
dimensions with a colour per class, and 5 with random colours, so objects here have one size and no
rotation.

Slots are in order of depth, slot 0 in front, and `depth` is the slot's number. The label map holds the full
masks; together with the order they determine the visible regions.

Shape legend: B images, N = max_objects slots, S pixels per side.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from programs.blocks import render
from programs.scene import Nodes, Scene
from programs.worlds import pack, unpack

VERSION = "1"
"""Part of the cache key: raise it with every change of the drawn scenes."""
VARIANTS = {"sprites_unique": {}, "sprites_random": {"colour": "random"}}
"""Fields of each variant: circles, squares, triangles, coloured by class or at random (ECON, section C.1)."""
MOST = 8
"""Largest number of objects per scene: a label has 8 bits, one per object."""
COLOURS = ("class", "random")
DARK = 0, 128
"""Range of a background's channels, without its end."""
BRIGHT = 128, 256
"""Range of a randomly coloured object's channels, without its end."""
HEIGHT = math.sqrt(3) / 2
"""Half a triangle's height, in half-sides of its base."""

SHAPES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "circle": lambda u, v: u.square() + v.square() <= 1,
    "square": lambda u, v: torch.maximum(u.abs(), v.abs()) <= 1,
    "triangle": lambda u, v: (v.abs() <= HEIGHT) & (u.abs() <= (v + HEIGHT) / (2 * HEIGHT)),
    "diamond": lambda u, v: u.abs() + v.abs() <= 1,
    "cross": lambda u, v: (
        (torch.minimum(u.abs(), v.abs()) <= 1 / 3) & (torch.maximum(u.abs(), v.abs()) <= 1)
    ),
    "ring": lambda u, v: ((u.square() + v.square()).sqrt() - 0.75).abs() <= 0.25,
}
"""For each class, whether a point of the object's frame [-1, 1]², v down, is in it. Add your own here."""
PALETTE = torch.tensor(
    [[255, 0, 0], [0, 255, 0], [0, 0, 255], [255, 255, 0], [255, 0, 255], [0, 255, 255]]
)
"""(6, 3) colours of the classes in their order: red, green, blue, yellow, magenta, cyan."""


@dataclass(frozen=True)
class Config:
    """Options of the world; the defaults are the paper's."""

    size: int = 64  # pixels per side
    classes: tuple[str, ...] = ("circle", "square", "triangle")
    colour: str = "class"  # or "random"
    min_objects: int = 3
    max_objects: int = 3
    repeats: bool = False  # classes are drawn independently of each other
    scale: float = 0.36  # side of an object's frame, in sides of the image

    def __post_init__(self) -> None:
        if self.size < 16:
            raise ValueError(f"size={self.size}: expected at least 16 pixels per side")
        if unknown := {*self.classes} - {*SHAPES}:
            raise ValueError(f"classes={unknown} are unknown; known are {', '.join(SHAPES)}")
        if not 1 <= len({*self.classes}) == len(self.classes):
            raise ValueError(f"classes={self.classes}: expected at least one, none of them twice")
        if self.colour not in COLOURS:
            raise ValueError(f"colour={self.colour!r}: expected {' or '.join(COLOURS)}")
        if not 0 <= self.min_objects <= self.max_objects or not 1 <= self.max_objects <= MOST:
            raise ValueError(
                f"min_objects={self.min_objects}, max_objects={self.max_objects}: "
                f"expected 0 <= min_objects <= max_objects, which is 1 to {MOST}"
            )
        if self.max_objects > len(self.classes) and not self.repeats:
            raise ValueError(
                f"max_objects={self.max_objects} of {len(self.classes)} classes: set repeats=True, or give "
                "more classes"
            )
        if not 0 < self.scale < 1:
            raise ValueError(f"scale={self.scale}: expected a share of the side, above 0, below 1")


def world(batch: int, generator: torch.Generator, config: Config = Config()) -> Scene:
    """Draw `batch` scenes with their truth, a Scene of one level; `category` is -1 where absent."""
    return with_masks(*draw(batch, generator, config))


def draw(batch: int, generator: torch.Generator, config: Config) -> tuple[Scene, Tensor]:
    """Draw scenes without masks, and their label map (B, S, S) uint8, bit k of slot k's full mask."""
    slots, kinds = config.max_objects, len(config.classes)
    number = torch.randint(config.min_objects, slots + 1, (batch, 1), generator=generator)
    pres = torch.arange(slots) < number
    if config.repeats:
        kind = torch.randint(kinds, (batch, slots), generator=generator)
    else:
        kind = torch.rand(batch, kinds, generator=generator).argsort(1)[:, :slots]
    centre = (1 - config.scale) * (2 * torch.rand(batch, slots, 2, generator=generator) - 1)
    background = torch.randint(*DARK, (batch, 3), generator=generator)
    colour = torch.randint(*BRIGHT, (batch, slots, 3), generator=generator)
    if config.colour == "class":
        colour = PALETTE[kind]

    masks = full_masks(kind, centre, config) & pres[..., None, None]
    image = background[..., None, None].expand(-1, -1, config.size, config.size)
    for k in reversed(range(slots)):
        image = torch.where(masks[:, k, None], colour[:, k, :, None, None], image)
    pose = render.pose(centre, torch.full((1,), config.scale), torch.zeros(batch, slots))
    depth = torch.arange(slots).float().expand(batch, -1)
    root = torch.zeros_like(kind)
    objects = Nodes(pres.float(), pose, depth, root, kind.where(pres, -1))
    flat = background[..., None, None].expand_as(image)
    return Scene(image / 255, (objects,), flat / 255), pack(masks)


def full_masks(kind: Tensor, centre: Tensor, config: Config) -> Tensor:
    """(B, N, S, S) bool: every pixel whose middle is in the object, visible or not."""
    axis = (2 * torch.arange(config.size) + 1) / config.size - 1
    u = ((axis - centre[..., :1]) / config.scale)[..., None, :]
    v = ((axis - centre[..., 1:]) / config.scale)[..., None]
    every = torch.stack([SHAPES[name](u, v) for name in config.classes])
    chosen = kind[None, ..., None, None].expand(1, *every.shape[1:])
    return every.gather(0, chosen)[0]


def with_masks(scene: Scene, labels: Tensor) -> Scene:
    """Add the full masks (bool) that a label map describes, and their visible parts."""
    full = unpack(labels, scene.objects.pres.shape[1])
    covered = full.cumsum(1) - full.long() > 0  # by objects in front
    return scene.with_masks((full & ~covered,), (full,))
