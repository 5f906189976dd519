"""Pictures of Scenes.

Pictures are drawn in the image frame ([-1, 1], y down), so boxes need no conversion to pixels.

Shape legend: B images, N slots, C channels, H x W pixels of an image, h x w of a patch.
"""

from __future__ import annotations

import io
import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Polygon
from matplotlib.patheffects import withStroke
from torch import Tensor

from analysis.scores import level_names, owners
from inference import checkpoint
from programs.blocks import render
from programs.scene import Nodes, Scene

THIN = {"linewidth": 0.9}
"""Line style of the frames of levels between the first and the last."""
DASHED = {"linewidth": 0.9, "linestyle": (0, (3, 1.5))}
"""Line style of the frames of the last level."""

COLOURS = ("#ff9f1c", "#2ec4b6", "#e05cff", "#a6d854", "#4d9de0", "#ff5d73", "#f2e94e", "#b8b8ff")
"""Colours of slots, repeated after the last; visible on black and on white."""
CROP = 48
"""Pixels per side of a patch cut out of the image, for nodes without a patch."""
MOST = 6
"""Columns of objects; with more slots than this, only the present objects are shown."""
INCH = 1.4
"""Size of a picture in inches."""
DPI = 110
"""Dots per inch in files."""
MARGIN = 1.6
"""Inches at the left of strips, for their titles."""


def save(figure: Figure, path: str | Path) -> None:
    """Write the figure in the format that the name ends in."""
    path, data = Path(path), io.BytesIO()
    figure.savefig(data, format=path.suffix[1:] or None, dpi=DPI)
    checkpoint.write(path, data.getvalue())


def scene_graph_figure(images: Tensor, scene: Scene, count: int = 6) -> Figure:
    """Scene graphs, one row per image, after GSGN figure 2.

    The image with its boxes (the first level's solid, those of levels in between thin, the leaves'
    dashed, all in the first level's colour), the reconstruction, then for every slot of the first
    level the node's patch and beside it its descendants', one square per level: siblings share the square
    of their parent. Empty slots are blank. Patches are the nodes' own, or else cut out of the
    reconstruction.

    Args:
        images: (B, C, H, W) in [0, 1], the inputs.
        scene: the graphs of the same images, inferred or true.
        count: rows at most.
    """
    images, scene = images[:count].detach().cpu(), first_scenes(scene, count)
    width, columns = len(scene.levels), min(scene.objects.pres.shape[1], MOST)
    figure, rows = bare_axes(len(images), [1, 1] + [width] * columns, title=True)
    patches = [_patches(scene, nodes) for nodes in scene.levels]
    families, spots = _families(scene), _spots(scene)
    for b, (seen, rebuilt, *cells) in enumerate(rows):
        draw_picture(seen, images[b])
        draw_boxes(seen, scene, b)
        draw_picture(rebuilt, scene.image[b])
        for cell, slot in zip(cells, _slots(scene.objects, b, columns), strict=False):
            if not scene.objects.present[b, slot]:
                continue
            draw_picture(cell, patches[0][b, slot], edge=colour_of(slot))
            for level, nodes in list(enumerate(scene.levels))[1:]:
                own = nodes.present[b] & (families[level][b] == slot)
                for node in own.nonzero()[:, 0].tolist():
                    x, y, side = (2 * spots[level][b, node]).tolist()
                    corner = 2.1 * level - 1 + x, y - 1
                    draw_picture(cell, patches[level][b, node], corner, side)
            cell.set(xlim=(-1.1, 2.1 * width - 1), ylim=(1.1, -1.1))
    name = level_names(width)[0]
    titles = ["input", "reconstruction", *(f"{name} {k + 1}" for k in range(columns))]
    for axes, title in zip(rows[0], titles, strict=True):
        axes.set_title(title, fontsize=9)
    return figure


def reconstruction_figure(images: Tensor, scene: Scene, count: int = 8) -> Figure:
    """Images (B, C, H, W) above the means that were inferred for them."""
    images, scene = images[:count].detach().cpu(), first_scenes(scene, count)
    figure, rows = bare_axes(2, [1] * len(images))
    for b, (seen, rebuilt) in enumerate(rows.T):
        draw_picture(seen, images[b])
        draw_picture(rebuilt, scene.image[b])
    return figure


def sample_figure(scene: Scene, columns: int = 8, boxes: bool = False) -> Figure:
    """The scenes of a batch in a grid, for instance drawn from the prior; with boxes if asked."""
    scene = first_scenes(scene, len(scene))
    figure, rows = bare_axes(math.ceil(len(scene) / columns), [1] * columns)
    for b, axes in zip(range(len(scene)), rows.flat, strict=False):
        draw_picture(axes, scene.image[b])
        if boxes:
            draw_boxes(axes, scene, b)
    return figure


def object_figure(scene: Scene, columns: int = 12, count: int = 48) -> Figure:
    """Up to `count` present objects of the batch, each in its own frame, in a grid."""
    scene = first_scenes(scene, len(scene))
    patches = _patches(scene, scene.objects)[scene.objects.present][:count]
    figure, rows = bare_axes(max(1, math.ceil(len(patches) / columns)), [1] * columns)
    for patch, axes in zip(patches, rows.flat, strict=False):
        draw_picture(axes, patch)
    return figure


def memory_figure(patches: Tensor) -> Figure:
    """Templates and their appearances (GSGN, figure 8): the shape above, samples of its prior below.

    Args:
        patches: (M, count, 4, h, w), the mask last: ``program.memory.samples(count)``.
    """
    columns, rows = patches.shape[:2]
    figure, axes = bare_axes(rows + 1, [1] * columns)
    for m in range(columns):
        draw_picture(axes[0, m], patches[m, 0, -1:].expand(3, -1, -1))
        for row in range(rows):
            draw_picture(axes[row + 1, m], patches[m, row, :-1])
    return figure


def edit_figure(scenes: Mapping[str, Scene]) -> Figure:
    """A batch edited in several ways, side by side with titles, one row per image (after GSGN figure 4).

    Args:
        scenes: by title, as many images in each, drawn already by `analysis.edit.render`.
    """
    return pictures_figure({title: scene.image for title, scene in scenes.items()})


def pictures_figure(columns: Mapping[str, Tensor]) -> Figure:
    """Pictures (B, C, H, W) by title, as many in each, side by side, one row per image."""
    number = len(next(iter(columns.values())))
    figure, rows = bare_axes(number, [1] * len(columns), title=True)
    for (title, pictures), column in zip(columns.items(), rows.T, strict=True):
        column[0].set_title(title, fontsize=9)
        for picture, axes in zip(pictures.detach().cpu(), column, strict=True):
            draw_picture(axes, picture)
    return figure


def strips_figure(strips: Mapping[str, Tensor], columns: int = 10) -> Figure:
    """Pictures (n, C, H, W) by title, `columns` per line, the title at the left of its first line."""
    lines = [
        (title if k == 0 else "", part)
        for title, pictures in strips.items()
        for k, part in enumerate(pictures.detach().cpu().split(columns))
    ]
    figure, rows = bare_axes(len(lines), [1] * max(len(part) for _, part in lines))
    width, height = figure.get_size_inches()
    figure.set_size_inches(width + MARGIN, height)
    figure.subplots_adjust(left=MARGIN / (width + MARGIN))
    for (title, part), row in zip(lines, rows, strict=True):
        place = {"transform": row[0].transAxes, "ha": "right", "va": "center"}
        row[0].text(-0.06, 0.5, title, fontsize=9, **place)
        for picture, axes in zip(part, row, strict=False):
            draw_picture(axes, picture)
    return figure


def first_scenes(scene: Scene, count: int) -> Scene:
    """The first scenes, on the CPU and without gradients."""
    return scene[:count].map(lambda t: t.detach().cpu())


def _patches(scene: Scene, nodes: Nodes) -> Tensor:
    """(B, N, C, h, w) a node's picture in its own frame, black where it is transparent."""
    if nodes.patch is not None:
        return nodes.patch[:, :, :-1] * nodes.patch[:, :, -1:]
    return render.crop(scene.image[:, None], nodes.pose[:, None], CROP)[:, 0]


def _families(scene: Scene) -> list[Tensor]:
    """(B, N) per level: the ancestor of each node in the first level."""
    number = range(1, len(scene.levels))
    first = torch.arange(scene.objects.pres.shape[1]).expand(scene.objects.pres.shape)
    return [first, *(owners(replace(scene, levels=scene.levels[: k + 1])) for k in number)]


def _spots(scene: Scene) -> list[Tensor]:
    """(B, N, 3) per level: left, top and side of a node's square, in the unit square of its family.

    Siblings divide their parent's square into as many squares as the largest family of a level needs.
    """
    first = torch.tensor([0.0, 0.0, 1.0]).expand(*scene.objects.pres.shape, 3)
    spots = [first]
    for nodes in scene.levels[1:]:
        siblings = nodes.parent[:, :, None] == nodes.parent[:, None]
        place = siblings.tril(-1).sum(-1)  # (B, N): how many come before
        number = math.isqrt(int(place.max())) + 1  # squares per side
        above = spots[-1].gather(1, nodes.parent[..., None].expand(-1, -1, 3))
        side = above[..., 2] / number
        corner = torch.stack([place % number, place // number], -1)
        spots.append(torch.cat([above[..., :2] + corner * side[..., None], side[..., None]], -1))
    return spots


def _slots(objects: Nodes, image: int, columns: int) -> list[int]:
    """The objects to show: one column per slot, or the present objects if there are too many slots."""
    if objects.pres.shape[1] <= columns:
        return list(range(columns))
    return objects.present[image].nonzero()[:columns, 0].tolist()


def bare_axes(rows: int, widths: list[int], title: bool = False) -> tuple[Figure, np.ndarray]:
    """A figure and its bare axes (rows, columns), closely packed; `widths` are in pictures."""
    head = 0.3 if title else 0.05  # inches
    size = INCH * sum(widths), INCH * rows + head + 0.05
    figure = Figure(figsize=size)
    axes = figure.subplots(rows, len(widths), squeeze=False, width_ratios=widths)
    top, bottom = 1 - head / size[1], 0.05 / size[1]
    figure.subplots_adjust(
        left=0.005, right=0.995, bottom=bottom, top=top, wspace=0.03, hspace=0.03
    )
    for one in axes.flat:
        one.set_axis_off()
    return figure, axes


def draw_picture(
    axes: Axes,
    picture: Tensor,
    corner: tuple[float, float] = (-1, -1),
    side: float = 2,
    edge: str | None = None,
) -> None:
    """Draw (C, H, W) into the square of that side and upper left corner, framed if asked."""
    pixels = picture.clamp(0, 1).expand(3, -1, -1).permute(1, 2, 0).numpy()
    (x, y), gap = corner, 0.03 * (side < 2)
    box = (x + gap, x + side - gap, y + side - gap, y + gap)
    axes.imshow(pixels, extent=box, interpolation="nearest")
    if edge:
        axes.add_patch(
            _outline([(box[i], box[j]) for i, j in ((0, 3), (1, 3), (1, 2), (0, 2))], edge)
        )


def draw_boxes(axes: Axes, scene: Scene, image: int) -> None:
    """Frames of the present nodes, leaves first, in their first ancestors' colours."""
    last, families = len(scene.levels) - 1, _families(scene)
    for level in range(last, -1, -1):
        nodes, style = scene.levels[level], {} if level == 0 else THIN
        if 0 < level == last:
            style = DASHED
        for slot in nodes.present[image].nonzero()[:, 0].tolist():
            colour = colour_of(int(families[level][image, slot]))
            axes.add_patch(_outline(nodes.corners[image, slot], colour, **style))


def _outline(points: object, colour: str, **style: object) -> Polygon:
    return Polygon(points, fill=False, edgecolor=colour, **{"linewidth": 1.6, **style})


def coloured(masks: Tensor, shown: Tensor) -> Tensor:
    """(3, S, S) the shown (N,) regions of (N, S, S), each in its slot's colour, on black."""
    colours = torch.tensor([to_rgb(colour_of(slot)) for slot in range(len(masks))])
    return torch.einsum("nhw,nc->chw", (masks * shown[:, None, None]).float(), colours)


def name_picture(axes: Axes, text: str) -> None:
    """Write into the lower left corner of a picture."""
    style = {"fontsize": 8, "color": "white"}
    outline = [withStroke(linewidth=2, foreground="black")]
    axes.text(-0.92, 0.94, text, va="bottom", path_effects=outline, **style)


def colour_of(slot: int) -> str:
    """A slot's colour, in all pictures the same."""
    return COLOURS[slot % len(COLOURS)]
