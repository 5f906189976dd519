"""Effect handlers that put values and gradients at discrete sites, and how many copies a method takes."""

from __future__ import annotations

from collections.abc import Mapping

import pyro.distributions as dist
from pyro.poutine.messenger import Messenger
from torch import Tensor

from inference.estimators.pathwise import Competition, Pathwise
from inference.estimators.relaxations import exact
from inference.estimators.sites import (
    Method,
    is_discrete,
)
from inference.objectives import is_plate, lookup

COPIES = 4
"""K where it is not given."""


class Relax(Messenger):
    """Put a twin, differentiable or cut off, in the place of every discrete latent with such a method."""

    def __init__(self, methods: Mapping[str, Method], temperature: Tensor) -> None:
        super().__init__()
        self.methods, self.temperature = methods, temperature

    def _pyro_sample(self, msg: dict) -> None:
        method = lookup(self.methods, msg["name"]) if is_discrete(msg) else None
        if isinstance(method, Pathwise | Competition):
            msg["fn"] = method.relax(msg["fn"], self.temperature)


class Choose(Messenger):
    """Draw one-hot latents without reading numbers back from the device, as torch's own draw does."""

    def _pyro_sample(self, msg: dict) -> None:
        if not is_discrete(msg) or msg["done"]:
            return
        base = msg["fn"].base_dist if isinstance(msg["fn"], dist.Independent) else msg["fn"]
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


class Detach(Messenger):
    """Samples are data: no gradient passes them."""

    def _pyro_post_sample(self, msg: dict) -> None:
        if not msg["is_observed"] and not is_plate(msg):
            msg["value"] = msg["value"].detach()


def several(copies: int) -> int:
    """K, at least two.

    Raises:
        ValueError: it is less.
    """
    if copies < 2:
        raise ValueError(f"{copies} copies of an image: give at least 2, as in rloo:2")
    return copies
