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

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

import pyro
import torch
from matplotlib.figure import Figure
from torch import Tensor

from analysis import edit, plots
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


def main(arguments: list[str] | None = None) -> int:
    """Entry point."""
    a = argparse.ArgumentParser(
        prog="python -m analysis.papers.denf.fidelity", description=__doc__.split("\n")[0]
    )
    a.add_argument("run", metavar="RUN", help="run folder, or name of a run in programs/trained")
    a.add_argument("--scenes", type=int, default=200, metavar="N")
    a.add_argument("--seed", type=int, default=0, metavar="S")
    a.add_argument("--figure", type=Path, metavar="FILE", help="draw edits of some scenes")
    options = a.parse_args(arguments)
    try:
        run = open_run(options.run)
        program, guide = run.program, run.guide
        data = run.unseen(options.scenes, options.seed)
        pyro.set_rng_seed(options.seed)
        images = floats(data, "cpu")
        scene = infer(program, guide, images)
        if scene is None:
            raise ValueError(f"{options.run}: its program returns no Scene")
        found = 255 * removals(program, scene, images)
        if options.figure is not None:
            plots.save(edits_figure(program, images, scene), options.figure)
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    if not len(found):
        print(f"no object was found in {options.scenes} scenes")
        return 0
    print(f"{len(found)} objects removed")
    for kind, change in zip(("scene as drawn", "image"), found.T, strict=True):
        mean, most = change.mean(), change.max()
        print(f"outside the box, of 255, from the {kind}: mean {mean:.3f}, at most {most:.3f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
