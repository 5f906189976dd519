"""How SPACE is trained (Lin et al., ICLR 2020, and its official code)."""

from __future__ import annotations

from dataclasses import replace

from inference.objectives import (
    Boundary,
)
from inference.recipes import Recipe, tiny
from inference.schedules import (
    Constant,
    Exponential,
    Linear,
    Until,
    WarmupDecay,
)

SPACE_QUICK = Recipe(
    steps=1400,
    batch=16,
    # differs: smaller networks, one background component, a constant prior of sizes that fits the objects
    program={
        "size": 64,
        "glimpse": 16,
        "components": 1,
        "z_bg": 4,
        "scale_mean": -0.5,
        "scale_sd": 0.3,
        "sigma_fg": 0.3,  # as GSGN's, whose ELBO SPACE's equals (Table 1)
        "sigma_bg": 0.1,
        "hidden": 64,
        "channels": (16, 32, 64, 64),
        "decoder": 32,
    },
    world="compositional_clevr",
    scenes=16_000,
    schedules={
        "learning_rate": WarmupDecay(1e-3, warmup=100, half_life=200, hold=700),
        "estimator.temperature": Exponential(2.5, 0.5, 400),
        "program.presence": Linear(-2.2, -18.0, 400),
        "program.fixed_mixing": Until(1e-5, 150),  # differs: the background learns first
        "program.sigma_bg": Exponential(0.3, 0.1, 150),
    },
    penalties={"boundary": Boundary()},
    evaluate_every=200,
)

SPACE_P_QUICK = replace(
    SPACE_QUICK,
    # differs: a prior of boxes smaller than most parts; on CLEVR boxes still take whole objects
    program={
        **SPACE_QUICK.program,
        "grid": 8,
        "glimpse": 8,
        "z_what": 16,
        "scale_mean": -1.6,
        "scale_sd": 0.25,
    },
)
# parts of 2D Shapes do not touch: with more cells than GSGN has slots, an object's parts go to several
SPACE_SHAPES_QUICK = replace(
    SPACE_QUICK, world="shapes2d", program={**SPACE_QUICK.program, "grid": 2, "scale_sd": 0.2}
)
SPACE_P_SHAPES_QUICK = replace(
    SPACE_P_QUICK,
    world="shapes2d",
    program={**SPACE_P_QUICK.program, "scale_mean": -2.0, "scale_sd": 0.2},
)
SPACE_PAPER = Recipe(
    steps=160_000,
    batch=12,
    # differs: the prior of sizes stays; the code moves it from N(-1, .1) to N(-2, .1), for smaller objects
    program={},
    world="compositional_clevr",
    scenes=64_000,
    schedules={
        # differs: the code has RMSprop at 1e-5 for the foreground and Adam at 1e-3 for the background
        "learning_rate": Constant(1e-4),
        "estimator.temperature": Linear(2.5, 0.5, 20_000),
        # from a probability of 0.1 to 0.01  # differs: linear in the logit
        "program.presence": Linear(-2.197, -4.595, 6000, begin=4000),
        "weight.penalty/boundary": Until(1.0, 100_000, after=0.0),
    },
    penalties={"boundary": Boundary()},
    evaluate_every=5000,
)

SMALL = {
    "size": 32,
    "grid": 2,
    "z_what": 6,
    "components": 3,
    "z_bg": 4,
    "z_bg_mask": 4,
    "memory": 8,
    "hidden": 24,
    "channels": (8, 16),
    "decoder": 16,
}
"""Fields of the program's Config that make its networks small."""
SPACE_TINY, SPACE_P_TINY = (
    tiny(recipe, SMALL, options={"samples": 1}) for recipe in (SPACE_QUICK, SPACE_P_QUICK)
)
SPACE_SHAPES_TINY, SPACE_P_SHAPES_TINY = (
    tiny(recipe, SMALL) for recipe in (SPACE_SHAPES_QUICK, SPACE_P_SHAPES_QUICK)
)

RECIPES: dict[str, dict[str, Recipe]] = {
    "space": {"tiny": SPACE_TINY, "quick": SPACE_QUICK, "paper": SPACE_PAPER},
    "space_p": {"tiny": SPACE_P_TINY, "quick": SPACE_P_QUICK, "paper": SPACE_PAPER},
    "space/shapes2d": {"tiny": SPACE_SHAPES_TINY, "quick": SPACE_SHAPES_QUICK},
    "space_p/shapes2d": {"tiny": SPACE_P_SHAPES_TINY, "quick": SPACE_P_SHAPES_QUICK},
}
"""Recipes by variant or program, or by ``NAME/WORLD`` for one world; then by preset."""
