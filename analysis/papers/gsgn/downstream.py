"""GSGN's downstream task (figure 6): the number of labels that a classifier needs on a run's latents.

The label of an image is the number of different shapes among the parts of an object, summed over its
objects. The guide's mode gives the appearance of each node (``z_what``, with ``z_cat`` and ``z_attr`` if
there are any); a net predicts the labels from these alone. Its input is one of three views:

    tree     the parts, within the object that they belong to (GSGN)
    objects  every object's own appearance (SPACE-O)
    parts    the parts, without the object that they belong to, which measures the value of the tree

In the view `tree`, a graph net within each object (Battaglia et al., 2018) makes one vector of its parts;
these pass an MLP and are summed with learned weights; another MLP makes the logits. In the other views a
graph is a single node, so all views have the same nets.

# differs: the paper gives neither the size of its nets, nor the length of training, nor how weights depend
on objects. Here the best weights on the validation images are kept, and an object's weight is a linear
function of it.

Shape legend: B images, N nodes of a level, O graphs per image, K nodes per graph, D features, H hidden
features.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pyro
import torch
from pyro.poutine import Trace
from torch import Tensor, nn
from torch.nn import functional as F

from analysis import plots
from analysis.judges.latents import appearance
from analysis.judges.nets import fit, seeded
from analysis.papers.gsgn.trainings import training
from analysis.papers.item import Item, Made, Request, Row
from analysis.papers.published import PUBLISHED
from analysis.posterior import modes
from analysis.scores import owners
from inference.images.dataset import Dataset
from inference.runs import Trained
from programs.blocks.nets import mlp, where_present
from programs.scene import Scene

LABELS = (64, 128, 256, 512, 1024, 2048, 4096, 8192, 16000)
"""Numbers of labelled images."""
SCENES = 12_800
"""Number of validation scenes, and also of test scenes."""
STEPS = 1000
"""Steps of a classifier's training."""
VIEWS = {"GSGN": ("tree", "parts"), "SPACE-O": ("objects",)}
"""Views of each model."""
RATES = (1e-3, 3e-3, 1e-2)
"""Peak learning rates to choose from."""
BATCH, HIDDEN = 128, 64
PASS = 1000
"""Images in memory as floats."""
CHECKS = 20
"""Number of evaluations on the validation images in a training."""
ACCURACIES = 50
"""Number of accuracies at which two curves are compared, within their common range."""


@dataclass(frozen=True)
class Graphs:
    """A classifier's input: nodes in graphs with the same number of slots."""

    what: Tensor
    """(B, O, K, D) appearances"""
    there: Tensor
    """(B, O, K) bool"""

    def __getitem__(self, index: slice | Tensor) -> Graphs:
        return Graphs(self.what[index], self.there[index])


@dataclass(frozen=True)
class Seen:
    """A guide's latents of the nodes of one level."""

    what: Tensor
    """(B, N, D)"""
    there: Tensor
    """(B, N) bool"""
    owner: Tensor
    """(B, N) int64 object from which the node descends; an object is its own owner"""

    def apart(self) -> Graphs:
        """Graphs of one node each."""
        return Graphs(self.what.unsqueeze(2), self.there.unsqueeze(2))

    def together(self, objects: int) -> Graphs:
        """One graph per object, with the present nodes that descend from it."""
        member = (self.owner[..., None] == torch.arange(objects)) & self.there[..., None]
        place = member.cumsum(1) - 1  # (B, N, O) index among the object's nodes
        image, node = self.there.nonzero(as_tuple=True)
        graph = self.owner[image, node]
        slot = image, graph, place[image, node, graph]
        shape = len(self.what), objects, max(1, int(member.sum(1).max()))
        what, there = self.what.new_zeros(*shape, self.what.shape[-1]), torch.zeros(shape).bool()
        what[slot], there[slot] = self.what[image, node], True
        return Graphs(what, there)


def distinct_shapes(truth: Scene) -> Tensor:
    """(B,) int64 the labels: number of different categories of an object's parts, summed over objects.

    Raises:
        ValueError: the truth has no parts, or they have no categories.
    """
    parts = truth.parts
    if parts is None or parts.category is None:
        raise ValueError(
            "the labels count shapes of parts, and this world's truth has none: give runs of a world "
            "with objects and parts, such as shapes2d"
        )
    objects, kinds = truth.objects.pres.shape[1], max(1, int(parts.category.max()) + 1)
    pair = (owners(truth) * kinds + parts.category).where(parts.present, objects * kinds)
    seen = torch.zeros(len(truth), objects * kinds + 1, dtype=torch.int64)
    return seen.scatter_(1, pair, 1)[:, :-1].sum(1)


@torch.no_grad()
def read(program: Callable, guide: Callable, data: Dataset) -> list[Seen]:
    """The guide's mode for images: latents of the objects and, if there are any, of the parts.

    Raises:
        ValueError: the program returns no Scene with objects.
    """
    chunks = []
    for images in data.images.split(PASS):
        for scene, trace in modes(program, guide, images.float() / 255):
            if not isinstance(scene, Scene) or not scene.levels:
                raise ValueError("the program returns no objects: give a run of one that does")
            chunks.append([_seen(scene, trace, n) for n in sorted({1, len(scene.levels)})])
    return [
        Seen(*(torch.cat([getattr(c, f) for c in column]) for f in ("what", "there", "owner")))
        for column in zip(*chunks, strict=True)
    ]


def _seen(scene: Scene, trace: Trace, level: int) -> Seen:
    there = scene.levels[level - 1].present.cpu()
    owner = owners(scene) if level > 1 else torch.arange(there.shape[1]).expand(there.shape)
    return Seen(appearance(trace, level, there.shape[1]).cpu(), there, owner)


def view(seen: Sequence[Seen], name: str, lesson: slice = slice(None)) -> Graphs:
    """The standardised input of a classifier in the view of that name.

    Args:
        lesson: the training images, over whose nodes it is standardised.
    Raises:
        ValueError: a view of parts without parts, or nodes that are nearly all absent.
    """
    if name != "objects" and len(seen) == 1:
        raise ValueError(f"view {name!r} needs parts, and the program has none: give 'objects'")
    level = seen[0] if name == "objects" else seen[-1]
    graphs = level.together(seen[0].there.shape[1]) if name == "tree" else level.apart()
    nodes = graphs.what[lesson][graphs.there[lesson]]
    if len(nodes) < 2:
        raise ValueError("the guide finds next to nothing in these images: train the run first")
    scale = nodes.std(0).clamp(min=1e-6)
    return Graphs((graphs.what - nodes.mean(0)) / scale, graphs.there)


class GraphNet(nn.Module):
    """One round of messages between all nodes of a graph, then the sum of the nodes."""

    def __init__(self, features: int, hidden: int) -> None:
        super().__init__()
        self.node = mlp(features, [hidden], hidden)
        self.message = mlp(2 * hidden, [hidden], hidden)
        self.update = mlp(2 * hidden, [hidden], hidden)

    def forward(self, graphs: Graphs) -> Tensor:
        """(B, O, K, D) -> (B, O, H), independent of the order of nodes and of the values in empty slots."""
        there = graphs.there.float()
        node = where_present(there, self.node, graphs.what)
        number = node.shape[-2]
        to, of = node.unsqueeze(-2), node.unsqueeze(-3)
        pairs = torch.cat(torch.broadcast_tensors(to, of), -1)
        edge = there[..., :, None] * there[..., None, :] * (1 - torch.eye(number))
        received = (where_present(edge, self.message, pairs) * edge[..., None]).sum(-2)
        updated = where_present(there, self.update, torch.cat([node, received], -1))
        return (updated * there[..., None]).sum(-2)


class Classifier(nn.Module):
    """Logits of the labels from the graphs of an image, independent of their order."""

    def __init__(self, features: int, classes: int, hidden: int = HIDDEN) -> None:
        super().__init__()
        self.graph = GraphNet(features, hidden)
        self.object = mlp(hidden, [hidden], hidden)
        self.weight = nn.Linear(hidden, 1)
        nn.init.ones_(self.weight.bias)  # begins as a sum: near 0 it would learn slowly
        self.out = mlp(hidden, [hidden], classes)

    def forward(self, graphs: Graphs) -> Tensor:
        """(B, O, K, D) -> (B, classes)."""
        objects = self.object(self.graph(graphs))
        weight = self.weight(objects) * graphs.there.any(-1, keepdim=True)
        return self.out((weight * objects).sum(-2))

    @torch.no_grad()
    def accuracy(self, graphs: Graphs, labels: Tensor) -> float:
        """Share of the images whose most likely label is the true one (B,)."""
        parts = torch.arange(len(labels)).split(1000)
        found = torch.cat([self(graphs[part]).argmax(-1) for part in parts])
        return float((found == labels).double().mean())


class Split(NamedTuple):
    """Images as graphs, and their labels (B,)."""

    graphs: Graphs
    labels: Tensor

    def first(self, number: int) -> Split:
        """The first images."""
        return Split(self.graphs[:number], self.labels[:number])


def learn(
    train: Split, validation: Split, classes: int, rate: float, steps: int, seed: int
) -> tuple[float, Classifier]:
    """A classifier at its best on the validation images, and its accuracy there."""
    net = seeded(lambda: Classifier(train.graphs.what.shape[-1], classes), seed)
    best, weights = -1.0, net.state_dict()

    def loss(rows: Tensor) -> Tensor:
        return F.cross_entropy(net(train.graphs[rows]), train.labels[rows])

    def keep_the_best(step: int) -> None:
        nonlocal best, weights
        if step % max(1, steps // CHECKS) == 0:
            accuracy = net.accuracy(*validation)
            if accuracy > best:
                best = accuracy
                weights = {name: t.clone() for name, t in net.state_dict().items()}

    numbers = {"batch": BATCH, "steps": steps, "rate": rate, "seed": seed, "decay": 0.0}
    fit(net, loss, len(train.labels), **numbers, after=keep_the_best)
    net.load_state_dict(weights)
    return best, net


def curve(
    train: Split, validation: Split, test: Split, sizes: Sequence[int], steps: int, seed: int
) -> Iterator[dict]:
    """Accuracy on the test images per number of labels, at the best learning rate on the validation images.

    Yields:
        One row per number: labels, rate, validation, accuracy.
    """
    classes = 1 + max(int(split.labels.max()) for split in (train, validation, test))
    for size in sizes:
        some = train.first(size)
        tried = {rate: learn(some, validation, classes, rate, steps, seed) for rate in RATES}
        rate = max(tried, key=lambda r: tried[r][0])
        best, net = tried[rate]
        accuracy = net.accuracy(*test)
        yield {"labels": size, "rate": rate, "validation": best, "accuracy": accuracy}


def labels_ratio(points: dict[int, float], others: dict[int, float]) -> float:
    """Factor of labels that `others` need relative to `points` for the same accuracy.

    It is a geometric mean over the accuracies that both reach. The curves are made monotone, and
    interpolated in the logarithm of the labels. NaN if they share no accuracy.

    Args:
        points, others: labels -> accuracy.
    """
    (x, y), (u, v) = (_rising(curve) for curve in (points, others))
    low, high = max(y[0], v[0]), min(y[-1], v[-1])
    if not low < high:
        return float("nan")
    shared = np.linspace(low, high, ACCURACIES)
    return float(np.exp(np.mean(np.interp(shared, v, u) - np.interp(shared, y, x))))


def _rising(points: dict[int, float]) -> tuple[np.ndarray, np.ndarray]:
    """Logarithms of the labels, and accuracies that strictly rise: sizes that gain nothing are left out."""
    kept: list[tuple[float, float]] = []
    for labels, accuracy in sorted(points.items()):
        if not kept or accuracy > kept[-1][1]:
            kept.append((float(np.log(labels)), accuracy))
    x, y = zip(*kept, strict=True)
    return np.array(x), np.array(y)


def study(
    run: Trained, views: Sequence[str], sizes: Sequence[int], scenes: int, steps: int, seed: int
) -> Iterator[dict]:
    """All rows of one run, as they are measured: view, and the entries of `curve`.

    Unseen scenes of the run's world are split: `scenes` for tests, `scenes` for validation, the rest for
    training.

    Raises:
        ValueError: the run's world has no parts, or the run has no such view.
    """
    pyro.set_rng_seed(seed)
    total = 2 * scenes + max(sizes)
    data = run.unseen(total, seed)
    if data.labels is None:
        raise ValueError(
            f"{run.folder} was trained on pictures without truth, which have no labels"
        )
    starts = range(0, total, PASS)
    labels = torch.cat([distinct_shapes(data.truth(slice(k, k + PASS))) for k in starts])
    seen = read(run.program, run.guide, data)
    for name in views:
        cuts = slice(2 * scenes, None), slice(scenes, 2 * scenes), slice(scenes)
        graphs = view(seen, name, lesson=cuts[0])
        splits = [Split(graphs[cut], labels[cut]) for cut in cuts]
        for row in curve(*splits, sizes, steps, seed):
            yield {"view": name, **row}


def figure6(world: str) -> Item:
    """Accuracy by number of labels, for GSGN's tree and SPACE-O's objects."""
    title = PUBLISHED["gsgn", "figure6"].title
    return Item(title, {model: training(model, world) for model in VIEWS}, make)


def make(runs: Mapping[str, Trained], request: Request) -> Made:
    """One curve per view, and the labels that each needs relative to the first."""
    scenes = request.scenes or SCENES
    sizes = [n for n in LABELS if n <= LABELS[-1] / SCENES * scenes] or [scenes]
    curves: dict[str, dict[int, float]] = {}
    for model, run in runs.items():
        for row in study(run, VIEWS[model], sizes, scenes, STEPS, request.seed):
            line = curves.setdefault(f"{model}: {row['view']}", {})
            line[row["labels"]] = row["accuracy"]
    figure = plots.labels_figure(
        [
            {"name": name, "labels": labels, "accuracy": accuracy}
            for name, points in curves.items()
            for labels, accuracy in points.items()
        ]
    )
    return Made(tuple(rows(curves, scenes)), {"accuracy": figure})


def rows(curves: Mapping[str, Mapping[int, float]], scenes: int) -> Iterator[Row]:
    """Rows of accuracies, and of labels needed relative to the first curve."""
    printed, first = PUBLISHED["gsgn", "figure6"], next(iter(curves.values()))
    for name, points in curves.items():
        for labels, accuracy in points.items():
            yield Row(name, f"{labels} labels", accuracy, case="accuracy", scenes=scenes)
    for name, points in curves.items():
        model, _, seen = name.partition(": ")
        paper = printed.figure(model, "labels_needed") if seen != "parts" else None
        ratio = labels_ratio(dict(first), dict(points))
        ours = None if math.isnan(ratio) else ratio
        yield Row(name, "labels_needed", ours, paper, "times GSGN's labels", scenes)
