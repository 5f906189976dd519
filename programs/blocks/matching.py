"""Templates matched to pictures: which transformations to try, blurring, log-likelihoods. Nothing here samples.

Shape legend: B images, C channels, H x W pixels of an image, h x w of a template.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.distributions import Normal
from torch.nn import functional as F


def tried(number: int, sd: float) -> Tensor:
    """(number) values at equal steps of the probability of N(0, sd²), symmetric about 0."""
    return Normal(0.0, sd).icdf((torch.arange(number) + 0.5) / number)


def blurred(pictures: Tensor, times: int) -> Tensor:
    """Pictures (..., H, W) after `times` binomial filters (1, 2, 1) / 4 along both axes, 0 outside.

    One filter is about a Gaussian of standard deviation 0.7 pixels.
    """
    flat = pictures.reshape(-1, 1, *pictures.shape[-2:])
    for _ in range(times):
        flat = F.avg_pool2d(F.pad(flat, (1, 1, 1, 1)), 2, 1)
        flat = F.avg_pool2d(flat, 2, 1)
    return flat.reshape(pictures.shape)


def log_likelihoods(seen: Tensor, expected: Tensor) -> Tensor:
    """(B, ...) log N(seen; expected, 1) up to a term of `seen` alone.

    Args:
        seen: (B, C, h, w).
        expected: (..., C, h, w).
    """
    pixels = expected.flatten(-3)
    product = torch.tensordot(seen.flatten(1), pixels, dims=([1], [-1]))
    return product - 0.5 * pixels.square().sum(-1)


def gains(images: Tensor, templates: Tensor) -> Tensor:
    """(B, 1, H, W) the largest log-likelihood, under unit variance, that a template about a pixel would add.

    A template may be dimmer there, down to nothing: else one that covers more than twice an object's area
    explains nothing of it.

    Args:
        images: (B, C, H, W) what is not explained yet.
        templates: (N, C, h, h), h odd, in pixels of `images`.
    """
    product = F.conv2d(images, templates, padding=templates.shape[-1] // 2).clamp(min=0)
    square = templates.square().sum((-3, -2, -1))[:, None, None].clamp(min=1e-6)
    share = (product / square).clamp(max=1)  # of the template's brightness, the best one
    gain = share * (product - 0.5 * share * square)
    return gain.amax(1, keepdim=True)
