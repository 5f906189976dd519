"""The tables and figures of the GSGN paper (Deng, Zhi, Lee, Ahn: Generative Scene Graph Networks, ICLR 2021).

Items without results are left out: figure 1 (the model), figures 9 and 10 (the networks' architectures),
and tables 6 to 9 (the auxiliary priors, which are `GSGN_AUXILIARY` in inference/recipes/gsgn.py).
"""

from __future__ import annotations

from analysis.papers.gsgn import classes, counts, downstream, manipulation, pictures, superpixels
from analysis.papers.gsgn.tables import table
from analysis.papers.gsgn.trainings import ONE_AND_THREE
from analysis.papers.item import Item
from analysis.papers.published import PUBLISHED

SHAPES, CLEVR, CLEVR7 = "shapes2d", "compositional_clevr", "compositional_clevr7"

ITEMS: dict[str, Item] = {
    "table1": table("table1", SHAPES),
    "table2": table("table2", CLEVR),
    "table3": table("table3", CLEVR),
    "table4": table("table4", SHAPES, ONE_AND_THREE),
    "table5": table("table5", CLEVR, ONE_AND_THREE),
    "table10": table("table10", CLEVR7),
    "table11": table("table11", CLEVR7),
    "figure2": pictures.scene_graphs("Figure 2: scene graphs of 2D Shapes", "GSGN", SHAPES),
    "figure3": pictures.scene_graphs(
        "Figure 3: scene graphs of Compositional CLEVR", "GSGN", CLEVR
    ),
    "figure4": manipulation.item("Figure 4: objects and parts manipulated, Compositional CLEVR"),
    "figure5": pictures.draws_of_the_prior("Figure 5: objects and scenes of the prior"),
    "figure6": downstream.figure6(CLEVR),
    "figure7": pictures.scene_graphs(
        "Figure 7: scene graphs by GSGN-Mem, Compositional CLEVR", "GSGN-Mem", CLEVR
    ),
    "figure8": pictures.memory("Figure 8: the memory of primitive parts", CLEVR),
    "figure11": superpixels.figure11("Figure 11: segments by merging superpixels"),
    "figure12": pictures.scene_graphs(
        "Figure 12: scene graphs of seven-part Compositional CLEVR", "GSGN", CLEVR7
    ),
    "classes": classes.item(
        "Types of objects and shapes of parts told from z_what",
        {"2D Shapes": SHAPES, "Compositional CLEVR": CLEVR},
    ),
    "appendixG": Item(PUBLISHED["gsgn", "appendixG"].title, {}, counts.appendix_g),
}
"""Items by name."""
