"""Reweighted wake-sleep, with its sleep phase and with a defensive mixture for proposal."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import ClassVar

import pyro.distributions as dist
from pyro.poutine import Trace
from pyro.poutine.messenger import Messenger
from torch import Tensor

from inference.estimators.bounds import Bound
from inference.estimators.handlers import Choose, Detach, repeated
from inference.estimators.sites import is_discrete
from inference.estimators.sleep import Dreaming
from inference.objectives import Objective, log_prob_per_image
from programs.blocks.distributions import inside

DEFENCE = 0.2
"""Share of the uniform distribution in a defensive mixture (Le et al., 2019)."""


class Wake(Bound):
    """Abstract: program and guide both learn from weighed samples."""

    proposal: ClassVar[type[AbstractContextManager]]
    """within it the guide draws from what samples are weighed by"""

    def forward(
        self, program: Callable, guide: Callable, images: Tensor, objective: Objective
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """As `Estimator`."""
        traces, share = wake(self, program, guide, images, objective, self.proposal())
        log_p = log_prob_per_image(traces[0]).view_as(share)
        log_q = self.log_q(traces[1], discrete=False)
        return -(share * (log_p + log_q)).sum(), self.terms(traces)


class RWS(Wake):
    """Samples of the guide, weighed by their normalised weights."""

    summary: ClassVar[str] = (
        "reweighted wake-sleep, wake-phase both (Bornschein & Bengio, 2015; Le et al., 2019)"
    )
    bias: ClassVar[str] = "another loss: KL(p ‖ q) for the guide, of order 1/K from its gradient"
    proposal = nullcontext


class SleepingRWS(Dreaming):
    """`RWS`, whose guide learns from dreams of the program by half.

    - 1/2 Σ_k share_k log q(z_k | x) - 1/2 log Σ_π q(π z* | x*),  z*, x* ~ p
    """

    summary: ClassVar[str] = (
        "the same with a sleep phase: half of the guide's gradient is from dreams"
    )
    bias: ClassVar[str] = "another loss: KL(p ‖ q) for the guide, on images and on dreams"
    runs: ClassVar[str] = "K + 1"

    def forward(
        self, program: Callable, guide: Callable, images: Tensor, objective: Objective
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """As `Estimator`."""
        traces, share = wake(self, program, guide, images, objective, nullcontext())
        log_p = log_prob_per_image(traces[0]).view_as(share)
        log_q = self.log_q(traces[1], discrete=False)
        awake = (share * (log_p + 0.5 * log_q)).sum()
        return -awake - 0.5 * self.asleep(program, guide, images.shape).sum(), self.terms(traces)


class Defend(Messenger):
    """Around guide and replayed program: discrete sites of the guide are drawn from a defensive mixture."""

    def _pyro_sample(self, msg: dict) -> None:
        if is_discrete(msg) and not msg["done"]:
            msg["infer"]["proposed for"] = msg["fn"]
            msg["fn"] = inside(msg["fn"], defended)


class DefensiveRWS(Wake):
    """`RWS` on samples of a mixture of the guide and the uniform distribution at every discrete site.

    So values that the guide has given up are still tried, and weighed as what they were drawn from.
    """

    summary: ClassVar[str] = (
        "the same on samples of a mixture with a fifth of uniform draws (Le et al., 2019)"
    )
    bias: ClassVar[str] = "that of rws"
    of_discrete: ClassVar[bool] = True
    proposal = Defend


def defended(fn: dist.TorchDistribution) -> dist.TorchDistribution:
    """(1 - δ) fn + δ uniform, of a Bernoulli or category; another distribution as it is."""
    if isinstance(fn, dist.Bernoulli):
        return dist.Bernoulli(probs=(1 - DEFENCE) * fn.probs + DEFENCE / 2)
    if isinstance(fn, dist.OneHotCategorical | dist.Categorical):
        return type(fn)(probs=(1 - DEFENCE) * fn.probs + DEFENCE / fn.probs.shape[-1])
    return fn


def wake(
    bound: Bound,
    program: Callable,
    guide: Callable,
    images: Tensor,
    objective: Objective,
    proposal: AbstractContextManager,
) -> tuple[tuple[Trace, Trace], Tensor]:
    """Traces of K samples per image, whose values are data, and their normalised weights (K, B)."""
    with Choose(), Detach(), proposal:
        traces = objective.traces(program, guide, repeated(images, bound.copies))
    return traces, bound.log_weights(traces).detach().softmax(0)
