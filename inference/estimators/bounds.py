"""Bounds on K samples per image, and Pyro's own estimator: objectives of their own, for all sites alike."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import ClassVar

import pyro
import torch
from pyro.infer import TraceGraph_ELBO
from pyro.infer.tracegraph_elbo import TrackNonReparam
from pyro.ops.provenance import detach_provenance
from pyro.poutine import Trace
from pyro.poutine.util import prune_subsample_sites
from torch import Tensor, nn

from inference.estimators.checks import NOTHING_DISCRETE, check
from inference.estimators.handlers import COPIES, Choose, repeated, several
from inference.estimators.origins import Written
from inference.estimators.sites import is_discrete, reachable
from inference.objectives import (
    Objective,
    Term,
    cost_terms,
    is_aside,
    log_prob_per_image,
    per_image,
)
from programs.blocks.distributions import unmasked


class Whole(nn.Module):
    """Abstract: an estimator for all sites alike; enumerated, relaxed or other methods do not mix in."""

    summary: ClassVar[str]
    bias: ClassVar[str]
    runs: ClassVar[str]
    takes: ClassVar[str] = ""

    def prepare(self, program: Callable, guide: Callable, images: Tensor) -> None:
        """See that program and guide fit each other; nothing is learned.

        Raises:
            ValueError: they do not.
        """
        check(program, guide, images)


class TraceGraph(Whole):
    """Pyro's ``TraceGraph_ELBO``: honours ``infer={"baseline": …}`` of a guide (Pyro's documentation of it).

    # differs: tensors that a program writes in place keep their origins, and what Python reads of a sample is
    an origin of every term.
    """

    summary: ClassVar[str] = (
        "Pyro's own TraceGraph_ELBO, with the guide's own baselines (Schulman et al., 2015)"
    )
    bias: ClassVar[str] = "none, unless a latent outside of a plate joins its elements"
    runs: ClassVar[str] = "1"

    def forward(
        self, program: Callable, guide: Callable, images: Tensor, objective: Objective
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """As `Estimator`."""
        with pyro.validation_enabled(False), Written() as written, TrackNonReparam(), Choose():
            traces = tuple(map(prune_subsample_sites, objective.traces(program, guide, images)))
            traces[0].compute_log_prob()
            traces[1].compute_score_parts()
            for trace in traces:
                for site in trace.nodes.values():
                    if "log_prob_sum" in site:
                        site["log_prob_sum"] = written.marked(site["log_prob_sum"])
            _, surrogate = TraceGraph_ELBO()._loss_and_surrogate_loss_particle(*traces)
            terms = {name: t.cost.sum() for name, t in cost_terms(*traces).items()}
        return surrogate, {name: detach_provenance(t).detach() for name, t in terms.items()}


class Bound(Whole):
    """Abstract: an estimator of a bound on K samples per image, log 1/K Σ_k w_k.

    Weights of an objective, its penalties and the scales of subsampled plates stand in log w as they stand in
    the loss: log w = log p(x | z) + weight (log p(z) - log q(z)) - penalty. With such tables it is a bound on
    no evidence; its gradient is that of the loss so defined. What samples are scored by is log q itself.
    """

    takes: ClassVar[str] = "copies"
    runs: ClassVar[str] = "K"
    of_discrete: ClassVar[bool] = False
    """whether it is another bound only where latents are discrete"""

    def __init__(self, copies: int = COPIES) -> None:
        super().__init__()
        self.copies = several(copies)

    def prepare(self, program: Callable, guide: Callable, images: Tensor) -> None:
        """As `Whole`.

        Raises:
            ValueError: a latent is of all images, so that no bound is of an image; or none is discrete, where
                the estimator is for discrete ones.
        """
        seen = check(program, guide, images)
        if self.of_discrete and not seen.discrete:
            raise ValueError(NOTHING_DISCRETE)
        if seen.shared:
            raise ValueError(
                f"{', '.join(seen.shared)} are of all images, outside of their plate, and bounds on K samples "
                "are bounds per image: choose tracegraph, nvil or another estimator that is no such bound"
            )

    def log_weights(self, traces: tuple[Trace, Trace]) -> Tensor:
        """(K, B) log p - log q."""
        return log_weight(traces).view(self.copies, -1)

    def log_q(self, guide_trace: Trace, discrete: bool, copies: int | None = None) -> Tensor:
        """(K, B) of what was drawn, or its discrete part: no weights, no scales, no absent nodes."""
        drawn = {n: s for n, s in guide_trace.nodes.items() if s["type"] == "sample"}
        sites = [
            per_image(Term(n, s["cond_indep_stack"], _log_prob(s) * reachable(s)))
            for n, s in drawn.items()
            if not is_aside(s) and (is_discrete(s) or not discrete)
        ]
        if not sites:
            latent = next(s for s in drawn.values() if not is_aside(s))
            return latent["value"].new_zeros(())
        return sum(sites).view(copies or self.copies, -1)

    def terms(self, traces: tuple[Trace, Trace], groups: int = 1) -> dict[str, Tensor]:
        """Of the ELBO, for the log: the mean over the copies."""
        number = groups * self.copies
        with torch.no_grad():
            return {n: per_image(t).sum() / number for n, t in cost_terms(*traces).items()}


def log_weight(traces: tuple[Trace, Trace]) -> Tensor:
    """(K·B) log p - log q of the program's trace and the guide's."""
    return log_prob_per_image(traces[0]) - log_prob_per_image(traces[1])


def without_own(log_w: Tensor) -> Tensor:
    """(…, K, B) the logarithm of the sum of the other weights, from log weights (…, K, B)."""
    number = log_w.shape[-2]
    own = torch.eye(number, dtype=torch.bool, device=log_w.device)[..., None]
    others = log_w.unsqueeze(-3).expand(*log_w.shape[:-1], number, -1)
    return others.masked_fill(own, -math.inf).logsumexp(-2)


def vimco_signal(log_w: Tensor) -> Tensor:
    """(K, B) the bound minus that with a sample's log weight replaced by the mean of the others (eq. 9)."""
    number = len(log_w)
    mean = (log_w.sum(0) - log_w) / (number - 1)
    own = torch.eye(number, dtype=torch.bool, device=log_w.device)[..., None]
    without = torch.where(own, mean, log_w).logsumexp(1)
    return (log_w.logsumexp(0) - without).detach()


def _log_prob(site: dict) -> Tensor:
    """log q of what was drawn, as it was computed unless something was put in the place of the guide's own."""
    fn = unmasked(site["infer"].get("proposed for", site["fn"]))
    return site["unscaled_log_prob"] if fn is site["fn"] else fn.log_prob(site["value"])


class VIMCO(Bound):
    """Score functions of the IWAE bound; a copy's signal is the bound minus that without its weight."""

    summary: ClassVar[str] = (
        "gradient of the IWAE bound, leave-one-out control variates (Mnih & Rezende, 2016)"
    )
    bias: ClassVar[str] = "none, of the bound on K samples"

    def forward(
        self, program: Callable, guide: Callable, images: Tensor, objective: Objective
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """As `Estimator`."""
        with Choose():
            traces = objective.traces(program, guide, repeated(images, self.copies))
        log_w = self.log_weights(traces)
        bound = log_w.logsumexp(0) - math.log(self.copies)
        score = self.log_q(traces[1], discrete=True)
        return -(bound + (vimco_signal(log_w) * score).sum(0)).sum(), self.terms(traces)
