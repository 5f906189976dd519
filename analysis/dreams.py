"""A page of scenes that trained programs draw from their priors, beside scenes of their worlds.

    python -m analysis.dreams [RUN …] [--out FILE] [--seed S]

Without RUN the page shows all shipped runs, and is analysis/figures/dreams.png; else it is runs/dreams.png. The
scenes are the first ones of the seed; none is selected.

Shape legend: B scenes, C channels, S pixels per side.
"""

from __future__ import annotations

import sys
from pathlib import Path

import pyro
import torch
from matplotlib.figure import Figure
from torch import Tensor

from analysis import plots
from analysis.command import named, new_file
from inference.command import command_line, new_folder, told
from inference.loading import ROOT
from inference.runs import Trained, shipped
from programs.scene import Scene

COUNT = 8
"""Scenes of the prior, and of the world, per row."""
PAGE = ROOT / "analysis" / "figures" / "dreams.png"
"""The page of the shipped runs."""
OWN = Path("runs/dreams.png")
"""The page of runs that are given, by default."""
GAP = 0.03
"""Gap between two pictures, in sides of a picture."""
INCH = 1.0
"""Side of a picture, in inches."""


@torch.no_grad()
def row(run: Trained, seed: int) -> tuple[Tensor, Tensor]:
    """(B, C, S, S) scenes of the prior, and of the world that the run was trained on.

    Raises:
        ValueError: the run's program cannot be sampled, or returns no Scene.
    """
    pyro.set_rng_seed(seed)
    if not isinstance(scene := run.program(batch=COUNT), Scene):
        raise ValueError(f"the program returns {type(scene).__name__}, expected a Scene to show")
    prior = scene.image.cpu()
    return prior, run.unseen(COUNT, seed).floats()


def page(rows: dict[str, tuple[Tensor, Tensor]]) -> Figure:
    """One row per run: its name, scenes of the prior, and after a gap scenes of its world."""
    width = 2 * COUNT + 0.4
    figure = Figure(figsize=(width * INCH, (1.25 * len(rows) + 0.2) * INCH))
    for r, (name, sides) in enumerate(rows.items()):
        bottom = 1 - (r + 1) * 1.25 / (1.25 * len(rows) + 0.2)
        height = 1 / (1.25 * len(rows) + 0.2)
        for side, (title, images) in enumerate(zip((name, "its world"), sides, strict=True)):
            left = side * (COUNT + 0.4) / width
            figure.text(left, bottom + 1.02 * height, title, fontsize=10, va="bottom")
            for k, x in enumerate(images):
                box = (left + k / width, bottom, (1 - GAP) / width, (1 - GAP) * height)
                axes = figure.add_axes(box)
                axes.axis("off")
                picture = x.clamp(0, 1).permute(1, 2, 0).expand(-1, -1, 3)
                axes.imshow(picture.numpy(), interpolation="nearest")
    return figure


@told
def main(arguments: list[str] | None = None) -> None:
    """Entry point."""
    a = command_line("analysis.dreams", __doc__)
    a.add_argument(
        "runs", nargs="*", metavar="RUN", help="your run folders, or names of shipped runs"
    )
    a.add_argument("--out", type=new_file, metavar="FILE", help=f"{OWN} by default if RUN is given")
    a.add_argument("--seed", type=int, default=0, metavar="S")
    o = a.parse_args(arguments)
    out = o.out or (OWN if o.runs else PAGE)
    pyro.enable_validation(False)
    runs = named(o.runs or shipped())
    with new_folder(out.parent):
        rows = {name: row(run, o.seed) for name, run in runs.items()}
        plots.save(page(rows), out)
    print(out)


if __name__ == "__main__":
    sys.exit(main())
