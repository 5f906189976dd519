"""Calibration of a guide on scenes of its program and on its world's: ranks, intervals, importance weights.

    python -m analysis.calibrate RUN [--simulations N] [--scenes N] [--draws S] [--sweeps N] [--seed S]
                                     [--refined N] [--chains C] [--levels L] [--json FILE]

On scenes of the program (simulation-based calibration, SBC) the truth is a draw of the posterior, so that only
the guide can be at fault. On the world's scenes program and guide are measured together.

What bounds the guide is told by its importance weights on the same images: how many nats the bound gains by
several draws, and the share of images whose weights have a tail that can be trusted (k-hat below .7). With
``--sweeps`` some images of the world are refined, and chains are annealed to the posterior from a Gaussian
around the best state (`analysis.posterior.refine.laplace`); their weights are measured in the same way. With
``--refined N``, too, N scenes of the program are refined, and such chains, drawn anew by their weights, are
checked as the guide's draws are: the posterior that the program makes of what its guide begins.

The file ``programs/trained/RUN/calibration.json`` is read by `analysis.results`.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pyro
import torch
from pyro import poutine
from pyro.poutine import Trace
from torch import Tensor

from analysis.command import aligned, new_file, of_run, percent, positive, write_json
from analysis.posterior import calibration, iwae, khat, log_weights, quantities
from analysis.posterior.refine import Local, local, measured, refine
from inference.command import told
from inference.estimators.dreams import dream, read, seen_site
from inference.estimators.passes import latents_of
from inference.objectives import Term, per_image
from inference.runs import Trained, open_run, read_json
from programs.scene import Scene

SIMULATIONS = 500
"""Scenes of the program by default."""
SCENES = 500
"""Scenes of the world by default."""
WEIGHED = 50
"""Images whose importance weights are measured, at most."""
WEIGHTS = 1000
"""Draws per image by which k-hat is measured."""
TRUSTED = 0.7
"""Largest k-hat of weights that can be trusted (Vehtari et al., 2024)."""
ROWS = 100
"""Scenes of the program per pass of the guide."""
SEEKERS = 4
"""Chains per image that seek the best state."""
CHAINS = 100
"""Chains per image that are annealed from around it, by default."""
LEVELS = 60
"""Steps of their path, by default."""

FILE = "calibration.json"
"""The file of a shipped run: ``analysis.calibrate RUN --json`` this file."""
INTERVALS = ("n_objects", "centre_x", "centre_y", "extent_x", "extent_y")
"""Quantities whose intervals of 80 % are shown."""

Table = dict[str, Any]


def calibrated(
    run: Trained, simulations: int = SIMULATIONS, scenes: int = SCENES, draws: int = calibration.DRAWS,
    weighed: int = WEIGHED, sweeps: int | None = None, seed: int = 0, refined: int | None = None,
    chains: int = CHAINS, levels: int = LEVELS,
) -> Table:  # fmt: skip
    """What `analysis.calibrate` measures of a run.

    Args:
        simulations: scenes of the program.
        scenes: scenes of the run's world, unless its images have no truth.
        draws: S, draws of the guide per scene.
        weighed: images of each kind whose weights are measured.
        sweeps: sweeps that refine those of the world; None for none.
        refined: scenes of the program that are refined as well, with as many sweeps; None for none.
        chains, levels: of the chains that are annealed around refined states.
    Returns:
        ``simulated`` and ``world``, tables of numbers by name, and ``annealed`` and ``refined`` where there are
        sweeps.
    """
    images, truth = calibration.simulate(run.program, simulations)
    found: Table = {"simulated": judged(run, images, truth, draws, weighed)}
    found["simulated"]["surprise"] = surprise(run, simulations)
    data = run.unseen(scenes, seed)
    x = data.floats()
    if data.known:
        found["world"] = judged(run, x, data.truth(), draws, weighed)
    if sweeps is not None:
        weights = around(run, x[:weighed], sweeps, chains, levels).weights
        path = {"chains": chains, "levels": levels, "images": len(x[:weighed])}
        found["annealed"] = bounds(weights) | path | {"of": "world"}
    if sweeps is not None and refined is not None:
        drawn = around(run, images[:refined], sweeps, chains, levels)
        found["refined"] = refined_as_well(run, images[:refined], truth[:refined], drawn, draws)
    about = {"simulations": simulations, "scenes": scenes, "draws": draws, "weighed": weighed}
    about |= {"sweeps": sweeps, "refinements": refined, "seed": seed}
    return found | about | {"data": data.description}


def judged(run: Trained, images: Tensor, truth: Scene, draws: int, weighed: int) -> Table:
    """Numbers of `calibration.Calibration`, p-values of the ranks, and of the first images' weights."""
    of = quantities.NUMBERS
    found = calibration.calibration(run.program, run.guide, images, truth, draws, of)
    weights = log_weights(run.program, run.guide, images[:weighed], WEIGHTS)
    return numbers(found) | tails(weights)


def numbers(found: calibration.Calibration) -> Table:
    """Its summary, and the p-values of all ranks."""
    ranks = {name: statistics.p_value for name, statistics in found.ranks.items()}
    return found.summary() | {"rank_p": ranks}


def tails(weights: Tensor) -> Table:
    """Bounds (nats) and k-hat of log-weights (S, B).

    Images whose weights are all equal, such as empty ones, have no tail. The others are ``khat_images``; there
    is no k-hat without any.
    """
    k = khat(weights)
    k = k[k != -torch.inf]
    found: Table = {"elbo": float(weights.mean()), "iwae": float(iwae(weights).mean())}
    if len(k):
        found["khat_median"] = float(k.nan_to_num(torch.inf).median())
        found["khat_trusted"] = float((k < TRUSTED).float().mean())
    return found | {"khat_images": len(k)}


@torch.no_grad()
def surprise(run: Trained, simulations: int) -> dict[str, float]:
    """Nats per image by which scenes of the program are less probable under its guide than the guide's draws.

    By site, the median over images; objects that are drawn one after the other in their likeliest order. It
    is about 0 if the guide is the posterior, and far above where the guide is too sure.
    """
    x = run.unseen(1).floats()
    seen, found = seen_site(run.program, x, "the calibration"), []
    for start in range(0, simulations, ROWS):
        number = min(ROWS, simulations - start)
        scenes = dream(run.program, seen, torch.Size([number, *x.shape[1:]]))
        rows, trace = read(run.guide, scenes)
        each = log_q(trace)
        total = sum(each.values())
        order = torch.stack([total.where(rows == i, -torch.inf).argmax() for i in range(number)])
        own = log_q(poutine.trace(run.guide).get_trace(scenes.images))
        found.append({name: own[name] - each[name][order] for name in own})
    return {name: float(torch.cat([part[name] for part in found]).median()) for name in found[0]}


def log_q(trace: Trace) -> dict[str, Tensor]:
    """(B,) log-probability of every latent of the guide's trace, nats."""
    trace.compute_log_prob()
    sites = {name: trace.nodes[name] for name in latents_of(trace)}
    return {
        name: per_image(Term(name, site["cond_indep_stack"], site["log_prob"]))
        for name, site in sites.items()
    }


def around(run: Trained, images: Tensor, sweeps: int, chains: int, levels: int) -> Local:
    """Chains that are annealed from the best states of images (B, C, H, W)."""
    best = refine(run.program, run.guide, images, sweeps=sweeps, chains=SEEKERS, tempering=0).best
    return local(run.program, run.guide, images, best, chains, levels)


def bounds(weights: Tensor) -> Table:
    """`tails` of weights whose mean is no bound of one draw."""
    own = tails(weights)
    del own["elbo"]
    return own


def refined_as_well(run: Trained, images: Tensor, truth: Scene, drawn: Local, draws: int) -> Table:
    """The checks of `judged`, of chains drawn anew by their weights."""
    of = quantities.NUMBERS
    values = drawn.resampled(draws + 1)
    table = measured(run.program, run.guide, images, values, {**of, **calibration.NODES})
    table = {name: value.cpu() for name, value in table.items()}
    return numbers(calibration.checked(truth, table, of)) | bounds(drawn.weights)


def lines(table: Table) -> str:
    """The table as aligned lines."""
    columns = [name for name in ("simulated", "refined", "world", "annealed") if name in table]
    names = dict.fromkeys(n for c in columns for n in table[c] if not isinstance(table[c][n], dict))
    return aligned([{"": n} | {c: table[c].get(n, "") for c in columns} for n in names])


def render(folder: Path) -> list[str]:
    """Lines of RESULTS.md about the calibration of the runs in a folder; none if nothing was measured."""
    found = {path.parent.name: read_json(path) for path in sorted(folder.glob(f"*/{FILE}"))}
    if not found:
        return []
    text = [
        *("", "## Calibration of the guides", "", "```"),
        *(f"python -m analysis.calibrate {name}{options(t)}" for name, t in found.items()),
        *("```", ""),
        "Shares of intervals of 80 % that hold the truth: of the number of objects, and of the centre (x, y)",
        "and the extent of boxes of objects that are found. On the",
        "program's scenes the guide alone can be at fault; refined: draws of chains that are annealed to the",
        "posterior around the best state that `refine` finds from this guide, by their weights. On the world's",
        "scenes the program is judged too, and its boxes may be larger than the world's by definition.",
        "p is the least of the p-values of ranks (SBC) of",
        "the numbers of objects and parts, the mean place (x, y), the mean size and the covered area, times",
        "their number; p of TARP is of all together. Bounds are in nats per image. k-hat is of the weights of",
        f"{WEIGHTS:,} draws of the guide per image, or of such chains (`analysis.posterior.refine.laplace`).",
        "",
        "| run | scenes of | scenes | number | centre | extent | p | p, TARP | ELBO | IWAE | k-hat < .7 "
        "| annealed |",
        "|---|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    return text + [line for name, table in found.items() for line in rows(name, table)]


def options(table: Table) -> str:
    """The command's options, by which a table was measured, that are no defaults."""
    path = table.get("annealed", {})
    pairs = [
        ("--weighed", table["weighed"], WEIGHED),
        ("--sweeps", table["sweeps"], None),
        ("--refined", table.get("refinements"), None),
        ("--chains", path.get("chains", CHAINS), CHAINS),
        ("--levels", path.get("levels", LEVELS), LEVELS),
        ("--draws", table["draws"], calibration.DRAWS),
    ]
    return "".join(f" {name} {value}" for name, value, usual in pairs if value != usual)


KINDS = {
    "simulated": ("the program", "simulations"),
    "refined": ("the program, refined", "refinements"),
    "world": ("the world", "scenes"),
}
"""Tables of a run -> whose scenes they are of, and where their number is."""


def rows(name: str, table: Table) -> list[str]:
    """A line for each kind of scenes."""
    return [line(name, table, kind) for kind in KINDS if kind in table]


def line(name: str, table: Table, kind: str) -> str:
    """A line of the table."""
    (whose, number), own, far = KINDS[kind], table[kind], table.get("annealed", {})
    count, *box = [own.get(f"coverage80_{n}") for n in INTERVALS]
    shares = [
        ", ".join(percent(x) for x in some if x is not None) for some in ([count], box[:2], box[2:])
    ]
    tests = [f"{own[p]:.3f}" for p in ("sbc_p", "tarp_p")]
    nats = [f"{own[bound]:,.0f}" if bound in own else "" for bound in ("elbo", "iwae")]
    trusted = own.get("khat_trusted")
    around = (
        trusted if kind == "refined" else far.get("khat_trusted") if kind == far.get("of") else None
    )
    plain = None if kind == "refined" else trusted
    tails = [percent(x) if x is not None else "" for x in (plain, around)]
    cells = [f"`{name}`", whose, f"{table[number]:,}", *shares, *tests, *nats, *tails]
    return f"| {' | '.join(cells)} |"


@told
def main(arguments: list[str] | None = None) -> None:
    """Entry point."""
    a = of_run("analysis.calibrate", __doc__, SCENES)
    a.add_argument("--simulations", type=positive, default=SIMULATIONS, metavar="N")
    a.add_argument("--draws", type=positive, default=calibration.DRAWS, metavar="S")
    a.add_argument(
        "--weighed",
        type=positive,
        default=WEIGHED,
        metavar="N",
        help="images whose weights are measured",
    )
    a.add_argument(
        "--sweeps", type=positive, metavar="N", help="refine the weighed images of the world"
    )
    a.add_argument(
        "--refined",
        type=positive,
        metavar="N",
        help="scenes of the program to refine; with --sweeps",
    )
    a.add_argument("--chains", type=positive, default=CHAINS, metavar="C", help="annealed chains")
    a.add_argument("--levels", type=positive, default=LEVELS, metavar="L", help="of their path")
    a.add_argument("--json", type=new_file, metavar="FILE")
    o = a.parse_args(arguments)
    pyro.enable_validation(False)
    pyro.set_rng_seed(o.seed)
    if o.refined is not None and not o.sweeps:
        a.error("--refined asks for --sweeps, the budget of each scene")
    if (o.refined or 0) > o.simulations:
        a.error(f"--refined {o.refined} of {o.simulations} scenes: expected at most --simulations")
    run = open_run(o.run)
    found = calibrated(
        run, o.simulations, o.scenes, o.draws, o.weighed, o.sweeps, o.seed, o.refined, o.chains, o.levels
    )  # fmt: skip
    print(lines(found))
    low = [f"{found[kind]['sbc_p']:.3f}" for kind in ("simulated", "refined") if kind in found]
    print(f"least p of the ranks on the program's scenes, times their number: {', '.join(low)}")
    write_json(o.json, found)


if __name__ == "__main__":
    sys.exit(main())
