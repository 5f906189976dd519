"""Pictures of Scenes and of training, as matplotlib figures; no window is ever opened.

Pictures are drawn in the image frame ([-1, 1], y down), so boxes need no conversion to pixels.

Shape legend: B images, N slots, C channels, H x W pixels of an image, h x w of a patch.
"""

from __future__ import annotations

import io
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Polygon
from torch import Tensor

from analysis.metrics import level_names, owners
from inference import checkpoint
from programs import render
from programs.scene import Nodes, Scene

if TYPE_CHECKING:
    from analysis.calibration import Calibration
    from analysis.predictive import Check

COLOURS = ("#ff9f1c", "#2ec4b6", "#e05cff", "#a6d854", "#4d9de0", "#ff5d73", "#f2e94e", "#b8b8ff")
"""One a slot, over again after the last; light enough for black, dark enough for white."""
CROP = 48
"""Pixels a side of a patch cut out of the image, where a node brings none of its own."""
MOST = 6
"""Columns of objects; with more slots than this, only the present objects are shown."""
SHARES = ("object_count_accuracy", "object_f1", "part_count_accuracy", "part_f1", "group_f1")
THIN = {"linewidth": 0.9}
DASHED = {"linewidth": 0.9, "linestyle": (0, (3, 1.5))}
"""Frames of levels between the first and the last, and of the last."""
MARKERS = "osD^v<>pPX*"
"""One an estimator, over again after the last."""
CURVES = 4
"""Numbers of a quantity that are drawn in a colour each; of a map they are all grey."""
INCH, DPI = 1.4, 110
"""Size of a picture in inches, and dots an inch in files."""


def save(figure: Figure, path: str | Path) -> None:
    """Write the figure in the format that the name ends in."""
    path, data = Path(path), io.BytesIO()
    figure.savefig(data, format=path.suffix[1:] or None, dpi=DPI)
    checkpoint.write(path, data.getvalue())


def scene_graph_figure(images: Tensor, scene: Scene, count: int = 6) -> Figure:
    """Scene graphs, a row an image, after GSGN figure 2.

    The image with its boxes (the first level's solid, those of levels in between thin, the leaves'
    dashed, all in the first level's colour), the reconstruction, then for every slot of the first
    level the node's patch and beside it its descendants', a square a level: siblings share the square
    of their parent. Empty slots are left blank. Patches are the nodes' own, or else cut out of the
    reconstruction.

    Args:
        images: (B, C, H, W) in [0, 1], what was seen.
        scene: the graphs of the same images, inferred or true.
        count: rows at most.
    """
    images, scene = images[:count].detach().cpu(), _first(scene, count)
    width, columns = len(scene.levels), min(scene.objects.pres.shape[1], MOST)
    figure, rows = _grid(len(images), [1, 1] + [width] * columns, title=True)
    patches = [_patches(scene, nodes) for nodes in scene.levels]
    families, spots = _families(scene), _spots(scene)
    for b, (seen, rebuilt, *cells) in enumerate(rows):
        _show(seen, images[b])
        _boxes(seen, scene, b)
        _show(rebuilt, scene.image[b])
        for cell, slot in zip(cells, _slots(scene.objects, b, columns), strict=False):
            if not scene.objects.present[b, slot]:
                continue
            _show(cell, patches[0][b, slot], edge=_colour(slot))
            for level, nodes in list(enumerate(scene.levels))[1:]:
                own = nodes.present[b] & (families[level][b] == slot)
                for node in own.nonzero()[:, 0].tolist():
                    x, y, side = (2 * spots[level][b, node]).tolist()
                    corner = 2.1 * level - 1 + x, y - 1
                    _show(cell, patches[level][b, node], corner, side)
            cell.set(xlim=(-1.1, 2.1 * width - 1), ylim=(1.1, -1.1))
    name = level_names(width)[0]
    titles = ["input", "reconstruction", *(f"{name} {k + 1}" for k in range(columns))]
    for axes, title in zip(rows[0], titles, strict=True):
        axes.set_title(title, fontsize=9)
    return figure


def layers_figure(images: Tensor, scene: Scene, count: int = 6) -> Figure:
    """Scenes taken apart from the front to the back, a row an image, after ECON figure 4.

    The image, the reconstruction, then of every layer what was seen of the image in its region, and its object
    with its full shape, framed in the colour of its category; in the end the background.

    Args:
        images: (B, C, H, W) in [0, 1].
        scene: of the same images, with masks and shapes.
        count: rows at most.
    Raises:
        ValueError: the scene has no shapes.
    """
    if scene.objects.shape is None:
        raise ValueError("layers_figure needs full shapes; this scene has shape=None")
    images, scene = images[:count].detach().cpu(), _first(scene, count)
    nodes, number = scene.objects, scene.objects.pres.shape[1]
    figure, rows = _grid(len(images), [1] * (2 * number + 3), title=True)
    for b, (seen, rebuilt, *cells, ground) in enumerate(rows):
        _show(seen, images[b])
        _show(rebuilt, scene.image[b])
        order = nodes.depth[b].argsort().tolist()
        for slot, region, whole in zip(order, cells[::2], cells[1::2], strict=True):
            if nodes.present[b, slot]:
                _show(region, images[b] * nodes.mask[b, slot])
                kind = slot if nodes.category is None else int(nodes.category[b, slot])
                canvas = render.place(nodes.patch[b, slot], nodes.pose[b, slot], images.shape[-1])
                _show(whole, canvas[:-1] * nodes.shape[b, slot], edge=_colour(kind))
        if scene.background is not None:
            _show(ground, scene.background[b])
    steps = [title for k in range(number) for title in (f"region {k + 1}", f"object {k + 1}")]
    for axes, title in zip(rows[0], ["input", "reconstruction", *steps, "background"], strict=True):
        axes.set_title(title, fontsize=9)
    return figure


def reconstruction_figure(images: Tensor, scene: Scene, count: int = 8) -> Figure:
    """Images (B, C, H, W) above the means that were inferred for them."""
    images, scene = images[:count].detach().cpu(), _first(scene, count)
    figure, rows = _grid(2, [1] * len(images))
    for b, (seen, rebuilt) in enumerate(rows.T):
        _show(seen, images[b])
        _show(rebuilt, scene.image[b])
    return figure


def sample_figure(scene: Scene, columns: int = 8, boxes: bool = False) -> Figure:
    """The scenes of a batch in a grid, for instance drawn from the prior; with boxes if asked."""
    scene = _first(scene, len(scene))
    figure, rows = _grid(math.ceil(len(scene) / columns), [1] * columns)
    for b, axes in zip(range(len(scene)), rows.flat, strict=False):
        _show(axes, scene.image[b])
        if boxes:
            _boxes(axes, scene, b)
    return figure


def object_figure(scene: Scene, columns: int = 12, count: int = 48) -> Figure:
    """Up to `count` present objects of the batch, each in its own frame, in a grid."""
    scene = _first(scene, len(scene))
    patches = _patches(scene, scene.objects)[scene.objects.present][:count]
    figure, rows = _grid(max(1, math.ceil(len(patches) / columns)), [1] * columns)
    for patch, axes in zip(patches, rows.flat, strict=False):
        _show(axes, patch)
    return figure


def memory_figure(patches: Tensor) -> Figure:
    """Templates and how they may look (GSGN, figure 8): the shape above, samples of its prior below.

    Args:
        patches: (M, count, 4, h, w), the mask last: ``program.memory.samples(count)``.
    """
    columns, rows = patches.shape[:2]
    figure, axes = _grid(rows + 1, [1] * columns)
    for m in range(columns):
        _show(axes[0, m], patches[m, 0, -1:].expand(3, -1, -1))
        for row in range(rows):
            _show(axes[row + 1, m], patches[m, row, :-1])
    return figure


def edit_figure(scenes: Mapping[str, Scene]) -> Figure:
    """A batch edited in several ways, side by side with titles, a row an image (after GSGN figure 4).

    Args:
        scenes: by title, as many images in each, drawn already by `analysis.edit.render`.
    """
    return pictures_figure({title: scene.image for title, scene in scenes.items()})


def pictures_figure(columns: Mapping[str, Tensor]) -> Figure:
    """Pictures (B, C, H, W) by title, as many in each, side by side, a row an image."""
    number = len(next(iter(columns.values())))
    figure, rows = _grid(number, [1] * len(columns), title=True)
    for (title, pictures), column in zip(columns.items(), rows.T, strict=True):
        column[0].set_title(title, fontsize=9)
        for picture, axes in zip(pictures.detach().cpu(), column, strict=True):
            _show(axes, picture)
    return figure


def curves_figure(log: list[dict[str, float]]) -> Figure:
    """Training curves: loss (and ELBO a pixel), counts and F1, and the terms of the loss, in nats.

    Args:
        log: records with "step" and any of "loss", "elbo_per_pixel", the metrics in `SHARES` and
            the objective's "term/NAME"; a record need not have all.
    """
    figure = Figure(figsize=(16, 4.2), layout="constrained")
    loss, shares, terms = figure.subplots(1, 3)
    _curve(loss, log, "loss", color="black", linewidth=1)
    _curve(loss, log, "term/images", color="C1", linewidth=1)
    _zoom(loss)
    if any("elbo_per_pixel" in record for record in log):
        right = loss.twinx()
        _curve(right, log, "elbo_per_pixel", color="C0", marker=".")
        right.set_ylabel("ELBO a pixel (nats)", color="C0")
    for k, name in enumerate(SHARES):
        _curve(shares, log, name, color=f"C{k}", marker=".")
    shares.set_ylim(-0.02, 1.02)
    last = {key: value for record in log for key, value in record.items() if key[:5] == "term/"}
    last.pop("term/images", None)  # beside the loss: it would dwarf the others
    sites = sorted({name.split("/")[-1] for name in last})
    for name in sorted(last, key=last.get, reverse=True):
        colour = colormaps["tab20"](sites.index(name.split("/")[-1]) % 20)
        style = "--" if name.startswith("term/aux") else "-"
        _curve(terms, log, name, color=colour, linewidth=1, linestyle=style)
    terms.set_yscale("symlog", linthresh=0.1)
    titles = "loss (nats an image)", "metrics on validation scenes", "terms of the loss (nats)"
    for axes, title in zip((loss, shares, terms), titles, strict=True):
        axes.set(title=title, xlabel="step")
        axes.grid(alpha=0.3)
        if axes.lines:
            axes.legend(fontsize=7, loc="center right")
    if terms.lines:  # many: outside, from large to small
        terms.legend(fontsize=6.5, loc="upper left", bbox_to_anchor=(1, 1), frameon=False)
    return figure


def bias_variance_figure(rows: list[dict]) -> Figure:
    """Relative bias against relative variance of gradients, a panel a training step, both logarithmic.

    Hollow: the bias is within two standard errors of none, and is drawn at that error.

    Args:
        rows: of `analysis.gradients.compare`.
    """
    steps = list(dict.fromkeys(row["step"] for row in rows))
    names = list(dict.fromkeys(row["estimator"] for row in rows))
    figure = Figure(figsize=(4.2 * len(steps), 4), layout="constrained")
    panels = figure.subplots(1, len(steps), squeeze=False, sharex=True, sharey=True)[0]
    for axes, step in zip(panels, steps, strict=True):
        for row in (row for row in rows if row["step"] == step):
            index, limit = names.index(row["estimator"]), 2 * row["bias_error"]
            sure = row["bias"] > limit
            style = {
                "color": f"C{index % 10}",
                "marker": MARKERS[index % len(MARKERS)],
                "linestyle": "",
            }
            y = row["bias"] if sure else limit
            axes.plot(row["variance"], y, fillstyle="full" if sure else "none", **style)
        axes.set(title=f"step {step}", xscale="log", yscale="log", xlabel="variance / |gradient|²")
        axes.grid(alpha=0.3)
    handles = [
        Line2D(
            [], [], color=f"C{i % 10}", marker=MARKERS[i % len(MARKERS)], linestyle="", label=name
        )
        for i, name in enumerate(names)
    ]
    figure.legend(handles=handles, loc="outside right center")
    panels[0].set_ylabel("bias / |gradient|")
    return figure


def race_figure(rows: list[dict]) -> Figure:
    """Hard ELBO and count accuracy against training time: thin a line a seed, thick their median.

    Args:
        rows: of `analysis.gradients.race`.
    """
    figure = Figure(figsize=(11, 4), layout="constrained")
    panels = figure.subplots(1, 2)
    for axes, key, title in zip(
        panels, ("elbo", "object_count_accuracy"), ("ELBO (nats an image)", "count accuracy"),
        strict=True,
    ):  # fmt: skip
        for name in dict.fromkeys(row["estimator"] for row in rows):
            seeds: dict[int, list[dict]] = {}
            for row in rows:
                if row["estimator"] == name and key in row:
                    seeds.setdefault(row["seed"], []).append(row)
            if not seeds:
                continue
            number = min(map(len, seeds.values()))
            values = np.array([[row[key] for row in curve[:number]] for curve in seeds.values()])
            x = [row["seconds"] for row in next(iter(seeds.values()))[:number]]
            line = axes.plot(x, np.median(values, 0), linewidth=2.5, label=name)[0]
            axes.plot(x, values.T, color=line.get_color(), linewidth=0.7, alpha=0.5)
        axes.set(title=title, xlabel="seconds of training")
        axes.grid(alpha=0.3)
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside right center")
    return figure


def predictive_figure(checks: Sequence[Check]) -> Figure:
    """Predictive checks, a row a check, a column a quantity: observed (black) on replicated (blue).

    For the posterior check, whose replicates belong to one image each, p-values over images instead.
    """
    columns = max(len(check.p_value) for check in checks)
    figure = Figure(figsize=(2.3 * columns, 1.9 * len(checks)), layout="constrained")
    panels = figure.subplots(len(checks), columns, squeeze=False)
    for check, row in zip(checks, panels, strict=True):
        for axes in row[len(check.p_value) :]:
            axes.set_axis_off()
        for (name, p), axes in zip(check.p_value.items(), row, strict=False):
            if p.ndim:
                axes.hist(p.cpu().numpy(), np.linspace(0, 1, 11), color="C0", alpha=0.6)
                axes.axhline(len(p) / 10, color="black", linewidth=1)
            else:
                _histograms(axes, check.observed[name], check.replicated[name])
            axes.set_title(name if p.ndim else f"{name}  p {float(p):.2g}", fontsize=8)
            axes.tick_params(labelsize=6)
            axes.set_yticks([])
        row[0].set_ylabel(f"{check.kind}\np-values" if check.kind == "posterior" else check.kind)
    return figure


def _histograms(axes: Axes, observed: Tensor, replicated: Tensor) -> None:
    both = torch.cat([observed.flatten(), replicated.flatten()]).double()
    low, high = (float(both.quantile(q)) for q in (0.002, 0.998))
    whole = not observed.is_floating_point()
    edges = np.arange(low, high + 2) - 0.5 if whole else np.linspace(low, max(high, low + 1e-6), 25)
    for value, style in (
        (replicated, {"color": "C0", "alpha": 0.5}),
        (observed, {"histtype": "step", "color": "black"}),
    ):
        value = value.flatten().clamp(low, high).cpu().numpy()
        axes.hist(value, edges, density=True, **style)


def scaling_figure(rows: Sequence[dict]) -> Figure:
    """Time of a training step against batch, image size, nodes and levels, a line a program.

    Args:
        rows: of `analysis.benchmark`, with "program" and "scaling", axis -> label -> milliseconds.
    """
    axes_names = list(dict.fromkeys(axis for row in rows for axis in row["scaling"]))
    figure = Figure(figsize=(3.2 * len(axes_names), 3), layout="constrained")
    panels = figure.subplots(1, len(axes_names), squeeze=False)[0]
    for axis, panel in zip(axes_names, panels, strict=True):
        for k, row in enumerate(rows):
            times = row["scaling"].get(axis, {})
            x = [sum(map(int, label.split("+"))) for label in times]
            panel.plot(x, list(times.values()), marker="o", color=f"C{k}", label=row["program"])
        panel.set(xlabel=axis, xscale="log", yscale="log")
        panel.grid(alpha=0.3)
    panels[0].set_ylabel("milliseconds a step")
    panels[0].legend(fontsize=7)
    return figure


def labels_figure(rows: Sequence[dict]) -> Figure:
    """Accuracy against labels, logarithmic, a line a representation (after GSGN figure 6).

    Thick the mean over repeats, thin every one of them.

    Args:
        rows: of `analysis.downstream`, with "run", "view", "labels", "repeat" and "accuracy".
    """
    figure = Figure(figsize=(6.4, 4), layout="constrained")
    axes = figure.subplots()
    lines: dict[str, dict[int, list[float]]] = {}
    for row in rows:
        line = lines.setdefault(f"{row['run']}: {row['view']}", {})
        line.setdefault(row["labels"], []).append(row["accuracy"])
    for k, (name, points) in enumerate(lines.items()):
        values, style = np.array(list(points.values())), {"color": f"C{k}"}
        axes.plot([*points], values.mean(1), marker=MARKERS[k % len(MARKERS)], label=name, **style)
        axes.plot([*points], values, linewidth=0.7, alpha=0.5, **style)
    axes.set(xscale="log", xlabel="labelled images", ylabel="accuracy", ylim=(0, 1.02))
    axes.set_xticks(sorted({row["labels"] for row in rows}))
    axes.xaxis.set_major_formatter(lambda x, _: f"{x:g}")
    axes.minorticks_off()
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8, loc="lower right")
    return figure


def khat_figure(khat: Tensor) -> Figure:
    """Histogram over images of PSIS k-hat (B,), with the limits of Yao et al. (2018)."""
    figure = Figure(figsize=(5, 2.6), layout="constrained")
    axes = figure.subplots()
    values = khat[khat.isfinite()].cpu().numpy()
    axes.hist(values, 20, color="C0", alpha=0.7)
    for limit, style in ((0.5, ":"), (0.7, "--")):
        axes.axvline(limit, color="black", linestyle=style, linewidth=1, label=f"k = {limit}")
    equal, none = int((khat == -math.inf).sum()), int(khat.isnan().sum())
    axes.set(
        xlabel="k-hat", ylabel="images", title=f"{equal} of equal weights, {none} without a tail"
    )
    axes.title.set_size(8)
    axes.legend(fontsize=7)
    return figure


def calibration_figure(calibration: Calibration) -> Figure:
    """Is the guide's uncertainty right: ranks, probabilities, intervals; on the dashed lines where it is.

    Left the coverage of ranks less the level, in the band (grey) where those of the posterior stay in 19 of 20
    sets; thin and grey the cells of a map. Error bars are one standard error, were the guide the posterior.
    """
    figure = Figure(figsize=(15, 4.2), layout="constrained")
    left, middle, right = figure.subplots(1, 3)
    _ecdf_differences(left, calibration)
    events = {"an object is there": calibration.presence, "P(n = k)": calibration.count}
    for k, (name, judged) in enumerate(events.items()):
        if judged is not None:
            p, share, number = judged.probability, judged.frequency, judged.number
            style = {"color": f"C{k}", "label": f"{name}: ECE {judged.ece:.3f}"}
            middle.errorbar(p, share, judged.error, linestyle="", capsize=2, linewidth=1, **style)
            middle.scatter(p, share, 12 + 150 * number / number.sum(), f"C{k}", alpha=0.6)
    for k, (name, covered) in enumerate(calibration.coverage.items()):
        x = covered.levels + 0.015 * (k - (len(calibration.coverage) - 1) / 2)
        style = {"marker": MARKERS[k], "label": f"{name} ({covered.number})", "capsize": 2}
        right.errorbar(x, covered.shares, covered.errors, linestyle="", markersize=5, **style)
    middle.plot([0, 1], [0, 1], color="black", linewidth=1, linestyle="--", zorder=0)
    middle.set(xlim=(-0.03, 1.03), ylim=(-0.03, 1.03), aspect="equal")
    levels = calibration.coverage["n_objects"].levels
    right.hlines(levels, levels - 0.05, levels + 0.05, "black", "--", linewidth=1, zorder=0)
    right.set(xlim=(0.3, 1.03), ylim=(-0.03, 1.03), xticks=levels)
    labels = (
        ("ranks of the truth", "level", "coverage - level"),
        ("probabilities", "probability", "frequency"),
        ("central intervals", "level", "share that holds the truth"),
    )
    for axes, (title, x, y) in zip((left, middle, right), labels, strict=True):
        axes.set(title=title, xlabel=x, ylabel=y)
        axes.grid(alpha=0.3)
        axes.legend(fontsize=7, loc="upper left")
    left.legend(fontsize=7, loc="upper left", bbox_to_anchor=(1, 1), frameon=False)
    return figure


def _ecdf_differences(axes: Axes, calibration: Calibration) -> None:
    levels = calibration.tarp.levels
    low, high = (bound - levels for bound in calibration.tarp.band())
    axes.fill_between(levels, low, high, color="0.85", label="95 % band")
    axes.axhline(0, color="black", linewidth=1, linestyle="--")
    maps = Counter(name.split("[")[0] for name in calibration.ranks)
    for name, statistics in calibration.ranks.items():
        stem = name.split("[")[0]
        style = {"label": name}
        if maps[stem] > CURVES:
            label = f"{stem} ({maps[stem]} cells)" if name == f"{stem}[0,0]" else None
            style = {"color": "0.6", "linewidth": 0.5, "alpha": 0.6, "zorder": 1, "label": label}
        axes.plot(levels, statistics.coverage - levels, drawstyle="steps-post", **style)
    difference = calibration.tarp.coverage - levels
    axes.plot(levels, difference, color="black", linewidth=2, label="TARP")


def _curve(axes: Axes, log: list[dict[str, float]], name: str, **style: object) -> None:
    """One line over the records that hold `name`."""
    points = [(record["step"], record[name]) for record in log if name in record]
    if points:
        axes.plot(*zip(*points, strict=True), label=name.removeprefix("term/"), **style)


def _zoom(axes: Axes) -> None:
    """Leave the largest values out of view: the first steps would hide all others."""
    if axes.lines:
        y = torch.as_tensor(axes.lines[0].get_ydata(), dtype=torch.float64)
        low, high = float(y.min()), float(y.quantile(0.97))
        if high > low:
            axes.set_ylim(low - 0.05 * (high - low), high + 0.05 * (high - low))


def _first(scene: Scene, count: int) -> Scene:
    """The first scenes, on the CPU and without gradients."""
    return scene[:count].map(lambda t: t.detach().cpu())


def _patches(scene: Scene, nodes: Nodes) -> Tensor:
    """(B, N, C, h, w) what a node looks like in its own frame, black where it is transparent."""
    if nodes.patch is not None:
        return nodes.patch[:, :, :-1] * nodes.patch[:, :, -1:]
    return render.crop(scene.image[:, None], nodes.pose[:, None], CROP)[:, 0]


def _families(scene: Scene) -> list[Tensor]:
    """(B, N) a level: the first level's node that each descends from."""
    number = range(1, len(scene.levels))
    first = torch.arange(scene.objects.pres.shape[1]).expand(scene.objects.pres.shape)
    return [first, *(owners(replace(scene, levels=scene.levels[: k + 1])) for k in number)]


def _spots(scene: Scene) -> list[Tensor]:
    """(B, N, 3) a level: left, top and side of a node's square, in the unit square of its family.

    Siblings divide their parent's square into as many squares as the largest family of a level needs.
    """
    first = torch.tensor([0.0, 0.0, 1.0]).expand(*scene.objects.pres.shape, 3)
    spots = [first]
    for nodes in scene.levels[1:]:
        siblings = nodes.parent[:, :, None] == nodes.parent[:, None]
        place = siblings.tril(-1).sum(-1)  # (B, N): how many come before
        number = math.isqrt(int(place.max())) + 1  # squares a side
        above = spots[-1].gather(1, nodes.parent[..., None].expand(-1, -1, 3))
        side = above[..., 2] / number
        corner = torch.stack([place % number, place // number], -1)
        spots.append(torch.cat([above[..., :2] + corner * side[..., None], side[..., None]], -1))
    return spots


def _slots(objects: Nodes, image: int, columns: int) -> list[int]:
    """Which objects to show: a column a slot, or the present ones if there are too many slots."""
    if objects.pres.shape[1] <= columns:
        return list(range(columns))
    return objects.present[image].nonzero()[:columns, 0].tolist()


def _grid(rows: int, widths: list[int], title: bool = False) -> tuple[Figure, np.ndarray]:
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


def _show(
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


def _boxes(axes: Axes, scene: Scene, image: int) -> None:
    """Frames of the present nodes, leaves first, in their first ancestors' colours."""
    last, families = len(scene.levels) - 1, _families(scene)
    for level in range(last, -1, -1):
        nodes, style = scene.levels[level], {} if level == 0 else THIN
        if 0 < level == last:
            style = DASHED
        for slot in nodes.present[image].nonzero()[:, 0].tolist():
            colour = _colour(int(families[level][image, slot]))
            axes.add_patch(_outline(nodes.corners[image, slot], colour, **style))


def _outline(points: object, colour: str, **style: object) -> Polygon:
    return Polygon(points, fill=False, edgecolor=colour, **{"linewidth": 1.6, **style})


def _colour(slot: int) -> str:
    return COLOURS[slot % len(COLOURS)]
