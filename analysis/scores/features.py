"""Feature nets for Fréchet distances: callables of images (B, C, H, W) in [0, 1] that return (B, F)."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

CHANNELS, SEED = (32, 64, 64), 0


@torch.no_grad()
def random_convolutions(images: Tensor) -> Tensor:
    """(B, 128) means and standard deviations of three layers of random, orthogonal 3×3 filters.

    The filters are fixed by a seed and equal for all image sizes; they respond to colours, edges and their
    arrangement within 15 pixels. A distance on these features ranks models of one data set; it cannot be
    compared with papers' FID.
    """
    generator = torch.Generator().manual_seed(SEED)
    x = images
    for number in CHANNELS:
        weight = torch.empty(number, x.shape[1] * 9)
        weight = torch.nn.init.orthogonal_(weight, 2**0.5, generator=generator)
        x = F.conv2d(x, weight.view(number, -1, 3, 3).to(x), stride=2, padding=1).relu()
    return torch.cat([x.mean((2, 3)), x.std((2, 3), correction=0)], 1)
