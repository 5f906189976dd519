"""A grid with one column per image and one row per kind of picture; numbers are drawn as heat maps."""

from __future__ import annotations

from collections.abc import Mapping

from matplotlib import colormaps
from matplotlib.figure import Figure
from torch import Tensor

from analysis.plots.scenes import bare_axes, draw_boxes, draw_picture, first_scenes, name_picture
from programs.scene import Scene


def maps_figure(rows: Mapping[str, Tensor], boxed: Mapping[str, Scene] | None = None) -> Figure:
    """Pictures (B, C, H, W) and maps (B, h, w) by name, one row per name (after DeNF, figures 3 and 4).

    The colours of a map range from the least to the greatest number of its row; both are printed with its name.

    Args:
        boxed: name of a row -> scenes of the same images, whose boxes are drawn on that row.
    """
    number = len(next(iter(rows.values())))
    figure, table = bare_axes(len(rows), [1] * number)
    for (name, pictures), line in zip(rows.items(), table, strict=True):
        pictures, title = pictures.detach().cpu(), name
        if pictures.ndim == 3:
            low, high = float(pictures.min()), float(pictures.max())
            title = f"{name}\n{low:.2g} to {high:.2g}"
            pictures = heat((pictures - low) / max(high - low, 1e-12))
        for b, axes in enumerate(line):
            draw_picture(axes, pictures[b])
            if boxed and name in boxed:
                draw_boxes(axes, first_scenes(boxed[name], number), b)
        name_picture(line[0], title)
    return figure


def heat(values: Tensor) -> Tensor:
    """(B, h, w) in [0, 1] -> colours (B, 3, h, w)."""
    return values.new_tensor(colormaps["viridis"](values.numpy())[..., :3]).movedim(-1, 1)
