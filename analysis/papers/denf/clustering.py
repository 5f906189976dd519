"""Segments from colours alone: k-means on colour and position, and connected components.

This is a baseline of unsupervised decomposition; compare it with a run's `ari_fg` on the same scenes. In
every image, pixels are clustered by colour, and place times `PLACES`, into each of `NUMBERS` clusters; the
largest is the background. Segments are the clusters, or the connected components of each. The foreground
ARI of all settings is printed, the best last. The best is chosen with the truth, which no compared method
uses.

Shape legend: B images, K slots, H x W pixels.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from analysis.scores import ari_fg
from inference.images.dataset import Dataset
from programs.blocks import render
from programs.scene import Nodes, Scene

NUMBERS = (4, 6, 8, 10)
PLACES = (0.0, 0.3, 1.0)
"""Weights of places in [-1, 1], relative to colours in [0, 1]."""
LEAST = 0.002
"""Least share of the image that a component covers."""


def clustered(images: Tensor, number: int, place: float, connected: bool, seed: int = 0) -> Scene:
    """Segments of images (B, C, H, W) in [0, 1] as a Scene of one level."""
    labels = [_labels(image, number, place, connected, seed) for image in images.cpu().numpy()]
    slots = max(1, *(int(label.max()) for label in labels))
    seen = torch.from_numpy(np.stack(labels))[:, None]
    mask = (seen == torch.arange(1, slots + 1)[:, None, None]).float()
    pres = mask.flatten(2).any(-1).float()
    zeros = torch.zeros_like(pres)
    nodes = Nodes(pres, render.box(mask), zeros, zeros.long(), mask=mask)
    return Scene(images, (nodes,))


def _labels(image: np.ndarray, number: int, place: float, connected: bool, seed: int) -> np.ndarray:
    """(H, W) 0 for the background, or 1 + the slot."""
    from scipy.ndimage import label
    from sklearn.cluster import KMeans

    _, height, width = image.shape
    y, x = np.mgrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j]
    pixels = np.concatenate([image, place * np.stack([x, y])]).reshape(-1, height * width).T
    # with fewer colours than clusters, the surplus clusters are empty
    number = min(number, len(np.unique(pixels, axis=0)))
    found = KMeans(number, n_init=1, random_state=seed).fit_predict(pixels).reshape(height, width)
    order = np.bincount(found.ravel(), minlength=number).argsort()[::-1]
    rank = order.argsort()[found]  # 0: the largest
    if not connected:
        return rank
    labels, used = np.zeros_like(rank), 0
    for k in range(1, number):
        parts, several = label(rank == k)
        for part in range(1, several + 1):
            own = parts == part
            if own.mean() >= LEAST:
                used += 1
                labels[own] = used
    return labels


def sweep(data: Dataset, seed: int = 0) -> dict[str, float]:
    """Foreground ARI of all settings, worst first."""
    images, truth = data.floats(), data.truth()
    found = {}
    for connected in (False, True):
        for number in NUMBERS:
            for place in PLACES:
                name = f"{'components' if connected else 'clusters'} K={number} place={place}"
                found[name] = ari_fg(clustered(images, number, place, connected, seed), truth)
    return dict(sorted(found.items(), key=lambda pair: pair[1]))
