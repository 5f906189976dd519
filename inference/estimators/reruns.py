"""Score methods that run the program again with other values at a site, all before it as it was."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from inference.estimators.handlers import COPIES, several
from inference.estimators.score import Score
from inference.estimators.sites import Place, Site, alternatives, only_bernoulli, plain

RERUNS = 64
"""Largest number of runs of an image for one site."""
SET = 4
"""Largest set without replacement: its probability is a sum over orders."""


class DisARM(Score):
    """Antithetic pairs: two more runs for every site."""

    summary: ClassVar[str] = "antithetic pairs of Bernoullis (Dong et al., 2020; Yin et al., 2020)"
    runs: ClassVar[str] = "1 + 2 per site"

    def prepare(self, place: Place, images: Tensor) -> None:
        """Refuse what is no Bernoulli."""
        only_bernoulli(place.name, place.fn, "disarm")

    def surrogate(self, site: Site) -> Tensor:
        """Eq. 7 of Dong et al.: nothing is gained where both of a pair agree."""
        logits = site.front(site.fn.logits)
        uniform, probability = torch.rand_like(logits), logits.sigmoid()
        values = torch.stack([1 - uniform < probability, uniform < probability]).to(logits.dtype)
        costs = site.rerun(values)
        gradient = 0.5 * (costs[0] - costs[1]) * (values[0] - values[1]) * logits.abs().sigmoid()
        return gradient.detach() * logits


class ARMS(Score):
    """K samples that repel each other, by a Dirichlet copula; DisARM where K = 2."""

    summary: ClassVar[str] = "K = 4 antithetic Bernoullis (ARMS; Dimitriev & Zhou, 2021)"
    runs: ClassVar[str] = "1 + K per site"
    takes: ClassVar[str] = "samples"

    def __init__(self, samples: int = COPIES) -> None:
        super().__init__()
        self.samples = several(samples)

    def prepare(self, place: Place, images: Tensor) -> None:
        """Refuse what is no Bernoulli."""
        only_bernoulli(place.name, place.fn, "arms")

    def surrogate(self, site: Site) -> Tensor:
        """Leave-one-out among the K, divided by one minus the correlation of two of them."""
        logits, n = site.front(site.fn.logits), self.samples
        p = logits.detach().sigmoid()
        rare = torch.minimum(p, 1 - p)
        spacing = -torch.rand_like(torch.cat([p] * n)).clamp(1e-6, 1 - 1e-6).log()
        spacing = spacing.unflatten(0, (n, -1))
        uniform = 1 - (1 - spacing / spacing.sum(0)) ** (n - 1)
        values = ((uniform < rare) == (p <= 0.5)).to(p.dtype)
        both = (2 * (1 - rare) ** (1 / (n - 1)) - 1).clamp(min=0) ** (n - 1) + 2 * rare - 1
        correlation = (both - rare.square()) / (rare * (1 - rare)).clamp(min=1e-12)
        costs = site.rerun(values)
        signal = ((costs - costs.mean(0)) * (values - p)).sum(0) / (n - 1)
        return signal / (1 - correlation) * logits


class Expect(Score):
    """The exact sum over one element's values, given what was drawn for all other elements and before."""

    summary: ClassVar[str] = (
        "local expectations: one site's exact sum (Titsias & Lázaro-Gredilla, 2015)"
    )
    runs: ClassVar[str] = "1 + A per element"

    def prepare(self, place: Place, images: Tensor) -> None:
        """Refuse what has too many values."""
        number = alternatives(place.name, plain(place.name, place.fn, "expect"))
        afford(place, number, "expect")

    def surrogate(self, site: Site) -> Tensor:
        """Σ_a q(a) cost(a)."""
        chosen = site.chosen
        every = torch.eye(chosen.shape[-1], dtype=chosen.dtype, device=chosen.device)
        options = every.view(len(every), *[1] * (chosen.ndim - 1), -1).expand(-1, *chosen.shape)
        costs = one_at_a_time(site, options)
        return (costs.movedim(0, -1) * site.logits.softmax(-1)).sum(-1)


class Unordered(Score):
    """K values of every element without replacement, with a built-in baseline (eq. 20).

    Σ_s ∇ p(s) R(S, s) (f(s) - Σ_s' p(s') R(S, s' | s) f(s')),  R leave-one-out ratios of probabilities of sets
    """

    summary: ClassVar[str] = "K = 2 values without replacement (unordered set; Kool et al., 2020)"
    runs: ClassVar[str] = "1 + K per element"
    takes: ClassVar[str] = "values"

    def __init__(self, values: int = 2) -> None:
        super().__init__()
        if not 2 <= values <= SET:
            raise ValueError(f"{values} values without replacement: give 2 to {SET}")
        self.number = values

    def prepare(self, place: Place, images: Tensor) -> None:
        """Refuse what has too many elements."""
        alternatives(place.name, plain(place.name, place.fn, "unordered"))
        afford(place, self.number, "unordered")

    def surrogate(self, site: Site) -> Tensor:
        """By Gumbel top K."""
        logits = site.logits
        p, k = logits.softmax(-1), min(self.number, logits.shape[-1])
        gumbel = -(-torch.rand_like(logits).clamp(1e-6, 1 - 1e-6).log()).log()
        index = (logits.detach().log_softmax(-1) + gumbel).topk(k, -1).indices
        options = torch.nn.functional.one_hot(index, logits.shape[-1]).to(p.dtype).movedim(-2, 0)
        costs, chances = one_at_a_time(site, options), (options * p).sum(-1)
        signals = without_replacement(chances.detach(), costs)
        return (chances * signals).sum(0)


class SumAndSample(Score):
    """The sum over an element's K - 1 most probable values, and one draw of the rest.

    Σ_{a ∈ C} ∇ q(a) (f(a) - b) + q(not C) (f(s) - b) ∇ log q(s),  s ~ q outside of C,  b the mean of f over C
    """

    summary: ClassVar[str] = (
        "the K - 1 likeliest of K = 3 values summed, one of the rest drawn (Liu et al., 2019)"
    )
    runs: ClassVar[str] = "1 + K per element"
    takes: ClassVar[str] = "values"

    def __init__(self, values: int = 3) -> None:
        super().__init__()
        if values < 2:
            raise ValueError(f"sum_and_sample:{values}: give at least 2 values")
        self.number = values

    def prepare(self, place: Place, images: Tensor) -> None:
        """Refuse what has too many elements."""
        alternatives(place.name, plain(place.name, place.fn, "sum_and_sample"))
        afford(place, self.number, "sum_and_sample")

    def surrogate(self, site: Site) -> Tensor:
        """Where K is the number of values, all of them are summed over."""
        log_q = site.logits.log_softmax(-1)
        if log_q.shape[-1] == 1:  # there is nothing to choose
            return torch.zeros_like(log_q[..., 0])
        at, k = log_q.detach(), min(self.number, log_q.shape[-1])
        likely = at.topk(k - 1, -1).indices
        taken = torch.zeros_like(at).scatter(-1, likely, 1.0)
        gumbel = -(-torch.rand_like(at).clamp(1e-6, 1 - 1e-6).log()).log()
        drawn = (at + gumbel).masked_fill(taken > 0, -torch.inf).argmax(-1, keepdim=True)
        index = torch.cat([likely, drawn], -1)
        options = torch.nn.functional.one_hot(index, at.shape[-1]).to(at.dtype).movedim(-2, 0)
        costs = one_at_a_time(site, options)
        chances = log_q.exp().gather(-1, likely).movedim(-1, 0)
        weights = chances.detach()
        baseline = (weights * costs[:-1]).sum(0) / weights.sum(0)
        rest = (1 - weights.sum(0)).clamp(min=0)
        of_drawn = rest * (costs[-1] - baseline) * log_q.gather(-1, drawn)[..., 0]
        return (chances * (costs[:-1] - baseline)).sum(0) + of_drawn


def without_replacement(p: Tensor, costs: Tensor) -> Tensor:
    """(K, …) what every value's ∇ p is multiplied by, of a set of K values with probabilities p and costs."""
    number = range(len(p))
    every = chance(p, tuple(number), torch.zeros_like(p[0]))
    signals = []
    for s in number:
        others = tuple(i for i in number if i != s)
        rest = chance(p, others, p[s])
        baseline = p[s] * costs[s]
        for i in others:
            left = chance(p, tuple(j for j in others if j != i), p[s] + p[i])
            baseline = baseline + p[i] * left / rest * costs[i]
        signals.append(rest / every * (costs[s] - baseline))
    return torch.stack(signals)


def chance(p: Tensor, chosen: tuple[int, ...], gone: Tensor) -> Tensor:
    """Probability that these come first, in any order, where a mass `gone` is excluded."""
    if not chosen:
        return torch.ones_like(gone)
    left = (1 - gone).clamp(min=1e-12)
    return sum(
        p[i] / left * chance(p, tuple(j for j in chosen if j != i), gone + p[i]) for i in chosen
    )


def one_at_a_time(site: Site, options: Tensor) -> Tensor:
    """(M, K·B, *S) costs where one element takes each option (M, K·B, *S, A), and the others what was drawn."""
    number, shape = site.shape.numel(), site.shape
    own = torch.eye(number, dtype=torch.bool, device=options.device).view(number, 1, *shape, 1)
    values = torch.where(own, options.unsqueeze(1), site.chosen)
    costs = site.rerun(site.values(values.flatten(0, 1)), shared=True)
    costs = costs.reshape(len(options), number, -1, number).diagonal(dim1=1, dim2=3)
    return costs.reshape(len(options), -1, *shape)


def afford(place: Place, values: int, method: str) -> None:
    """Refuse a site that asks for too many runs.

    Raises:
        ValueError: it does.
    """
    runs = values * place.shape.numel()
    if runs > RERUNS:
        raise ValueError(
            f"site {place.name!r} has {place.shape.numel()} elements, {method} would run every image {runs} "
            f"times for it, and takes at most {RERUNS}: choose rloo or relax"
        )
