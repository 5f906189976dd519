"""Put runs side by side: settings in which they differ, metrics, curves, and reconstructions of the same
images.

    python -m analysis.compare RUN RUN … [--scenes N] [--out DIR]

Metrics are those of each run's metrics.json, with standard errors of shares of images. Pictures are of unseen
scenes of the first run's world, where the other runs take images of the same shape.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from analysis import plots
from analysis.command import aligned, named, positive, write_csv
from analysis.posterior import infer
from inference.command import command_line, new_folder, told
from inference.log import read_log
from inference.runs import Trained, read_json
from programs.scene import Scene

SHARES_OF_IMAGES = ("object_count_accuracy", "part_count_accuracy", "structure_accuracy")
"""Metrics that are shares of independent images, so that their standard errors are binomial."""
SETTINGS = ("variant", "config", "recipe", "world", "seed")
"""Entries of config.json that are compared."""


def metrics(runs: Mapping[str, Trained]) -> list[dict[str, Any]]:
    """One row per metric, one column per run: values of metrics.json, with standard errors if known.

    Raises:
        ValueError: a run has no metrics.json.
    """
    tables = {name: _measured(run) for name, run in runs.items()}
    names = [k for table in tables.values() for k, v in table.items() if isinstance(v, float)]
    rows = []
    for metric in dict.fromkeys(names):
        rows.append({"": metric, **{name: _cell(table, metric) for name, table in tables.items()}})
    counts = {name: f"{table.get('scenes', '?')}" for name, table in tables.items()}
    return [*rows, {"": "scenes", **counts}]


def _measured(run: Trained) -> dict[str, Any]:
    path = run.folder / "metrics.json"
    if not path.is_file():
        raise ValueError(f"{run.folder} was not measured: python -m analysis.evaluate {run.folder}")
    return read_json(path)


def _cell(table: Mapping[str, Any], metric: str) -> str:
    value = table.get(metric)
    if not isinstance(value, float):
        return "-"
    if metric in SHARES_OF_IMAGES and table.get("scenes"):
        return f"{value:.4f} ± {math.sqrt(value * (1 - value) / table['scenes']):.4f}"
    return f"{value:.4g}"


def differences(runs: Mapping[str, Trained]) -> list[dict[str, Any]]:
    """One row per setting that all runs have and in which they differ, one column per run."""
    flat = {name: _flat({k: run.config.get(k) for k in SETTINGS}) for name, run in runs.items()}
    tables = list(flat.values())
    rows = []
    for key in (key for key in tables[0] if all(key in table for table in tables)):
        values = {name: str(table[key]) for name, table in flat.items()}
        if len(set(values.values())) > 1:
            rows.append({"": key, **{name: _short(value) for name, value in values.items()}})
    return rows


def _flat(table: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in table.items():
        name = f"{prefix}{key}"
        found |= _flat(value, f"{name}.") if isinstance(value, dict) else {name: value}
    return found


def _short(text: str) -> str:
    return text if len(text) <= 40 else text[:39] + "…"


@torch.no_grad()
def reconstructions(runs: Mapping[str, Trained], scenes: int) -> dict[str, torch.Tensor]:
    """Pictures (B, C, H, W) by title: unseen images of the first run, and each run's reconstructions."""
    first = next(iter(runs.values()))
    images = first.unseen(scenes).floats()
    pictures = {"image": images}
    for name, run in runs.items():
        try:
            scene = infer(run.program, run.guide, images)
        except (ValueError, RuntimeError):
            continue  # of another size or other colours
        if isinstance(scene, Scene):
            pictures[name] = scene.image.cpu()
    return pictures


@told
def main(arguments: list[str] | None = None) -> None:
    """Entry point."""
    a = command_line("analysis.compare", __doc__)
    a.add_argument("runs", nargs="+", metavar="RUN", help="run folders, or names of shipped runs")
    a.add_argument("--scenes", type=positive, default=4, metavar="N", help="scenes to show")
    a.add_argument("--out", type=Path, default=Path("runs/compare"), metavar="DIR")
    o = a.parse_args(arguments)
    runs = named(o.runs)
    rows = metrics(runs)
    if settings := differences(runs):
        print(aligned(settings), end="\n\n")
    print(aligned(rows))
    logs = {name: read_log(run.folder / "log.jsonl") for name, run in runs.items()}
    with new_folder(o.out):
        write_csv(o.out / "metrics.csv", rows)
        plots.save(plots.comparison_figure(logs), o.out / "curves.png")
        plots.save(plots.pictures_figure(reconstructions(runs, o.scenes)), o.out / "pictures.png")
    for file in ("metrics.csv", "curves.png", "pictures.png"):
        print(f"  {o.out / file}")


if __name__ == "__main__":
    sys.exit(main())
