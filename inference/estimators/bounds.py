"""Bounds on K samples per image."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from pyro.poutine import Trace
from torch import Tensor, nn

from inference.estimators.handlers import COPIES, Choose, Detach, several
from inference.estimators.sites import is_discrete
from inference.objectives import Objective, Term, cost_terms, log_prob_per_image, per_image


class Bound(nn.Module):
    """Estimators of a bound on K samples an image. Enumerated, relaxed or other methods do not mix in."""

    def __init__(self, copies: int = COPIES) -> None:
        super().__init__()
        self.copies = several(copies)

    def prepare(self, program: Callable, guide: Callable, images: Tensor) -> None:
        """Nothing is learned."""

    def log_weights(self, traces: tuple[Trace, Trace]) -> Tensor:
        """(K, B) log p - log q."""
        program_trace, guide_trace = traces
        both = log_prob_per_image(program_trace) - log_prob_per_image(guide_trace)
        return both.view(self.copies, -1)

    def terms(self, traces: tuple[Trace, Trace]) -> dict[str, Tensor]:
        """Of the ELBO, for the log: the mean over the copies."""
        with torch.no_grad():
            return {n: per_image(t).sum() / self.copies for n, t in cost_terms(*traces).items()}


class VIMCO(Bound):
    """Score functions of the IWAE bound; a copy's signal is the bound minus that without its weight."""

    def forward(
        self, program: Callable, guide: Callable, images: Tensor, objective: Objective
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """As `Estimator`."""
        with Choose():
            traces = objective.traces(program, guide, images.repeat(self.copies, 1, 1, 1))
        log_w = self.log_weights(traces)
        bound = log_w.logsumexp(0) - math.log(self.copies)
        mean = (log_w.sum(0) - log_w) / (self.copies - 1)
        own = torch.eye(self.copies, dtype=torch.bool, device=images.device)[..., None]
        without = torch.where(own, mean, log_w).logsumexp(1) - math.log(self.copies)
        signal = (bound - without).detach()
        log_q = [
            per_image(Term(name, site["cond_indep_stack"], site["log_prob"]))
            for name, site in traces[1].nodes.items()
            if is_discrete(site)
        ]
        score = sum(log_q).view_as(signal) if log_q else 0.0
        return -(bound + (signal * score).sum(0)).sum(), self.terms(traces)


class RWS(Bound):
    """Program and guide both learn from samples of the guide, weighted by their normalised weights."""

    def forward(
        self, program: Callable, guide: Callable, images: Tensor, objective: Objective
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """As `Estimator`."""
        with Choose(), Detach():
            traces = objective.traces(program, guide, images.repeat(self.copies, 1, 1, 1))
        share = self.log_weights(traces).detach().softmax(0).flatten()
        log_probs = sum(log_prob_per_image(trace) for trace in traces)
        return -(share * log_probs).sum(), self.terms(traces)
