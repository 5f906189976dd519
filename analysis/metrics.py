"""How right an inferred Scene is, given the true Scene of the same images in the same order.

Counts, F1 and the tree are judged as in GSGN (ICLR 2021, section 4, tables 1 to 3). A node is
present if its presence exceeds 1/2. An inferred node is a true positive if it is matched one to one
with a true node whose centre is close: 10 pixels for objects, 5 for parts, at 128 x 128. Every
number is exact over all images given.

Of graphs with one level its nodes are the objects; with two, objects and parts; with three, groups,
objects and parts. # differs: the paper has no groups; each level up doubles the radius, so theirs is
20 pixels. What lies above groups is called level_1, level_2, … from the root down.

Shape legend: B images, N inferred slots, M true slots, K matched pairs, C channels, H x W pixels.
"""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from programs.scene import Nodes, Scene

OBJECT_RADIUS = 20 / 128
"""10 pixels at 128 x 128 in the image frame, whose side is 2 (GSGN section 4)."""
PART_RADIUS = 10 / 128
"""5 pixels at 128 x 128, likewise."""
NAMES = ("part", "object", "group")
"""Of levels, from the leaves up, where there are at least two."""

ALIVE = 0.05
"""Share of the objects that an expert explains at least, to be alive."""


class Detection(NamedTuple):
    """Shares in [0, 1] of nodes found; a share of nothing is 1."""

    precision: float
    """Of the inferred nodes, those that are true."""
    recall: float
    """Of the true nodes, those that are inferred."""
    f1: float
    """Of inferred and true nodes together, those matched: the harmonic mean of the two."""


def scene_metrics(scene: Scene, truth: Scene, soft: Scene | None = None) -> dict[str, float]:
    """Every metric that scene and truth allow: shares in [0, 1], and `ari_fg`, which is at most 1.

    Levels are named as `level_names` says. Scenes of different depths are compared by their first and
    last levels, as objects and parts, or by the first alone where one of them has no other.

    Args:
        scene: inferred.
        truth: of the same images.
        soft: the same with probabilities of presence, for average precision; else `scene` is taken.
    """
    soft = scene if soft is None else soft
    soft, _ = comparable(soft, truth)
    scene, truth = comparable(scene, truth)
    names = level_names(len(scene.levels))
    found: dict[str, float] = {}
    for name, radius, nodes, true_nodes in zip(
        names, radii(len(names)), scene.levels, truth.levels, strict=True
    ):
        found |= _level_metrics(name, nodes, true_nodes, radius)
    if len(names) > 1:
        found["structure_accuracy"] = structure_accuracy(scene, truth)
    return found | _object_metrics(*(_from_objects(s) for s in (scene, truth, soft)))


def _object_metrics(scene: Scene, truth: Scene, soft: Scene) -> dict[str, float]:
    """What is measured of the objects alone, which are the first level here."""
    found = {}
    if scene.objects.category is not None and truth.objects.category is not None:
        found["category_correspondence"] = category_correspondence(scene.objects, truth.objects)
    if scene.objects.mask is not None and truth.objects.mask is not None:
        found["ari_fg"] = ari_fg(scene, truth)
        if scene.background is not None:
            found["ari"] = ari_all(scene, truth)
        steps = [average_precision(soft.objects, truth.objects, 0.5 + 0.05 * i) for i in range(10)]
        found |= {"ap50": steps[0], "ap50_95": sum(steps) / len(steps)}
    if scene.objects.shape is not None and truth.objects.shape is not None:
        found |= shape_metrics(scene.objects, truth.objects)
    return found


def level_names(number: int) -> tuple[str, ...]:
    """What the levels of a graph with that many are called, from the root down.

    `Scene.objects` is the first of them whatever it is called.
    """
    if number == 1:
        return ("object",)
    above = tuple(f"level_{k + 1}" for k in range(number - len(NAMES)))
    return above + NAMES[:number][::-1]


def radii(number: int) -> tuple[float, ...]:
    """How near a centre must be at every level, from the root down, in the image frame.

    That of parts, doubled with every level up; a single level's is that of objects.
    """
    height = range(number - 1, -1, -1) if number > 1 else (1,)
    return tuple(PART_RADIUS * 2**k for k in height)


def comparable(scene: Scene, truth: Scene) -> tuple[Scene, Scene]:
    """Both with as many levels: of different depths, the first and the last, or the first alone.

    Levels in between count by the ownership that they transmit.
    """
    if len(scene.levels) == len(truth.levels):
        return scene, truth
    alone = scene.parts is None or truth.parts is None
    return tuple(
        replace(s, levels=(s.objects,))
        if alone
        else replace(s, levels=(s.objects, replace(s.parts, parent=owners(s))))
        for s in (scene, truth)
    )


def _from_objects(scene: Scene) -> Scene:
    """The scene without the levels above its objects, whose parents mean nothing any more."""
    return replace(scene, levels=scene.levels[-2:])


def _level_metrics(name: str, nodes: Nodes, true_nodes: Nodes, radius: float) -> dict[str, float]:
    detection = precision_recall_f1(nodes, true_nodes, radius)
    return {
        f"{name}_count_accuracy": count_accuracy(nodes, true_nodes),
        f"{name}_f1": detection.f1,
        f"{name}_recall": detection.recall,
    }


def count_accuracy(nodes: Nodes, true_nodes: Nodes) -> float:
    """Share of images with as many nodes present as in truth (GSGN, "counting accuracy")."""
    _same_length(nodes, true_nodes)
    equal = nodes.present.sum(1).cpu() == true_nodes.present.sum(1).cpu()
    return float(equal.double().mean())


def match(nodes: Nodes, true_nodes: Nodes, radius: float) -> list[Tensor]:
    """Pair inferred with true nodes one to one, both present, centres at most `radius` apart.

    As many pairs as can be, and of those ways the one with the least sum of distances.

    Args:
        nodes: inferred, N slots.
        true_nodes: M slots.
        radius: in the image frame.
    Returns:
        An image's (2, K) int64 on the CPU: inferred slots, and true slots they are matched with.
    """
    from scipy.optimize import linear_sum_assignment

    _same_length(nodes, true_nodes)
    pairs = []
    for (slot, centre), (true_slot, true_centre) in zip(
        _present(nodes), _present(true_nodes), strict=True
    ):
        distance = (centre[:, None] - true_centre).norm(dim=-1)
        near = distance <= radius
        bonus = 1 + radius * min(distance.shape)  # outweighs whatever a further pair may cost
        cost = torch.where(near, distance - bonus, 0.0)
        i, j = map(torch.from_numpy, linear_sum_assignment(cost.numpy()))
        i, j = i[near[i, j]], j[near[i, j]]
        pairs.append(torch.stack([slot[i], true_slot[j]]))
    return pairs


def _present(nodes: Nodes) -> list[tuple[Tensor, Tensor]]:
    """The slots and centres (…, 2) of the nodes present, image by image."""
    present, centres = nodes.present.cpu(), nodes.centre.detach().cpu().double()
    return [(p.nonzero()[:, 0], c[p]) for p, c in zip(present, centres, strict=True)]


def precision_recall_f1(nodes: Nodes, true_nodes: Nodes, radius: float) -> Detection:
    """Precision, recall and F1 from the totals over all images (GSGN tables 1 to 3).

    With nothing inferred precision is 1, with nothing true recall is 1, with neither F1 is 1.
    """
    hits = sum(pairs.shape[1] for pairs in match(nodes, true_nodes, radius))
    number, true_number = int(nodes.present.sum()), int(true_nodes.present.sum())
    return Detection(
        precision=_share(hits, number),
        recall=_share(hits, true_number),
        f1=_share(2 * hits, number + true_number),
    )


def structure_accuracy(scene: Scene, truth: Scene) -> float:
    """Share of images whose inferred tree is right (GSGN section 4, there by eye on 100 images).

    A tree is right if at every level `match` within that level's radius (`radii`) leaves over no node
    present, inferred or true, and every inferred node below the first level belongs to the node that
    is matched with the owner of the true node it is matched with. Of scenes of different depths,
    objects and parts alone are compared (`comparable`).

    Raises:
        ValueError: a scene without parts.
    """
    scene, truth = comparable(scene, truth)
    if scene.parts is None:
        raise ValueError("structure_accuracy needs objects and parts; a scene here has one level")
    levels = list(zip(scene.levels, truth.levels, strict=True))
    pairs = [match(*level, r) for level, r in zip(levels, radii(len(levels)), strict=True)]
    right = torch.ones(len(scene), dtype=torch.bool)
    for level, found in zip(levels, pairs, strict=True):
        right &= _complete(found, *level)
    for below, (above_pairs, own_pairs) in zip(levels[1:], pairwise(pairs), strict=True):
        for b in right.nonzero()[:, 0].tolist():
            right[b] = _same_owners(
                *(n.parent[b].cpu() for n in below), above_pairs[b], own_pairs[b]
            )
    return float(right.double().mean())


def _same_owners(parent: Tensor, true_parent: Tensor, above: Tensor, own: Tensor) -> bool:
    """Whether matched nodes, `own` (2, K), have matched parents, `above` (2, L), in one image."""
    partner = dict(zip(*above.tolist(), strict=True))  # an absent parent has none
    return [partner.get(p) for p in parent[own[0]].tolist()] == true_parent[own[1]].tolist()


def _complete(pairs: list[Tensor], nodes: Nodes, true_nodes: Nodes) -> Tensor:
    """(B,) bool: no node of either is left over."""
    number = torch.tensor([p.shape[1] for p in pairs])
    return (nodes.present.sum(1).cpu() == number) & (true_nodes.present.sum(1).cpu() == number)


def owners(scene: Scene) -> Tensor:
    """(B, N) index of the first level's node that each leaf descends from."""
    owner = scene.levels[-1].parent
    for nodes in scene.levels[-2:0:-1]:
        owner = nodes.parent.gather(1, owner)
    return owner.cpu()


def category_correspondence(nodes: Nodes, true_nodes: Nodes) -> float:
    """Share of true labels found, under the best naming of the inferred categories.

    An image's true labels are found as often as its inferred categories, renamed, hold them (Discrete-AIR,
    appendix D). The best of all one-to-one namings is an assignment problem, solved exactly. Without true
    labels the share is 1.
    """
    from scipy.optimize import linear_sum_assignment

    _same_length(nodes, true_nodes)
    counts, true_counts = _counts(nodes), _counts(true_nodes)  # (B, categories)
    common = torch.minimum(counts[:, :, None], true_counts[:, None]).sum(0)
    rows, columns = linear_sum_assignment(common.numpy(), maximize=True)
    return _share(int(common[rows, columns].sum()), int(true_counts.sum()))


def _counts(nodes: Nodes) -> Tensor:
    """(B, categories) how often an image holds each."""
    category = nodes.category.where(nodes.present, -1).cpu()
    return (category[..., None] == torch.arange(max(1, int(category.max()) + 1))).sum(1)


def average_precision(nodes: Nodes, true_nodes: Nodes, overlap: float) -> float:
    """Precision against recall of the boxes around the masks, all images together, at 11 points of recall.

    The mean over recalls 0, 0.1, …, 1 of the best precision at that recall or above (PASCAL VOC 2007). A box is
    right if its intersection over union with a true box that no surer box has taken is at least `overlap`.
    Presence is how sure a box is, so give presences as probabilities; slots of presence 0 have no box. Equally
    sure boxes enter together. Without true boxes it is 1.

    Args:
        nodes, true_nodes: with masks.
        overlap: in (0, 1].
    """
    _same_length(nodes, true_nodes)
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
    last = torch.cat([confidence[1:] != confidence[:-1], torch.tensor([True])])  # of equally sure
    precision = (hits / torch.arange(1, len(hits) + 1))[last].tolist()
    reached = hits[last].tolist()  # compared as whole numbers: 0.3 · 10 is not 3
    best = [
        max(
            (p for p, r in zip(precision, reached, strict=True) if 10 * r >= tenths * total),
            default=0.0,
        )
        for tenths in range(11)
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
    exceeds 1/2. Foreground that no inferred object covers at all is a segment of its own. Images
    without foreground are left out; were there no others, the index is 1.

    Returns:
        At most 1, about 0 for segments at random.
    Raises:
        ValueError: masks are missing on either side.
    """
    if scene.objects.mask is None or truth.objects.mask is None:
        raise ValueError("ari_fg needs masks: see programs.render.visible_masks")
    _same_length(scene.objects, truth.objects)
    scores = []
    for image in range(len(scene)):
        labels = segments(scene.objects, image, above=0.0)
        true_labels = segments(truth.objects, image, above=0.5)
        foreground = true_labels > 0
        if foreground.any():
            scores.append(adjusted_rand_index(true_labels[foreground], labels[foreground]))
    return sum(scores) / len(scores) if scores else 1.0


def ari_all(scene: Scene, truth: Scene) -> float:
    """Adjusted Rand index of all pixels' segments, the background being one, mean over images.

    A pixel belongs to the present object with the largest mask, or to the background, where the masks of the
    objects leave more.
    """
    _same_length(scene.objects, truth.objects)
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


def ari_of_twins(truth: Scene, images: Tensor, generator: torch.Generator) -> float:
    """`ari_fg` of who knows all full shapes, and guesses the order of objects that look alike.

    Which of two that overlap lies in front is in no image if they have one class and one flat colour. So it is
    about the most that can be known.

    Args:
        truth: flat objects, with full shapes.
        images: (B, C, H, W) of it, in [0, 1].
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
    """How well full shapes are known, hidden parts too, and who draws them (ECON shows it in pictures only).

    In every image, inferred and true objects are paired one to one such that their full shapes' IoU is largest
    in sum. True objects without a partner count as 0.

    Returns:
        `shape_iou`, mean over true objects of the full shapes' IoU;
        `hidden_iou`, the same of what lies behind other true objects, over those of which something does;
        `depth_order_accuracy`, the share of pairs of true objects that overlap whose order is right;
        `expert_purity`, the normalised mutual information of inferred and true categories of partners;
        `experts_alive`, the number of categories that at least `ALIVE` of the present inferred objects have.
    """
    _same_length(nodes, true_nodes)
    whole, hidden, order, winners = [], [], [], []
    for image in range(len(nodes.pres)):
        slot, true_slot = (
            nodes.present[image].nonzero()[:, 0],
            true_nodes.present[image].nonzero()[:, 0],
        )
        shape, true_shape = (
            nodes.shape[image, slot].cpu() > 0.5,
            true_nodes.shape[image, true_slot].cpu() > 0.5,
        )
        partner = _partners(shape, true_shape)
        shape = torch.cat([shape, torch.zeros_like(true_shape[:1])])[partner]  # partner -1: nothing
        whole += _mask_iou(shape, true_shape).tolist()
        depth = true_nodes.depth[image, true_slot].cpu()
        above = depth < depth[:, None]  # (i, j): j lies in front of i
        covered = (above[..., None, None] & true_shape).any(1)
        some = (covered & true_shape).any(-1).any(-1)
        hidden += _mask_iou(shape & covered, true_shape & covered)[some].tolist()
        guess = torch.cat([nodes.depth[image, slot].cpu().double(), torch.tensor([torch.nan])])[
            partner
        ]
        meet = (true_shape[:, None] & true_shape).any(-1).any(-1) & above
        order += (guess < guess[:, None])[meet].tolist()
        if nodes.category is not None and true_nodes.category is not None:
            found = partner >= 0
            pair = (
                nodes.category[image, slot].cpu()[partner[found]],
                true_nodes.category[image, true_slot].cpu()[found],
            )
            winners += zip(*(t.tolist() for t in pair), strict=True)
    mean = lambda values: sum(values) / len(values) if values else 1.0  # noqa: E731
    result = {
        "shape_iou": mean(whole),
        "hidden_iou": mean(hidden),
        "depth_order_accuracy": mean(order),
    }
    if nodes.category is not None and true_nodes.category is not None:
        result["expert_purity"] = mutual_information(winners)
        share = _counts(nodes).sum(0).double() / max(1, int(nodes.present.sum()))
        result["experts_alive"] = float((share >= ALIVE).sum())
    return result


def _partners(shapes: Tensor, true_shapes: Tensor) -> Tensor:
    """(M,) index of the shape (N, H, W) that a true one (M, H, W) is paired with, or -1."""
    from scipy.optimize import linear_sum_assignment

    union = _mask_iou(shapes[None], true_shapes[:, None])
    rows, columns = linear_sum_assignment(union.numpy(), maximize=True)
    partner = torch.full((len(true_shapes),), -1)
    partner[torch.from_numpy(rows)] = torch.from_numpy(columns)
    return partner


def _mask_iou(masks: Tensor, others: Tensor) -> Tensor:
    """Intersection over union of masks (..., H, W) bool; of two empty ones 0."""
    common, either = (masks & others).sum((-2, -1)), (masks | others).sum((-2, -1))
    return common.double() / either.clamp(min=1)


def mutual_information(pairs: list[tuple[int, int]]) -> float:
    """Mutual information of pairs of labels over the mean of their entropies; 0 where one is constant."""
    from sklearn.metrics import normalized_mutual_info_score

    if not pairs:
        return 0.0
    one, two = zip(*pairs, strict=True)
    return float(normalized_mutual_info_score(two, one)) if len({*one}) > 1 < len({*two}) else 0.0


def segments(nodes: Nodes, image: int, above: float) -> Tensor:
    """(H, W) 1 + slot of the node seen at a pixel, 0 where no mask is larger than `above`."""
    masks = nodes.mask[image].float() * nodes.present[image, :, None, None]
    strength, slot = masks.max(0)
    return ((slot + 1) * (strength > above)).cpu()


def adjusted_rand_index(labels: Tensor, other: Tensor) -> float:
    """Agreement of two partitions, corrected for chance (Hubert and Arabie 1985, eq. 5).

    Args:
        labels: (n,) integers from 0, n at least 1; what the segments are called is of no account.
        other: (n,) likewise.
    """
    height, width = int(labels.max()) + 1, int(other.max()) + 1
    table = torch.bincount(labels * width + other, minlength=height * width).view(height, width)
    together, one, two, total = map(_pairs, (table, table.sum(1), table.sum(0), table.sum()))
    expected = one * (two / max(total, 1.0))
    largest = (one + two) / 2
    return 1.0 if largest == expected else (together - expected) / (largest - expected)


def _pairs(number: Tensor) -> float:
    """How many pairs can be drawn, summed over all entries."""
    return float((number * (number - 1) // 2).sum())


def frechet_distance(features: Tensor, others: Tensor) -> float:
    """Squared Fréchet distance of two Gaussians with the samples' means and covariances (Heusel et al., 2017).

    Called FID when the features are Inception's, FID-like when they are another net's.

    Args:
        features: (N, F), N at least 2.
        others: (M, F).
    """
    (mean, root), (other_mean, other) = map(_moments, (features, others))
    # tr (Σ₁ Σ₂)^½ = tr (Σ₁^½ Σ₂ Σ₁^½)^½, the latter symmetric
    values, vectors = torch.linalg.eigh(root)
    root = vectors * values.clamp(min=0).sqrt() @ vectors.T
    common = torch.linalg.eigvalsh(root @ other @ root).clamp(min=0).sqrt().sum()
    distance = (mean - other_mean).square().sum() + values.sum() + other.trace() - 2 * common
    return float(distance)


def _moments(features: Tensor) -> tuple[Tensor, Tensor]:
    if features.ndim != 2 or len(features) < 2:
        raise ValueError(
            f"features of shape {tuple(features.shape)}: expected (N, F) of at least 2 images"
        )
    features = features.detach().cpu().double()
    return features.mean(0), features.T.cov()


def bits_per_dimension(log_prob: Tensor, numbers: int, values: int = 256) -> float:
    """Mean cost of a number of an image that has `values` values, by a bound on its log-probability.

    Args:
        log_prob: (B,) nats, log-density of dequantised images in [0, 1].
        numbers: of an image, C · H · W.
    """
    return float(math.log2(values) - log_prob.double().mean() / (numbers * math.log(2)))


def change_outside(image: Tensor, edited: Tensor, pose: Tensor) -> float:
    """Mean absolute change of the pixels outside of boxes, the fidelity of an edit.

    Args:
        image, edited: (B, C, H, W) in [0, 1].
        pose: (B, 2, 3) the box in each image that is meant to change; of a turned one, the upright one around.
    Raises:
        ValueError: there is nothing outside.
    """
    chosen = outside(pose, image.shape[-1]).unsqueeze(1).expand_as(image)
    if not chosen.any():
        raise ValueError("the boxes cover the images: there is nothing outside")
    return float((image - edited).abs()[chosen].mean(dtype=torch.float64))


def outside(pose: Tensor, size: int) -> Tensor:
    """(B, S, S) bool: the pixels outside of the upright boxes around those of (B, 2, 3)."""
    axis = (2 * torch.arange(size, device=pose.device) + 1) / size - 1
    extent = pose[..., :2].abs().sum(-1)
    inside = (axis - pose[..., 2:]).abs() <= extent.unsqueeze(-1)  # (B, 2, size)
    return ~(inside[:, 1, :, None] & inside[:, 0, None, :])


def mse(scene: Scene, images: Tensor) -> float:
    """Mean squared error per pixel and channel against images (B, C, H, W) in [0, 1]."""
    if scene.image.shape != images.shape:
        raise ValueError(
            f"mse compares like with like: scene.image is {tuple(scene.image.shape)}, "
            f"images {tuple(images.shape)}"
        )
    return float((scene.image - images).square().mean(dtype=torch.float64))


def _share(part: int, whole: int) -> float:
    return part / whole if whole else 1.0


def _same_length(nodes: Nodes, true_nodes: Nodes) -> None:
    number, true_number = len(nodes.pres), len(true_nodes.pres)
    if number != true_number:
        raise ValueError(
            f"{number} inferred scenes but {true_number} true ones: give both of the same images"
        )
