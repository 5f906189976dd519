"""Table 1 of the Discrete-AIR paper: numbers of objects and their categories, and the scores of chance.

# differs: the paper reports means over 10 trainings, and its text the best categories of them. Ours are over
`SEEDS` trainings, or those that there are; a line says how many. The training of the highest ELBO on other
unseen scenes, which needs no labels, has a row of its own.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace

import pyro
import torch

from analysis.evaluate import graph_metrics
from analysis.papers.explained import explained
from analysis.papers.item import Made, Request, Row, Training
from analysis.papers.published import PUBLISHED
from analysis.posterior import log_weights
from analysis.scores import category_correspondence, count_accuracy
from inference.images.worlds import load_world, world_dataset
from inference.runs import Trained
from programs.scene import Nodes

SCENES = 2000
"""Scenes on which each cell is measured."""
CATEGORIES = {"multi_sprites": 3, "multi_mnist": 10}
"""Number of Discrete-AIR's categories in each world, equal to the number of labels."""
SPRITES = Training(
    "discrete_air", "discrete_air", "multi_sprites", shipped="discrete_air-multi_sprites"
)
DIGITS = Training(
    *("discrete_air", "discrete_air_mnist", "multi_mnist"),
    shipped="discrete_air-multi_mnist",
    finish="finish",
)
CELLS = {
    "Discrete-AIR sprites": SPRITES,
    "Discrete-AIR digits": DIGITS,
    "AIR sprites": Training("air", "air", "multi_sprites", quick="long"),
    "AIR digits": Training("air", "air", "multi_mnist", quick="long", shipped="air-multi_mnist"),
}
"""The first training of each cell, by model and world."""
SEEDS = 3
"""Trainings of each cell."""


def seeds(name: str, number: int = SEEDS) -> list[str]:
    """Names of the trainings of a cell."""
    return [name, *(f"{name}, seed + {k}" for k in range(1, number))]


def trainings(cells: Mapping[str, Training], number: int = SEEDS) -> dict[str, Training]:
    """The trainings of all cells, by name, with consecutive seeds; first seeds come first."""
    first, others = dict(cells), {}
    for name, training in cells.items():
        for k, label in enumerate(seeds(name, number)[1:], 1):
            others[label] = replace(training, seed=k, shipped=None, name=name)
    return first | others


TRAININGS = trainings(CELLS)
APART = {
    "Discrete-AIR apart": replace(SPRITES, set=("world.overlap=0.001",), shipped=None),
}
"""Multi-Sprites whose objects share no pixel; the paper does not say how much its own overlap."""
BEST = "Discrete-AIR, best of 10"
"""Row with the paper's text about the best training; its table has means."""
BOUND = "Discrete-AIR, highest ELBO"
"""Row of the training whose ELBO is highest."""
CATEGORY = "category_correspondence"


def table1(runs: Mapping[str, Trained], request: Request) -> Made:
    """The four cells, the best trainings, and random categories for comparison."""
    number, rows, said = request.scenes or SCENES, [], []
    for name, training in CELLS.items():
        own = [runs[label] for label in seeds(name) if label in runs]
        found = [measure(run, number, request.seed) for run in own]
        rows += cell_rows(name, training.world, found, number)
        said += [f"{name}: {len(own)} of {SEEDS} trainings"]
        if training.variant != "air":
            rows += best_rows(training.world, own, found, request, number)
    for case in CATEGORIES:
        share, error = chance(case, number, request.seed)
        rows.append(Row("random categories", CATEGORY, share, None, case, number, error))
    return Made(tuple(rows), text="\n".join(said))


def apart(runs: Mapping[str, Trained], request: Request) -> Made:
    """Sprites that do not overlap, beside the paper's numbers for its own set."""
    printed, rows, number = PUBLISHED["air", "table1"], [], request.scenes or SCENES
    for run in runs.values():
        pyro.set_rng_seed(request.seed)
        found = graph_metrics(run.program, run.guide, run.unseen(number, request.seed), "cpu")
        for metric in (*printed.columns, "ap50"):
            known = metric in printed.columns
            paper = printed.figure("Discrete-AIR", metric, "multi_sprites") if known else None
            rows.append(Row("Discrete-AIR", metric, found[metric], paper, "no overlap", number))
    return Made(tuple(rows))


def cell_rows(
    name: str, case: str, found: list[dict[str, tuple[float, float]]], number: int
) -> list[Row]:
    """Means over the trainings of a cell, beside the paper's; a metric that was not measured is None."""
    printed, model = PUBLISHED["air", "table1"], name.partition(" ")[0]
    rows = []
    for metric in printed.columns:
        values = [one[metric] for one in found if metric in one]
        ours, error = mean(values) if values else (None, None)
        paper = printed.figure(model, metric, case)
        rows.append(Row(model, metric, ours, paper, case, number if values else None, error))
    return rows


def mean(values: list[tuple[float, float]]) -> tuple[float, float]:
    """Mean of trainings' shares, and its standard error: between trainings, or a single one's own."""
    shares = torch.tensor([share for share, _ in values], dtype=torch.float64)
    if len(shares) == 1:
        return values[0]
    return float(shares.mean()), float(shares.std() / math.sqrt(len(shares)))


def best_rows(
    case: str,
    runs: list[Trained],
    found: list[dict[str, tuple[float, float]]],
    request: Request,
    number: int,
) -> list[Row]:
    """Categories of the best training, and of that of the highest ELBO; None where there is only one."""
    best, bound = (None, None), (None, None)
    if len(runs) > 1:
        best = max(one[CATEGORY] for one in found)
        bounds = [bound_of(run, request.seed) for run in runs]
        bound = found[bounds.index(max(bounds))][CATEGORY]
    paper = PUBLISHED["air", "table1"].figure(BEST, CATEGORY, case)
    scenes = number if len(runs) > 1 else None
    return [
        Row(BEST, CATEGORY, best[0], paper, case, scenes, best[1]),
        Row(BOUND, CATEGORY, bound[0], None, case, scenes, bound[1]),
    ]


def bound_of(run: Trained, seed: int, scenes: int = 200, draws: int = 5) -> float:
    """ELBO in nats per image, on unseen scenes of the next seed, so not on those of the table."""
    images = run.unseen(scenes, seed + 1).floats()
    pyro.set_rng_seed(seed)
    return float(log_weights(run.program, run.guide, images, draws).mean())


def measure(run: Trained, scenes: int, seed: int = 0) -> dict[str, tuple[float, float]]:
    """Count accuracy and, with categories, their correspondence at the guide's mode; with standard errors."""
    x = explained(run, run.unseen(scenes, seed), seed)
    scene, truth = x.scene, x.truth
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
