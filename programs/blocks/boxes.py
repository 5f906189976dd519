"""Upright boxes: their overlap, the assignment of cells to boxes, and non-maximum suppression.

A box is an affine map (2, 3) without rotation, as `programs.scene.Nodes.pose`. Shape legend: N cells, K boxes.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F


def overlaps(boxes: Tensor, others: Tensor) -> Tensor:
    """(..., K, N) intersection over union of upright boxes (..., K, 2, 3) and (..., N, 2, 3)."""
    (centre, extent), (centres, extents) = (
        (pose[..., 2], pose[..., :2].diagonal(dim1=-2, dim2=-1)) for pose in (boxes, others)
    )
    centre, extent, centres, extents = (
        *(t.unsqueeze(-2) for t in (centre, extent)),
        *(t.unsqueeze(-3) for t in (centres, extents)),
    )
    low = torch.maximum(centre - extent, centres - extents)
    high = torch.minimum(centre + extent, centres + extents)
    common = (high - low).clamp(min=0).prod(-1)
    return common / (4 * extent.prod(-1) + 4 * extents.prod(-1) - common)


def likeness(boxes: Tensor, pose: Tensor) -> Tensor:
    """(..., K, N) IoU of boxes (..., K, 2, 3) and cells' (..., N, 2, 3), minus their distance where it is 0."""
    common, apart = overlaps(boxes, pose), torch.cdist(boxes[..., 2], pose[..., 2])
    return torch.where(common > 0, common, -apart)


def owned(alike: Tensor, valid: Tensor) -> Tensor:
    """(..., K, N) 1 for the valid box (..., K) that is most similar to a cell's box."""
    best = alike.masked_fill(~valid.unsqueeze(-1), -math.inf).argmax(-2)
    return F.one_hot(best, valid.shape[-1]).mT.to(alike.dtype) * valid.unsqueeze(-1)


def suppressed(
    pres: Tensor, pose: Tensor, side: int, slots: int, overlap: float, least: int
) -> tuple[Tensor, Tensor]:
    """Non-maximum suppression of the present cells' boxes, ranked by how many cells point to their centres.

    Args:
        pres: (..., N).
        pose: (..., N, 2, 3).
    Returns:
        (..., slots) indices of cells whose boxes are kept, best first, and whether the slot has one.
    """
    alive, centre = pres > 0.5, pose[..., 2]
    place = ((centre + 1) * (side / 2)).long().clamp(0, side - 1)
    place = place[..., 1] * side + place[..., 0]
    votes = torch.zeros_like(pres).scatter_add(-1, place, alive.to(pres.dtype))
    picture = votes.view(-1, 1, side, side)
    near = 9 * F.avg_pool2d(picture, 3, stride=1, padding=1).view_as(votes)
    votes = near.gather(-1, place)
    chosen, valid = [], []
    for k in range(slots):
        score, best = votes.where(alive, torch.zeros_like(votes)).max(-1)
        box = pose.gather(-3, best[..., None, None, None].expand(*best.shape, 1, 2, 3))
        alive = alive & ~(overlaps(box, pose).squeeze(-2) > overlap)
        chosen.append(best)
        valid.append(score > (0 if k == 0 else least - 0.5))
    return torch.stack(chosen, -1), torch.stack(valid, -1)
