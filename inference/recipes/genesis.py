"""How GENESIS is trained (Engelcke et al., ICLR 2020), beside GNM."""

from __future__ import annotations

from dataclasses import replace

from inference.recipes import Recipe, with_beta
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
        schedules={"learning_rate": Until(3e-4, 5000, after=1e-4)},
    ),
    10.0,
    "z_bg*",
)
GENESIS_ARROW_PAPER = with_beta(
    replace(GENESIS_PAPER, world="arrow_room", scenes=20_000, program={"colours": 3}),
    15.0,
    "z_bg*",
)
# differs: at 64 x 64 and with β = 10 the likelihood, whose σ is 0.7, is outweighed
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

RECIPES: dict[str, dict[str, Recipe]] = {
    "genesis": {"quick": GENESIS_QUICK, "paper": GENESIS_PAPER},
    "genesis/arrow_room": {"paper": GENESIS_ARROW_PAPER},
}
"""By variant or program, and in a world of its own by ``NAME/WORLD``; then by preset."""
