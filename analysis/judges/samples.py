"""Comparisons of two samples: histograms, features, and a classifier two-sample test.

Shape legend: n, m draws of either sample, F features.
"""

from __future__ import annotations

import torch
from torch import Tensor

FOLDS = 5
"""Folds of the two-sample test: each is classified by a net trained on the others."""
NEIGHBOURS = 3
"""k, the neighbours in precision and recall."""


def total_variation(one: Tensor, other: Tensor) -> float:
    """Half the sum of absolute differences of two samples' histograms: (n,) and (m,) whole numbers from 0.

    It is 1 if one sample is empty, 0 if both are.
    """
    if not len(one) or not len(other):
        return float(len(one) != len(other))
    length = 1 + int(max(one.max(), other.max()))
    p, q = (x.bincount(minlength=length).double() / len(x) for x in (one, other))
    return float((p - q).abs().sum() / 2)


def told_apart(one: Tensor, other: Tensor, seed: int = 0) -> float:
    """Accuracy of logistic regression on two samples (n, F) and (m, F) (Lopez-Paz, Oquab, 2017).

    It is measured on held-out folds with equal weights of both classes: 0.5 if the samples cannot be told
    apart, 1 if they always can.
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

    A sample covers the balls around its points up to their `NEIGHBOURS`-th neighbour (Kynkäänniemi et al.,
    2019).
    """
    return _within(drawn, true), _within(true, drawn)


def _within(points: Tensor, sample: Tensor) -> float:
    radius = torch.cdist(sample, sample).kthvalue(min(NEIGHBOURS + 1, len(sample)), dim=1).values
    return float((torch.cdist(points, sample) <= radius).any(1).double().mean())
