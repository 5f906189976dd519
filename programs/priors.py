"""Priors whose parameters are learned, of latents of any program: a call gives the distribution.

    gaussian(D)     p(z) = N(z | μ, diag σ²)
    mixture(D, K)   p(z) = Σ_k w_k N(z | μ_k, diag σ_k²)

They are parts of a program, which samples ``pyro.sample("z_what", self.prior())`` within its plates. They learn
with it, by the evidence lower bound, or after it, by `inference.empirical.fit`.

Why a mixture: draws of the guide over all images lie in clusters, where images are of several kinds. A Gaussian
has most of its mass between them, where no image is; a picture of what is drawn there is of no kind.

Shape legend: D features, K components, N draws.
"""

from __future__ import annotations

import math

import pyro.distributions as dist
import torch
from torch import Tensor, nn

from programs.distributions import normal, positive

UNIT = math.log(math.e - 1)
"""A deviation of 1, before softplus."""
NARROWEST = 0.05
"""Of deviations where a fit begins: below it a feature says nothing."""


class Mixture(dist.MixtureSameFamily):
    """A mixture of Gaussians that has a mode: the mean of its heaviest component."""

    @property
    def mode(self) -> Tensor:
        """(..., D) the mean of the component of the largest weight."""
        best = self.mixture_distribution.logits.argmax(-1)
        means = self.component_distribution.mean
        index = best[..., None, None].expand(*best.shape, 1, means.shape[-1])
        return means.gather(-2, index).squeeze(-2)


class LearnedGaussian(nn.Module):
    """N(μ, diag σ²), N(0, 1) at first."""

    def __init__(self, features: int) -> None:
        super().__init__()
        self.loc = nn.Parameter(torch.zeros(features))
        self.spread = nn.Parameter(torch.full((features,), UNIT))

    def forward(self) -> dist.TorchDistribution:
        """Of event (D)."""
        return normal(self.loc, positive(self.spread))

    @torch.no_grad()
    def begin(self, draws: Tensor) -> None:
        """Where a fit begins: mean and deviation of draws (N, D)."""
        self.loc.copy_(draws.mean(0))
        self.spread.copy_(raw(draws.std(0)))


class LearnedMixture(nn.Module):
    """Σ_k w_k N(μ_k, diag σ_k²); at first weights are alike, deviations 1, and means drawn from N(0, 1)."""

    def __init__(self, features: int, components: int) -> None:
        super().__init__()
        self.logits = nn.Parameter(torch.zeros(components))
        self.loc = nn.Parameter(torch.randn(components, features))
        self.spread = nn.Parameter(torch.full((components, features), UNIT))

    def forward(self) -> dist.TorchDistribution:
        """Of event (D)."""
        weights = dist.Categorical(logits=self.logits)
        return Mixture(weights, normal(self.loc, positive(self.spread)))

    @torch.no_grad()
    def begin(self, draws: Tensor) -> None:
        """Where a fit begins: parts of the draws (N, D), by k-means, each with its mean and deviations."""
        centres = apart(draws, len(self.loc))
        for _ in range(ROUNDS):
            nearest = distance(draws, centres).argmin(1)
            share = torch.nn.functional.one_hot(nearest, len(centres)).to(draws.dtype)
            count = share.sum(0).clamp(min=1)[:, None]
            centres = torch.where(share.sum(0)[:, None] > 0, share.T @ draws / count, centres)
        squares = (share.T @ draws.square() / count - centres.square()).clamp(min=0)
        self.logits.copy_((share.mean(0) + 1e-3).log())
        self.loc.copy_(centres)
        self.spread.copy_(raw(squares.sqrt()))


ROUNDS = 20
"""Of moving the parts' centres (Lloyd, 1982)."""


def distance(draws: Tensor, centres: Tensor) -> Tensor:
    """(N, K) in deviations of the draws (N, D) in each feature."""
    unit = draws.std(0).clamp(min=1e-6)
    return torch.cdist(draws / unit, centres / unit)


def apart(draws: Tensor, number: int) -> Tensor:
    """(K, D) of the draws (N, D), as k-means++ chooses them (Arthur, Vassilvitskii, 2007)."""
    chosen = draws[torch.randint(len(draws), (1,))]
    for _ in range(number - 1):
        square = distance(draws, chosen).amin(1).square() + 1e-12
        chosen = torch.cat([chosen, draws[torch.multinomial(square, 1)]])
    return chosen


def raw(sd: Tensor) -> Tensor:
    """What `positive` makes deviations of, at least `NARROWEST`."""
    return sd.clamp(min=NARROWEST).expm1().log()


def learned(features: int, components: int = 1) -> LearnedGaussian | LearnedMixture:
    """A Gaussian, or a mixture of several."""
    return LearnedMixture(features, components) if components > 1 else LearnedGaussian(features)
