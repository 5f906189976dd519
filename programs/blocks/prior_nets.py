"""Learned priors that depend on other latents, by small nets; at first each is what the program's own net says.

    NetMixture(D, F, K)   p(z | μ, σ, c) = w_0 N(z | μ, σ²) + Σ_k w_k N(z | μ_k, diag σ_k²)
                          with w, μ_k and σ_k from a net of c
    NetBernoulli(F)       p(z | l, c)    = Bernoulli(z | logit l + net(c))

`programs.blocks.priors` says what a `Learned` prior owes.

Shape legend: D features, F numbers of what is known (c), K components, N draws.
"""

from __future__ import annotations

from collections.abc import Callable

import pyro.distributions as dist
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from programs.blocks.distributions import normal, positive
from programs.blocks.nets import mlp
from programs.blocks.priors import ENOUGH, Learned, Mixture, clusters, moments, raw

HIDDEN = 64
"""Width of a net's layer."""
NEVER = -20.0
"""Logit of components that have no weight at first."""
STEPS, BATCH, RATE, DECAY = 600, 512, 3e-3, 1e-3
"""Of a net's fit by AdamW, whose learning rate falls to 0 as a cosine."""
LOOK, HELD = 50, 8
"""Steps between two looks at every eighth draw, which says when a fit was best."""


class NetMixture(Learned):
    """The Gaussian that the program's own net says, and K others by a net of what is known."""

    def __init__(self, features: int, known: int, components: int) -> None:
        super().__init__()
        self.split = features, features, known
        self.components = components
        self.net = mlp(known, [HIDDEN, HIDDEN], components * (2 * features + 1))
        self.plain()

    def forward(self, given: Tensor) -> dist.TorchDistribution:
        """Of event (D); `given` (..., 2 D + F) are μ, σ and c."""
        loc, sd, known = given.split(self.split, -1)
        others = self.net(known).unflatten(-1, (self.components, -1))
        logits, means, spread = others.split([1, *self.split[:2]], -1)
        logits = F.pad(logits.squeeze(-1), (1, 0))
        means = torch.cat([loc.unsqueeze(-2), means], -2)
        sds = torch.cat([sd.unsqueeze(-2), positive(spread)], -2)
        return Mixture(dist.Categorical(logits=logits), normal(means, sds))

    @torch.no_grad()
    def plain(self) -> None:
        """N(μ, σ²): no other component has weight."""
        nn.init.zeros_(self.net[-1].weight)
        bias = torch.zeros(self.components, 1 + 2 * self.split[0])
        bias[:, 0] = NEVER
        self.net[-1].bias.copy_(bias.flatten())

    def fit(self, draws: Tensor, weights: Tensor, given: Tensor | None = None) -> None:
        """By gradient; components begin at clusters of the draws."""
        some = weights > 0.5
        if some.sum() < ENOUGH * self.components:
            return
        self._begin(draws[some])
        ascend(
            self, lambda rows: weights[rows] * self(given[rows]).log_prob(draws[rows]), len(draws)
        )

    @torch.no_grad()
    def _begin(self, draws: Tensor) -> None:
        nn.init.normal_(self.net[-1].weight, std=0.01)
        centres = clusters(draws, self.components)
        spread = raw(moments(draws, torch.ones(len(draws)))[1] / 2).expand_as(centres)
        zeros = centres.new_zeros(self.components, 1)
        self.net[-1].bias.copy_(torch.cat([zeros, centres, spread], -1).flatten())


class NetBernoulli(Learned):
    """The probability that the program's own net says, changed by a net of what is known."""

    def __init__(self, known: int) -> None:
        super().__init__()
        self.net = mlp(known, [HIDDEN], 1)
        self.plain()

    def forward(self, given: Tensor) -> dist.Bernoulli:
        """Of batch (...); `given` (..., 1 + F) are l and c."""
        logit, known = given.split([1, given.shape[-1] - 1], -1)
        return dist.Bernoulli(logits=(logit + self.net(known)).squeeze(-1))

    @torch.no_grad()
    def plain(self) -> None:
        """Bernoulli(logit l)."""
        nn.init.zeros_(self.net[-1].weight)
        nn.init.zeros_(self.net[-1].bias)

    def fit(self, draws: Tensor, weights: Tensor, given: Tensor | None = None) -> None:
        """By gradient."""
        if weights.sum() >= ENOUGH:
            ascend(
                self,
                lambda rows: weights[rows] * self(given[rows]).log_prob(draws[rows]),
                len(draws),
            )


@torch.enable_grad()
def ascend(net: nn.Module, gain: Callable[[Tensor], Tensor], number: int) -> None:
    """Maximise a sum over draws in a net's parameters, and keep those that were best for every eighth draw.

    Args:
        gain: indices -> (n,) what the draws add to the sum.
        number: of draws.
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
