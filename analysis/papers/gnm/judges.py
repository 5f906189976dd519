"""Judges that decide whether an image has its world's structure, by the world's rule (GNM's S-Acc).

The paper classified 250 images per model by hand as right or wrong in structure, whatever their quality.
Here the rule is the world's `obeys`, and nets trained on true digits or rooms read the scene from the
image. A judge makes errors: always show its verdict on true scenes, and on scenes that break the rule in
one place (``lawful=False``), beside its verdict on a program's.

Digits (`mnist4`, `mnist10`, `mnist4_10`): objects are connected components of pixels brighter than `LEVEL`,
or a program's own segments. Fragments that fit into one digit's box together are one digit, and components
longer than `LONG` are cut where there is least ink. A classifier, trained on the digits of the world's
training split, names them. A digit may be read as any class of at least `READABLE` probability, which
accepts doubtful digits; with ``strict`` only as the most likely class.

Arrow rooms: one net reads the shapes at the left, in the middle and at the right, and the angle by which
the arrow misses each. It is trained on rooms without the rule; with the rule it could guess the arrow from
the shapes.

Trained nets are kept in the cache.

Shape legend: B images, N slots, M digits, S pixels per side of an image, s of a digit.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from analysis.judges.nets import cached_net, fit, seeded
from analysis.scores import segments
from inference.images.dataset import Dataset
from inference.images.worlds import load_world, world_dataset
from inference.settings import override
from programs.blocks import render
from programs.scene import Nodes, Scene
from programs.worlds import arrow_room, mnist4_10
from programs.worlds.made_of.digits import SIDE, digits, resizing

GRID = mnist4_10.GRID
LEVEL = 0.3
"""Least brightness of a component."""
FIT = 20.0
"""Side of a digit's box at 128 x 128, without the 2 pixels added at any size."""
LONG = 28.0
"""Side from which a component at 128 x 128 is too long for one digit."""
LEAST = 16.0
"""Least area of a digit at 128 x 128."""
READABLE = 0.05
"""Least probability of a class as which a digit may be read."""
COMBINATIONS = 256
"""Largest number of readings of a scene; scenes with more fail."""
STEPS = {"mnist": 1500, "embedded": 400}
"""Training steps of the digits' classifier, by source."""
BATCH = 128
"""Digits per training step."""
RATE = 4e-3
"""Peak learning rate of both nets."""
TURN = 0.13
"""Standard deviation of a digit's rotation in training, in radians."""
STRETCH = 0.07
"""Standard deviation of the logarithm of a digit's stretch in training."""
SHIFT = 0.04
"""Standard deviation of a digit's shift in training, in half-sides."""
WIDER = {"mnist": 1.0, "embedded": 1.5}
"""Factor of the three above, by source; the embedded set is small and overfits."""
ROOMS = 4000
"""Training scenes of the net of arrow rooms."""
ROOM_STEPS = 1200
"""Training steps of the net of arrow rooms."""
ROOM_BATCH = 64
"""Rooms per training step."""
ROOM_SIDE = 64
"""Pixels per side of the net's input."""
MISS = math.radians(15)
"""Largest angle by which an arrow may miss: half the least angle between two objects."""
SEED = 0
"""Seed of the trainings."""
VERSION = 1
"""Raise this when the training changes: it is part of the cache key of weights, as are the numbers above."""

StructureJudge = Callable[[Tensor], Tensor]
"""Whether an image has the structure of its world: from images (B, C, S, S) in [0, 1] to (B,) bool."""


def judges(data: Dataset) -> bool:
    """Whether there is a judge of this world's structure."""
    world = data.description.get("world")
    return world is not None and hasattr(load_world(world).config(), "lawful")


def judge(data: Dataset) -> StructureJudge:
    """The judge of a data set's world, trained now or loaded from the cache.

    Raises:
        ValueError: there is none for this world.
    """
    if not judges(data):
        raise ValueError(
            "structure is judged in the worlds mnist4, mnist10, mnist4_10 and arrow_room; this run has "
            f"{data.description.get('world', 'pictures of a folder')}"
        )
    name, config = data.description["world"], data.description["config"]
    if name == "arrow_room":
        key = {"rooms": (ROOMS, ROOM_STEPS, ROOM_BATCH, ROOM_SIDE), "world": arrow_room.VERSION}
        key |= {"config": config}
        net = RoomNet()
        cached_net(net, _key(net, key), lambda: learn_rooms(net, config))
        return Rooms(net)
    rules = load_world(name).config(layouts=tuple(config["layouts"]))
    obeys = partial(mnist4_10.obeys, config=rules)
    return Digits(reader(config["digits"], config["size"]), obeys)


def broken(data: Dataset, number: int, seed: int) -> Tensor:
    """Images (B, C, S, S) of the data's world that break its rule; a judge should refuse all of them."""
    world = load_world(data.description["world"])
    options = override(world.config(), data.description["config"] | {"lawful": False}, world.title)
    drawn = world_dataset(data.description["world"], 2 * number, "test", seed, options)
    obeys = world.module.obeys(drawn.truth().objects, options)
    return drawn.floats()[~obeys][:number]


def _key(net: nn.Module, about: dict[str, Any]) -> dict[str, Any]:
    """What the weights of a net depend on: `about`, and what is the same for all nets."""
    return about | {"net": str(net), "rate": RATE, "seed": SEED, "version": VERSION}


# digits


class Reader(nn.Module):
    """Classifier of digits."""

    def __init__(self) -> None:
        super().__init__()
        make = lambda: nn.Sequential(  # noqa: E731
            nn.Conv2d(1, 16, 5, padding=2), nn.BatchNorm2d(16), nn.ReLU(), nn.MaxPool2d(2),
            nn.Conv2d(16, 48, 3, padding=1), nn.BatchNorm2d(48), nn.ReLU(),
            nn.Conv2d(48, 64, 3, stride=2, padding=1), nn.BatchNorm2d(64), nn.ReLU(),
            nn.Flatten(), nn.Dropout(0.3), nn.Linear(64 * 49, 128), nn.ReLU(),
            nn.Linear(128, 10),
        )  # fmt: skip
        self.net = seeded(make, SEED)

    def forward(self, x: Tensor) -> Tensor:
        """(M, 1, 28, 28) -> logits (M, 10)."""
        return self.net(x)

    @torch.no_grad()
    def probabilities(self, x: Tensor) -> Tensor:
        """(M, 1, 28, 28) -> (M, 10)."""
        found = [self(part).softmax(-1) for part in x.split(500)]
        return torch.cat(found) if found else torch.zeros(0, 10)


def patches(source: str, split: str, size: int) -> tuple[Tensor, Tensor]:
    """Digits (M, 1, s, s) in [0, 1], resized as in images of a size, and their classes (M,)."""
    images, labels = digits(source, split)
    side = round(SIDE * size / GRID)
    lines = resizing(torch.tensor(side), torch.tensor(0), side)
    drawn = (lines @ images.float() @ lines.T).round() if side != SIDE else images.float()
    return drawn[:, None] / 255, labels


def windows(x: Tensor, box: Tensor, half: float, changes: Tensor | None = None) -> Tensor:
    """Inputs of a reader (M, 1, 28, 28): the squares of half-width `half` around the middles of boxes.

    Args:
        x: (M, 1, S, S).
        box: (M, 2, 3) in the frames of x.
        changes: (M, 5) standard normal numbers for rotation, stretch along x and y, shift along x and y.
    """
    changes = torch.zeros(len(x), 5) if changes is None else changes
    where = box[..., 2] + half * SHIFT * changes[:, 3:]
    pose = render.pose(where, half * (STRETCH * changes[:, 1:3]).exp(), TURN * changes[:, 0])
    return render.crop(x[:, None], pose[:, None, None], SIDE)[:, 0, 0]


def reader(source: str, size: int) -> Reader:
    """A classifier of the digits of a source in images of a size."""
    net = Reader()
    key = {"digits": source, "size": size, "level": LEVEL, "training": (STEPS[source], BATCH)}
    key |= {"changes": (WIDER[source], TURN, STRETCH, SHIFT)}
    cached_net(net, _key(net, key), lambda: learn_digits(net, source, size, STEPS[source]))
    return net


def learn_digits(net: nn.Module, source: str, size: int, steps: int) -> None:
    """Train a reader on the training digits, turned, stretched and shifted; a fourth of batches is blurred."""
    x, labels = patches(source, "train", size)
    box = render.box((x[:, 0] >= LEVEL).to(x.dtype))
    generator = torch.Generator().manual_seed(SEED)
    blur = itertools.cycle([False, False, False, True])

    def loss(rows: Tensor) -> Tensor:
        changes = WIDER[source] * torch.randn(len(rows), 5, generator=generator)
        seen = windows(x[rows], box[rows], 1.0, changes)
        seen = F.avg_pool2d(seen, 3, 1, 1) if next(blur) else seen
        return F.cross_entropy(net(seen), labels[rows], label_smoothing=0.02)

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(SEED)  # of dropout
        fit(net, loss, len(x), batch=BATCH, steps=steps, rate=RATE, seed=SEED)


def accuracy(net: Reader, source: str, size: int, split: str = "test") -> float:
    """Share of a split's digits, each alone, that are named right."""
    x, labels = patches(source, split, size)
    box = render.box((x[:, 0] >= LEVEL).to(x.dtype))
    return float((net.probabilities(windows(x, box, 1.0)).argmax(-1) == labels).double().mean())


def components(image: Tensor) -> Tensor:
    """(S, S) int64: 0, or 1 + the number of the digit that a pixel of an image (S, S) belongs to."""
    from scipy import ndimage

    unit, ink = image.shape[-1] / GRID, image.numpy()
    labels, _ = ndimage.label(ink > LEVEL, np.ones((3, 3)))
    pieces = [labels == k + 1 for k in range(labels.max())]
    whole = [part for piece in pieces for part in _cut(piece, ink, LONG * unit)]
    kept = [p for p in _merge(whole, FIT * unit + 2) if p.sum() >= LEAST * unit**2]
    found = np.zeros(ink.shape, np.int64)
    for k, piece in enumerate(kept):
        found[piece] = k + 1
    near = ndimage.grey_dilation(found, (3, 3))  # a component includes its faint edge
    return torch.from_numpy(np.where(found > 0, found, near))


def _sides(piece: np.ndarray) -> tuple[int, int, int, int]:
    """First row, last row + 1, first column, last column + 1."""
    rows, columns = piece.any(1).nonzero()[0], piece.any(0).nonzero()[0]
    return rows[0], rows[-1] + 1, columns[0], columns[-1] + 1


def _cut(piece: np.ndarray, ink: np.ndarray, long: float) -> list[np.ndarray]:
    """The piece, cut across its longer side where there is least ink until no side is too long."""
    top, bottom, left, right = _sides(piece)
    height, width = bottom - top, right - left
    if max(height, width) <= long:
        return [piece]
    axis, low, length = (0, top, height) if height >= width else (1, left, width)
    line = (piece * ink).sum(1 - axis)
    inner = range(low + length // 4, low + length - length // 4)
    at = min(inner, key=lambda k: line[k])
    before = (np.arange(piece.shape[axis]) < at).reshape((-1, 1) if axis == 0 else (1, -1))
    parts = [part for part in (piece & before, piece & ~before) if part.any()]
    return [p for part in parts for p in _cut(part, ink, long)] if len(parts) > 1 else parts


def _merge(pieces: list[np.ndarray], fit: float) -> list[np.ndarray]:
    """Join pieces as long as their box fits a digit, those with the smallest box first."""
    pieces = list(pieces)
    while len(pieces) > 1:
        sides = np.array([_sides(piece) for piece in pieces])
        i, j = np.triu_indices(len(pieces), 1)
        low = np.minimum(sides[i][:, ::2], sides[j][:, ::2])
        high = np.maximum(sides[i][:, 1::2], sides[j][:, 1::2])
        side = (high - low).max(1)
        best = side.argmin()
        if side[best] > fit:
            break
        joined = pieces[i[best]] | pieces[j[best]]
        pieces = [p for k, p in enumerate(pieces) if k not in (i[best], j[best])] + [joined]
    return pieces


@dataclass(frozen=True)
class Digits:
    """A judge of scenes of digits."""

    net: Reader
    obeys: Callable[[Nodes], Tensor]
    strict: bool = False

    def __call__(self, images: Tensor) -> Tensor:
        """Judge images by connected components."""
        return self._judge(images, torch.stack([components(x) for x in images[:, 0]]))

    def own(self, scene: Scene) -> Tensor:
        """(B,) verdicts on a program's scenes by its own segments, masks above `LEVEL`."""
        labels = [segments(scene.objects, k, LEVEL) for k in range(len(scene))]
        return self._judge(scene.image, torch.stack(labels))

    def _judge(self, images: Tensor, labels: Tensor) -> Tensor:
        nodes, chance = self.read(images, labels)
        right = self.obeys(nodes)
        for b in (~right).nonzero()[:, 0].tolist() if not self.strict else []:
            right[b] = self._any(nodes.pres[b], nodes.pose[b], chance[b])
        return right

    def read(self, images: Tensor, labels: Tensor) -> tuple[Nodes, Tensor]:
        """The digits that a map (B, S, S) of labels marks in images, and their probabilities (B, N, 10)."""
        slots = max(1, int(labels.max()))
        mask = labels[:, None] == torch.arange(1, slots + 1)[:, None, None]
        bright = mask & (images > LEVEL)
        there = bright.flatten(2).any(2)
        image, slot = there.nonzero(as_tuple=True)
        box = render.box(bright[image, slot].float())
        pictures = images[image] * mask[image, slot][:, None]
        chance = torch.zeros(*there.shape, 10)
        chance[image, slot] = self.net.probabilities(windows(pictures, box, SIDE / GRID))
        pose = torch.eye(2, 3).repeat(*there.shape, 1, 1)
        pose[image, slot] = box
        category = chance.argmax(-1).where(there, -1)
        empty = torch.zeros_like(category)
        return Nodes(there.float(), pose, there.float(), empty, category), chance

    def _any(self, pres: Tensor, pose: Tensor, chance: Tensor) -> bool:
        """Whether some reading of one scene's digits obeys the rule."""
        readable = [(row >= READABLE).nonzero()[:, 0].tolist() or [-1] for row in chance]
        if math.prod(map(len, readable)) > COMBINATIONS:
            return False
        category = torch.tensor(list(itertools.product(*readable)))
        number = len(category)
        pres = pres.expand(number, -1)
        nodes = Nodes(
            pres, pose.expand(number, -1, -1, -1), pres, torch.zeros_like(category), category
        )
        return bool(self.obeys(nodes).any())


# arrow rooms


class RoomNet(nn.Module):
    """Shapes of the three objects, and the angles from the arrow's direction to them, from an image."""

    def __init__(self) -> None:
        super().__init__()
        self.kinds = len(arrow_room.KINDS) - 1
        make = lambda: nn.Sequential(  # noqa: E731
            nn.Conv2d(3, 24, 5, stride=2, padding=2), nn.BatchNorm2d(24), nn.ReLU(),
            nn.Conv2d(24, 48, 3, stride=2, padding=1), nn.BatchNorm2d(48), nn.ReLU(),
            nn.Conv2d(48, 64, 3, stride=2, padding=1), nn.BatchNorm2d(64), nn.ReLU(),
            nn.Flatten(), nn.Linear(64 * (ROOM_SIDE // 8) ** 2, 128), nn.ReLU(),
            nn.Linear(128, arrow_room.OBJECTS * (self.kinds + 2)),
        )  # fmt: skip
        self.net = seeded(make, SEED)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """(B, 3, S, S) in [0, 1] -> logits of the shapes (B, 3, 3); cosines and sines (B, 3, 2)."""
        out = self.net(F.adaptive_avg_pool2d(images, ROOM_SIDE) - 0.5)
        out = out.unflatten(-1, (arrow_room.OBJECTS, -1))
        return out[..., : self.kinds], out[..., self.kinds :]


def angles(nodes: Nodes) -> Tensor:
    """(B, 3) directions from the arrow to the objects, minus the arrow's own."""
    place, heading = nodes.attributes[..., 1:3], nodes.attributes[:, -1:, 3]
    step = place[:, :-1] - place[:, -1:]
    return torch.atan2(step[..., 1], step[..., 0]) - heading


def learn_rooms(net: nn.Module, config: dict[str, Any], rooms: int = ROOMS) -> None:
    """Train on rooms without the rule, half of them mirrored, all in colours of any order."""
    changes = {"lawful": False, "size": ROOM_SIDE}
    options = override(arrow_room.Config(), config | changes, "the world")
    data = world_dataset("arrow_room", rooms, "train", SEED, options)
    nodes = data.truth(slice(0, rooms)).objects
    shape, angle = nodes.category[:, : arrow_room.OBJECTS], angles(nodes)
    generator = torch.Generator().manual_seed(SEED)

    def loss(rows: Tensor) -> Tensor:
        images, kind, off = data.images[rows].float() / 255, shape[rows], angle[rows]
        images = images[:, torch.randperm(3, generator=generator)]
        if torch.rand((), generator=generator) < 0.5:
            images, kind, off = images.flip(-1), kind.flip(1), -off.flip(1)
        logits, direction = net(images)
        wanted = torch.stack([off.cos(), off.sin()], -1)
        return F.cross_entropy(logits.flatten(0, 1), kind.flatten()) + F.mse_loss(direction, wanted)

    fit(net, loss, rooms, batch=ROOM_BATCH, steps=ROOM_STEPS, rate=RATE, seed=SEED)


@dataclass(frozen=True)
class Rooms:
    """A judge of arrow rooms."""

    net: RoomNet

    @torch.no_grad()
    def __call__(self, images: Tensor) -> Tensor:
        """Judge images by shapes and the arrow's direction."""
        return torch.cat([self._judge(part) for part in images.split(200)])

    def _judge(self, images: Tensor) -> Tensor:
        return arrow_room.obeys(self.read(images), tolerance=MISS)

    def read(self, images: Tensor) -> Nodes:
        """The rooms that the net reads, with the arrow in the middle, pointing along x."""
        logits, direction = self.net(images)
        batch = len(images)
        arrow = torch.full((batch, 1), arrow_room.OBJECTS)
        category = torch.cat([logits.argmax(-1), arrow], 1)
        place = torch.cat([F.normalize(direction, dim=-1), torch.zeros(batch, 1, 2)], 1)
        none = torch.zeros(*category.shape, 1)
        attributes = torch.cat([none, place, none], -1)
        ones = torch.ones(category.shape)
        pose = torch.eye(2, 3).expand(*category.shape, 2, 3)
        return Nodes(ones, pose, ones, torch.zeros_like(category), category, attributes)


def shares(
    judge: StructureJudge, data: Dataset, images: Tensor, number: int, seed: int
) -> dict[str, float]:
    """Shares of images that obey the rule: a program's, true ones, and ones that break it.

    Args:
        images: (B, C, S, S) in [0, 1], of the program.
        number: number of true scenes, and of scenes that break the rule.
    """
    true = data.floats(number=number)
    shown = {"s_acc": images, "s_acc_true": true, "s_acc_broken": broken(data, number, seed)}
    return {name: float(judge(x).double().mean()) for name, x in shown.items()}


def strict(judge: StructureJudge) -> StructureJudge:
    """The judge that reads every digit as its most likely class."""
    return replace(judge, strict=True) if isinstance(judge, Digits) else judge
