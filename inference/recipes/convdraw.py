"""How ConvDRAW is trained, beside GNM."""

from __future__ import annotations

from dataclasses import replace

from inference.recipes import Recipe, tiny, with_beta
from inference.recipes.gnm import GNM_PAPER
from inference.schedules import (
    Constant,
    WarmupDecay,
)

CONVDRAW_PAPER = Recipe(
    steps=GNM_PAPER.steps,
    world="mnist10",
    scenes=60_000,
    schedules={"learning_rate": Constant(1e-4)},
    evaluate_every=5000,
)
CONVDRAW_ARROW_PAPER = replace(
    CONVDRAW_PAPER,
    world="arrow_room",
    program={"colours": 3, "units": 128, "channels": (16, 32, 64, 128, 128)},
)
CONVDRAW_QUICK = replace(
    CONVDRAW_PAPER,
    steps=4500,
    batch=16,
    world="mnist4",
    scenes=20_000,
    program={
        "size": 64,
        "sigma": 0.1,
        "units": 32,
        "interaction": (64,),
        "channels": (16, 32, 32, 32),
        "decoder": ((64, 2, 1), (32, 1, 3), (32, 2, 1), (16, 1, 3), (16, 2, 1), (8, 2, 1)),
    },
    schedules={"learning_rate": WarmupDecay(1e-3, warmup=200, half_life=300, hold=3300)},
    evaluate_every=1000,
    layout="channels_last",
)

# differs: images have 48 pixels per side, which digits need
CONVDRAW_TINY = tiny(
    CONVDRAW_QUICK,
    {
        "size": 32,
        "z_global": 4,
        "units": 16,
        "interaction": (16,),
        "channels": (8, 16),
        "decoder": ((8, 4, 1),),
    },
    world="multi_sprites",
)
CONVDRAW_ARROW_TINY = tiny(
    CONVDRAW_ARROW_PAPER, {**CONVDRAW_TINY.program, "colours": 3}, options={"samples": 1}
)

RECIPES: dict[str, dict[str, Recipe]] = {
    "convdraw": {
        "tiny": CONVDRAW_TINY,
        "quick": CONVDRAW_QUICK,
        "quick_beta10": with_beta(CONVDRAW_QUICK, 10.0),
        "paper": CONVDRAW_PAPER,
        "paper_beta10": with_beta(CONVDRAW_PAPER, 10.0),
    },
    "convdraw/arrow_room": {
        "tiny": CONVDRAW_ARROW_TINY,
        "paper": CONVDRAW_ARROW_PAPER,
        "paper_beta10": with_beta(CONVDRAW_ARROW_PAPER, 10.0),
    },
}
"""Recipes by variant or program, or by ``NAME/WORLD`` for one world; then by preset."""
