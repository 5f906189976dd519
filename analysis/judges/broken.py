"""True scenes, broken in one of the ways in which programs fail; a judge must refuse them.

Objects are joined from halves of two, warped, made half transparent or smeared; scenes get holes and
speckles, or are blank. A broken scene that hardly differs from the true one is left out, since it may be valid.

Shape legend: B scenes, C colours, S pixels per side.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from programs.scene import Scene

DIFFERS = 0.25
"""Least difference of a broken scene from the true one, on the object, as a share of its contrast."""
KINDS = ("halves", "warped", "ghost", "smeared", "holes", "blank")


def broken(truth: Scene, kind: str, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Images (B, C, S, S) of scenes broken in one way, and whether (B,) they are certainly broken.

    Args:
        kind: one of `KINDS`.
    """
    x, mask = truth.image, an_object(truth, generator)
    other = torch.randperm(len(x), generator=generator)
    if kind == "blank":
        colour = x.flatten(2).median(2).values[..., None, None]
        drawn = colour + 0.2 * (torch.rand(len(x), 1, 1, 1, generator=generator) - 0.5)
        drawn = drawn.expand_as(x).clamp(0, 1)
    elif kind == "halves":
        drawn = halves(x, mask, other, generator)
    elif kind == "warped":
        drawn = warped(x, generator)
    elif kind == "ghost":
        drawn = (x + x[other]) / 2
    elif kind == "smeared":
        drawn = smeared(x)
    else:
        drawn = holes(x, generator)
    return drawn, differs(x, drawn, mask)


def an_object(truth: Scene, generator: torch.Generator) -> Tensor:
    """(B, S, S) mask of one random object per scene; zeros for scenes without objects."""
    nodes = truth.objects
    chance = torch.rand(nodes.pres.shape, generator=generator) * nodes.present
    chosen = chance.argmax(1)
    mask = nodes.mask[torch.arange(len(truth)), chosen].float()
    return mask * nodes.present.any(1)[:, None, None]


def differs(x: Tensor, drawn: Tensor, mask: Tensor) -> Tensor:
    """(B,) whether pixels of one object (B, S, S) differ by `DIFFERS` of its contrast to the rest."""
    area = mask.sum((1, 2)).clamp(min=1)
    change = ((x - drawn).abs().amax(1) * mask).sum((1, 2)) / area
    ground = x.flatten(2).median(2).values[..., None, None]
    contrast = ((x - ground).abs().amax(1) * mask).sum((1, 2)) / area
    return (mask.sum((1, 2)) > 0) & (change > DIFFERS * contrast)


def halves(x: Tensor, mask: Tensor, other: Tensor, generator: torch.Generator) -> Tensor:
    """Replace one side of an object by that of another scene's object, moved to the same place."""
    size = x.shape[-1]
    axis = torch.arange(size, dtype=x.dtype)
    place = torch.stack(
        [(mask.sum(d) * axis).sum(1) / mask.sum((1, 2)).clamp(min=1) for d in (1, 2)], 1
    )
    shift = (place - place[other]).round().long()
    moved = torch.stack(
        [
            torch.roll(x[o], (int(s[1]), int(s[0])), (1, 2))
            for o, s in zip(other, shift, strict=True)
        ]
    )
    angle = 2 * torch.pi * torch.rand(len(x), generator=generator)[:, None, None]
    dx, dy = axis[None, None, :] - place[:, :1, None], axis[None, :, None] - place[:, 1:, None]
    side = dx * angle.cos() + dy * angle.sin() > 0
    near = dx.square() + dy.square() < (0.2 * size) ** 2
    return torch.where((side & near)[:, None], moved, x)


def warped(x: Tensor, generator: torch.Generator) -> Tensor:
    """Move pixels by a smooth random field of about a sixteenth of the image."""
    batch, size = len(x), x.shape[-1]
    coarse = torch.randn(batch, 2, 8, 8, generator=generator) * 0.12
    field = F.interpolate(coarse, size=(size, size), mode="bicubic", align_corners=False)
    axis = (2 * torch.arange(size, dtype=x.dtype) + 1) / size - 1
    grid = torch.stack(torch.meshgrid(axis, axis, indexing="xy"), -1)
    return F.grid_sample(
        x, grid + field.permute(0, 2, 3, 1), align_corners=False, padding_mode="border"
    )


def smeared(x: Tensor) -> Tensor:
    """Average pixels over squares of a fifth of the image's side."""
    width = x.shape[-1] // 5 | 1
    return F.avg_pool2d(x, width, 1, width // 2, count_include_pad=False)


def holes(x: Tensor, generator: torch.Generator) -> Tensor:
    """Repaint a tenth to a third of the cells of 2 x 2 pixels in other colours, half of the time in black."""
    batch, colours, size, _ = x.shape
    side = -(-size // 2)
    share = 0.1 + 0.25 * torch.rand(batch, 1, 1, 1, generator=generator)
    chosen = torch.rand(batch, 1, side, side, generator=generator) < share
    colour = torch.rand(batch, colours, side, side, generator=generator)
    colour = colour * (torch.rand(batch, 1, 1, 1, generator=generator) < 0.5)
    large = [t.repeat_interleave(2, -1).repeat_interleave(2, -2) for t in (chosen, colour)]
    chosen, colour = (t[..., :size, :size] for t in large)
    return torch.where(chosen, colour, x)
