"""The sleep phase alone: the guide learns to read the program's own scenes (Hinton et al., 1995)."""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar

import torch
from pyro import poutine
from torch import Tensor

from inference.estimators.bounds import Bound
from inference.estimators.dreams import dream, reordered, seen_site
from inference.estimators.handlers import Fix
from inference.objectives import Objective


class Sleep(Bound):
    """- E_p log Σ_π q(π z* | x*),  z*, x* ~ p: the guide is fitted to the posterior of dreams.

    Its minimum over all guides is the program's posterior, so widths are right where a family cannot follow:
    the density that q gives to the truth is maximised, as in the regression of z* on x*. π runs over the
    orders of objects that are drawn one after the other, of which the image knows nothing
    (`dreams.reordered`). The program learns nothing.

    ``sleep:2`` shows every second dream without the noise of its pixels. The world's pictures have none, and a
    guide can tell the two apart, so that what it infers from noisy ones stays the posterior.
    """

    summary: ClassVar[str] = (
        "sleep phase: the guide alone learns, from dreams, in any order of objects"
    )
    bias: ClassVar[str] = "another loss: KL(p ‖ q) on dreams, for the guide alone"
    runs: ClassVar[str] = "1 per order"
    takes: ClassVar[str] = "dreams of which one has no noise"

    def __init__(self, clear: int = 0) -> None:
        super().__init__()
        self.seen, self.clear = "", clear

    def prepare(self, program: Callable, guide: Callable, images: Tensor) -> None:
        """See that the program dreams images.

        Raises:
            ValueError: it does not, or as `Bound`.
        """
        super().prepare(program, guide, images)
        self.seen = seen_site(program, images, "sleep")

    def forward(
        self, program: Callable, guide: Callable, images: Tensor, objective: Objective
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """As `Estimator`."""
        loss = -self.scores(program, guide, images.shape).sum()
        return loss, {"dreams": loss.detach()}

    def scores(self, program: Callable, guide: Callable, shape: torch.Size) -> Tensor:
        """(B,) log Σ_π q(π z* | x*) of a dream with images of a shape (B, C, H, W), nats."""
        found = dream(program, self.seen, shape, self.clear)
        rows, values = reordered(found)
        sizes = found.sizes if len(rows) == shape[0] else {}
        with Fix(sizes | values):
            trace = poutine.trace(guide).get_trace(found.images[rows])
        trace.compute_log_prob()
        each = self.log_q(trace, discrete=False, copies=1).squeeze(0)
        return log_sum_by_row(each, rows, shape[0])


def log_sum_by_row(x: Tensor, rows: Tensor, number: int) -> Tensor:
    """(number,) log Σ exp of the entries of x (P,) that belong to each row."""
    index = rows.expand_as(x)
    most = x.detach().new_full((number,), -torch.inf).scatter_reduce(0, index, x.detach(), "amax")
    total = x.new_zeros(number).scatter_add(0, index, (x - most[rows]).exp())
    return total.log() + most
