"""Validity of sampled scenes: whether they show the chosen number and classes of objects, by a classifier.

ECON (von Kügelgen et al., 2020) shows sampled scenes in pictures only. Here a small net is trained on true
scenes of the world to count the objects of every class, and counts them in scenes of chosen experts
(`Program.arrange`). Experts are named by the classes that they explain. The net's score on true scenes of
the same kind is an upper bound; hidden objects count as chosen in both cases.

Shape legend: B scenes, N slots, K classes, C colours, S pixels per side.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from analysis.posterior import infer
from analysis.posterior.layers import ground
from analysis.scores.classifier import fit, seeded
from inference.images.dataset import Dataset
from inference.images.worlds import load_world
from inference.settings import override
from programs.scene import Scene

SCENES = 4000
"""Scenes of the classifier's training."""
STEPS = 300
"""Steps of the classifier's training, which take half a minute on one slow core."""
BATCH = 64
"""Scenes per step of the classifier's training."""
RATE = 5e-3
"""Peak learning rate of the classifier's training."""
SIDE = 32
"""Largest number of pixels per side of the classifier's input."""
SEED = 0


def judges(data: Dataset) -> bool:
    """Whether the world of these images can draw given numbers of objects with repeats."""
    world = data.description.get("world")
    return world is not None and hasattr(load_world(world).config(), "repeats")


class Counter(nn.Module):
    """Counts the objects of every class in an image, from a sum over its places."""

    def __init__(self, classes: int, most: int, colours: int = 3) -> None:
        super().__init__()
        self.shape = classes, most + 1
        self.features = nn.Sequential(
            nn.Conv2d(colours, 16, 5, stride=2, padding=2), nn.BatchNorm2d(16), nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(16, 48, 3, padding=1), nn.BatchNorm2d(48), nn.ReLU(),
            nn.Conv2d(48, 48, 3, padding=1), nn.ReLU(),
        )  # fmt: skip
        self.out = nn.Sequential(nn.Linear(48, 96), nn.ReLU(), nn.Linear(96, classes * (most + 1)))

    def forward(self, images: Tensor) -> Tensor:
        """(B, C, S, S) in [0, 1] -> logits of the numbers (B, K, most + 1)."""
        x = F.adaptive_avg_pool2d(images, SIDE) if images.shape[-1] > SIDE else images
        return self.out(4 * self.features(x).mean((2, 3))).unflatten(-1, self.shape)

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
    scene = world.scenes(number, torch.Generator().manual_seed(seed), config)
    return scene.image, _histogram(scene.objects.category, len(config.classes))


def counter(data: Dataset, scenes: int = SCENES, steps: int = STEPS) -> Counter:
    """A classifier trained on true scenes of one or more objects, each class at most once, or with
    repeats."""
    most = data.description["config"]["max_objects"] + 1
    kinds = len(data.description["config"]["classes"])
    sets = [
        true_scenes(data, scenes // 2, SEED + k, min_objects=1, max_objects=m, repeats=repeats)
        for k, (m, repeats) in enumerate([(min(kinds, most), False), (most, True)])
    ]
    images, numbers = (torch.cat(parts) for parts in zip(*sets, strict=True))
    net = seeded(lambda: Counter(kinds, most, images.shape[1]), SEED)

    def loss(rows: Tensor) -> Tensor:
        return F.cross_entropy(net(images[rows]).flatten(0, 1), numbers[rows].flatten())

    fit(net, loss, len(images), batch=BATCH, steps=steps, rate=RATE, seed=SEED)
    return net


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
        result[rows] = program.arrange([back, *order], len(rows)).image.cpu()
    return result, chosen


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
    config, some = data.description["config"], slice(0, 100)
    images = torch.as_tensor(data.images[some]).float() / 255
    device = next(program.parameters()).device
    scene = infer(program, guide, images.to(device)).cpu()
    kinds = len(config["classes"])
    named = names(scene, data.truth(some), program.config.experts, kinds)
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
