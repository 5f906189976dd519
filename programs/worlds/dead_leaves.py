"""Dead leaves: flat objects that lie one on the other (ECON, sections 2 and C.1).

Colours are integers from 0 to 255.

    background  ~ Uniform{dark}³, {0, …, 127} in the paper, flat
    number      ~ Uniform{min, …, max}; for each, back to front in a uniformly random order:
    class       ~ Uniform{classes}, each at most once, or any number of times with `repeats`
    side        of density ∝ side^-power between `smallest` and `scale`; one size in the paper
    aspect      log-uniform in [1 / aspect, aspect] at the same area; 1 in the paper
    angle       0, or with `turn` Uniform[-π, π]
    centre      ~ Uniform(the places where the object's frame is wholly inside the image), or with
                inside=False Uniform(the image), so that its border cuts objects
    colour      its class's, or Uniform{bright}³, {128, …, 255} in the paper
    x           <- m_t ⊙ colour + (1 - m_t) ⊙ x, the full mask m_t binary
    r_t         = m_t ⊙ Π_t' in front (1 - m_t'), its visible region                               (1, 2)

An object's frame is the upright square of its size, whatever its class: a circle touches its four sides, a
square fills it, a triangle stands on it with equal sides, its apex and base as far from the middle. A class
is a shape of `made_of.leaves`, or a function of your own, ``world.classes="('circle', 'FILE.py:heart')"``.

With `cover` leaves of random classes fall until no background is seen: dead leaves in the sense of Matheron
(1968), with power 3 scale-invariant as natural images (Lee, Mumford, Huang, 2001). They are drawn from the
front (Kendall, Thönnes, 1999), centred in the image or less than a frame outside. Leaves that do not show take
no slot, and `max_objects` is the largest number of those that do.

`texture` paints leaves with smooth noise of `strength` around their colour, or with parts of pictures.

# differs: the paper gives neither the image's nor the objects' size. Its best models have 2 latent
dimensions with a colour per class, and 5 with random colours, so objects here have one size and no
rotation.

Slots are in order of depth, slot 0 in front, and `depth` is the slot's number. The label map holds the full
masks of up to 8 slots. With more it holds the number of the visible slot, from which, with the poses, the full
masks are drawn again.

Shape legend: B images, N = max_objects slots, S pixels per side.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from programs.blocks import render
from programs.scene import Nodes, Scene
from programs.worlds import pack, unpack
from programs.worlds.made_of import leaves
from programs.worlds.made_of.leaves import SHAPES

__all__ = ["SHAPES", "VARIANTS", "VERSION", "Config", "draw", "sources", "with_masks", "world"]

VERSION = "1"
"""Part of the cache key: raise it with every change of the drawn scenes."""
VARIANTS = {"sprites_unique": {}, "sprites_random": {"colour": "random"}}
"""Fields of each variant: circles, squares, triangles, coloured by class or at random (ECON, section C.1)."""
PACKED = 8
"""Largest number of slots whose full masks a label map of 8 bits holds."""
MOST = 1000
"""Largest number of slots."""
COLOURS = ("class", "random")


@dataclass(frozen=True)
class Config:
    """Options of the world; the defaults are the paper's."""

    size: int = 64  # pixels per side
    classes: tuple[str, ...] = ("circle", "square", "triangle")
    colour: str = "class"  # or "random"
    min_objects: int = 3
    max_objects: int = 3
    repeats: bool = False  # classes are drawn independently of each other
    scale: float = 0.36  # side of the largest object's frame, in sides of the image
    smallest: float = 0.0  # side of the smallest one's; 0: all have `scale`
    power: float = 3.0  # exponent of the law of sides between the two
    aspect: float = 1.0  # largest ratio of a frame's sides
    turn: bool = False  # objects are turned by random angles
    inside: bool = True  # frames lie in the image; else its border may cut objects
    cover: bool = False  # leaves of any classes until no background is seen
    dark: tuple[int, int] = (0, 128)  # range of a background's channels, without its end
    bright: tuple[int, int] = (
        128,
        256,
    )  # range of a randomly coloured object's channels, without its end
    texture: str = "flat"  # or "noise", or the path of a folder of pictures
    strength: float = 40.0  # of noise, in steps of colours

    def __post_init__(self) -> None:
        if self.size < 16:
            raise ValueError(f"size={self.size}: expected at least 16 pixels per side")
        for name in self.classes:
            leaves.shape_of(name)
        if not 1 <= len({*self.classes}) == len(self.classes):
            raise ValueError(f"classes={self.classes}: expected at least one, none of them twice")
        if self.colour not in COLOURS:
            raise ValueError(f"colour={self.colour!r}: expected {' or '.join(COLOURS)}")
        if not 0 <= self.min_objects <= self.max_objects or not 1 <= self.max_objects <= MOST:
            raise ValueError(
                f"min_objects={self.min_objects}, max_objects={self.max_objects}: "
                f"expected 0 <= min_objects <= max_objects, which is 1 to {MOST}"
            )
        if self.max_objects > len(self.classes) and not (self.repeats or self.cover):
            raise ValueError(
                f"max_objects={self.max_objects} of {len(self.classes)} classes: set repeats=True, or give "
                "more classes"
            )
        self._check_ranges()

    def _check_ranges(self) -> None:
        """Raises a ValueError for an impossible size, colour or texture."""
        if not 0 < self.scale < 1:
            raise ValueError(f"scale={self.scale}: expected a share of the side, above 0, below 1")
        if not 0 <= self.smallest <= self.scale:
            raise ValueError(f"smallest={self.smallest}: expected 0 to scale={self.scale}")
        if not 1 <= self.aspect < math.inf:
            raise ValueError(f"aspect={self.aspect}: expected a ratio of 1 or more")
        widest = self.scale * self.aspect**0.5 * (2**0.5 if self.turn else 1)
        if self.inside and not self.cover and widest >= 1:
            raise ValueError(
                f"scale={self.scale}, aspect={self.aspect}, turn={self.turn}: frames of up to {widest:.2f} "
                "sides do not fit into the image; set inside=False"
            )
        for name in ("dark", "bright"):
            if not (len(ends := getattr(self, name)) == 2 and 0 <= ends[0] < ends[1] <= 256):
                raise ValueError(f"{name}={ends}: expected (low, high), 0 <= low < high <= 256")
        if self.texture not in ("flat", "noise"):
            leaves.pictures_in(self.texture)


def sources(config: Config) -> list[Path]:
    """Files that decide how scenes look: those of shapes of one's own, and pictures."""
    return leaves.sources(config.classes, config.texture)


def world(batch: int, generator: torch.Generator, config: Config = Config()) -> Scene:
    """Draw `batch` scenes with their truth, a Scene of one level; `category` is -1 where absent."""
    return with_masks(*draw(batch, generator, config), config)


def draw(batch: int, generator: torch.Generator, config: Config) -> tuple[Scene, Tensor]:
    """Draw scenes without masks, and their label map (B, S, S).

    The map is uint8, bit k of slot k's full mask, or with more than `PACKED` slots int16, 1 + the visible slot.
    """
    if config.cover:
        return covered(batch, generator, config)
    slots, kinds = config.max_objects, len(config.classes)
    number = torch.randint(config.min_objects, slots + 1, (batch, 1), generator=generator)
    pres = torch.arange(slots) < number
    if config.repeats:
        kind = torch.randint(kinds, (batch, slots), generator=generator)
    else:
        kind = torch.rand(batch, kinds, generator=generator).argsort(1)[:, :slots]
    place = 2 * torch.rand(batch, slots, 2, generator=generator) - 1
    background = torch.randint(*config.dark, (batch, 3), generator=generator)
    colour = torch.randint(*config.bright, (batch, slots, 3), generator=generator)
    if config.colour == "class":
        colour = leaves.palette(kinds)[kind]
    pose = poses(place, generator, config)

    ground = background[..., None, None].expand(-1, -1, config.size, config.size)
    image, labels = paint(ground, kind, pres, pose, colour, generator, config)
    depth = torch.arange(slots).float().expand(batch, -1)
    objects = Nodes(pres.float(), pose, depth, torch.zeros_like(kind), kind.where(pres, -1))
    return Scene(image / 255, (objects,), ground / 255), labels


def poses(place: Tensor, generator: torch.Generator, config: Config) -> Tensor:
    """(B, N, 2, 3) of objects at `place` (B, N, 2), in [-1, 1]² of where they may be."""
    c, lead = config, place.shape[:2]
    uniform = torch.zeros(lead) if not c.smallest else torch.rand(lead, generator=generator)
    side = leaves.power_law(uniform.double(), c.smallest or c.scale, c.scale, c.power)
    ratio = torch.ones(lead).double()
    if c.aspect > 1:
        ratio = c.aspect ** (2 * torch.rand(lead, generator=generator).double() - 1)
    angle = torch.zeros(lead)
    if c.turn:
        angle = math.pi * (2 * torch.rand(lead, generator=generator) - 1)
    half = side[..., None] * torch.stack([ratio.sqrt(), ratio.rsqrt()], -1)
    cos, sin = angle.double().cos().abs(), angle.double().sin().abs()
    reach = (
        torch.stack([cos, sin], -1) * half[..., :1] + torch.stack([sin, cos], -1) * half[..., 1:]
    )
    room = 1 - reach
    if c.cover:
        room = torch.full_like(reach, 1 + c.scale * c.aspect**0.5 * (2**0.5 if c.turn else 1))
    elif not c.inside:
        room = torch.ones_like(reach)
    return render.pose(room.float() * place, half.float(), angle)


def paint(
    ground: Tensor,
    kind: Tensor,
    pres: Tensor,
    pose: Tensor,
    colour: Tensor,
    generator: torch.Generator,
    config: Config,
) -> tuple[Tensor, Tensor]:
    """Paint the leaves, the front first: the image (B, 3, S, S) in 0 to 255, and the label map."""
    slots, image, free = kind.shape[1], ground, torch.ones_like(ground[:, 0], dtype=torch.bool)
    packed = slots <= PACKED
    labels = torch.zeros(free.shape, dtype=torch.uint8 if packed else torch.int16)
    for k in range(slots):
        full = full_mask(kind[:, k], pose[:, k], config) & pres[:, k, None, None]
        seen = full & free
        image = torch.where(seen[:, None], textured(colour[:, k], generator, config), image)
        if packed:
            labels |= pack(full[:, None]) << k
        else:
            labels[seen] = k + 1
        free = free & ~full
    return image, labels


def covered(batch: int, generator: torch.Generator, config: Config) -> tuple[Scene, Tensor]:
    """`draw` with leaves until no background is seen.

    Raises:
        ValueError: more leaves show than there are slots.
    """
    size, slots, kinds = config.size, config.max_objects, len(config.classes)
    image, labels = (
        torch.zeros(batch, 3, size, size),
        torch.zeros(batch, size, size, dtype=torch.int16),
    )
    kind = torch.full((batch, slots), -1)
    pose = render.pose(torch.zeros(batch, slots, 2), torch.ones(1), torch.zeros(batch, slots))
    number = torch.zeros(batch, dtype=torch.long)
    while (open_ := (labels == 0).flatten(1).any(1).nonzero()[:, 0]).numel():
        own = torch.randint(kinds, (len(open_),), generator=generator)
        place = 2 * torch.rand(len(open_), 1, 2, generator=generator) - 1
        colour = torch.randint(*config.bright, (len(open_), 3), generator=generator)
        if config.colour == "class":
            colour = leaves.palette(kinds)[own]
        frame = poses(place, generator, config)[:, 0]
        seen = full_mask(own, frame, config) & (labels[open_] == 0)
        look = textured(colour, generator, config).float()
        image[open_] = torch.where(seen[:, None], look, image[open_])
        shows = seen.flatten(1).any(1)
        rows, slot = open_[shows], number[open_[shows]]
        if len(slot) and slot.max() >= slots:
            raise ValueError(
                f"max_objects={slots}: more leaves show; give more slots, or larger leaves"
            )
        labels[rows] += (seen[shows] * (slot + 1)[:, None, None]).to(labels.dtype)
        kind[rows, slot], pose[rows, slot] = own[shows], frame[shows]
        number[rows] += 1
    pres = torch.arange(slots) < number[:, None]
    depth = torch.arange(slots).float().expand(batch, -1)
    objects = Nodes(pres.float(), pose, depth, torch.zeros_like(kind), kind)
    return Scene(image / 255, (objects,), torch.zeros_like(image)), labels


def textured(colour: Tensor, generator: torch.Generator, config: Config) -> Tensor:
    """(B, 3, S, S), or (B, 3, 1, 1) if flat, in 0 to 255: how leaves of these colours (B, 3) look."""
    flat = colour[..., None, None]
    if config.texture == "flat":
        return flat
    if config.texture == "noise":
        grain = config.strength * leaves.noise(len(colour), config.size, generator)
        return (flat + grain).round().clamp(0, 255).long()
    return leaves.crops(config.texture, len(colour), config.size, generator).long()


def full_mask(kind: Tensor, pose: Tensor, config: Config) -> Tensor:
    """(B, S, S) bool of objects (B): every pixel whose middle is in the object, visible or not."""
    axis = (2 * torch.arange(config.size) + 1) / config.size - 1
    x, y = axis - pose[:, 0, 2, None, None], axis[:, None] - pose[:, 1, 2, None, None]
    wide, high = (torch.hypot(*pose[:, :, k].T)[:, None, None] for k in (0, 1))
    cos, sin = pose[:, 0, 0, None, None] / wide, pose[:, 1, 0, None, None] / wide
    u, v = (cos * x + sin * y) / wide, (cos * y - sin * x) / high
    mask = torch.zeros_like(u, dtype=torch.bool)
    for k in kind.unique().tolist():
        rows = kind == k
        mask[rows] = leaves.shape_of(config.classes[k])(u[rows], v[rows])
    return mask


def with_masks(scene: Scene, labels: Tensor, config: Config | None = None) -> Scene:
    """Add the full masks (bool) that a label map describes, and their visible parts.

    Args:
        config: needed for label maps of the visible slot alone.
    """
    nodes = scene.objects
    slots = nodes.pres.shape[1]
    if labels.dtype == torch.uint8:
        full = unpack(labels, slots)
        covered = full.cumsum(1) - full.long() > 0  # by objects in front
        return scene.with_masks((full & ~covered,), (full,))
    seen = labels[:, None] == torch.arange(1, slots + 1, dtype=labels.dtype)[:, None, None]
    rows = [
        full_mask(nodes.category[:, k].clamp(min=0), nodes.pose[:, k], config) for k in range(slots)
    ]
    full = torch.stack(rows, 1) & nodes.present[..., None, None]
    return scene.with_masks((seen,), (full,))
