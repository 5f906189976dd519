"""One page about a run: program, metrics, inferences, samples, edits, and the quality of its posterior.

    python -m analysis.report RUN [--out DIR] [--images N] [--draws S]

writes ``report/index.html``, one file with all pictures in it, and for ArviZ ``posterior.nc``, draws of the
guide, and ``chains.nc``, a few scenes that the program refined, beside it.
RUN is a run folder, which then gets the report, or the name of a shipped run. Metrics come from its
metrics.json; pictures, posterior and checks are made from unseen images.
"""

from __future__ import annotations

import base64
import html
import inspect
import io
import json
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pyro
import torch
from matplotlib.figure import Figure
from pyro import poutine

from analysis import edit, plots
from analysis.evaluate import graph_metrics, trained_on
from analysis.papers.econ import validity
from analysis.papers.gnm import structure
from analysis.papers.gnm.pictures import redrawn
from analysis.papers.published import figures_of, model_of, source_of
from analysis.posterior import (
    calibration,
    infer,
    latent_sites,
    layers,
    predictive,
    quantities,
    samples,
)
from analysis.posterior.refine.chains import LEAST, chains_to_inference_data, diagnostics
from analysis.posterior.to_arviz import to_inference_data
from analysis.refine import SHOWN, side_by_side
from analysis.scores import ari_of_twins
from inference.command import command_line, new_folder, told
from inference.images.dataset import Dataset
from inference.loading import Function
from inference.log import read_log
from inference.runs import Trained, find_run, open_run, read_json
from programs.scene import Scene

IMAGES = 32
"""Images whose posterior is drawn."""
DRAWS = 50
"""Draws per image of the posterior."""
SIMULATIONS = 60
"""Scenes that are simulated for the calibration."""
RANKED = 19
"""Draws per scene of the calibration."""
REFINED = 6
"""Scenes that the program refines."""
SWEEPS = 12
"""Sweeps of their moves."""
CHAINS = 4
"""Chains of each."""
REDRAWN = 6
"""Scenes whose symbols are drawn anew under one global latent."""
REDRAWS = 5
"""Draws of the symbols per scene."""
CROWDS = 4, 5
"""Numbers of objects in scenes, with repeats, on which programs in layers were not trained."""
CROWDED = 100
"""Scenes of each of these numbers."""
STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; color: #222; max-width: 60rem; margin: 0 auto; padding: 1rem }
h1 { line-height: 1.2 } h2 { margin-top: 2.5rem; border-bottom: 1px solid #ddd }
img { width: max(100%, 38rem); max-width: none; height: auto; display: block; margin: 1rem 0 }
figure { margin: 0 }
pre, .wide { overflow-x: auto } pre { background: #f6f6f4; padding: 1rem; font-size: .8rem; line-height: 1.4 }
table { border-collapse: collapse } td, th { padding: .2rem .8rem .2rem 0; text-align: left }
td.number, th.number { text-align: right; font-variant-numeric: tabular-nums }
tr:nth-child(even) { background: #f6f6f4 } figcaption, .note { color: #555; font-size: .9rem }
"""


class Page:
    """An HTML page that is being written; it loads nothing from the network."""

    def __init__(self, title: str) -> None:
        self.title, self.parts = title, [f"<h1>{html.escape(title)}</h1>"]

    def heading(self, text: str) -> None:
        """Begin a section."""
        self.parts.append(f"<h2>{html.escape(text)}</h2>")

    def text(self, text: str) -> None:
        """Add a paragraph."""
        self.parts.append(f"<p>{html.escape(text)}</p>")

    def code(self, text: str) -> None:
        """Add preformatted lines."""
        self.parts.append(f"<pre>{html.escape(text)}</pre>")

    def table(self, head: list[str], rows: list[list[str | float]]) -> None:
        """Add a table with words to the left and numbers to the right."""
        cells = "".join(f"<th>{html.escape(name)}</th>" for name in head)
        body = "".join(f"<tr>{''.join(map(_cell, row))}</tr>" for row in rows)
        self.parts.append(f'<div class="wide"><table><tr>{cells}</tr>{body}</table></div>')

    def figure(self, figure: Figure, caption: str) -> None:
        """Add a picture, embedded in the page."""
        data = io.BytesIO()
        figure.savefig(data, format="png", dpi=plots.DPI)
        picture = base64.b64encode(data.getvalue()).decode()
        text = html.escape(caption)
        self.parts.append(
            f'<figure><div class="wide"><img src="data:image/png;base64,{picture}" alt="{text}"></div>'
            f"<figcaption>{text}</figcaption></figure>"
        )

    def write(self, path: Path) -> None:
        """Write the whole page to a file."""
        path.write_text(
            f'<!DOCTYPE html><html lang="en"><head><meta charset="utf-8"><title>{html.escape(self.title)}'
            '</title><meta name="viewport" content="width=device-width, initial-scale=1">'
            f'<link rel="icon" href="data:,"><style>{STYLE}</style></head><body>'
            + "\n".join(self.parts)
            + "</body></html>\n",
            encoding="utf-8",
        )


def _cell(value: str | float) -> str:
    if isinstance(value, str):
        return f"<td>{html.escape(value)}</td>"
    return f'<td class="number">{value:.4g}</td>'


def report(run: str | Path, out: Path, images: int = IMAGES, draws: int = DRAWS) -> Path:
    """Write the report of a run into a folder.

    Args:
        run: folder, or name of a shipped run.
        out: folder for index.html, posterior.nc and chains.nc.
        images: number of unseen images whose posterior is drawn.
        draws: number of draws per image.
    Returns:
        The path of the page.
    """
    pyro.enable_validation(False)
    pyro.set_rng_seed(0)
    trained = open_run(run)
    data = trained.unseen(images)
    with new_folder(out):
        written(trained, data, data.floats(number=images), draws, out)
    return out / "index.html"


def written(trained: Trained, data: Dataset, x: torch.Tensor, draws: int, out: Path) -> None:
    """Write the page about images x (B, C, H, W), which are the first of `data`, and its files."""
    program, guide, config = trained.program, trained.guide, trained.config
    world = "pictures" if config["images"] else config["recipe"]["world"]
    page = Page(f"{config['variant']} on {world}")
    about(page, trained)
    scene = infer(program, guide, x)
    if scene is not None:
        pictures(page, program, x, scene)
        edits(page, program, guide, x, scene)
        in_layers(page, trained, x, data, scene)
        symbols(page, program, guide, x[:REDRAWN])
    checks(page, program, guide, x)
    if scene is not None and scene.levels:
        calibrated(page, program, guide, x, data)
    posterior(page, program, guide, x, data, draws, out / "posterior.nc", config)
    refined(page, program, guide, data.first(REFINED), out / "chains.nc")
    curves(page, trained.folder)
    page.write(out / "index.html")


def about(page: Page, trained: Trained) -> None:
    """The program's docstring, the command, and metrics beside the paper's."""
    page.code(trained.config["command"])
    if words := described(trained.program):
        page.heading("The program")
        page.code(words)
    file = trained.folder / "metrics.json"
    if not file.is_file():
        return
    page.heading("Metrics")
    measured = read_json(file)
    model = model_of(trained.config)
    published = figures_of(model)
    numbers = {k: v for k, v in measured.items() if isinstance(v, float)}
    if not published:
        page.table(["", "this run"], [[k.replace("_", " "), v] for k, v in numbers.items()])
    else:
        rows = [[k.replace("_", " "), v, published.get(k, "")] for k, v in numbers.items()]
        page.table(["", "this run", "paper"], rows)
        page.text(f"Paper: {source_of(model)}. The data are not the paper's own.")
    seen = trained_on(measured["data"])
    what = "pictures, those that it was trained on" if seen else "unseen scenes"
    page.text(
        f"At step {measured.get('step', '?')}, on {measured['scenes']} {what}, seed "
        f"{measured['seed']}: hard draws, the program's own densities, no auxiliary term."
    )


def described(program: torch.nn.Module) -> str:
    """What a program's file says of it: the file's docstring, or that of its class or function."""
    called = program.function if isinstance(program, Function) else type(program)
    file = sys.modules.get(called.__module__)
    return inspect.cleandoc(getattr(file, "__doc__", None) or called.__doc__ or "")


def pictures(page: Page, program: Callable, x: torch.Tensor, scene: Scene) -> None:
    """Scenes that the guide infers from images, and samples of the prior."""
    page.heading("Inferred scenes")
    if scene.levels:
        figure, what = plots.scene_graph_figure(x, scene, 5), "nodes (the leaves' dashed)"
        page.figure(figure, f"Input with boxes of {what}, reconstruction, patches of every slot.")
    else:
        page.figure(plots.reconstruction_figure(x, scene), "Inputs above, reconstructions below.")
    if not samples(program):
        page.text("The program takes no `batch`: it cannot be sampled without images.")
        return
    page.heading("Samples of the prior")
    with torch.no_grad():
        prior = program(batch=24)
    page.figure(plots.sample_figure(prior), "Scenes of the prior.")
    if prior.levels and prior.objects.patch is not None and prior.objects.present.any():
        page.figure(plots.object_figure(prior, count=24), "Their objects, each in its own frame.")


def edits(page: Page, program: Callable, guide: Callable, x: torch.Tensor, scene: Scene) -> None:
    """One object of some scenes moved, enlarged, removed, replaced, and drawn anew."""
    if not hasattr(program, "redraw") or not scene.levels:
        return
    slot = int(scene.objects.present.sum(0).argmax())
    chosen = scene.objects.present[:, slot].nonzero()[:5, 0]
    if len(chosen) < 2:
        return
    some, others = scene[chosen], scene[chosen.roll(1)]
    page.heading("Edits")
    middle = -0.5 * some.objects.centre[:, slot]
    changed = {
        "inferred": some,
        "moved": edit.bring_to_front(edit.move(some, slot, middle), slot),
        "enlarged": edit.bring_to_front(edit.scale(some, slot, 1.5), slot),
        "removed": edit.remove(some, slot),
        "replaced": edit.graft(some, slot, others, slot),
    }
    drawn = {title: edit.render(program, s) for title, s in changed.items()}
    with torch.no_grad():
        trace = poutine.trace(guide).get_trace(x[chosen])
    if edit.sites_of(trace, some, slot, 0):
        drawn["drawn anew"] = edit.resample(program, guide, x[chosen], slot)
    page.figure(plots.edit_figure(drawn), f"Object {slot + 1} of each scene, changed in its graph.")


def in_layers(page: Page, trained: Trained, x: torch.Tensor, data: Dataset, scene: Scene) -> None:
    """Layers of scenes with full shapes, draws of single experts, and scenes composed of these draws."""
    program, guide = trained.program, trained.guide
    if not layers.has_layers(program, scene):
        return
    page.heading("Layers")
    page.figure(
        plots.steps_figure(program, guide, x),
        "From the front to the back. Below the image is the reconstruction; then for every step the pixels "
        "still to explain, the region that the winning expert explains, its reconstruction, the whole "
        "object and its full shape.",
    )
    page.figure(plots.experts_figure(program), "Draws of every expert alone, one row per expert.")
    page.figure(plots.recombination_figure(program), "Scenes by chosen experts in chosen orders.")
    page.figure(
        plots.growth_figure(program), "Scenes that grow by an object per row, from the back."
    )
    if validity.judges(data):
        crowds(page, trained)
        asked(page, program, guide, data)


def symbols(page: Page, program: Callable, guide: Callable, x: torch.Tensor) -> None:
    """Symbols drawn anew under one global latent (GNM's supplement, figures 1 to 6)."""
    with torch.no_grad():
        of_images = poutine.trace(guide).get_trace(x)
    if not structure.symbols(latent_sites(of_images)):
        return
    with torch.no_grad():
        of_prior = poutine.trace(program).get_trace(batch=len(x))
    page.heading("Symbols under one global latent")
    dreams = structure.prior(program, 24)
    page.figure(plots.sample_figure(dreams), "Scenes of the prior with symbols at their mode.")
    for whose, trace, known in (("images", of_images, x), ("the prior", of_prior, None)):
        page.figure(
            redrawn(program, trace, REDRAWS, known),
            f"One global latent of {whose} per row: its symbols at their mode, and drawn anew.",
        )


def crowds(page: Page, trained: Trained) -> None:
    """More objects than in training, classes repeated, explained in more layers (figure 8)."""
    program, guide, rows = trained.program, trained.guide, {}
    for objects in CROWDS:
        world = {"min_objects": objects, "max_objects": objects, "repeats": True}
        data = trained.unseen(CROWDED, **world)
        with program.placing(objects + 1):
            rows[f"{objects} objects"] = graph_metrics(program, guide, data, "cpu")
        whole = data.truth()
        twins = ari_of_twins(whole, data.floats(), torch.Generator().manual_seed(0))
        rows[f"{objects} objects"]["ari_fg at best"] = twins
    shown, truth = data.floats(number=5), data.truth(slice(0, 5))
    page.figure(
        plots.segments_figure(program, guide, shown, truth, CROWDS[-1] + 1),
        f"{CROWDS[-1]} objects, classes repeated, in {CROWDS[-1] + 1} layers: true and inferred "
        "regions, and the whole objects. Frames have one colour per expert. At best: the upper bound, with "
        "all shapes known and the order of identical objects guessed.",
    )
    names = ["ari_fg", "ari_fg at best", "ari", "shape_iou", "hidden_iou", "object_count_accuracy"]
    cells = [[name, *(found[k] for k in names)] for name, found in rows.items()]
    page.table([f"{CROWDED} scenes", *(name.replace("_", " ") for name in names)], cells)


def asked(page: Page, program: Callable, guide: Callable, data: Dataset) -> None:
    """Whether sampled scenes show the classes of the chosen experts."""
    try:
        found = validity.validity(program, guide, data)
    except ValueError as error:
        page.text(f"Scenes of chosen experts cannot be checked: {error}.")
        return
    keys = ["count", "true_count", "classes", "true_classes"]
    head = ["share as asked for", "number", "of true scenes", "classes", "of true scenes"]
    page.table(head, [[kind, *(shares[k] for k in keys)] for kind, shares in found.items()])
    page.text(
        "Counted by a classifier trained on true scenes; beside them its scores on true scenes."
    )


def checks(page: Page, program: Callable, guide: Callable, x: torch.Tensor) -> None:
    """Predictive checks."""
    page.heading("Predictive checks")
    found = [predictive.posterior_check(program, guide, x, 20)]
    if samples(program):
        found.insert(0, predictive.prior_check(program, x, 100))
        found += predictive.aggregate_checks(program, guide, x)
    found = [check for check in found if check.p_value]
    if not found:
        page.text("No predictive check is possible for these images.")
        return
    page.figure(
        plots.predictive_figure(found),
        "Observed (black) on replicated (blue). prior: images of the program. posterior: the rank of each "
        "image among its own replicates; piles at 0 or 1 are misfits. aggregate: replicates of all "
        "images. scenes: inferred by the guide (black) on sampled from the prior (blue).",
    )


def calibrated(
    page: Page, program: Callable, guide: Callable, x: torch.Tensor, data: Dataset
) -> None:
    """Draws against the truth: for scenes of the program itself, and for the world's if it has truth."""
    page.heading("Calibration")
    truths = {"the program's own": calibration.simulate(program, SIMULATIONS)}
    if data.known:
        truths["the world's"] = x, data.truth(slice(0, len(x)))
    columns = {}
    for whose, (images, truth) in truths.items():
        found = calibration.calibration(program, guide, images, truth, RANKED, quantities.NUMBERS)
        columns[whose] = found.summary()
        page.figure(
            plots.calibration_figure(found),
            f"{len(images)} of {whose} scenes, {RANKED} draws of each: ranks of the truth among the draws, "
            "frequencies of events against their probabilities, shares of intervals that hold the truth.",
        )
    names = dict.fromkeys(name for column in columns.values() for name in column)
    rows = [
        [name.replace("_", " "), *(c.get(name, "") for c in columns.values())] for name in names
    ]
    page.table(["", *columns], rows)


def posterior(
    page: Page,
    program: Callable,
    guide: Callable,
    x: torch.Tensor,
    data: Dataset,
    draws: int,
    path: Path,
    config: Mapping[str, Any],
) -> None:
    """The file for ArviZ, and the quality of its importance weights."""
    page.heading("Posterior")
    truth = data.truth(slice(0, len(x))) if data.known else None
    attrs = {"run": config["command"], "data": json.dumps(data.description)}
    found = to_inference_data(
        program, guide, x, num_samples=draws, truth=truth, attrs=attrs, max_megabytes=50
    )
    found.to_netcdf(str(path))
    stats = found["sample_stats"]
    if "khat" in stats:
        khat = torch.as_tensor(stats["khat"].values)
        caption = f"PSIS k-hat of {len(khat)} images, {draws} draws of each: below 0.5 is good."
        page.figure(plots.khat_figure(khat), caption)
        page.text("k-hat grows with the number of latents; 1,000 draws and more make it steady.")
    elif "iwae" in stats:
        page.text(f"{draws} draws of each image are too few for k-hat.")
    else:
        page.text("Some latents are of all images, so weights per image say nothing of the guide.")
    names = [name for name in ("elbo", "iwae", "ess") if name in stats]
    page.table(["", "mean over images"], [[n, float(stats[n].mean())] for n in names])
    page.code(f'import arviz\ndata = arviz.from_netcdf("{path.name}")')


def refined(page: Page, program: Callable, guide: Callable, data: Dataset, path: Path) -> None:
    """What the program itself infers, from where its guide begins; and the chains for ArviZ."""
    page.heading("Refined by the program")
    budget = {"sweeps": SWEEPS, "chains": CHAINS, "tempering": 0.5, "progress": False}
    try:
        rows, found = side_by_side(program, guide, data, **budget)
    except ValueError as error:
        page.text(f"It cannot be refined: {error}.")
        return
    names = [name for name in SHOWN if any(name in row for row in rows)]
    cells = [[row["inference"], *(row.get(name, "") for name in names)] for row in rows]
    page.table(["", *(name.replace("_", " ") for name in names)], cells)
    moves = ", ".join(f"{name} {share:.2f}" for name, share in found.accepted.items())
    page.text(
        f"{len(data.images)} scenes, {CHAINS} chains, {SWEEPS} sweeps: a short run, to see the direction. "
        f"log p and evidence are in nats per image, seconds are per image. Accepted: {moves}."
    )
    if not found.draws:
        return
    truth = data.truth() if data.known else None
    chains = chains_to_inference_data(program, guide, found, truth)
    chains.to_netcdf(str(path))
    if found.draws_log_p.shape[1] < LEAST:
        return
    read = {n: t for n, t in diagnostics(chains).items() if t["ess"].ndim == 1}
    rows = [[n, *(float(t[m].nanmedian()) for m in ("rhat", "ess"))] for n, t in read.items()]
    page.table(["median over images", "R-hat", "ESS"], rows)
    page.code(f'import arviz\nchains = arviz.from_netcdf("{path.name}")')


def curves(page: Page, folder: Path) -> None:
    """Training, from the log."""
    if (folder / "log.jsonl").is_file():
        page.heading("Training")
        page.figure(plots.curves_figure(read_log(folder / "log.jsonl")), "By step.")


@told
def main(arguments: list[str] | None = None) -> None:
    """Entry point."""
    a = command_line("analysis.report", __doc__)
    a.add_argument("run", metavar="RUN", help="run folder, or name of a run in programs/trained")
    a.add_argument("--out", type=Path, metavar="DIR", help="RUN/report, or runs/shipped/NAME")
    a.add_argument("--images", type=int, default=IMAGES, metavar="N", help="images to infer")
    a.add_argument("--draws", type=int, default=DRAWS, metavar="S", help="draws per image")
    o = a.parse_args(arguments)
    folder = find_run(o.run)
    own = Path(o.run) / "report" if Path(o.run) == folder else Path("runs/shipped") / o.run
    page = report(o.run, o.out or own, o.images, o.draws)
    print(f"{page}, with posterior.nc and chains.nc beside it")


if __name__ == "__main__":
    sys.exit(main())
