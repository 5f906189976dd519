"""Metrics of found nodes: counts, F1, structure, categories."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor

from programs.scene import Nodes, Scene


def comparable(scene: Scene, truth: Scene) -> tuple[Scene, Scene]:
    """Both with the same number of levels: if depths differ, the first and the last, or the first alone.

    Levels in between only determine which object owns a part.
    """
    if len(scene.levels) == len(truth.levels):
        return scene, truth
    if scene.parts is None or truth.parts is None:
        return replace(scene, levels=(scene.objects,)), replace(truth, levels=(truth.objects,))
    return _ends(scene), _ends(truth)


def _ends(scene: Scene) -> Scene:
    """The first and the last level, whose nodes descend from the first's."""
    parts = replace(scene.parts, parent=owners(scene))
    return replace(scene, levels=(scene.objects, parts))


def from_objects(scene: Scene) -> Scene:
    """The scene without the levels above its objects, whose parent indices are then meaningless."""
    return replace(scene, levels=scene.levels[-2:])


OBJECT_RADIUS = 20 / 128
"""Radius of a match of objects in the image frame, whose side is 2: 10 pixels at 128 x 128 (GSGN section
4)."""
PART_RADIUS = 10 / 128
"""Radius of a match of parts in the image frame: 5 pixels at 128 x 128 (GSGN section 4)."""
NAMES = ("part", "object", "group")
"""Names of levels, from the leaves up, in graphs of at least two levels."""


class Detection(NamedTuple):
    """Shares in [0, 1] of found nodes; a share of no nodes is 1."""

    precision: float
    """Share of the inferred nodes that are true."""
    recall: float
    """Share of the true nodes that are inferred."""
    f1: float
    """Share of matched nodes among inferred and true nodes together: the harmonic mean of the two."""


def level_names(number: int) -> tuple[str, ...]:
    """Names of the levels of a graph with `number` levels, from the root down.

    `Scene.objects` is the first level whatever its name.
    """
    if number == 1:
        return ("object",)
    above = tuple(f"level_{k + 1}" for k in range(number - len(NAMES)))
    return above + NAMES[:number][::-1]


def radii(number: int) -> tuple[float, ...]:
    """Radius of a match at every level, from the root down, in the image frame.

    It is the radius of parts, doubled with every level up; a single level has the radius of objects.
    """
    height = range(number - 1, -1, -1) if number > 1 else (1,)
    return tuple(PART_RADIUS * 2**k for k in height)


def count_accuracy(nodes: Nodes, true_nodes: Nodes) -> float:
    """Share of images with the true number of present nodes (GSGN, "counting accuracy")."""
    check_same_length(nodes, true_nodes)
    equal = nodes.present.sum(1).cpu() == true_nodes.present.sum(1).cpu()
    return float(equal.double().mean())


def count_errors(scene: Scene, truth: Scene) -> dict[str, float]:
    """Shares of images with too many objects, `object_count_over`, and too few, `object_count_under`."""
    nodes, true_nodes = (from_objects(s).objects for s in comparable(scene, truth))
    check_same_length(nodes, true_nodes)
    surplus = nodes.present.sum(1).cpu() - true_nodes.present.sum(1).cpu()
    signs = {"object_count_over": surplus > 0, "object_count_under": surplus < 0}
    return {name: float(wrong.double().mean()) for name, wrong in signs.items()}


def match(nodes: Nodes, true_nodes: Nodes, radius: float) -> list[Tensor]:
    """Pair inferred with true nodes one to one, both present, centres at most `radius` apart.

    The number of pairs is the largest possible, and the sum of distances the least for that number.

    Args:
        nodes: inferred, N slots.
        true_nodes: M slots.
        radius: in the image frame.
    Returns:
        For each image (2, K) int64 on the CPU: inferred slots, and the true slots matched with them.
    """
    from scipy.optimize import linear_sum_assignment

    check_same_length(nodes, true_nodes)
    pairs = []
    for (slot, centre), (true_slot, true_centre) in zip(
        _present(nodes), _present(true_nodes), strict=True
    ):
        distance = (centre[:, None] - true_centre).norm(dim=-1)
        near = distance <= radius
        bonus = 1 + radius * min(distance.shape)  # outweighs the cost of any further pair
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

    Without inferred nodes precision is 1, without true nodes recall is 1, without both F1 is 1.
    """
    hits = sum(pairs.shape[1] for pairs in match(nodes, true_nodes, radius))
    number, true_number = int(nodes.present.sum()), int(true_nodes.present.sum())
    return Detection(
        precision=_share(hits, number),
        recall=_share(hits, true_number),
        f1=_share(2 * hits, number + true_number),
    )


def structure_accuracy(scene: Scene, truth: Scene) -> float:
    """Share of images whose inferred tree is right (GSGN section 4, where 100 images are judged by eye).

    A tree is right if at every level `match` within that level's radius (`radii`) leaves no present node,
    inferred or true, without a partner, and if every inferred node below the first level belongs to the
    partner of its partner's owner. If the scenes have different depths, only objects and parts are compared
    (`comparable`).

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
            parent, true_parent = (nodes.parent[b].cpu() for nodes in below)
            right[b] = _same_owners(parent, true_parent, above_pairs[b], own_pairs[b])
    return float(right.double().mean())


def _same_owners(parent: Tensor, true_parent: Tensor, above: Tensor, own: Tensor) -> bool:
    """Whether matched nodes, `own` (2, K), have matched parents, `above` (2, L), in one image."""
    partner = dict(zip(*above.tolist(), strict=True))  # an absent parent has none
    return [partner.get(p) for p in parent[own[0]].tolist()] == true_parent[own[1]].tolist()


def _complete(pairs: list[Tensor], nodes: Nodes, true_nodes: Nodes) -> Tensor:
    """(B,) bool: every present node of either has a partner."""
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

    In an image a label counts as found as often as it occurs among the renamed inferred categories, at most
    as often as in truth (Discrete-AIR, appendix D). Without true labels the share is 1.
    """
    common, pairs = _naming(nodes, true_nodes)
    found = sum(int(common[k, label]) for k, label in pairs.items())
    return _share(found, int(label_counts(true_nodes).sum()))


def category_names(nodes: Nodes, true_nodes: Nodes) -> dict[int, int]:
    """The true label of each inferred category, under the naming of `category_correspondence`.

    Categories that find no label in any image, and surplus categories, have none.
    """
    common, pairs = _naming(nodes, true_nodes)
    return {k: label for k, label in pairs.items() if common[k, label] > 0}


def _naming(nodes: Nodes, true_nodes: Nodes) -> tuple[Tensor, dict[int, int]]:
    """Labels that each inferred category finds (categories, labels), and the best one-to-one naming.

    The best of all namings is an assignment problem, solved exactly.
    """
    from scipy.optimize import linear_sum_assignment

    check_same_length(nodes, true_nodes)
    counts, true_counts = label_counts(nodes), label_counts(true_nodes)  # (B, categories)
    common = torch.minimum(counts[:, :, None], true_counts[:, None]).sum(0)
    pairs = zip(*linear_sum_assignment(common.numpy(), maximize=True), strict=True)
    return common, {int(k): int(label) for k, label in pairs}


def confusion(
    nodes: Nodes, true_nodes: Nodes, labels: int, categories: int, radius: float = OBJECT_RADIUS
) -> Tensor:
    """(labels, categories) int64: number of objects of each true label with each inferred category.

    Only objects that `match` pairs within the radius count.
    """
    table = torch.zeros(labels, categories, dtype=torch.int64)
    for image, (slots, true_slots) in enumerate(match(nodes, true_nodes, radius)):
        label = true_nodes.category[image].cpu()[true_slots]
        category = nodes.category[image].cpu()[slots]
        table.index_put_((label, category), torch.ones_like(label), accumulate=True)
    return table


def label_counts(nodes: Nodes) -> Tensor:
    """(B, categories) number of nodes of each category per image."""
    category = nodes.category.where(nodes.present, -1).cpu()
    return (category[..., None] == torch.arange(max(1, int(category.max()) + 1))).sum(1)


def _share(part: int, whole: int) -> float:
    return part / whole if whole else 1.0


def check_same_length(nodes: Nodes, true_nodes: Nodes) -> None:
    """Raise a ValueError unless both have the same number of images."""
    number, true_number = len(nodes.pres), len(true_nodes.pres)
    if number != true_number:
        raise ValueError(
            f"{number} inferred scenes but {true_number} true ones: give both of the same images"
        )
