"""Items: the tables and figures of the papers, each with its trainings and the function that makes ours.

A paper's folder has a file ``items.py`` with a table ``ITEMS``; ``python -m analysis.papers PAPER ITEM`` makes
one. An item is made from run folders: those under ``--runs``, which ``--train`` fills, else the shipped ones.
With ``--record`` the result is kept in the paper's folder ``measured``: pictures, and a JSON file with the
rows, the command and the runs. An item counts as measured only if that file exists.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

from matplotlib.figure import Figure

from analysis import plots
from analysis.command import write_csv, write_json
from analysis.evaluate import SceneEvaluator
from inference.command import new_folder
from inference.images.worlds import load_world
from inference.loading import ROOT
from inference.plan import Run, command
from inference.runs import TRAINED, Trained, open_run, read_config, read_json
from inference.search import stopped_at
from inference.svi import finished, train

PAPERS = ("gsgn", "gnm", "econ", "air", "denf")


class Row(NamedTuple):
    """A number of a table."""

    model: str
    """name of the row of the paper's table"""
    metric: str
    ours: float | None
    """our number; None if it was not measured"""
    paper: float | None = None
    """the paper's number; None if the paper has none"""
    case: str = ""
    """case of a table with several cases, such as "below 100" """
    scenes: int | None = None
    """number of scenes on which ours is measured"""
    error: float | None = None
    """standard error of ours, if known"""


@dataclass(frozen=True)
class Training:
    """The training of a table's row or a figure's column."""

    program: str
    """stem of the program's file, or path of a file outside of programs/"""
    variant: str
    world: str
    """name of the world, or path of its file"""
    set: tuple[str, ...] = ()
    """settings, as in ``--set``"""
    preset: str = "{}"
    """the preset; ``{}`` stands for the requested preset, as in ``{}_beta2``"""
    shipped: str | None = None
    """name of the run in programs/trained that may replace it, where nothing else than the default is
    requested"""
    label: str = ""
    """distinguishes its folder from that of a training with the same name and other settings"""
    name: str = ""
    """name of its folder, if the row's or column's name is ambiguous, as with several worlds in one item"""
    seed: int = 0
    """added to the requested seed, for rows over several trainings"""
    finish: str = ""
    """preset with which a training of preset ``quick`` goes on from its end, if there is one"""
    quick: str = "quick"
    """the preset that is meant by the requested preset ``quick``"""

    def runs(self, name: str, request: Request) -> list[Run]:
        """The run of this training and that of its finish, in folders named after row, world and seed."""
        asked = self.quick if request.preset == "quick" else request.preset
        preset = self.preset.format(asked)
        name = (self.name or name).lower().replace(" ", "_")
        seed = request.seed + self.seed
        words = [name, Path(self.world).stem, self.label, f"seed{seed}"]
        folder = "-".join(word for word in words if word)
        own = self.program.endswith(".py")
        run = Run(
            program=self.program if own else f"programs/{self.program}.py",
            variant=self.variant,
            preset=preset,
            world=self.world,
            seed=seed,
            out=request.runs / "-".join([preset, *request.set]) / folder,
            resume=True,
            set=(*self.set, *request.set),
        )
        if not self.finish or preset != "quick":
            return [run]
        out = request.runs / "-".join([self.finish, *request.set]) / folder
        return [run, replace(run, preset=self.finish, start=str(run.out), out=out)]


@dataclass(frozen=True)
class Request:
    """Options of making an item."""

    runs: Path = Path("runs/papers")
    """folder of the trainings"""
    preset: str = "quick"
    seed: int = 0
    """seed of trainings and of drawn scenes"""
    scenes: int | None = None
    """number of scenes; None for the item's own"""
    set: tuple[str, ...] = ()
    """settings of all trainings, such as ``train.steps=300``; they go into a folder of their own"""
    only: str = "*"
    """pattern of the rows or columns that are trained and made"""

    @property
    def words(self) -> list[str]:
        """The options of the trainings, as the command has them."""
        changes = [word for pair in self.set for word in ("--set", pair)]
        return ["--preset", self.preset, "--seed", str(self.seed), *changes]


@dataclass(frozen=True)
class Made:
    """The result of making an item."""

    rows: tuple[Row, ...] = ()
    figures: Mapping[str, Figure] = field(default_factory=dict)
    """figures by file name without its ending"""
    text: str = ""
    """further text to print"""


@dataclass(frozen=True)
class Item:
    """A table or a figure of a paper."""

    title: str
    """number and name in the paper"""
    trainings: Mapping[str, Training]
    """trainings by the name of the row or column; within a paper a name stands for one training"""
    make: Callable[[Mapping[str, Trained], Request], Made]
    """makes the item from the available trainings"""


@cache
def items(paper: str) -> Mapping[str, Item]:
    """The items of a paper by name, such as "table3" and "figure6"."""
    return import_module(f"analysis.papers.{paper}.items").ITEMS


def folder_of(name: str, training: Training, request: Request) -> Path | None:
    """The folder of a finished training under ``request.runs``, else of the shipped run, else None.

    A shipped run stands for the training that is requested by default: ``quick``, seed 0, no settings.
    """
    run, default = (training.runs(name, r)[-1] for r in (request, Request(request.runs)))
    if at_end(run.out):
        return run.out
    if training.shipped is None or run.seed or run != default:
        return None
    shipped = TRAINED / training.shipped
    return shipped if (shipped / "config.json").is_file() else None


def at_end(folder: Path) -> bool:
    """Whether the run in a folder was measured, and not before its last step, or any if a plateau ends it."""
    file = folder / "metrics.json"
    if not file.is_file():
        return False
    recipe = read_config(folder)["recipe"]
    return bool(recipe.get("plateau")) or read_json(file).get("step", 0) >= recipe["steps"]


def chosen(item: Item, request: Request) -> dict[str, Training]:
    """The trainings whose names match ``request.only``.

    Raises:
        ValueError: none does.
    """
    found = {n: t for n, t in item.trainings.items() if fnmatchcase(n, request.only)}
    if request.only != Request.only and not found:
        known = ", ".join(item.trainings) or "none, as it needs no training"
        raise ValueError(
            f"--only {request.only!r} fits no row or column of {item.title}; it has {known}"
        )
    return found


def train_missing(item: Item, request: Request) -> None:
    """Train the runs that are neither trained nor shipped; a stopped training continues.

    Raises:
        ValueError: a training is stopped before its last step; those after it do not begin.
    """
    for name, training in chosen(item, request).items():
        if folder_of(name, training, request) is None:
            for run in training.runs(name, request):
                print(f"\n{name}: {command(run)} --resume")
                train(run, SceneEvaluator())
                check_end(name, run)


def check_end(name: str, run: Run) -> None:
    """See that a training has taken its last step and was measured there.

    Raises:
        ValueError: it was stopped.
    """
    training, file = stopped_at(run), run.out / "metrics.json"
    step, measured = training.trainer.step, read_json(file).get("step") if file.is_file() else None
    if not finished(training) or measured != step:
        raise ValueError(
            f"{name}: the training in {run.out} was stopped at step {step} of "
            f"{training.plan.recipe.steps}; the same command goes on with it"
        )


def make(item: Item, request: Request) -> tuple[Made, dict[str, Trained]]:
    """Make an item from the available runs.

    Raises:
        ValueError: the item needs trainings, and none is available.
    """
    folders = {n: folder_of(n, t, request) for n, t in chosen(item, request).items()}
    runs = {name: open_run(folder) for name, folder in folders.items() if folder is not None}
    if item.trainings and not runs:
        raise ValueError(
            f"nothing is trained for {item.title} with {' '.join(request.words)}: it lacks "
            f"{', '.join(folders)}; give --train"
        )
    return item.make(runs, request), runs


def write(made: Made, folder: Path) -> list[Path]:
    """Write the rows as rows.csv, and the pictures; returns the files."""
    files = []
    with new_folder(folder):
        if made.rows:
            files.append(folder / "rows.csv")
            write_csv(files[0], [row._asdict() for row in made.rows])
        for name, figure in made.figures.items():
            files.append(folder / f"{name}.png")
            plots.save(figure, files[-1])
    return files


def measured(paper: str) -> Path:
    """The folder of a paper's recorded items."""
    return ROOT / "analysis" / "papers" / paper / "measured"


def record(
    paper: str, name: str, made: Made, runs: Mapping[str, Trained], request: Request, words: str
) -> None:
    """Write the result, with the command `words` and the runs, to the paper's folder."""
    folder = measured(paper)
    about = {label: _about(run) for label, run in runs.items()}
    content = {"command": words, "runs": about, "seed": request.seed, "text": made.text}
    content["pictures"] = [f"{name}-{title}.png" for title in made.figures]
    with new_folder(folder):
        for title, figure in made.figures.items():
            plots.save(figure, folder / f"{name}-{title}.png")
        write_json(
            folder / f"{name}.json", content | {"rows": [row._asdict() for row in made.rows]}
        )


def _about(run: Trained) -> dict[str, Any]:
    """Origin of a run, and the version of its world on which the item was measured."""
    about = {"command": run.config["command"], **run.steps}
    if run.config["images"] is None:
        about["world_version"] = load_world(run.config["recipe"]["world"]).version
    return about


def recorded(paper: str, name: str) -> dict[str, Any] | None:
    """The record of an item, as `record` wrote it, or None."""
    file = measured(paper) / f"{name}.json"
    return json.loads(file.read_text(encoding="utf-8")) if file.is_file() else None


def state(paper: str, name: str, request: Request) -> str:
    """Whether an item was measured or can be made, with which runs, and which trainings it lacks."""
    trainings, kept = items(paper)[name].trainings, recorded(paper, name)
    if kept is not None:
        what, there = "measured", list(kept["runs"])
    else:
        there = [n for n, t in trainings.items() if folder_of(n, t, request) is not None]
        what = "can be made" if there or not trainings else ""
    lacking = [n for n in trainings if n not in there]
    words = [f"{what}: {', '.join(there) or 'no training needed'}"] if what else []
    return "; ".join([*words, *([f"lacks {', '.join(lacking)}"] if lacking else [])])


def show(rows: Iterable[Row]) -> str:
    """Rows as the paper prints them: one line per model, one column per metric, the paper's figures in
    brackets."""
    rows, parts = list(rows), []
    for case in dict.fromkeys(row.case for row in rows):
        some = [row for row in rows if row.case == case]
        number = next((row.scenes for row in some if row.scenes is not None), None)
        about = [*([case] if case else []), *([f"{number} scenes"] if number is not None else [])]
        metrics = list(dict.fromkeys(row.metric for row in some))
        cells = [[", ".join(about), *(metric.replace("_", " ") for metric in metrics)]]
        for model in dict.fromkeys(row.model for row in some):
            own = {row.metric: row for row in some if row.model == model}
            cells.append([model, *(cell(own.get(metric)) for metric in metrics)])
        parts.append(_columns(cells))
    return "\n\n".join(parts)


def cell(row: Row | None) -> str:
    """``0.9866 (0.9937)``, with a dash for a missing number; empty for a row without both."""
    if row is None or (row.ours is None and row.paper is None):
        return ""
    one, two = (_number(value) for value in (row.ours, row.paper))
    error = f" ± {row.error:.3f}" if row.error is not None else ""
    return f"{one}{error} ({two})"


def _number(value: float | None) -> str:
    if value is None:
        return "-"
    size = abs(value)
    form = ".4f" if size <= 1 else ".2f" if size < 1000 else ".0f" if size < 1e6 else ".3g"
    return f"{value:{form}}"


def _columns(cells: list[list[str]]) -> str:
    """Align the first column to the left, the others to the right."""
    widths = [max(len(line[i]) for line in cells) for i in range(len(cells[0]))]
    return "\n".join(
        "  ".join(
            word.ljust(width) if i == 0 else word.rjust(width)
            for i, (word, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in cells
    )
