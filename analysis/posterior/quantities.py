"""Test quantities: numbers that describe an image or a Scene and do not depend on the order of slots.

A quantity is a function of a batch that returns one value or array per image. Quantities of Scenes do not
change when slots are permuted, so draws of a posterior can be averaged and ranked; quantities of images
need no inference, so observations, replicates and samples of the prior can be compared.

Shape legend: B images, N slots, C channels, H x W pixels.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from itertools import product

from torch import Tensor
from torch.nn import functional as F

from programs.blocks import render
from programs.scene import Nodes, Scene

CELLS = 8
"""Cells per side of the map of occupancy."""


def n_objects(scene: Scene) -> Tensor:
    """(B,) int64 number of present objects."""
    return scene.objects.present.sum(1)


def n_parts(scene: Scene) -> Tensor:
    """(B,) int64 number of present parts."""
    return scene.parts.present.sum(1)


def covered_area(scene: Scene) -> Tensor:
    """(B,) share of the image that objects cover."""
    return _cover(scene).mean((1, 2))


def occupancy(scene: Scene) -> Tensor:
    """(B, `CELLS`, `CELLS`) share of each cell of a grid on the image that objects cover."""
    return F.adaptive_avg_pool2d(_cover(scene), CELLS)


def centroid(scene: Scene) -> Tensor:
    """(B, 2) mean centre (x, y) of the present objects, in the image frame; (0, 0) without objects."""
    return _mean(scene.objects, scene.objects.centre)


def object_size(scene: Scene) -> Tensor:
    """(B,) mean half-width of the present objects, in the image frame; 0 without objects."""
    return _mean(scene.objects, scene.objects.extent).mean(-1)


def brightness(images: Tensor) -> Tensor:
    """(B,) mean of all pixels and channels."""
    return images.mean((1, 2, 3))


def contrast(images: Tensor) -> Tensor:
    """(B,) standard deviation of all pixels and channels."""
    return images.std((1, 2, 3), correction=0)


def colour(images: Tensor) -> Tensor:
    """(B, C) mean of each channel."""
    return images.mean((2, 3))


def edge_energy(images: Tensor) -> Tensor:
    """(B,) mean squared difference of neighbouring pixels, down and across."""
    down, across = images.diff(dim=2).square(), images.diff(dim=3).square()
    return down.mean((1, 2, 3)) + across.mean((1, 2, 3))


OF_SCENES: dict[str, Callable[[Scene], Tensor]] = {
    f.__name__: f for f in (n_objects, n_parts, covered_area, occupancy, centroid, object_size)
}
NUMBERS = {name: fn for name, fn in OF_SCENES.items() if name != "occupancy"}
"""Quantities of Scenes that are a few numbers, not a map."""
OF_IMAGES: dict[str, Callable[[Tensor], Tensor]] = {
    f.__name__: f for f in (brightness, contrast, colour, edge_energy)
}


def measure(scene: Scene, which: Mapping[str, Callable] = OF_SCENES) -> dict[str, Tensor]:
    """The quantities that this scene has: those of parts need a level of parts, those of area need masks."""
    names = set(which)
    if not scene.levels:
        return {}
    if scene.parts is None:
        names.discard("n_parts")
    if scene.objects.mask is None:
        if scene.levels[-1].patch is None:
            names -= {"covered_area", "occupancy"}
        else:
            scene = scene.with_masks(render.visible_masks(scene))
    return {name: which[name](scene) for name in which if name in names}


def scalars(measured: Mapping[str, Tensor], lead: int) -> dict[str, Tensor]:
    """Split arrays into numbers: (*lead, 2) named ``centroid`` becomes ``centroid[0]`` and ``centroid[1]``,
    (*lead).

    Args:
        lead: number of leading dimensions, of images and draws.
    """
    found = {}
    for name, value in measured.items():
        for index in product(*map(range, value.shape[lead:])):
            label = f"{name}[{','.join(map(str, index))}]" if index else name
            found[label] = value[(..., *index)]
    return found


def _cover(scene: Scene) -> Tensor:
    """(B, H, W) in [0, 1]: share of a pixel that belongs to present objects."""
    masks = scene.objects.mask.float() * scene.objects.present[..., None, None]
    return masks.sum(1).clamp(max=1)


def _mean(nodes: Nodes, value: Tensor) -> Tensor:
    """(B, F) mean of (B, N, F) over the present nodes, 0 without any."""
    present = nodes.present.unsqueeze(-1)
    return (value * present).sum(1) / present.sum(1).clamp(min=1)
