"""Curves: of training, of estimators, of time and labels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

if TYPE_CHECKING:
    pass
SHARES = ("object_count_accuracy", "object_f1", "part_count_accuracy", "part_f1", "group_f1")
MARKERS = "osD^v<>pPX*"
"""Markers, one per estimator, repeated after the last."""
CURVES = 4
"""Largest number of curves of one quantity that get a colour each; with more (a map) all are grey."""


def curves_figure(log: list[dict[str, float]]) -> Figure:
    """Training curves: loss (and ELBO per pixel), counts and F1, and the terms of the loss, in nats.

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
        right.set_ylabel("ELBO per pixel (nats)", color="C0")
    for k, name in enumerate(SHARES):
        _curve(shares, log, name, color=f"C{k}", marker=".")
    shares.set_ylim(-0.02, 1.02)
    last = {key: value for record in log for key, value in record.items() if key[:5] == "term/"}
    last.pop("term/images", None)  # shown with the loss, as it would dwarf the other terms
    sites = sorted({name.split("/")[-1] for name in last})
    for name in sorted(last, key=last.get, reverse=True):
        colour = colormaps["tab20"](sites.index(name.split("/")[-1]) % 20)
        style = "--" if name.startswith("term/aux") else "-"
        _curve(terms, log, name, color=colour, linewidth=1, linestyle=style)
    terms.set_yscale("symlog", linthresh=0.1)
    titles = "loss (nats per image)", "metrics on validation scenes", "terms of the loss (nats)"
    for axes, title in zip((loss, shares, terms), titles, strict=True):
        axes.set(title=title, xlabel="step")
        axes.grid(alpha=0.3)
        if axes.lines:
            axes.legend(fontsize=7, loc="center right")
    if terms.lines:  # many: outside, from large to small
        terms.legend(fontsize=6.5, loc="upper left", bbox_to_anchor=(1, 1), frameon=False)
    return figure


def comparison_figure(logs: Mapping[str, list[dict[str, float]]]) -> Figure:
    """Curves of several trainings over each other: the loss, and the metrics that all of them have.

    Args:
        logs: records of each training, by its name, as of `curves_figure`.
    """
    common = [name for name in SHARES if all(any(name in r for r in log) for log in logs.values())]
    names = ["loss", *common]
    figure = Figure(figsize=(4.2 * len(names), 3.6), layout="constrained")
    panels = figure.subplots(1, len(names), squeeze=False)[0]
    for axes, name in zip(panels, names, strict=True):
        for k, (run, log) in enumerate(logs.items()):
            _curve(axes, log, name, color=f"C{k % 10}", label=run)
        axes.set(title=name.replace("_", " "), xlabel="step")
        axes.grid(alpha=0.3)
    _zoom(panels[0])
    if panels[0].lines:
        panels[0].legend(fontsize=7)
    return figure


def bias_variance_figure(rows: list[dict]) -> Figure:
    """Relative bias against relative variance of gradients, one panel per training step, both logarithmic.

    Hollow markers: the bias is within two standard errors of 0, and is drawn at that error.

    Args:
        rows: results of `analysis.gradients.compare`.
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
    """Hard ELBO of trainings against time, steps and evaluations. Thin lines: seeds; thick: median.

    Args:
        rows: results of `analysis.gradients.race`.
    """
    axes = {"seconds": "seconds", "step": "steps", "evaluations": "images run through the program"}
    figure = Figure(figsize=(13, 4), layout="constrained")
    panels = figure.subplots(1, len(axes), sharey=True)
    for panel, (axis, label) in zip(panels, axes.items(), strict=True):
        for name in dict.fromkeys(row["estimator"] for row in rows):
            seeds: dict[int, list[dict]] = {}
            for row in rows:
                if row["estimator"] == name:
                    seeds.setdefault(row["seed"], []).append(row)
            number = min(map(len, seeds.values()))
            curves = [curve[:number] for curve in seeds.values()]
            x = np.array([[row[axis] for row in curve] for curve in curves])
            y = np.array([[row["elbo"] for row in curve] for curve in curves])
            line = panel.plot(np.median(x, 0), np.median(y, 0), linewidth=2.5, label=name)[0]
            panel.plot(x.T, y.T, color=line.get_color(), linewidth=0.7, alpha=0.5)
        panel.set(xlabel=label)
        panel.grid(alpha=0.3)
    panels[0].set_ylabel("ELBO (nats per image)")
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside right center")
    return figure


def scaling_figure(rows: Sequence[dict]) -> Figure:
    """Time of a training step against batch, image size, nodes and levels, one line per program.

    Args:
        rows: results of `analysis.benchmark`, with "program" and "scaling", axis -> label -> milliseconds.
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
    panels[0].set_ylabel("milliseconds per step")
    panels[0].legend(fontsize=7)
    return figure


def labels_figure(rows: Sequence[dict]) -> Figure:
    """Accuracy against labels, logarithmic, one line per representation (after GSGN figure 6).

    Thick lines: mean over repeats; thin: single repeats.

    Args:
        rows: tables with "name", "labels" and "accuracy"; rows of the same name and labels are repeats.
    """
    figure = Figure(figsize=(6.4, 4), layout="constrained")
    axes = figure.subplots()
    lines: dict[str, dict[int, list[float]]] = {}
    for row in rows:
        line = lines.setdefault(row["name"], {})
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


def _curve(axes: Axes, log: list[dict[str, float]], name: str, **style: object) -> None:
    """One line over the records that hold `name`."""
    points = [(record["step"], record[name]) for record in log if name in record]
    if points:
        axes.plot(*zip(*points, strict=True), **{"label": name.removeprefix("term/"), **style})


def _zoom(axes: Axes) -> None:
    """Leave the largest values out of view: the first steps would hide all others."""
    if axes.lines:
        y = torch.as_tensor(axes.lines[0].get_ydata(), dtype=torch.float64)
        low, high = float(y.min()), float(y.quantile(0.97))
        if high > low:
            axes.set_ylim(low - 0.05 * (high - low), high + 0.05 * (high - low))
