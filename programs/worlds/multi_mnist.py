"""Multi-MNIST: handwritten digits on black (AIR, NeurIPS 2016; Discrete-AIR, section 3.2).

The rules are those of the generator in the package `observations`, which Discrete-AIR used, and of
Pyro's copy of it. Pixels are integers from 0 to 255.

    number ~ Uniform{min, …, max}, 0 to 2 in the papers; digit by digit:
    image  ~ Uniform{digits of the split}, 28 x 28
    scale  ~ N(1.3, 0.1)        side = ⌊28 / scale⌋ pixels, resized bilinearly (anti-aliased)
    offset ~ Uniform{0, …, size - side - 1}² of the image's left upper corner
    image  = the sum of all digits; all but their number again, if it exceeds 255 anywhere

Scenes whose strokes meet are drawn again, a third of those with two digits. So digits with much ink are
rarer in scenes of several.

# differs: without MNIST, the digits are the embedded ones (see `programs/worlds/made_of/digits.py`). The
last 5,000 of MNIST's training digits are kept for validation.

Digits keep their pixels whatever the image's size, as in `observations`. They are in the order
drawn, from slot 0. A digit's mask covers the pixels where its own ink is a tenth of white or more (a pixel
may be in two masks, as digits are added), and its pose is the tight upright box around the mask, along the
edges of pixels. No digit is in front: `depth` is 1.

Shape legend: B images, N = max_objects slots, S pixels per side, M scenes drawn at once.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from programs.blocks import render
from programs.blocks.names import unknown
from programs.scene import Nodes, Scene
from programs.worlds import pack, unpack
from programs.worlds.made_of.digits import SIDE, SPLITS, announce, digits, resizing, resolve

VERSION = "1"
"""Part of the cache key: raise it with every change of the drawn scenes."""
MOST = 4
"""Largest number of digits per scene: with 4, 6 % of draws pass at 50 pixels, 0.2 % at 40, and fewer with
more."""
SCALE = 1.3, 0.1
"""Mean and standard deviation of a digit's scale."""
WHITE = 255
INK = 26
"""Least brightness of a digit's mask, a tenth of white."""


@dataclass(frozen=True)
class Config:
    """Options of the world; the defaults are the papers'."""

    size: int = 50  # pixels per side
    min_objects: int = 0
    max_objects: int = 2
    digits: str = "auto"  # mnist or embedded; auto becomes one of them here (made_of/digits.py)
    split: str = "train"  # split of the digits; a data set writes its own split here

    def __post_init__(self) -> None:
        if self.size < 40:
            raise ValueError(f"size={self.size}: expected at least 40 pixels per side")
        if not 0 <= self.min_objects <= self.max_objects or not 1 <= self.max_objects <= MOST:
            raise ValueError(
                f"min_objects={self.min_objects}, max_objects={self.max_objects}: "
                f"expected 0 <= min_objects <= max_objects, which is 1 to {MOST}"
            )
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
    """Draw scenes without masks, and their label map (B, S, S) uint8, bit k of slot k's pixels."""
    slots = config.max_objects
    number = torch.randint(config.min_objects, slots + 1, (batch, 1), generator=generator)
    pres = torch.arange(slots) < number
    source = digits(config.digits, config.split)
    which = torch.zeros(batch, slots, dtype=torch.long)
    ink = torch.zeros(batch, slots, config.size, config.size)
    todo = torch.arange(batch)
    while len(todo):
        which[todo] = torch.randint(len(source.images), (len(todo), slots), generator=generator)
        placed = _place(source.images[which[todo]].float(), config.size, generator)
        ink[todo] = placed * pres[todo, :, None, None]
        todo = todo[ink[todo].sum(1).flatten(1).amax(1) > WHITE]

    image, masks = ink.sum(1, keepdim=True) / WHITE, ink >= INK
    depth, root = torch.ones(batch, slots), torch.zeros_like(which)
    category = source.labels[which].where(pres, -1)
    objects = Nodes(pres.float(), render.box(masks.float()), depth, root, category)
    return Scene(image, (objects,), torch.zeros_like(image)), pack(masks)


def with_masks(scene: Scene, labels: Tensor) -> Scene:
    """Add the masks (bool) that a label map describes."""
    return scene.with_masks((unpack(labels, scene.objects.pres.shape[1]),))


def _place(images: Tensor, size: int, generator: torch.Generator) -> Tensor:
    """Resize digits (M, N, 28, 28) and put each at a random place on its own canvas (M, N, S, S)."""
    mean, deviation = SCALE
    scale = mean + deviation * torch.randn(images.shape[:2], generator=generator)
    side = (SIDE / scale).long().clamp(max=size - 1)
    u = torch.rand((2, *side.shape), generator=generator)
    rows, columns = (resizing(side, (v * (size - side)).long(), size) for v in u)
    return (rows @ images @ columns.mT).round()
