"""How right an inferred Scene is, given the true Scene of the same images in the same order.

Counts, F1 and the tree are judged as in GSGN (ICLR 2021, section 4, tables 1 to 3). A node is
present if its presence exceeds 1/2. An inferred node is a true positive if it is matched one to one
with a true node whose centre is close: 10 pixels for objects, 5 for parts, at 128 x 128. Every
number is exact over all images given.

Shape legend: B images, N inferred slots, M true slots, K matched pairs, C channels, H x W pixels.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from programs.scene import Nodes, Scene

OBJECT_RADIUS = 20 / 128
"""10 pixels at 128 x 128 in the image frame, whose side is 2 (GSGN section 4)."""
PART_RADIUS = 10 / 128
"""5 pixels at 128 x 128, likewise."""


class Detection(NamedTuple):
    """Shares in [0, 1] of nodes found; a share of nothing is 1."""

    precision: float
    """Of the inferred nodes, those that are true."""
    recall: float
    """Of the true nodes, those that are inferred."""
    f1: float
    """Of inferred and true nodes together, those matched: the harmonic mean of the two."""


def scene_metrics(scene: Scene, truth: Scene) -> dict[str, float]:
    """Every metric that scene and truth allow: shares in [0, 1], and `ari_fg`, which is at most 1.

    Objects are the first level; parts are the last, where both scenes have at least two.
    """
    found = _level_metrics("object", scene.objects, truth.objects, OBJECT_RADIUS)
    if scene.parts is not None and truth.parts is not None:
        found |= _level_metrics("part", scene.parts, truth.parts, PART_RADIUS)
        found["structure_accuracy"] = structure_accuracy(scene, truth)
    ari = ari_fg(scene, truth)
    return found if ari is None else {**found, "ari_fg": ari}


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

    A tree is right if `match` leaves over no node present, inferred or true, neither among objects
    (within `OBJECT_RADIUS`) nor among parts (within `PART_RADIUS`), and every inferred part belongs
    to the object that is matched with the owner of the true part it is matched with. Levels in
    between count only by the ownership they transmit.

    Raises:
        ValueError: a scene without parts.
    """
    if scene.parts is None or truth.parts is None:
        raise ValueError("structure_accuracy needs objects and parts; a scene here has one level")
    objects = match(scene.objects, truth.objects, OBJECT_RADIUS)
    parts = match(scene.parts, truth.parts, PART_RADIUS)
    complete = _complete(objects, scene.objects, truth.objects)
    complete &= _complete(parts, scene.parts, truth.parts)
    owner, true_owner = owners(scene), owners(truth)
    right = 0
    for b in complete.nonzero()[:, 0].tolist():
        (object_, true_object), (part, true_part) = objects[b], parts[b]
        partner = torch.full((scene.objects.pres.shape[1],), -1)  # -1: an absent object has none
        partner[object_] = true_object
        right += torch.equal(partner[owner[b, part]], true_owner[b, true_part])
    return right / len(scene)


def _complete(pairs: list[Tensor], nodes: Nodes, true_nodes: Nodes) -> Tensor:
    """(B,) bool: no node of either is left over."""
    number = torch.tensor([p.shape[1] for p in pairs])
    return (nodes.present.sum(1).cpu() == number) & (true_nodes.present.sum(1).cpu() == number)


def owners(scene: Scene) -> Tensor:
    """(B, N) index of the object that each part descends from."""
    owner = scene.levels[-1].parent
    for nodes in scene.levels[-2:0:-1]:
        owner = nodes.parent.gather(1, owner)
    return owner.cpu()


def ari_fg(scene: Scene, truth: Scene) -> float | None:
    """Adjusted Rand index of the objects' segments on the truth's foreground, mean over images.

    A pixel belongs to the present object with the largest mask. The foreground is where a true mask
    exceeds 1/2. Foreground that no inferred object covers at all is a segment of its own. Images
    without foreground are left out; were there no others, the index is 1.

    Returns:
        At most 1, about 0 for segments at random; None if masks are missing on either side.
    """
    if scene.objects.mask is None or truth.objects.mask is None:
        return None
    _same_length(scene.objects, truth.objects)
    scores = []
    for image in range(len(scene)):
        labels = _segments(scene.objects, image, above=0.0)
        true_labels = _segments(truth.objects, image, above=0.5)
        foreground = true_labels > 0
        if foreground.any():
            scores.append(adjusted_rand_index(true_labels[foreground], labels[foreground]))
    return sum(scores) / len(scores) if scores else 1.0


def _segments(nodes: Nodes, image: int, above: float) -> Tensor:
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
