"""Discrete distributions whose samples can be differentiated, each with a bias of its own.

Programs say ``Bernoulli(logits=…)`` and ``OneHotCategorical(logits=…)``. A `Relaxed` twin draws values that
carry a gradient, and is scored as the original is: its log-probability is the original's mass function,
extended linearly, and the KL between two of them is the originals', in closed form.

A draw is a function (logits (..., K), temperature) -> (..., K) on or in the simplex. A Bernoulli is the
two-way choice with logits (logit, 0), so its noise is logistic, the difference of two Gumbels.

# differs: equation 7 of Discrete-AIR has one Gumbel there. Its rounding at τ → 0 is 1 with probability
1 - exp(-a), which is not that of a Bernoulli of odds a, a / (1 + a).

==============  =====================================================================================
``gumbel``      softmax((logits + Gumbel noise) / τ) (Jang et al., 2017; Maddison et al., 2017)
``gumbel_sparsemax``  the nearest point of the simplex to the same (Martins & Astudillo, 2016)
``gumbel_st``   its largest entry set to one, the others to zero; the gradient is the soft one's
``gumbel_rao``  an exact draw; the mean gradient of K soft ones that round to it (Paulus et al., 2021)
``gapped_st``   an exact draw; the gradient at logits by which it wins by a gap (Fan et al., 2022)
``reinmax``     an exact draw; gradient of second order in the logits (Liu et al., 2023, Algorithm 2)
``mean``        no draw: the probabilities themselves (MONet; ECON, section 5.1)
==============  =====================================================================================
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

import pyro.distributions as dist
import torch
from torch import Tensor
from torch.distributions import constraints, kl_divergence, register_kl
from torch.nn import functional as F

Draw = Callable[[Tensor, Tensor | float], Tensor]


class Relaxed(dist.TorchDistribution):
    """A Bernoulli or one-hot categorical whose samples `draw` makes."""

    arg_constraints: ClassVar[dict] = {}
    has_rsample = True

    def __init__(
        self, base: dist.TorchDistribution, draw: Draw, temperature: Tensor | float = 1.0
    ) -> None:
        self.base, self.draw, self.temperature = base, draw, temperature
        super().__init__(base.batch_shape, base.event_shape, validate_args=False)

    @property
    def logits(self) -> Tensor:
        """Of the original."""
        return self.base.logits

    @property
    def support(self) -> constraints.Constraint:
        """[0, 1], or the simplex."""
        return constraints.simplex if self.event_shape else constraints.unit_interval

    def expand(self, batch_shape: torch.Size, _instance: object = None) -> Relaxed:
        """The same distribution over a larger batch."""
        return Relaxed(self.base.expand(batch_shape), self.draw, self.temperature)

    def rsample(self, sample_shape: torch.Size = torch.Size()) -> Tensor:
        """Differentiable samples."""
        logits = self.base.logits.expand(self._extended_shape(sample_shape))
        if self.event_shape:
            return self.draw(logits, self.temperature)
        pair = torch.stack([logits, torch.zeros_like(logits)], -1)
        return self.draw(pair, self.temperature)[..., 0]

    def log_prob(self, value: Tensor) -> Tensor:
        """The original's log-mass, linear in the value."""
        if self.event_shape:
            return (value * self.base.logits).sum(-1)
        logits, value = torch.broadcast_tensors(self.base.logits, value)
        return -F.binary_cross_entropy_with_logits(logits, value, reduction="none")


@register_kl(Relaxed, Relaxed)
def _kl_relaxed(q: Relaxed, p: Relaxed) -> Tensor:
    return kl_divergence(q.base, p.base)


def gumbel(logits: Tensor, temperature: Tensor | float) -> Tensor:
    """A point of the simplex."""
    return ((logits + noise(logits)) / temperature).softmax(-1)


def gumbel_sparsemax(logits: Tensor, temperature: Tensor | float) -> Tensor:
    """A point of the simplex that may lie on its boundary: exact zeros."""
    return sparsemax((logits + noise(logits)) / temperature)


def sparsemax(x: Tensor) -> Tensor:
    """(…, A) the nearest point of the simplex (Martins & Astudillo, 2016, Algorithm 1)."""
    ordered = x.sort(-1, descending=True).values
    number = torch.arange(1, x.shape[-1] + 1, device=x.device, dtype=x.dtype)
    excess = ordered.cumsum(-1) - 1
    support = (number * ordered > excess).sum(-1, keepdim=True)
    return (x - excess.gather(-1, support - 1) / support).clamp(min=0)


def gumbel_st(logits: Tensor, temperature: Tensor | float) -> Tensor:
    """A corner of the simplex, exactly; the gradient of the point it was rounded from."""
    soft = gumbel(logits, temperature)
    return _Instead.apply(_corner(soft.argmax(-1), soft), soft)


def gumbel_rao(logits: Tensor, temperature: Tensor | float, points: int = 10) -> Tensor:
    """A corner of the simplex; the gradient is the mean of those of `points` soft draws that round to it."""
    hard, at = exact(logits), logits.detach()
    moves = [(conditional(at, hard) - at).detach() for _ in range(points)]
    soft = sum(((logits + move) / temperature).softmax(-1) for move in moves) / points
    return _Instead.apply(hard, soft)


def gapped_st(logits: Tensor, temperature: Tensor | float, gap: float = 1.0) -> Tensor:
    """A corner of the simplex; the gradient of a softmax of logits among which it is the largest by `gap`."""
    hard, at = exact(logits), logits.detach()
    most = at.amax(-1, keepdim=True)
    up = hard * (most - at)
    down = (1 - hard) * (at - most + gap).clamp(min=0)
    return _Instead.apply(hard, ((logits + up - down) / temperature).softmax(-1))


def conditional(logits: Tensor, chosen: Tensor) -> Tensor:
    """(…, A) logits plus Gumbel noise, given which is the largest (one-hot), up to a common shift."""
    log_p = logits.log_softmax(-1).clamp(min=-60)
    exponential = -torch.rand_like(logits).clamp(1e-6, 1 - 1e-6).log()
    least = (exponential * chosen).sum(-1, keepdim=True)
    return torch.where(chosen > 0.5, -least.log(), -(least + exponential * (-log_p).exp()).log())


def exact(logits: Tensor, gumbel: Tensor | None = None) -> Tensor:
    """A corner of the simplex by the logits' probabilities, from noise that may be given; no gradient."""
    return _corner((logits + (noise(logits) if gumbel is None else gumbel)).argmax(-1), logits)


def reinmax(logits: Tensor, _: Tensor | float = 1.0) -> Tensor:
    """A corner of the simplex; the gradient of 2 π₁ - π₀ / 2, as in the paper's Algorithm 2 at τ = 1."""
    hard = exact(logits)
    first = logits.softmax(-1)
    middle = (0.5 * (hard + first)).clamp(min=1e-20).log()
    second = 2 * ((middle - logits).detach() + logits).softmax(-1) - 0.5 * first
    return _Instead.apply(hard, second)


def mean(logits: Tensor, _: Tensor | float = 1.0) -> Tensor:
    """The expected corner, a point of the simplex."""
    if logits.shape[-1] == 2:  # on a CPU a softmax of two takes six times as long
        first = (logits[..., 0] - logits[..., 1]).sigmoid()
        return torch.stack([first, 1 - first], -1)
    return logits.softmax(-1)


def noise(like: Tensor) -> Tensor:
    """Gumbel noise; 1e-6 keeps it finite at both ends."""
    return -(-torch.rand_like(like).clamp(1e-6, 1 - 1e-6).log()).log()


def _corner(index: Tensor, like: Tensor) -> Tensor:
    return F.one_hot(index, like.shape[-1]).to(like.dtype)


class _Instead(torch.autograd.Function):
    """The first argument forward, the gradient to the second: hard + soft - soft is not exactly hard."""

    @staticmethod
    def forward(ctx: Any, hard: Tensor, soft: Tensor) -> Tensor:
        return hard

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[None, Tensor]:
        return None, gradient
