"""The bound on K samples per image, whose discrete sites take any score or pathwise method."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import ClassVar

from pyro.poutine import Trace
from torch import Tensor

from inference.estimators.bounds import Bound, log_weight, without_own
from inference.estimators.estimator import Estimator
from inference.estimators.handlers import COPIES, Leaves, repeated
from inference.estimators.passes import Runs, where
from inference.estimators.sites import Method, is_discrete
from inference.objectives import Objective


class Listed(Bound):
    """Abstract: a bound whose discrete sites have methods of their own, as in ``iwae:5+z_pres*=rloo:2``."""

    def __init__(self, copies: int = COPIES, discrete: Estimator | None = None) -> None:
        super().__init__(copies)
        self.discrete = Estimator({}) if discrete is None else discrete

    @property
    def temperature(self) -> Tensor:
        """The buffer that schedules write."""
        return self.discrete.temperature

    @property
    def methods(self) -> Mapping[str, Method]:
        """By pattern."""
        return self.discrete.by_pattern

    @property
    def groups(self) -> int:
        """G, how many groups of K samples every image has: the copies of a method such as ``rloo:2``."""
        return max((method.copies for method in self.methods.values()), default=1)

    def prepare(self, program: Callable, guide: Callable, images: Tensor) -> None:
        """As `Estimator.prepare`.

        Raises:
            ValueError: as there, and as `Bound`; or sites are to be enumerated.
        """
        super().prepare(program, guide, images)
        self.discrete.prepare(program, guide, images)
        if self.discrete.enumerated:
            raise ValueError(
                "a bound on several samples cannot be enumerated: give a score or pathwise method after the +, "
                "such as expect, which sums over one site of one sample"
            )

    def how(self, program: Callable, guide: Callable, objective: Objective) -> Runs:
        """How guide and program are run."""
        return Runs(self.methods, self.temperature, program, guide, objective)

    def scores(
        self, run: Runs, trace: Trace, x: Tensor, log_w: Tensor, slopes: Mapping[str, Tensor]
    ) -> Tensor:
        """What score methods add to the negative bound, in nats a batch, from log weights (G, K, B)."""
        names = [n for n, node in trace.nodes.items() if is_discrete(node)]
        costs = Group(log_w.detach())
        return self.discrete.extra(
            [n for n in names if self.discrete.scores(n)],
            lambda name: run.see(name, trace, x, costs, slopes.get(name)),
        )


class IWAE(Listed):
    """log 1/K Σ_k w_k; the cost of every draw is the bound of its whole group."""

    summary: ClassVar[str] = (
        "IWAE bound of K = 4 samples, by any method: iwae:5+nvil (Burda et al., 2016)"
    )
    bias: ClassVar[str] = "none, of the bound on K samples; else the method's"
    runs: ClassVar[str] = "K of the method's"

    def forward(
        self, program: Callable, guide: Callable, images: Tensor, objective: Objective
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """As `Estimator`."""
        x = repeated(images, self.groups * self.copies)
        run = self.how(program, guide, objective)
        with Leaves(self.methods) as leaves:
            traces = run.traces(x, {})
        log_w = log_weight(traces).view(self.groups, self.copies, -1)
        loss = -(log_w.logsumexp(1) - math.log(self.copies)).sum()
        scores = self.scores(run, traces[1], x, log_w, leaves.slopes(loss))
        return (loss + scores) / self.groups, self.terms(traces, self.groups)


@dataclass(frozen=True)
class Group:
    """The negative bound of a draw's group, as `passes.Costs`: all others of the group as they are."""

    log_w: Tensor
    """(G, K, B) without gradient"""

    @property
    def nats(self) -> float:
        """log K."""
        return math.log(self.log_w.shape[1])

    def cost(self, name: str, trace: Trace) -> Tensor:
        """As `passes.Costs`."""
        loss = self.nats - self.log_w.logsumexp(1, keepdim=True)
        return spread(loss.expand_as(self.log_w).flatten(), where(name, trace).shape)

    def again(self, name: str, traces: tuple[Trace, Trace], number: int) -> tuple[Tensor, Tensor]:
        """As `passes.Costs`."""
        new = log_weight(traces).view(number, *self.log_w.shape)
        total = self.nats - new.logaddexp(without_own(self.log_w)).flatten(1)
        return spread(total.detach(), where(name, traces[1]).shape), total


def spread(cost: Tensor, shape: tuple[int, ...]) -> Tensor:
    """(…, *S) the same cost for all elements of a site."""
    return cost.view(*cost.shape, *[1] * len(shape)).expand(*cost.shape, *shape)
