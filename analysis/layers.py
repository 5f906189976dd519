"""Pictures of scenes in layers whose objects have full shapes: the figures of ECON (von Kügelgen et al., 2020).

For programs with `arrange(experts, batch)`, which samples scenes by chosen experts in a chosen order, `layers`,
the number that they place, `placing(layers)` for another number, and `config.experts`. Sampled scenes are shown
at their mean over shapes, given all else: shapes are independent, so it is x <- m̃_t ⊙ μ_t + (1 - m̃_t) ⊙ x from
the back to the front. A checkerboard is where nothing is. Frames have a colour an expert.

Shape legend: B scenes, N layers before the last, C colours, S pixels a side.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import torch
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke
from pyro import poutine
from torch import Tensor
from torch.nn import functional as F

from analysis import plots
from analysis.posterior import Mode, infer
from programs import render
from programs.scene import Scene

PALE, SQUARE = (0.92, 0.78), 8
"""Greys of the checkerboard, and its squares a side."""
PROBES = 32
"""Objects of every expert that are drawn to find out who paints backgrounds."""


def has_layers(program: object, scene: Scene | None) -> bool:
    """Whether the pictures here can be drawn of a program, and of a scene that it returned."""
    if scene is None or not scene.levels or not hasattr(program, "arrange"):
        return False
    nodes = scene.objects
    return all(part is not None for part in (nodes.shape, nodes.mask, nodes.patch))


@torch.no_grad()
def objects_of(program: Callable, expert: int, number: int) -> tuple[Tensor, Tensor]:
    """What one expert draws: colours (B, C, S, S) and full shapes m̃ (B, S, S) of `number` draws."""
    scene = _cpu(program.arrange([expert, expert], number))
    colours, shapes = wholes(scene)
    return colours[:, 0], shapes[:, 0]


def ground(program: Callable) -> int:
    """The expert of backgrounds: the one whose shapes cover the most."""
    experts = range(program.config.experts)
    return max(experts, key=lambda k: float(objects_of(program, k, PROBES)[1].mean()))


def roles(program: Callable) -> tuple[int, list[int]]:
    """The expert of backgrounds, and those of objects: the others, or the same where it is alone."""
    back = ground(program)
    return back, [k for k in range(program.config.experts) if k != back] or [back]


def wholes(scene: Scene) -> tuple[Tensor, Tensor]:
    """Colours (B, N, C, S, S) and full shapes (B, N, S, S) of all objects, present or not, hidden parts too.

    Nodes know their colours inside their frames; farther out those at the edges go on.
    """
    nodes, size = scene.objects, scene.image.shape[-1]
    grid = render.pixel_grid(render.inverse(nodes.pose), size).flatten(0, 1)
    patch = nodes.patch[:, :, :-1].flatten(0, 1)
    colours = F.grid_sample(patch, grid, align_corners=False, padding_mode="border")
    return colours.unflatten(0, nodes.pres.shape), nodes.shape


def growth(scene: Scene) -> Tensor:
    """(B, N + 1, C, S, S) the canvas after each layer: the background first, the whole scene last (eq. 3)."""
    colours, shapes = wholes(scene)
    return render.paint(scene.background, colours, shapes, scene.objects.depth)


@torch.no_grad()
def arranged(program: Callable, orders: Sequence[Sequence[int]]) -> list[Tensor]:
    """For each order of experts, from the back, (N + 1, C, S, S): how a scene of theirs grows."""
    return [growth(_cpu(program.arrange(order)))[0] for order in orders]


def winners(program: Callable, guide: Callable, images: Tensor) -> Tensor:
    """(B, T) which expert explains each layer, the front first, at the guide's mode.

    Args:
        images: (B, C, S, S) in [0, 1], on the program's device.
    """
    with torch.no_grad(), Mode():
        nodes = poutine.trace(guide).get_trace(images).nodes
    cats = [nodes[f"z_cat_{t}"]["value"] for t in range(program.layers, 0, -1)]
    return torch.stack([cat.flatten(1).argmax(1) for cat in cats], 1).cpu()


def experts_figure(program: Callable, count: int = 10) -> Figure:
    """Draws of every expert alone, a row an expert (figures 1B, 5 and 6)."""
    experts = range(program.config.experts)
    figure, rows = plots._grid(len(experts), [1] * count)
    for expert, row in zip(experts, rows, strict=True):
        for axes, colours, shape in zip(row, *objects_of(program, expert, count), strict=True):
            plots._show(axes, _on_checkers(colours, shape), edge=plots._colour(expert))
        _name(row[0], f"expert {expert}")
    return figure


def recombination_figure(program: Callable, count: int = 10, seed: int = 0) -> Figure:
    """Scenes by chosen experts in chosen orders, a row a choice (figure 1C).

    Every expert of objects once, each before the last; then as many objects at random; then one more, and two.

    Args:
        seed: of the choices.
    """
    rows_of = _choices(program, count, torch.Generator().manual_seed(seed))
    figure, rows = plots._grid(len(rows_of), [1] * count)
    for (title, orders), row in zip(rows_of.items(), rows, strict=True):
        for axes, canvas in zip(row, arranged(program, orders), strict=True):
            plots._show(axes, canvas[-1])
        _name(row[0], title)
    return figure


def choices(program: Callable, objects: int, count: int, generator: torch.Generator) -> list:
    """`count` orders of experts, from the back: that of backgrounds, then `objects` at random."""
    back, fronts = roles(program)
    drawn = torch.randint(len(fronts), (count, objects), generator=generator).tolist()
    return [[back, *(fronts[i] for i in row)] for row in drawn]


def _choices(program: Callable, count: int, generator: torch.Generator) -> dict[str, list]:
    (back, fronts), number = roles(program), program.config.experts
    n = len(fronts) if number > 1 else program.layers - 1
    result = {"each once": [[back, *fronts]] * count} if number > 1 else {}
    return result | {
        f"{m} objects": choices(program, m, count, generator) for m in (n, n + 1, n + 2)
    }


def growth_figure(program: Callable, objects: int = 5, count: int = 10, seed: int = 0) -> Figure:
    """Scenes that grow from the background by an object of a random expert a row (figure 7)."""
    generator = torch.Generator().manual_seed(seed)
    columns = arranged(program, choices(program, objects, count, generator))
    figure, rows = plots._grid(objects + 1, [1] * count)
    for column, canvases in zip(rows.T, columns, strict=True):
        for axes, canvas in zip(column, canvases, strict=True):
            plots._show(axes, canvas)
    return figure


def steps_figure(program: Callable, guide: Callable, images: Tensor, count: int = 2) -> Figure:
    """How scenes are explained from the front to the back, a row a step (figure 4).

    Left the image, and the reconstruction below it. Then of every step the scope, the region in it that the
    winner explains, its reconstruction there, the whole object and its full shape. The last step takes what is
    left.

    Args:
        images: (B, C, S, S) in [0, 1], on the program's device.
        count: images at most.
    """
    images = images[:count]
    scene, experts = _cpu(infer(program, guide, images)), winners(program, guide, images)
    images = images.cpu()
    number = experts.shape[1]
    figure, rows = plots._grid(number * len(images), [1] * 6, title=True)
    names = ["image", "scope", "region", "reconstruction", "object", "shape"]
    for axes, title in zip(rows[0], names, strict=True):
        axes.set_title(title, fontsize=9)
    for b, image in enumerate(images):
        block = rows[b * number : (b + 1) * number]
        plots._show(block[0, 0], image)
        plots._show(block[1, 0], scene.image[b])
        for row, steps, expert in zip(block, _steps(scene, image, b), experts[b], strict=True):
            for axes, picture in zip(row[1:], steps, strict=True):
                plots._show(axes, picture, edge=plots._colour(int(expert)))
            _name(row[2], f"expert {int(expert)}")
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
    """Scenes taken apart with another number of layers than in training, a row an image (figure 8).

    The image, the reconstruction, true and inferred regions in a colour an object, and the whole objects from
    the front to the back. What the expert of backgrounds explains is black.

    Args:
        images: (B, C, S, S) in [0, 1], on the program's device.
        truth: of the same images, with masks.
        layers: T, the last included.
    """
    images, truth = images[:count], _cpu(truth[:count])
    with program.placing(layers):
        scene, experts = _cpu(infer(program, guide, images)), winners(program, guide, images)
    colours, shapes = wholes(scene)
    back, rank = ground(program), scene.objects.depth.argsort(1).argsort(1)
    names = ["image", "reconstruction", "true regions", "regions"]
    names += [f"object {t}" for t in range(1, layers)]
    figure, rows = plots._grid(len(images), [1] * len(names), title=True)
    for axes, title in zip(rows[0], names, strict=True):
        axes.set_title(title, fontsize=9)
    for b, (image, row) in enumerate(zip(images.cpu(), rows, strict=True)):
        objects = scene.objects.present[b] & (experts[b, rank[b]] != back)
        true = _coloured(truth.objects.mask[b], truth.objects.present[b])
        pictures = image, scene.image[b], true, _coloured(scene.objects.mask[b], objects)
        for axes, picture in zip(row, pictures, strict=False):
            plots._show(axes, picture)
        order = scene.objects.depth[b].argsort().tolist()
        for axes, slot, expert in zip(row[4:], order, experts[b], strict=False):
            if scene.objects.present[b, slot]:
                whole = _on_checkers(colours[b, slot], shapes[b, slot])
                plots._show(axes, whole, edge=plots._colour(int(expert)))
    return figure


def _coloured(masks: Tensor, shown: Tensor) -> Tensor:
    """(3, S, S) those regions of (N, S, S) that are shown (N,), each in its slot's colour, on black."""
    colours = [to_rgb(plots._colour(slot)) for slot in range(len(masks))]
    return torch.einsum(
        "nhw,nc->chw", (masks * shown[:, None, None]).float(), torch.tensor(colours)
    )


def _on_checkers(colours: Tensor, mask: Tensor) -> Tensor:
    """(C, S, S) colours where the mask (S, S) is 1, the checkerboard where it is 0."""
    size = mask.shape[-1]
    side = torch.arange(size) * SQUARE // size
    odd = (side + side[:, None]) % 2
    return mask * colours + (1 - mask) * torch.tensor(PALE)[odd]


def _name(axes: Axes, text: str) -> None:
    """Write into the lower left corner of a picture."""
    style = {
        "fontsize": 8,
        "color": "white",
        "path_effects": [withStroke(linewidth=2, foreground="black")],
    }
    axes.text(-0.92, 0.9, text, **style)


def _cpu(scene: Scene) -> Scene:
    return scene.map(lambda t: t.detach().cpu())
