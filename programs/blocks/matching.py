"""Templates matched to pictures: which to try, log-likelihoods, the best places. Nothing here samples.

Shape legend: B images, C channels, H x W pixels of an image, h x w of a template, G groups of N templates, M
places.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor
from torch.distributions import Normal
from torch.nn import functional as F


def tried(number: int, sd: float) -> Tensor:
    """(number) values at equal steps of the probability of N(0, sd²), symmetric about 0."""
    return Normal(0.0, sd).icdf((torch.arange(number) + 0.5) / number)


def log_likelihoods(seen: Tensor, expected: Tensor) -> Tensor:
    """(B, ...) log N(seen; expected, 1) up to a term of `seen` alone.

    Args:
        seen: (B, C, h, w).
        expected: (..., C, h, w).
    """
    pixels = expected.flatten(-3)
    product = torch.tensordot(seen.flatten(1), pixels, dims=([1], [-1]))
    return product - 0.5 * pixels.square().sum(-1)


def variations(ways: Tensor) -> Tensor:
    """Ways (..., A, C, h, w) in which a template varies with A numbers, turned so that they are orthogonal.

    Numbers from N(0, I) stay such numbers.
    """
    flat = ways.flatten(-3)
    return (torch.linalg.eigh(flat @ flat.mT).eigenvectors.mT @ flat).view_as(ways)


def log_likelihoods_beyond(
    seen: Tensor, expected: Tensor, ways: Tensor, precision: Tensor
) -> Tensor:
    """(B, ...) what is added to log N(seen; expected, 1 / precision) if the template varies.

    It is the log of the mean of N(seen; expected + Σ_a z_a ways_a, 1 / precision) over z from N(0, I), as in
    factor analysis, less that without ways.

    Args:
        seen: (B, C, h, w).
        expected: (..., C, h, w).
        ways: (..., A, C, h, w), orthogonal.
        precision: (B) of every pixel.
    """
    pixels, still = ways.flatten(-3), expected.flatten(-3)
    product = torch.tensordot(seen.flatten(1), pixels, dims=([1], [-1]))
    product = product - (pixels @ still.unsqueeze(-1)).squeeze(-1)
    precision = precision.view(-1, *[1] * (ways.ndim - 3))
    gained = 1 + precision * pixels.square().sum(-1)
    return 0.5 * ((precision * product).square() / gained - gained.log()).sum(-1)


class Found(NamedTuple):
    """Places at which one of several templates, or a dimmer one, explains more than beside them."""

    place: Tensor
    """(B, M) the pixel y W + x in its middle"""
    pictures: Tensor
    """(B, M, C, H, W) the template there, dimmed as is best; 0 outside of it"""
    explained: Tensor
    """(B, M) what the picture adds"""


def peaks(images: Tensor, templates: Tensor, number: int) -> Found:
    """Per group of templates, the places at which its best one adds most to a log-likelihood of variance 1.

    The best one may be dimmer there, down to nothing: else one that covers more than twice an object's area
    explains nothing of it.

    Args:
        images: (B, C, H, W).
        templates: (G, N, C, h, h), h odd, in pixels of `images`.
        number: places per group, so M is G times it.
    """
    (rows, columns), half = images.shape[-2:], templates.shape[-1] // 2
    square = templates.square().sum((-3, -2, -1)).clamp(min=1e-6)
    whole = F.conv2d(images, templates.flatten(0, 1), -0.5 * square.flatten(), padding=half)
    whole = whole.unflatten(1, square.shape)
    _, gain = dimmed(whole.amax(2), square.mean(1)[:, None, None])  # one square will do here
    highest = gain.where(gain == F.max_pool2d(gain, 3, 1, 1), -1).flatten(2)
    place = highest.topk(number, -1).indices
    there = whole.flatten(3).gather(3, place.unsqueeze(2).expand(-1, -1, square.shape[1], -1))
    best, which = there.max(2)
    group = torch.arange(len(templates), device=images.device)[:, None]
    share, gain = dimmed(best, square[group, which])
    patches = (share[..., None, None, None] * templates[group, which]).flatten(1, 2)
    place = place.flatten(1)
    pictures = put(patches, place // columns, place % columns, rows, columns)
    return Found(place, pictures, gain.flatten(1))


def dimmed(whole: Tensor, square: Tensor) -> tuple[Tensor, Tensor]:
    """The best share of a template's brightness, and what the template then adds.

    Args:
        whole: what it adds at full brightness.
        square: the sum of its squared pixels.
    """
    product = (whole + 0.5 * square).clamp(min=0)
    share = (product / square).clamp(max=1)
    return share, share * (product - 0.5 * share * square)


def put(patches: Tensor, y: Tensor, x: Tensor, rows: int, columns: int) -> Tensor:
    """(B, M, C, rows, columns) patches (B, M, C, h, h) with their middles at the pixels y and x (B, M)."""
    (several, number, channels, side), half = patches.shape[:4], patches.shape[-1] // 2
    wide = patches.new_zeros(several, number, channels, rows + side - 1, columns + side - 1)
    span = torch.arange(side, device=patches.device)
    index = [torch.arange(n, device=patches.device) for n in (several, number, channels)]
    down, across = y[..., None, None, None] + span[:, None], x[..., None, None, None] + span
    i, j, k = index[0].view(-1, 1, 1, 1, 1), index[1].view(-1, 1, 1, 1), index[2].view(-1, 1, 1)
    wide[i, j, k, down, across] = patches
    return wide[..., half : half + rows, half : half + columns]


def together(own: Tensor, overlap: Tensor, most: int, width: int = 64) -> Tensor:
    """(B, most) the pictures whose sum explains an image best, found by beam search; M for none.

    Args:
        own: (B, M) what each adds to the log-likelihood by itself.
        overlap: (B, M, M) inner products of pictures: what two of them add less than each by itself.
        most: members of a set.
        width: sets that are kept.
    """
    never_twice = torch.full_like(own, math.inf).diag_embed()
    overlap = F.pad(overlap + never_twice, (0, 1, 0, 1))  # the last one is no picture at all
    left, total = F.pad(own, (0, 1)).unsqueeze(1), own.new_zeros(len(own), 1)
    members = torch.zeros(len(own), 1, 0, dtype=torch.long, device=own.device)
    rows = torch.arange(len(own), device=own.device)[:, None]
    for _ in range(most):
        value = (total.unsqueeze(-1) + left).flatten(1)
        total, which = value.topk(min(width, value.shape[-1]))
        parent, new = which // left.shape[-1], which % left.shape[-1]
        members = torch.cat([members[rows, parent], new.unsqueeze(-1)], -1)
        left = left[rows, parent] - overlap[rows, new]
    return members[:, 0]
