"""Fidelity of edits: what changes outside an object's box when the object is removed.

    python -m analysis.papers.denf.fidelity RUN [--scenes N] [--seed S] [--figure FILE]

DeNF claims that nothing but the edited object changes (section 4, figure 5). Every object that the guide finds
in unseen scenes is removed from its scene by itself. Printed are how many there were, and the absolute
difference of the pixels outside its box, white being 255, between the scene drawn without it and (1) the scene
drawn with it, which tells how far an object reaches out of its box, and (2) the image itself, which has the
error of the reconstruction too: the mean over objects of the mean over pixels, and the greatest of these means.
Objects whose box is the whole image do not count.

The figure shows scenes without their first object, and with the first object of the next scene in its place.
For programs that can draw a Scene (`redraw`).
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pyro
import torch
from matplotlib.figure import Figure
from torch import Tensor

from analysis import edit, plots
from analysis.command import of_run, told
from analysis.evaluate import floats
from analysis.posterior import infer
from analysis.scores import change_outside, outside
from inference.runs import open_run
from programs.scene import Scene


@torch.no_grad()
def removals(program: Callable, scene: Scene, images: Tensor) -> Tensor:
    """(R, 2) mean absolute differences in [0, 1] outside the boxes of R objects, each removed by itself.

    From the scene drawn with the object, and from the image.

    Args:
        images: (B, C, H, W) in [0, 1], what the scenes are inferred from.
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
    """The first `count` scenes that have a first object, edited, a row an image.

    Raises:
        ValueError: fewer than two scenes have one.
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


@told
def main(arguments: list[str] | None = None) -> None:
    """Entry point."""
    a = of_run("analysis.papers.denf.fidelity", __doc__, scenes=200)
    a.add_argument("--figure", type=Path, metavar="FILE", help="draw edits of some scenes")
    o = a.parse_args(arguments)
    run = open_run(o.run)
    images = floats(run.unseen(o.scenes, o.seed), "cpu")
    pyro.set_rng_seed(o.seed)
    scene = infer(run.program, run.guide, images)
    if scene is None:
        raise ValueError(f"{o.run}: its program returns no Scene")
    found = 255 * removals(run.program, scene, images)
    if o.figure is not None:
        plots.save(edits_figure(run.program, images, scene), o.figure)
    if not len(found):
        print(f"no object was found in {o.scenes} scenes")
        return
    print(f"{len(found)} objects removed")
    for kind, change in zip(("scene as drawn", "image"), found.T, strict=True):
        mean, most = change.mean(), change.max()
        print(f"outside the box, of 255, from the {kind}: mean {mean:.3f}, at most {most:.3f}")


if __name__ == "__main__":
    sys.exit(main())
