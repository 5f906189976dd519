"""Table 1 of the Discrete-AIR paper: numbers of objects and their categories, and the scores of chance.

# differs: the paper reports means over 10 trainings; here each row is one training, with the requested
seed.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace

import pyro
import torch

from analysis.evaluate import floats
from analysis.papers.item import Made, Request, Row, Training
from analysis.papers.published import PUBLISHED
from analysis.posterior import infer
from analysis.scores import category_correspondence, count_accuracy
from inference.images.worlds import load_world, world_dataset
from inference.runs import Trained
from programs.scene import Nodes, Scene

SCENES = 2000
"""Scenes on which each cell is measured."""
CATEGORIES = {"multi_sprites": 3, "multi_mnist": 10}
"""Number of Discrete-AIR's categories in each world, equal to the number of labels."""
SPRITES = Training(
    "discrete_air", "discrete_air", "multi_sprites", shipped="discrete_air-multi_sprites"
)
DIGITS = Training("discrete_air", "discrete_air_mnist", "multi_mnist")
TRAININGS = {
    "Discrete-AIR sprites": SPRITES,
    "Discrete-AIR digits": DIGITS,
    "AIR sprites": Training("air", "air", "multi_sprites"),
    "AIR digits": Training("air", "air", "multi_mnist", shipped="air-multi_mnist"),
}
"""Trainings by model and world."""
BEST = "Discrete-AIR, best of 10"
"""Row with the paper's text about the best training; its table has means."""


def table1(runs: Mapping[str, Trained], request: Request) -> Made:
    """The four cells, and random categories for comparison."""
    printed, number, rows = PUBLISHED["air", "table1"], request.scenes or SCENES, []
    for name, training in TRAININGS.items():
        model, case = name.partition(" ")[0], training.world
        found = measure(runs[name], number, request.seed) if name in runs else {}
        for metric in printed.columns:
            ours, error = found.get(metric, (None, None))
            paper = printed.figure(model, metric, case)
            scenes = number if found else None
            rows.append(Row(model, metric, ours, paper, case, scenes, error))
    metric = "category_correspondence"
    for case in CATEGORIES:
        paper = printed.figure(BEST, metric, case)
        rows.append(Row(BEST, metric, None, paper, case))
        share, error = chance(case, number, request.seed)
        model = "random categories"
        rows.append(Row(model, metric, share, None, case, number, error))
    return Made(tuple(rows))


def measure(run: Trained, scenes: int, seed: int = 0) -> dict[str, tuple[float, float]]:
    """Count accuracy and, with categories, their correspondence at the guide's mode; with standard errors."""
    data = run.unseen(scenes, seed)
    pyro.set_rng_seed(seed)
    scene, truth = infer(run.program, run.guide, floats(data, "cpu")), data.truth()
    share = count_accuracy(scene.objects, truth.objects)
    found = {"object_count_accuracy": (share, standard_error(share, scenes))}
    if scene.objects.category is not None:
        share = category_correspondence(scene.objects, truth.objects)
        number = int(truth.objects.present.sum())
        found["category_correspondence"] = share, standard_error(share, number)
    return found


def standard_error(share: float, number: int) -> float:
    """Standard error of a share of `number` independent cases."""
    return math.sqrt(share * (1 - share) / max(number, 1))


def chance(world: str, scenes: int, seed: int = 0) -> tuple[float, float]:
    """Category correspondence of correct counts with random categories, and its standard error.

    The paper expects 1 / K; the best naming, and labels counted per image, raise it.
    """
    data = world_dataset(world, scenes, "test", seed, load_world(world).config())
    truth = data.truth()
    guess = at_random(truth.objects, CATEGORIES[world], torch.Generator().manual_seed(seed))
    share = category_correspondence(guess, truth.objects)
    return share, standard_error(share, int(truth.objects.present.sum()))


def at_random(nodes: Nodes, categories: int, generator: torch.Generator) -> Nodes:
    """The same nodes in categories drawn uniformly."""
    drawn = torch.randint(categories, nodes.category.shape, generator=generator)
    return replace(nodes, category=drawn.where(nodes.present.cpu(), -1))


def explained(run: Trained, scenes: int, seed: int = 0) -> tuple[torch.Tensor, Scene, Scene]:
    """Unseen images, the scenes at the guide's mode and the true ones."""
    data = run.unseen(scenes, seed)
    images = floats(data, "cpu")
    pyro.set_rng_seed(seed)
    return images, infer(run.program, run.guide, images).cpu(), data.truth()
