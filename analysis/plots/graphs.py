"""Objects as graphs (Discrete-AIR, figures 3 to 5).

Nodes are labelled with their codes, edges with the relations they encode.
"""

from __future__ import annotations

import math
import textwrap
from collections.abc import Mapping, Sequence

import torch
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from analysis.plots.scenes import (
    bare_axes,
    colour_of,
    draw_boxes,
    draw_picture,
    first_scenes,
    name_picture,
)
from analysis.scores import Graph, scene_graph
from programs.scene import Scene

WIDTHS = (1, 1, 2, 2)
"""Widths of image, reconstruction, graph and words, in pictures."""
SMALL = 6.5
"""Font size of words in points."""
LINE = 40
"""Characters in a line of codes."""


def graph_figure(
    images: Tensor, scene: Scene, names: Mapping[int, str] | None = None, count: int = 4
) -> Figure:
    """Scenes as graphs, one row per image: image with boxes and count, reconstruction, graph, codes in words.

    In the graph, nodes are placed around the middle in the order of their objects, but equally apart. An
    edge shows the offset from the node of the lower number to the other, as a fraction of the image's side,
    and "CatEq" if their categories are the same.

    Args:
        images: (B, C, H, W) in [0, 1].
        scene: the same images' scenes, inferred or true.
        names: names of categories.
        count: largest number of rows.
    """
    images, scene = images[:count].detach().cpu(), first_scenes(scene, count)
    figure, rows = bare_axes(len(images), [*WIDTHS], title=True)
    for axes, title in zip(rows[0], ("image", "reconstruction", "graph", "codes"), strict=True):
        axes.set_title(title, fontsize=9)
    for b, (seen, rebuilt, drawn, words) in enumerate(rows):
        for axes, picture in ((seen, images[b]), (rebuilt, scene.image[b])):
            draw_picture(axes, picture)
            draw_boxes(axes, scene, b)
        name_picture(seen, str(int(scene.objects.present[b].sum())))
        graph = scene_graph(scene[b : b + 1])
        _draw_graph(drawn, graph, names)
        _write_codes(words, graph, names)
    return figure


def _draw_graph(axes: Axes, graph: Graph, names: Mapping[int, str] | None) -> None:
    """Nodes and edges of one image."""
    axes.set(xlim=(-2, 2), ylim=(1.05, -1.05), aspect="equal")
    x, y = _ring(graph.nodes["centre"]).T.numpy()
    pairs = zip(graph.edges["source"].tolist(), graph.edges["target"].tolist(), strict=True)
    for row, (i, j) in zip(graph.edge_rows(), pairs, strict=True):
        if i > j:
            continue
        axes.plot(x[[i, j]], y[[i, j]], color="0.55", linewidth=1, zorder=0)
        text = f"({row['dx']:+.2f}, {row['dy']:+.2f})"
        text += "\nCatEq" if row.get("same") == "yes" else ""
        middle = (x[i] + x[j]) / 2, (y[i] + y[j]) / 2
        box = {"facecolor": "white", "edgecolor": "none", "pad": 0.5}
        axes.text(*middle, text, fontsize=SMALL, ha="center", va="center", bbox=box)
    for k, row in enumerate(graph.node_rows(names)):
        colour = colour_of(int(graph.nodes["slot"][k]))
        axes.scatter(x[k], y[k], 150, color=colour, edgecolors="black", zorder=2)
        style = {"ha": "center", "va": "center", "zorder": 3}
        axes.text(x[k], y[k], str(row["node"]), fontsize=8, **style)
        outside = y[k] + (0.26 if y[k] >= 0 else -0.26)
        axes.text(x[k], outside, str(row.get("category", "")), fontsize=SMALL, **style)


def _ring(centre: Tensor) -> Tensor:
    """(M, 2) places on an ellipse, equally apart, in the order of the centres (M, 2) around their middle."""
    number = len(centre)
    if number < 2:
        return torch.zeros(number, 2)
    around = centre - centre.mean(0)
    angle = torch.atan2(around[:, 1], around[:, 0])
    rank = angle.argsort().argsort()
    turn = angle[rank == 0] + 2 * math.pi * rank / number
    return torch.stack([1.35 * turn.cos(), 0.72 * turn.sin()], 1)


def _write_codes(axes: Axes, graph: Graph, names: Mapping[int, str] | None) -> None:
    """Write the codes of one image's nodes, each node's number in its colour."""
    lines = []
    for row in graph.node_rows(names):
        codes = {k: v for k, v in row.items() if k not in ("image", "node", "category")}
        words = " ".join(f"{name}={value:.2f}" for name, value in codes.items())
        indent = {"initial_indent": "  ", "subsequent_indent": "  "}
        lines.append(f"{row['node']} {row.get('category', '')}".rstrip())
        lines += textwrap.wrap(words, LINE, **indent)
    axes.set(xlim=(0, 1), ylim=(0, 1))
    axes.text(0.02, 0.5, "\n".join(lines), fontsize=SMALL, va="center", family="monospace")


def matrix_figure(table: Tensor, rows: Sequence[str], columns: Sequence[str]) -> Figure:
    """Shares of each row's sum, as a matrix with its numbers (figure 6).

    Args:
        table: (R, C) counts.
        rows, columns: titles of rows and columns.
    """
    shares = table.double() / table.sum(1, keepdim=True).clamp(min=1)
    figure = Figure(
        figsize=(1.2 + 0.62 * len(columns), 0.8 + 0.42 * len(rows)), layout="constrained"
    )
    axes = figure.subplots()
    axes.imshow(shares.numpy(), cmap=colormaps["Blues"], vmin=0, vmax=1, aspect="auto")
    for i, line in enumerate(shares.tolist()):
        for j, share in enumerate(line):
            shade = "white" if share > 0.5 else "black"
            axes.text(j, i, f"{share:.2f}", ha="center", va="center", fontsize=7, color=shade)
    axes.set_xticks(range(len(columns)), columns, fontsize=7, rotation=30, ha="right")
    axes.set_yticks(range(len(rows)), rows, fontsize=7)
    return figure
