"""The sleep phase alone: the guide learns to read the program's own scenes (Hinton et al., 1995)."""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar

import torch
from torch import Tensor

from inference.estimators.bounds import Bound
from inference.estimators.dreams import dream, read, seen_site
from inference.estimators.handlers import COPIES
from inference.objectives import Objective


class Dreaming(Bound):
    """Abstract: the guide learns, alone or beside other terms, to find the latents of dreams."""

    def __init__(self, copies: int = COPIES) -> None:
        super().__init__(copies)
        self.seen = ""

    def prepare(self, program: Callable, guide: Callable, images: Tensor) -> None:
        """See that the program dreams images.

        Raises:
            ValueError: it does not, or as `Bound`.
        """
        super().prepare(program, guide, images)
        self.seen = seen_site(program, images, "a sleep phase")

    def asleep(
        self, program: Callable, guide: Callable, shape: torch.Size, clear: int = 0
    ) -> Tensor:
        """(B,) log Σ_π q(π z* | x*) of a dream with images x* of a shape (B, C, H, W), nats.

        π runs over the orders of objects that are drawn one after the other, of which the image knows nothing
        (`dreams.reordered`). `clear`: as in `dream`.
        """
        rows, trace = read(guide, dream(program, self.seen, shape, clear))
        trace.compute_log_prob()
        each = self.log_q(trace, discrete=False, copies=1).squeeze(0)
        return log_sum_by_row(each, rows, shape[0])


class Sleep(Dreaming):
    """- E_p log Σ_π q(π z* | x*),  z*, x* ~ p: the guide is fitted to the posterior of dreams.

    Its minimum over all guides is the program's posterior, so widths are right where a family cannot follow:
    the density that q gives to the truth is maximised, as in the regression of z* on x*. The program learns
    nothing.

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
        self.clear = clear

    def forward(
        self, program: Callable, guide: Callable, images: Tensor, objective: Objective
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """As `Estimator`."""
        loss = -self.asleep(program, guide, images.shape, self.clear).sum()
        return loss, {"dreams": loss.detach()}


def log_sum_by_row(x: Tensor, rows: Tensor, number: int) -> Tensor:
    """(number,) log Σ exp of the entries of x (P,) that belong to each row."""
    index = rows.expand_as(x)
    most = x.detach().new_full((number,), -torch.inf).scatter_reduce(0, index, x.detach(), "amax")
    total = x.new_zeros(number).scatter_add(0, index, (x - most[rows]).exp())
    return total.log() + most
