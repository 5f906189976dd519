"""MNIST-4-10: scenes of four digits in order on a rectangle, or of all ten by quadrants (GNM, supplement 2.1).

Lengths are of an image with 128 pixels per side; at other sizes everything is scaled, digits too. A digit's
centre is that of its tight upright box.

    layout  ~ Uniform{4, 10}
    4:  n   ~ Uniform{0, …, 6}            classes n, n + 1, n + 2, n + 3, clockwise from the left upper corner
        w, h ~ Uniform(10, 54)            centres (64 ± w, 64 ± h)
    10: upper left and lower right        {0, 1} and {8, 9}, in uniformly random order
        upper right and lower left        {2, 3, 4} and {5, 6, 7}, likewise
        centres ~ Uniform(10, 54)² of the quadrant; all again if two are nearer than 22 on both axes
    image of each digit ~ Uniform{digits of its class and of the split}

A digit, which fills 20 × 20 at most, lies wholly in its quadrant.

# differs: the paper's generators were never published. The rules were read off its pictures; centres that
begin 10 from the quadrant's edges fit the measurements there (half widths of 9 to 56, deciles 15, 18, 22,
…). The least distance between the centres of ten digits has the 5 % quantile 22.4 and the median 26 there;
ours has 22.4 and 24.3. We assume that both layouts are equally frequent. Without MNIST, the digits are the
embedded ones (see `programs/worlds/made_of/digits.py`); the last 5,000 of MNIST's training digits are kept
for validation.

Slots: four digits clockwise from the left upper one, ten by their class. A digit's mask covers the pixels
    where its ink is a tenth of white or more, and its pose is the tight upright box around the mask, along
    the edges of pixels. No digit is in front: `depth` is 1. `obeys` is the rule. With ``lawful=False`` one
    digit of every scene is replaced by one of another class, which breaks the rule: such scenes measure the
    errors of a judge of structure.

Shape legend: B images, N slots, M scenes of a layout, S pixels per side of an image, s of a digit.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from programs.blocks import render
from programs.blocks.names import unknown
from programs.scene import Nodes, Scene
from programs.worlds import with_visible_masks as with_masks
from programs.worlds.made_of.digits import SIDE, SPLITS, Digits, announce, digits, resizing, resolve

__all__ = ["VERSION", "Config", "draw", "obeys", "prepare", "with_masks", "world"]

VERSION = "1"
"""Part of the cache key: raise it with every change of the drawn scenes."""
VARIANTS = {"mnist4": {"layouts": (4,)}, "mnist10": {"layouts": (10,)}}
"""Fields of each variant: four digits in order, or all ten, two or three per quadrant (GNM, section 5)."""
LAYOUTS = (4, 10)
GRID = 128
"""Pixels per side of the image in which lengths are given."""
NEAR = 10.0
"""Least distance of a centre from the lines between the quadrants."""
FAR = 54.0
"""Largest distance of a centre from the lines between the quadrants."""
APART = 22.0
"""Least distance of two centres on at least one axis, in scenes of ten digits."""
GROUPS = ((0, 1), (2, 3, 4), (5, 6, 7), (8, 9))
"""Classes that share a quadrant."""
PLACES = torch.tensor([[0, 1, 3, 2], [2, 1, 3, 0], [0, 3, 1, 2], [2, 3, 1, 0]])
"""(4, groups) the four possible assignments of quadrants to groups, clockwise from the left upper one."""
QUADRANTS = torch.tensor([[-1.0, -1.0], [1.0, -1.0], [1.0, 1.0], [-1.0, 1.0]])
"""Directions of the quadrants, clockwise from the left upper one."""
TOLERANCE = 4 * 2 / GRID
"""Largest distance of a digit from the rectangle's corner, per axis, in the image frame: 4 pixels."""
WHITE = 255
INK = 26
"""Least brightness of a digit's mask, a tenth of white."""


@dataclass(frozen=True)
class Config:
    """Options of the world; the defaults are the paper's."""

    size: int = GRID  # pixels per side
    layouts: tuple[int, ...] = LAYOUTS
    lawful: bool = True  # False: one digit of a scene breaks the rule
    digits: str = "auto"  # mnist or embedded; auto becomes one of them here (made_of/digits.py)
    split: str = "train"  # split of the digits; a data set writes its own split here

    def __post_init__(self) -> None:
        if self.size < 48:
            raise ValueError(f"size={self.size}: expected at least 48 pixels per side")
        if not self.layouts or {*self.layouts} - {*LAYOUTS}:
            raise ValueError(f"layouts={self.layouts}: expected some of {LAYOUTS}")
        if self.split not in SPLITS:
            raise ValueError(unknown("split", self.split, SPLITS))
        object.__setattr__(self, "digits", resolve(self.digits))


def world(batch: int, generator: torch.Generator, config: Config | None = None) -> Scene:
    """Draw `batch` scenes with their truth, a Scene of one level; `category` is -1 where absent."""
    return with_masks(*draw(batch, generator, config or Config()))


def prepare(config: Config) -> None:
    """Announce the source of the digits, and check that its files are complete."""
    announce(config.digits)
    digits(config.digits, config.split)


def draw(batch: int, generator: torch.Generator, config: Config) -> tuple[Scene, Tensor]:
    """Draw scenes without masks, and their label map (B, S, S) uint8: 0, or 1 + the visible slot."""
    layout = torch.tensor(config.layouts)
    layout = layout[torch.randint(len(layout), (batch,), generator=generator)]
    slots = max(config.layouts)
    category, centre = torch.full((batch, slots), -1), torch.zeros(batch, slots, 2)
    for number in sorted({*config.layouts}):
        some = (layout == number).nonzero()[:, 0]
        scenes = {4: four, 10: ten}[number](len(some), generator)
        category[some, :number], centre[some, :number] = scenes
    pres = category >= 0
    if not config.lawful:
        category = _broken(category, layout, generator)
    ink = _images(digits(config.digits, config.split), category, generator) * pres[..., None, None]
    side = round(SIDE * config.size / GRID)
    if side != SIDE:
        lines = resizing(torch.tensor(side), torch.tensor(0), side)
        ink = (lines @ ink @ lines.T).round()
    image, labels, pose = _paste(ink, centre * (config.size / GRID), config.size)
    pose = torch.where(pres[..., None, None], pose, torch.eye(2, 3))
    objects = Nodes(
        pres.float(), pose, torch.ones(batch, slots), torch.zeros_like(category), category
    )
    return Scene(image / WHITE, (objects,), torch.zeros_like(image)), labels


def four(number: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Classes (M, 4) and centres (M, 4, 2) of four digits in order on a rectangle."""
    first = torch.randint(7, (number, 1), generator=generator)
    half = NEAR + (FAR - NEAR) * torch.rand(number, 1, 2, generator=generator)
    return first + torch.arange(4), GRID / 2 + half * QUADRANTS


def ten(number: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Classes (M, 10) and centres (M, 10, 2) of all digits, by quadrants."""
    group = torch.tensor([k for k, group in enumerate(GROUPS) for _ in group])
    place = PLACES[torch.randint(len(PLACES), (number,), generator=generator)][:, group]
    inner = torch.zeros(number, 10, 2)
    todo = torch.arange(number)
    while len(todo):
        inner[todo] = _spread(len(todo), generator)
        crowded = _crowded(GRID / 2 + inner[todo] * QUADRANTS[place[todo]])
        todo = todo[crowded]
    return torch.arange(10).expand(number, 10), GRID / 2 + inner * QUADRANTS[place]


def _spread(number: int, generator: torch.Generator) -> Tensor:
    """(M, 10, 2) distances of centres from the middle of the image, those of a group apart."""
    groups = []
    for group in GROUPS:
        inner, todo = torch.zeros(number, len(group), 2), torch.arange(number)
        while len(todo):
            u = torch.rand(len(todo), len(group), 2, generator=generator)
            inner[todo] = NEAR + (FAR - NEAR) * u
            todo = todo[_crowded(inner[todo])]
        groups.append(inner)
    return torch.cat(groups, 1)


def _crowded(centre: Tensor) -> Tensor:
    """(M,) whether two of the centres (M, N, 2) are nearer than `APART` on both axes."""
    i, j = torch.triu_indices(centre.shape[1], centre.shape[1], 1)
    return ((centre[:, i] - centre[:, j]).abs().amax(-1) < APART).any(1)


def _broken(category: Tensor, layout: Tensor, generator: torch.Generator) -> Tensor:
    """(B, N) the classes, with one class per scene replaced by another, uniformly."""
    u = torch.rand(len(layout), generator=generator)
    row, slot = torch.arange(len(layout)), (u * layout).long()
    category = category.clone()
    step = torch.randint(1, 10, (len(layout),), generator=generator)
    category[row, slot] = (category[row, slot] + step) % 10
    return category


def _images(source: Digits, category: Tensor, generator: torch.Generator) -> Tensor:
    """(B, N, 28, 28) a digit of each class; any one where the class is -1."""
    order, number = source.labels.argsort(stable=True), source.labels.bincount(minlength=10)
    first, kind = number.cumsum(0) - number, category.clamp(min=0)
    u = torch.rand(category.shape, generator=generator, dtype=torch.float64)
    return source.images[order[first[kind] + (u * number[kind]).long()]].float()


def _paste(ink: Tensor, centre: Tensor, size: int) -> tuple[Tensor, Tensor, Tensor]:
    """Put digits (B, N, s, s) with the middles of their boxes at centres (B, N, 2), in pixels from the corner.

    Returns:
        The image (B, 1, S, S), the labels (B, S, S) uint8, and poses (B, N, 2, 3).
    """
    batch, slots, side, _ = ink.shape
    box = render.box((ink >= INK).float())
    middle = (box[..., 2] + 1) * side / 2
    half = box[..., :2].diagonal(dim1=-2, dim2=-1) * side / 2
    centre = torch.maximum(torch.minimum(centre, size - half), half)  # resized ones are blurred
    corner = (centre - middle).round()
    wide = size + 2 * side  # a digit's empty border may be outside
    canvas = torch.zeros(batch, wide, wide)
    labels = torch.zeros(batch, wide, wide, dtype=torch.uint8)
    row, place = torch.arange(batch)[:, None, None], torch.arange(side)
    for slot in range(slots):
        x, y = (corner[:, slot].long() + side).unbind(-1)
        at = row, (y[:, None] + place)[:, :, None], (x[:, None] + place)[:, None]
        before, new = canvas[at], ink[:, slot]
        canvas[at] = torch.maximum(before, new)
        labels[at] = torch.where((new >= INK) & (new > before), slot + 1, labels[at])
    inside = slice(side, side + size)
    pose = torch.cat(
        [box[..., :2] * (side / size), ((corner + middle) * (2 / size) - 1).unsqueeze(-1)], -1
    )
    return canvas[:, None, inside, inside], labels[:, inside, inside], pose


def obeys(nodes: Nodes, config: Config = Config()) -> Tensor:
    """(B,) whether the present objects keep the rules of one of the config's layouts."""
    rules = {4: obeys_four, 10: obeys_ten}
    return torch.stack([rules[layout](nodes) for layout in config.layouts]).any(0)


def obeys_four(nodes: Nodes) -> Tensor:
    """(B,) whether there are four digits in order, one per quadrant, on a rectangle around the middle.

    Places may be wrong by `TOLERANCE`.
    """
    here, centre = _quadrant(nodes), nodes.centre
    single = (here.sum(1) == 1).all(1)
    kind = torch.einsum("bnq,bn->bq", here, nodes.category.double())
    ordered = (kind - kind[:, :1] == torch.arange(4)).all(1) & (kind >= 0).all(1)
    reach = torch.einsum("bnq,bnd->bqd", here, centre.abs().double())
    off = (reach - reach.mean(1, keepdim=True)).abs().amax((1, 2))
    return single & ordered & (off <= TOLERANCE)


def obeys_ten(nodes: Nodes) -> Tensor:
    """(B,) whether there is every digit once, in its group's quadrant."""
    here = _quadrant(nodes)
    kind = F.one_hot(nodes.category.where(nodes.present, -1) + 1, 11)[..., 1:].double()
    once = (kind.sum(1) == 1).all(1)
    member = torch.tensor([[float(k in group) for group in GROUPS] for k in range(10)])
    table = torch.einsum("bnq,bnk,kg->bqg", here, kind, member.double())
    lawful = F.one_hot(PLACES, 4).mT * torch.tensor([len(group) for group in GROUPS])
    return once & (table[:, None] == lawful).all(-1).all(-1).any(1)


def _quadrant(nodes: Nodes) -> Tensor:
    """(B, N, 4) float64 one-hot, clockwise from the left upper one; zeros where absent."""
    right, low = (nodes.centre > 0).unbind(-1)
    index = torch.where(low, 3 - right.long(), right.long())
    return F.one_hot(index, 4).double() * nodes.present[..., None]
