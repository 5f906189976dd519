"""ECON with one expert that gets the true regions: MONet as a generative model (section 5.1, figure 5).

    python -m inference.svi analysis/papers/econ/told.py --world analysis/papers/econ/told_leaves.py

The program is `programs.econ`. Instead of attention and competition the guide takes the true region of each
layer, the front first, from the pictures of `told_leaves`. So only encoder and decoder are trained.

Shape legend: B images, T layers, S pixels per side.
"""

from __future__ import annotations

from dataclasses import replace

import pyro
import pyro.distributions as dist
import torch
from pyro.nn import PyroModule
from torch import Tensor

from analysis.papers.econ.told_leaves import regions
from guides.econ import encoder
from inference.recipes.econ import RECIPES as OF_ECON
from programs.blocks.config import given
from programs.blocks.distributions import normal
from programs.econ import Config, Pixels, Program

__all__ = ["RECIPES", "VARIANTS", "Guide", "Program"]

VARIANTS = {"monet_told": Config(experts=1)}
NO_COMPETITION = ("guide.sharpness", "guide.balance")
"""Schedules of what this guide has not."""
RECIPES = {
    "monet_told": {
        preset: replace(
            recipe, schedules={k: v for k, v in recipe.schedules.items() if k not in NO_COMPETITION}
        )
        for preset, recipe in OF_ECON["monet"].items()
    }
}
CERTAIN = 20.0
"""Logit of a pixel of a region; outside it is the negative."""


class Guide(PyroModule):
    """q(z_t | x, r_t) with the true regions r_t; ``Guide(program)(images)`` draws the layers of every image."""

    def __init__(self, program: Program) -> None:
        super().__init__()
        # a reference, not a submodule: the decoder belongs to the program
        object.__setattr__(self, "program", program)
        self.config = program.config
        if self.config.experts != 1:
            raise ValueError(
                f"experts={self.config.experts}: expected 1, nobody says who explains what"
            )
        self.encoder = encoder(self.config)

    def forward(self, images: Tensor, batch: int = 1) -> None:
        """Sample every latent of the program given `images` (B, 3, S, S) of `told_leaves`."""
        images = given(images)
        scope, true = torch.ones_like(images[:, 0]), regions(images)
        pixels, layers = Pixels(self.config.size), self.program.layers
        with pyro.plate("batch", len(images), dim=-3):
            for t in range(layers, 0, -1):
                there = true == layers + 1 - t if t > 1 else torch.ones_like(true, dtype=torch.bool)
                scope = self.layer(t, images, scope, there.to(images.dtype), pixels)

    def layer(self, t: int, images: Tensor, scope: Tensor, there: Tensor, pixels: Pixels) -> Tensor:
        """q(k_t, z_t, m_t | x, s_t) of a layer that is `there` (B, S, S); returns s_t-1."""
        logits = scope.new_zeros(len(images), 1, 1, 1)
        cat = pyro.sample(f"z_cat_{t}", dist.OneHotCategorical(logits=logits))[:, 0, 0]
        loc, scale = self.encoder(images, scope * there, cat)
        pyro.sample(f"z_what_{t}", normal(loc[:, None, None], scale[:, None, None]))
        if t == 1:
            return scope
        return scope * (1 - pixels.mask(t, scope, CERTAIN * (2 * there - 1)))
