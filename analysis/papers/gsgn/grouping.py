"""Objects from parts, by their boxes: the baseline of GSGN's structures (section 4).

It "starts from the parts predicted by SPACE-P, and groups the parts whose bounding boxes overlap". The SPACE-P
rows of the tables are measured after this grouping.

Shape legend: B images, N slots.
"""

from __future__ import annotations

import math
from dataclasses import replace

import torch
from torch import Tensor

from programs.blocks.render import pose
from programs.scene import Nodes, Scene


def group(scene: Scene) -> Scene:
    """The Scene's nodes as parts of objects: present nodes whose boxes overlap, directly or through others.

    An object is in the slot of the first of its parts. Its box is the upright one around its parts' boxes,
    and its depth is that of its nearest part.

    Raises:
        ValueError: the Scene already has parts, or nothing to group.
    """
    if len(scene.levels) != 1:
        raise ValueError(
            f"the Scene has {len(scene.levels)} levels: expected one, of parts, as space_p infers them"
        )
    parts = replace(scene.objects, mask=None)
    low, high = parts.corners.amin(-2), parts.corners.amax(-2)
    first = leaders(overlaps(low, high) & parts.present[:, :, None] & parts.present[:, None, :])
    members = first[:, None, :] == torch.arange(first.shape[1], device=first.device)[:, None]
    members &= parts.present[:, None, :]  # (B, N objects, N parts)
    pres = members.any(-1)

    def of_members(values: Tensor, other: float) -> Tensor:
        return torch.where(members, values[:, None, :], other).amin(-1)

    low = torch.stack([of_members(low[..., i], 1.0) for i in (0, 1)], -1)
    high = torch.stack([-of_members(-high[..., i], 1.0) for i in (0, 1)], -1)
    depth = of_members(parts.depth, math.inf).where(pres, 0.0)
    # for an absent object `low` is 1 and `high` -1: the whole image
    box = pose((low + high) / 2, (high - low).abs() / 2, torch.zeros_like(depth))
    objects = Nodes(pres.to(parts.pres.dtype), box, depth, torch.zeros_like(first))
    return replace(scene, levels=(objects, replace(parts, parent=first)))


def overlaps(low: Tensor, high: Tensor) -> Tensor:
    """(B, N, N) whether upright boxes with these corners (B, N, 2) have an area in common."""
    shared = torch.minimum(high[:, :, None], high[:, None, :])
    shared = shared - torch.maximum(low[:, :, None], low[:, None, :])
    return (shared > 0).all(-1)


def leaders(joined: Tensor) -> Tensor:
    """(B, N) int64 the first node of each node's connected component, of a symmetric relation (B, N, N)."""
    number = joined.shape[-1]
    slots = torch.arange(number, device=joined.device)
    reached = joined | (slots == slots[:, None])
    for _ in range(number.bit_length()):  # paths of twice the length
        reached = reached.float() @ reached.float() > 0
    return torch.where(reached, slots, number).amin(-1)
