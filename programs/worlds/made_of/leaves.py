"""What dead leaves are made of: shapes, colours of classes, laws of sizes, textures.

Shape legend: B images, P pictures, S pixels per side.
"""

from __future__ import annotations

import colorsys
import importlib
import importlib.util
import math
from collections.abc import Callable, Iterable
from functools import cache
from pathlib import Path
from types import ModuleType

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from programs.blocks.names import meant

Shape = Callable[[Tensor, Tensor], Tensor]
HEIGHT = math.sqrt(3) / 2
"""Half a triangle's height, in half-sides of its base."""
SHAPES: dict[str, Shape] = {
    "circle": lambda u, v: u.square() + v.square() <= 1,
    "square": lambda u, v: torch.maximum(u.abs(), v.abs()) <= 1,
    "triangle": lambda u, v: (v.abs() <= HEIGHT) & (u.abs() <= (v + HEIGHT) / (2 * HEIGHT)),
    "diamond": lambda u, v: u.abs() + v.abs() <= 1,
    "cross": lambda u, v: (
        (torch.minimum(u.abs(), v.abs()) <= 1 / 3) & (torch.maximum(u.abs(), v.abs()) <= 1)
    ),
    "ring": lambda u, v: ((u.square() + v.square()).sqrt() - 0.75).abs() <= 0.25,
}
"""For each class, whether a point of the object's frame [-1, 1]², v down, is in it."""
PALETTE = torch.tensor(
    [[255, 0, 0], [0, 255, 0], [0, 0, 255], [255, 255, 0], [255, 0, 255], [0, 255, 255]]
)
"""(6, 3) colours of the first classes: red, green, blue, yellow, magenta, cyan."""
GOLDEN = (math.sqrt(5) - 1) / 2
"""Turn of the hue from one further class to the next."""
OCTAVES = (4, 8, 16)
"""Cells per side of the grids of which noise is the sum."""
PICTURES = (".png", ".jpg", ".jpeg", ".webp", ".bmp")


def shape_of(name: str) -> Shape:
    """The shape of a class: one of `SHAPES`, or a function ``module:function`` or ``FILE.py:function``.

    A function takes coordinates u and v, tensors of one shape, and returns whether a point is inside.

    Raises:
        ValueError: there is none.
    """
    if name in SHAPES:
        return SHAPES[name]
    where, colon, attribute = name.rpartition(":")
    if not colon:
        raise ValueError(
            f"classes={name!r} is unknown{meant(name, SHAPES)} known are {', '.join(SHAPES)}, and functions of "
            "your own as MODULE:FUNCTION or FILE.py:FUNCTION"
        )
    try:
        return getattr(_module(where), attribute)
    except (ImportError, AttributeError, OSError, SyntaxError) as error:
        raise ValueError(f"classes={name!r}: {type(error).__name__}: {error}") from error


@cache
def _module(where: str) -> ModuleType:
    """The module of that name, or in that file."""
    if not where.endswith(".py"):
        return importlib.import_module(where)
    path = Path(where).resolve()
    spec = importlib.util.spec_from_file_location(f"leaves_{path.stem}", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def sources(names: Iterable[str], texture: str) -> list[Path]:
    """The files that decide how these classes and textures look."""
    modules = [_module(n.rpartition(":")[0]) for n in names if n not in SHAPES]
    files = {Path(m.__file__).resolve() for m in modules}
    return [*sorted(files), *(pictures_in(texture) if texture not in ("flat", "noise") else [])]


def palette(classes: int) -> Tensor:
    """(classes, 3) a colour for each class: `PALETTE`, then others of lower brightness."""
    more = [
        colorsys.hsv_to_rgb(k * GOLDEN % 1, 1 - 0.4 * (k % 2), 0.85 - 0.15 * (k // 2 % 2))
        for k in range(max(0, classes - len(PALETTE)))
    ]
    return torch.cat([PALETTE, (255 * torch.tensor(more).view(-1, 3)).long()])[:classes]


def power_law(uniform: Tensor, low: float, high: float, power: float) -> Tensor:
    """Numbers of density ∝ s^-power between `low` and `high`, from uniform ones in [0, 1]."""
    if low == high:
        return torch.full_like(uniform, high)
    if power == 1:
        return low * (high / low) ** uniform
    a, b = low ** (1 - power), high ** (1 - power)
    return (a + uniform * (b - a)) ** (1 / (1 - power))


def noise(batch: int, size: int, generator: torch.Generator) -> Tensor:
    """(B, 1, S, S) smooth noise of mean 0, mostly in [-1, 1]; each octave of half the strength."""
    total = torch.zeros(batch, 1, size, size)
    for k, cells in enumerate(OCTAVES):
        grid = 2 * torch.rand(batch, 1, cells, cells, generator=generator) - 1
        total += F.interpolate(grid, size=size, mode="bilinear", align_corners=False) / 2**k
    return total


def pictures_in(folder: str) -> list[Path]:
    """The pictures in a folder, in the order of their names.

    Raises:
        ValueError: there are none.
    """
    found = sorted(p for p in Path(folder).glob("*") if p.suffix.lower() in PICTURES)
    if not found:
        raise ValueError(f"texture={folder!r}: expected flat, noise, or a folder with pictures")
    return found


@cache
def _pictures(folder: str, size: int) -> Tensor:
    """(P, 3, 2 S, 2 S) uint8 the middle squares of the pictures."""
    from PIL import Image, ImageOps

    read = [Image.open(path).convert("RGB") for path in pictures_in(folder)]
    squares = [np.asarray(ImageOps.fit(picture, (2 * size, 2 * size))) for picture in read]
    return torch.from_numpy(np.stack(squares)).movedim(-1, 1)


def crops(folder: str, batch: int, size: int, generator: torch.Generator) -> Tensor:
    """(B, 3, S, S) in 0 to 255: parts of random pictures of a folder."""
    pictures = _pictures(folder, size)
    which = torch.randint(len(pictures), (batch,), generator=generator)
    corner = torch.randint(size + 1, (batch, 2), generator=generator).tolist()
    some = [
        pictures[k, :, y : y + size, x : x + size] for k, (x, y) in zip(which, corner, strict=True)
    ]
    return torch.stack(some)
