"""New objects and scenes by changing numbers in an inferred scene graph (GSGN, section 4 and figure 4).

Objects: one is enlarged, and moved along x across its neighbour, before and after an object of another
    scene replaces it. Parts: one that stands on another is enlarged, and replaced by parts of other scenes;
    it still touches the part below it.

# differs: the scenes are chosen by rules, not by hand: the first with two objects side by side at different
heights, and the object of two parts, one on the other, that is nearest to the viewer. The object that moves
reaches lowest in the image, and is put in front: without overlap, an image does not determine depths.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

import torch
from torch import Tensor

from analysis import edit, plots
from analysis.papers.gsgn.trainings import training
from analysis.papers.item import Item, Made, Request
from analysis.posterior import infer
from inference.runs import Trained
from programs.blocks import render
from programs.scene import Scene

SCENES = 60
"""Scenes to choose from."""
SIZES = (0.6, 0.8, 1.0, 1.2, 1.4)
"""Sizes of an object, relative to its own."""
STEPS = (0.0, 0.25, 0.5, 0.75, 1.0)
"""Places of an object on its way, as fractions of its distance from its neighbour along x."""
PART_SIZES = (0.5, 0.75, 1.0, 1.25, 1.5)
ROOM = 1.6
"""Factor by which an object's frame is widened, so that its parts may grow."""
APART = 0.4
"""Least distance of two objects along x, in the image frame."""
LOWER = 0.1, 0.6
"""Range of the distance by which one object reaches lower, in the image frame."""
OVER = 0.5
"""Least distance along y of a part and the part below it, in their half-heights."""
BESIDE = 0.15
"""Largest distance along x of a part and the part below it."""


def item(title: str) -> Item:
    """Figure 4."""
    return Item(title, {"GSGN": training("GSGN", "compositional_clevr")}, make)


def make(runs: Mapping[str, Trained], request: Request) -> Made:
    """Both halves of the figure, if there are suitable scenes.

    Raises:
        ValueError: no scene is suitable for either half.
    """
    run = runs["GSGN"]
    images = run.unseen(request.scenes or SCENES, request.seed).floats()
    scenes = infer(run.program, run.guide, images).cpu()
    found = {"objects": objects(run.program, images, scenes)}
    found["parts"] = parts(run.program, images, scenes)
    figures = {name: plots.strips_figure(strips) for name, strips in found.items() if strips}
    if not figures:
        raise ValueError(
            f"none of {len(images)} scenes has what is to be changed: give more by --scenes"
        )
    return Made(figures=figures)


def objects(program: Callable, images: Tensor, scenes: Scene) -> dict[str, Tensor]:
    """Figure 4A: strips of pictures by title; empty if no scene is suitable."""
    found = next(neighbours(scenes), None)
    if found is None:
        return {}
    image, slot, other = found
    source, source_slot = richest(scenes, image)
    scene = scenes[image : image + 1]
    new = replaced(scene, slot, scenes[source : source + 1], source_slot, level=0)
    strips = {
        "image, inferred, other": torch.stack([images[image], *scenes.image[[image, source]]])
    }
    for title, start in (("own", scene), ("other", new)):
        strips[f"{title}, size"] = enlarged(program, start, slot)
        strips[f"{title}, x"] = moved(program, start, slot, other)
    return strips


def neighbours(scenes: Scene) -> Iterator[tuple[int, int, int]]:
    """An image and two of its objects side by side, the first of which reaches lowest of all."""
    nodes, low = scenes.objects, lowest(scenes, 0)
    first = low[..., 1].masked_fill(~nodes.present, -torch.inf)
    first = (first == first.amax(1, keepdim=True))[..., None]
    apart = (nodes.centre[:, :, None, 0] - nodes.centre[:, None, :, 0]).abs() > APART
    lower = low[:, :, None, 1] - low[:, None, :, 1]
    both = nodes.present[:, :, None] & nodes.present[:, None]
    chosen = first & both & apart & (lower > LOWER[0]) & (lower < LOWER[1])
    for found in chosen.nonzero().tolist():
        yield tuple(found)


def richest(scenes: Scene, other_than: int) -> tuple[int, int]:
    """The first image, except for one, and object with the largest number of parts."""
    there = scenes.parts.present.double()
    number = torch.zeros_like(scenes.objects.pres).double()
    number.scatter_add_(1, scenes.parts.parent, there)
    number[~scenes.objects.present] = -1
    number[other_than] = -1
    image, slot = divmod(int(number.flatten().argmax()), number.shape[1])
    return image, slot


def enlarged(program: Callable, scene: Scene, slot: int) -> Tensor:
    """(n, 3, H, W) an object in several sizes at its place on the floor."""
    about = lowest(scene, 0)[:, slot]
    sizes = [edit.scale(scene, slot, factor, about=about) for factor in SIZES]
    return torch.cat([edit.render(program, edit.bring_to_front(s, slot)).image for s in sizes])


def moved(program: Callable, scene: Scene, slot: int, other: int) -> Tensor:
    """(n, 3, H, W) an object on its way along x to another, in front of it."""
    way = scene.objects.centre[:, other] - scene.objects.centre[:, slot]
    way = way * torch.tensor([1.0, 0.0])
    places = [edit.move(scene, slot, step * way) for step in STEPS]
    return torch.cat([edit.render(program, edit.bring_to_front(s, slot)).image for s in places])


def parts(program: Callable, images: Tensor, scenes: Scene) -> dict[str, Tensor]:
    """Figure 4B: strips of pictures by title; empty if no scene is suitable."""
    found = list(stacks(scenes))
    if not found:
        return {}
    image, slot = max(found, key=lambda place: float(scenes.parts.centre[place][1]))
    scene = scenes[image : image + 1]
    wide = edit.widen(scene, int(scene.parts.parent[0, slot]), ROOM)
    about = lowest(scene, 1)[:, slot]
    sizes = [edit.scale(wide, slot, factor, level=1, about=about) for factor in PART_SIZES]
    others = {k: part for k, part in reversed(found) if k != image}
    others = [replaced(wide, slot, scenes[k : k + 1], others[k], 1) for k in sorted(others)]
    strips = {"size of a part": sizes, "other parts": others[: len(PART_SIZES)]}
    drawn = {title: [edit.render(program, s).image for s in some] for title, some in strips.items()}
    seen = {"image, inferred": torch.stack([images[image], scenes.image[image]])}
    return seen | {title: torch.cat(pictures) for title, pictures in drawn.items() if pictures}


def stacks(scenes: Scene) -> Iterator[tuple[int, int]]:
    """An image, and a part that stands on the only other part of its object."""
    nodes = scenes.parts
    siblings = (nodes.parent[:, :, None] == nodes.parent[:, None]) & nodes.present[:, None]
    alone = siblings.sum(-1) == 2
    way = nodes.centre[:, :, None] - nodes.centre[:, None]
    height = nodes.extent[..., 1]
    over = way[..., 1] < -OVER * (height[:, :, None] + height[:, None])
    over &= siblings & (way[..., 0].abs() < BESIDE)
    for found in (over.any(-1) & alone & nodes.present).nonzero().tolist():
        yield tuple(found)


def replaced(scene: Scene, slot: int, source: Scene, source_slot: int, level: int) -> Scene:
    """A node replaced by one of another scene, which gets the old one's place of contact."""
    new = edit.graft(scene, slot, source, source_slot, level)
    return edit.move(new, slot, lowest(scene, level)[:, slot] - lowest(new, level)[:, slot], level)


def lowest(scenes: Scene, level: int) -> Tensor:
    """(B, N, 2) points of contact of nodes: below their centres, at the lowest pixels of their masks."""
    nodes = scenes.levels[level]
    around = render.chain(nodes.pose, render.box(nodes.patch[:, :, -1]))
    corners = torch.tensor([[-1.0, -1], [1, -1], [-1, 1], [1, 1]])
    y = (corners @ around[..., :2].mT)[..., 1].amax(-1) + around[..., 1, 2]
    return torch.stack([around[..., 0, 2], y], -1)
