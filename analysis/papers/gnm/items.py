"""The tables and figures of GNM's supplement (Jiang, Ahn: Generative Neurosymbolic Machines, NeurIPS 2020).

Figure 8 and tables 4 to 9 are left out, because they are architectures, not results.
"""

from __future__ import annotations

from analysis.papers.gnm import pictures, tables
from analysis.papers.gnm.trainings import on_worlds, training
from analysis.papers.item import Item

MIXED = ("GNM", "GNM-8", "GENESIS", "ConvDRAW", "ConvDRAW-8", "VAE")
"""The models of figure 7."""

ITEMS: dict[str, Item] = {
    "table1": tables.table1(),
    "table2": tables.table2(),
    "table3": tables.table3(),
    "figure1": pictures.samples("Figure 1: samples of GNM", on_worlds(("GNM",))),
    "figure2": pictures.samples("Figure 2: samples of GENESIS", on_worlds(("GENESIS",))),
    "figure3": pictures.samples(
        "Figure 3: samples of ConvDRAW, β of 1 and 10", on_worlds(("ConvDRAW", "ConvDRAW-β-10"))
    ),
    "figure4": pictures.samples(
        "Figure 4: samples of ConvDRAW with eight steps, β of 1 and 10",
        on_worlds(("ConvDRAW-8", "ConvDRAW-8-β-10")),
    ),
    "figure5": pictures.symbols("Figure 5: symbols drawn anew, z^g inferred", inferred=True),
    "figure6": pictures.symbols("Figure 6: symbols drawn anew, z^g of the prior", inferred=False),
    "figure7": pictures.samples(
        "Figure 7: samples of all models, MNIST-4-10",
        {model: training(model, tables.MIXED) for model in MIXED},
    ),
}
"""Items by name."""
