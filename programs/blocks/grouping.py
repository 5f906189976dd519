"""Groups of points: average-link clustering of a map's present cells.

Clustering begins with each cell as a group. The two groups with the smallest mean distance between their
cells are joined, until that distance is above a threshold (Sokal, Michener, 1958; scipy's ``average``).

Shape legend: N cells, F features, K groups. Anything may stand to the left.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F


def linked(points: Tensor, present: Tensor, apart: float, groups: int, least: Tensor) -> Tensor:
    """(..., K, N) 1 for the group of each cell; the first group is the largest.

    A group of fewer cells than its cells ask for is dropped, and so are all groups after the K-th; the largest
    is kept. Cells of dropped groups, and cells that are not present, go to the group whose mean is nearest.

    Args:
        points: (..., N, F) features of the cells, in units in which distances are compared.
        present: (..., N) bool: the cells that are clustered.
        apart: mean distance up to which groups are joined.
        groups: K.
        least: (..., N) cells that each cell asks of its group, which needs their mean.
    """
    flat = points.detach().reshape(-1, *points.shape[-2:]).double().cpu().numpy()
    there = present.reshape(-1, present.shape[-1]).cpu().numpy()
    asked = least.detach().expand(present.shape).reshape(there.shape).cpu().numpy()
    maps = zip(flat, there, asked, strict=True)
    labels = torch.from_numpy(np.stack([_labels(x, e, n, apart, groups) for x, e, n in maps]))
    return F.one_hot(labels.view(present.shape), groups).mT.to(points)


def _labels(
    points: np.ndarray, present: np.ndarray, least: np.ndarray, apart: float, groups: int
) -> np.ndarray:
    """(N,) int64 group of each cell; 0 if no cell is present."""
    from scipy.cluster.hierarchy import fcluster, linkage

    some = points[present]
    if len(some) < 2:
        return np.zeros(len(points), dtype=np.int64)
    found = fcluster(linkage(some, "average"), apart, "distance") - 1
    sizes = np.bincount(found)
    asked = np.bincount(found, least[present]) / sizes
    order = np.argsort(-sizes, kind="stable")[:groups]
    kept = [g for k, g in enumerate(order) if sizes[g] >= asked[g] or k == 0]
    means = np.stack([some[found == g].mean(0) for g in kept])
    labels = np.square(points[:, None] - means).sum(-1).argmin(1)
    rank = np.full(len(sizes), -1)
    rank[kept] = np.arange(len(kept))
    labels[present] = np.where(rank[found] >= 0, rank[found], labels[present])
    return labels
