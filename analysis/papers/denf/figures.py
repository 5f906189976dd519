"""Figures 3 to 6 of the DeNF paper: maps of the latents, backgrounds, and scenes of one object."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from matplotlib.figure import Figure
from torch import Tensor

from analysis import plots
from analysis.papers.denf.fidelity import alone
from analysis.papers.explained import explained
from analysis.papers.item import Made, Request
from inference.runs import Trained
from programs.blocks.flows import dequantised
from programs.scene import Scene

SCENES = 8
"""Scenes of a figure, one per column."""
MOST = 6
"""Largest number of one-object scenes per image."""

Runs = Mapping[str, Trained]


def of_each(draw: Callable[[Trained, Tensor, Scene], Figure]) -> Callable[[Runs, Request], Made]:
    """A function that makes a picture of each run, from unseen images and the scenes inferred from them."""

    def make(runs: Runs, request: Request) -> Made:
        figures = {}
        for name, run in runs.items():
            data = run.unseen(request.scenes or SCENES, request.seed)
            _, images, scene = explained(run, data, request.seed)
            figures[name.lower().replace(" ", "_")] = draw(run, images, scene)
        return Made((), figures)

    return make


def maps(run: Trained, images: Tensor, scene: Scene) -> Figure:
    """Images, boxes, foreground, maps of the latents and backgrounds, one column per image (figures 3 and
    4)."""
    present = scene.objects.present
    pairs = zip(scene.objects.mask, present, strict=True)
    rows = {"image": images, "boxes": images}
    rows["foreground"] = torch.stack([plots.coloured(mask > 0.5, shown) for mask, shown in pairs])
    rows |= latent_maps(run.program, images)
    rows["background"] = scene.background
    return plots.maps_figure(rows, {"boxes": scene})


@torch.no_grad()
def latent_maps(program: Callable, images: Tensor) -> dict[str, Tensor]:
    """(B, h, w) per name: probability of presence, and norms of z_scale, z_loc and z_what."""
    noise = torch.full_like(images, 0.5)
    parts = program.infer(dequantised(images, noise))
    logit = (program.presence + parts.logit).unflatten(-1, parts.scale.shape[-2:])
    norms = {
        f"norm of z_{name}": getattr(parts, name).norm(dim=-3) for name in ("scale", "loc", "what")
    }
    return {"z_pres": logit.sigmoid(), **norms}


def backgrounds(run: Trained, images: Tensor, scene: Scene) -> Figure:
    """Images above the backgrounds that are generated from them (figure 5)."""
    return plots.maps_figure({"image": images, "background": scene.background})


def single(run: Trained, images: Tensor, scene: Scene) -> Figure:
    """Images, and scenes with one of their objects only, one row per image (figure 6)."""
    columns = {"image": images, "inferred": scene.image}
    for slot, pictures in enumerate(alone(run.program, scene)):
        if slot == MOST:
            break
        there = scene.objects.present[:, slot, None, None, None]
        columns[f"object {slot + 1}"] = pictures.where(there, torch.ones_like(pictures))
    return plots.pictures_figure(columns)
