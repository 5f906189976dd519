"""Pathwise methods: a differentiable sample in the place of the discrete one."""

from __future__ import annotations

import pyro.distributions as dist
from torch import Tensor

from inference.estimators.relaxations import Draw, Relaxed
from inference.estimators.sites import Method, alternatives


class Pathwise(Method):
    """A differentiable sample in the place of the discrete one."""

    def __init__(self, draw: Draw) -> None:
        super().__init__()
        self.draw = draw

    def prepare(self, name: str, fn: dist.TorchDistribution, images: Tensor) -> None:
        """Refuse what cannot be relaxed."""
        alternatives(name, fn)

    def relax(self, fn: dist.TorchDistribution, temperature: Tensor) -> dist.TorchDistribution:
        """The twin of a Bernoulli or one-hot categorical."""
        if isinstance(fn, dist.Independent):
            return self.relax(fn.base_dist, temperature).to_event(fn.reinterpreted_batch_ndims)
        return Relaxed(fn, self.draw, temperature)


class Competition(Method):
    """The sample as it is; neither it nor its KL has a gradient. Its logits are learned elsewhere."""

    def prepare(self, name: str, fn: dist.TorchDistribution, images: Tensor) -> None:
        """Refuse what has no logits."""
        alternatives(name, fn)

    def relax(self, fn: dist.TorchDistribution, _: Tensor) -> dist.TorchDistribution:
        """The same distribution, cut off from what its logits depend on."""
        if isinstance(fn, dist.Independent):
            return self.relax(fn.base_dist, _).to_event(fn.reinterpreted_batch_ndims)
        return type(fn)(logits=fn.logits.detach())
