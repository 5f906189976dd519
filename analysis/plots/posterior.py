"""Figures of posterior checks: replicated images, k-hat, calibration."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

if TYPE_CHECKING:
    from analysis.posterior.calibration import Calibration
    from analysis.posterior.predictive import Check
from analysis.plots.curves import CURVES, MARKERS


def predictive_figure(checks: Sequence[Check]) -> Figure:
    """Predictive checks, one row per check, one column per quantity: observed (black) on replicated (blue).

    The posterior check, whose replicates belong to one image each, shows p-values over images instead.
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
    """Calibration by ranks, probabilities and intervals; a calibrated guide lies on the dashed lines.

    Left is the coverage of ranks minus the level, with the band (grey) in which the posterior's stays in 19 of
    20 sets; thin grey lines are cells of a map. Error bars are one standard error if the guide is calibrated.
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
