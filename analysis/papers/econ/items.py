"""The tables and figures of the ECON paper (von Kügelgen et al., 2020).

Figures 2 and 3 are left out, because they show the model and its networks, not results.
"""

from __future__ import annotations

from analysis.papers.econ import figures, tables
from analysis.papers.econ.tables import (
    ABLATED,
    ABLATION,
    COMPETING,
    COMPETITION,
    RANDOM,
    SEARCH,
    SEARCHED,
    SEGMENTED,
    TEXTURED,
    UNIQUE,
)
from analysis.papers.item import Item, Training
from analysis.papers.published import PUBLISHED

HERE = "analysis/papers/econ"
OF_UNIQUE, OF_RANDOM = {"ECON": UNIQUE}, {"ECON random": RANDOM}
TOLD = {
    "MONet with true masks": Training(f"{HERE}/told.py", "monet_told", f"{HERE}/told_leaves.py")
}

ITEMS: dict[str, Item] = {
    "table1": Item(PUBLISHED["econ", "table1"].title, {}, tables.table1),
    "figure1": Item(
        "Figure 1: scenes (a), samples of experts (b), scenes put together (c)",
        OF_UNIQUE,
        figures.figure1,
    ),
    "figure4": Item("Figure 4: a scene explained step by step", OF_RANDOM, figures.figure4),
    "figure5": Item(
        "Figure 5: samples of a single expert, trained with true masks", TOLD, figures.samples
    ),
    "figure6": Item("Figure 6: samples of experts, random colours", OF_RANDOM, figures.samples),
    "figure7": Item("Figure 7: scenes that grow by layers", OF_RANDOM, figures.figure7),
    "figure8": Item("Figure 8: scenes unlike those trained on", OF_RANDOM, figures.figure8),
    "competition": Item(
        "Section 5.2: what experts compete for", COMPETITION, tables.compared(COMPETING)
    ),
    "ablation": Item(
        "Plain ECON, with each addition alone, and with all of them",
        ABLATION,
        tables.compared(ABLATED),
    ),
    "textured": Item(
        "Surfaces of noise, where no colour tells an object",
        TEXTURED,
        tables.compared(SEGMENTED),
    ),
    "search": Item(
        "Appendix C.4: architectures drawn at random", SEARCH, tables.compared(SEARCHED)
    ),
}
"""Items by name."""
