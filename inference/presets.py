"""How a program is trained, as data: one `Recipe` a program and preset.

`quick` is made for two CPU cores and a quarter of an hour, `long` trains the same networks on more scenes for
an hour, `paper` is the paper's configuration for a GPU. A program without an entry (a user's own) trains
with `DEFAULT`. Where the paper has an objective of its own for a world, that is the recipe there. Schedules
are written in steps; the keys of `schedules` are ``learning_rate``, ``estimator.BUFFER``
(``estimator.temperature``), ``program.BUFFER``, ``guide.BUFFER`` (any they declare) and ``weight.PATTERN``
(of KLs by site name, ``weight.z_cat*``, and of penalties, ``weight.penalty/boundary``).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from inference.objectives import (
    Background,
    Boundary,
    Compatibility,
    Gaussian,
    Inscribed,
    Mixture,
    Penalty,
    Prior,
    Reconstruction,
    Sparse,
)
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


@dataclass(frozen=True)
class Recipe:
    """Everything a training run needs besides the program, the seed and the device."""

    steps: int = 2000
    """the step to reach; no schedule depends on it"""
    batch: int = 32
    program: Mapping[str, Any] = field(default_factory=dict)
    """fields of the program's Config that the preset changes"""
    world: str = "shapes2d"
    options: Mapping[str, Any] = field(default_factory=dict)
    """fields of the world's Config; the program's own `size` goes before"""
    scenes: int = 8000
    """training scenes"""
    estimator: str = "gumbel"
    schedules: Mapping[str, Schedule] = field(
        default_factory=lambda: {"learning_rate": Constant(1e-3)}
    )
    auxiliary: Mapping[str, Prior] = field(default_factory=dict)
    """fixed priors of auxiliary KLs by site-name pattern; ``{}`` is No-Aux"""
    penalties: Mapping[str, Penalty] = field(default_factory=dict)
    """functions of the Scene, a number an image; schedules ``weight.penalty/NAME`` say what one is in nats"""
    rate: float = 1.0
    """factor of the learning rate"""
    clip: float = 1.0
    """largest infinity norm of the gradient of the loss per image"""
    evaluate_every: int = 1000
    """steps between evaluations on 200 validation scenes"""
    capture: bool = True
    """replay steps on CUDA from a graph (`inference.capture`)"""
    precision: str = "float32"
    """of the networks in training: float32 or bf16 (`inference.networks`)"""
    layout: str = "contiguous"
    """of the convolutions' weights: contiguous or channels_last"""
    compile: bool = False
    """compile the networks"""


DEFAULT = Recipe(options={"size": 64})

# Tables 6, 8 and 9 of GSGN. Their N(m, s) is read as mean and standard deviation, as in SPACE's and
# GNM's code; the paper does not say. Read as variances the windows of objects grow and stay large.
GSGN_AUXILIARY: dict[str, Prior] = {
    "z_pres*": Sparse(math.log(1e-10)),
    "z_where*": Gaussian(0, 1),
    "z_theta*": Gaussian(0, 1),
    "z_depth*": Gaussian(4, 1),
    "z_scale_1": Mixture((0.2, 0.8), (-0.2, -1.2), (0.1, 0.1)),
    "z_scale_*": Mixture((0.1, 0.1, 0.8), (1.2, 0.0, -0.6), (0.1, 0.05, 0.1)),
}

GSGN_QUICK = Recipe(
    steps=3600,
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
        "learning_rate": WarmupDecay(1e-3, warmup=100, half_life=400, hold=2000),
        "estimator.temperature": Exponential(2.5, 0.5, 1200),
        # differs: the background learns first. With σ_bg at 0.1 from the start, a foreground that is
        # black where nothing is drawn explains the dark pixels, and the background learns nothing.
        "program.fixed_mixing": Until(1e-5, 150),
        "program.sigma_bg": Exponential(0.3, 0.1, 150),
        # differs: what wholes look like is free at first, or it says nothing of their parts; what parts look
        # like is cheap, or all are discs
        **dict.fromkeys(("weight.z_what_0", "weight.z_what_1"), Linear(0.0, 1.0, 1000, begin=1600)),
        "weight.z_what_2": Exponential(0.05, 1.0, 1200, begin=1000),
    },
    # differs: priors of the scales that fit the world, and narrow: windows that are larger than their
    # objects do not say where the objects are
    auxiliary={
        **GSGN_AUXILIARY,
        "z_scale_1": Gaussian(-0.4, 0.05),
        "z_scale_*": Gaussian(-0.3, 0.14),
    },
    evaluate_every=500,
)

GSGN_LONG = replace(
    GSGN_QUICK,
    steps=14_000,
    scenes=64_000,
    schedules={
        **GSGN_QUICK.schedules,
        "learning_rate": WarmupDecay(1e-3, warmup=100, half_life=1400, hold=6500),
    },
    evaluate_every=1000,
)

# Groups of objects.
# differs: each level's size has a range of its own around what the world has. In the paper's ranges the windows
# of all three levels grow at first, a part's to that of a group, and nothing says where anything is.
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
        # differs: parts cost little at first, or each has an object of its own
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
        "program.sigma_bg": Exponential(0.3, 0.1, EPOCH),  # differs: as in the quick preset
    },
    auxiliary=GSGN_AUXILIARY,
    evaluate_every=5000,
)

# Compositional CLEVR: upright objects (eq. 19), Tables 6, 7, 9, and the schedules of D.5
UPRIGHT = {"max_angle": math.radians(10)}
GSGN_CLEVR_QUICK = replace(
    GSGN_QUICK,
    steps=4000,
    world="compositional_clevr",
    program={**GSGN_QUICK.program, **UPRIGHT, "scale_start": (0.1, -0.35)},
    # differs: as on 2D Shapes; with Table 9 an object is one part, as large as it
    auxiliary={
        **GSGN_AUXILIARY,
        "z_scale_1": Gaussian(0.1, 0.1),
        "z_scale_*": Gaussian(-0.35, 0.14),
    },
    schedules={
        "learning_rate": WarmupDecay(1e-3, warmup=100, half_life=450, hold=2000),
        "estimator.temperature": GSGN_QUICK.schedules["estimator.temperature"],
        # differs: parts cost little and are small at first, so that all slots are used, each for a piece of an
        # object; then they must pay (half: the image has a quarter of the pixels) and may grow together
        "weight.aux/z_pres_2": Exponential(0.1, 0.5, 800, begin=600),
        "weight.aux/z_scale_2": Exponential(1.0, 0.1, 800, begin=800),
        "program.fixed_mixing": Until(0.1, 150),
        "program.sigma_fg": LinearVariance(0.15, 0.3, 600, begin=600),
        "program.sigma_bg": Constant(0.1),
    },
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


def to_scale(recipe: Recipe, begin: int, steps: int, size: int = 128) -> Recipe:
    """From step `begin + steps` on the likelihood counts as that of an image of `size` pixels a side.

    KLs and prices of presence are as large on a small image as on a large one, whose likelihood has more
    pixels; a paper's prices are in proportion to the pixels that it had. The log's loss is then no bound.

    # differs: not from the first step, when all objects stay present (`analysis/LOG.md`).
    """
    pixels = (size / recipe.program["size"]) ** 2
    weight = Exponential(1.0, pixels, steps, begin=begin)
    return replace(recipe, schedules={**recipe.schedules, "weight.images": weight})


# as `quick` to step 2,000, when parts are found
GSGN_CLEVR_LONG = to_scale(
    replace(
        GSGN_CLEVR_QUICK,
        steps=16_000,
        scenes=32_000,
        schedules={
            **GSGN_CLEVR_QUICK.schedules,
            "learning_rate": WarmupDecay(1e-3, warmup=100, half_life=3000, hold=1900),
            # the whole price once the likelihood is to scale
            "weight.aux/z_pres_2": Points(((600, 0.1), (1400, 0.5), (2000, 0.5), (3000, 1.0))),
            # differs: shapes cost little once parts are found, or one part that looks like a cube has two
            "weight.z_what_2": Points(((3000, 1.0), (3400, 0.1), (7000, 0.1), (9000, 1.0))),
        },
    ),
    begin=2000,
    steps=1000,
)
# GSGN-9 has one more auxiliary KL, against the collapse of objects' appearances (Table 7)
NINE = {"z_what_1": Gaussian(0, 1)}
GSGN9_CLEVR_QUICK, GSGN9_CLEVR_PAPER = (
    replace(recipe, auxiliary={**recipe.auxiliary, **NINE})
    for recipe in (GSGN_CLEVR_QUICK, GSGN_CLEVR_PAPER)
)


def heavier(recipe: Recipe, weight: Schedule) -> Recipe:
    """KLs of parts' presence and pose, auxiliary ones too, weighed (appendix F)."""
    sites = ("pres", "where", "scale", "theta", "depth")
    names = [f"weight.{kind}z_{site}_2" for kind in ("", "aux/") for site in sites]
    return replace(recipe, schedules={**recipe.schedules, **dict.fromkeys(names, weight)})


# seven parts: β rises from 1 to 5 in epochs 50 to 80, and is 1 after (appendix F)
GSGN_CLEVR7_QUICK = replace(GSGN_CLEVR_QUICK, world="compositional_clevr7")
GSGN_CLEVR7_PAPER = heavier(
    replace(GSGN_CLEVR_PAPER, world="compositional_clevr7"),
    Ramp(1.0, 5.0, 30 * EPOCH, begin=50 * EPOCH),
)

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
    schedules={"learning_rate": WarmupDecay(1e-3, warmup=100, half_life=1500, hold=6000)},
    evaluate_every=1000,
)
AIR_PAPER = replace(
    AIR_QUICK,
    steps=200_000,
    estimator="nvil",
    schedules={"learning_rate": Constant(1e-4)},
    evaluate_every=5000,
)

DISCRETE_AIR_QUICK = Recipe(
    steps=4000,
    batch=32,
    # differs: the difference image is embedded at half its size, and networks are smaller. At full size, where
    # these two layers see less than an object, one template often stayed unused (`analysis/LOG.md`)
    program={
        "pool": 2,
        "embedding": (24, 48),
        "encoder": (16, 32, 32),
        "window": 16,
        "decoder": 32,
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
DISCRETE_AIR_PAPER = replace(
    DISCRETE_AIR_QUICK,
    batch=64,
    program={},
    steps=300 * 1406,  # 300 epochs of 90,000 images
    schedules={**DISCRETE_AIR_QUICK.schedules, "learning_rate": Constant(1e-4)},
    evaluate_every=5000,
)

DIGITS = {"world": "multi_mnist", "scenes": 60_000}
# differs: attributes, which could stand for categories, come last
CATEGORIES_FIRST = {"weight.z_attr*": Exponential(100.0, 1.0, 2500)}
DIGITS_QUICK = replace(
    DISCRETE_AIR_QUICK,
    **DIGITS,
    schedules={**DISCRETE_AIR_QUICK.schedules, **CATEGORIES_FIRST},
)
DIGITS_PAPER = replace(
    DISCRETE_AIR_PAPER,
    **DIGITS,
    steps=420 * 937,  # 420 epochs of 60,000 images
    schedules={**DISCRETE_AIR_PAPER.schedules, **CATEGORIES_FIRST},
)

ECON_QUICK = Recipe(
    steps=900,
    batch=32,
    # differs: networks see pixels of 2 x 2 as one, which takes a quarter of the time
    program={
        "size": 32,
        "latents": 5,
        "features": 16,
        "blocks": 3,
        "patch": 2,
        "attention": (8, 16, 16),
        "context": 32,
    },
    world="sprites_unique",
    scenes=50_000,
    estimator="z_cat*=competition,z_mask*=mean",
    schedules={
        "learning_rate": WarmupDecay(2e-3, warmup=100, half_life=110, hold=680),
        # differs: at first all experts win alike; none is left unused (`analysis/LOG.md`)
        "guide.sharpness": Exponential(3.0, 30.0, 600),
        "guide.balance": Constant(0.5),
        # eq. 13: given who won, with β and γ
        "weight.z_cat*": Constant(0.0),
        "weight.z_what*": Constant(1.0),
        "weight.z_mask*": Constant(2.0),
    },
    clip=1e4,  # of thousands of nats
    evaluate_every=500,
)
ECON_LONG = replace(
    ECON_QUICK,
    steps=3000,
    schedules={
        **ECON_QUICK.schedules,
        "learning_rate": WarmupDecay(2e-3, warmup=100, half_life=200, hold=2200),
    },
)
# one expert for all classes and the background
MONET_QUICK = replace(ECON_QUICK, program={**ECON_QUICK.program, "latents": 6})
ECON_PAPER = replace(
    ECON_QUICK,
    steps=200_000,
    program={},
    schedules={
        **ECON_QUICK.schedules,
        "learning_rate": Constant(5e-4),
        # differs: printed as β = 9.54, γ = 0.52, each outside of the range it was searched in
        "weight.z_what*": Constant(0.52),
        "weight.z_mask*": Constant(9.54),
    },
    evaluate_every=5000,
)


def trusting(steps: int) -> dict[str, Schedule]:
    """Shapes of a first look keep regions of random colours from growing together, until training ends.

    # differs: after it regions are cut where shapes are wrong, unless they count for less (`analysis/LOG.md`).
    """
    return {"guide.trust": Until(1.0, steps, after=0.5)}


ECON_RANDOM_QUICK = replace(
    ECON_QUICK,
    world="sprites_random",
    # differs: λ is 0 in the paper, which leaves nothing but shapes to compete for (`analysis/LOG.md`)
    program={**ECON_QUICK.program, "appearance": 0.0},
    schedules={**ECON_QUICK.schedules, **trusting(ECON_QUICK.steps - 10)},
)
ECON_RANDOM_LONG = replace(
    ECON_RANDOM_QUICK,
    steps=ECON_LONG.steps,
    schedules={**ECON_LONG.schedules, **trusting(ECON_LONG.steps - 10)},
)
ECON_RANDOM_PAPER = replace(
    ECON_PAPER,
    world="sprites_random",
    schedules={
        **ECON_PAPER.schedules,
        **trusting(ECON_PAPER.steps - 10),
        "weight.z_what*": Constant(1.0),
        "weight.z_mask*": Constant(3.26),
    },
)

SPACE_QUICK = Recipe(
    steps=1400,
    batch=16,
    # differs: smaller networks, one background component, a prior of sizes that fits the objects and stays
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
    # differs: a prior of boxes smaller than most parts; on CLEVR they take whole objects all the same
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

# GNM, eqs. 3 and 4; means and deviations are the official code's
GNM_AUXILIARY: dict[str, Prior] = {
    "z_pres*": Sparse(math.log(1e-3 / (1 - 1e-3))),
    "z_where*": Gaussian(0, 1),
    "z_scale*": Gaussian(-1.6, 0.1),
    "z_ratio*": Gaussian(0, 0.3),
    "z_depth*": Gaussian(0, 1),
    "z_what*": Gaussian(0, 1),
    "z_bg": Gaussian(0, 1),
}
GNM_PAPER = Recipe(
    steps=600 * 1875,  # 600 epochs of 60,000 images
    batch=32,
    world="mnist10",
    scenes=60_000,
    schedules={
        "learning_rate": Constant(1e-4),  # differs: the code has RMSprop
        "estimator.temperature": Linear(1.0, 0.5, 19_000, begin=1000),
        "weight.z_global*": Linear(0.0, 1.0, 100_000),  # β_g
        # the code's ρ goes from 0.1 to 0.001, the price of an object from 2.3 to 6.9 nats
        "weight.aux/z_pres*": Linear(1 / 3, 1.0, 4000),
    },
    auxiliary=GNM_AUXILIARY,
    evaluate_every=5000,
)
# masks are full boxes and priors of boxes strong for 500 steps, as in the code; β_b from 50 to 1 (section 3)
GNM_ARROW_PAPER = replace(
    GNM_PAPER,
    world="arrow_room",
    steps=600 * 625,  # 600 epochs of 20,000 images
    scenes=20_000,
    program={
        "colours": 3,
        "z_what": 64,
        "z_bg": 10,
        "glimpse": 64,
        "units": 128,
        "embedding": (512, 1024),
        "channels": (16, 32, 64, 128, 128),
        "decoder": ((128, 2, 3), (64, 2, 3), (32, 2, 3), (16, 2, 3), (8, 2, 3)),
    },
    schedules={
        **GNM_PAPER.schedules,
        "weight.aux/z_bg": Linear(50.0, 1.0, 50_000),
        "program.fixed_mask": Until(0.9, 500),
        **dict.fromkeys(
            ("weight.aux/z_where*", "weight.aux/z_scale*", "weight.aux/z_ratio*"),
            Linear(10.0, 1.0, 500),
        ),
    },
    auxiliary={**GNM_AUXILIARY, "z_scale*": Gaussian(-1.5, 0.1)},
)
GNM_QUICK = replace(
    GNM_PAPER,
    steps=8000,
    batch=16,
    world="mnist4",
    scenes=20_000,
    program={
        "size": 64,
        "sigma": 0.1,  # a digit has a quarter of the pixels
        "glimpse": 16,
        "interaction": (256, 256),
        "embedding": (256, 256),
        "channels": (16, 32, 64, 64),
        "decoder": ((32, 4, 1), (16, 2, 1), (8, 2, 3)),
    },
    schedules={
        "learning_rate": WarmupDecay(2e-3, warmup=200, half_life=300, hold=6900),
        "estimator.temperature": Linear(1.0, 0.5, 1500),
        # differs: z^g is free until looks cost what they cost, or it does not learn which digits there are
        "weight.z_global*": Linear(0.0, 1.0, 1600, begin=4200),
        # differs: 1 in the paper; an image has a quarter of the pixels, each worth four times as much
        "weight.aux/z_pres*": Linear(1.0, 4.0, 1000),
        # differs: looks cost little at first, or all digits stay one
        **dict.fromkeys(
            ("weight.z_what*", "weight.aux/z_what*"), Exponential(0.02, 1.0, 1800, begin=2400)
        ),
    },
    evaluate_every=1000,
    layout="channels_last",
)


def with_beta(recipe: Recipe, beta: float, pattern: str = "z_global*") -> Recipe:
    """KLs of matching sites weighed with β in the end (GNM, section 2.1).

    # differs: the supplement does not say which KLs. Here GNM's is that of z^g, which ConvDRAW's are all.
    """
    name = f"weight.{pattern}"
    match recipe.schedules.get(name):
        case None | Constant():
            weight = Constant(beta)
        case Linear() as ramp:
            weight = replace(ramp, end=beta)
        case other:
            raise ValueError(f"{name} has the schedule {other}: expected none, Constant or Linear")
    return replace(recipe, schedules={**recipe.schedules, name: weight})


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
    steps=GNM_ARROW_PAPER.steps,
    scenes=20_000,
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

# DeNF, appendix A.4 and Algorithm 1
DENF_EPOCH = 35_000 // 12  # steps; CLEVR6 has about half of the 70,000 scenes


def per_number(size: int) -> float:
    """1 / (3 size²): with this weight log p(x), and presence, are in nats a number of the image.

    # differs: eq. 13 adds a density of 49,152 numbers and means of squares as they are; the latter count for
    nothing then.
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
    # differs: priors of boxes about as wide as the penalties leave them: f of wider ones is far from any image
    program={"size": 48, "couplings": 2, "features": 16, "loc_sd": 0.06, "scale_absent_sd": 0.2},
    scenes=4000,
    schedules={
        # differs: a faster rate that falls, and warmer draws of presence, in a fortieth of the steps
        "learning_rate": WarmupDecay(1e-3, warmup=50, half_life=300, hold=800),
        "estimator.temperature": Linear(1.0, 0.5, 800),
        "weight.z_pres*": Constant(per_number(48)),
        # differs: the likelihood comes late and counts a tenth: it is highest where all cells are alike, and at
        # its full weight no cell stays present
        "weight.images": Linear(0.0, 0.1 * per_number(48), 400, begin=400),
        # differs: all cells are present at first: absent ones teach x̂_fg nothing, and x̂_bg learns sooner
        "program.presence": Linear(2.0, -2.197, 350, begin=100),
        # differs: weights of the penalties, 1 in eq. 13
        "weight.penalty/background": Constant(100.0),
        "weight.penalty/reconstruction": Constant(10.0),
        # differs: eq. 12 keeps boxes small at first; then they fill objects, and objects must not fill boxes
        "weight.penalty/compatibility": Until(1.0, 400, after=0.0),
        "weight.penalty/inscribed": Linear(0.0, 0.01, 200, begin=400),
    },
    # differs: with the image itself in eq. 5 the background shows all objects, and no cell is present
    penalties={**DENF_PENALTIES, "background": Background(own=False), "inscribed": Inscribed()},
    evaluate_every=200,
)
# Table 5
DENF_TRAFFIC_QUICK, DENF_TRAFFIC_PAPER = (
    replace(r, world="traffic", program={**r.program, "scale_mean": 0.25})
    for r in (DENF_QUICK, DENF_PAPER)
)

PRESETS: dict[str, dict[str, Recipe]] = {
    "gsgn": {"quick": GSGN_QUICK, "long": GSGN_LONG, "paper": GSGN_PAPER},
    "four_levels": {"quick": FOUR_LEVELS_QUICK},
    "gsgn/compositional_clevr": {
        "quick": GSGN_CLEVR_QUICK,
        "long": GSGN_CLEVR_LONG,
        "paper": GSGN_CLEVR_PAPER,
    },
    "gsgn9/compositional_clevr": {"quick": GSGN9_CLEVR_QUICK, "paper": GSGN9_CLEVR_PAPER},
    "gsgn/compositional_clevr7": {"quick": GSGN_CLEVR7_QUICK, "paper": GSGN_CLEVR7_PAPER},
    "air": {"quick": AIR_QUICK, "long": AIR_LONG, "paper": AIR_PAPER},
    "discrete_air": {"quick": DISCRETE_AIR_QUICK, "paper": DISCRETE_AIR_PAPER},
    "econ": {"quick": ECON_QUICK, "long": ECON_LONG, "paper": ECON_PAPER},
    "monet": {"quick": MONET_QUICK, "paper": ECON_PAPER},
    "econ_random": {
        "quick": ECON_RANDOM_QUICK,
        "long": ECON_RANDOM_LONG,
        "paper": ECON_RANDOM_PAPER,
    },
    "discrete_air_mnist": {"quick": DIGITS_QUICK, "paper": DIGITS_PAPER},
    "space": {"quick": SPACE_QUICK, "paper": SPACE_PAPER},
    "space_p": {"quick": SPACE_P_QUICK, "paper": SPACE_PAPER},
    "space/shapes2d": {"quick": SPACE_SHAPES_QUICK},
    "space_p/shapes2d": {"quick": SPACE_P_SHAPES_QUICK},
    "gnm": {
        "quick": GNM_QUICK,
        "quick_beta2": with_beta(GNM_QUICK, 2.0),
        "paper": GNM_PAPER,
        "paper_beta2": with_beta(GNM_PAPER, 2.0),
    },
    "gnm/arrow_room": {
        "paper": GNM_ARROW_PAPER,
        "paper_beta2": with_beta(GNM_ARROW_PAPER, 2.0),
    },
    "convdraw": {
        "quick": CONVDRAW_QUICK,
        "quick_beta10": with_beta(CONVDRAW_QUICK, 10.0),
        "paper": CONVDRAW_PAPER,
        "paper_beta10": with_beta(CONVDRAW_PAPER, 10.0),
    },
    "convdraw/arrow_room": {
        "paper": CONVDRAW_ARROW_PAPER,
        "paper_beta10": with_beta(CONVDRAW_ARROW_PAPER, 10.0),
    },
    "vae": {"quick": VAE_QUICK, "paper": CONVDRAW_PAPER},
    "vae/arrow_room": {"paper": VAE_ARROW_PAPER},
    "genesis": {"quick": GENESIS_QUICK, "paper": GENESIS_PAPER},
    "denf": {"quick": DENF_QUICK, "paper": DENF_PAPER},
    "denf/traffic": {"quick": DENF_TRAFFIC_QUICK, "paper": DENF_TRAFFIC_PAPER},
    "genesis/arrow_room": {"paper": GENESIS_ARROW_PAPER},
}
"""By variant, where a variant has recipes of its own, else by program; for some worlds by both."""


def recipe(program: str, variant: str, preset: str, world: str | None = None) -> Recipe:
    """The recipe of a variant or program, in a world or its own, by name; `DEFAULT` where there is none.

    Raises:
        ValueError: there are recipes, but none of that name.
    """
    names = [f"{variant}/{world}", f"{program}/{world}", variant, program]
    name = next((name for name in names if name in PRESETS), None)
    if name is None:
        return DEFAULT
    if preset not in PRESETS[name]:
        known = ", ".join(sorted(PRESETS[name]))
        raise ValueError(f"unknown preset {preset!r} of {name}; known are {known}")
    return PRESETS[name][preset]
