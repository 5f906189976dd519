"""Effect handlers that put values and gradients at discrete sites, and how many copies a method takes."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import pyro.distributions as dist
import torch
from pyro.poutine.messenger import Messenger
from torch import Tensor

from inference.estimators.pathwise import Competition, Pathwise
from inference.estimators.relaxations import exact, noise
from inference.estimators.sites import Method, batch_dim, is_choice, is_discrete
from inference.objectives import in_common, is_aside, lookup
from programs.blocks.distributions import elements

COPIES = 4
"""K where it is not given."""


class Relax(Messenger):
    """Put a twin, differentiable or cut off, in the place of every choice with such a method."""

    def __init__(self, methods: Mapping[str, Method], temperature: Tensor) -> None:
        super().__init__()
        self.methods, self.temperature = methods, temperature

    def _pyro_sample(self, msg: dict) -> None:
        method = lookup(self.methods, msg["name"]) if is_choice(msg) else None
        if isinstance(method, Pathwise | Competition):
            msg["fn"] = method.relax(msg["fn"], self.temperature)


class Choose(Messenger):
    """Draw one-hot latents without reading numbers back from the device, as torch's own draw does."""

    def _pyro_sample(self, msg: dict) -> None:
        if not is_discrete(msg) or msg["done"]:
            return
        base = elements(msg["fn"])
        if isinstance(base, dist.OneHotCategorical):
            msg["value"], msg["done"] = exact(base.logits), True


class Fix(Messenger):
    """Give sites of the guide a value (the program's are replayed from there)."""

    def __init__(self, values: Mapping[str, Tensor]) -> None:
        super().__init__()
        self.values = values

    def _pyro_sample(self, msg: dict) -> None:
        if msg["name"] in self.values and not msg["done"]:
            msg["value"] = self.values[msg["name"]]
            msg["done"] = True


class Share(Messenger):
    """The P copies of a batch have the same noise: one's is drawn, so that copies differ in nothing else.

    So for Gaussians, Bernoullis and one-hot categories; other latents are drawn anew for every copy.
    """

    def __init__(self, copies: int) -> None:
        super().__init__()
        self.copies = copies

    def _pyro_sample(self, msg: dict) -> None:
        latent = msg["type"] == "sample" and not msg["is_observed"] and not is_aside(msg)
        if not latent or msg["done"] or in_common(msg["cond_indep_stack"]):
            return  # what is of all images is drawn once
        fn = msg["fn"]
        base = elements(fn)
        dim = len(fn.batch_shape) + batch_dim(msg["name"], msg)
        if type(base) is dist.Normal:
            msg["value"] = base.loc + base.scale * self.tiled(torch.randn_like, base.loc, dim)
        elif type(base) is dist.Bernoulli:
            uniform = self.tiled(torch.rand_like, base.probs, dim)
            msg["value"] = (uniform < base.probs).to(base.probs.dtype)
        elif type(base) is dist.OneHotCategorical:
            msg["value"] = exact(base.logits, self.tiled(noise, base.logits, dim))
        msg["done"] = msg["value"] is not None

    def tiled(self, draw: Callable[[Tensor], Tensor], like: Tensor, dim: int) -> Tensor:
        """Noise shaped as a tensor, that of its first copy at all of them."""
        first = draw(like.detach().narrow(dim, 0, like.shape[dim] // self.copies))
        return first.repeat([self.copies if d == dim else 1 for d in range(like.ndim)])


class Leaves(Messenger):
    """Draws of the guide at sites whose method has `slopes` are leaves: the cost has a gradient by them."""

    def __init__(self, methods: Mapping[str, Method]) -> None:
        super().__init__()
        self.methods = methods
        self.drawn: dict[str, Tensor] = {}

    def _pyro_post_sample(self, msg: dict) -> None:
        method = lookup(self.methods, msg["name"]) if is_discrete(msg) else None
        if method is not None and method.slopes and msg["name"] not in self.drawn:
            leaf = self.drawn[msg["name"]] = msg["value"].detach().requires_grad_()
            msg["value"] = leaf.clone()  # a program may write into it

    def slopes(self, cost: Tensor) -> dict[str, Tensor]:
        """The gradient of a number by every draw, of its shape; 0 where it does not depend on it."""
        if not self.drawn:
            return {}
        found = torch.autograd.grad(
            cost, list(self.drawn.values()), retain_graph=True, materialize_grads=True
        )
        return dict(zip(self.drawn, found, strict=True))


class Detach(Messenger):
    """Samples are data: no gradient passes them."""

    def _pyro_post_sample(self, msg: dict) -> None:
        if not msg["is_observed"] and not is_aside(msg):
            msg["value"] = msg["value"].detach()


def several(copies: int) -> int:
    """K, at least two.

    Raises:
        ValueError: it is less.
    """
    if copies < 2:
        raise ValueError(f"{copies} copies of an image: give at least 2, as in rloo:2")
    return copies


def repeated(images: Tensor, copies: int) -> Tensor:
    """(K·B, …) the batch K times, one after another."""
    return images.repeat(copies, *[1] * (images.ndim - 1))
