"""Are a program's dreams like the world: objects of its prior, as a classifier names them, and their numbers.

    python -m analysis.generation RUN [--scenes N] [--seed S]

GSGN shows objects and scenes of the prior in pictures only (figure 5). Here a small net learns from true
objects to name the world's types of objects, and to refuse what is none of them: parts of objects of two
different types, put together. It then names objects of the prior. What it says of true objects and mixtures
that it has not seen, and of true objects as the guide infers and the program draws them (blurred as the prior's
are), is what its word on the prior is to be held against. Numbers of objects
and parts are compared as histograms.

An object is judged alone, without what hides it, cut out by the upright square around its mask.

Shape legend: B scenes, N slots, M objects, P parts, T types, S pixels a side of an image, s of a cutout.
"""

from __future__ import annotations

import itertools
import sys
from collections.abc import Callable
from typing import Any

import pyro
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from analysis.command import of_run, told
from analysis.posterior import infer
from analysis.posterior.quantities import n_objects, n_parts
from analysis.scores import owners
from analysis.scores.classifier import fit, seeded
from inference.images.dataset import Dataset
from inference.images.worlds import load_world
from inference.runs import open_run
from inference.settings import override
from programs.blocks import render
from programs.scene import Scene

SCENES, STEPS, BATCH, RATE = 2000, 500, 64, 3e-3
"""Of the classifier's training."""
SIDE, MARGIN = 24, 1.15
"""Pixels a side of a cutout, and its half-width in those of the object."""
ROOM = 1.6
"""Half-width of the canvas on which mixtures are made, in that of the largest object."""
OVERLAP = 0.25
"""Share of the smaller of its two parents that a mixture hides at most: else it may look like the other."""
SEED = 0


def judges(program: Callable, data: Dataset) -> bool:
    """Whether objects of this program's prior have parts, and the world's have types and parts too."""
    if len(data.tables) < 2 or "category" not in data.tables[0]:
        return False
    with torch.no_grad():
        scene = program(batch=1)
    return isinstance(scene, Scene) and len(scene.levels) > 1 and scene.objects.patch is not None


def cutouts(pictures: Tensor) -> Tensor:
    """Objects as the classifier sees them, in the upright squares around their masks.

    Args:
        pictures: (M, C + 1, S, S) in [0, 1], colours times mask, and the mask.
    Returns:
        (M, C + 1, s, s).
    """
    boxes = render.box(pictures[:, -1])
    side = MARGIN * boxes[..., :2].diagonal(dim1=-2, dim2=-1).amax(-1, keepdim=True)
    pose = render.pose(boxes[..., 2], side, torch.zeros(len(boxes)))
    return render.crop(pictures[:, None], pose[:, None, None], SIDE)[:, 0, 0]


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
    """Pictures (M, C + 1, S, S) of objects of no type: parts of one over parts of another of a different type.

    Objects are laid on each other by their centres and rotations. Mixtures that hide much are left out, so
    there are fewer than `number`.
    """
    image, slot = truth.objects.present.nonzero(as_tuple=True)
    pairs = torch.randint(len(image), (2, number), generator=generator)
    types = truth.objects.category[image, slot][pairs]
    pairs = pairs[:, types[0] != types[1]]
    turn = 2 * torch.pi * torch.rand(pairs.shape[1], generator=generator)
    under, over = (
        on_canvas(truth, image[row], slot[row], turn, _some(truth, len(row), generator))
        for row in pairs
    )
    a, b = under[:, -1], over[:, -1]
    area = torch.minimum(a.sum((1, 2)), b.sum((1, 2)))
    good = ((a * b).sum((1, 2)) <= OVERLAP * area) & (area > 0)
    return (over + under * (1 - b[:, None]))[good]


def on_canvas(truth: Scene, image: Tensor, slot: Tensor, turn: Tensor, kept: Tensor) -> Tensor:
    """Pictures (M, C + 1, S, S) of some parts of objects, in their own frames, turned, at their own sizes.

    Args:
        image, slot: (M,) which objects.
        turn: (M,) radians.
        kept: (M, N) bool, over all parts of the scene.
    """
    nodes, size = truth.objects, truth.image.shape[-1]
    half = ROOM * nodes.extent[nodes.present].max().expand(len(image), 1)
    frame = render.pose(nodes.centre[image, slot], half, nodes.rotation[image, slot] + turn)
    kept = kept & (owners(truth)[image] == slot[:, None])
    mask = torch.stack([truth.parts.mask[b, k].any(0) for b, k in zip(image, kept, strict=True)])
    pictures = torch.cat([truth.image[image] * mask[:, None], mask[:, None]], 1)
    return render.crop(pictures[:, None], frame[:, None, None], size)[:, 0, 0]


def _some(truth: Scene, number: int, generator: torch.Generator) -> Tensor:
    """(M, N) bool: each part with probability 1/2."""
    return torch.rand(number, truth.parts.pres.shape[1], generator=generator) < 0.5


def examples(truth: Scene, seed: int) -> tuple[Tensor, Tensor]:
    """Cutouts (M, C + 1, s, s) to learn from, and their types (M,), T for none of them.

    Objects as they are, objects on the mixtures' canvas, and mixtures: the canvas must not tell them apart.
    """
    generator = torch.Generator().manual_seed(seed)
    alone, types = true_objects(truth)
    image, slot = truth.objects.present.nonzero(as_tuple=True)
    turn = 2 * torch.pi * torch.rand(len(image), generator=generator)
    whole = on_canvas(truth, image, slot, turn, truth.parts.present[image])
    mixed = mixtures(truth, 3 * len(image), generator)
    none = types.new_full((len(mixed),), int(truth.objects.category.max()) + 1)
    pictures = [cutouts(pictures) for pictures in (alone, whole, mixed)]
    return torch.cat(pictures), torch.cat([types, types, none])


class Namer(nn.Module):
    """The type of an object from its cutout; T, the last, is none of them."""

    def __init__(self, types: int, colours: int = 3) -> None:
        super().__init__()
        self.none = types
        self.net = nn.Sequential(
            nn.Conv2d(colours + 1, 24, 5, stride=2, padding=2), nn.BatchNorm2d(24), nn.ReLU(),
            nn.Conv2d(24, 48, 3, stride=2, padding=1), nn.BatchNorm2d(48), nn.ReLU(),
            nn.Flatten(), nn.Linear(48 * (SIDE // 4) ** 2, 96), nn.ReLU(), nn.Linear(96, types + 1),
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        """(M, C + 1, s, s) -> logits (M, T + 1)."""
        return self.net(x)

    @torch.no_grad()
    def name(self, x: Tensor) -> Tensor:
        """(M, C + 1, s, s) -> the most likely types (M,)."""
        named = [self(part).argmax(-1) for part in x.split(500)]
        return torch.cat(named) if named else torch.zeros(0, dtype=torch.int64)


def namer(x: Tensor, types: Tensor, steps: int = STEPS) -> Namer:
    """A classifier trained on cutouts (M, C + 1, s, s) of types (M,), the last of them none of the types.

    Half of the batches are blurred, as what a program draws is; all are turned by quarters.
    """
    net = seeded(lambda: Namer(int(types.max()), x.shape[1] - 1), SEED)
    count = itertools.count()

    def loss(rows: Tensor) -> Tensor:
        step = next(count)
        turned = torch.rot90(x[rows], step // 2 % 4, (2, 3))
        seen = F.avg_pool2d(turned, 3, 1, 1) if step % 2 else turned
        return F.cross_entropy(net(seen), types[rows])

    fit(net, loss, len(x), batch=BATCH, steps=steps, rate=RATE, seed=SEED)
    return net


def total_variation(one: Tensor, other: Tensor) -> float:
    """Half the sum of absolute differences of two samples' histograms: (n,) and (m,) whole numbers from 0."""
    length = 1 + int(max(one.max(), other.max()))
    shares = (x.bincount(minlength=length).double() / len(x) for x in (one, other))
    p, q = shares
    return float((p - q).abs().sum() / 2)


def numbers(scene: Scene) -> dict[str, Tensor]:
    """How many objects and parts a scene has (B,), and how many parts an object (M,)."""
    slots = scene.objects.pres.shape[1]
    member = (owners(scene)[..., None] == torch.arange(slots)) & scene.parts.present[..., None]
    return {
        "objects a scene": n_objects(scene),
        "parts a scene": n_parts(scene),
        "parts an object": member.sum(1)[scene.objects.present],
    }


def generation(
    program: Callable, guide: Callable, data: Dataset, number: int = 500
) -> dict[str, Any]:
    """The objects and numbers of the prior beside those of the world.

    Args:
        data: unseen scenes of the world, with truth: what is not named here is learned from others.
        number: scenes of the prior.
    Returns:
        `valid`: whose objects -> share that is of some type; `right`: share of true objects whose type is
        named; `types`: whose -> share of each type among those that are of one (T,); `distance`: name -> total
        variation distance of the prior from the world, in [0, 1].
    Raises:
        ValueError: there is nothing to judge (see `judges`).
    """
    if not judges(program, data):
        raise ValueError("generation is judged where program and world have objects and parts")
    images, truth = data.images.float() / 255, data.truth()
    net = namer(*examples(_lesson(data), SEED))
    with torch.no_grad():
        prior = program(batch=number).cpu()
    pictures, types = true_objects(truth)
    inferred = infer(program, guide, images).cpu()
    mixed = mixtures(truth, len(types), torch.Generator().manual_seed(SEED + 1))
    shown = {"true": pictures, "mixed": mixed, "inferred": drawn_objects(inferred)}
    shown["prior"] = drawn_objects(prior)
    named = {whose: net.name(cutouts(p)) for whose, p in shown.items()}
    distance = {
        name: total_variation(value, numbers(truth)[name]) for name, value in numbers(prior).items()
    }
    return {
        "valid": {whose: _share(found < net.none) for whose, found in named.items()},
        "right": _share(named["true"] == types),
        "types": {
            whose: (named[whose].bincount(minlength=net.none + 1)[:-1].double()
                    / max(1, int((named[whose] < net.none).sum()))).tolist()
            for whose in ("true", "inferred", "prior")
        },
        "distance": distance,
    }  # fmt: skip


def _share(right: Tensor) -> float:
    return float(right.double().mean()) if len(right) else 0.0


def _lesson(data: Dataset) -> Scene:
    """True scenes like these, from which none of these are."""
    world, seed = load_world(data.description["world"]), data.description["seed"]
    config = override(world.config(), data.description["config"], world.title)
    return world.split("test", config, SCENES, seed + 1).truth()


def table(found: dict[str, Any]) -> str:
    """The numbers as aligned lines."""
    lines = [f"  {'type named right, true objects':<34}{found['right']:8.3f}"]
    lines += [f"  {f'of some type, {w} objects':<34}{v:8.3f}" for w, v in found["valid"].items()]
    for whose, shares in found["types"].items():
        lines.append(f"  {f'types of {whose} objects':<34}" + "".join(f"{v:7.3f}" for v in shares))
    lines += [f"  {f'distance, {n}':<34}{v:8.3f}" for n, v in found["distance"].items()]
    return "\n".join(lines)


@told
def main(arguments: list[str] | None = None) -> None:
    """Entry point."""
    o = of_run("analysis.generation", __doc__, scenes=500).parse_args(arguments)
    pyro.enable_validation(False)
    pyro.set_rng_seed(o.seed)
    run = open_run(o.run)
    print(table(generation(run.program, run.guide, run.unseen(o.scenes, o.seed), o.scenes)))


if __name__ == "__main__":
    sys.exit(main())
