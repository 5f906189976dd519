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
NARROWEST = 1e-3
"""Of deviations where a fit begins."""


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
        """Where a fit begins: the draws (N, D) by expectation maximisation (Dempster et al., 1977)."""
        middle, unit = draws.mean(0), draws.std(0).clamp(min=1e-6)
        x = (draws - middle) / unit
        loc = x[torch.randint(len(x), (len(self.loc),))]
        sd, weights = torch.full_like(loc, START), torch.full_like(self.logits, 1 / len(loc))
        for _ in range(ROUNDS):
            share = (weights.log() + log_normal(x, loc, sd)).softmax(1)
            number = share.sum(0) + 1e-6
            loc = share.T @ x / number[:, None]
            squares = share.T @ x.square() / number[:, None] - loc.square()
            sd, weights = squares.clamp(min=LEAST**2).sqrt(), number / number.sum()
        self.logits.copy_(weights.log())
        self.loc.copy_(middle + unit * loc)
        self.spread.copy_(raw(unit * sd))


ROUNDS, START, LEAST = 60, 0.7, 0.03
"""Of expectation maximisation: rounds, and deviations at first and at least, in those of the draws."""


def log_normal(x: Tensor, loc: Tensor, sd: Tensor) -> Tensor:
    """(N, K) log N(x | μ_k, diag σ_k²) of x (N, D), without an array (N, K, D)."""
    precision = sd**-2
    squares = x.square() @ precision.T - 2 * x @ (loc * precision).T
    constant = (loc.square() * precision).sum(1) + 2 * sd.log().sum(1)
    return -0.5 * (squares + constant + x.shape[1] * math.log(2 * math.pi))


def raw(sd: Tensor) -> Tensor:
    """What `positive` makes deviations of, at least `NARROWEST`."""
    return sd.clamp(min=NARROWEST).expm1().log()


def learned(features: int, components: int = 1) -> LearnedGaussian | LearnedMixture:
    """A Gaussian, or a mixture of several."""
    return LearnedMixture(features, components) if components > 1 else LearnedGaussian(features)
