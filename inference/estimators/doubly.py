"""Doubly reparametrised gradients of Gaussians in bounds on K samples (DReG; Tucker et al., 2019).

The gradient of log w by the guide's parameters has a part through the samples and a part ∂ log q at samples
that stand still. In expectation the latter is a part through the samples as well, for any g of weights:

    E[g ∂ log q_Z] = E[∇_Z g · ∂Z + g ∇_Z log q_D · ∂Z]                          (eq. 6, with discrete sites D)

where Z are the Gaussians, ∂Z their own gradient by parameters, and ∇_Z is taken with parameters cut off. With
g = w̃_k, the normalised weight, ∇_Z g = w̃_k (1 - w̃_k) ∇_Z log w_k. So guide and program run a second time, at
the samples as data; it is that run whose weights count.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import pyro.distributions as dist
import torch
from pyro import poutine
from pyro.poutine import Trace
from torch import Tensor

from inference.estimators.bounds import Bound, log_weight, vimco_signal
from inference.estimators.handlers import Choose, repeated
from inference.estimators.importance import Listed
from inference.estimators.origins import apart, buffers_kept
from inference.estimators.passes import Runs, latents_of, plates, where
from inference.estimators.pathwise import Pathwise
from inference.estimators.sites import is_discrete
from inference.objectives import Objective, is_aside, log_prob_per_image
from programs.blocks.distributions import elements


class DReG(Listed):
    """`IWAE` with doubly reparametrised gradients; discrete sites have score methods."""

    summary: ClassVar[str] = (
        "iwae, Gaussians doubly reparametrised: dreg:5+nvil (DReG; Tucker et al., 2019)"
    )
    bias: ClassVar[str] = "none, of the bound on K samples; else the method's"
    runs: ClassVar[str] = "K of the method's"

    def prepare(self, program: Callable, guide: Callable, images: Tensor) -> None:
        """As `Listed`.

        Raises:
            ValueError: as there; or a site has no density by which it could be doubly reparametrised.
        """
        super().prepare(program, guide, images)
        relaxed = [p for p, m in self.methods.items() if isinstance(m, Pathwise)]
        if relaxed:
            raise ValueError(
                f"dreg: relaxed values ({', '.join(relaxed)}) have no density of their own: give a score "
                "method such as nvil after the +, or choose iwae"
            )
        check_densities(guide, images)

    def forward(
        self, program: Callable, guide: Callable, images: Tensor, objective: Objective
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """As `Estimator`."""
        x = repeated(images, self.groups * self.copies)
        run = self.how(program, guide, objective)
        twice = run_twice(self, run, x, self.groups)
        loss, path = twice.of_bound()
        log_w = twice.log_w
        slopes = gradients(-(log_w.logsumexp(1) - math.log(self.copies)).sum(), twice.discrete)
        scores = self.scores(run, twice.drawn, x, log_w, slopes)
        return (loss + path + scores) / self.groups, self.terms(twice.traces, self.groups)


class Doubly(Bound):
    """Abstract: a bound on doubly reparametrised samples, without methods at discrete sites."""

    def prepare(self, program: Callable, guide: Callable, images: Tensor) -> None:
        """As `Bound`; every continuous site needs a density."""
        super().prepare(program, guide, images)
        check_densities(guide, images)


class DoublyVIMCO(Doubly):
    """`VIMCO` with doubly reparametrised gradients."""

    summary: ClassVar[str] = "vimco, Gaussians doubly reparametrised (DReG; Tucker et al., 2019)"
    bias: ClassVar[str] = "none, of the bound on K samples"
    runs: ClassVar[str] = "K"

    def forward(
        self, program: Callable, guide: Callable, images: Tensor, objective: Objective
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """As `Estimator`."""
        twice = twice_plainly(self, program, guide, images, objective)
        signal = vimco_signal(twice.log_w[0])
        twice.drawn.compute_log_prob(lambda _, site: not is_aside(site))
        score = self.log_q(twice.drawn, discrete=True)
        loss, path = twice.of_bound()
        return loss + path - (signal * score).sum(), self.terms(twice.traces)


class DoublyRWS(Doubly):
    """`RWS`, whose guide learns of Gaussians by Σ_k (w̃_k² - w̃_k) ∇_Z log w_k · ∂Z (section 5)."""

    summary: ClassVar[str] = "rws, Gaussians doubly reparametrised (DReG; Tucker et al., 2019)"
    bias: ClassVar[str] = "that of rws"
    runs: ClassVar[str] = "K"

    def forward(
        self, program: Callable, guide: Callable, images: Tensor, objective: Objective
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """As `Estimator`."""
        twice = twice_plainly(self, program, guide, images, objective)
        share = twice.share
        log_p = log_prob_per_image(twice.traces[0]).view_as(share)
        loss = -(share * (log_p + twice.log_q_discrete)).sum()
        path = twice.path(-share * (1 - share), -share)
        return loss + path, self.terms(twice.traces)


@dataclass(frozen=True)
class Twice:
    """Samples of a guide, and guide and program run again at them as data."""

    drawn: Trace
    """of the guide, as the samples were drawn"""
    traces: tuple[Trace, Trace]
    """program's and guide's at the samples"""
    leaves: dict[str, Tensor]
    """the samples as data, of continuous sites"""
    discrete: dict[str, Tensor]
    """those of discrete sites that have a gradient"""
    log_w: Tensor
    """(G, K, B)"""
    log_q: Tensor
    """(G, K, B) of the continuous sites"""
    log_q_discrete: Tensor
    """(G, K, B) of the discrete ones"""

    @property
    def share(self) -> Tensor:
        """(G, K, B) normalised weights, without gradient."""
        return self.log_w.detach().softmax(1)

    def of_bound(self) -> tuple[Tensor, Tensor]:
        """The negative bound's surrogate in nats a batch: by parameters, and through samples."""
        share = self.share
        return -(share * (self.log_w + self.log_q)).sum(), self.path(-share.square(), share)

    def path(self, weights: Tensor, discrete: Tensor) -> Tensor:
        """Σ (weights ∇_Z log w + discrete ∇_Z log q_D) · Z, factors (G, K, B)."""
        by_w = gradients(self.log_w.sum(), self.leaves)
        by_q = gradients(self.log_q_discrete.sum(), self.leaves)
        total = weights.new_zeros(())
        for name in self.leaves:
            of_w, of_q = self.rows(name, by_w[name]), self.rows(name, by_q[name])
            slope = weights.view(-1, 1) * of_w + discrete.view(-1, 1) * of_q
            total = (
                total + (slope.detach() * self.rows(name, self.drawn.nodes[name]["value"])).sum()
            )
        return total

    def rows(self, name: str, x: Tensor) -> Tensor:
        """(G·K·B, D) what is shaped as a site's value, a row per image and sample."""
        place = where(name, self.drawn)
        return place.front(x, place.fn.event_dim).reshape(self.log_w.numel(), -1)


def gradients(cost: Tensor, leaves: dict[str, Tensor]) -> dict[str, Tensor]:
    """The gradient of a number by leaves, by name; 0 where it does not depend on them."""
    if not leaves:
        return {}
    if not cost.requires_grad:
        return {name: torch.zeros_like(leaf) for name, leaf in leaves.items()}
    found = torch.autograd.grad(
        cost, list(leaves.values()), retain_graph=True, materialize_grads=True
    )
    return dict(zip(leaves, found, strict=True))


def twice_plainly(
    bound: Bound, program: Callable, guide: Callable, images: Tensor, objective: Objective
) -> Twice:
    """`run_twice` without methods at discrete sites, one group."""
    run = Runs({}, images.new_ones(()), program, guide, objective)
    return run_twice(bound, run, repeated(images, bound.copies), 1)


def run_twice(bound: Bound, run: Runs, x: Tensor, groups: int) -> Twice:
    """Draw from the guide, then run guide and program at what was drawn."""
    with Choose():
        drawn = poutine.trace(run.guide).get_trace(x)
    values = {n: drawn.nodes[n]["value"].detach() for n in latents_of(drawn)}
    leaves = {n: v.requires_grad_() for n, v in values.items() if v.is_floating_point()}
    with buffers_kept(run.program, run.guide):
        traces = run.traces(x, plates(drawn) | values)
    log_w, number = log_weight(traces), groups * bound.copies
    discrete = bound.log_q(traces[1], discrete=True, copies=number)
    log_q = bound.log_q(traces[1], discrete=False, copies=number) - discrete
    shape = groups, bound.copies, -1
    kinds = {n: is_discrete(drawn.nodes[n]) for n in leaves}
    return Twice(
        drawn,
        traces,
        {n: v for n, v in leaves.items() if not kinds[n]},
        {n: v for n, v in leaves.items() if kinds[n]},
        log_w.view(shape),
        log_q.expand(number, len(x) // number).reshape(shape),
        discrete.expand(number, len(x) // number).reshape(shape),
    )


def check_densities(guide: Callable, images: Tensor) -> None:
    """Every continuous site has a density.

    Raises:
        ValueError: one is a Delta.
    """
    with apart(guide), torch.no_grad():
        trace = poutine.trace(guide).get_trace(images)
    for name in latents_of(trace):
        if isinstance(elements(trace.nodes[name]["fn"]), dist.Delta):
            raise ValueError(
                f"site {name!r} is a Delta, which has no density to be doubly reparametrised: choose vimco, "
                "rws or iwae"
            )
