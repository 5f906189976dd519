"""The tables and figures of the Discrete-AIR paper (Wang, Jamnik, Liò, 2019).

Figures 1 and 2 and table 2 are left out, because they show the model and its networks, not results.
"""

from __future__ import annotations

from analysis.papers.air import figures, tables
from analysis.papers.air.tables import DIGITS, SPRITES
from analysis.papers.item import Item
from analysis.papers.published import PUBLISHED

OF_SPRITES = {"Discrete-AIR sprites": SPRITES}
OF_DIGITS = {"Discrete-AIR digits": DIGITS}
BOTH = OF_SPRITES | OF_DIGITS

ITEMS: dict[str, Item] = {
    "table1": Item(PUBLISHED["air", "table1"].title, tables.TRAININGS, tables.table1),
    "apart": Item("Table 1 on sprites that do not overlap", tables.APART, tables.apart),
    "figure3": Item(
        "Figure 3: input, reconstruction and codes, with edges", BOTH, figures.graphs(2)
    ),
    "figure4": Item(
        "Figure 4: input, reconstruction and codes of Multi-Sprites",
        OF_SPRITES,
        figures.graphs(5, edges=False),
    ),
    "figure5": Item(
        "Figure 5: input, reconstruction and codes of Multi-MNIST",
        OF_DIGITS,
        figures.graphs(5, edges=False),
    ),
    "figure6": Item("Figure 6: labels that share a category", BOTH, figures.figure6),
    "figure7": Item("Figure 7: attributes varied", OF_DIGITS, figures.figure7),
    "figure8": Item("Figure 8: Multi-MNIST step by step", OF_DIGITS, figures.steps),
    "figure9": Item("Figure 9: Multi-Sprites step by step", OF_SPRITES, figures.steps),
}
"""Items by name."""
