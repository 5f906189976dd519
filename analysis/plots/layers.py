"""Scenes in layers, as ECON (von Kügelgen et al., 2020) shows them."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from matplotlib.figure import Figure
from torch import Tensor

from analysis.plots.scenes import (
    bare_axes,
    colour_of,
    coloured,
    draw_picture,
    first_scenes,
    name_picture,
)
from analysis.posterior import infer
from analysis.posterior.layers import (
    arranged,
    choices,
    choices_of,
    ground,
    objects_of,
    wholes,
    winners,
)
from programs.blocks import render
from programs.scene import Scene


def layers_figure(images: Tensor, scene: Scene, count: int = 6) -> Figure:
    """Scenes taken apart from the front to the back, one row per image, after ECON figure 4.

    The row shows the image, the reconstruction, then for every layer the image's pixels in its region and
    its object with its full shape, framed in the colour of its category; and last the background.

    Args:
        images: (B, C, H, W) in [0, 1].
        scene: the same images' scenes, with masks and shapes.
        count: largest number of rows.
    Raises:
        ValueError: the scene has no shapes.
    """
    if scene.objects.shape is None:
        raise ValueError("layers_figure needs full shapes; this scene has shape=None")
    images, scene = images[:count].detach().cpu(), first_scenes(scene, count)
    nodes, number = scene.objects, scene.objects.pres.shape[1]
    figure, rows = bare_axes(len(images), [1] * (2 * number + 3), title=True)
    for b, (seen, rebuilt, *cells, behind) in enumerate(rows):
        draw_picture(seen, images[b])
        draw_picture(rebuilt, scene.image[b])
        order = nodes.depth[b].argsort().tolist()
        for slot, region, whole in zip(order, cells[::2], cells[1::2], strict=True):
            if nodes.present[b, slot]:
                draw_picture(region, images[b] * nodes.mask[b, slot])
                kind = slot if nodes.category is None else int(nodes.category[b, slot])
                canvas = render.place(nodes.patch[b, slot], nodes.pose[b, slot], images.shape[-1])
                draw_picture(whole, canvas[:-1] * nodes.shape[b, slot], edge=colour_of(kind))
        if scene.background is not None:
            draw_picture(behind, scene.background[b])
    steps = [title for k in range(number) for title in (f"region {k + 1}", f"object {k + 1}")]
    for axes, title in zip(rows[0], ["input", "reconstruction", *steps, "background"], strict=True):
        axes.set_title(title, fontsize=9)
    return figure


PALE = 0.92, 0.78
"""Greys of the checkerboard."""
SQUARE = 8
"""Squares per side of the checkerboard."""


def experts_figure(program: Callable, count: int = 10) -> Figure:
    """Draws of every expert alone, one row per expert (figures 1B, 5 and 6)."""
    experts = range(program.config.experts)
    figure, rows = bare_axes(len(experts), [1] * count)
    for expert, row in zip(experts, rows, strict=True):
        for axes, colours, shape in zip(row, *objects_of(program, expert, count), strict=True):
            draw_picture(axes, _on_checkers(colours, shape), edge=colour_of(expert))
        name_picture(row[0], f"expert {expert}")
    return figure


def recombination_figure(program: Callable, count: int = 10, seed: int = 0) -> Figure:
    """Scenes by chosen experts in chosen orders, one row per choice (figure 1C).

    First every object expert once, each in front of the last; then the same number of random objects; then one
    more, and two more.

    Args:
        seed: seed of the choices.
    """
    rows_of = choices_of(program, count, torch.Generator().manual_seed(seed))
    figure, rows = bare_axes(len(rows_of), [1] * count)
    for (title, orders), row in zip(rows_of.items(), rows, strict=True):
        for axes, canvas in zip(row, arranged(program, orders), strict=True):
            draw_picture(axes, canvas[-1])
        name_picture(row[0], title)
    return figure


def growth_figure(program: Callable, objects: int = 5, count: int = 10, seed: int = 0) -> Figure:
    """Scenes that grow from the background by an object of a random expert per row (figure 7)."""
    generator = torch.Generator().manual_seed(seed)
    columns = arranged(program, choices(program, objects, count, generator))
    figure, rows = bare_axes(objects + 1, [1] * count)
    for column, canvases in zip(rows.T, columns, strict=True):
        for axes, canvas in zip(column, canvases, strict=True):
            draw_picture(axes, canvas)
    return figure


def steps_figure(program: Callable, guide: Callable, images: Tensor, count: int = 2) -> Figure:
    """The explanation of scenes from the front to the back, one row per step (figure 4).

    Left are the image, and the reconstruction below it. Then follow for every step the scope, the region in it
    that the winner explains, its reconstruction there, the whole object and its full shape. The last step
    explains the rest.

    Args:
        images: (B, C, S, S) in [0, 1], on the program's device.
        count: largest number of images.
    """
    images = images[:count]
    scene, experts = infer(program, guide, images).cpu(), winners(program, guide, images)
    images = images.cpu()
    number = experts.shape[1]
    figure, rows = bare_axes(number * len(images), [1] * 6, title=True)
    names = ["image", "scope", "region", "reconstruction", "object", "shape"]
    for axes, title in zip(rows[0], names, strict=True):
        axes.set_title(title, fontsize=9)
    for b, image in enumerate(images):
        block = rows[b * number : (b + 1) * number]
        draw_picture(block[0, 0], image)
        draw_picture(block[1, 0], scene.image[b])
        for row, steps, expert in zip(block, _steps(scene, image, b), experts[b], strict=True):
            for axes, picture in zip(row[1:], steps, strict=True):
                draw_picture(axes, picture, edge=colour_of(int(expert)))
            name_picture(row[2], f"expert {int(expert)}")
    return figure


def _steps(scene: Scene, image: Tensor, b: int) -> Iterator[tuple[Tensor, ...]]:
    """Scope, region, reconstruction, object and shape (C or 1, S, S) of every step, the front first."""
    colours, shapes = (t[b] for t in wholes(scene))
    colours = torch.cat([colours, scene.background[b : b + 1]])
    shapes = torch.cat([shapes, torch.ones_like(shapes[:1])])
    scope, nodes = torch.ones_like(shapes[0]), scene.objects
    for slot in [*nodes.depth[b].argsort().tolist(), -1]:
        region = scope if slot < 0 else scope * nodes.mask[b, slot]
        seen = (image, scope), (image, region), (scene.image[b], region)
        whole = _on_checkers(colours[slot], shapes[slot])
        yield *(_on_checkers(*pair) for pair in seen), whole, shapes[slot][None]
        scope = scope - region


def segments_figure(
    program: Callable, guide: Callable, images: Tensor, truth: Scene, layers: int, count: int = 5
) -> Figure:
    """Scenes taken apart with another number of layers than in training, one row per image (figure 8).

    The row shows the image, the reconstruction, true and inferred regions in one colour per object, and the
    whole objects from the front to the back. Regions of the background expert are black.

    Args:
        images: (B, C, S, S) in [0, 1], on the program's device.
        truth: the same images' true scenes, with masks.
        layers: T, the last included.
    """
    images, truth = images[:count], truth[:count].cpu()
    with program.placing(layers):
        scene, experts = infer(program, guide, images).cpu(), winners(program, guide, images)
    colours, shapes = wholes(scene)
    back, rank = ground(program), scene.objects.depth.argsort(1).argsort(1)
    names = ["image", "reconstruction", "true regions", "regions"]
    names += [f"object {t}" for t in range(1, layers)]
    figure, rows = bare_axes(len(images), [1] * len(names), title=True)
    for axes, title in zip(rows[0], names, strict=True):
        axes.set_title(title, fontsize=9)
    for b, (image, row) in enumerate(zip(images.cpu(), rows, strict=True)):
        objects = scene.objects.present[b] & (experts[b, rank[b]] != back)
        true = coloured(truth.objects.mask[b], truth.objects.present[b])
        pictures = image, scene.image[b], true, coloured(scene.objects.mask[b], objects)
        for axes, picture in zip(row, pictures, strict=False):
            draw_picture(axes, picture)
        order = scene.objects.depth[b].argsort().tolist()
        for axes, slot, expert in zip(row[4:], order, experts[b], strict=False):
            if scene.objects.present[b, slot]:
                whole = _on_checkers(colours[b, slot], shapes[b, slot])
                draw_picture(axes, whole, edge=colour_of(int(expert)))
    return figure


def _on_checkers(colours: Tensor, mask: Tensor) -> Tensor:
    """(C, S, S) colours where the mask (S, S) is 1, the checkerboard where it is 0."""
    size = mask.shape[-1]
    side = torch.arange(size) * SQUARE // size
    odd = (side + side[:, None]) % 2
    return mask * colours + (1 - mask) * torch.tensor(PALE)[odd]
