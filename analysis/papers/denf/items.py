"""The tables and figures of the DeNF paper (anonymous, under review), and the fidelity that section 4 claims.

Figures 1 and 2 and tables 4 and 5 are left out: they show the model, its layers and settings, not results.
"""

from __future__ import annotations

from analysis.papers.denf import figures, tables
from analysis.papers.denf.tables import ABLATIONS, CLEVR, DENSITIES, GENERATED, TRAFFIC
from analysis.papers.item import Item
from analysis.papers.published import PUBLISHED

OF_CLEVR, OF_TRAFFIC = {"DeNF": CLEVR}, {"DeNF traffic": TRAFFIC}

ITEMS: dict[str, Item] = {
    "table1": Item(PUBLISHED["denf", "table1"].title, OF_CLEVR, tables.table1),
    "table2": Item(PUBLISHED["denf", "table2"].title, GENERATED, tables.table2),
    "table3": Item(PUBLISHED["denf", "table3"].title, ABLATIONS, tables.table3),
    "figure3": Item("Figure 3: maps of CLEVR6", OF_CLEVR, figures.of_each(figures.maps)),
    "figure4": Item("Figure 4: maps of Real-Traffic", OF_TRAFFIC, figures.of_each(figures.maps)),
    "figure5": Item(
        "Figure 5: generated backgrounds of Real-Traffic, and of CLEVR6",
        OF_TRAFFIC | OF_CLEVR,
        figures.of_each(figures.backgrounds),
    ),
    "figure6": Item(
        "Figure 6: scenes with a single object", OF_CLEVR, figures.of_each(figures.single)
    ),
    "fidelity": Item("Section 4: what changes outside an edited object", OF_CLEVR, tables.fidelity),
    "bits": Item("The flow as a density, and lossless files", DENSITIES, tables.bits),
}
"""Items by name."""
