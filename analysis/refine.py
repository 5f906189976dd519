"""Let a program check its guide: the guide's mode, the best of its draws, and refined scenes, side by side.

    python -m analysis.refine RUN [--scenes N] [--seconds S | --sweeps N] [--chains C] [--draws K]
                                  [--tempering T] [--seed S] [--json FILE] [--netcdf FILE]

Each row of the table has the metrics of its scenes, log p(x, z) of them, an estimate of log p(x) in nats per
image (the importance weighted bound of the draws; the estimate of the tempered path), and the time per image.
Times are of the clock, and of this process alone: the former depends on who else uses the machine.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import pyro
import torch
from pyro import poutine
from torch import Tensor

from analysis import scores
from analysis.command import above_zero, aligned, new_file, of_run, positive, share, write_json
from analysis.evaluate import with_masks
from analysis.posterior import Mode, best_of, iwae, khat
from analysis.posterior.refine import Refined, refine
from analysis.posterior.refine.chains import chains_to_inference_data, diagnostics
from inference.command import told
from inference.images.dataset import Dataset
from inference.objectives import log_prob_per_image
from inference.runs import open_run
from programs.scene import Scene, concatenate

SCENES = 100
"""Scenes by default."""
DRAWS = 20
"""K, draws of the guide by default."""
SECONDS = 1.0
"""Budget per scene by default, in seconds of the clock."""
CHAINS = 4
"""Chains per scene by default."""
ROWS = 64
"""Images per pass of the guide."""
SHOWN = (
    *("object_count_accuracy", "object_f1", "category_correspondence", "structure_accuracy"),
    *("part_count_accuracy", "part_f1", "mse", "log_p", "evidence", "seconds", "cpu_seconds"),
)
"""Columns of the table, where a program has them."""

Row = dict[str, Any]


def side_by_side(
    program: Callable,
    guide: Callable,
    data: Dataset,
    device: torch.device | str = "cpu",
    draws: int = DRAWS,
    **budget: Any,
) -> tuple[list[Row], Refined]:
    """Metrics of the scenes that three ways of inference find, and what `refine` found.

    Args:
        draws: K, of which the best is taken.
        budget: further arguments of `analysis.posterior.refine.refine`.
    Returns:
        A row per way: ``inference``, the metrics, ``log_p`` and ``evidence`` in nats per image, ``seconds``
            per image.
    """
    x = data.floats(device)
    found, costs = [], []
    for infer in (_at_mode, partial(_best, draws)):
        with _timed(len(x)) as cost:
            parts = [infer(program, guide, part) for part in x.split(ROWS)]
        found.append(_joined(parts))
        costs.append(cost)
    with _timed(len(x)) as cost:
        refined = refine(program, guide, x, **budget)
    found.append((refined.scene, refined.log_p, refined.evidence))
    names = ("guide's mode", f"best of {draws} draws", "refined")
    rows = [
        {"inference": name, **_metrics(scene, x, data), **_nats(log_p, evidence), **cost}
        for name, (scene, log_p, evidence), cost in zip(names, found, [*costs, cost], strict=True)
    ]
    return rows, refined


Part = tuple[Scene | None, Tensor, Tensor | None]


@torch.no_grad()
def _at_mode(program: Callable, guide: Callable, x: Tensor) -> Part:
    with Mode():
        q = poutine.trace(guide).get_trace(x)
    p = poutine.trace(poutine.replay(program, trace=q)).get_trace(x)
    scene = p.nodes["_RETURN"]["value"]
    return scene if isinstance(scene, Scene) else None, log_prob_per_image(p), None


def _best(draws: int, program: Callable, guide: Callable, x: Tensor) -> Part:
    scene, log_p, weights = best_of(program, guide, x, draws)
    return scene, log_p, iwae(weights)


def _joined(parts: list[Part]) -> Part:
    scenes, log_p, evidence = zip(*parts, strict=True)
    scene = None if scenes[0] is None else concatenate(list(scenes))
    return scene, torch.cat(log_p), None if evidence[0] is None else torch.cat(evidence)


def _metrics(scene: Scene | None, x: Tensor, data: Dataset) -> Row:
    """Metrics of scenes, as far as their kind and the data allow."""
    if scene is None:
        return {}
    scene = with_masks(scene)
    found = {"mse": scores.mse(scene, x.cpu())}
    if data.known and scene.levels:
        found = scores.scene_metrics(scene, data.truth()) | found
    return found


def _nats(log_p: Tensor, evidence: Tensor | None) -> Row:
    found = {"log_p": float(log_p.mean())}
    return found if evidence is None else found | {"evidence": float(evidence.mean())}


@contextmanager
def _timed(images: int) -> Iterator[Row]:
    """A table that has the time per image of what is done inside, afterwards."""
    cost: Row = {}
    clock, own = time.monotonic(), time.process_time()
    yield cost
    cost |= {
        "seconds": (time.monotonic() - clock) / images,
        "cpu_seconds": (time.process_time() - own) / images,
    }


def quality(refined: Refined, resampled: bool) -> Row:
    """How far chains and weights can be trusted: R-hat and effective draws of the count, and k-hat of the
    weights.

    Args:
        resampled: whether chains were drawn anew on the way; their weights then have no k-hat.
    """
    found: Row = {"sweeps": refined.sweeps, "accepted": refined.accepted}
    if not resampled:
        tails = khat(refined.weights)
        found |= {"khat_median": float(tails.median())}
        found |= {"khat_below_0.7": float((tails < 0.7).float().mean())}
    return found


def table(rows: list[Row]) -> str:
    """The rows as aligned lines, with the columns that any of them has."""
    columns = [name for name in SHOWN if any(name in row for row in rows)]
    lines = [{"": row["inference"]} | {n: row.get(n, "") for n in columns} for row in rows]
    return aligned(lines)


@told
def main(arguments: list[str] | None = None) -> None:
    """Entry point."""
    a = of_run("analysis.refine", __doc__, SCENES)
    budget = a.add_mutually_exclusive_group()
    budget.add_argument("--seconds", type=above_zero, metavar="S", help=f"{SECONDS:g} per scene")
    budget.add_argument("--sweeps", type=positive, metavar="N", help="instead of seconds")
    a.add_argument("--chains", type=positive, default=CHAINS, metavar="C", help="per scene")
    a.add_argument("--draws", type=positive, default=DRAWS, metavar="K", help="of the guide")
    a.add_argument(
        "--tempering", type=share, default=0.0, metavar="T", help="share of the budget, 0 to 1"
    )
    a.add_argument("--json", type=new_file, metavar="FILE")
    a.add_argument("--netcdf", type=new_file, metavar="FILE", help="the chains, for ArviZ")
    o = a.parse_args(arguments)
    pyro.enable_validation(False)
    pyro.set_rng_seed(o.seed)
    run = open_run(o.run)
    data = run.unseen(o.scenes, o.seed)
    seconds = None if o.sweeps else (o.seconds or SECONDS * o.scenes)
    spent = {"seconds": seconds, "sweeps": o.sweeps, "tempering": o.tempering}
    rows, refined = side_by_side(
        run.program, run.guide, data, draws=o.draws, chains=o.chains, **spent
    )
    print(table(rows))
    how = spent | {"chains": o.chains, "draws": o.draws, "scenes": o.scenes, "seed": o.seed}
    write_json(o.json, {"rows": rows, **how, **quality(refined, resampled=True)})
    if o.netcdf is not None:
        truth = data.truth() if data.known else None
        found = chains_to_inference_data(run.program, run.guide, refined, truth, {"run": o.run})
        found.to_netcdf(str(o.netcdf))
        for name, parts in diagnostics(found).items():
            print(f"{name}: R-hat {float(parts['rhat'].nanmedian()):.3f} in the median")


if __name__ == "__main__":
    sys.exit(main())
