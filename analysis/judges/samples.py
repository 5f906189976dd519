"""Two samples compared: histograms, features, and whether a classifier tells one from the other.

Shape legend: n, m draws of either sample, F features.
"""

from __future__ import annotations

import torch
from torch import Tensor

FOLDS = 5
"""Parts of the two-sample test: each is classified by what was learned from the others."""
NEIGHBOURS = 3
"""k of precision and recall."""


def total_variation(one: Tensor, other: Tensor) -> float:
    """Half the sum of absolute differences of two samples' histograms: (n,) and (m,) whole numbers from 0.

    Of an empty sample and another it is 1, of two empty ones 0.
    """
    if not len(one) or not len(other):
        return float(len(one) != len(other))
    length = 1 + int(max(one.max(), other.max()))
    p, q = (x.bincount(minlength=length).double() / len(x) for x in (one, other))
    return float((p - q).abs().sum() / 2)


def told_apart(one: Tensor, other: Tensor, seed: int = 0) -> float:
    """Share of two samples (n, F) and (m, F) that logistic regression names right (Lopez-Paz, Oquab, 2017).

    It is measured on what was not learned from, classes being alike in weight: 0.5 where nothing tells the two
    apart, 1 where everything does.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import StratifiedKFold, cross_val_predict
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    x = torch.cat([one, other]).double().numpy()
    y = torch.cat([torch.zeros(len(one)), torch.ones(len(other))]).numpy()
    net = make_pipeline(
        StandardScaler(), LogisticRegression(C=0.1, max_iter=500, class_weight="balanced")
    )
    folds = StratifiedKFold(FOLDS, shuffle=True, random_state=seed)
    right = cross_val_predict(net, x, y, cv=folds) == y
    return float((right[y == 0].mean() + right[y == 1].mean()) / 2)


def precision_recall(drawn: Tensor, true: Tensor) -> tuple[float, float]:
    """Share of drawn features (n, F) that lie among true ones (m, F), and of true ones among drawn ones.

    A sample covers the balls around its points that reach to their `NEIGHBOURS`-th neighbour (Kynkäänniemi et
    al., 2019).
    """
    return _within(drawn, true), _within(true, drawn)


def _within(points: Tensor, sample: Tensor) -> float:
    radius = torch.cdist(sample, sample).kthvalue(min(NEIGHBOURS + 1, len(sample)), dim=1).values
    return float((torch.cdist(points, sample) <= radius).any(1).double().mean())
