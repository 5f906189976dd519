"""Learned priors that depend on other latents, by small nets; at first each equals the program's own prior.

    NetMixture(D, F, K)   p(z | μ, σ, c) = w_0 N(z | μ, σ²) + Σ_k w_k N(z | μ + σ m_k, diag (s_k σ)²)
                          w, m_k, s_k by a net of c
    NetBernoulli(F)       p(z | l, c)    = Bernoulli(z | logit l + net(c))

`programs.blocks.priors` defines the rules for a `Learned` prior.

Shape legend: D features, F numbers of the condition c, K components, N draws.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import pyro.distributions as dist
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from programs.blocks.distributions import normal, positive
from programs.blocks.nets import mlp
from programs.blocks.priors import ENOUGH, Learned, LearnedMixture, Mixture

HIDDEN = 64
"""Width of a net's hidden layer."""
NEVER = -20.0
"""Initial logit of the learned components, whose weight is then almost 0."""
OTHERS = 9.0
"""Weight of all learned components over that of the program's own Gaussian, where a fit begins."""
STEPS = 600
"""Steps of a net's fit by AdamW."""
BATCH = 512
"""Draws per step of a fit."""
RATE = 1e-3
"""Initial learning rate of a fit, which falls to 0 as a cosine."""
DECAY = 1e-2
"""Weight decay of a fit."""
LOOK = 50
"""Steps of a fit between two evaluations on held-out draws."""
HELD = 8
"""Every eighth draw is held out; these draws choose the best step of a fit."""


class NetMixture(Learned):
    """The Gaussian of the program's own net, and K others relative to its mean and deviation.

    The program's own net predicts latents that children copy from their parent. Latents that it cannot predict,
    such as one of seven colours, follow a mixture around its mean.
    """

    def __init__(self, features: int, known: int, components: int) -> None:
        super().__init__()
        self.split = features, features, known
        self.components = components
        self.net = mlp(known, [HIDDEN, HIDDEN], components * (2 * features + 1))
        self.plain()

    def forward(self, given: Tensor) -> dist.TorchDistribution:
        """The prior, of event (D); `given` (..., 2 D + F) are μ, σ and c."""
        loc, sd, known = given.split(self.split, -1)
        others = self.net(known).unflatten(-1, (self.components, -1))
        logits, shift, spread = others.split([1, *self.split[:2]], -1)
        shift, stretch = F.pad(shift, (0, 0, 1, 0)), positive(spread)
        stretch = F.pad(stretch, (0, 0, 1, 0), value=1.0)
        loc, sd = loc.unsqueeze(-2), sd.unsqueeze(-2)
        weights = dist.Categorical(logits=F.pad(logits.squeeze(-1), (1, 0)))
        return Mixture(weights, normal(loc + sd * shift, sd * stretch))

    @torch.no_grad()
    def plain(self) -> None:
        """N(μ, σ²): no other component has weight."""
        nn.init.zeros_(self.net[-1].weight)
        bias = torch.zeros(self.components, 1 + 2 * self.split[0])
        bias[:, 0] = NEVER
        self.net[-1].bias.copy_(bias.flatten())

    def fit(self, draws: Tensor, weights: Tensor, given: Tensor | None = None) -> None:
        """Fit by gradient, from the best mixture that ignores the condition."""
        self.plain()
        if weights.sum() < ENOUGH * self.components:
            return
        loc, sd, _ = given.split(self.split, -1)
        self._begin((draws - loc) / sd, weights)
        ascend(
            self, lambda rows: weights[rows] * self(given[rows]).log_prob(draws[rows]), len(draws)
        )

    @torch.no_grad()
    def _begin(self, residuals: Tensor, weights: Tensor) -> None:
        mixture = LearnedMixture(self.split[0], self.components)
        mixture.fit(residuals, weights)
        nn.init.normal_(self.net[-1].weight, std=1e-3)
        logits = mixture.logits.log_softmax(0) + math.log(OTHERS)
        bias = torch.cat([logits[:, None], mixture.loc, mixture.spread], -1)
        self.net[-1].bias.copy_(bias.flatten())


class NetBernoulli(Learned):
    """The probability of the program's own net, changed by a net of the condition."""

    def __init__(self, known: int) -> None:
        super().__init__()
        self.net = mlp(known, [HIDDEN], 1)
        self.plain()

    def forward(self, given: Tensor) -> dist.Bernoulli:
        """The prior, of batch (...); `given` (..., 1 + F) are l and c."""
        logit, known = given.split([1, given.shape[-1] - 1], -1)
        return dist.Bernoulli(logits=(logit + self.net(known)).squeeze(-1))

    @torch.no_grad()
    def plain(self) -> None:
        """Bernoulli(logit l)."""
        nn.init.zeros_(self.net[-1].weight)
        nn.init.zeros_(self.net[-1].bias)

    def fit(self, draws: Tensor, weights: Tensor, given: Tensor | None = None) -> None:
        """Fit by gradient."""
        self.plain()
        if weights.sum() >= ENOUGH:
            ascend(
                self,
                lambda rows: weights[rows] * self(given[rows]).log_prob(draws[rows]),
                len(draws),
            )


@torch.enable_grad()
def ascend(net: nn.Module, gain: Callable[[Tensor], Tensor], number: int) -> None:
    """Maximise a sum over draws in a net's parameters, and keep those that are best on every eighth draw,
    which is held out.

    Args:
        gain: from indices to (n,), the terms of these draws in the sum.
        number: number of draws.
    """
    index = torch.arange(number)
    held, rest = index[index % HELD == 0], index[index % HELD != 0]
    optimiser = torch.optim.AdamW(net.parameters(), RATE, weight_decay=DECAY)
    falling = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, STEPS)
    best, state = -torch.inf, [p.detach().clone() for p in net.parameters()]
    for step in range(1, STEPS + 1):
        loss = -gain(rest[torch.randint(len(rest), (BATCH,))]).mean()
        optimiser.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        optimiser.step()
        falling.step()
        if step % LOOK == 0:
            with torch.no_grad():
                found = float(torch.cat([gain(rows) for rows in held.split(5000)]).mean())
            if found > best:
                best, state = found, [p.detach().clone() for p in net.parameters()]
    with torch.no_grad():
        for p, value in zip(net.parameters(), state, strict=True):
            p.copy_(value)
