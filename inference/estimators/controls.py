"""Score methods whose control variate is a relaxed cost: a network (RELAX), or the program itself."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn

from inference.estimators.baselines import Control, Scaled
from inference.estimators.relaxations import conditional
from inference.estimators.score import Score
from inference.estimators.sites import Place, Site, alternatives, key, plain


class RELAX(Score):
    """With a control variate c that sees a relaxed sample, fitted to the variance of the gradient.

    ĝ = (cost - c(z̃)) ∇ log q(b) + ∇ c(z) - ∇ c(z̃),  z ~ q(z),  b = H(z),  z̃ ~ q(z | b)

    # differs: c is a network on the images and on the sample of its own element, without the decoder's
    relaxed loss. So it is right where later sites depend on earlier ones, and costs no run of the program.
    """

    summary: ClassVar[str] = (
        "a learned function of a relaxed sample (RELAX; Grathwohl et al., 2018)"
    )
    runs: ClassVar[str] = "1"

    def __init__(self) -> None:
        super().__init__()
        self.controls = nn.ModuleDict()

    def prepare(self, place: Place, images: Tensor) -> None:
        """A control variate for the site."""
        name = place.name
        number = alternatives(name, plain(name, place.fn, "relax"))
        control = Control(images.shape[-3:], place.shape, number)
        self.controls[key(name)] = control.to(images.device)

    def surrogate(self, site: Site) -> Tensor:
        """Includes the square of the gradient, which is c's to make small."""
        control, logits, chosen = self.controls[key(site.name)], site.logits, site.chosen
        leaf = logits.detach().requires_grad_()
        noise = (conditional(leaf, chosen) - leaf).detach()
        here, again = (
            control(site.images, z.softmax(-1)) for z in (leaf + noise, conditional(leaf, chosen))
        )
        path = torch.autograd.grad((here - again).sum(), leaf, create_graph=True)[0]
        gradient = (site.cost - again).unsqueeze(-1) * (chosen - leaf.softmax(-1)) + path
        variance = (gradient / control.spread().unsqueeze(-1)).square().sum(-1)
        control.watch(site.cost)
        return (gradient.detach() * logits).sum(-1) + variance


class MuProp(Score):
    """Minus the cost's first-order expansion about the mean, whose expectation is known (eq. 3).

    h(b) = c(μ) + c'(μ) (b - μ);  ĝ = (cost - η h(b)) ∇ log q(b) + η c'(μ) ∇ μ

    # differs: earlier latents stay as they were drawn, and η is fitted to the gradients so far.
    """

    summary: ClassVar[str] = "the cost's expansion about the mean (MuProp; Gu et al., 2016)"
    runs: ClassVar[str] = "1 + 1 per site, relaxed"

    def __init__(self) -> None:
        super().__init__()
        self.scales = nn.ModuleDict()

    def prepare(self, place: Place, images: Tensor) -> None:
        """Refuse what has no mean."""
        alternatives(place.name, plain(place.name, place.fn, "muprop"))
        self.scales[key(place.name)] = Scaled().to(images.device)

    def surrogate(self, site: Site) -> Tensor:
        """One relaxed run."""
        logits, chosen = site.logits, site.chosen
        p = logits.detach().softmax(-1)
        leaf = p.clone().requires_grad_()
        costs, totals = site.relaxed(site.values(leaf).unsqueeze(0))
        slope = torch.autograd.grad(totals.sum(), leaf, allow_unused=True)[0]
        slope = torch.zeros_like(leaf) if slope is None else slope
        expansion = costs[0] + (slope * (chosen - p)).sum(-1)
        known = p * (slope - (p * slope).sum(-1, keepdim=True))
        score = (chosen - p) * site.exists.unsqueeze(-1)
        control = known * site.exists.unsqueeze(-1) - expansion.unsqueeze(-1) * score
        gradient = self.scales[key(site.name)](site.cost.unsqueeze(-1) * score, control[None])
        return (gradient * logits).sum(-1)


class REBAR(Score):
    """Minus the program's own cost at a relaxed sample (eqs. 5 to 7).

    ĝ = (cost - η c(z̃)) ∇ log q(b) + η (∇ c(z) - ∇ c(z̃)),  z ~ q(z),  b = H(z),  z̃ ~ q(z | b)

    # differs: earlier latents stay as they were drawn, later discrete ones are at their mean, τ = 1/2, and η
    is fitted to the gradients so far.
    """

    summary: ClassVar[str] = "the program's own relaxed cost (REBAR; Tucker et al., 2017)"
    bias: ClassVar[str] = "none, if the program is smooth in relaxed values"
    runs: ClassVar[str] = "1 + 2 per site, relaxed"
    temperature = 0.5

    def __init__(self) -> None:
        super().__init__()
        self.scales = nn.ModuleDict()

    def prepare(self, place: Place, images: Tensor) -> None:
        """Refuse what cannot be relaxed."""
        alternatives(place.name, plain(place.name, place.fn, "rebar"))
        self.scales[key(place.name)] = Scaled().to(images.device)

    def surrogate(self, site: Site) -> Tensor:
        """Two relaxed runs."""
        logits, chosen = site.logits, site.chosen
        leaf = logits.detach().requires_grad_()
        noise = (conditional(leaf, chosen) - leaf).detach()
        pair = torch.stack([leaf + noise, conditional(leaf, chosen)]) / self.temperature
        costs, totals = site.relaxed(site.values(pair.softmax(-1)))
        path = torch.autograd.grad((totals[0] - totals[1]).sum(), leaf, allow_unused=True)[0]
        path = torch.zeros_like(leaf) if path is None else path
        score = (chosen - leaf.detach().softmax(-1)) * site.exists.unsqueeze(-1)
        control = path * site.exists.unsqueeze(-1) - costs[1].unsqueeze(-1) * score
        gradient = self.scales[key(site.name)](site.cost.unsqueeze(-1) * score, control[None])
        return (gradient * logits).sum(-1)
