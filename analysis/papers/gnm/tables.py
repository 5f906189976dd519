"""The tables of GNM's supplement, and their metrics for one run.

    python -m analysis.papers.gnm.tables RUN [--scenes N] [--seed S] [--boxes] [--symbols mode|draw]
        [--limit N] [--json FILE]

prints the metrics of `analysis.papers.gnm.structure` for a run below the paper's figures for its world.
With ``--symbols draw`` all latents of the prior's images are drawn, not at their mode.

# differs: the paper's table 1 has 250 scenes per model, judged by hand, and an unknown classifier for D-Steps.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

import pyro

from analysis.command import new_file, of_run, write_json
from analysis.papers.gnm import structure as measures
from analysis.papers.gnm.discriminator import LIMIT
from analysis.papers.gnm.trainings import MODELS, WORLDS, on_worlds, training
from analysis.papers.item import Item, Made, Request, Row, show
from analysis.papers.published import PUBLISHED
from inference.command import one_of, told
from inference.loading import ROOT
from inference.plan import Run, plan
from inference.runs import Trained, open_run

SCENES = 250
"""Scenes per model in table 1; D-Steps use `measures.PER_STEP` times as many."""
FOUND = 500
"""Scenes of table 2."""
MIXED = "mnist4_10"
"""The world of table 1."""
TABLES = ("table1", "table2", "table3")


def table1() -> Item:
    """S-Acc, D-Steps and likelihood on MNIST-4-10."""
    printed = PUBLISHED["gnm", "table1"]

    def make(runs: Mapping[str, Trained], request: Request) -> Made:
        number = request.scenes or SCENES
        rows: list[Row] = []
        for model in printed.rows:
            found = _samples(runs[model], number, request.seed) if model in runs else {}
            rows += [_row("table1", model, m, found, number) for m in printed.columns]
        return Made(tuple(rows))

    return Item(printed.title, {model: training(model, MIXED) for model in printed.rows}, make)


def _samples(run: Trained, number: int, seed: int) -> dict[str, float]:
    data = run.unseen(measures.PER_STEP * number, seed)
    found = measures.samples(run.program, run.guide, data, number, seed)
    return found | {"s_acc_error": (found["s_acc"] * (1 - found["s_acc"]) / number) ** 0.5}


def table2() -> Item:
    """Scores of boxes, and accuracy of classes from z_what."""
    printed = PUBLISHED["gnm", "table2"]
    titles = {world: title for title, world in WORLDS.items()}

    def make(runs: Mapping[str, Trained], request: Request) -> Made:
        number, rows = request.scenes or FOUND, []
        for case in printed.cases:
            for model in printed.rows:
                run, found = runs.get(f"{model} on {titles[case]}"), {}
                if run is not None:
                    data = run.unseen(number, request.seed)
                    found = measures.objects(run.program, run.guide, data, request.seed)
                rows += [_row("table2", model, m, found, number, case) for m in printed.columns]
        return Made(tuple(rows))

    return Item(
        printed.title, on_worlds(printed.rows, [titles[case] for case in printed.cases]), make
    )


def table3() -> Item:
    """Numbers of parameters of the ``paper`` presets, which need no training."""
    printed = PUBLISHED["gnm", "table3"]

    def make(runs: Mapping[str, Trained], request: Request) -> Made:
        return Made(
            tuple(
                _row("table3", model, "parameters", {"parameters": size(model, world)}, None, world)
                for world in printed.cases
                for model in printed.rows
            )
        )

    return Item(printed.title, {}, make)


def size(model: str, world: str) -> float:
    """Number of parameters of program and guide at the ``paper`` preset."""
    chosen = MODELS[model]
    run = Run(
        f"programs/{chosen.program}.py", ROOT / "runs", chosen.variant, "paper", world, device="cpu"
    )
    planned = plan(run)
    return float(measures.parameters(*planned.source.build(planned.config)))


def _row(
    table: str,
    model: str,
    metric: str,
    found: Mapping[str, float],
    scenes: int | None,
    case: str = "",
) -> Row:
    """A row with the paper's figure beside ours; the error is `found` under ``METRIC_error``."""
    paper = PUBLISHED["gnm", table].figure(model, metric, case)
    scenes = scenes if metric in found else None
    return Row(model, metric, found.get(metric), paper, case, scenes, found.get(f"{metric}_error"))


def beside(name: str, found: Mapping[str, Any], world: str) -> list[Row]:
    """The paper's figures for a world, and a run's metrics in it."""
    rows = []
    for table in TABLES:
        printed = PUBLISHED["gnm", table]
        case = world if world in printed.cases else ""
        if case in printed.cases and (case or world == MIXED):
            rows += [
                _row(table, m, c, {}, None, case) for m in printed.rows for c in printed.columns
            ]
    rows = [row._replace(case=world) for row in rows]
    columns = dict.fromkeys(c for table in TABLES for c in PUBLISHED["gnm", table].columns)
    errors = {c: found.get(f"{c}_error") for c in columns}
    own = [Row(name, c, found[c], None, world, error=errors[c]) for c in columns if c in found]
    return [*rows, *own]


@told
def main(arguments: list[str] | None = None) -> None:
    """Entry point."""
    a = of_run("analysis.papers.gnm.tables", __doc__, scenes=500)
    a.add_argument("--boxes", action="store_true", help="digits are the program's own objects")
    a.add_argument("--symbols", type=one_of(("mode", "draw"), "kind of symbols"), default="mode", metavar="K",
                   help="mode or draw, given z_global")  # fmt: skip
    a.add_argument("--limit", type=int, default=LIMIT, metavar="N", help="of D-Steps")
    a.add_argument("--json", type=new_file, metavar="FILE", help="write the figures there too")
    o = a.parse_args(arguments)
    pyro.enable_validation(False)
    pyro.set_rng_seed(o.seed)
    if o.scenes < 4:
        raise ValueError(f"--scenes {o.scenes}: expected at least 4")
    run = open_run(o.run)
    data = run.unseen(measures.PER_STEP * o.scenes, o.seed)
    mode = o.symbols == "mode"
    found = measures.structure(
        run.program, run.guide, data, o.scenes, o.seed, o.boxes, mode, o.limit
    )
    print(show(beside(run.folder.name, found, data.description["world"])))
    shares = ("s_acc_true", "s_acc_broken", "s_acc_inferred", "d_accuracy")
    print("\n".join(f"  {name:<16}{found[name]:8.3f}" for name in shares if name in found))
    write_json(o.json, run.steps | {"symbols": o.symbols, "boxes": o.boxes} | found)


if __name__ == "__main__":
    sys.exit(main())
