"""How the VAE is trained, beside GNM."""

from __future__ import annotations

from dataclasses import replace

from inference.recipes import Recipe, tiny
from inference.recipes.convdraw import CONVDRAW_ARROW_PAPER, CONVDRAW_PAPER, CONVDRAW_QUICK

VAE_ARROW_PAPER = replace(CONVDRAW_ARROW_PAPER, program={"colours": 3})
VAE_QUICK = replace(
    CONVDRAW_QUICK,
    program={
        "size": 64,
        "sigma": 0.1,
        "channels": (16, 32, 64, 64),
        "head": 64,
        "decoder": (
            (64, 4, 1),
            (64, 1, 3),
            (32, 2, 1),
            (32, 1, 3),
            (16, 2, 1),
            (16, 2, 1),
            (8, 2, 1),
        ),
    },
)

# differs: images have 48 pixels per side, which digits need
VAE_TINY = tiny(
    VAE_QUICK,
    {
        "size": 32,
        "z_global": 8,
        "channels": (8, 16),
        "head": 16,
        "decoder": ((16, 4, 1), (8, 4, 1)),
    },
    world="multi_sprites",
)
VAE_ARROW_TINY = tiny(VAE_ARROW_PAPER, {**VAE_TINY.program, "colours": 3}, options={"samples": 1})

RECIPES: dict[str, dict[str, Recipe]] = {
    "vae": {"tiny": VAE_TINY, "quick": VAE_QUICK, "paper": CONVDRAW_PAPER},
    "vae/arrow_room": {"tiny": VAE_ARROW_TINY, "paper": VAE_ARROW_PAPER},
}
"""Recipes by variant or program, or by ``NAME/WORLD`` for one world; then by preset."""
