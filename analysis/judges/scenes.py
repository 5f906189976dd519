"""Judge whole images: whether an image is a scene of the world, and its number of objects per category.

The net is trained on true scenes, and to refuse broken ones (`analysis.judges.broken`). So it can judge every
program by pictures alone, also programs without objects. Its own errors are measured on unseen scenes. A judge
that passes too few true scenes, or too many broken ones, is not used (`Errors.good`).

Shape legend: B scenes, K categories, C colours, S pixels per side, F features.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from analysis.judges.broken import KINDS, broken
from analysis.judges.nets import cached_net, fit, seeded
from inference.images.dataset import Dataset
from programs.scene import Scene

STEPS = 4000
"""Steps of the net's training."""
BATCH = 64
"""Scenes per step of the net's training; half of them are true."""
RATE = 2e-3
"""Peak learning rate of the net's training."""
SIDE = 48
"""Largest number of pixels per side of the net's input."""
FEATURES = 96
"""F, the number of the net's features."""
PASS_TRUE = 0.95
"""Least share of true scenes that a good judge passes."""
PASS_BROKEN = 0.05
"""Largest share of broken scenes that a good judge passes."""
APART = 500
"""Training scenes that are held out to choose the judge's threshold."""
REFUSED = 0.03
"""Share of these scenes that the judge refuses."""
SHARES = ("halves", *KINDS, "halves", "warped")
"""Kinds of the broken scenes in a batch, in equal numbers per entry; repeated kinds are the hardest."""
SEED = 0
"""Seed of the net's training."""
VERSION = 1
"""Raise this when the training changes: it is part of the cache key of weights, as are the numbers above on
which they depend."""


class SceneNet(nn.Module):
    """Whether an image is a scene of the world, and how many objects of every category it shows.

    Args:
        categories: K.
        most: largest number of objects of one category in a scene.
    """

    def __init__(self, size: int, colours: int, categories: int, most: int) -> None:
        super().__init__()
        self.side, self.counts = min(size, SIDE), (categories, most + 1)
        cells = (-(-self.side // 8)) ** 2
        self.trunk = nn.Sequential(
            nn.Conv2d(colours, 24, 5, stride=2, padding=2), nn.GroupNorm(8, 24), nn.ReLU(),
            nn.Conv2d(24, 48, 3, stride=2, padding=1), nn.GroupNorm(8, 48), nn.ReLU(),
            nn.Conv2d(48, 48, 3, padding=1), nn.GroupNorm(8, 48), nn.ReLU(),
            nn.Conv2d(48, 64, 3, stride=2, padding=1), nn.GroupNorm(8, 64), nn.ReLU(),
            nn.Flatten(), nn.Linear(64 * cells, FEATURES), nn.ReLU(),
        )  # fmt: skip
        self.valid = nn.Linear(FEATURES, 1)
        self.count = nn.Linear(FEATURES, categories * (most + 1))

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """(B, C, S, S) in [0, 1] -> logits (B,) of being a scene, and (B, K, most + 1) of the numbers."""
        seen = self.trunk(self.shrunk(images))
        return self.valid(seen).squeeze(-1), self.count(seen).unflatten(-1, self.counts)

    def shrunk(self, images: Tensor) -> Tensor:
        """Images of at most `SIDE` pixels per side."""
        if images.shape[-1] == self.side:
            return images
        return F.adaptive_avg_pool2d(images, self.side)


class Reading(NamedTuple):
    """The net's verdicts on images."""

    valid: Tensor
    """(B,) bool"""
    numbers: Tensor
    """(B, K) number of objects of each category"""
    features: Tensor
    """(B, F)"""


@torch.no_grad()
def read(net: SceneNet, images: Tensor, sure: float = 0.0) -> Reading:
    """The net's verdicts on images (B, C, S, S) in [0, 1]; valid ones have a logit above `sure`."""
    parts = []
    for x in images.cpu().clamp(0, 1).split(200):
        seen = net.trunk(net.shrunk(x))
        numbers = net.count(seen).unflatten(-1, net.counts).argmax(-1)
        parts.append((net.valid(seen).squeeze(-1) > sure, numbers, seen))
    return Reading(*(torch.cat(column) for column in zip(*parts, strict=True)))


class Errors(NamedTuple):
    """Errors of a judge, on scenes on which it was not trained."""

    true: float
    """share of true scenes that pass"""
    broken: float
    """share of broken scenes that pass"""
    number: float
    """share of true scenes whose number of objects is read right"""

    @property
    def good(self) -> bool:
        """Whether shares of valid scenes by this judge are meaningful."""
        return self.true >= PASS_TRUE and self.broken <= PASS_BROKEN


@dataclass(frozen=True)
class Judge:
    """A trained net and its errors."""

    net: SceneNet
    sure: float
    """logit from which a scene is valid"""
    errors: Errors

    def read(self, images: Tensor) -> Reading:
        """The net's verdicts on images (B, C, S, S)."""
        return read(self.net, images, self.sure)


def histogram(truth: Scene, categories: int) -> Tensor:
    """(B, K) number of objects of every category; without categories K = 1 counts all objects."""
    nodes = truth.objects
    category = nodes.category if nodes.category is not None else torch.zeros_like(nodes.parent)
    category = category.where(nodes.present, -1) if categories > 1 else -1 + nodes.present.long()
    return (category[..., None] == torch.arange(categories)).sum(1)


def judge(lesson: Dataset, data: Dataset) -> Judge:
    """A judge that is trained on one set of true scenes and whose errors are measured on another.

    Raises:
        ValueError: the images have no truth.
    """
    if not (lesson.known and data.known):
        raise ValueError(
            "scenes are judged in worlds, where the truth is known; these are a folder's"
        )
    nodes = lesson.truth(slice(0, 500)).objects
    categories = 1 if nodes.category is None else 1 + int(nodes.category.max())
    most = int(histogram(lesson.truth(slice(0, 500)), categories).max())
    size, colours = lesson.images.shape[-1], lesson.images.shape[1]
    net = seeded(lambda: SceneNet(size, colours, categories, most), SEED)
    key = {"net": str(net), "images": len(lesson.images), "world": str(lesson.description)}
    key["training"] = (STEPS, BATCH, RATE, SIDE, APART, SEED, VERSION, SHARES)
    number = len(lesson.images)
    apart = min(APART, number // 4)
    cached_net(net, key, lambda: learn(net, lesson.first(number - apart), categories))
    sure = threshold(net, lesson.truth(slice(number - apart, number)).image)
    return Judge(net, sure, errors(net, data.truth(), categories, sure))


@torch.no_grad()
def threshold(net: SceneNet, images: Tensor) -> float:
    """The logit that a share `REFUSED` of true images (B, C, S, S) does not reach."""
    logits = torch.cat([net(x)[0] for x in images.split(200)])
    return float(logits.quantile(REFUSED))


def learn(net: SceneNet, lesson: Dataset, categories: int) -> None:
    """Train on equal numbers of true and broken scenes; a third of batches are blurred, as samples are."""
    generator = torch.Generator().manual_seed(SEED)
    blur = itertools.cycle([False, False, True])

    def loss(rows: Tensor) -> Tensor:
        truth = lesson.truth(rows)
        x = torch.cat([truth.image, every_kind(truth, generator)])
        x = F.avg_pool2d(x, 3, 1, 1, count_include_pad=False) if next(blur) else x
        x = (x + 0.02 * torch.randn(x.shape, generator=generator)).clamp(0, 1)
        valid, numbers = net(x)
        right = (torch.arange(len(x)) < len(rows)).float()
        counted = numbers[: len(rows)].flatten(0, 1)
        wanted = histogram(truth, categories).clamp(max=net.counts[1] - 1).flatten()
        return F.binary_cross_entropy_with_logits(valid, right) + F.cross_entropy(counted, wanted)

    number = len(lesson.images)
    fit(net, loss, number, batch=BATCH // 2, steps=STEPS, rate=RATE, seed=SEED)


def every_kind(truth: Scene, generator: torch.Generator) -> Tensor:
    """Images of broken scenes, each kind made from its share of the true ones; some may be left out."""
    parts = [broken(truth[k :: len(SHARES)], kind, generator) for k, kind in enumerate(SHARES)]
    return torch.cat([x[sure] for x, sure in parts])


def errors(net: SceneNet, truth: Scene, categories: int, sure: float) -> Errors:
    """Errors of a judge on true scenes, and on the same scenes broken in every way."""
    generator = torch.Generator().manual_seed(SEED + 1)
    wrong = [x[sure] for x, sure in (broken(truth, kind, generator) for kind in KINDS)]
    found = read(net, truth.image, sure)
    right = found.numbers.sum(1) == histogram(truth, categories).sum(1)
    return Errors(
        float(found.valid.double().mean()),
        float(read(net, torch.cat(wrong), sure).valid.double().mean()),
        float(right.double().mean()),
    )
