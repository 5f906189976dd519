"""How AIR is trained (Eslami et al., 2016)."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from inference.recipes import Recipe, doubt, tiny
from inference.schedules import Constant, Exponential, WarmupDecay

AIR_QUICK = Recipe(
    steps=2700,
    batch=64,
    world="multi_mnist",
    scenes=60_000,
    schedules={"learning_rate": WarmupDecay(1e-3, warmup=100, half_life=340, hold=1250)},
    evaluate_every=500,
)
AIR_LONG = replace(
    AIR_QUICK,
    steps=15_000,
    # differs: convolutions embed the image, as Discrete-AIR's paper has them for sprites (C.1); without them,
    # or with half as many channels, a window often lies over two digits that are close to each other
    program={"embedding": (32, 48, 64)},
    schedules={
        # with a warm-up of 100 steps one training of five gave up all objects
        "learning_rate": WarmupDecay(1e-3, warmup=400, half_life=1500, hold=6000),
        "estimator.temperature": Exponential(1.0, 0.5, 4000),
    },
    evaluate_every=1000,
)
AIR_FINISH = replace(
    AIR_QUICK,
    steps=3000,
    program={},
    continues=True,
    estimator="rloo:2",
    schedules={"learning_rate": WarmupDecay(1e-4, warmup=100, half_life=500, hold=1500)},
    evaluate_every=500,
)
"""A finish with hard presences: ``--preset finish --from RUN``."""
AIR_DOUBT = replace(doubt(AIR_QUICK, 3000), program={"second_look": True})
"""A guide that is less sure: ``--preset doubt --from RUN``."""
AIR_PAPER = replace(
    AIR_QUICK,
    steps=200_000,
    estimator="nvil",
    schedules={"learning_rate": Constant(1e-4)},
    evaluate_every=5000,
)

AIR_TINY = tiny(
    AIR_QUICK,
    {"size": 40, "window": 16, "z_what": 6, "hidden": (24,), "memory": 16},
    options={"digits": "embedded"},
)

# sprites differ in shape, angle and a little in size; digits in more
SPRITES = {"z_what": 10, "scale": 0.32, "where_sd": (0.1, 1.0, 1.0)}


def on_sprites(recipe: Recipe, **program: Any) -> Recipe:
    """The recipe for Multi-Sprites, with other changes of the program's Config."""
    return replace(recipe, world="multi_sprites", program={**recipe.program, **SPRITES, **program})


PRESETS = {
    "tiny": AIR_TINY,
    "quick": AIR_QUICK,
    "long": AIR_LONG,
    "finish": AIR_FINISH,
    "doubt": AIR_DOUBT,
    "paper": AIR_PAPER,
}
RECIPES: dict[str, dict[str, Recipe]] = {
    "air": PRESETS,
    "air/multi_sprites": PRESETS
    | {
        "quick": on_sprites(AIR_QUICK),
        # with the channels that digits need, two of three trainings find too many objects in a tenth of the
        # scenes
        "long": on_sprites(AIR_LONG, embedding=(16, 24, 32)),
    },
}
"""Recipes by variant or program, or by ``NAME/WORLD`` for one world; then by preset."""
