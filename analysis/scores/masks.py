"""Metrics of masks: ARI, and the average precision of boxes."""

from __future__ import annotations

import torch
from torch import Tensor

from analysis.scores.counts import check_same_length
from programs.scene import Nodes, Scene


def average_precision(nodes: Nodes, true_nodes: Nodes, overlap: float, points: int = 11) -> float:
    """Precision against recall of the boxes around the masks, all images together, at `points` of recall.

    The mean over recalls 0, 0.1, …, 1 of the best precision at that recall or above (PASCAL VOC 2007). A
    box is right if its intersection over union with a true box that no box of higher confidence has taken
    is at least `overlap`. Presence is a box's confidence, so give presences as probabilities; slots of
    presence 0 have no box. Boxes of equal confidence enter together. Without true boxes the result is 1.

    Args:
        nodes, true_nodes: with masks.
        overlap: in (0, 1].
        points: of recall, at equal steps from 0 to 1. With 11, one missed object costs a whole point,
            1 / 11; COCO has 101.
    """
    check_same_length(nodes, true_nodes)
    sure, right, total = [], [], int(true_nodes.present.sum())
    for image in range(len(nodes.pres)):
        some = nodes.pres[image] > 0
        order = nodes.pres[image][some].cpu()
        true_boxes = _boxes(true_nodes.mask[image][true_nodes.present[image]])
        union = intersection_over_union(_boxes(nodes.mask[image][some]), true_boxes)
        free = torch.ones(len(true_boxes), dtype=torch.bool)
        for i in order.argsort(descending=True, stable=True).tolist():
            value, j = torch.where(free, union[i], -1.0).max(0) if len(free) else (0.0, 0)
            hit = bool(value >= overlap)
            if hit:
                free[j] = False
            sure.append(float(order[i]))
            right.append(hit)
    if not total:
        return 1.0
    if not sure:
        return 0.0
    confidence, order = torch.tensor(sure).sort(descending=True)
    hits = torch.tensor(right)[order].cumsum(0)
    last = torch.cat([confidence[1:] != confidence[:-1], torch.tensor([True])])  # of ties
    precision = (hits / torch.arange(1, len(hits) + 1))[last].tolist()
    reached = hits[last].tolist()  # compared as whole numbers: 0.3 · 10 is not 3
    best = [
        max(
            (p for p, r in zip(precision, reached, strict=True) if (points - 1) * r >= k * total),
            default=0.0,
        )
        for k in range(points)
    ]
    return sum(best) / len(best)


def _boxes(masks: Tensor) -> Tensor:
    """(K, 4) left, top, right, bottom in pixels: where a mask (K, H, W) exceeds half its maximum."""
    masks = masks.float().cpu()
    inside = masks > masks.amax((1, 2), keepdim=True) / 2
    size = masks.shape[-1]
    place = torch.arange(size)
    sides = []
    for axis in (1, 2):  # columns, rows
        some = inside.any(axis)
        sides.append(
            (torch.where(some, place, size).amin(1), torch.where(some, place, -1).amax(1) + 1)
        )
    (left, right), (top, bottom) = sides
    return torch.stack([left, top, right, bottom], -1)


def intersection_over_union(boxes: Tensor, others: Tensor) -> Tensor:
    """(K, L) of boxes (K, 4) and (L, 4), left, top, right, bottom."""
    low = torch.maximum(boxes[:, None, :2], others[None, :, :2])
    high = torch.minimum(boxes[:, None, 2:], others[None, :, 2:])
    common = (high - low).clamp(min=0).prod(-1).double()
    area, other = ((b[:, 2:] - b[:, :2]).clamp(min=0).prod(-1) for b in (boxes, others))
    return common / (area[:, None] + other[None] - common).clamp(min=1)


def ari_fg(scene: Scene, truth: Scene) -> float:
    """Adjusted Rand index of the objects' segments on the truth's foreground, mean over images.

    A pixel belongs to the present object with the largest mask. The foreground is where a true mask
    exceeds 1/2. Foreground that no inferred object covers is one further segment. Images without foreground
    are left out; if there are no others, the index is 1.

    Returns:
        At most 1, about 0 for segments at random.
    Raises:
        ValueError: masks are missing on either side.
    """
    if scene.objects.mask is None or truth.objects.mask is None:
        raise ValueError("ari_fg needs masks: see programs.blocks.render.visible_masks")
    check_same_length(scene.objects, truth.objects)
    scores = []
    for image in range(len(scene)):
        labels = segments(scene.objects, image, above=0.0)
        true_labels = segments(truth.objects, image, above=0.5)
        foreground = true_labels > 0
        if foreground.any():
            scores.append(adjusted_rand_index(true_labels[foreground], labels[foreground]))
    return sum(scores) / len(scores) if scores else 1.0


def ari_all(scene: Scene, truth: Scene) -> float:
    """Adjusted Rand index of all pixels' segments, one of them the background, mean over images.

    A pixel belongs to the present object with the largest mask, or to the background if the objects' masks
    sum to at most 1/2.
    """
    check_same_length(scene.objects, truth.objects)
    scores = []
    for image in range(len(scene)):
        labels, true_labels = (
            torch.where(
                (s.objects.mask[image] * s.objects.present[image, :, None, None]).sum(0).cpu()
                > 0.5,
                segments(s.objects, image, above=0.0),
                0,
            ).flatten()
            for s in (scene, truth)
        )
        scores.append(adjusted_rand_index(true_labels, labels))
    return sum(scores) / len(scores) if scores else 1.0


def segments(nodes: Nodes, image: int, above: float) -> Tensor:
    """(H, W) 1 + slot of the visible node at a pixel, 0 where no mask is larger than `above`."""
    masks = nodes.mask[image].float() * nodes.present[image, :, None, None]
    strength, slot = masks.max(0)
    return ((slot + 1) * (strength > above)).cpu()


def adjusted_rand_index(labels: Tensor, other: Tensor) -> float:
    """Agreement of two partitions, corrected for chance (Hubert and Arabie 1985, eq. 5).

    Args:
        labels: (n,) integers from 0, n at least 1; the order of the labels does not matter.
        other: (n,) likewise.
    """
    height, width = int(labels.max()) + 1, int(other.max()) + 1
    table = torch.bincount(labels * width + other, minlength=height * width).view(height, width)
    together, one, two, total = map(_pairs, (table, table.sum(1), table.sum(0), table.sum()))
    expected = one * (two / max(total, 1.0))
    largest = (one + two) / 2
    return 1.0 if largest == expected else (together - expected) / (largest - expected)


def _pairs(number: Tensor) -> float:
    """Number of pairs within every entry, summed over all entries."""
    return float((number * (number - 1) // 2).sum())
