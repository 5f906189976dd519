"""Pictures of the GSGN paper: scene graphs (figures 2, 3, 7, 12), draws of the prior (5), the memory (8)."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from matplotlib.figure import Figure
from pyro.poutine.messenger import Messenger

from analysis import plots
from analysis.papers.gsgn.trainings import on_worlds, training
from analysis.papers.item import Item, Made, Request
from analysis.posterior import infer
from inference.runs import Trained
from programs.scene import Scene

SCENES = 5
"""Scenes of a picture, as in the paper."""
OBJECTS = 36
"""Objects of the prior in a picture."""
DREAMS = 16
"""Scenes of the prior in a picture."""
LOOKS = 6
"""Draws of a template's appearance."""


class Present(Messenger):
    """Around a program, make all its objects present."""

    def _pyro_sample(self, msg: dict) -> None:
        if msg["name"].startswith("z_pres"):
            msg["value"] = torch.ones_like(msg["fn"].sample())
            msg["done"] = True


def scene_graphs(title: str, model: str, world: str) -> Item:
    """Inferred scene graphs of unseen scenes of a world."""

    def make(runs: Mapping[str, Trained], request: Request) -> Made:
        run = runs[model]
        images = run.unseen(request.scenes or SCENES, request.seed).floats()
        scene = infer(run.program, run.guide, images)
        return Made(figures={"scene_graphs": plots.scene_graph_figure(images, scene, len(images))})

    return Item(title, {model: training(model, world)}, make)


def draws_of_the_prior(title: str) -> Item:
    """Objects of GSGN's prior beside those of SPACE-O's, and GSGN's scenes, in both worlds.

    In SPACE's prior almost no object is present, so its objects are made present.
    """

    def make(runs: Mapping[str, Trained], request: Request) -> Made:
        figures: dict[str, Figure] = {}
        for name, run in runs.items():
            file = name.lower().replace(" ", "_")
            flat = name.startswith("SPACE-O")
            scene = dreams(run.program, request.scenes or 4 * OBJECTS, present=flat)
            if scene.objects.present.any():
                figures[f"objects_of_{file}"] = plots.object_figure(scene, count=OBJECTS)
            if not flat:
                figures[f"scenes_of_{file}"] = plots.sample_figure(scene[:DREAMS])
        return Made(figures=figures)

    return Item(title, on_worlds(("GSGN", "SPACE-O")), make)


@torch.no_grad()
def dreams(program: Callable, number: int, present: bool = False) -> Scene:
    """Scenes of the prior, on the CPU; with all objects present if `present`."""
    if not present:
        return program(batch=number).cpu()
    with Present():
        return program(batch=number).cpu()


def memory(title: str, world: str) -> Item:
    """The templates that leaves point to: their shapes, and draws of their appearance."""

    def make(runs: Mapping[str, Trained], request: Request) -> Made:
        with torch.no_grad():
            patches = runs["GSGN-Mem"].program.memory.samples(LOOKS)
        return Made(figures={"memory": plots.memory_figure(patches.cpu())})

    return Item(title, {"GSGN-Mem": training("GSGN-Mem", world)}, make)
