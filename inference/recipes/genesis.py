"""How GENESIS is trained (Engelcke et al., ICLR 2020), beside GNM."""

from __future__ import annotations

from dataclasses import replace

from inference.recipes import Recipe, tiny, with_beta
from inference.recipes.convdraw import CONVDRAW_PAPER, CONVDRAW_QUICK
from inference.schedules import (
    Until,
    WarmupDecay,
)

# the weight of GENESIS' KLs is GNM's authors' (section 4.2)  # differs: they do not say which learning rates
GENESIS_PAPER = with_beta(
    replace(
        CONVDRAW_PAPER,
        steps=500_000,
        # differs: not given. With GENESIS' own σ of .7 an image has at most -9,212 nats, but 10,084 in
        # Table 1; and 5 components are too few for ten digits
        program={"sigma": 0.2, "components": 11},
        schedules={"learning_rate": Until(3e-4, 5000, after=1e-4)},
    ),
    10.0,
    "z_bg*",
)
GENESIS_ARROW_PAPER = with_beta(
    replace(GENESIS_PAPER, world="arrow_room", program={"colours": 3, "sigma": 0.2}),
    15.0,
    "z_bg*",
)
# differs: β is 1; `quick_beta10` has the paper's 10
GENESIS_QUICK = replace(
    CONVDRAW_QUICK,
    steps=2500,
    program={
        "size": 64,
        "z_bg_mask": 32,
        "memory": 64,
        "hidden": 64,
        "channels": (16, 16, 32, 32),
        "decoder": 32,
        "cell": 2,
        "sigma": 0.1,
    },
    schedules={"learning_rate": WarmupDecay(1e-3, warmup=100, half_life=300, hold=1400)},
)

# differs: images have 48 pixels per side, which digits need
GENESIS_TINY = tiny(
    GENESIS_QUICK,
    {
        "size": 32,
        "components": 3,
        "z_bg": 4,
        "z_bg_mask": 6,
        "memory": 8,
        "hidden": 16,
        "channels": (8, 16),
        "decoder": 16,
        "cell": 2,
    },
    world="multi_sprites",
)
GENESIS_ARROW_TINY = tiny(
    GENESIS_ARROW_PAPER, {**GENESIS_TINY.program, "colours": 3}, options={"samples": 1}
)

RECIPES: dict[str, dict[str, Recipe]] = {
    "genesis": {
        "tiny": GENESIS_TINY,
        "quick": GENESIS_QUICK,
        "quick_beta10": with_beta(GENESIS_QUICK, 10.0, "z_bg*"),
        "paper": GENESIS_PAPER,
    },
    "genesis/arrow_room": {"tiny": GENESIS_ARROW_TINY, "paper": GENESIS_ARROW_PAPER},
}
"""Recipes by variant or program, or by ``NAME/WORLD`` for one world; then by preset."""
