"""Independent answers to what the project computes: slow, by loops and dense algebra, sharing no code."""

import math

import torch
from torch import Tensor


def affine(where: list[float], scale: list[float], theta: float) -> Tensor:
    """R(theta) diag(scale) | where, entry by entry."""
    c, s = math.cos(theta), math.sin(theta)
    return torch.tensor(
        [[c * scale[0], -s * scale[1], where[0]], [s * scale[0], c * scale[1], where[1]]]
    )


def bilinear(picture: Tensor, x: float, y: float) -> Tensor:
    """The picture (C, H, W) at frame coordinates (x, y), zero outside, pixel by pixel."""
    _, height, width = picture.shape
    column, row = (x + 1) * width / 2 - 0.5, (y + 1) * height / 2 - 0.5
    value = torch.zeros(picture.shape[0], dtype=picture.dtype)
    for j in (math.floor(row), math.floor(row) + 1):
        for i in (math.floor(column), math.floor(column) + 1):
            if 0 <= i < width and 0 <= j < height:
                value += picture[:, j, i] * (1 - abs(column - i)) * (1 - abs(row - j))
    return value


def composite(patches: Tensor, pres: Tensor, depth: Tensor) -> Tensor:
    """GSGN eqs. 5, 6, 21, 22 by loops: patches (K, C + 1, H, W) placed -> (C + 1, H, W)."""
    number, channels, height, width = patches.shape
    out = torch.zeros(channels, height, width, dtype=patches.dtype)
    for j in range(height):
        for i in range(width):
            masks = [float(pres[k] * patches[k, -1, j, i]) for k in range(number)]
            weights = [m * math.exp(-float(depth[k])) for k, m in enumerate(masks)]
            for k in range(number):
                alpha = weights[k] / sum(weights) if sum(weights) > 0 else 0.0
                out[:-1, j, i] += pres[k] * alpha * patches[k, :-1, j, i]
                out[-1, j, i] += alpha * masks[k]
    return out


def mixture_log_prob(
    x: Tensor, fg: Tensor, bg: Tensor, m: Tensor, s_fg: float, s_bg: float
) -> float:
    """GSGN eq. 7 by loops over pixels: images (C, H, W), mixing (1, H, W)."""
    total = 0.0
    for j in range(x.shape[1]):
        for i in range(x.shape[2]):
            densities = []
            for mean, sigma in ((fg, s_fg), (bg, s_bg)):
                density = 1.0
                for c in range(x.shape[0]):
                    z = float(x[c, j, i] - mean[c, j, i]) / sigma
                    density *= math.exp(-0.5 * z * z) / (sigma * math.sqrt(2 * math.pi))
                densities.append(density)
            weight = float(m[0, j, i])
            total += math.log(weight * densities[0] + (1 - weight) * densities[1])
    return total
