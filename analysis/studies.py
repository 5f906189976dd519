"""What studies of estimators found: summaries of trainings, and the tables of RESULTS.md.

A study is a JSON file in `analysis/measured`, kept by ``python -m analysis.gradients PROGRAM.py --record NAME``
with the command and the rows of all three parts, and a picture of the same name.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch

from analysis.command import write_json
from inference.loading import ROOT
from inference.runs import read_json

RECORDS = ROOT / "analysis" / "measured"
JUDGED = ROOT / "analysis" / "figures" / "random_programs.json"
"""Counts of ``tests/inference/estimators/test_random_programs.py -m slow -k thousands``."""
MEASURED = ("object_count_accuracy", "ari_fg", "expert_purity", "mse")
"""Metrics of trainings, of those that a world and a program have."""
COLLAPSED = 0.5
"""A run whose count accuracy ends below this share of the best estimator's median has collapsed."""


class Record:
    """A study's rows, kept as they come: the same command continues where it was stopped.

    Args:
        name: the record is ``analysis/measured/NAME.json``; None to keep nothing.
        about: what the study is, with its ``command``.
    """

    def __init__(self, name: str | None, about: Mapping[str, Any]) -> None:
        self.path = None if name is None else RECORDS / f"{name}.json"
        self.found: dict[str, Any] = {**about, "times": [], "gradients": [], "training": []}
        if self.path is not None and self.path.is_file():
            before = read_json(self.path)
            if before["command"] == about["command"]:
                self.found = before

    def __getitem__(self, part: str) -> list[dict]:
        """The rows of ``times``, ``gradients`` or ``training`` so far."""
        return self.found[part]

    def add(self, part: str, rows: list[dict]) -> None:
        """Keep more rows."""
        self.found[part] += rows
        if self.path is not None:
            write_json(self.path, self.found)


def beside(rows: list[dict], yardstick: str = "nvil") -> list[dict]:
    """The rows of one point, with the time of a gradient in units of the yardstick's, if that is among them."""
    times = [row["seconds"] for row in rows if row["estimator"] == yardstick]
    return [row | {f"times {yardstick}": row["seconds"] / t} for row in rows for t in times] or rows


def summary(rows: list[dict]) -> list[dict]:
    """A row an estimator: medians over seeds at equal time, steps and evaluations; share of collapsed runs."""
    curves: dict[tuple[str, int], list[dict]] = {}
    for row in rows:
        curves.setdefault((row["estimator"], row["seed"]), []).append(row)
    budget = {k: min(c[-1][k] for c in curves.values()) for k in ("seconds", "step", "evaluations")}
    names = list(dict.fromkeys(row["estimator"] for row in rows))
    best = max(
        _median(c[-1].get("object_count_accuracy", 0.0) for c in of(curves, n)) for n in names
    )
    table = []
    for name in names:
        line: dict[str, Any] = {"estimator": name, "seeds": len(of(curves, name))}
        for axis, limit in budget.items():
            values = sorted(_read(curve, axis, limit, "elbo") for curve in of(curves, name))
            line[f"elbo at equal {axis}"] = _median(values)
            line[f"lowest, highest at equal {axis}"] = f"{values[0]:.1f}, {values[-1]:.1f}"
        counts = [c[-1].get("object_count_accuracy", math.nan) for c in of(curves, name)]
        line["count accuracy"] = _median(counts)
        line["collapsed"] = sum(c < COLLAPSED * best for c in counts) / len(counts)
        table.append(line)
    return table


def of(curves: dict[tuple[str, int], list[dict]], name: str) -> list[list[dict]]:
    """The curves of one estimator, one per seed."""
    return [curve for (who, _), curve in curves.items() if who == name]


def _read(curve: list[dict], axis: str, limit: float, key: str) -> float:
    """The curve's value where `axis` reaches `limit`, by linear interpolation."""
    before = curve[0]
    for row in curve:
        if row[axis] >= limit:
            span = row[axis] - before[axis]
            share = 1.0 if span == 0 else (limit - before[axis]) / span
            return before[key] + min(max(share, 0.0), 1.0) * (row[key] - before[key])
        before = row
    return curve[-1][key]


def _median(values: Iterable[float]) -> float:
    return float(torch.tensor(sorted(values), dtype=torch.float64).quantile(0.5))


def render(folder: Path = RECORDS) -> list[str]:
    """Lines of RESULTS.md about all studies."""
    paths = sorted(folder.glob("*.json"))
    lines = [
        "",
        "## Estimators",
        "",
        "Kept by `python -m analysis.gradients … --record NAME`. Bias is in units of the norm of a reference",
        "gradient, variance in units of its square, with the standard error of the bias; a bound on several",
        "samples has another gradient than the ELBO, and no bias here. Time is the processor's, in units of",
        "`nvil`'s. Trainings are short, and show where a method gets early, not its end. ELBOs are of hard",
        "draws, in nats per image: medians over seeds, lowest and highest in brackets.",
    ]
    return lines + judged() + [line for path in paths for line in section(path)]


def judged(path: Path = JUDGED) -> list[str]:
    """Lines about the random programs on which all methods were held to enumeration."""
    if not path.is_file():
        return []
    found = read_json(path)
    checks, together = found["checks"], found["together"]
    farthest = max(together, key=lambda name: abs(together[name]))
    far = f"{abs(together[farthest]):.1f} standard errors at most (`{farthest}`)"
    programs, failures = f"{found['programs']:,} random programs", len(found["failures"])
    return [
        "",
        f"All methods on {programs}, held to enumeration: {sum(checks.values()):,} checks of",
        f"{len(checks)} methods and bounds, {failures} of them beyond 4.5 standard errors or with a",
        f"traceback. Of all programs together, the offset along the exact gradient is {far}.",
    ]


def section(path: Path) -> list[str]:
    """Lines about one study."""
    found = read_json(path)
    lines = ["", f"### Estimators on {path.stem}", "", "```", found["command"], "```", ""]
    if path.with_suffix(".png").is_file():
        lines += [f"![Bias, variance and trainings](measured/{path.stem}.png)", ""]
    parts = (
        (found["times"], of_times),
        (found["gradients"], of_gradients),
        (found["training"], of_training),
    )
    return lines + [line for rows, table in parts if rows for line in table(rows, found)]


def of_times(rows: list[dict], found: Mapping[str, Any]) -> list[str]:
    """A training step of every method."""
    yardstick = next((row["seconds"] for row in rows if row["estimator"] == "nvil"), math.nan)
    lines = [
        f"A training step of {found['batch']} images by `nvil` takes {1000 * yardstick:.0f} ms.",
        "",
        "| estimator | time of a step | runs of an image |",
        "|---|---|---|",
    ]
    for row in sorted(rows, key=lambda row: row["seconds"]):
        lines += [
            f"| `{row['estimator']}` | {row['seconds'] / yardstick:.2f} | {row['evaluations']:.1f} |"
        ]
    return [*lines, ""]


def of_gradients(rows: list[dict], found: Mapping[str, Any]) -> list[str]:
    """Bias and variance at every point."""
    lines = [
        "| step | estimator | bias | variance | signal-to-noise | time | runs of an image |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        bias = "" if row["objective"] == "bound" else f"{row['bias']:.2f} ± {row['bias_error']:.2f}"
        time = f"{row['times nvil']:.2f}" if "times nvil" in row else ""
        lines += [
            f"| {row['step']} | `{row['estimator']}` | {bias} | {row['variance']:.3g} | {row['snr']:.3g} "
            f"| {time} | {row['evaluations']:.1f} |"
        ]
    return [*lines, "", f"Bias and variance are held against `{rows[0]['reference']}`.", ""]


def of_training(rows: list[dict], found: Mapping[str, Any]) -> list[str]:
    """What trainings reach at equal time, steps and evaluations."""
    table = summary(rows)
    axes = {"seconds": "time", "step": "steps", "evaluations": "evaluations"}
    names = " | ".join(f"ELBO at equal {name}" for name in axes.values())
    lines = [
        f"| estimator | seeds | {names} | count accuracy at the end |",
        "|---|---|---|---|---|---|",
    ]
    for line in table:
        cells = [
            f"{line[f'elbo at equal {axis}']:,.1f} [{line[f'lowest, highest at equal {axis}']}]"
            for axis in axes
        ]
        count = line["count accuracy"]
        shown = "" if math.isnan(count) else f"{count:.2f}"
        lines += [f"| `{line['estimator']}` | {line['seeds']} | {' | '.join(cells)} | {shown} |"]
    equal = {axis: min(last(rows, axis)) for axis in axes}
    return [
        *lines,
        "",
        f"Equal time is {equal['seconds']:.0f} s, equal steps {equal['step']:,}, equal evaluations "
        f"{equal['evaluations']:,} images; measured on {found['scenes']} validation scenes.",
        "",
    ]


def last(rows: list[dict], axis: str) -> list[float]:
    """Where on an axis every training ends."""
    ends = {(row["estimator"], row["seed"]): row[axis] for row in rows}
    return list(ends.values())
