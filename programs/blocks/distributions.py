"""Distributions, their KLs, and gates, shared by programs and guides.

Presence lives in logit space: a prior of 1e-10 is ``Bernoulli(logits=-23.03)``, because float32 clamps
``probs=1e-10`` to 1.2e-7, which is 7 nats short. Programs only ever say ``Bernoulli(logits=...)``; how
gradients pass it is the business of `inference.estimators`.

Shape legend: B images, N nodes, C channels, H x W pixels.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import ClassVar

import pyro.distributions as dist
import torch
from pyro.distributions.util import is_identically_one
from pyro.poutine.messenger import Messenger
from torch import Tensor
from torch.distributions import constraints, register_kl
from torch.nn import functional as F

PRESENCE_BOUND = 8.8
"""Largest magnitude of a presence logit, as in SPACE's code."""


def bounded(logits: Tensor, bound: float = PRESENCE_BOUND) -> Tensor:
    """Hold logits within ±`bound` smoothly; a hard clamp has no gradient and never lets go."""
    return bound * torch.tanh(logits / bound)


def normal(loc: Tensor, scale: Tensor, event_dim: int = 1) -> dist.TorchDistribution:
    """A Gaussian with diagonal covariance over the last `event_dim` dimensions."""
    return dist.Normal(loc, scale).to_event(event_dim)


def positive(raw: Tensor, floor: float = 1e-4) -> Tensor:
    """Standard deviation from an unconstrained output, by softplus (GSGN D.1), at least `floor`."""
    return F.softplus(raw) + floor


def gaussian(raw: Tensor) -> dist.TorchDistribution:
    """Unconstrained numbers (..., 2 D) as a Gaussian of batch (...) and event (D): means, then deviations."""
    loc, spread = raw.chunk(2, -1)
    return normal(loc, positive(spread))


def leaning(loc: Tensor, scale: Tensor, lean: Tensor | None = None) -> dist.TorchDistribution:
    """A Gaussian N(loc, A Aᵀ), A = diag(scale) (1 + L), L strictly lower triangular; diagonal without `lean`.

    Args:
        loc, scale: (..., D).
        lean: (..., D (D - 1) / 2) the entries of L, row by row.
    """
    if lean is None:
        return normal(loc, scale)
    size = loc.shape[-1]
    rows, columns = torch.tril_indices(size, size, -1, device=loc.device)
    tilt = torch.eye(size, device=loc.device).expand(*loc.shape, size).clone()
    tilt[..., rows, columns] = lean
    return dist.MultivariateNormal(loc, scale_tril=scale.unsqueeze(-1) * tilt)


def doubtful(
    loc: Tensor, scale: Tensor, lean: Tensor, doubt: Tensor, wider: float = 8.0
) -> dist.TorchDistribution:
    """(1 - δ) N(loc, A Aᵀ) + δ N(loc, wider² A Aᵀ), A as in `leaning`: a guide that sometimes looks elsewhere.

    Without the wide part, the few places that are far off would make all others wide.

    Args:
        loc, scale: (..., D).
        lean: (..., D (D - 1) / 2).
        doubt: (...) logit of δ.
    """
    scales = torch.stack([scale, wider * scale], -2)
    parts = leaning(
        loc.unsqueeze(-2).expand_as(scales),
        scales,
        lean.unsqueeze(-2).expand(*scales.shape[:-1], -1),
    )
    return dist.MixtureSameFamily(
        dist.Categorical(logits=torch.stack([-doubt, doubt], -1) / 2), parts
    )


def pairs(features: int) -> int:
    """Number of pairs of features."""
    return features * (features - 1) // 2


def product(p: dist.TorchDistribution, q: dist.TorchDistribution) -> dist.TorchDistribution:
    """The normalised product of two densities or masses of the same family (GSGN eq. 10).

    Gaussians multiply by adding precisions, Bernoullis by adding logits (bounded smoothly), categories by
    adding logits.
    """
    if isinstance(p, dist.Independent):
        return product(p.base_dist, q.base_dist).to_event(p.reinterpreted_batch_ndims)
    if isinstance(p, dist.Bernoulli):
        return dist.Bernoulli(logits=bounded(p.logits + q.logits))
    if isinstance(p, dist.OneHotCategorical):
        return dist.OneHotCategorical(logits=p.logits + q.logits)
    if isinstance(p, dist.Normal):
        p_precision, q_precision = p.scale**-2, q.scale**-2
        precision = p_precision + q_precision
        loc = (p.loc * p_precision + q.loc * q_precision) / precision
        return dist.Normal(loc, precision**-0.5)
    raise TypeError(f"product of {type(p).__name__} and {type(q).__name__} is not implemented")


@register_kl(dist.Bernoulli, dist.Bernoulli)
def _kl_bernoulli(q: dist.Bernoulli, p: dist.Bernoulli) -> Tensor:
    """In logit space; torch's own is infinite where a probability rounds to 0 or 1 (a logit of 17)."""
    return q.probs * (q.logits - p.logits) + F.softplus(p.logits) - F.softplus(q.logits)


def unmasked(fn: dist.TorchDistribution) -> dist.TorchDistribution:
    """What a draw is scored by, without masks, which take terms out of a bound."""
    return unmasked(fn.base_dist) if isinstance(fn, dist.MaskedDistribution) else fn


def elements(fn: dist.TorchDistribution) -> dist.TorchDistribution:
    """What a site's single choices are drawn from, without mask and `to_event`."""
    fn = unmasked(fn)
    return elements(fn.base_dist) if isinstance(fn, dist.Independent) else fn


def inside(
    fn: dist.TorchDistribution, change: Callable[[dist.TorchDistribution], dist.TorchDistribution]
) -> dist.TorchDistribution:
    """The distribution after a change of its `elements`; its mask and `to_event` stay."""
    if isinstance(fn, dist.MaskedDistribution):
        return inside(fn.base_dist, change).mask(fn._mask)
    if isinstance(fn, dist.Independent):
        return inside(fn.base_dist, change).to_event(fn.reinterpreted_batch_ndims)
    return change(fn)


class gate(Messenger):
    """Exclude what hangs below an absent node (GSGN eqs. 3, 4, 9).

    Within ``with gate(exists):`` every log-density, and every closed-form KL, is multiplied by `exists`,
    a tensor that broadcasts to the sites' batch shape. At 0 and 1 that is a mask; in between (a relaxed
    presence) it is differentiable, which is how the relaxed objectives learn presence. Estimators read from
    ``infer["exists"]`` where a site is absent: a scale of 0 may also be a KL weight.
    """

    def __init__(self, exists: Tensor) -> None:
        super().__init__()
        self.exists = exists

    def _pyro_sample(self, msg: dict) -> None:
        scale = msg["scale"]
        msg["scale"] = self.exists if is_identically_one(scale) else scale * self.exists
        outer = msg["infer"].get("exists")
        msg["infer"]["exists"] = self.exists if outer is None else outer * self.exists


class PixelMixture(dist.TorchDistribution):
    """Every pixel shows one of K images, its channels jointly (GSGN eq. 7, SPACE, GENESIS eq. 2).

    p(x_ij) = Σ_k w_k,ij N(x_ij | μ_k,ij, σ_k²)

    Args:
        means: (..., K, C, H, W) μ.
        log_weights: (..., K, H, W) log w, whose exponentials sum to 1 over K.
        sigma: standard deviation, a number or a 0-d tensor, or (K,) of the images.
    """

    arg_constraints: ClassVar = {}
    support = constraints.independent(constraints.real, 3)
    has_rsample = False

    def __init__(
        self,
        means: Tensor,
        log_weights: Tensor,
        sigma: Tensor | float,
        validate_args: bool | None = None,
    ) -> None:
        self.means, self.log_weights = means, log_weights
        sigma = torch.as_tensor(sigma, dtype=means.dtype, device=means.device)
        self.sigma = sigma.expand(means.shape[-4])
        lead = torch.broadcast_shapes(means.shape[:-4], log_weights.shape[:-3])
        super().__init__(lead, means.shape[-3:], validate_args=validate_args)

    def expand(self, batch_shape: torch.Size, _instance: object = None) -> PixelMixture:
        """The same mixture over a larger batch."""
        lead = torch.Size(batch_shape)
        means = self.means.expand(lead + self.means.shape[-4:])
        log_weights = self.log_weights.expand(lead + self.log_weights.shape[-3:])
        return PixelMixture(means, log_weights, self.sigma, validate_args=False)

    @property
    def mean(self) -> Tensor:
        """(..., C, H, W) expected image."""
        return (self.log_weights.exp().unsqueeze(-3) * self.means).sum(-4)

    def sample(self, sample_shape: torch.Size = torch.Size()) -> Tensor:
        """An image with its pixel noise."""
        with torch.no_grad():
            lead, event = self._extended_shape(sample_shape)[:-3], self.event_shape
            weights = self.log_weights.expand(lead + self.log_weights.shape[-3:])
            # the largest of Gumbel variables; torch's multinomial would wait for a GPU
            gumbel = -torch.empty_like(weights).exponential_().log()
            shown = (weights + gumbel).argmax(-3)
            sigma = self.sigma[shown].unsqueeze(-3)
            shown = shown[..., None, None, :, :].expand(*lead, 1, *event)
            means = self.means.expand(lead + self.means.shape[-4:]).gather(-4, shown).squeeze(-4)
            return means + sigma * torch.randn_like(means)

    def log_prob(self, value: Tensor) -> Tensor:
        """Log-density of images (..., C, H, W), summed over pixels: nats per image."""
        each = _pixel_log_normal(value.unsqueeze(-4), self.means, self.sigma[:, None, None])
        return (self.log_weights + each).logsumexp(-3).sum((-2, -1))


def in_front(mixing: Tensor, behind: Tensor | None = None) -> Tensor:
    """Log-weights of a foreground and of the images behind it.

    Args:
        mixing: (..., 1, H, W) in [0, 1], the weight of the foreground.
        behind: (..., K, H, W) log-weights of what shows where the foreground does not; one image
            by default.
    Returns:
        (..., 1 + K, H, W), the foreground first. A weight of exactly 0 or 1 would have an infinite
        gradient in the logarithm, so weights stay 1e-6 away.
    """
    mixing = mixing * (1 - 2e-6) + 1e-6
    rest = (1 - mixing).log()
    return torch.cat([mixing.log(), rest if behind is None else rest + behind], -3)


class LayeredPixels(dist.TorchDistribution):
    """Every pixel shows one of T layers, its channels jointly, or black where nothing lies (ECON eq. 6).

    p(x_ij) = N(x_ij | Σ_t r_t,ij μ_t,ij, σ²) = Π_t N(x_ij | μ_t,ij, σ²) ^ r_t,ij  for binary regions r

    For others it is the latter, whose logarithm is linear in them (ECON eq. 10), and no density.

    Args:
        colours: (..., T, C, H, W) means.
        regions: (..., T, H, W) in [0, 1], together at most 1.
        sigma: standard deviation, a number or a 0-d tensor.
    """

    arg_constraints: ClassVar = {"regions": constraints.unit_interval}
    support = constraints.independent(constraints.real, 3)
    has_rsample = False

    def __init__(
        self,
        colours: Tensor,
        regions: Tensor,
        sigma: Tensor | float,
        validate_args: bool | None = None,
    ) -> None:
        self.colours, self.regions, self.sigma = colours, regions, sigma
        super().__init__(colours.shape[:-4], colours.shape[-3:], validate_args=validate_args)

    def expand(self, batch_shape: torch.Size, _instance: object = None) -> LayeredPixels:
        """The same layers over a larger batch."""
        colours = self.colours.expand(torch.Size(batch_shape) + self.colours.shape[-4:])
        regions = self.regions.expand(torch.Size(batch_shape) + self.regions.shape[-3:])
        return LayeredPixels(colours, regions, self.sigma, validate_args=False)

    @property
    def mean(self) -> Tensor:
        """(..., C, H, W) expected image."""
        return (self.regions.unsqueeze(-3) * self.colours).sum(-4)

    def sample(self, sample_shape: torch.Size = torch.Size()) -> Tensor:
        """An image with its pixel noise."""
        with torch.no_grad():
            mean = self.mean.expand(self._extended_shape(sample_shape))
            return mean + self.sigma * torch.randn_like(mean)

    def log_prob(self, value: Tensor) -> Tensor:
        """Log-density of images (..., C, H, W), summed over pixels: nats per image."""
        layers = _pixel_log_normal(value.unsqueeze(-4), self.colours, self.sigma)
        black = _pixel_log_normal(value, torch.zeros_like(value), self.sigma)
        bare = 1 - self.regions.sum(-3)
        return ((self.regions * layers).sum(-3) + bare * black).sum((-2, -1))


def _pixel_log_normal(value: Tensor, loc: Tensor, sigma: Tensor | float) -> Tensor:
    """(..., H, W) log N(value | loc, sigma²), summed over channels; `sigma` has the result's shape."""
    sigma = torch.as_tensor(sigma, dtype=loc.dtype, device=loc.device)
    constant = loc.shape[-3] * (sigma.log() + 0.5 * math.log(2 * math.pi))
    # in this order the gradient by `loc` needs no change of its sign
    return -0.5 * (loc - value).square().sum(-3) / sigma.square() - constant
