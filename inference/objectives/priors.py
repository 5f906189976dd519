"""Fixed priors of auxiliary KLs."""

from __future__ import annotations

import math
from dataclasses import dataclass

import pyro.distributions as dist
import torch
from torch import Tensor
from torch.distributions import kl_divergence

MIXTURE_SAMPLES = 100
"""Number of posterior draws for a KL to a mixture (GSGN D.3)."""


@dataclass(frozen=True)
class Gaussian:
    """N(mean, sd²), independent over the features of a site."""

    mean: float
    sd: float

    def kl(self, q: dist.TorchDistribution) -> Tensor:
        """KL(q ‖ self), of q's batch shape, in nats."""
        base = q.base_dist if isinstance(q, dist.Independent) else q
        loc = torch.full_like(base.loc, self.mean)
        p = dist.Normal(loc, torch.full_like(loc, self.sd)).to_event(q.event_dim)
        return kl_divergence(q, p)


@dataclass(frozen=True)
class Sparse:
    """Bernoulli with a logit: -23.03 is the paper's success probability of 1e-10 (GSGN Table 6)."""

    logit: float

    def kl(self, q: dist.TorchDistribution) -> Tensor:
        """KL(q ‖ self), of q's batch shape, in nats."""
        p = dist.Bernoulli(logits=torch.full_like(q.logits, self.logit))
        return kl_divergence(dist.Bernoulli(logits=q.logits), p)


@dataclass(frozen=True)
class Mixture:
    """Σ_k w_k N(mean_k, sd_k² 1): one component for all features of a site (GSGN Tables 8, 9)."""

    weights: tuple[float, ...]
    means: tuple[float, ...]
    sds: tuple[float, ...]

    def kl(self, q: dist.TorchDistribution) -> Tensor:
        """KL(q ‖ self): the entropy in closed form, the cross-entropy by `MIXTURE_SAMPLES` draws."""
        z = q.rsample((MIXTURE_SAMPLES,))
        features = q.event_shape.numel()
        # squared distances to all components from two sums over features: no (draws, …, D, K) array
        first, second = (z, z.square()) if q.event_dim == 0 else (z.sum(-1), z.square().sum(-1))
        components = []
        for weight, mean, sd in zip(self.weights, self.means, self.sds, strict=True):
            squares = second - 2 * mean * first + features * mean**2
            normaliser = math.log(weight) - 0.5 * features * math.log(2 * math.pi * sd**2)
            components.append(normaliser - 0.5 * squares / sd**2)
        return -q.entropy() - torch.stack(components).logsumexp(0).mean(0)


Prior = Gaussian | Sparse | Mixture
