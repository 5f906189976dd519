"""Scenes that need no learning, as a floor for metrics of segmentation on flat objects.

`by_colour` takes every distinct colour for an object. `round_objects` draws one circle for all objects, at
their true places and depths. A program has learned to segment only where it is above the first, and has learned
shapes only where it is above the second.

Shape legend: B images, N slots, H x W pixels.
"""

from __future__ import annotations

import math
from dataclasses import replace

import torch
from torch import Tensor

from analysis.scores.metrics import scene_metrics
from programs.blocks import render
from programs.scene import Nodes, Scene

CRUMB = 0.004
"""Smallest share of an image that a colour must have to be an object."""


def by_colour(images: Tensor) -> Scene:
    """Every distinct colour is an object, but the one of the most pixels.

    Args:
        images: (B, C, H, W) in [0, 1], of flat colours in 256 steps.
    """
    pixels = (images * 255).round().long()
    code = (pixels * 256 ** torch.arange(images.shape[1])[:, None, None]).sum(1)
    found = []
    for picture in code:
        colours, count = picture.unique(return_counts=True)
        colours = colours[count >= CRUMB * picture.numel()]
        count = count[count >= CRUMB * picture.numel()]
        found.append(picture == colours[count.argsort(descending=True)][1:, None, None])
    most = max(1, *map(len, found))
    mask = torch.stack([torch.cat([m, m.new_zeros(most - len(m), *m.shape[1:])]) for m in found])
    return _scene(images, mask.float(), mask.float(), torch.arange(most).expand(len(images), -1))


def round_objects(truth: Scene) -> Scene:
    """One circle for every object, of the objects' mean area, at its true place and depth."""
    nodes, size = truth.objects, truth.image.shape[-1]
    area = nodes.shape[nodes.present].float().sum((-2, -1)).mean()
    radius = float((area / math.pi).sqrt()) * 2 / size
    x, y = render.pixel_axes(size)
    away = (x - nodes.centre[..., :1, None]).square() + (y - nodes.centre[..., 1:, None]).square()
    shape = (away <= radius**2) & nodes.present[..., None, None]
    front = (
        nodes.depth[:, :, None] > nodes.depth[:, None]
    )  # (B, N, N) whether the second is in front
    covered = torch.einsum("bnm,bmhw->bnhw", front.float(), shape.float()) > 0
    scene = _scene(truth.image, (shape & ~covered).float(), shape.float(), nodes.depth)
    return replace(scene, levels=(replace(scene.objects, pres=nodes.pres),))


def simple_scores(images: Tensor, truth: Scene) -> dict[str, dict[str, float]]:
    """Metrics of `by_colour` and of `round_objects`, by name: "every colour", "one circle"."""
    scenes = {"every colour": by_colour(images), "one circle": round_objects(truth)}
    return {name: scene_metrics(scene, truth) for name, scene in scenes.items()}


def _scene(images: Tensor, mask: Tensor, shape: Tensor, depth: Tensor) -> Scene:
    """Objects with these visible masks and full shapes (B, N, H, W), without categories."""
    pres = mask.flatten(2).any(-1).float()
    root = torch.zeros(pres.shape, dtype=torch.long)
    nodes = Nodes(pres, render.box(shape), depth.float(), root, mask=mask, shape=shape)
    return Scene(images, (nodes,), torch.zeros_like(images))
