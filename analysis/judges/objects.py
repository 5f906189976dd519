"""Judge whether objects of a program are objects of the world: a small net names their types, or refuses them.

It is trained on true objects, and to refuse mixtures: parts of two objects of different types, put together.
Objects without parts, such as digits, are broken in other ways (`analysis.judges.wrong`). Then it names objects
of the prior. Compare its verdict on the prior with those on unseen true objects and mixtures, and on true
objects as the guide infers and the program draws them (blurred as the prior's are).

An object is judged alone, without the objects in front of it, in the upright square around its mask.

Shape legend: B scenes, N slots, M objects, P parts, T types, S pixels per side of an image, s of a cutout.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from analysis.judges import wrong
from analysis.judges.nets import fit, seeded
from analysis.judges.scenes import PASS_BROKEN, PASS_TRUE
from analysis.scores import owners
from inference.images.dataset import Dataset
from programs.blocks import render
from programs.scene import Scene

STEPS = 1500
"""Steps of the classifier's training."""
BATCH = 64
"""Cutouts per step of the classifier's training."""
RATE = 3e-3
"""Peak learning rate of the classifier's training."""
SIDE = 24
"""Pixels per side of a cutout."""
LARGE = 48
"""Pixels per side of the cutouts from which objects of no type are made."""
MARGIN = 1.15
"""Half-width of a cutout, in half-widths of the object."""
ROOM = 1.6
"""Half-width of the canvas of mixtures, in half-widths of the largest object."""
OVERLAP = 0.25
"""Largest hidden share of the smaller of a mixture's two parents; with more it may look like the other."""
ROUNDS = 40
"""Times that pairs are tried for mixtures, before there are fewer than asked for."""
SHIFT = 0.9
"""Largest shift along each axis between the parents of a mixture that stands upright, in half-widths."""
SEED = 0


def judges(program: Callable, data: Dataset) -> bool:
    """Whether the program draws objects from patches, and the world's objects have types."""
    if not data.tables or "category" not in data.tables[0]:
        return False
    with torch.no_grad():
        scene = program(batch=1)
    has_objects = isinstance(scene, Scene) and len(scene.levels) > 0
    return has_objects and scene.objects.patch is not None and scene.objects.mask is None


def cutouts(pictures: Tensor, pixels: int = SIDE) -> Tensor:
    """Objects in the upright squares around their masks.

    Args:
        pictures: (M, C + 1, S, S) in [0, 1], colours times mask, and the mask.
        pixels: s.
    Returns:
        (M, C + 1, s, s).
    """
    boxes = render.box(pictures[:, -1])
    side = MARGIN * boxes[..., :2].diagonal(dim1=-2, dim2=-1).amax(-1, keepdim=True)
    pose = render.pose(boxes[..., 2], side, torch.zeros(len(boxes)))
    return render.crop(pictures[:, None], pose[:, None, None], pixels)[:, 0, 0]


def upright(truth: Scene) -> bool:
    """Whether the world's objects are never turned."""
    return not truth.objects.rotation.any()


def inputs(pictures: Tensor, truth: Scene) -> Tensor:
    """The classifier's inputs (M, C + 1, s, s) from pictures of objects, of the world or of a program.

    Args:
        pictures: (M, C + 1, S, S) as `cutouts` takes them.
        truth: scenes of the world.
    """
    return cutouts(pictures) if truth.parts is not None else recut(filled(pictures))


def filled(pictures: Tensor) -> Tensor:
    """(M, C, L, L) colours of objects in the squares around what is bright of them."""
    return cutouts(wrong.inked(pictures[:, :-1]), LARGE)[:, :-1]


def recut(colours: Tensor) -> Tensor:
    """(M, C, L, L) colours of objects -> the classifier's inputs (M, C + 1, s, s)."""
    return wrong.inked(cutouts(wrong.inked(colours))[:, :-1])


def true_objects(truth: Scene) -> tuple[Tensor, Tensor]:
    """Pictures (M, C + 1, S, S) of the objects of true scenes, each alone, and their types (M,)."""
    image, slot = truth.objects.present.nonzero(as_tuple=True)
    mask = truth.objects.mask[image, slot].unsqueeze(1).float()
    pictures = torch.cat([truth.image[image] * mask, mask], 1)
    return pictures, truth.objects.category[image, slot]


def drawn_objects(scene: Scene) -> Tensor:
    """Pictures (M, C + 1, S, S) of the objects of a program's scenes, each drawn alone."""
    nodes = scene.objects
    patch, pose = nodes.patch[nodes.present], nodes.pose[nodes.present]
    premultiplied = torch.cat([patch[:, :-1] * patch[:, -1:], patch[:, -1:]], 1)
    return render.place(premultiplied, pose, scene.image.shape[-1]).clamp(0, 1)


def mixtures(truth: Scene, number: int, generator: torch.Generator) -> Tensor:
    """The classifier's inputs (M, C + 1, s, s) from objects of no type.

    They are some parts of one object over some parts of another of a different type. The two objects have the
    same centre and rotation, turned at random; where objects are never turned, they are apart a little instead,
    or most would hide each other. Mixtures in which much is hidden are left out. Objects without parts are
    broken in every way of `analysis.judges.wrong`.

    Args:
        number: M, as far as there are so many; of objects without parts, whatever there is.
    """
    if truth.parts is None:
        pictures, types = true_objects(truth)
        broken = wrong.every_kind(filled(pictures), types, generator)
        return torch.cat([recut(x) for x in broken.values()])
    found = [_mixed(truth, number, generator)]
    while sum(map(len, found)) < number and len(found) < ROUNDS:
        found.append(_mixed(truth, number, generator))
    return torch.cat(found)[:number]


def _mixed(truth: Scene, tries: int, generator: torch.Generator) -> Tensor:
    """Cutouts of the mixtures among that many pairs of objects."""
    image, slot = truth.objects.present.nonzero(as_tuple=True)
    pairs = torch.randint(len(image), (2, tries), generator=generator)
    types = truth.objects.category[image, slot][pairs]
    pairs = pairs[:, types[0] != types[1]]
    turn, shift = _turns(truth, pairs.shape[1], generator)
    under, over = (
        on_canvas(truth, image[row], slot[row], turn, _some(truth, len(row), generator), at)
        for row, at in zip(pairs, (shift, -shift), strict=True)
    )
    a, b = under[:, -1], over[:, -1]
    area = torch.minimum(a.sum((1, 2)), b.sum((1, 2)))
    good = ((a * b).sum((1, 2)) <= OVERLAP * area) & (area > 0)
    return cutouts((over + under * (1 - b[:, None]))[good])


def on_canvas(
    truth: Scene,
    image: Tensor,
    slot: Tensor,
    turn: Tensor,
    kept: Tensor | None = None,
    shift: Tensor | float = 0.0,
) -> Tensor:
    """Pictures (M, C + 1, S, S) of objects or some parts, in their own frames, turned, at their own sizes.

    Args:
        image, slot: (M,) which objects.
        turn: (M,) radians.
        kept: (M, N) bool, over all parts of the scene; None is the whole object.
        shift: (M, 2) of the canvas, in half-widths of the object.
    """
    nodes, size = truth.objects, truth.image.shape[-1]
    half = ROOM * nodes.extent[nodes.present].max().expand(len(image), 1)
    centre = nodes.centre[image, slot] + shift * nodes.extent[image, slot]
    frame = render.pose(centre, half, nodes.rotation[image, slot] + turn)
    if kept is None:
        mask = nodes.mask[image, slot]
    else:
        kept = kept & (owners(truth)[image] == slot[:, None])
        mask = torch.stack(
            [truth.parts.mask[b, k].any(0) for b, k in zip(image, kept, strict=True)]
        )
    mask = mask.float()
    pictures = torch.cat([truth.image[image] * mask[:, None], mask[:, None]], 1)
    return render.crop(pictures[:, None], frame[:, None, None], size)[:, 0, 0]


def _turns(truth: Scene, number: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Angles (M,) in radians by which objects are turned, and half of the shifts (M, 2) between two objects."""
    if upright(truth):
        return torch.zeros(number), SHIFT * (torch.rand(number, 2, generator=generator) - 0.5)
    return 2 * torch.pi * torch.rand(number, generator=generator), torch.zeros(number, 2)


def _some(truth: Scene, number: int, generator: torch.Generator) -> Tensor:
    """(M, N) bool: each part with probability 1/2."""
    return torch.rand(number, truth.parts.pres.shape[1], generator=generator) < 0.5


def examples(truth: Scene, seed: int) -> tuple[Tensor, Tensor]:
    """Inputs (M, C + 1, s, s) for training, and their types (M,), T for none of them.

    They are unchanged objects, objects on the mixtures' canvas, so that the canvas gives no hint, and mixtures.
    Objects without parts need no canvas; each is there once per way to break it.
    """
    generator = torch.Generator().manual_seed(seed)
    alone, types = true_objects(truth)
    image, slot = truth.objects.present.nonzero(as_tuple=True)
    if truth.parts is None:
        whole = [inputs(alone, truth)] * len(wrong.KINDS)
    else:
        turn, _ = _turns(truth, len(image), generator)
        whole = [cutouts(alone), cutouts(on_canvas(truth, image, slot, turn))]
    mixed = mixtures(truth, len(image), generator)
    none = types.new_full((len(mixed),), int(truth.objects.category.max()) + 1)
    return torch.cat([*whole, mixed]), torch.cat([types] * len(whole) + [none])


class Namer(nn.Module):
    """Names the type of an object from its cutout; T, the last, stands for none of them.

    Args:
        types: T.
        deep: one more convolution, and dropout; what is handwritten is never twice the same.
    """

    def __init__(self, types: int, colours: int = 3, deep: bool = False) -> None:
        super().__init__()
        self.none = types
        cells, more, drop = (SIDE // 4) ** 2, 64 if deep else 48, [nn.Dropout(0.3)] * deep
        self.net = nn.Sequential(
            nn.Conv2d(colours + 1, 24, 5, stride=2, padding=2), nn.BatchNorm2d(24), nn.ReLU(),
            *([nn.Conv2d(24, 48, 3, padding=1), nn.BatchNorm2d(48), nn.ReLU()] * deep),
            nn.Conv2d(48 if deep else 24, more, 3, stride=2, padding=1), nn.BatchNorm2d(more), nn.ReLU(),
            nn.Flatten(), *drop, nn.Linear(more * cells, 96), nn.ReLU(), *drop, nn.Linear(96, types + 1),
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        """(M, C + 1, s, s) -> logits (M, T + 1)."""
        return self.net(x)

    @torch.no_grad()
    def name(self, x: Tensor) -> Tensor:
        """(M, C + 1, s, s) -> the most likely types (M,)."""
        named = [self(part).argmax(-1) for part in x.split(500)]
        return torch.cat(named) if named else torch.zeros(0, dtype=torch.int64)


def trained(truth: Scene) -> Namer:
    """A classifier trained on the objects of true scenes."""
    return namer(*examples(truth, SEED), STEPS, still=upright(truth), ink=truth.parts is None)


def namer(
    x: Tensor, types: Tensor, steps: int = STEPS, still: bool = False, ink: bool = False
) -> Namer:
    """A classifier trained on cutouts (M, C + 1, s, s) of types (M,), the last of which stands for none.

    Half of the batches are blurred, as a program's objects are. The net depends on its arguments alone, and the
    global generator is not changed.

    Args:
        still: objects are never turned. The net is deep then; cutouts are turned, scaled and shifted a little,
            each differently, instead of by quarters.
        ink: the mask is what is bright, of blurred cutouts too.
    """
    net = seeded(lambda: Namer(int(types.max()), x.shape[1] - 1, deep=still), SEED)
    count, generator = itertools.count(), torch.Generator().manual_seed(SEED)

    def loss(rows: Tensor) -> Tensor:
        step = next(count)
        turned = (
            wrong.jittered(x[rows], generator)
            if still
            else torch.rot90(x[rows], step // 2 % 4, (2, 3))
        )
        seen = F.avg_pool2d(turned, 3, 1, 1) if step % 2 else turned
        seen = wrong.inked(seen[:, :-1]) if ink else seen
        return F.cross_entropy(net(seen), types[rows])

    with torch.random.fork_rng(devices=[]):  # dropout draws from the global generator
        torch.manual_seed(SEED)
        fit(net, loss, len(x), batch=BATCH, steps=steps, rate=RATE, seed=SEED)
    return net


class Named(NamedTuple):
    """The net's verdicts on objects."""

    valid: dict[str, float]
    """source of the objects (true, mixed, inferred, prior) -> share that has some type"""
    right: float
    """share of true objects whose type is named right"""
    types: dict[str, list[float]]
    """source of the objects -> share of each type (T,) among those that have one"""

    @property
    def good(self) -> bool:
        """Whether the net can be trusted: it passes true objects, and refuses mixtures."""
        return self.valid["true"] >= PASS_TRUE and self.valid["mixed"] <= PASS_BROKEN


def valid_objects(net: Namer, truth: Scene, inferred: Scene, prior: Scene) -> Named:
    """Shares of objects that have one of the world's types.

    Args:
        truth: scenes on which the net was not trained.
        inferred: the guide's scenes of the same images.
        prior: scenes of the program.
    """
    pictures, types = true_objects(truth)
    shown = {"true": pictures, "inferred": drawn_objects(inferred), "prior": drawn_objects(prior)}
    named = {whose: net.name(inputs(p, truth)) for whose, p in shown.items()}
    mixed = mixtures(truth, len(types), torch.Generator().manual_seed(SEED + 1))
    named["mixed"] = net.name(mixed)
    valid = {whose: _share(found < net.none) for whose, found in named.items()}
    shares = {whose: _shares(named[whose], net.none) for whose in ("true", "inferred", "prior")}
    return Named(valid, _share(named["true"] == types), shares)


def _shares(types: Tensor, none: int) -> list[float]:
    number = max(1, int((types < none).sum()))
    return (types.bincount(minlength=none + 1)[:none].double() / number).tolist()


def _share(right: Tensor) -> float:
    return float(right.double().mean()) if len(right) else 0.0
