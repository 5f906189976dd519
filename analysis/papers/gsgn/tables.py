"""The tables of the GSGN paper (Deng et al., ICLR 2021), measured on trainings of this project.

SPACE-P's nodes are treated as parts; its objects are groups of parts whose boxes overlap (section 4). The
worlds are reconstructions, so figures are shown side by side, not as a contest.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch

from analysis.evaluate import with_masks
from analysis.papers.explained import explained
from analysis.papers.gsgn.grouping import group
from analysis.papers.gsgn.trainings import training
from analysis.papers.item import Item, Made, Request, Row
from analysis.papers.published import PUBLISHED
from analysis.posterior import log_weights
from analysis.scores import scene_metrics
from inference.images.dataset import Dataset
from inference.runs import Trained
from programs.scene import Scene

DRAWS = 10
"""Draws per image for the ELBO."""
SCENES = 1000
"""Scenes that are drawn for every case."""


@dataclass(frozen=True)
class Selection:
    """Selection of the scenes that are measured."""

    options: Mapping[str, Any] = field(default_factory=dict)
    """further fields of the world's Config, besides those of the training"""
    least: tuple[float, float] = (0, math.inf)
    """range of visible pixels of the least visible part, at 128 x 128, without its end"""


TESTS = {
    "": Selection(),
    "below 100": Selection(least=(0, 100)),
    "100 to 200": Selection(least=(100, 200)),
    "above 200": Selection(least=(200, math.inf)),
    "2 objects": Selection({"min_objects": 2, "max_objects": 2, "without": ()}),
    "4 objects": Selection({"min_objects": 4, "max_objects": 4, "without": ()}),
}
"""Selections by the cases of the published tables."""


def table(name: str, world: str, set_: tuple[str, ...] = ()) -> Item:
    """A table of the paper as an item.

    Args:
        set_: settings of the trainings, as in ``--set``.
    """
    printed = PUBLISHED["gsgn", name]
    trainings = {model: training(model, world, set_) for model in printed.rows}
    return Item(printed.title, trainings, _maker(name))


def _maker(name: str) -> Callable[[Mapping[str, Trained], Request], Made]:
    def make(runs: Mapping[str, Trained], request: Request) -> Made:
        printed, rows = PUBLISHED["gsgn", name], []
        for model in printed.rows:
            run = runs.get(model)
            number = request.scenes or SCENES
            parts = model == "SPACE-P"
            found = measure(run, printed.cases, number, request.seed, parts) if run else {}
            for case in printed.cases:
                measured = found.get(case, {})
                for metric in printed.columns:
                    ours = None if hidden(model, metric) else measured.get(metric)
                    paper = printed.figure(model, metric, case)
                    rows.append(Row(model, metric, ours, paper, case, measured.get("scenes")))
        return Made(tuple(rows))

    return make


def least_visible(truth: Scene) -> torch.Tensor:
    """(B,) pixels of the least visible part, counted as at 128 x 128; infinite without parts."""
    size = truth.image.shape[-1]
    pixels = truth.parts.mask.flatten(2).sum(-1).double() * (128 / size) ** 2
    return pixels.where(truth.parts.present, math.inf).amin(1)


def measure(
    run: Trained, cases: tuple[str, ...], scenes: int, seed: int = 0, parts: bool = False
) -> dict[str, dict[str, float]]:
    """Metrics of a trained row by case; `scenes` in the result is the number of scenes.

    Args:
        scenes: number of scenes drawn for every case; only the selected ones are measured.
        parts: whether the program's only level are parts.
    """
    found: dict[str, dict[str, float]] = {}
    drawn: dict[tuple, tuple[torch.Tensor, Scene, Scene]] = {}
    for case in cases:
        test = TESTS[case]
        key = tuple(test.options.items())
        if key not in drawn:
            drawn[key] = bounded(run, run.unseen(scenes, seed, **test.options), seed, parts)
        elbo, scene, truth = drawn[key]
        rows = selected(truth, test.least)
        found[case] = {"scenes": len(rows)}
        if len(rows):
            found[case] |= scene_metrics(scene[rows], truth[rows])
            found[case]["elbo_per_pixel"] = float(elbo[rows].mean())
    return found


def selected(truth: Scene, between: tuple[float, float]) -> torch.Tensor:
    """(S,) indices of the scenes whose least visible part has a number of pixels in the given range."""
    low, high = between
    least = least_visible(truth)
    return ((least >= low) & ((least < high) | (high == math.inf))).nonzero()[:, 0]


def bounded(
    run: Trained, data: Dataset, seed: int, parts: bool
) -> tuple[torch.Tensor, Scene, Scene]:
    """ELBO (B,) in nats per pixel, the scenes at the guide's mode, and the true ones."""
    x = explained(run, data, seed)
    weights = log_weights(run.program, run.guide, x.images, DRAWS)
    scene = with_masks(group(x.scene) if parts else x.scene)
    return weights.mean(0) / x.images[0, 0].numel(), scene, x.truth


def hidden(model: str, metric: str) -> bool:
    """Whether a metric is meaningless for a model: objects of SPACE-P."""
    return model == "SPACE-P" and metric.startswith("object_")
