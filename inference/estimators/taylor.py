"""A score method whose control variates are first-order expansions of the cost at other copies."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn

from inference.estimators.baselines import Scaled
from inference.estimators.handlers import COPIES, several
from inference.estimators.score import Score
from inference.estimators.sites import Place, Site, alternatives, key, plain


class DoubleCV(Score):
    """`RLOO` with the cost's slope at the other copies: one more backward pass, for all sites together.

    Of copy k, with cost f, slope ∇f by its draw b, mean μ of q and score s = ∇ log q(b):

    ĝ = (f - f̄) s + Σ_m η_m c_m,  f̄ and ∇f̄ the means of f and ∇f over the other copies,
    c₁ = E[(b - μ)·∇f̄ s] - (b - μ)·∇f̄ s of the element itself, in closed form on the left,
    c₂ = -(b - μ)·∇f̄ s of the other elements of the site, whose expectation is 0,
    c₃ = s times the mean of (b - μ)·∇f over the other copies, which makes f̄ an estimate of f(μ).

    c₁ and c₂ are the paper's outer control variate, c₃ its inner one.

    # differs: η has three numbers, not one, and is fitted to the gradients so far; elements may be one-hot;
    copies of a later site have other values before it.
    """

    summary: ClassVar[str] = (
        "K = 4 copies as rloo, with slopes at the others (Double CV; Titsias & Shi, 2022)"
    )
    runs: ClassVar[str] = "K, and 1 more backward pass"
    takes: ClassVar[str] = "copies"
    slopes: ClassVar[bool] = True

    def __init__(self, copies: int = COPIES) -> None:
        super().__init__()
        self.copies = several(copies)
        self.scales = nn.ModuleDict()

    def prepare(self, place: Place, images: Tensor) -> None:
        """Refuse what has no mean."""
        alternatives(place.name, plain(place.name, place.fn, "double_cv"))
        self.scales[key(place.name)] = Scaled(3).to(images.device)

    def surrogate(self, site: Site) -> Tensor:
        """Copies of an image differ in their samples alone."""
        p, exists = site.logits.detach().softmax(-1), site.exists.unsqueeze(-1)
        away = (site.chosen - p) * exists
        slope = self.slope(site) * exists
        there = self.others(exists).clamp(min=1e-12)
        at = self.others(slope) / there
        known = p * (at - (p * at).sum(-1, keepdim=True)) * exists
        own = (away * at).sum(-1, keepdim=True)
        rest = every(own) - own
        inner = self.others(every((away * slope).sum(-1, keepdim=True)))
        controls = torch.stack([known - own * away, -rest * away, inner * away])
        plain = (site.cost - self.others(site.cost)).unsqueeze(-1) * away
        gradient = self.scales[key(site.name)](plain, controls)
        return (gradient * site.logits).sum(-1)

    def slope(self, site: Site) -> Tensor:
        """(K·B, *S, A) of the cost by the choice; a Bernoulli's is 0 for the value 0."""
        if site.fn.event_shape:
            return site.slope
        return torch.stack([site.slope, torch.zeros_like(site.slope)], -1)

    def others(self, x: Tensor) -> Tensor:
        """(K·B, …) the mean over the image's other copies."""
        x = x.unflatten(0, (self.copies, -1))
        return ((x.sum(0) - x) / (self.copies - 1)).flatten(0, 1)


def every(x: Tensor) -> Tensor:
    """(B, *S, 1) the sum over all elements, at every one."""
    return x.flatten(1).sum(1).view(-1, *[1] * (x.ndim - 1)).expand_as(x)
