"""Figures 3 to 9 of the Discrete-AIR paper: graphs with their edges, confusion, attributes varied, steps."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from matplotlib.figure import Figure
from pyro import poutine
from torch import Tensor

from analysis import edit, plots
from analysis.command import aligned
from analysis.papers.explained import explained
from analysis.papers.item import Made, Request, Row
from analysis.scores import category_names, confusion, mse, scene_graph
from inference.runs import Trained
from programs.scene import Scene

LABELS = {
    "multi_sprites": ("square", "triangle", "ellipse"),
    "multi_mnist": tuple(map(str, range(10))),
}
"""Names of each world's categories, in their order."""
NAMING = 200
"""Scenes from which the inferred categories get names."""
SCENES = 1000
"""Scenes of a confusion table and of the errors by step."""
VALUES = (-2.0, -1.0, 0.0, 1.0, 2.0)
"""Values of z_attr, in standard deviations of its prior (figure 7)."""
PAIRS = ((5, 2), (3, 9), (4, 7))
"""Digits that figure 7 draws side by side: the paper's two pairs, and one more."""
APART = 0.45
"""Distance of the two digits from the middle, in the image frame."""

Runs = Mapping[str, Trained]


def graphs(count: int, edges: bool = True) -> Callable[[Runs, Request], Made]:
    """Scenes of each run as graphs in pictures and tables (figures 3, 4 and 5).

    Args:
        count: number of scenes to show, each with at least two objects.
        edges: whether to print the table of edges too.
    """

    def make(runs: Runs, request: Request) -> Made:
        figures, texts = {}, []
        for name, run in runs.items():
            data = run.unseen(request.scenes or NAMING, request.seed)
            x = explained(run, data, request.seed)
            images, scene, names = x.images, x.scene, names_of(run, x.scene, x.truth)
            several = (scene.objects.present.sum(1) >= 2).nonzero()[:count, 0]
            chosen = several if len(several) else torch.arange(min(count, len(scene)))
            figures[file_name(name)] = plots.graph_figure(
                images[chosen], scene[chosen], names, count
            )
            texts.append(f"{name}\n{tables(scene[chosen], names, edges)}")
        return Made((), figures, "\n\n".join(texts))

    return make


def file_name(name: str) -> str:
    """File name of a run's picture."""
    return name.lower().replace(" ", "_")


def tables(scene: Scene, names: Mapping[int, str], edges: bool = True) -> str:
    """Nodes and edges of scenes as text; places, sizes and offsets are fractions of the image's side."""
    graph = scene_graph(scene)
    parts = [graph.node_rows(names), graph.edge_rows() if edges else []]
    return "\n\n".join(aligned(rows) for rows in parts if rows)


def names_of(run: Trained, scene: Scene, truth: Scene) -> dict[int, str]:
    """Names of inferred categories: the true labels to which they correspond best."""
    labels = LABELS[run.config["recipe"]["world"]]
    pairs = category_names(scene.objects, truth.objects)
    return {category: labels[label] for category, label in pairs.items()}


def figure6(runs: Runs, request: Request) -> Made:
    """Shares of each label's objects by inferred category, which show labels in one category; and
    templates."""
    rows, figures, number = [], {}, request.scenes or SCENES
    for name, run in runs.items():
        x = explained(run, run.unseen(number, request.seed), request.seed)
        scene, truth = x.scene, x.truth
        labels, names = LABELS[run.config["recipe"]["world"]], names_of(run, scene, truth)
        kinds = [f"{k}: {names.get(k, 'none')}" for k in range(run.program.config.categories)]
        table = confusion(scene.objects, truth.objects, len(labels), len(kinds))
        for label, counts in zip(labels, table, strict=True):
            total = max(1, int(counts.sum()))
            for kind, count in zip(kinds, counts.tolist(), strict=True):
                rows.append(Row(label, kind, count / total, None, name, number))
        figures[file_name(name)] = plots.matrix_figure(table, labels, kinds)
        figures[f"{file_name(name)}_templates"] = plots.pictures_figure(
            dict(zip(kinds, templates(run.program), strict=True))
        )
    return Made(tuple(rows), figures)


@torch.no_grad()
def templates(program: Callable) -> list[Tensor]:
    """(1, C, h, w) per category: its template, attributes 0."""
    c = program.config
    attributes = torch.zeros(c.categories, c.attributes)
    return list(program.decode(torch.eye(c.categories), attributes).split(1))


def figure7(runs: Runs, request: Request) -> Made:
    """Pairs of digits, with z_attr growing from the top to the bottom."""
    figures = {}
    for name, run in runs.items():
        x = explained(run, run.unseen(request.scenes or NAMING, request.seed), request.seed)
        pairs = category_names(x.scene.objects, x.truth.objects)
        categories = {label: category for category, label in pairs.items()}
        wanted = [pair for pair in PAIRS if {*pair} <= {*categories}]
        columns = {f"{a} {b}": (categories[a], categories[b]) for a, b in wanted}
        columns = columns or {"categories 0 1": (0, 1)}
        figures[file_name(name)] = plots.pictures_figure(
            {title: varied(run.program, pair) for title, pair in columns.items()}
        )
    return Made((), figures, f"z_attr from the top: {', '.join(map(str, VALUES))}")


@torch.no_grad()
def varied(
    program: Callable, categories: Sequence[int], values: Sequence[float] = VALUES
) -> Tensor:
    """(V, C, H, W) scenes of objects of these categories, side by side, with one value for all attributes.

    Raises:
        ValueError: the program has no attributes, or fewer steps than the scenes have objects.
    """
    c, number = program.config, len(values)
    if not c.attributes or len(categories) > c.steps:
        raise ValueError(
            f"attributes={c.attributes}, steps={c.steps}: expected attributes, and steps for "
            f"{len(categories)} objects"
        )
    sites = {}
    places = torch.linspace(-APART, APART, len(categories))
    for t in range(1, c.steps + 1):
        here = t <= len(categories)
        category = categories[t - 1] if here else 0
        where = torch.tensor([0.0, 0.0, float(places[t - 1]) if here else 0.0, 0.0])
        sites[f"z_pres_{t}"] = torch.full((number,), float(here))
        sites[f"z_where_{t}"] = where.expand(number, 4)
        sites[f"z_cat_{t}"] = torch.eye(c.categories)[category].expand(number, -1)
        sites[f"z_theta_{t}"] = torch.zeros(number, c.theta)
        sites[f"z_attr_{t}"] = torch.tensor(values)[:, None].expand(number, c.attributes)
    return poutine.condition(program, data=sites)(batch=number).image


def steps(runs: Runs, request: Request) -> Made:
    """Reconstructions after each step, and their errors (figures 8 and 9)."""
    rows, figures, number = [], {}, request.scenes or SCENES
    for name, run in runs.items():
        _, images, scene = explained(run, run.unseen(number, request.seed), request.seed)
        stages = after_steps(run.program, scene)
        for t, stage in enumerate(stages, 1):
            rows.append(Row(f"after step {t}", "mse", mse(stage, images), None, name, number))
        figures[file_name(name)] = steps_figure(images, scene, stages)
    return Made(tuple(rows), figures)


@torch.no_grad()
def after_steps(program: Callable, scene: Scene) -> list[Scene]:
    """The scene as drawn after each step, the last one whole."""
    slots = torch.arange(scene.objects.pres.shape[1])
    return [
        edit.render(program, edit.keep(scene, (slots <= t).expand_as(scene.objects.present)))
        for t in slots.tolist()
    ]


def steps_figure(images: Tensor, scene: Scene, stages: Sequence[Scene], count: int = 10) -> Figure:
    """Images of the most objects above their reconstructions after each step."""
    order = scene.objects.present.sum(1).argsort(descending=True, stable=True)
    # among scenes with the same number of objects the first ones are shown
    chosen = order[:count].sort()[0]
    rows = {"input": images[chosen]}
    rows |= {f"step {t}": stage.image[chosen] for t, stage in enumerate(stages, 1)}
    return plots.maps_figure(rows)
