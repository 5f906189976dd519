"""Priors whose parameters are learned, for latents of any program.

    LearnedGaussian(D)        p(z) = N(z | μ, diag σ²)
    LearnedMixture(D, K)      p(z) = Σ_k w_k N(z | μ_k, diag σ_k²)
    FullMixture(D, K)         p(z) = Σ_k w_k N(z | μ_k, L_k L_kᵀ)
    LearnedBernoulli()        p(z) = Bernoulli(z | ρ)
    LearnedCategory(K)        p(z) = π_z
    AffineGaussian(D, R)      p(z | μ, σ, r) = N(z | a_r μ + b_r, diag (s_r σ)²),  N(μ, σ²) from a net

A program with learned priors samples ``pyro.sample("z_what", self.what_prior())`` instead of the paper's
prior. The parameters are trained with the program, by the evidence lower bound, or afterwards, by
`inference.fit_prior`. With `rows` a family has parameters for every class, step or layer: a call names the
row by a one-hot vector. A fit relies on these rules: a module is called once per site, and its only
argument is one tensor whose last dimension is the event.

Why: the draws of a trained guide over all images do not fill N(0, 1). Where no image's latents lie, the
decoder has never been trained, so such samples look wrong.

Shape legend: D features, K components or categories, R rows, N draws. Anything may stand to the left.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pyro.distributions as dist
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from programs.blocks.distributions import normal, positive

UNIT = math.log(math.e - 1)
"""The number whose softplus is 1, a deviation of 1."""
NARROWEST = 0.005
"""Smallest deviation that a fit gives to a Gaussian."""
ENOUGH = 8.0
"""Smallest number of draws from which a row is fitted; a row with fewer gets the paper's prior."""
ROUNDS = 40
"""Rounds of expectation-maximisation in the fit of a mixture (Dempster, Laird, Rubin, 1977)."""
COMMON = 4.0
"""Draws per feature that the mean covariance of all components counts as, in the covariance of each."""


class Learned(nn.Module):
    """A learned prior. Every family defines how to become the paper's prior, and how to fit draws."""

    def plain(self) -> None:
        """Become the paper's prior."""
        raise NotImplementedError

    def fit(self, draws: Tensor, weights: Tensor, given: Tensor | None = None) -> None:
        """Maximise Σ_n w_n log p(z_n | given_n) over the parameters; rows without draws become plain.

        Args:
            draws: (N, D) the guide's latents; (N,) for a Bernoulli.
            weights: (N,) weight of each draw, 0 for latents below an absent node.
            given: (N, ·) the arguments of the module's call.
        """
        raise NotImplementedError


class LearnedGaussian(Learned):
    """N(μ, diag σ²), initially the paper's N(loc, sd²).

    Args:
        rows: number of rows; 0 if the module is called without an argument.
        loc, sd: numbers, or (D).
    """

    def __init__(
        self, features: int, rows: int = 0, loc: Tensor | float = 0.0, sd: Tensor | float = 1.0
    ) -> None:
        super().__init__()
        self.at = tuple(torch.as_tensor(t).expand(features).clone() for t in (loc, sd))
        shape = (rows, features) if rows else (features,)
        self.loc, self.spread = (nn.Parameter(torch.zeros(shape)) for _ in range(2))
        self.plain()

    def forward(self, given: Tensor | None = None) -> dist.TorchDistribution:
        """The prior, of event (D)."""
        return normal(picked(self.loc, given), positive(picked(self.spread, given)))

    @torch.no_grad()
    def plain(self) -> None:
        """N(loc, sd²) in every row."""
        self.loc.copy_(self.at[0])
        self.spread.copy_(raw(self.at[1]))

    @torch.no_grad()
    def fit(self, draws: Tensor, weights: Tensor, given: Tensor | None = None) -> None:
        """The mean and deviation of each row's draws."""
        self.plain()
        draws = draws.reshape(len(draws), -1)
        for row, own in by_row(weights, given):
            if own.sum() >= ENOUGH:
                mean, sd = moments(draws, own)
                self.loc[row], self.spread[row] = mean, raw(sd)


class Mixture(dist.MixtureSameFamily):
    """A mixture of Gaussians that has a mode: the mean of its heaviest component."""

    @property
    def mode(self) -> Tensor:
        """(..., D) the mean of the component of the largest weight."""
        best = self.mixture_distribution.logits.argmax(-1)
        means = self.component_distribution.mean
        index = best[..., None, None].expand(*best.shape, 1, means.shape[-1])
        return means.gather(-2, index).squeeze(-2)


class LearnedMixture(Learned):
    """Σ_k w_k N(μ_k, diag σ_k²); at first with equal weights, deviations of 1, and means from N(0, 1)."""

    def __init__(self, features: int, components: int, rows: int = 0) -> None:
        super().__init__()
        lead = (rows,) if rows else ()
        self.logits = nn.Parameter(torch.zeros(*lead, components))
        self.loc = nn.Parameter(torch.randn(*lead, components, features))
        self.spread = nn.Parameter(torch.full((*lead, components, features), UNIT))

    def forward(self, given: Tensor | None = None) -> dist.TorchDistribution:
        """The prior, of event (D)."""
        logits, loc, spread = (picked(t, given) for t in (self.logits, self.loc, self.spread))
        return Mixture(dist.Categorical(logits=logits), normal(loc, positive(spread)))

    @torch.no_grad()
    def plain(self) -> None:
        """N(0, 1): all components are equal."""
        self.logits.zero_()
        self.loc.zero_()
        self.spread.fill_(UNIT)

    @torch.no_grad()
    def fit(self, draws: Tensor, weights: Tensor, given: Tensor | None = None) -> None:
        """Cluster each row's draws, then take `ROUNDS` rounds of expectation-maximisation."""
        self.plain()
        for row, own in by_row(weights, given):
            some = own > 0
            if own.sum() >= ENOUGH * len(self.loc[row]):
                self._fit_row(row, draws[some], own[some])

    def _fit_row(self, row: Any, draws: Tensor, weights: Tensor) -> None:
        heavy, loc, sd = maximised(draws, weights, len(self.loc[row]), spreads, normal)
        self.logits[row], self.loc[row], self.spread[row] = heavy, loc, raw(sd)


class FullMixture(Learned):
    """Σ_k w_k N(μ_k, L_k L_kᵀ): features depend on each other; at first like a `LearnedMixture`."""

    def __init__(self, features: int, components: int) -> None:
        super().__init__()
        self.logits = nn.Parameter(torch.zeros(components))
        self.loc = nn.Parameter(torch.randn(components, features))
        self.factor = nn.Parameter(torch.zeros(components, features, features))
        self._uncorrelated()

    @torch.no_grad()
    def _uncorrelated(self) -> None:
        """Deviations of 1."""
        self.factor.copy_((UNIT * torch.ones_like(self.loc)).diag_embed())

    def forward(self) -> dist.TorchDistribution:
        """The prior, of event (D)."""
        sides = positive(self.factor.diagonal(dim1=-2, dim2=-1)).diag_embed()
        parts = gaussian(self.loc, self.factor.tril(-1) + sides)
        return Mixture(dist.Categorical(logits=self.logits), parts)

    @torch.no_grad()
    def plain(self) -> None:
        """N(0, 1): all components are equal."""
        self.logits.zero_()
        self.loc.zero_()
        self._uncorrelated()

    @torch.no_grad()
    def fit(self, draws: Tensor, weights: Tensor, given: Tensor | None = None) -> None:
        """Cluster the draws, then take `ROUNDS` rounds of expectation-maximisation."""
        self.plain()
        draws, weights = draws[weights > 0], weights[weights > 0]
        if weights.sum() < ENOUGH * len(self.loc):
            return
        heavy, loc, lower = maximised(draws, weights, len(self.loc), factors, gaussian)
        self.logits.copy_(heavy)
        self.loc.copy_(loc)
        sides = raw(lower.diagonal(dim1=-2, dim2=-1)).diag_embed()
        self.factor.copy_(lower.tril(-1) + sides)


class LearnedBernoulli(Learned):
    """Bernoulli(ρ), initially the paper's; one logit per row."""

    def __init__(self, logit: Tensor | float, rows: int = 0) -> None:
        super().__init__()
        self.at = float(logit)
        self.logits = nn.Parameter(torch.zeros((rows,) if rows else ()))
        self.plain()

    def forward(self, given: Tensor | None = None) -> dist.Bernoulli:
        """The prior, of batch (...)."""
        return dist.Bernoulli(logits=picked(self.logits, given))

    @torch.no_grad()
    def plain(self) -> None:
        """The paper's ρ in every row."""
        self.logits.fill_(self.at)

    @torch.no_grad()
    def fit(self, draws: Tensor, weights: Tensor, given: Tensor | None = None) -> None:
        """The share of each row's draws that are 1, half a draw added to both sides."""
        self.plain()
        for row, own in by_row(weights, given):
            if own.sum() >= ENOUGH:
                one = (own * draws).sum()
                self.logits[row] = (one + 0.5).log() - (own.sum() - one + 0.5).log()


class LearnedCategory(Learned):
    """One-hot categories with probabilities π, equal at first."""

    def __init__(self, categories: int, rows: int = 0) -> None:
        super().__init__()
        self.logits = nn.Parameter(torch.zeros((rows, categories) if rows else (categories,)))

    def forward(self, given: Tensor | None = None) -> dist.OneHotCategorical:
        """The prior, of event (K)."""
        return dist.OneHotCategorical(logits=picked(self.logits, given))

    @torch.no_grad()
    def plain(self) -> None:
        """The uniform prior."""
        self.logits.zero_()

    @torch.no_grad()
    def fit(self, draws: Tensor, weights: Tensor, given: Tensor | None = None) -> None:
        """The frequencies of each row's draws, half a draw added to every category."""
        self.plain()
        for row, own in by_row(weights, given):
            if own.sum() >= ENOUGH:
                self.logits[row] = (own @ draws + 0.5).log()


class AffineGaussian(Learned):
    """N(a_r μ + b_r, diag (s_r σ)²) around the N(μ, σ²) of a net; at first equal to it."""

    def __init__(self, features: int, rows: int) -> None:
        super().__init__()
        self.features = features
        self.slope, self.shift, self.stretch = (
            nn.Parameter(torch.zeros(rows, features)) for _ in range(3)
        )
        self.plain()

    def forward(self, given: Tensor) -> dist.TorchDistribution:
        """The prior, of event (D); `given` (..., 2 D + R) are μ, σ, and the row."""
        loc, sd, row = given.split([self.features, self.features, len(self.slope)], -1)
        slope, shift, stretch = (
            picked(t, row) for t in (self.slope, self.shift, self.stretch.exp())
        )
        return normal(slope * loc + shift, stretch * sd)

    @torch.no_grad()
    def plain(self) -> None:
        """N(μ, σ²)."""
        self.slope.fill_(1.0)
        self.shift.zero_()
        self.stretch.zero_()

    @torch.no_grad()
    def fit(self, draws: Tensor, weights: Tensor, given: Tensor | None = None) -> None:
        """Fit each row's line by weighted least squares, and the deviation around it in units of σ."""
        self.plain()
        loc, sd, rows = given.split([self.features, self.features, len(self.slope)], -1)
        for row, own in by_row(weights, rows):
            if own.sum() < ENOUGH:
                continue
            sure = own[:, None] / sd.square()
            total = sure.sum(0)
            x, y = ((sure * t).sum(0) / total for t in (loc, draws))
            spread = (sure * (loc - x).square()).sum(0)
            common = (sure * (loc - x) * (draws - y)).sum(0)
            # a μ that hardly varies has no slope
            slope = torch.where(spread > 1e-3 * total, common / spread.clamp(min=1e-12), 0.0)
            error = (draws - y - slope * (loc - x)).square()
            square = (sure * error).sum(0) / own.sum()
            self.slope[row], self.shift[row] = slope, y - slope * x
            self.stretch[row] = square.clamp(min=NARROWEST**2).log() / 2


def learned(features: int, components: int = 1, rows: int = 0) -> LearnedGaussian | LearnedMixture:
    """A Gaussian, or a mixture of several."""
    if components > 1:
        return LearnedMixture(features, components, rows)
    return LearnedGaussian(features, rows)


def picked(table: Tensor, given: Tensor | None) -> Tensor:
    """The row (...) of a table (R, ...) that one-hot vectors (..., R) name; the whole table without them."""
    if given is None or table.ndim == 1:
        return table if given is None else given @ table
    return (given @ table.flatten(1)).unflatten(-1, table.shape[1:])


def by_row(weights: Tensor, given: Tensor | None) -> list[tuple[Any, Tensor]]:
    """Each row of a family, and the weights (N,) of its draws."""
    if given is None:
        return [(..., weights)]
    return [(row, weights * own) for row, own in enumerate(given.T)]


def moments(draws: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
    """(D) mean and deviation of draws (N, D) with weights (N,)."""
    share = weights / weights.sum().clamp(min=1e-9)
    mean = share @ draws
    return mean, (share @ (draws - mean).square()).sqrt()


def distance(draws: Tensor, centres: Tensor) -> Tensor:
    """(N, K) distances of draws (N, D) from centres, each feature in units of its deviation."""
    unit = draws.std(0).clamp(min=1e-6)
    return torch.cdist(draws / unit, centres / unit)


def clusters(draws: Tensor, number: int) -> Tensor:
    """(K, D) centres chosen from the draws (N, D) as in k-means++ (Arthur, Vassilvitskii, 2007)."""
    chosen = draws[torch.randint(len(draws), (1,))]
    for _ in range(number - 1):
        square = distance(draws, chosen).amin(1).square() + 1e-12
        chosen = torch.cat([chosen, draws[torch.multinomial(square, 1)]])
    return chosen


def maximised(
    draws: Tensor, weights: Tensor, number: int, spread: Callable, component: Callable
) -> tuple[Tensor, Tensor, Tensor]:
    """Log-weights, means and spreads of a mixture, by `ROUNDS` rounds of expectation-maximisation.

    Args:
        draws, weights: (N, D) and (N,).
        number: K components, at first the draws around `clusters`.
        spread: `spreads` or `factors`.
        component: the Gaussians of means and of what `spread` returns.
    """
    centres = clusters(draws, number)
    share = F.one_hot(distance(draws, centres).argmin(1), number).to(draws)
    for _ in range(ROUNDS):
        share = weights[:, None] * share
        heavy = share.sum(0) + 1e-3
        loc = share.T @ draws / heavy[:, None]
        wide = spread(draws, share, heavy, loc)
        parts = component(loc, wide)
        each = [parts.log_prob(z.unsqueeze(-2)) + heavy.log() for z in draws.split(4000)]
        share = torch.cat(each).softmax(-1)
    return heavy.log(), loc, wide


def spreads(draws: Tensor, share: Tensor, heavy: Tensor, loc: Tensor) -> Tensor:
    """(K, D) deviations of draws (N, D) around means (K, D), with shares (N, K) of sums (K,)."""
    square = [s @ (draws - m).square() for s, m in zip(share.T, loc, strict=True)]
    return (torch.stack(square) / heavy[:, None]).sqrt().clamp(min=NARROWEST)


def factors(draws: Tensor, share: Tensor, heavy: Tensor, loc: Tensor) -> Tensor:
    """(K, D, D) lower factors of the draws' covariances; arguments as of `spreads`.

    Covariances are drawn towards their mean (`COMMON`): a component with few draws would remember them.
    """
    apart = [draws - m for m in loc]
    total = torch.stack([(s[:, None] * d).T @ d for s, d in zip(share.T, apart, strict=True)])
    more = COMMON * draws.shape[1]
    square = (total + more * total.sum(0) / heavy.sum()) / (heavy[:, None, None] + more)
    return torch.linalg.cholesky(square + NARROWEST**2 * torch.eye(draws.shape[1]).to(square))


def gaussian(loc: Tensor, lower: Tensor) -> dist.MultivariateNormal:
    """N(μ, L Lᵀ)."""
    return dist.MultivariateNormal(loc, scale_tril=lower)


def raw(sd: Tensor) -> Tensor:
    """The numbers that `positive` maps to the given deviations, or to `NARROWEST` if that is larger."""
    return (sd - 1e-4).clamp(min=NARROWEST).expm1().log()


def step_row(t: int, rows: int, like: Tensor) -> Tensor:
    """(..., R) one-hot row of step t = 1, 2, … for every entry of a tensor (...); row 1 if R = 1."""
    row = F.one_hot(torch.tensor(min(t, rows) - 1, device=like.device), rows).to(like)
    return row.expand(*like.shape, -1)
