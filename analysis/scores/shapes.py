"""Accuracy of full object shapes, including hidden parts, and which expert draws each object."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from analysis.scores.counts import check_same_length, label_counts
from analysis.scores.masks import ari_fg
from programs.scene import Nodes, Scene

ALIVE = 0.05
"""Least share of the objects that a living expert explains."""


def ari_of_twins(truth: Scene, images: Tensor, generator: torch.Generator) -> float:
    """Upper bound of `ari_fg`: all full shapes known, the order of identical objects guessed.

    If two overlapping objects have one class and one flat colour, no image shows which lies in front.

    Args:
        truth: scenes of flat objects, with full shapes.
        images: (B, C, H, W) in [0, 1], of the same scenes.
    """
    nodes = truth.objects
    area = nodes.mask.flatten(2).sum(-1).clamp(min=1)
    colour = torch.einsum("bnhw,bchw->bnc", nodes.mask.float(), images) / area.unsqueeze(-1)
    looks = torch.cat([nodes.category.unsqueeze(-1), (255 * colour).round()], -1)
    depth = nodes.depth.clone()
    for image in range(len(truth)):
        kind = looks[image].unique(dim=0, return_inverse=True)[1]
        for alike in (rows.nonzero()[:, 0] for rows in kind == kind.unique()[:, None]):
            shuffled = alike[torch.randperm(len(alike), generator=generator)]
            depth[image, alike] = nodes.depth[image, shuffled]
    shown = (nodes.shape > 0.5) & nodes.present[..., None, None]
    far = torch.where(shown, depth[..., None, None], math.inf)
    masks = F.one_hot(far.argmin(1), shown.shape[1]).movedim(-1, 1) * shown
    guess = replace(truth, levels=(replace(nodes, mask=masks.float()),))
    return ari_fg(guess, truth)


def shape_metrics(nodes: Nodes, true_nodes: Nodes) -> dict[str, float]:
    """Accuracy of full shapes, including hidden parts, and use of experts (ECON shows it in pictures only).

    In every image, inferred and true objects are paired one to one so that the sum of their full shapes'
    IoU is largest. True objects without a partner count as 0.

    Returns:
        `shape_iou`, mean over true objects of the full shapes' IoU;
        `hidden_iou`, mean IoU of the parts behind other true objects, over objects that have such parts;
        `depth_order_accuracy`, the share of overlapping pairs of true objects whose order is right;
        `expert_purity`, the normalised mutual information of inferred and true categories of partners;
        `experts_alive`, the number of categories with at least a share `ALIVE` of the present inferred objects.
    """
    check_same_length(nodes, true_nodes)
    compared = [_compare(nodes, true_nodes, image) for image in range(len(nodes.pres))]
    result = {
        "shape_iou": _mean([v for j in compared for v in j.whole]),
        "hidden_iou": _mean([v for j in compared for v in j.hidden]),
        "depth_order_accuracy": _mean([v for j in compared for v in j.order]),
    }
    if nodes.category is not None and true_nodes.category is not None:
        result["expert_purity"] = mutual_information([pair for j in compared for pair in j.winners])
        share = label_counts(nodes).sum(0).double() / max(1, int(nodes.present.sum()))
        result["experts_alive"] = float((share >= ALIVE).sum())
    return result


class _Compared(NamedTuple):
    """The numbers of one image that `shape_metrics` averages."""

    whole: list[float]
    """IoU of every true object's full shape"""
    hidden: list[float]
    """IoU of the hidden part of every object that has one"""
    order: list[bool]
    """for every overlapping pair, whether its order is right"""
    winners: list[tuple[int, int]]
    """inferred and true category of every pair of partners"""


def _compare(nodes: Nodes, true_nodes: Nodes, image: int) -> _Compared:
    """Pair the objects of an image, and compare them."""
    slot = nodes.present[image].nonzero()[:, 0]
    true_slot = true_nodes.present[image].nonzero()[:, 0]
    shape = nodes.shape[image, slot].cpu() > 0.5
    true_shape = true_nodes.shape[image, true_slot].cpu() > 0.5
    partner = _partners(shape, true_shape)
    shape = torch.cat([shape, torch.zeros_like(true_shape[:1])])[partner]  # partner -1: nothing
    depth = true_nodes.depth[image, true_slot].cpu()
    above = depth < depth[:, None]  # (i, j): j lies in front of i
    covered = (above[..., None, None] & true_shape).any(1)
    some = (covered & true_shape).any(-1).any(-1)
    own_depth = nodes.depth[image, slot].cpu().double()
    guess = torch.cat([own_depth, torch.tensor([torch.nan])])[partner]
    meet = (true_shape[:, None] & true_shape).any(-1).any(-1) & above
    winners: list[tuple[int, int]] = []
    if nodes.category is not None and true_nodes.category is not None:
        found = partner >= 0
        own = nodes.category[image, slot].cpu()[partner[found]].tolist()
        true = true_nodes.category[image, true_slot].cpu()[found].tolist()
        winners = list(zip(own, true, strict=True))
    return _Compared(
        _mask_iou(shape, true_shape).tolist(),
        _mask_iou(shape & covered, true_shape & covered)[some].tolist(),
        (guess < guess[:, None])[meet].tolist(),
        winners,
    )


def _mean(values: list) -> float:
    """The mean; 1 for an empty list."""
    return sum(values) / len(values) if values else 1.0


def _partners(shapes: Tensor, true_shapes: Tensor) -> Tensor:
    """(M,) index of the shape (N, H, W) that a true one (M, H, W) is paired with, or -1; they share a pixel."""
    from scipy.optimize import linear_sum_assignment

    union = _mask_iou(shapes[None], true_shapes[:, None])
    pairs = linear_sum_assignment(union.numpy(), maximize=True)
    rows, columns = (torch.from_numpy(index) for index in pairs)
    partner = torch.full((len(true_shapes),), -1)
    partner[rows] = columns.where(union[rows, columns] > 0, -1)
    return partner


def _mask_iou(masks: Tensor, others: Tensor) -> Tensor:
    """Intersection over union of masks (..., H, W) bool; 0 for two empty ones."""
    common, either = (masks & others).sum((-2, -1)), (masks | others).sum((-2, -1))
    return common.double() / either.clamp(min=1)


def mutual_information(pairs: list[tuple[int, int]]) -> float:
    """Mutual information of pairs of labels over the mean of their entropies; 0 where one is constant."""
    from sklearn.metrics import normalized_mutual_info_score

    if not pairs:
        return 0.0
    one, two = zip(*pairs, strict=True)
    return float(normalized_mutual_info_score(two, one)) if len({*one}) > 1 < len({*two}) else 0.0
