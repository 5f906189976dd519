"""Train several seeds for a while, and go on with the one of the lowest validation loss (ECON, C.4).

    python -m inference.search PROGRAM.py [--seeds 0,1,2,3] [--trial N] [options of inference.svi]

A seed's run folder is ``OUT/seedS``. Every seed is trained for ``--trial`` steps, or to the recipe's last step
if that comes before, then the chosen one to the last step, as ``--resume`` would, since no schedule depends on
the number of steps. Stopped or repeated, the command continues; ``--minutes`` is for all seeds together. The
loss is the training's own objective on the validation images, with schedules as they are at the trial's last
step; ``OUT/search.json`` has the loss of every seed.
"""

from __future__ import annotations

import sys
import time
from dataclasses import replace
from pathlib import Path

import pyro

from inference import checkpoint, svi
from inference.command import told, whole_numbers
from inference.plan import Run, plan
from inference.runs import read_json
from inference.trainer import Training

SEEDS = (0, 1, 2, 3)
TRIAL = 150
"""Steps after which seeds are compared."""


def search(
    run: Run, seeds: tuple[int, ...], trial: int, evaluator: svi.Evaluator | None = None
) -> Path:
    """Train every seed for `trial` steps, at most the recipe's, the best one to the end; returns its folder.

    Args:
        run: the training; its seed is not used, and its folder holds those of the seeds.
    Raises:
        ValueError: a seed is given twice, the images have no validation images, or the folder holds a run or
            another search.
    """
    if not seeds or len({*seeds}) < len(seeds) or trial < 1:
        raise ValueError(
            f"seeds={seeds}, trial={trial}: expected different seeds, and 1 step or more"
        )
    runs = {s: replace(run, seed=s, out=run.out / f"seed{s}", resume=True) for s in seeds}
    trial = min(trial, plan(runs[seeds[0]]).recipe.steps)
    file, end = run.out / "search.json", time.monotonic() + 60 * run.minutes
    best = chosen(run.out, seeds, trial)
    if best is not None:
        return svi.train(runs[best], evaluator)
    found: dict[int, float] = {}
    for seed, own in runs.items():
        svi.train(replace(until(own, end), set=(*own.set, f"train.steps={trial}")))
        training = stopped_at(own)
        if not done(training, trial):
            print("the same command, without --minutes or with more, continues the search")
            return own.out
        found[seed] = loss_of(training)
        print(f"seed {seed}: validation loss {found[seed]:.1f}")
    best = min(found, key=lambda seed: found[seed])
    checkpoint.write_json(file, {"losses": found, "trial": trial, "seed": best})
    return svi.train(until(runs[best], end), evaluator)


def chosen(out: Path, seeds: tuple[int, ...], trial: int) -> int | None:
    """The seed that an earlier call of the same search has chosen, or None.

    Raises:
        ValueError: the folder holds a run, or a search of other seeds or steps.
    """
    if (out / "config.json").is_file():
        raise ValueError(f"{out} is the folder of a run: give --out another one for the seeds'")
    if not (out / "search.json").is_file():
        return None
    before = read_json(out / "search.json")
    compared = sorted(int(seed) for seed in before["losses"])
    if (compared, before["trial"]) != (sorted(seeds), trial):
        raise ValueError(
            f"{out} compares seeds {','.join(map(str, compared))} after {before['trial']} steps: give these, "
            "or another --out"
        )
    return before["seed"]


def until(run: Run, end: float) -> Run:
    """The run with the minutes that are left to a time of the clock `time.monotonic`."""
    return replace(run, minutes=max(0.0, end - time.monotonic()) / 60)


def stopped_at(run: Run) -> Training:
    """The training of a run, at its checkpoint."""
    training = Training(plan(run))
    training.trainer.restore(checkpoint.load(run.out / "checkpoint.ckpt"))
    training.trainer.apply_schedules()
    return training


def done(training: Training, trial: int) -> bool:
    """Whether a trial went to its last step, or to its end by the plateau of the loss."""
    trainer = training.trainer
    return trainer.step >= trial or (trainer.falls is not None and trainer.falls.over)


def loss_of(training: Training) -> float:
    """The objective on validation images, nats per image.

    Raises:
        ValueError: there are no validation images.
    """
    data = training.plan.validation_images()
    if data is None:
        raise ValueError("seeds are compared on validation images, and there are none")
    pyro.set_rng_seed(0)
    return svi.validation_loss(training, data)


@told
def main(arguments: list[str] | None = None) -> None:
    """Entry point."""
    from analysis.evaluate import SceneEvaluator

    a = svi.parser()
    a.prog, a.description = "python -m inference.search", __doc__.split("\n")[0]
    a.add_argument(
        "--seeds", default=",".join(map(str, SEEDS)), type=whole_numbers, metavar="S,S,…"
    )
    a.add_argument("--trial", type=int, default=TRIAL, metavar="N", help="steps of every seed")
    options = vars(a.parse_args(arguments))
    seeds, trial = options.pop("seeds"), options.pop("trial")
    if options["seed"]:
        raise ValueError(f"--seed {options['seed']}: seeds are compared, so give --seeds")
    if options["out"] is None:
        options["out"] = Path(f"{svi.default_folder(options)}-seeds")
    search(svi.run_of(options), seeds, trial, SceneEvaluator())


if __name__ == "__main__":
    sys.exit(main())
