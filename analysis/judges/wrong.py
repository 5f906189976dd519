"""Objects of no type, made of true objects without parts, such as digits; a judge of objects must refuse them.

    halves     one side of a line through the middle shows another object
    both       two objects, one over the other
    ghost      the mean of two objects
    shuffled   the halves of an object exchanged, across, along, or both
    warped     pixels of an object moved by a smooth random field

Two objects fill the same square and are of different types. What hardly differs from one of them is left out,
and so are halves whose strokes meet: they are often a digit.

The mask of an object is where it is bright, for true objects and for those of a program alike: a program that
adds up its objects has no other mask.

Shape legend: M objects, C colours, s pixels per side of a cutout.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

INK = 0.1
"""Least brightness of an object's mask; white is 1."""
DIFFERS = 0.3
"""Least difference from either object, as a share of the fainter one's brightness."""
MEETS = 0.3
"""Largest share of the brightness along the line between two halves that both have."""
TRIES = {"halves": 6}
"""Partners with which each object is tried, where it is not one: most halves are left out."""
WARP = 0.35
"""Standard deviation of the field that warps an object, in half sides of the cutout."""


def inked(colours: Tensor) -> Tensor:
    """Add the mask to colours on black: (M, C, s, s) -> (M, C + 1, s, s)."""
    return torch.cat([colours, (colours.amax(1, keepdim=True) >= INK).to(colours)], 1)


def every_kind(x: Tensor, types: Tensor, generator: torch.Generator) -> dict[str, Tensor]:
    """Kind -> objects (N, C, s, s) of no type.

    Args:
        x: (M, C, s, s) colours of true objects on black, each filling the same square.
        types: (M,)
    """
    return {
        kind: torch.cat([wrong(x, types, kind, generator) for _ in range(TRIES.get(kind, 1))])
        for kind in KINDS
    }


def wrong(x: Tensor, types: Tensor, kind: str, generator: torch.Generator) -> Tensor:
    """Objects (N, C, s, s) of no type, broken in one way; at most one per true object."""
    other = torch.randperm(len(x), generator=generator)
    drawn, sure = KINDS[kind](x, x[other], generator)
    sure &= torch.minimum(difference(drawn, x), difference(drawn, x[other])) > DIFFERS
    return drawn[sure & ((types != types[other]) | (kind not in OF_TWO))]


def difference(one: Tensor, other: Tensor) -> Tensor:
    """(M,) sum of absolute differences, as a share of the fainter one's brightness."""
    least = torch.minimum(one.sum((1, 2, 3)), other.sum((1, 2, 3)))
    return (one - other).abs().sum((1, 2, 3)) / least.clamp(min=1e-6)


Broken = tuple[Tensor, Tensor]
"""Objects (M, C, s, s), and whether (M,) they can be of no type."""


def halves(one: Tensor, other: Tensor, generator: torch.Generator) -> Broken:
    """One side of a line through the middle, at a random angle, shows the other object.

    Not where the strokes meet along the line, within two pixels of it.
    """
    axis = (2 * torch.arange(one.shape[-1]) + 1) / one.shape[-1] - 1
    angle = 2 * torch.pi * torch.rand(len(one), 1, 1, 1, generator=generator)
    side = axis * angle.cos() + axis[:, None] * angle.sin()
    line = side.abs() < 4 / one.shape[-1]
    shared, all_of_it = (
        (line * pick(one, other)).sum((1, 2, 3)) for pick in (torch.minimum, torch.maximum)
    )
    return torch.where(side > 0, other, one), shared <= MEETS * all_of_it


def both(one: Tensor, other: Tensor, generator: torch.Generator) -> Broken:
    """The brighter of both objects, pixel by pixel."""
    return torch.maximum(one, other), every(one)


def ghost(one: Tensor, other: Tensor, generator: torch.Generator) -> Broken:
    """The mean of both objects."""
    return (one + other) / 2, every(one)


def shuffled(one: Tensor, other: Tensor, generator: torch.Generator) -> Broken:
    """Halves of the first object exchanged: left and right, upper and lower, or both."""
    half = one.shape[-1] // 2
    ways = torch.stack([one.roll(half, d) for d in ((3,), (2,))] + [one.roll((half, half), (2, 3))])
    chosen = torch.randint(len(ways), (len(one),), generator=generator)
    return ways[chosen, torch.arange(len(one))], every(one)


def warped(one: Tensor, other: Tensor, generator: torch.Generator) -> Broken:
    """The first object, its pixels moved by a field that is independent at a sixth of the side."""
    coarse = WARP * torch.randn(len(one), 2, 6, 6, generator=generator)
    field = F.interpolate(coarse, one.shape[-2:], mode="bicubic", align_corners=False)
    still = torch.eye(2, 3).expand(len(one), 2, 3)
    grid = F.affine_grid(still, list(one.shape), align_corners=False) + field.permute(0, 2, 3, 1)
    return F.grid_sample(one, grid, align_corners=False), every(one)


def every(x: Tensor) -> Tensor:
    """(M,) true."""
    return torch.ones(len(x), dtype=torch.bool)


KINDS: dict[str, Callable[[Tensor, Tensor, torch.Generator], Broken]] = {
    "halves": halves,
    "both": both,
    "ghost": ghost,
    "shuffled": shuffled,
    "warped": warped,
}
"""Every way to make objects of no type."""
OF_TWO = ("halves", "both", "ghost")
"""Those ways that take two objects."""


def jittered(x: Tensor, generator: torch.Generator) -> Tensor:
    """(M, C, s, s), each turned by some degrees, enlarged or shrunk, and shifted by some hundredths."""
    size, angle = (0.08 * torch.randn(2, len(x), generator=generator)).unbind()
    cos, sin, size = angle.cos(), angle.sin(), 1 + size
    shift = 0.05 * torch.randn(len(x), 2, 1, generator=generator)
    turn = torch.stack([size * cos, -size * sin, size * sin, size * cos], -1).unflatten(-1, (2, 2))
    grid = F.affine_grid(torch.cat([turn, shift], -1), list(x.shape), align_corners=False)
    return F.grid_sample(x, grid, align_corners=False)
