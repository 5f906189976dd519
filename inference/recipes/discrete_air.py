"""How Discrete-AIR is trained (Wang et al., 2019, appendix C).

# differs: KLs are in closed form, where the paper estimates those of z_pres and z_cat by one sample (C.2);
theirs is the KL of relaxed densities. The gradient is clipped by its infinity norm; the paper does not say
which norm.
"""

from __future__ import annotations

from dataclasses import replace

from inference.recipes import Recipe, doubt, tiny
from inference.schedules import (
    Constant,
    Exponential,
    Points,
    Until,
    WarmupDecay,
)

DISCRETE_AIR_QUICK = Recipe(
    steps=4000,
    batch=32,
    # differs: the difference image is embedded at half its size, and networks are smaller. At full size
    # these two layers see less than an object, and one template often stayed unused (`analysis/LOG.md`)
    program={
        "pool": 2,
        "embedding": (24, 48),
        "encoder": (16, 32, 32),
        "window": 16,
        "decoder": 32,
        "sought": (-0.3, -0.05),
        "together": 3,
    },
    world="multi_sprites",
    scenes=80_000,
    schedules={
        "learning_rate": WarmupDecay(1e-3, warmup=100, half_life=500, hold=1900),
        "estimator.temperature": Exponential(1.0, 0.5, 139),  # max(0.5, exp(-0.005 t)) (C.4)
        "guide.sharpness": Exponential(0.003, 0.3, 1500),  # differs: no category is left unused
    },
    evaluate_every=500,
)
# differs: the paper ends a training after 10 epochs without a better reconstruction; here the steps are those
# of its 300 and 420 epochs, after which that was the case
DISCRETE_AIR_PAPER = replace(
    DISCRETE_AIR_QUICK,
    batch=64,
    program={},
    scenes=90_000,
    steps=300 * 1406,
    schedules={
        "learning_rate": Constant(1e-4),
        "estimator.temperature": Exponential(1.0, 0.5, 139),
    },
    evaluate_every=5000,
)

DIGITS_QUICK = replace(
    DISCRETE_AIR_QUICK,
    steps=6500,
    program={**DISCRETE_AIR_QUICK.program, "sought": (0.0,), "together": 1, "shifts": 5},
    world="multi_mnist",
    scenes=60_000,
    schedules={
        **DISCRETE_AIR_QUICK.schedules,
        "learning_rate": WarmupDecay(1e-3, warmup=100, half_life=400, hold=4000),
        # differs: slow where templates part, or two of them become one digit; then almost hard
        "guide.sharpness": Points(((0, 0.003), (300, 0.01), (3000, 0.1), (3600, 1.0))),
        # differs: attributes come last, because they could replace categories
        "weight.z_attr*": Points(((3000, 100.0), (4000, 1.0))),
        # differs: templates are sorted, and stay; of gradients they would go on to explain what attributes can
        # make of them, with a higher bound and worse categories (`analysis/LOG.md`)
        "rate.program": Until(1.0, 4000, after=0.0),
    },
    moves={4000: "sort"},
)
# differs: presence is weighed when templates are digits; before, what is left of a digit becomes another one.
# Templates and attributes learn on, slowly: a digit that is drawn well is worth one object and no second
# differs: templates are sorted once more, on windows that are better now
DIGITS_FINISH = replace(
    DIGITS_QUICK,
    steps=3000,
    program={"weighed": True},
    continues=True,
    schedules={
        "learning_rate": WarmupDecay(5e-4, warmup=50, half_life=350, hold=1500),
        "estimator.temperature": Constant(0.5),
        "guide.sharpness": Constant(1.0),
        "rate.program": Constant(0.3),
    },
    moves={1: "sort"},
)
"""Digits drawn and counted better: ``--preset finish --from RUN``."""
DIGITS_PAPER = replace(
    DISCRETE_AIR_PAPER,
    world="multi_mnist",
    program={"attributes": 1},
    scenes=60_000,
    steps=420 * 937,
)

DISCRETE_AIR_TINY = tiny(
    DISCRETE_AIR_QUICK,
    {"size": 32, "window": 16, "hidden": 24, "memory": 16, "encoder": (8, 8)},
)
DIGITS_TINY = tiny(
    DIGITS_QUICK, {**DISCRETE_AIR_TINY.program, "size": 40}, options={"digits": "embedded"}
)

DISCRETE_AIR_DOUBT = replace(
    doubt(DISCRETE_AIR_QUICK, 1500), program={"second_look": True, "weighed": True}
)
"""A guide that is less sure: ``--preset doubt --from RUN``."""

RECIPES: dict[str, dict[str, Recipe]] = {
    "discrete_air": {
        "tiny": DISCRETE_AIR_TINY,
        "quick": DISCRETE_AIR_QUICK,
        "doubt": DISCRETE_AIR_DOUBT,
        "paper": DISCRETE_AIR_PAPER,
    },
    "discrete_air_mnist": {
        "tiny": DIGITS_TINY,
        "quick": DIGITS_QUICK,
        "finish": DIGITS_FINISH,
        "paper": DIGITS_PAPER,
    },
}
"""Recipes by variant or program, or by ``NAME/WORLD`` for one world; then by preset."""
