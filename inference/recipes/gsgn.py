"""How GSGN is trained (ICLR 2021, appendix D; Tables 6 to 9)."""

from __future__ import annotations

import math
from dataclasses import replace

from inference.objectives import (
    Gaussian,
    Mixture,
    Prior,
    Sparse,
    Upright,
)
from inference.recipes import Recipe, doubt, tiny
from inference.schedules import (
    Constant,
    Exponential,
    Linear,
    LinearVariance,
    Points,
    Ramp,
    Schedule,
    Until,
    WarmupDecay,
)

# Tables 6, 8 and 9 of GSGN. Their N(m, s) is read as mean and standard deviation, as in SPACE's and
# GNM's code; the paper does not say. If they are read as variances, the windows of objects grow and stay
# large.
GSGN_AUXILIARY: dict[str, Prior] = {
    "z_pres*": Sparse(math.log(1e-10)),
    "z_where*": Gaussian(0, 1),
    "z_theta*": Gaussian(0, 1),
    "z_depth*": Gaussian(4, 1),
    "z_scale_1": Mixture((0.2, 0.8), (-0.2, -1.2), (0.1, 0.1)),
    "z_scale_*": Mixture((0.1, 0.1, 0.8), (1.2, 0.0, -0.6), (0.1, 0.05, 0.1)),
}

GSGN_QUICK = Recipe(
    steps=4800,
    batch=32,
    program={
        "size": 64,
        "z_what": (64, 32, 16),
        "z_bg": 4,
        "crops": (32, 16),
        "hidden": 128,
        "channels": (16, 32, 64, 64),
        "decoder": 32,
        "scale_start": (-0.4, -0.3),
    },
    scenes=16000,
    schedules={
        "learning_rate": WarmupDecay(1e-3, warmup=100, half_life=500, hold=2000),
        "estimator.temperature": Exponential(2.5, 0.5, 1200),
        # differs: the background learns first. With σ_bg at 0.1 from the start, a foreground that is black
        # outside its objects explains the dark pixels, and the background learns nothing.
        "program.fixed_mixing": Until(1e-5, 150),
        "program.sigma_bg": Exponential(0.3, 0.1, 150),
        # differs: z_what of wholes is free at first, otherwise it carries nothing about their parts; z_what
        # of parts is cheap, otherwise all parts are discs
        **dict.fromkeys(("weight.z_what_0", "weight.z_what_1"), Linear(0.0, 1.0, 1000, begin=1600)),
        "weight.z_what_2": Exponential(0.05, 1.0, 1200, begin=1000),
    },
    # differs: priors of the scales are narrow and fit the world: windows larger than their objects do not
    # locate the objects
    auxiliary={
        **GSGN_AUXILIARY,
        "z_scale_1": Gaussian(-0.4, 0.05),
        "z_scale_*": Gaussian(-0.3, 0.14),
    },
    evaluate_every=500,
)

GSGN_LONG = replace(
    GSGN_QUICK,
    steps=18_000,
    scenes=64_000,
    schedules={
        **GSGN_QUICK.schedules,
        "learning_rate": Points(
            (
                *((0, 1e-5), (100, 1e-3), (6600, 1e-3), (14_000, 2.6e-5)),
                *((14_100, 2e-4), (15_000, 2e-4), (18_000, 1e-5)),
            )
        ),
        # differs: parts cost more in the end, or some are drawn twice
        "weight.aux/z_pres_2": Points(((14_000, 1.0), (14_400, 1.5))),
    },
    evaluate_every=1000,
)

# Groups of objects.
# differs: the size of each level has its own range around the world's sizes. In the paper's ranges the
# windows of all three levels grow at first, a part's to that of a group, and poses carry no information.
FOUR_LEVELS_QUICK = replace(
    GSGN_QUICK,
    world="groups2d",
    program={
        **GSGN_QUICK.program,
        "z_what": (64, 48, 32, 16),
        "crops": (32, 16, 8),
        "scale": ((0.3, 0.1), (0.55, 0.15), (0.5, 0.2)),
        "scale_start": (0.0, 0.0, 0.0),
    },
    schedules={
        **GSGN_QUICK.schedules,
        # differs: parts cost little at first; otherwise each part gets its own object
        "weight.aux/z_pres_3": Exponential(0.1, 1.0, 1000, begin=900),
        "weight.z_what_2": GSGN_QUICK.schedules["weight.z_what_1"],
        "weight.z_what_3": GSGN_QUICK.schedules["weight.z_what_2"],
    },
    auxiliary={
        # (the first that matches counts)
        "z_pres_2": Sparse(-20.0),  # differs: 23 nats in the paper
        "z_scale_2": Gaussian(0.0, 0.15),
        "z_scale_*": Gaussian(0.0, 0.3),
        **{site: prior for site, prior in GSGN_AUXILIARY.items() if "scale" not in site},
    },
)

EPOCH = 1000  # steps of 64 out of 64,000 scenes
GSGN_PAPER = Recipe(
    steps=500 * EPOCH,
    batch=64,
    scenes=64_000,
    schedules={
        "learning_rate": WarmupDecay(3e-4, warmup=10 * EPOCH, half_life=100 * EPOCH),
        "estimator.temperature": Exponential(2.5, 0.5, 20 * EPOCH),
        "program.fixed_mixing": Until(1e-5, EPOCH),
        "program.sigma_bg": Exponential(0.3, 0.1, EPOCH),  # differs: as in `quick`
    },
    auxiliary=GSGN_AUXILIARY,
    evaluate_every=5000,
)


def to_scale(recipe: Recipe, begin: int, steps: int, size: int = 128) -> Recipe:
    """The recipe with a likelihood that, from step `begin + steps`, weighs as at `size` pixels per side.

    KLs and prices of presence do not depend on the image's size, but the likelihood grows with its pixels; a
    paper's prices fit its number of pixels. The loss in the log is then no bound.

    # differs: not from the first step, when all objects stay present (`analysis/LOG.md`).
    """
    pixels = (size / recipe.program["size"]) ** 2
    weight = Exponential(1.0, pixels, steps, begin=begin)
    return replace(recipe, schedules={**recipe.schedules, "weight.images": weight})


# Compositional CLEVR: upright objects (eq. 19), Tables 6, 7, 9, and the schedules of D.5
UPRIGHT = {"max_angle": math.radians(10)}
GSGN_CLEVR_QUICK = to_scale(
    replace(
        GSGN_QUICK,
        steps=6000,
        world="compositional_clevr",
        program={**GSGN_QUICK.program, **UPRIGHT, "scale_start": (0.1, -0.35)},
        # differs: as on 2D Shapes; with Table 9 an object is one part of its own size
        auxiliary={
            **GSGN_AUXILIARY,
            "z_scale_1": Gaussian(0.1, 0.1),
            "z_scale_*": Gaussian(-0.35, 0.14),
        },
        schedules={
            "learning_rate": WarmupDecay(1e-3, warmup=100, half_life=450, hold=3600),
            "estimator.temperature": GSGN_QUICK.schedules["estimator.temperature"],
            # differs: parts cost little and are small at first, so that all slots are used, each for a piece of
            # an object; then they cost more and may grow together; in the end three times the paper's price, as
            # a large part is sharper as two (see `long`)
            "weight.aux/z_pres_2": Points(
                ((600, 0.1), (1400, 0.5), (2000, 0.5), (3000, 1.0), (4000, 1.0), (4500, 3.0))
            ),
            "weight.aux/z_scale_2": Exponential(1.0, 0.1, 800, begin=800),
            "program.fixed_mixing": Until(0.1, 150),
            "program.sigma_fg": LinearVariance(0.15, 0.3, 600, begin=600),
            "program.sigma_bg": Constant(0.1),
        },
    ),
    begin=2000,
    steps=1000,
)
GSGN_CLEVR_PAPER = replace(
    GSGN_PAPER,
    world="compositional_clevr",
    program=UPRIGHT,
    auxiliary={**GSGN_AUXILIARY, "z_scale_1": Gaussian(-0.2, 0.1)},
    schedules={
        "learning_rate": GSGN_PAPER.schedules["learning_rate"],
        "estimator.temperature": GSGN_PAPER.schedules["estimator.temperature"],
        "program.fixed_mixing": Until(0.1, 2 * EPOCH),
        "program.sigma_fg": LinearVariance(0.15, 0.3, 20 * EPOCH, begin=20 * EPOCH),
    },
)


# as `quick` to step 2,000, when parts are found
GSGN_CLEVR_LONG = replace(
    GSGN_CLEVR_QUICK,
    steps=28_000,
    scenes=32_000,
    schedules={
        **GSGN_CLEVR_QUICK.schedules,
        "learning_rate": Points(
            (
                *((0, 1e-5), (100, 1e-3), (2000, 1e-3), (16_000, 4e-5)),
                *((16_100, 4e-4), (17_000, 4e-4), (19_000, 4e-5)),
                *((19_100, 2e-4), (21_100, 2e-4), (28_000, 8e-6)),
            )
        ),
        # the whole price once the likelihood has its full weight
        # differs: and four times the price in the end. A part's patch has 16 pixels per side, so a larger
        # part is sharper as two parts, which gains more nats than the paper's price of one
        "weight.aux/z_pres_2": Points(
            (
                *((600, 0.1), (1400, 0.5), (2000, 0.5), (3000, 1.0), (16_000, 1.0)),
                *((16_400, 4.0), (19_000, 4.0), (19_400, 3.0)),
            )
        ),
        # differs: shapes cost little once parts are found; otherwise a part that looks like a cube gets
        # two slots
        "weight.z_what_2": Points(((3000, 1.0), (3400, 0.1), (7000, 0.1), (9000, 1.0))),
    },
)
# GSGN-9 has one more auxiliary KL, against the collapse of objects' appearances (Table 7)
NINE = {"z_what_1": Gaussian(0, 1)}
GSGN9_CLEVR_QUICK, GSGN9_CLEVR_PAPER = (
    replace(recipe, auxiliary={**recipe.auxiliary, **NINE})
    for recipe in (GSGN_CLEVR_QUICK, GSGN_CLEVR_PAPER)
)


def heavier(recipe: Recipe, weight: Schedule) -> Recipe:
    """The recipe with a weight on the KLs, auxiliary ones too, of parts' presence and pose (appendix F)."""
    sites = ("pres", "where", "scale", "theta", "depth")
    names = [f"weight.{kind}z_{site}_2" for kind in ("", "aux/") for site in sites]
    return replace(recipe, schedules={**recipe.schedules, **dict.fromkeys(names, weight)})


# seven parts: β rises from 1 to 5 in epochs 50 to 80, and is 1 after (appendix F)
GSGN_CLEVR7_QUICK = replace(GSGN_CLEVR_QUICK, world="compositional_clevr7")
GSGN_CLEVR7_PAPER = heavier(
    replace(GSGN_CLEVR_PAPER, world="compositional_clevr7"),
    Ramp(1.0, 5.0, 30 * EPOCH, begin=50 * EPOCH),
)

GSGN_TINY = tiny(
    GSGN_QUICK,
    {
        "size": 32,
        "z_what": (12, 10, 8),
        "z_bg": 3,
        "crops": (16, 8),
        "hidden": 24,
        "channels": (8, 16),
        "decoder": 16,
    },
)
FOUR_LEVELS_TINY = tiny(
    FOUR_LEVELS_QUICK,
    {
        **GSGN_TINY.program,
        "size": 64,  # the smallest size of the world's images
        "z_what": (12, 10, 8, 8),
        "crops": (16, 16, 8),
        "channels": (8, 8),
    },
)
GSGN_CLEVR_TINY, GSGN9_CLEVR_TINY, GSGN_CLEVR7_TINY = (
    tiny(recipe, {**GSGN_TINY.program, **UPRIGHT}, options={"samples": 1})
    for recipe in (GSGN_CLEVR_QUICK, GSGN9_CLEVR_QUICK, GSGN_CLEVR7_QUICK)
)

# From a run whose priors are learned (`inference.fit_prior RUN --set learned=48`).
# differs: objects of a type stand alike in their frames (`Upright`), and z_theta_1 costs little, so that it is
# sharp: of a noisy one tanh makes a constant. Then z_what_1 need not name an object's angle.
# differs: wholes tell about their parts. Place, size and depth of a part cost five, then 2.5 times as much,
# its appearance three times, then 1.5 times, and an object's appearance almost nothing, then half.
# differs: a part has no angle of its own. With Table 6 z_theta_2 is noise, since z_what_2 holds the angle, and
# all other latents of the part undo that noise (`analysis/LOG.md`)
GSGN_FINISH = replace(
    GSGN_LONG,
    steps=7000,
    program={"upright": True},
    continues=True,
    schedules={
        "learning_rate": Points(((0, 1e-5), (100, 7e-4), (4000, 7e-4), (7000, 5e-6))),
        "estimator.temperature": Constant(0.5),
        "weight.aux/z_pres_2": Constant(1.5),
        "weight.penalty/upright": Constant(1000.0),
        **dict.fromkeys(
            ("weight.z_theta_1", "weight.aux/z_theta_1"), Points(((5500, 0.01), (6500, 0.3)))
        ),
        "weight.z_what_1": Points(((800, 0.3), (1200, 0.05), (4000, 0.05), (5000, 0.5))),
        **dict.fromkeys(
            ("weight.z_where_2", "weight.z_scale_2", "weight.z_depth_2"),
            Points(((800, 1.0), (1200, 5.0), (4000, 5.0), (5000, 2.5))),
        ),
        "weight.z_what_2": Points(((800, 1.0), (1200, 3.0), (4000, 3.0), (5000, 1.5))),
    },
    auxiliary={"z_theta_2": Gaussian(0, 0.05), **GSGN_LONG.auxiliary},
    penalties={"upright": Upright()},
)
"""Dreams whose parts fit together: ``--preset finish --from RUN``."""
# From a finished run whose priors were fitted. Prices are as in the finish, but from the first step, as frames
# are upright already, and what parts look like is dearer, so that z_what_1 tells it.
GSGN_MORE = replace(
    GSGN_FINISH,
    steps=6000,
    schedules={
        **GSGN_FINISH.schedules,
        "learning_rate": Points(((0, 1e-5), (100, 5e-4), (3000, 5e-4), (6000, 5e-6))),
        **dict.fromkeys(
            ("weight.z_theta_1", "weight.aux/z_theta_1"), Points(((4500, 0.01), (5500, 0.3)))
        ),
        "weight.z_what_1": Points(((3000, 0.05), (4500, 0.5))),
        **dict.fromkeys(
            ("weight.z_where_2", "weight.z_scale_2", "weight.z_depth_2"),
            Points(((3000, 5.0), (4000, 2.5))),
        ),
        "weight.z_what_2": Points(((3000, 5.0), (4000, 2.5))),
    },
)
"""The finish once more: ``--preset more --from RUN``."""
# as above; what parts look like is dear only at first, as it holds their colours; objects are upright
GSGN_CLEVR_FINISH = replace(
    GSGN_FINISH,
    steps=6000,
    world="compositional_clevr",
    scenes=32_000,
    program={},
    penalties={},
    schedules={
        "learning_rate": Points(((0, 1e-5), (100, 4e-4), (2500, 4e-4), (6000, 5e-6))),
        "estimator.temperature": Constant(0.5),
        "program.sigma_fg": Constant(0.3),
        "program.sigma_bg": Constant(0.1),
        "weight.images": Constant(4.0),  # as `long` ends
        "weight.aux/z_pres_2": Constant(3.0),  # as `long` ends
        "weight.z_what_1": Points(((2500, 0.05), (3250, 0.5))),
        **dict.fromkeys(
            ("weight.z_where_2", "weight.z_scale_2", "weight.z_depth_2"),
            Points(((2500, 5.0), (3250, 2.5))),
        ),
        "weight.z_what_2": Points(((2500, 2.0), (3250, 1.0))),
    },
    auxiliary={"z_theta_2": Gaussian(0, 0.05), **GSGN_CLEVR_LONG.auxiliary},
)

GSGN_DOUBT = doubt(GSGN_QUICK, 1000)
"""A guide that is less sure: ``--preset doubt --from RUN``."""

RECIPES: dict[str, dict[str, Recipe]] = {
    "gsgn": {
        "tiny": GSGN_TINY,
        "quick": GSGN_QUICK,
        "long": GSGN_LONG,
        "finish": GSGN_FINISH,
        "more": GSGN_MORE,
        "doubt": GSGN_DOUBT,
        "paper": GSGN_PAPER,
    },
    "four_levels": {"tiny": FOUR_LEVELS_TINY, "quick": FOUR_LEVELS_QUICK},
    "gsgn/compositional_clevr": {
        "tiny": GSGN_CLEVR_TINY,
        "quick": GSGN_CLEVR_QUICK,
        "long": GSGN_CLEVR_LONG,
        "finish": GSGN_CLEVR_FINISH,
        "paper": GSGN_CLEVR_PAPER,
    },
    "gsgn9/compositional_clevr": {
        "tiny": GSGN9_CLEVR_TINY,
        "quick": GSGN9_CLEVR_QUICK,
        "paper": GSGN9_CLEVR_PAPER,
    },
    "gsgn/compositional_clevr7": {
        "tiny": GSGN_CLEVR7_TINY,
        "quick": GSGN_CLEVR7_QUICK,
        "paper": GSGN_CLEVR7_PAPER,
    },
}
"""Recipes by variant or program, or by ``NAME/WORLD`` for one world; then by preset."""
