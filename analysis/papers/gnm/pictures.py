"""Pictures of GNM's supplement: samples (figures 1 to 4 and 7), symbols drawn anew (figures 5 and 6)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import partial

import torch
from matplotlib.figure import Figure
from pyro import poutine
from pyro.poutine import Trace
from torch import Tensor

from analysis import edit, plots
from analysis.papers.gnm import judges
from analysis.papers.gnm.structure import SYMBOLS, prior
from analysis.papers.gnm.trainings import on_worlds
from analysis.papers.item import Item, Made, Request, Row, Training
from analysis.posterior import Mode
from inference.images.dataset import Dataset
from inference.runs import Trained

SAMPLES = 30
"""Samples per model in a picture."""
LATENTS = 5
"""Global latents in a picture."""
DRAWS = 9
"""Draws of the symbols under each global latent."""
SCENES = 250
"""Scenes that are judged, the paper's number."""


def samples(title: str, trainings: Mapping[str, Training]) -> Item:
    """Samples of several models, one strip per model, symbols at their mode (supplement, 4.1)."""

    def make(runs: Mapping[str, Trained], request: Request) -> Made:
        number = request.scenes or SAMPLES
        strips = {name: prior(run.program, number).image for name, run in runs.items()}
        return Made(figures={"samples": plots.strips_figure(strips)})

    return Item(title, trainings, make)


def symbols(title: str, inferred: bool) -> Item:
    """Symbols z^s drawn anew under one global latent z^g: an image's if `inferred`, else the prior's.

    The paper finds that the structure stays, so the item also has the shares of scenes with the world's
    structure, for symbols at their mode and drawn.
    """

    def make(runs: Mapping[str, Trained], request: Request) -> Made:
        rows, figures = [], {}
        for name, run in runs.items():
            data = run.unseen(request.scenes or SCENES, request.seed)
            images = data.floats()
            few, many = (_trace(run, images[:n], inferred) for n in (LATENTS, len(images)))
            shown = images[:LATENTS] if inferred else None
            file = name.removeprefix("GNM on ").lower().replace(" ", "_")
            figures[file] = redrawn(run.program, few, DRAWS, shown)
            rows += obeying(run.program, many, data, name)
        return Made(tuple(rows), figures)

    return Item(title, on_worlds(("GNM",)), make)


@torch.no_grad()
def _trace(run: Trained, images: Tensor, inferred: bool) -> Trace:
    if inferred:
        return poutine.trace(run.guide).get_trace(images)
    return poutine.trace(run.program).get_trace(batch=len(images))


def redrawn(program: Callable, trace: Trace, draws: int, images: Tensor | None = None) -> Figure:
    """One row per global latent of a trace: its symbols at their mode, and drawn anew.

    Args:
        trace: trace of the guide or of the program.
        images: (B, C, H, W) inputs of the guide, shown first.
    """
    again = partial(edit.anew, program, trace, SYMBOLS)
    columns = {} if images is None else {"image": images}
    with Mode(sites=SYMBOLS):
        columns["mode"] = again().image
    columns |= {f"draw {n + 1}": again().image for n in range(draws)}
    return plots.pictures_figure(columns)


def obeying(program: Callable, trace: Trace, data: Dataset, name: str) -> Iterator[Row]:
    """The share of scenes with the world's structure, symbols at their mode and drawn."""
    judge, number = judges.judge(data), len(data.images)
    with Mode(sites=SYMBOLS):
        shown = {"symbols at their mode": edit.anew(program, trace, SYMBOLS).image}
    shown["symbols drawn"] = edit.anew(program, trace, SYMBOLS).image
    for metric, images in shown.items():
        share = float(judge(images.cpu()).double().mean())
        error = (share * (1 - share) / number) ** 0.5
        yield Row(name, metric, share, case="right in structure", scenes=number, error=error)
