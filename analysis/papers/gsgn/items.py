"""The tables and figures of the GSGN paper (Deng, Zhi, Lee, Ahn: Generative Scene Graph Networks, ICLR 2021)."""

from __future__ import annotations

from analysis.papers.gsgn.tables import ONE_AND_THREE, table
from analysis.papers.item import Item

ITEMS: dict[str, Item] = {
    "table1": table("table1", "shapes2d"),
    "table2": table("table2", "compositional_clevr"),
    "table3": table("table3", "compositional_clevr"),
    "table4": table("table4", "shapes2d", ONE_AND_THREE),
    "table5": table("table5", "compositional_clevr", ONE_AND_THREE),
    "table10": table("table10", "compositional_clevr7"),
    "table11": table("table11", "compositional_clevr7"),
}
"""By name."""
