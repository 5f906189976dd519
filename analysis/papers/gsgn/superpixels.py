"""Objects and parts by merging superpixels, without learning: GSGN's comparison in appendix E.

Small superpixels (SLIC; Achanta et al., 2012) are merged two by two, neighbours only, always the pair that adds
least to the squared deviations of the pixels from their region's mean colour (Ward, 1963), until one is
left. The hierarchy is cut at the number of true objects or parts, plus one for the background, or at any
given number.

# differs: it replaces Superpixel Hierarchy (Wei et al., 2018), which begins at pixels and weights edges and
histograms.

Needs scikit-image: ``pip install "scene-programs[superpixels]"``.

Shape legend: H x W pixels, S superpixels, R regions.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from analysis import plots
from analysis.evaluate import with_masks
from analysis.papers.gsgn.trainings import on_worlds
from analysis.papers.item import Item, Made, Request, Row
from analysis.posterior import infer
from analysis.scores import adjusted_rand_index, segments
from inference.images.dataset import Dataset
from inference.runs import Trained
from programs.scene import Nodes

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SUPERPIXELS = 200
"""Number of SLIC's superpixels, with which merging begins."""
COMPACTNESS = 0.1
"""Weight of nearness relative to colour in SLIC."""
SCENES = 50
"""Scenes to measure."""
SHOWN = 5
"""Scenes in the picture."""
PICTURES = (20, 30)
"""Numbers of regions of the over-segmentations that are shown (figure 11)."""


def scikit_image() -> ModuleType:
    """The module scikit-image.

    Raises:
        ValueError: it is not installed; the message says how to get it.
    """
    try:
        import skimage.graph
        import skimage.segmentation
    except ImportError as error:
        raise ValueError(
            "superpixels need scikit-image, which is not installed: "
            'pip install "scene-programs[superpixels]"'
        ) from error
    return skimage


@dataclass(frozen=True)
class Hierarchy:
    """Superpixels of an image, and the order in which they merge."""

    labels: np.ndarray
    """(H, W) superpixel of a pixel, from 0"""
    merges: tuple[tuple[int, int], ...]
    """S - 1 pairs: the first joins the second, and the region keeps the second's name"""

    def cut(self, regions: int) -> Tensor:
        """(H, W) int64 region of every pixel, 0 to R - 1.

        Raises:
            ValueError: fewer than one region, or more than there are superpixels.
        """
        number = len(self.merges) + 1
        if not 1 <= regions <= number:
            raise ValueError(
                f"regions={regions}: expected 1 to {number}, the superpixels there are"
            )
        name = np.arange(number)
        for old, new in self.merges[: number - regions]:
            name[name == old] = new
        found = np.unique(name[self.labels], return_inverse=True)[1]
        return torch.from_numpy(found.reshape(self.labels.shape))


def hierarchy(image: Tensor, superpixels: int = SUPERPIXELS) -> Hierarchy:
    """The hierarchy of an image (C, H, W) in [0, 1], from about `superpixels` superpixels.

    Raises:
        ValueError: scikit-image is not installed.
    """
    skimage = scikit_image()
    pixels = image.detach().cpu().expand(3, -1, -1).permute(1, 2, 0).double().numpy()
    labels = skimage.segmentation.slic(
        pixels, superpixels, COMPACTNESS, start_label=0, channel_axis=-1
    )
    graph = skimage.graph.rag_mean_color(pixels, labels, connectivity=1)
    for one, other, edge in graph.edges(data=True):
        edge.update(_cost(graph, one, one, other))
    merges: list[tuple[int, int]] = []

    def merge(graph: Any, old: int, new: int) -> None:
        for key in ("pixel count", "total color"):
            graph.nodes[new][key] = graph.nodes[new][key] + graph.nodes[old][key]
        merges.append((int(old), int(new)))

    skimage.graph.merge_hierarchical(
        labels, graph, thresh=np.inf, rag_copy=False, in_place_merge=True,
        merge_func=merge, weight_func=_cost,
    )  # fmt: skip
    return Hierarchy(labels, tuple(merges))


def _cost(graph: Any, old: int, new: int, neighbour: int) -> dict[str, float]:
    """Increase of the squared deviations from the regions' means when `new` merges with its neighbour."""
    a, b = graph.nodes[new], graph.nodes[neighbour]
    n, m = a["pixel count"], b["pixel count"]
    difference = a["total color"] / n - b["total color"] / m
    return {"weight": float(n * m / (n + m) * difference @ difference)}


def agreement(labels: Tensor, truth: Tensor) -> dict[str, float]:
    """Adjusted Rand index of the segments (H, W) of all pixels, and of those that are not background (0)."""
    one, other = labels.flatten(), truth.flatten()
    fore = other > 0
    found = {"ari": adjusted_rand_index(other, one)}
    if fore.any():
        found["ari_fg"] = adjusted_rand_index(other[fore], one[fore])
    return found


def compare(
    images: Tensor, levels: dict[str, tuple[Tensor, Tensor]]
) -> dict[str, dict[str, float]]:
    """Mean agreement of merged superpixels, and of a run, with the truth.

    Args:
        images: (B, C, H, W) in [0, 1].
        levels: name -> the truth's segments and the run's, (B, H, W), 0 the background.
    Returns:
        "LEVELS: superpixels" or "LEVELS: run" -> ari, ari_fg.
    """
    scores: dict[str, list[dict[str, float]]] = {}
    for b, image in enumerate(images):
        merged = hierarchy(image)
        for name, (truth, inferred) in levels.items():
            found = merged.cut(len(truth[b].unique()))
            for whose, labels in (("superpixels", found), ("run", inferred[b])):
                scores.setdefault(f"{name}: {whose}", []).append(agreement(labels, truth[b]))
    return {name: {k: _mean(rows, k) for k in ("ari", "ari_fg")} for name, rows in scores.items()}


def _mean(rows: list[dict[str, float]], key: str) -> float:
    values = [row[key] for row in rows if key in row]
    return sum(values) / len(values) if values else 1.0


def superpixel_figure(images: Tensor, numbers: list[dict[str, int]]) -> Figure:
    """Images and their regions in mean colours, one row per image, after GSGN figure 11.

    Args:
        images: (B, C, H, W) in [0, 1].
        numbers: for each image, title -> number of regions; the same titles for all images.
    """
    rows: dict[str, list[Tensor]] = {"input": list(images)}
    for image, wanted in zip(images, numbers, strict=True):
        merged = hierarchy(image)
        for title, number in wanted.items():
            rows.setdefault(title, []).append(mean_colours(image, merged.cut(number)))
    return plots.pictures_figure({title: torch.stack(column) for title, column in rows.items()})


def mean_colours(image: Tensor, labels: Tensor) -> Tensor:
    """(C, H, W): every pixel in the mean colour of its region."""
    flat, index = image.flatten(1), labels.flatten()
    size = index.bincount().clamp(min=1)
    mean = flat.new_zeros(len(flat), len(size)).index_add_(1, index, flat) / size
    return mean[:, index].view_as(image)


def _segments(nodes: Nodes) -> Tensor:
    """(B, H, W): 1 + the slot that covers more than half of a pixel, else 0."""
    return torch.stack([segments(nodes, image, above=0.5) for image in range(len(nodes.pres))])


def regions(run: Trained, data: Dataset) -> dict[str, tuple[Tensor, Tensor]]:
    """Objects and parts -> the truth's segments and the run's, (B, H, W), 0 the background."""
    truth = data.truth()
    scene = with_masks(infer(run.program, run.guide, data.floats()))
    levels = {"objects": (truth.objects, scene.objects), "parts": (truth.parts, scene.parts)}
    return {name: (_segments(t), _segments(s)) for name, (t, s) in levels.items()}


def figure11(title: str) -> Item:
    """Superpixels of both worlds, and GSGN's segments beside them."""
    return Item(title, on_worlds(("GSGN",)), make)


def make(runs: Mapping[str, Trained], request: Request) -> Made:
    """One picture per world, and the agreement with the truth.

    Raises:
        ValueError: scikit-image is not installed.
    """
    scikit_image()
    rows, figures = [], {}
    for name, run in runs.items():
        world = name.removeprefix("GSGN on ")
        data = run.unseen(request.scenes or SCENES, request.seed)
        found, images = regions(run, data), data.floats()
        counts = [
            {level: len(true[b].unique()) for level, (true, _) in found.items()}
            | {f"{n} superpixels": n for n in PICTURES}
            for b in range(min(SHOWN, len(images)))
        ]
        figures[world.lower().replace(" ", "_")] = superpixel_figure(images[:SHOWN], counts)
        rows += table(compare(images, found), world, len(images))
    return Made(tuple(rows), figures)


def table(scores: Mapping[str, Mapping[str, float]], world: str, scenes: int) -> Iterator[Row]:
    """Rows from what `compare` returns."""
    for name, found in scores.items():
        level, _, whose = name.partition(": ")
        model = "GSGN" if whose == "run" else "merged superpixels"
        for metric, value in found.items():
            yield Row(model, metric, value, case=f"{world}, {level}", scenes=scenes)
