"""Write the tables of RESULTS.md and of the READMEs: metrics of shipped runs, and the list of estimators.

    python -m analysis.results

Nothing is measured here. Every number is read from the files of a run in `programs/trained`, from studies of
estimators in `analysis/measured`, or from the table of published figures. RESULTS.md holds a table per run,
ordered by program, and those of the studies. The README holds a row per run, between two comments,
inference/README.md what the classes of `inference.estimators` say of themselves, and the README beside them
what other libraries have. A test holds that all are current.
"""

from __future__ import annotations

import json
import re
import shlex
import sys
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from analysis import calibrate, studies
from analysis.command import percent
from analysis.judges import table as dreams_table
from analysis.papers.published import figures_of, model_of, source_of
from inference import svi
from inference.command import command_line, told
from inference.estimators import field, markdown
from inference.images.worlds import load_world
from inference.loading import ROOT, own_programs
from inference.plan import plan
from inference.runs import TRAINED, read_config, read_json

RESULTS = ROOT / "analysis" / "RESULTS.md"
README = ROOT / "README.md"
ESTIMATORS = ROOT / "inference" / "README.md"
FIELD = ROOT / "inference" / "estimators" / "README.md"
STEPS = ROOT / "analysis" / "figures" / "steps.json"
"""CPU time of steps against another revision: ``analysis.benchmark --revision REV --json`` this file."""
BEGIN = "<!-- results: written by python -m analysis.results -->"
BEGIN_FIELD = "<!-- field: written by python -m analysis.results -->"
BEGIN_ESTIMATORS = "<!-- estimators: written by python -m analysis.results -->"
END = "<!-- end -->"


def digits(number: int) -> Callable[[float], str]:
    """A function that writes a number with `number` digits after the point, and separates thousands."""
    return lambda value: f"{value:,.{number}f}"


def scientific(value: float) -> str:
    """``0.00046`` as 4.6e-04."""
    return f"{value:.1e}"


METRICS: dict[str, tuple[str, Callable[[float], str]]] = {
    "object_count_accuracy": ("object count accuracy", percent),
    "object_count_over": ("images with too many objects", percent),
    "object_count_under": ("images with too few objects", percent),
    "object_f1": ("object F1", percent),
    "object_recall": ("object recall", percent),
    "part_count_accuracy": ("part count accuracy", percent),
    "part_f1": ("part F1", percent),
    "part_recall": ("part recall", percent),
    "structure_accuracy": ("structure accuracy", percent),
    "category_correspondence": ("category correspondence", percent),
    "ari_fg": ("ARI of the foreground", digits(3)),
    "ari": ("ARI of all pixels", digits(3)),
    "ap50": ("AP at IoU 0.5", percent),
    "ap50_95": ("AP at IoU 0.5 to 0.95", percent),
    "shape_iou": ("IoU of full masks", digits(3)),
    "hidden_iou": ("IoU of hidden pixels", digits(3)),
    "depth_order_accuracy": ("depth order accuracy", percent),
    "experts_alive": ("object experts in use", digits(0)),
    "expert_purity": ("purity of experts", digits(3)),
    "mse": ("squared error of a pixel", scientific),
    "fid_like": ("Fréchet distance of prior scenes, random filters", digits(4)),
    "bits_per_dimension": ("bits per number of an image", digits(2)),
    "inverse_error": ("largest error of f(f⁻¹(x))", scientific),
    "elbo": ("ELBO, nats per image", digits(0)),
    "elbo_per_pixel": ("ELBO, nats per pixel", digits(2)),
    "iwae": ("IWAE, nats per image", digits(0)),
    "s_acc": ("S-Acc: prior scenes with the world's structure", percent),
    "s_acc_true": ("… of true scenes", percent),
    "s_acc_broken": ("… of scenes that break the structure", percent),
    "d_steps": ("D-Steps, or the limit", digits(0)),
    "d_accuracy": ("the discriminator's accuracy by then", percent),
    "ll": ("log-likelihood (IWAE of 100 draws), nats per image", digits(0)),
    "ll_error": ("… standard error", digits(0)),
    "what_accuracy": ("class told from z_what", percent),
    "parameters": ("parameters of program and guide", digits(0)),
}
"""Label and form of every metric, in the order in which a table lists them."""

HEADLINES: dict[str, tuple[str, ...]] = {
    "gsgn": ("part_f1", "structure_accuracy"),
    "space": ("object_f1",),
    "air": ("object_count_accuracy", "ap50"),
    "discrete_air": ("object_count_accuracy", "category_correspondence"),
    "econ": ("ari_fg", "shape_iou"),
    "gnm": ("ap50", "s_acc"),
    "convdraw": ("s_acc", "ll"),
    "genesis": ("s_acc", "ll"),
    "vae": ("s_acc", "ll"),
    "denf": ("ari_fg", "object_f1"),
}
"""Metrics in the README's row of a program; other programs show their first two measured metrics."""

FILES: dict[str, str] = {
    "metrics.json": "python -m analysis.evaluate {run} --scenes {scenes} --seed {seed}",
    "structure.json": "python -m analysis.papers.gnm.tables {run} --scenes {scenes} --seed {seed} "
    "--symbols {symbols} --limit 200",
}
"""The commands that wrote the files of a run."""


@dataclass(frozen=True)
class Shipped:
    """The contents of a shipped run's files."""

    name: str
    """VARIANT-WORLD"""
    config: Mapping[str, Any]
    measured: Mapping[str, Mapping[str, Any]]
    """the entries of `FILES` that the run has, by name"""

    @property
    def program(self) -> str:
        """Stem of the program's file."""
        return Path(self.config["program"]).stem

    @property
    def numbers(self) -> dict[str, float]:
        """All metrics of `METRICS`; metrics.json takes precedence over the other files."""
        found: dict[str, float] = {}
        for table in self.measured.values():
            found = {**known(table), **found}
        return found

    def source(self, metric: str) -> str:
        """The file that `numbers` takes a metric from."""
        return next(name for name, table in self.measured.items() if metric in known(table))


def known(table: Mapping[str, Any]) -> dict[str, float]:
    """The entries of a table that `METRICS` names, in its order."""
    return {name: table[name] for name in METRICS if table.get(name) is not None}


def shipped(folder: Path = TRAINED) -> list[Shipped]:
    """The runs of a folder, ordered by their programs' names and then by their own."""
    runs = [opened(path.parent) for path in folder.glob("*/config.json")]
    return sorted(runs, key=lambda run: (run.program, run.name))


def opened(folder: Path) -> Shipped:
    """The contents of the files in a run folder."""
    measured = {name: read_json(folder / name) for name in FILES if (folder / name).is_file()}
    return Shipped(folder.name, read_config(folder), measured)


def published(run: Shipped) -> tuple[Mapping[str, float], str]:
    """The paper's figures for the run's variant and world, and where they are printed."""
    model = model_of(run.config)
    return figures_of(model), source_of(model)


def changed(run: Shipped) -> list[str]:
    """Differences between the run's recipe and Config and those of its command today, one phrase for each."""
    was = run.config["recipe"]
    asked = svi.parse(shlex.split(run.config["command"])[3:])
    finish = asked.start is not None  # of a run that is not shipped, in whose world it goes on
    world = asked.world or (was["world"] if finish else None)
    today = plan(replace(asked, start=None, world=world))
    now = today.recipe
    found = [
        f"{name} {was[name]} then, {getattr(now, name)} now"
        for name in ("steps", "batch", "scenes", "estimator")
        if was[name] != getattr(now, name)
    ]
    for table in ("schedules", "auxiliary", "penalties"):
        if names := differing(was.get(table, {}), getattr(now, table)):
            found.append(f"{table} of {', '.join(f'`{name}`' for name in names)}")
    moves = {str(step): name for step, name in now.moves.items()}
    if was.get("moves", {}) != moves:
        found.append(f"moves {was.get('moves', {})} then, {moves} now")
    if not finish:  # else it has the Config of the run that it started from
        found += other_fields(run, json.loads(json.dumps(asdict(today.config))))
    return found


def other_fields(run: Shipped, now: Mapping[str, Any]) -> list[str]:
    """Fields of the run's Config that are others in the Config of its command today, but for fitted priors'."""
    was, fitted = run.config["config"], {"learned"}
    for command in commands(run.config):
        if "inference.fit_prior" in command:
            pairs = [word for word in shlex.split(command) if "=" in word]
            fitted |= {pair.partition("=")[0] for pair in pairs}
    names = [name for name in was if name not in fitted and was[name] != now.get(name)]
    return [f"{name}={was[name]} then, {now.get(name)} now" for name in names]


def commands(config: Mapping[str, Any]) -> list[str]:
    """The commands that made a run, from its config.json: trainings and fits of priors, in order."""
    before = commands(config["started"]) if config.get("started") else []
    fitted = [config["fitted"]["command"]] if config.get("fitted") else []
    return [*before, config["command"], *fitted]


def other_now(run: Shipped) -> bool:
    """Whether the recipe or the world has changed since."""
    return bool(changed(run)) or any(outdated(table["data"]) for table in run.measured.values())


def differing(was: Mapping[str, str], now: Mapping[str, Any]) -> list[str]:
    """The entries that only one table has, or that have the same class with other numbers.

    Args:
        was: the table in config.json, values as `repr`. Classes that have another name today are not
            compared.
    """
    others = [name for name in was.keys() & now.keys() if _other(was[name], repr(now[name]))]
    return sorted({*(was.keys() ^ now.keys()), *others})


def _other(was: str, now: str) -> bool:
    return was != now and was.partition("(")[0] == now.partition("(")[0]


def render(runs: list[Shipped] | None = None) -> str:
    """The text of RESULTS.md."""
    runs = shipped() if runs is None else runs
    lines = [
        "# Results",
        "",
        "Written by `python -m analysis.results` from the files in `programs/trained` and the published",
        "figures; do not edit it. Worlds are reconstructions of the papers' data, and smaller: figures stand",
        "side by side, not against each other. Everything is measured with hard draws and without auxiliary",
        "terms. Other seeds, ablations and failures are in [LOG.md](LOG.md).",
    ]
    for program in sorted({*own_programs(), *(run.program for run in runs)}):
        own = [run for run in runs if run.program == program]
        lines += ["", f"## {program}"]
        lines += [line for run in own for line in section(run)] or ["", "No run ships."]
    lines += [
        *dreams_table.render(TRAINED),
        *calibrate.render(TRAINED),
        *studies.render(),
        *steps(),
    ]
    return "\n".join(lines) + "\n"


def steps() -> list[str]:
    """Lines with the CPU time of training steps, before and after; none where it was not measured."""
    if not STEPS.is_file():
        return []
    rows = json.loads(STEPS.read_text(encoding="utf-8"))
    revision = rows[0]["revision"]
    programs = " ".join(f"programs/{name}.py" for name in dict.fromkeys(r["program"] for r in rows))
    lines = ["", "## CPU time of a training step", "", "```"]
    lines += [
        f"python -m analysis.benchmark {programs} --revision {revision} "
        "--json analysis/figures/steps.json",
        "```",
        "",
        f"The preset `quick`, one thread, this tree and revision `{revision}` by turns; medians,",
        "and the standard error of the ratio. Shares are of the rate of a product of two matrices, by",
        "torch's count of what convolutions multiply, which is too high for the gradients of grouped",
        "ones (ECON).",
        "",
        f"| program | weights | ms, `{revision}` | ms, now | ratio | share before | share now |",
        "|---|---|---|---|---|---|---|",
    ]
    return lines + [_step(row) for row in rows]


def _step(row: Mapping[str, Any]) -> str:
    ratio = f"{row['ratio']:.3f} ± {row['error']:.3f}"
    times = f"{row['ms before']:.0f} | {row['ms now']:.0f} | {ratio}"
    shares = f"{percent(row['share before'])} | {percent(row['share now'])}"
    return f"| {row['program']} | {row['at']} | {times} | {shares} |"


def section(run: Shipped) -> list[str]:
    """Lines about a run: how it was trained, and a table per file of measurements."""
    recipe, seed = run.config["recipe"], run.config["seed"]
    lines = ["", f"### {run.name}", "", "```", *commands(run.config), "```", ""]
    lines += [
        f"{recipe['steps']:,} steps of {recipe['batch']} images, {recipe['scenes']:,} training scenes, "
        f"estimator `{recipe['estimator']}`, seed {seed}."
    ]
    if differences := changed(run):
        lines += [f"The recipe has changed since: {'; '.join(differences)}."]
    for name in run.measured:
        lines += table(run, name)
    return lines


def table(run: Shipped, name: str) -> list[str]:
    """Lines with the metrics of one file, ours and the paper's."""
    measured = run.measured[name]
    paper, source = published(run)
    command = FILES[name].format(run=run.name, **measured)
    about = f"{measured['scenes']:,} unseen {scenes(measured['data'])}, seed {measured['seed']}"
    about += f", {measured['draws']} draws per image" if "draws" in measured else ""
    lines = ["", f"`{command}`: {about}.{outdated(measured['data'])}", ""]
    lines += ["| | ours | paper |", "|---|---|---|"]
    lines += [row(key, value, paper) for key, value in known(measured).items()]
    if not source:
        return lines
    linked = re.sub(r"(^|; )(\w+)(?=,)", r"\1[\2](papers/\2/README.md)", source)
    return [*lines, "", f"Paper: {linked}."]


def outdated(data: Mapping[str, Any]) -> str:
    """A sentence if the world of a data set has changed since, else the empty string."""
    if "world" not in data or (now := load_world(data["world"]).version) == data["version"]:
        return ""
    return f" The world was version {data['version']} then and is version {now} now."


def scenes(data: Mapping[str, Any]) -> str:
    """Kind and size of a data set's images, from its description."""
    size = data.get("config", data)["size"]
    what = f"scenes of `{data['world']}`" if "world" in data else "images of one's own"
    return f"{what}, {size} by {size} pixels"


def row(key: str, value: float, paper: Mapping[str, float]) -> str:
    """A line of a table."""
    label, form = METRICS[key]
    theirs = form(paper[key]) if key in paper else ""
    return f"| {label} | {form(value)} | {theirs} |"


def summary(runs: list[Shipped] | None = None) -> str:
    """The README's table: one row per run, ours and in brackets the paper's."""
    runs = shipped() if runs is None else runs
    lines = [
        BEGIN,
        "| shipped run | ours (the paper's) | scenes | `python -m inference.svi programs/…` |",
    ]
    lines += ["|---|---|---|---|", *(brief(run) for run in runs), END]
    return "\n".join(lines)


def brief(run: Shipped) -> str:
    """A run's row in the README."""
    numbers, (paper, _) = run.numbers, published(run)
    keys = [key for key in HEADLINES.get(run.program, list(numbers)[:2]) if key in numbers]
    figures = []
    for key in keys:
        label, form = METRICS[key]
        theirs = f" ({form(paper[key])})" if key in paper else ""
        figures.append(f"{label.partition(':')[0].partition(' (')[0]} {form(numbers[key])}{theirs}")
    files = {run.source(key): None for key in keys}
    number = ", ".join(f"{run.measured[name]['scenes']:,}" for name in files)
    return f"| `{run.name}` | {', '.join(figures)} | {number} | {short(run)} |"


def short(run: Shipped) -> str:
    """The run's last training without the common parts; with a star if recipe or world have changed since."""
    words = shlex.split(run.config["command"])[3:]
    out = words.index("--out")
    words = [Path(words[0]).name, *words[1:out], *words[out + 2 :]]
    shown = re.sub(r"--from \S+", "--from …", shlex.join(words))
    return f"`{shown}`" + (" *" if other_now(run) else "")


def estimators() -> str:
    """The table of inference/README.md: a row per estimator."""
    return "\n".join([BEGIN_ESTIMATORS, markdown(), END])


def others() -> str:
    """The table of inference/estimators/README.md: what other libraries have."""
    return "\n".join([BEGIN_FIELD, field(), END])


def inserted(text: str, lines: str) -> str:
    """A README's text in which `lines`, whose first and last are two comments, replace those between the
    same two.

    Raises:
        ValueError: the text lacks the comments.
    """
    first = lines.partition("\n")[0]
    before, begin, rest = text.partition(first)
    _, end, after = rest.partition(END)
    if not (begin and end):
        raise ValueError(
            f"the README lacks the lines {first} and {END}: put them where the table is to be"
        )
    return before + lines + after


@told
def main(arguments: list[str] | None = None) -> None:
    """Entry point."""
    command_line("analysis.results", __doc__).parse_args(arguments)
    RESULTS.write_text(render(), encoding="utf-8")
    for file, lines in ((README, summary()), (ESTIMATORS, estimators()), (FIELD, others())):
        file.write_text(inserted(file.read_text(encoding="utf-8"), lines), encoding="utf-8")
    print(RESULTS, README, ESTIMATORS, FIELD, sep="\n")


if __name__ == "__main__":
    sys.exit(main())
