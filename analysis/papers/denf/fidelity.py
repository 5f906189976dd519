"""Fidelity of edits: changes outside an object's box when it is removed, and scenes with some of the objects.

DeNF claims that only the edited object changes (section 4, figure 5), and generates examples "of the
input scene by preserving only a subset of objects" (section 4.1). Programs need a method `redraw`.

Shape legend: B images, N slots, R removals, C channels, H x W pixels.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from matplotlib.figure import Figure
from torch import Tensor

from analysis import edit, plots
from analysis.scores import change_outside, outside
from programs.scene import Scene


@torch.no_grad()
def removals(program: Callable, scene: Scene, images: Tensor) -> Tensor:
    """(R, 2) mean absolute differences in [0, 1] outside the boxes of R objects, each removed alone.

    The first is the difference from the scene drawn with the object, the second from the image.

    Args:
        images: (B, C, H, W) in [0, 1], from which the scenes are inferred.
    Raises:
        ValueError: the scene has no objects, or the program cannot draw Scenes.
    """
    if not scene.levels:
        raise ValueError("the scene has no objects to remove: it has levels=()")
    found, nodes = [], scene.objects
    for slot in range(nodes.pres.shape[1]):
        apart = outside(nodes.pose[:, slot], scene.image.shape[-1]).flatten(1).any(1)
        rows = (nodes.present[:, slot] & apart).nonzero()[:, 0]
        if not len(rows):
            continue
        before = edit.render(program, scene[rows])
        after = edit.render(program, edit.remove(before, slot))
        pictures = (before.image, images[rows], after.image, before.objects.pose[:, slot])
        for drawn, image, without, pose in zip(*(p.split(1) for p in pictures), strict=True):
            found.append([change_outside(one, without, pose) for one in (drawn, image)])
    return torch.tensor(found, dtype=torch.float64).view(-1, 2)


@torch.no_grad()
def edits_figure(program: Callable, images: Tensor, scene: Scene, count: int = 6) -> Figure:
    """Edits of the first `count` scenes whose first slot has an object, one row per image.

    Raises:
        ValueError: fewer than two scenes have such an object.
    """
    chosen = scene.objects.present[:, 0].nonzero()[:count, 0]
    if len(chosen) < 2:
        raise ValueError(f"{len(chosen)} scenes have a first object: expected at least 2 to edit")
    some, others = scene[chosen], scene[chosen.roll(-1)]
    columns = {"image": images[chosen], "inferred": some.image}
    columns["without object 1"] = edit.render(program, edit.remove(some, 0)).image
    columns["with the next one's"] = edit.render(program, edit.graft(some, 0, others, 0)).image
    if some.background is not None:
        columns["background"] = some.background
    return plots.pictures_figure(columns)


@torch.no_grad()
def subsets(program: Callable, scene: Scene, generator: torch.Generator) -> Tensor:
    """(B, C, H, W) the scenes with each object kept with probability 1/2 (section 4.1)."""
    coins = torch.rand(scene.objects.pres.shape, generator=generator) < 0.5
    return edit.render(program, edit.keep(scene, coins)).image


@torch.no_grad()
def alone(program: Callable, scene: Scene) -> Iterator[Tensor]:
    """For each slot, the scenes (B, C, H, W) with that object only (section 3.1.5)."""
    slots = torch.arange(scene.objects.pres.shape[1])
    for slot in slots:
        chosen = (slots == slot).expand_as(scene.objects.present)
        yield edit.render(program, edit.keep(scene, chosen)).image
