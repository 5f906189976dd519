"""The tables of the GSGN paper, measured on trainings of this project, one command each.

    python -m analysis.papers.gsgn.tables TABLE [--train] [--preset P] [--runs DIR] [--scenes N] [--seed S]

prints a table with our figures and, in brackets, the paper's (Deng et al., ICLR 2021). `--train` first trains
what is not trained yet, and goes on with what was stopped; without it rows that have no run are left open. The
worlds are reconstructions, so figures stand side by side, not against each other. Written to the folder of
runs: TABLE.csv.

SPACE-P's nodes are taken for parts; its objects are groups of parts whose boxes overlap (section 4).
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyro
import torch

from analysis.evaluate import floats, with_masks
from analysis.gradients import write
from analysis.papers.gsgn.grouping import group
from analysis.posterior import infer, log_weights
from analysis.scores import scene_metrics
from inference.images.dataset import Dataset
from inference.images.worlds import load_world, world_dataset
from inference.plan import Run, command
from inference.runs import open_run
from inference.settings import override
from inference.svi import train
from programs.scene import Scene

DRAWS = 10
"""draws an image for the ELBO"""


@dataclass(frozen=True)
class Model:
    """What a row of a table is trained as."""

    program: str
    variant: str
    set: tuple[str, ...] = ()
    parts: bool = False
    """its only level are the parts"""


MODELS = {
    "SPACE-O": Model("space", "space"),
    "SPACE-P": Model("space", "space_p", parts=True),
    "GSGN": Model("gsgn", "gsgn"),
    "GSGN-9": Model("gsgn", "gsgn9"),
    "GSGN-No-Share": Model("gsgn", "no_share"),
    "GSGN-No-Aux": Model("gsgn", "gsgn", ("train.auxiliary={}",)),
}


@dataclass(frozen=True)
class Selection:
    """Which scenes are measured."""

    options: Mapping[str, Any] = field(default_factory=dict)
    """fields of the world's Config, besides those of the training"""
    least: tuple[float, float] = (0, math.inf)
    """of the visible pixels of the least visible part, at 128 x 128: from, and below"""


@dataclass(frozen=True)
class Table:
    """A table of the paper."""

    title: str
    world: str
    metrics: tuple[str, ...]
    published: Mapping[str, tuple[float | None, ...]]
    """model -> figures in the order of the columns: metrics within tests; None where there is none"""
    tests: Mapping[str, Selection] = field(default_factory=lambda: {"": Selection()})
    options: tuple[str, ...] = ()
    """of the training, as of `--set`"""


INFERENCE = (
    "elbo_per_pixel",
    "object_count_accuracy",
    "object_f1",
    "part_count_accuracy",
    "part_f1",
)
STRUCTURE = (*INFERENCE, "structure_accuracy")
OCCLUSION = {
    "below 100": Selection(least=(0, 100)),
    "100 to 200": Selection(least=(100, 200)),
    "above 200": Selection(least=(200, math.inf)),
}
NUMBERS = {
    f"{n} objects": Selection({"min_objects": n, "max_objects": n, "without": ()}) for n in (2, 4)
}
ONE_AND_THREE = ("world.max_objects=3", "world.without=(2,)")

TABLES = {
    "table1": Table(
        "Table 1 and section 4: 2D Shapes", "shapes2d", STRUCTURE,
        {
            "SPACE-O": (3.96, 0.9979, 0.9995, None, None, None),
            "SPACE-P": (3.95, None, None, 0.9875, 0.9673, 0.95),
            "GSGN": (3.96, 0.9976, 0.9985, 0.9954, 0.9991, 1.0),
            "GSGN-No-Share": (3.96, 0.9972, 0.9990, 0.9949, 0.9989, None),
            "GSGN-No-Aux": (3.96, 0.25, 0.7275, 0.9579, 0.9734, None),
        },
    ),
    "table2": Table(
        "Table 2 and section 4: Compositional CLEVR", "compositional_clevr", STRUCTURE,
        {
            "SPACE-O": (3.50, 0.9802, 0.9917, None, None, None),
            "SPACE-P": (3.48, None, None, 0.9271, 0.9903, 0.80),
            "GSGN": (3.49, 0.9866, 0.9937, 0.9863, 0.9977, 0.99),
            "GSGN-9": (3.49, 0.9627, 0.9721, 0.9773, 0.9759, None),
            "GSGN-No-Share": (3.50, 0.9621, 0.9826, 0.9709, 0.9938, None),
            "GSGN-No-Aux": (3.50, 0.2513, 0.7287, 0.1238, 0.7909, None),
        },
    ),
    "table3": Table(
        "Table 3: parts by the visible pixels of the least visible one, Compositional CLEVR",
        "compositional_clevr", ("part_count_accuracy", "part_recall"),
        {
            "SPACE-P": (0.1224, 0.8603, 0.8566, 0.9795, 0.9611, 0.9948),
            "GSGN": (0.9592, 0.9893, 0.9833, 0.9977, 0.9876, 0.9986),
            "GSGN-9": (0.8980, 0.9735, 0.9692, 0.9785, 0.9812, 0.9762),
            "GSGN-No-Share": (0.8571, 0.9634, 0.9613, 0.9915, 0.9756, 0.9946),
        },
        OCCLUSION,
    ),
    "table4": Table(
        "Table 4: trained on 1 and 3 objects, 2D Shapes", "shapes2d", INFERENCE,
        {
            "SPACE-O": (4.00, 0.9947, 0.9989, None, None, 3.85, 1.0, 1.0, None, None),
            "SPACE-P": (3.99, None, None, 0.9812, 0.9566, 3.83, None, None, 0.9682, 0.9650),
            "GSGN": (4.00, 0.9951, 0.9973, 0.9921, 0.9986, 3.84, 1.0, 0.9947, 0.9939, 0.9995),
        },
        NUMBERS, ONE_AND_THREE,
    ),
    "table5": Table(
        "Table 5: trained on 1 and 3 objects, Compositional CLEVR", "compositional_clevr", INFERENCE,
        {
            "SPACE-O": (3.62, 0.9827, 0.9964, None, None, 3.06, 0.8886, 0.9672, None, None),
            "SPACE-P": (3.60, None, None, 0.9302, 0.9566, 3.10, None, None, 0.8496, 0.9892),
            "GSGN": (3.60, 0.9893, 0.9972, 0.9869, 0.9971, 3.02, 0.8778, 0.9641, 0.8720, 0.9799),
        },
        NUMBERS, ONE_AND_THREE,
    ),
    "table10": Table(
        "Table 10: seven kinds of parts", "compositional_clevr7", INFERENCE,
        {
            "SPACE-O": (3.56, 0.9660, 0.9849, None, None),
            "SPACE-P": (3.55, None, None, 0.8969, 0.9210),
            "GSGN": (3.55, 0.9638, 0.9829, 0.9748, 0.9411),
        },
    ),
    "table11": Table(
        "Table 11: parts by the visible pixels of the least visible one, seven kinds of parts",
        "compositional_clevr7", ("part_count_accuracy", "part_recall"),
        {
            "SPACE-P": (0.0, 0.8105, 0.8278, 0.9450, 0.9339, 0.9025),
            "GSGN": (1.0, 0.9563, 0.9672, 0.9690, 0.9785, 0.9276),
        },
        OCCLUSION,
    ),
}  # fmt: skip
"""By name. Of Table 4, ELBO of SPACE-P on 2 objects, "399" is read as 3.99."""


def run_of(table: Table, model: str, preset: str, runs: Path, seed: int) -> Run:
    """The training of a row; rows of several tables share it."""
    m = MODELS[model]
    name = [model.lower(), table.world, *(["1and3"] if table.options else []), f"seed{seed}"]
    return Run(
        program=f"programs/{m.program}.py",
        variant=m.variant,
        preset=preset,
        world=table.world,
        seed=seed,
        out=runs / preset / "-".join(name),
        resume=True,
        set=(*m.set, *table.options),
    )


def least_visible(truth: Scene) -> torch.Tensor:
    """(B,) pixels of the least visible part, as many as they were at 128 x 128; infinite without parts."""
    size = truth.image.shape[-1]
    pixels = truth.parts.mask.flatten(2).sum(-1).double() * (128 / size) ** 2
    return pixels.where(truth.parts.present, math.inf).amin(1)


def measure(table: Table, model: str, run: Run, scenes: int) -> list[dict[str, float]]:
    """What a trained row reaches, a test an entry; `scenes` says on how many.

    Args:
        scenes: drawn for every test; of those that the test does not choose, none is measured.
    """
    trained = open_run(run.out)
    program, guide = trained.program, trained.guide
    found, drawn = [], {}
    for test in table.tests.values():
        key = tuple(test.options.items())
        if key not in drawn:
            data = unseen_scenes(trained.config, test, scenes)
            drawn[key] = explained(program, guide, data, MODELS[model].parts)
        elbo, scene, truth = drawn[key]
        low, high = test.least
        least = least_visible(truth)
        rows = ((least >= low) & ((least < high) | (high == math.inf))).nonzero()[:, 0]
        measured = {"scenes": len(rows)}
        if len(rows):
            measured |= scene_metrics(scene[rows], truth[rows])
            measured["elbo_per_pixel"] = float(elbo[rows].mean())
        found.append(measured)
    return found


def explained(
    program: torch.nn.Module, guide: torch.nn.Module, data: Dataset, parts: bool
) -> tuple[torch.Tensor, Scene, Scene]:
    """ELBO (B,) in nats a pixel, the scenes at the guide's mode, and the true ones."""
    images = floats(data, "cpu")
    pyro.set_rng_seed(0)
    scene = infer(program, guide, images)
    elbo = log_weights(program, guide, images, DRAWS).mean(0) / images[0, 0].numel()
    truth = data.truth()
    return elbo, with_masks(group(scene) if parts else scene), truth


def unseen_scenes(config: Mapping[str, Any], test: Selection, number: int) -> Dataset:
    """Scenes of the run's world that it was not trained on."""
    name = config["recipe"]["world"]
    options = override(load_world(name).config(), {**config["world"], **test.options}, name)
    return world_dataset(name, number, "test", config=options)


def is_trained(run: Run) -> bool:
    """Whether a training of the row has come to its end."""
    return (run.out / "metrics.json").is_file()


def rows(table: Table, runs: Mapping[str, Run], scenes: int) -> Iterable[dict[str, Any]]:
    """A row a model, test and metric: ours (None where there is none), the paper's, of how many scenes."""
    for model, run in runs.items():
        found = measure(table, model, run, scenes) if is_trained(run) else [{}] * len(table.tests)
        figures = iter(table.published[model])
        for name, measured in zip(table.tests, found, strict=True):
            for metric in table.metrics:
                paper = next(figures)
                yield {
                    "model": model,
                    "test": name,
                    "metric": metric,
                    "ours": None if hidden(model, metric) else measured.get(metric),
                    "paper": paper,
                    "scenes": measured.get("scenes"),
                }


def hidden(model: str, metric: str) -> bool:
    """What is no metric of the model: objects of SPACE-P."""
    return MODELS[model].parts and metric.startswith("object_")


def show(table: Table, found: list[dict[str, Any]]) -> str:
    """The rows as the paper prints them, ours before the paper's in brackets."""
    lines = [table.title]
    for test in table.tests:
        some = [row for row in found if row["test"] == test]
        number = next((row["scenes"] for row in some if row["scenes"] is not None), None)
        about = [test] if test else []
        about += [f"{number} scenes"] if number is not None else []
        head = [", ".join(about), *(m.replace("_", " ") for m in table.metrics)]
        cells = [head]
        for model in dict.fromkeys(row["model"] for row in some):
            of = [row for row in some if row["model"] == model]
            cells.append([model, *(cell(row["ours"], row["paper"]) for row in of)])
        widths = [max(len(line[i]) for line in cells) for i in range(len(head))]
        lines.append("")
        lines += [
            "  ".join(
                word.ljust(width) if i == 0 else word.rjust(width)
                for i, (word, width) in enumerate(zip(line, widths, strict=True))
            ).rstrip()
            for line in cells
        ]
    return "\n".join(lines)


def cell(ours: float | None, paper: float | None) -> str:
    """``0.9866 (0.9937)``, what there is not as a dash."""
    one, two = ("-" if v is None else f"{v:.4f}" if v <= 1 else f"{v:.2f}" for v in (ours, paper))
    return "" if ours is None and paper is None else f"{one} ({two})"


def main(arguments: list[str] | None = None) -> int:
    """Entry point."""
    names = "\n".join(f"  {name:<8} {table.title}" for name, table in TABLES.items())
    a = argparse.ArgumentParser(
        prog="python -m analysis.papers.gsgn.tables",
        description=f"{__doc__.splitlines()[0]}\n\n{names}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    a.add_argument("table", metavar="TABLE", choices=TABLES)
    a.add_argument("--train", action="store_true", help="train what is not trained yet")
    a.add_argument("--models", metavar="A,B", help="only these rows")
    a.add_argument("--preset", default="quick", metavar="P")
    a.add_argument("--runs", type=Path, default=Path("runs/experiments"), metavar="DIR")
    a.add_argument("--scenes", type=int, default=1000, metavar="N", help="of every test")
    a.add_argument("--seed", type=int, default=0, metavar="S", help="of the training")
    o = a.parse_args(arguments)
    table = TABLES[o.table]
    try:
        models = chosen(table, o.models)
        runs = {m: run_of(table, m, o.preset, o.runs, o.seed) for m in models}
        for model, run in runs.items():
            if o.train and not is_trained(run):
                print(f"\n{model}: {command(run)} --resume")
                train(run)
        found = list(rows(table, runs, o.scenes))
    except (ValueError, FloatingPointError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(show(table, found))
    folder = o.runs / o.preset
    folder.mkdir(parents=True, exist_ok=True)
    write(folder / f"{o.table}.csv", found)
    return 0


def chosen(table: Table, names: str | None) -> list[str]:
    """The rows that are asked for.

    Raises:
        ValueError: the table has no such row.
    """
    models = names.split(",") if names else list(table.published)
    if unknown := set(models) - set(table.published):
        raise ValueError(
            f"the table has no row {', '.join(sorted(unknown))}; known are {', '.join(table.published)}"
        )
    return models


if __name__ == "__main__":
    sys.exit(main())
