"""Layers: what each expert draws alone, which expert paints the background, how scenes are built up."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from pyro import poutine
from torch import Tensor
from torch.nn import functional as F

from analysis.posterior.draws import Mode
from programs.blocks import render
from programs.scene import Scene

PROBES = 32
"""Draws per expert used to find the background expert."""


def has_layers(program: object, scene: Scene | None) -> bool:
    """Whether these pictures can be drawn for a program, and for a scene that it returned."""
    if scene is None or not scene.levels or not hasattr(program, "arrange"):
        return False
    nodes = scene.objects
    return all(part is not None for part in (nodes.shape, nodes.mask, nodes.patch))


@torch.no_grad()
def objects_of(program: Callable, expert: int, number: int) -> tuple[Tensor, Tensor]:
    """Draws of one expert: colours (B, C, S, S) and full shapes m̃ (B, S, S) of `number` draws."""
    scene = program.arrange([expert, expert], number).cpu()
    colours, shapes = wholes(scene)
    return colours[:, 0], shapes[:, 0]


def ground(program: Callable) -> int:
    """The background expert: of the learned p(k_1) the most likely, else that whose shapes cover the most."""
    experts = range(program.config.experts)
    if program.config.learned:
        return int(program.p_cat(1, 1).logits.argmax())
    return max(experts, key=lambda k: float(objects_of(program, k, PROBES)[1].mean()))


def roles(program: Callable) -> tuple[int, list[int]]:
    """The background expert, and the object experts: the others, or the same if it is the only one."""
    back = ground(program)
    return back, [k for k in range(program.config.experts) if k != back] or [back]


def wholes(scene: Scene) -> tuple[Tensor, Tensor]:
    """Colours (B, N, C, S, S) and full shapes (B, N, S, S) of all objects, present or not, hidden parts too.

    Nodes have colours inside their frames; outside, the colours at the edges continue.
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
    """For each order of experts, from the back, (N + 1, C, S, S): the growth of a scene by these experts."""
    return [growth(program.arrange(order).cpu())[0] for order in orders]


def winners(program: Callable, guide: Callable, images: Tensor) -> Tensor:
    """(B, T) index of the expert that explains each layer, the front first, at the guide's mode.

    Args:
        images: (B, C, S, S) in [0, 1], on the program's device.
    """
    with torch.no_grad(), Mode():
        nodes = poutine.trace(guide).get_trace(images).nodes
    cats = [nodes[f"z_cat_{t}"]["value"] for t in range(program.layers, 0, -1)]
    return torch.stack([cat.flatten(1).argmax(1) for cat in cats], 1).cpu()


def choices(program: Callable, objects: int, count: int, generator: torch.Generator) -> list:
    """`count` orders of experts, from the back: the background expert, then `objects` random ones."""
    back, fronts = roles(program)
    drawn = torch.randint(len(fronts), (count, objects), generator=generator).tolist()
    return [[back, *(fronts[i] for i in row)] for row in drawn]


def choices_of(program: Callable, count: int, generator: torch.Generator) -> dict[str, list]:
    """Orders of experts by title: each once, then more objects at random."""
    (back, fronts), number = roles(program), program.config.experts
    n = len(fronts) if number > 1 else program.layers - 1
    result = {"each once": [[back, *fronts]] * count} if number > 1 else {}
    return result | {
        f"{m} objects": choices(program, m, count, generator) for m in (n, n + 1, n + 2)
    }
