"""Validity of sampled scenes: whether they show the chosen number and classes of objects, by a classifier.

ECON (von Kügelgen et al., 2020) shows sampled scenes in pictures only. Here a small net is trained on true
scenes of the world to count the objects of every class, and counts them in scenes of chosen experts
(`Program.arrange`). Experts are named by the classes that they explain. The net's score on true scenes of
the same kind is an upper bound. Scenes in which less than a fourth of an object is seen are left out in both
cases, as nobody can read them. Sampled shapes have ragged edges, so half of the training scenes have them too.

Shape legend: B scenes, N slots, K classes, C colours, S pixels per side.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from analysis.judges.nets import cached_net, fit, seeded
from analysis.posterior import infer
from analysis.posterior.layers import ground
from inference.images.dataset import Dataset
from inference.images.worlds import load_world
from inference.settings import override
from programs.scene import Scene, concatenate

SCENES = 32_000
"""Scenes of the classifier's training."""
STEPS = 8000
"""Steps of the classifier's training, which take four minutes of a core; weights are kept in the cache."""
BATCH = 64
"""Scenes per step of the classifier's training."""
RATE = 3e-3
"""Peak learning rate of the classifier's training."""
SIDE = 32
"""Largest number of pixels per side of the classifier's input."""
SEEN = 0.25
"""Least visible share of each object in the scenes that are counted."""
TINY = 5.0
"""Pixels of a shape that is nothing rather than hidden."""
SEED = 0
"""Seed of the classifier's training, and of the experts that are asked for."""
VERSION = 1
"""Raise this when the training changes: it is part of the cache key of weights, as are the numbers above."""


def judges(data: Dataset) -> bool:
    """Whether the world of these images can draw given numbers of objects with repeats."""
    world = data.description.get("world")
    return world is not None and hasattr(load_world(world).config(), "repeats")


class Counter(nn.Module):
    """Counts the objects of every class in an image."""

    def __init__(self, classes: int, most: int, colours: int = 3) -> None:
        super().__init__()
        self.shape = classes, most + 1
        widths, layers = [colours, 24, 48, 72, 72], []
        for k, (kernel, stride) in enumerate([(5, 2), (3, 1), (3, 2), (3, 2)]):
            conv = nn.Conv2d(widths[k], widths[k + 1], kernel, stride, kernel // 2)
            layers += [conv, nn.BatchNorm2d(widths[k + 1]), nn.ReLU()]
        self.net = nn.Sequential(
            *layers, nn.AdaptiveAvgPool2d(4), nn.Flatten(),
            nn.Linear(16 * widths[-1], 128), nn.ReLU(), nn.Linear(128, classes * (most + 1)),
        )  # fmt: skip

    def forward(self, images: Tensor) -> Tensor:
        """(B, C, S, S) in [0, 1] -> logits of the numbers (B, K, most + 1)."""
        x = F.adaptive_avg_pool2d(images, SIDE) if images.shape[-1] > SIDE else images
        return self.net(x).unflatten(-1, self.shape)

    @torch.no_grad()
    def count(self, images: Tensor) -> Tensor:
        """(B, C, S, S) -> (B, K) the most likely numbers."""
        return torch.cat([self(part).argmax(-1) for part in images.split(200)])


def true_scenes(data: Dataset, number: int, seed: int, **changes: Any) -> tuple[Tensor, Tensor]:
    """Newly drawn images (B, C, S, S) of the data's world, and their numbers of objects per class (B, K).

    Args:
        changes: fields of the world's Config.
    """
    world = load_world(data.description["world"])
    config = override(world.config(), data.description["config"] | changes, world.title)
    generator, parts = torch.Generator().manual_seed(seed), []
    while sum(len(part) for part in parts) < number:
        scene = world.scenes(min(number, 2000), generator, config)
        parts.append(scene[seen(scene)])
    scene = concatenate(parts)[:number]
    return scene.image, _histogram(scene.objects.category, len(config.classes))


def seen(scene: Scene) -> Tensor:
    """(B,) whether a share `SEEN` of each object is visible; an object without a shape is not hidden."""
    nodes = scene.objects
    visible, whole = (m.float().sum((-2, -1)) for m in (nodes.mask, nodes.shape))
    hidden = (whole > TINY) & (visible < SEEN * whole)
    return ~hidden.any(1)


def counter(data: Dataset, scenes: int = SCENES, steps: int = STEPS) -> Counter:
    """A classifier trained on true scenes of one or more objects, each class at most once, or with
    repeats."""
    most = data.description["config"]["max_objects"] + 1
    kinds = len(data.description["config"]["classes"])
    net = seeded(lambda: Counter(kinds, most, data.images.shape[1]), SEED)
    world = {key: data.description[key] for key in ("world", "version", "config")}
    key = {"counter": str(net), "world": str(world), "scenes": scenes, "steps": steps}
    key["training"] = (BATCH, RATE, SEED, VERSION)
    cached_net(net, key, lambda: learn(net, data, scenes, steps))
    return net


def learn(net: Counter, data: Dataset, scenes: int, steps: int) -> None:
    """Train on new scenes of the data's world, mirrored or not, half of the batches with ragged edges."""
    kinds, most = net.shape[0], net.shape[1] - 1
    sets = [
        true_scenes(data, scenes // 2, SEED + k, min_objects=1, max_objects=m, repeats=repeats)
        for k, (m, repeats) in enumerate([(min(kinds, most), False), (most, True)])
    ]
    images, numbers = (torch.cat(parts) for parts in zip(*sets, strict=True))
    generator, count = torch.Generator().manual_seed(SEED), itertools.count()

    def loss(rows: Tensor) -> Tensor:
        mirrored = torch.rand(len(rows), 1, 1, 1, generator=generator) < 0.5
        x = torch.where(mirrored, images[rows].flip(3), images[rows])
        x = ragged(x, generator) if next(count) % 2 else x
        return F.cross_entropy(net(x).flatten(0, 1), numbers[rows].flatten())

    fit(net, loss, len(images), batch=BATCH, steps=steps, rate=RATE, seed=SEED)


def ragged(x: Tensor, generator: torch.Generator) -> Tensor:
    """(B, C, S, S) whose pixels are each that of a random place at most one pixel away."""
    size = x.shape[-1]
    step = torch.randint(-1, 2, (2, len(x), size, size), generator=generator)
    axis = torch.arange(size)
    row, column = (axis[:, None] + step[0]).clamp(0, size - 1), (axis + step[1]).clamp(0, size - 1)
    place = (row * size + column).flatten(1)[:, None].expand(-1, x.shape[1], -1)
    return x.flatten(2).gather(2, place).view_as(x)


def names(scene: Scene, truth: Scene, experts: int, classes: int) -> dict[int, int]:
    """The class of each expert: one to one, so that most pixels that experts explain belong to their classes.

    Experts that explain no part of an object, and surplus experts, have none.

    Args:
        scene: inferred scenes, with masks and categories.
        truth: true scenes of the same images.
    """
    from scipy.optimize import linear_sum_assignment

    common = torch.einsum("bnhw,bmhw->bnm", *(s.objects.mask.float() for s in (scene, truth)))
    one, two = (
        F.one_hot(s.objects.category + 1, n + 1)[..., 1:].float()
        for s, n in ((scene, experts), (truth, classes))
    )
    table = torch.einsum("bnm,bnk,bmc->kc", common, one, two)
    pairs = zip(*linear_sum_assignment(table.numpy(), maximize=True), strict=True)
    return {int(k): int(c) for k, c in pairs if table[k, c] > 0}


@torch.no_grad()
def asked_for(
    program: Callable, named: dict[int, int], objects: int, number: int, repeats: bool
) -> tuple[Tensor, Tensor]:
    """Images (B, C, S, S) of scenes by random experts, and the experts (B, objects).

    Of each order of experts, more scenes are drawn until enough have all their objects in sight.

    Args:
        named: the experts to choose from.
        repeats: whether an expert may be chosen more than once.
    """
    back, experts = ground(program), torch.tensor(sorted(named))
    generator = torch.Generator().manual_seed(SEED)
    if repeats:
        drawn = torch.randint(len(experts), (number, objects), generator=generator)
    else:
        drawn = torch.rand(number, len(experts), generator=generator).argsort(1)[:, :objects]
    chosen = experts[drawn]
    orders, index = chosen.unique(dim=0, return_inverse=True)
    result = torch.empty(number, *program(batch=1).image.shape[1:])
    for k, order in enumerate(orders.tolist()):
        rows = (index == k).nonzero()[:, 0]
        result[rows] = in_sight(program, [back, *order], len(rows))
    return result, chosen


def in_sight(program: Callable, order: list[int], number: int, tries: int = 20) -> Tensor:
    """(B, C, S, S) scenes of an order of experts, the back first, whose objects are in sight.

    After `tries` draws of as many scenes, the others are what was drawn last.
    """
    parts, have = [], 0
    for _ in range(tries):
        scene = program.arrange(order, number).cpu()
        sight = seen(scene)
        parts.append(scene.image[sight])
        have += len(parts[-1])
        if have >= number:
            break
    return torch.cat([*parts, scene.image[~sight]])[:number]


def validity(
    program: Callable, guide: Callable, data: Dataset, number: int = 500, net: Counter | None = None
) -> dict[str, dict[str, float]]:
    """Shares of sampled scenes that show the chosen classes, and of true scenes that are read right.

    There are two kinds of scenes, with the data's number of objects: of different experts, and of random
    experts.

    Args:
        data: scenes with truth; 100 of them give the experts names.
        number: scenes of each kind.
        net: the classifier; None trains one.
    Returns:
        kind -> `count` and `classes`, the shares with the right number of objects, and with the right number of
        every class, and `true_count` and `true_classes`, the same of true scenes.
    Raises:
        ValueError: no expert explains an object.
    """
    config, some = data.description["config"], data.first(100)
    device = next(program.parameters()).device
    scene = infer(program, guide, some.floats(device)).cpu()
    kinds = len(config["classes"])
    named = names(scene, some.truth(), program.config.experts, kinds)
    named.pop(ground(program), None)
    if not named:
        raise ValueError("no expert explains an object: train the program first")
    net = net or counter(data)
    result = {}
    for repeats in (False, True):
        objects = config["max_objects"] if repeats else min(config["max_objects"], len(named))
        shown, chosen = asked_for(program, named, objects, number, repeats)
        asked = _histogram(
            torch.tensor([[named[k] for k in row] for row in chosen.tolist()]), kinds
        )
        same = {"min_objects": objects, "max_objects": objects, "repeats": repeats}
        true, numbers = true_scenes(data, number, SEED + 2, **same)
        found = _agreement(net.count(shown), asked)
        found |= {f"true_{k}": v for k, v in _agreement(net.count(true), numbers).items()}
        result[f"{objects} objects, {'any' if repeats else 'different'} classes"] = found
    return result


def _agreement(found: Tensor, asked: Tensor) -> dict[str, float]:
    right = {"count": found.sum(1) == asked.sum(1), "classes": (found == asked).all(1)}
    return {name: float(ok.double().mean()) for name, ok in right.items()}


def _histogram(category: Tensor, kinds: int) -> Tensor:
    """(B, N), -1 where absent -> (B, K)."""
    return (category[..., None] == torch.arange(kinds)).sum(1)
