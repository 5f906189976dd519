"""All printed figures of the papers that are measured here, by (paper, table), model, metric and case.

Most of the papers' data sets were never published, so figures are shown side by side, not as a contest. Shares
are in [0, 1]; metrics have the names of metrics.json if they occur there.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from inference.loading import located, own_stem

INFERENCE = (
    "elbo_per_pixel",
    "object_count_accuracy",
    "object_f1",
    "part_count_accuracy",
    "part_f1",
)
STRUCTURE = (*INFERENCE, "structure_accuracy")
OCCLUDED = ("part_count_accuracy", "part_recall")
PIXELS = ("below 100", "100 to 200", "above 200")
NUMBERS = ("2 objects", "4 objects")
SAMPLES = ("s_acc", "d_steps", "ll")
FOUND = ("ap50", "ap50_95", "what_accuracy")
COUNTED = ("object_count_accuracy", "category_correspondence")
ABILITIES = ("decompose", "generate", "recombine", "amortize")


@dataclass(frozen=True)
class Printed:
    """A table as a paper prints it."""

    title: str
    columns: tuple[str, ...]
    """the metrics within each case"""
    rows: Mapping[str, tuple[float | None, ...]]
    """figures by model, in the order of the cases and, within each, of the columns; None for a gap"""
    cases: tuple[str, ...] = ("",)
    """the cases, such as scenes with 2 objects"""

    def figure(self, model: str, metric: str, case: str = "") -> float | None:
        """A figure, or None if the table has none for this model, metric and case."""
        if model not in self.rows or metric not in self.columns or case not in self.cases:
            return None
        place = self.cases.index(case) * len(self.columns) + self.columns.index(metric)
        return self.rows[model][place]


PUBLISHED: dict[tuple[str, str], Printed] = {
    # Deng, Zhi, Lee, Ahn: Generative Scene Graph Networks, ICLR 2021; images of 128 x 128
    ("gsgn", "table1"): Printed(
        "Table 1 and section 4: 2D Shapes", STRUCTURE,
        {
            "SPACE-O": (3.96, 0.9979, 0.9995, None, None, None),
            "SPACE-P": (3.95, None, None, 0.9875, 0.9673, 0.95),
            "GSGN": (3.96, 0.9976, 0.9985, 0.9954, 0.9991, 1.0),
            "GSGN-No-Share": (3.96, 0.9972, 0.9990, 0.9949, 0.9989, None),
            "GSGN-No-Aux": (3.96, 0.25, 0.7275, 0.9579, 0.9734, None),
        },
    ),
    ("gsgn", "table2"): Printed(
        "Table 2 and section 4: Compositional CLEVR", STRUCTURE,
        {
            "SPACE-O": (3.50, 0.9802, 0.9917, None, None, None),
            "SPACE-P": (3.48, None, None, 0.9271, 0.9903, 0.80),
            "GSGN": (3.49, 0.9866, 0.9937, 0.9863, 0.9977, 0.99),
            "GSGN-9": (3.49, 0.9627, 0.9721, 0.9773, 0.9759, None),
            "GSGN-No-Share": (3.50, 0.9621, 0.9826, 0.9709, 0.9938, None),
            "GSGN-No-Aux": (3.50, 0.2513, 0.7287, 0.1238, 0.7909, None),
        },
    ),
    ("gsgn", "table3"): Printed(
        "Table 3: parts by the visible pixels of the least visible one, Compositional CLEVR", OCCLUDED,
        {
            "SPACE-P": (0.1224, 0.8603, 0.8566, 0.9795, 0.9611, 0.9948),
            "GSGN": (0.9592, 0.9893, 0.9833, 0.9977, 0.9876, 0.9986),
            "GSGN-9": (0.8980, 0.9735, 0.9692, 0.9785, 0.9812, 0.9762),
            "GSGN-No-Share": (0.8571, 0.9634, 0.9613, 0.9915, 0.9756, 0.9946),
        },
        PIXELS,
    ),
    # The printed "399" of SPACE-P on 2 objects is read as 3.99.
    ("gsgn", "table4"): Printed(
        "Table 4: trained on 1 and 3 objects, 2D Shapes", INFERENCE,
        {
            "SPACE-O": (4.00, 0.9947, 0.9989, None, None, 3.85, 1.0, 1.0, None, None),
            "SPACE-P": (3.99, None, None, 0.9812, 0.9566, 3.83, None, None, 0.9682, 0.9650),
            "GSGN": (4.00, 0.9951, 0.9973, 0.9921, 0.9986, 3.84, 1.0, 0.9947, 0.9939, 0.9995),
        },
        NUMBERS,
    ),
    ("gsgn", "table5"): Printed(
        "Table 5: trained on 1 and 3 objects, Compositional CLEVR", INFERENCE,
        {
            "SPACE-O": (3.62, 0.9827, 0.9964, None, None, 3.06, 0.8886, 0.9672, None, None),
            "SPACE-P": (3.60, None, None, 0.9302, 0.9566, 3.10, None, None, 0.8496, 0.9892),
            "GSGN": (3.60, 0.9893, 0.9972, 0.9869, 0.9971, 3.02, 0.8778, 0.9641, 0.8720, 0.9799),
        },
        NUMBERS,
    ),
    ("gsgn", "table10"): Printed(
        "Table 10: seven kinds of parts", INFERENCE,
        {
            "SPACE-O": (3.56, 0.9660, 0.9849, None, None),
            "SPACE-P": (3.55, None, None, 0.8969, 0.9210),
            "GSGN": (3.55, 0.9638, 0.9829, 0.9748, 0.9411),
        },
    ),
    ("gsgn", "table11"): Printed(
        "Table 11: parts by the visible pixels of the least visible one, seven kinds of parts", OCCLUDED,
        {
            "SPACE-P": (0.0, 0.8105, 0.8278, 0.9450, 0.9339, 0.9025),
            "GSGN": (1.0, 0.9563, 0.9672, 0.9690, 0.9785, 0.9276),
        },
        PIXELS,
    ),
    # "GSGN approximately doubles the data efficiency"
    ("gsgn", "figure6"): Printed(
        "Figure 6: how many times GSGN's labels a task of part-whole relationships needs", ("labels_needed",),
        {"GSGN": (1.0,), "SPACE-O": (2.0,)},
    ),
    ("gsgn", "appendixG"): Printed(
        "Appendix G: how many different scene graphs there are",
        ("structures", "structures_with_poses", "objects", "scene_graphs"),
        {"Compositional CLEVR": (34, 494, 11_606, 7.57e14)},
    ),
    # Jiang, Ahn: Generative Neurosymbolic Machines, NeurIPS 2020, supplement; images of 128 x 128
    ("gnm", "table1"): Printed(
        "Table 1: MNIST-4-10", SAMPLES,
        {
            "GNM": (0.692, 5279, 10693),
            "GNM-8": (0.852, 6639, 10692),
            "GNM-β-2": (0.916, 1719, 10684),
            "GNM-8-β-2": (0.960, 3599, 10693),
            "GENESIS": (0.016, 199, 10084),
            "ConvDRAW": (0.000, 959, 10756),
            "ConvDRAW-8": (0.004, 1759, 10775),
            "ConvDRAW-β-10": (0.560, 2399, 10429),
            "ConvDRAW-8-β-10": (0.880, 1759, 10479),
        },
    ),
    ("gnm", "table2"): Printed(
        "Table 2: objects found, and their classes told from z_what", FOUND,
        {
            "GNM": (0.905, 0.459, 0.984, 0.905, 0.487, 0.983),
            "SPACE": (0.905, 0.453, 0.980, 0.906, 0.464, 0.979),
        },
        ("mnist10", "mnist4"),
    ),
    ("gnm", "table3"): Printed(
        "Table 3: numbers that are learned", ("parameters",),
        {
            "GNM": (2.9e6, 2.9e6, 8.6e6),
            "GENESIS": (13.9e6, 13.9e6, 13.9e6),
            "ConvDRAW": (1.5e6, 1.5e6, 4.7e6),
            "VAE": (1.5e6, 1.5e6, 1.5e6),
        },
        ("mnist4", "mnist10", "arrow_room"),
    ),
    # Wang, Jamnik, Liò: Unsupervised extraction of interpretable graph representations from multiple-object
    # scenes, 2019
    ("air", "table1"): Printed(
        "Table 1: numbers of objects and their categories", COUNTED,
        {
            "Discrete-AIR": (0.985, 0.945, 0.984, 0.87),
            "Discrete-AIR, best of 10": (None, 0.967, None, 0.913),
            "AIR": (0.981, None, 0.985, None),
        },
        ("multi_sprites", "multi_mnist"),
    ),
    # von Kügelgen et al.: Towards causal generative scene models via competition of experts, 2020; 1 for a tick
    ("econ", "table1"): Printed(
        "Table 1: what models can do", ABILITIES,
        {
            "MONet": (1, 0, 0, 1),
            "IODINE": (1, 0, 0, 1),
            "GENESIS": (1, 1, 0, 1),
            "M-RBM": (1, 1, 1, 0),
            "ECON": (1, 1, 1, 1),
        },
    ),
    # DeNF, under review; scores of Table 1 are printed in percent
    ("denf", "table1"): Printed(
        "Table 1: foreground ARI on CLEVR6", ("ari_fg",),
        {
            "IODINE": (0.988,),
            "MONet": (0.962,),
            "Slot Attention": (0.988,),
            "ObSuRF": (0.983,),
            "Sprites": (0.972,),
            "DeNF": (0.963,),
        },
    ),
    ("denf", "table2"): Printed(
        "Table 2: FID on Real-Traffic", ("fid",),
        {
            "GENESIS": (167.1,),
            "BlockGAN": (57.9,),
            "DCGAN": (47.6,),
            "RELATE": (42.0,),
            "DRAGAN": (38.8,),
            "DeNF": (25.6,),
        },
    ),
    ("denf", "table3"): Printed(
        "Table 3: ablations on CLEVR6", ("ari_fg",),
        {
            "32 x 32 cells": (0.944,),
            "unimodal prior": (0.958,),
            "DeNF": (0.963,),
        },
    ),
}  # fmt: skip


class Reference(NamedTuple):
    """Place of the printed figures of a run's model."""

    paper: str
    table: str
    model: str
    case: str = ""


RUNS: dict[str, tuple[Reference, ...]] = {
    "gsgn-shapes2d": (Reference("gsgn", "table1", "GSGN"),),
    "no_share-shapes2d": (Reference("gsgn", "table1", "GSGN-No-Share"),),
    "space-shapes2d": (Reference("gsgn", "table1", "SPACE-O"),),
    "space_p-shapes2d": (Reference("gsgn", "table1", "SPACE-P"),),
    "gsgn-compositional_clevr": (Reference("gsgn", "table2", "GSGN"),),
    "gsgn9-compositional_clevr": (Reference("gsgn", "table2", "GSGN-9"),),
    "no_share-compositional_clevr": (Reference("gsgn", "table2", "GSGN-No-Share"),),
    "space-compositional_clevr": (Reference("gsgn", "table2", "SPACE-O"),),
    "space_p-compositional_clevr": (Reference("gsgn", "table2", "SPACE-P"),),
    "gsgn-compositional_clevr7": (Reference("gsgn", "table10", "GSGN"),),
    "space-compositional_clevr7": (Reference("gsgn", "table10", "SPACE-O"),),
    "space_p-compositional_clevr7": (Reference("gsgn", "table10", "SPACE-P"),),
    "gnm-mnist4": (Reference("gnm", "table2", "GNM", "mnist4"),),
    "gnm-mnist10": (Reference("gnm", "table2", "GNM", "mnist10"),),
    "gnm-mnist4_10": (Reference("gnm", "table1", "GNM"),),
    "gnm8-mnist4_10": (Reference("gnm", "table1", "GNM-8"),),
    "genesis-mnist4_10": (Reference("gnm", "table1", "GENESIS"),),
    "convdraw-mnist4_10": (Reference("gnm", "table1", "ConvDRAW"),),
    "convdraw8-mnist4_10": (Reference("gnm", "table1", "ConvDRAW-8"),),
    "discrete_air-multi_sprites": (Reference("air", "table1", "Discrete-AIR", "multi_sprites"),),
    "discrete_air_mnist-multi_mnist": (Reference("air", "table1", "Discrete-AIR", "multi_mnist"),),
    "air-multi_sprites": (Reference("air", "table1", "AIR", "multi_sprites"),),
    "air-multi_mnist": (Reference("air", "table1", "AIR", "multi_mnist"),),
    "denf-clevr6": (Reference("denf", "table1", "DeNF"),),
    "denf-traffic": (Reference("denf", "table2", "DeNF"),),
    "denf32-clevr6": (Reference("denf", "table3", "32 x 32 cells"),),
    "denf_unimodal-clevr6": (Reference("denf", "table3", "unimodal prior"),),
}
"""References of each run, by VARIANT-WORLD."""


def model_of(config: Mapping[str, Any]) -> str:
    """The name in `RUNS` of a run's model in its world, from its config.json.

    It is VARIANT-WORLD, or empty for programs and pictures that are not the project's: no paper has them.
    """
    if config.get("images") is not None or not own_stem(located(config["program"])):
        return ""
    return f"{config['variant']}-{config['recipe']['world']}"


def figures_of(run: str) -> dict[str, float]:
    """The papers' figures for a run's model in its world, by metric; empty if there are none."""
    found: dict[str, float] = {}
    for reference in RUNS.get(run, ()):
        table = PUBLISHED[reference.paper, reference.table]
        values = {m: table.figure(reference.model, m, reference.case) for m in table.columns}
        found |= {m: value for m, value in values.items() if value is not None}
    return found


def source_of(run: str) -> str:
    """The papers' tables with a run's model, such as "gsgn, Table 2: …"; empty if there are none."""
    titles = (f"{r.paper}, {PUBLISHED[r.paper, r.table].title}" for r in RUNS.get(run, ()))
    return "; ".join(titles)
