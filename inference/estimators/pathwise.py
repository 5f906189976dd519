"""Pathwise methods: a differentiable sample in the place of the discrete one."""

from __future__ import annotations

from functools import partial
from typing import ClassVar

import pyro.distributions as dist
from torch import Tensor

from inference.estimators import relaxations
from inference.estimators.relaxations import Draw, Relaxed
from inference.estimators.sites import Method, Place, alternatives
from programs.blocks.distributions import inside


class Pathwise(Method):
    """Abstract: a differentiable sample in the place of the discrete one."""

    draw: Draw
    runs: ClassVar[str] = "1"

    def prepare(self, place: Place, images: Tensor) -> None:
        """Refuse what cannot be relaxed."""
        alternatives(place.name, place.fn)

    def relax(self, fn: dist.TorchDistribution, temperature: Tensor) -> dist.TorchDistribution:
        """The twin of a Bernoulli or one-hot categorical."""
        return inside(fn, lambda own: Relaxed(own, self.draw, temperature))


class Gumbel(Pathwise):
    """A point of the simplex."""

    summary: ClassVar[str] = "relaxed (Jang et al., 2017; Maddison et al., 2017)"
    bias: ClassVar[str] = "another loss, that of relaxed values"
    draw = staticmethod(relaxations.gumbel)


class GumbelSparsemax(Pathwise):
    """A point of the simplex, often on its boundary."""

    summary: ClassVar[str] = (
        "the same by sparsemax: values may be exactly 0 or 1 (Martins & Astudillo, 2016)"
    )
    bias: ClassVar[str] = "another loss, that of relaxed values"
    draw = staticmethod(relaxations.gumbel_sparsemax)


class GumbelST(Pathwise):
    """A corner, with the gradient of the point that it was rounded from."""

    summary: ClassVar[str] = "the same, rounded to a corner on the way forward (straight-through)"
    bias: ClassVar[str] = "of first order in the step to another value"
    draw = staticmethod(relaxations.gumbel_st)


class GumbelRao(Pathwise):
    """A corner, with the mean gradient of K points that round to it."""

    summary: ClassVar[str] = "its mean over K = 10 points that round alike (Paulus et al., 2021)"
    bias: ClassVar[str] = "that of gumbel_st"
    takes: ClassVar[str] = "points"

    def __init__(self, points: int = 10) -> None:
        super().__init__()
        if points < 1:
            raise ValueError(f"gumbel_rao:{points}: give at least 1 point")
        self.draw = partial(relaxations.gumbel_rao, points=points)


class GappedST(Pathwise):
    """A corner, with the gradient at logits moved until it is the largest by a gap."""

    summary: ClassVar[str] = (
        "an exact sample, a gradient without Gumbel noise (Gapped ST; Fan et al., 2022)"
    )
    bias: ClassVar[str] = "of first order in the step to another value"
    draw = staticmethod(relaxations.gapped_st)


class ReinMax(Pathwise):
    """An exact sample, with a gradient of second order."""

    summary: ClassVar[str] = "an exact sample, a gradient of second order (Liu et al., 2023)"
    bias: ClassVar[str] = "of second order in the step to another value"
    draw = staticmethod(relaxations.reinmax)


class Mean(Pathwise):
    """The probabilities, without noise."""

    summary: ClassVar[str] = "the probability itself: what MONet and ECON train masks with"
    bias: ClassVar[str] = "another loss, that of mean values"
    draw = staticmethod(relaxations.mean)


class Competition(Method):
    """The sample as it is; neither it nor its KL has a gradient. Its logits are learned elsewhere."""

    summary: ClassVar[str] = (
        "an exact sample, and no gradient: nothing is learned (ECON, section 5.2)"
    )
    bias: ClassVar[str] = "all of the site's gradient is left out"
    runs: ClassVar[str] = "1"

    def prepare(self, place: Place, images: Tensor) -> None:
        """Refuse what has no logits."""
        alternatives(place.name, place.fn)

    def relax(self, fn: dist.TorchDistribution, _: Tensor) -> dist.TorchDistribution:
        """The same distribution, cut off from what its logits depend on."""
        return inside(fn, lambda own: type(own)(logits=own.logits.detach()))
