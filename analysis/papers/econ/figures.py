"""Figures 1 and 4 to 8 of the ECON paper: layers of scenes, samples of experts, composed scenes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from analysis import plots
from analysis.papers.econ.tables import SCORES, scores, simple_rows, validity_rows
from analysis.papers.explained import explained
from analysis.papers.item import Made, Request, Row
from analysis.scores import confusion
from inference.runs import Trained
from programs.scene import Scene

SCENES = 100
"""Scenes of each kind that are scored."""
SHOWN = 10
"""Pictures in a row."""
UNTOLD = ("shape_iou", "hidden_iou")
"""Scores that are meaningful for an expert that gets the true regions in the true order."""
NEAR = 0.25
"""Remaining share of the contrast of objects to the background in figure 8 d."""
CROWDS: dict[str, tuple[dict[str, Any], int]] = {
    "a five objects": ({"min_objects": 5, "max_objects": 5, "repeats": True}, 6),
    "b spare layers": ({}, 6),
    "c one class": (
        {"min_objects": 3, "max_objects": 3, "repeats": True, "classes": ("square",)},
        4,
    ),
    "d near the background": ({}, 4),
}
"""Kinds of scenes in figure 8: fields of the world's Config, and layers that the trained program places."""

Runs = Mapping[str, Trained]


def figure1(runs: Runs, request: Request) -> Made:
    """A: scenes of the world; B: samples of every expert; C: scenes composed of them."""
    rows, figures = [], {}
    for name, run in runs.items():
        figures["a"] = plots.sample_figure(run.unseen(SHOWN, request.seed).truth(), SHOWN)
        figures["b"] = plots.experts_figure(run.program, SHOWN)
        figures["c"] = plots.recombination_figure(run.program, SHOWN, request.seed)
        rows += validity_rows(name, run, request)
    return Made(tuple(rows), figures)


def figure4(runs: Runs, request: Request) -> Made:
    """Scenes of four objects, two of one class and two of one colour, explained from the front to the back."""
    rows, figures, number = [], {}, request.scenes or SCENES
    for name, run in runs.items():
        options = {"min_objects": 4, "max_objects": 4, "repeats": True}
        data = run.unseen(number, request.seed, **options)
        truth = data.truth()
        images = twin_colours(data.floats(), truth)
        with run.program.placing(5):
            figures[file_name(name)] = plots.steps_figure(run.program, run.guide, images[:2])
        found = scores(run, data, images, 5, request.seed)
        rows += [Row(name, m, found[m], None, "four objects", number) for m in SCORES if m in found]
        rows += simple_rows(images, truth, SCORES, "four objects")
    return Made(tuple(rows), figures)


def samples(runs: Runs, request: Request) -> Made:
    """Samples of every expert, and the classes that each explains, or the scores of a single one (figures
    5, 6)."""
    rows, figures, number = [], {}, request.scenes or SCENES
    for name, run in runs.items():
        data = run.unseen(number, request.seed)
        truth = data.truth()
        figures[f"{file_name(name)}_scenes"] = plots.sample_figure(truth[:SHOWN], SHOWN)
        figures[file_name(name)] = plots.experts_figure(run.program, SHOWN)
        if run.program.config.experts > 1:
            rows += specialisation(run, name, request, number)
        else:
            found = scores(run, data, seed=request.seed)
            rows += [Row(name, m, found[m], None, "", number) for m in UNTOLD]
    return Made(tuple(rows), figures)


def specialisation(run: Trained, name: str, request: Request, number: int) -> list[Row]:
    """Shares of the objects of a class that each expert explains."""
    x = explained(run, run.unseen(number, request.seed), request.seed)
    classes, experts = run.config["world"]["classes"], run.program.config.experts
    table = confusion(x.scene.objects, x.truth.objects, len(classes), experts)
    return [
        Row(label, f"expert {k}", count / max(1, int(counts.sum())), None, name, number)
        for label, counts in zip(classes, table, strict=True)
        for k, count in enumerate(counts.tolist())
    ]


def figure7(runs: Runs, request: Request) -> Made:
    """Scenes that grow from a background by an object per row, and the share that shows the chosen
    classes."""
    rows, figures = [], {}
    for name, run in runs.items():
        figures[file_name(name)] = plots.growth_figure(run.program, count=SHOWN, seed=request.seed)
        rows += validity_rows(name, run, request)
    return Made(tuple(rows), figures)


def figure8(runs: Runs, request: Request) -> Made:
    """Layers inferred from scenes unlike the training scenes; pictures of each kind, and scores."""
    rows, figures, number = [], {}, request.scenes or SCENES
    for name, run in runs.items():
        for case, (options, layers) in CROWDS.items():
            data = run.unseen(number, request.seed, **options)
            truth, images = data.truth(), data.floats()
            if case.startswith("d"):
                images = faded(images, truth)
            figures[case[0]] = plots.segments_figure(
                run.program, run.guide, images[:4], truth[:4], layers, 4
            )
            found = scores(run, data, images, layers, request.seed)
            rows += [Row(name, m, found[m], None, case, number) for m in SCORES if m in found]
            rows += simple_rows(images, truth, SCORES, case)
    return Made(tuple(rows), figures)


def file_name(name: str) -> str:
    """File name of a run's picture."""
    return name.lower().replace(" ", "_")


def ground_colour(images: Tensor, truth: Scene) -> Tensor:
    """(B, C, 1, 1) the flat colour of each background, a mean over the pixels of no object."""
    free = ~truth.objects.mask.any(1, keepdim=True)
    number = free.sum((-2, -1), keepdim=True).clamp(min=1)
    return (images * free).sum((-2, -1), keepdim=True) / number


def faded(images: Tensor, truth: Scene, share: float = NEAR) -> Tensor:
    """The same scenes with a share of the contrast of objects to their background."""
    behind = ground_colour(images, truth)
    return behind + share * (images - behind)


def twin_colours(images: Tensor, truth: Scene) -> Tensor:
    """The same scenes, with all visible pixels of the last object in the colour of the first."""
    first, last = truth.objects.mask[:, :1], truth.objects.mask[:, -1:]
    number = first.sum((-2, -1), keepdim=True).clamp(min=1)
    colour = (images * first).sum((-2, -1), keepdim=True) / number
    return torch.where(last & first.any(-1, keepdim=True).any(-2, keepdim=True), colour, images)
