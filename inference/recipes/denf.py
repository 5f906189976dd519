"""How DeNF is trained (appendix A.4 and Algorithm 1)."""

from __future__ import annotations

from dataclasses import replace

from inference.objectives import (
    Background,
    Compatibility,
    Inscribed,
    Penalty,
    Reconstruction,
)
from inference.recipes import Recipe, tiny
from inference.schedules import (
    Constant,
    Linear,
    Until,
    WarmupDecay,
)

# DeNF, appendix A.4 and Algorithm 1
DENF_EPOCH = 35_000 // 12  # steps; CLEVR6 has about half of the 70,000 scenes


def per_number(size: int) -> float:
    """1 / (3 size²): with this weight log p(x) and presence are in nats per number of the image.

    # differs: eq. 13 adds a density of 49,152 numbers and unweighted means of squares; the latter then have
    no effect.
    """
    return 1 / (3 * size**2)


DENF_PENALTIES: dict[str, Penalty] = {
    "background": Background(),
    "reconstruction": Reconstruction(),
    "compatibility": Compatibility(),
}
DENF_PAPER = Recipe(
    steps=20 * DENF_EPOCH,
    batch=12,
    world="clevr6",
    scenes=35_000,
    schedules={
        "learning_rate": Constant(1e-4),
        "estimator.temperature": Linear(0.1, 0.01, 17 * DENF_EPOCH, begin=3 * DENF_EPOCH),
        **dict.fromkeys(("weight.images", "weight.z_pres*"), Constant(per_number(128))),
    },
    penalties=DENF_PENALTIES,
    # differs: of the gradient's largest entry, as in all recipes here; the paper says "maximum norm"
    clip=1.0,
    evaluate_every=DENF_EPOCH,
)
DENF_QUICK = replace(
    DENF_PAPER,
    steps=1600,
    batch=8,
    # differs: priors of boxes about as wide as the penalties leave them; f maps wider ones far from images
    program={"size": 48, "couplings": 2, "features": 16, "loc_sd": 0.06, "scale_absent_sd": 0.2},
    scenes=4000,
    schedules={
        # differs: a faster rate that falls, and warmer draws of presence, in a fortieth of the steps
        "learning_rate": WarmupDecay(1e-3, warmup=50, half_life=300, hold=800),
        "estimator.temperature": Linear(1.0, 0.5, 800),
        "weight.z_pres*": Constant(per_number(48)),
        # differs: the likelihood comes late with a weight of a tenth: it is highest if all cells are equal,
        # and at full weight no cell stays present
        "weight.images": Linear(0.0, 0.1 * per_number(48), 400, begin=400),
        # differs: all cells are present at first: x̂_fg learns nothing from absent ones, and x̂_bg is faster
        "program.presence": Linear(2.0, -2.197, 350, begin=100),
        # differs: the penalties have weights, which are 1 in eq. 13
        "weight.penalty/background": Constant(100.0),
        "weight.penalty/reconstruction": Constant(10.0),
        # differs: eq. 12 keeps boxes small at first; then they fill objects, and objects must not fill boxes
        "weight.penalty/compatibility": Until(1.0, 400, after=0.0),
        "weight.penalty/inscribed": Linear(0.0, 0.01, 200, begin=400),
    },
    # differs: eq. 5 is without the image itself, with which the background shows all objects and no cell is
    # present
    penalties={**DENF_PENALTIES, "background": Background(own=False), "inscribed": Inscribed()},
    evaluate_every=200,
)
# the flow as a density and nothing else: what the penalties cost in bits
DENF_LIKELIHOOD = replace(
    DENF_QUICK,
    schedules={
        "learning_rate": DENF_QUICK.schedules["learning_rate"],
        "estimator.temperature": DENF_QUICK.schedules["estimator.temperature"],
        **dict.fromkeys(("weight.images", "weight.z_pres*"), Constant(per_number(48))),
    },
    penalties={},
)
# from a run of `quick` whose p(z) was fitted (`inference.fit_prior RUN --set learned=8`): now that cells are
# not independent, the likelihood has its full weight and no cell is given up; p(z) is fitted again afterwards
DENF_FINISH = replace(
    DENF_QUICK,
    steps=400,
    program={"learned": 8, "least": 6},
    continues=True,
    schedules={
        "learning_rate": WarmupDecay(3e-4, warmup=50, half_life=50, hold=250),
        "estimator.temperature": Constant(0.5),
        "weight.z_pres*": Constant(per_number(48)),
        "weight.images": Linear(0.1 * per_number(48), per_number(48), 300),
        "program.presence": Constant(-2.197),
        "weight.penalty/background": Constant(100.0),
        "weight.penalty/reconstruction": Constant(10.0),
        "weight.penalty/compatibility": Constant(0.0),
        "weight.penalty/inscribed": Constant(0.01),
    },
)


def on_traffic(recipe: Recipe) -> Recipe:
    """The recipe for traffic (Table 5).

    # differs: a car has grey windows and a shadow, so hues count less than they do for objects of one colour
    """
    program = {**recipe.program, "scale_mean": 0.25, "apart": 0.25, "tint": 0.3}
    return replace(recipe, world="traffic", program=program)


# differs: cars cover few cells, so that what a cell explains weighs more, and presence gets its price later
DENF_TRAFFIC_QUICK = replace(
    on_traffic(DENF_QUICK),
    steps=1800,
    schedules={
        **DENF_QUICK.schedules,
        "learning_rate": WarmupDecay(1e-3, warmup=50, half_life=250, hold=1200),
        "program.presence": Linear(2.0, -2.197, 800, begin=100),
        "weight.images": Linear(0.0, 0.1 * per_number(48), 400, begin=1000),
        "weight.penalty/reconstruction": Constant(40.0),
        "weight.penalty/compatibility": Until(1.0, 1000, after=0.0),
        "weight.penalty/inscribed": Linear(0.0, 0.01, 200, begin=1000),
    },
)
DENF_TRAFFIC_FINISH = replace(
    on_traffic(DENF_FINISH),
    schedules={**DENF_FINISH.schedules, "weight.penalty/reconstruction": Constant(40.0)},
)
DENF_TRAFFIC_PAPER = on_traffic(DENF_PAPER)

SMALL = {"size": 32, "squeeze": 8, "couplings": 1, "features": 4, "slots": 16, "least": 1}
"""Fields of the program's Config that make its networks small."""
DENF_TINY = tiny(DENF_QUICK, SMALL, options={"samples": 1})
DENF_TRAFFIC_TINY = tiny(DENF_TRAFFIC_QUICK, {**SMALL, "scale_mean": 0.25})

RECIPES: dict[str, dict[str, Recipe]] = {
    "denf": {
        "tiny": DENF_TINY,
        "quick": DENF_QUICK,
        "likelihood": DENF_LIKELIHOOD,
        "finish": DENF_FINISH,
        "paper": DENF_PAPER,
    },
    "denf/traffic": {
        "tiny": DENF_TRAFFIC_TINY,
        "quick": DENF_TRAFFIC_QUICK,
        "finish": DENF_TRAFFIC_FINISH,
        "paper": DENF_TRAFFIC_PAPER,
    },
}
"""Recipes by variant or program, or by ``NAME/WORLD`` for one world; then by preset."""
