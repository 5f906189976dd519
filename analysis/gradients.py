"""Compare gradient estimators: bias, variance and cost of a gradient, then what short trainings reach.

    python -m analysis.gradients PROGRAM.py --estimators nvil,gumbel,rloo:4 [--minutes M] [--seeds N] …

First, one training (of the recipe's own estimator) is stopped at several points. There every estimator
draws many gradients of the same images at the same weights; their mean is held against a reference, by
enumeration where the discrete space is small enough, else by many draws of `rloo`. Then every estimator
trains from the same starts for the same time, and is measured with hard draws as it goes, so that
trainings can be compared at equal time, equal steps and equal evaluations of the program. With --times N, N
training steps of every estimator are timed besides, by turns. Time is the processor's, on a GPU the clock's.

Written to --out: gradients.csv, training.csv, times.csv, bias_variance.png, training.png; the tables are
printed. --record NAME keeps the same as analysis/measured/NAME.json, from which RESULTS.md is written; the
same command continues what it has not finished.
"""

from __future__ import annotations

import argparse
import math
import shlex
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyro
import torch
from torch import Tensor, nn

from analysis import plots
from analysis.command import aligned, write_csv
from analysis.evaluate import graph_metrics
from analysis.posterior import iwae, log_weights
from analysis.studies import MEASURED, Record, beside, summary
from inference.command import Parser, command_line, new_folder, told, whole_numbers
from inference.estimators import LIMIT, Bound, estimator
from inference.images.dataset import Dataset
from inference.plan import Plan, Run, plan
from inference.trainer import Training

REFERENCE = "rloo:8"


class Learner(Training):
    """A training that counts how often the program ran."""

    def __init__(self, p: Plan, name: str, seed: int, data: Dataset) -> None:
        super().__init__(replace(p, recipe=replace(p.recipe, estimator=name), seed=seed), data)
        self.data, self.evaluations = data, 0
        self.trainer.apply_schedules()
        self.program.register_forward_pre_hook(self._count, with_kwargs=True)

    def _count(self, _: nn.Module, inputs: tuple[Any, ...], options: dict[str, Any]) -> None:
        self.evaluations += len(inputs[0]) if inputs else options["batch"]  # a dream has no images

    @contextmanager
    def still(self) -> Iterator[None]:
        """Within, program and guide are in evaluation mode: what training counts (ECON's prices) stays."""
        modules = (self.program, self.guide)
        for module in modules:
            module.eval()
        try:
            yield
        finally:
            for module in modules:
                module.train()

    def update(self) -> None:
        """One training step."""
        self.trainer.update(self.images(self.trainer.step))

    def groups(self) -> dict[str, list[nn.Parameter]]:
        """Parameters by the submodule they belong to: ``program.decoder``, ``guide.cell``."""
        found: dict[str, list[nn.Parameter]] = {}
        for owner, module in (("program", self.program), ("guide", self.guide)):
            for name, parameter in module.named_parameters():
                found.setdefault(f"{owner}.{name.split('.')[0]}", []).append(parameter)
        return found

    def gradient(self, method: nn.Module, x: Tensor) -> Tensor:
        """(P,) of the loss an image, by all parameters in the order of `groups`."""
        parameters = [p for group in self.groups().values() for p in group]
        loss, _ = method(self.program, self.guide, x, self.trainer.objective)
        found = torch.autograd.grad(loss / len(x), parameters, allow_unused=True)
        pairs = zip(parameters, found, strict=True)
        return torch.cat([(torch.zeros_like(p) if g is None else g).flatten() for p, g in pairs])


class Moments:
    """Running mean and summed squares of vectors."""

    def __init__(self) -> None:
        self.number, self.mean, self.square = 0, torch.zeros(()), torch.zeros(())

    def add(self, x: Tensor) -> None:
        """Take in a vector (Welford's update)."""
        self.number += 1
        change = x - self.mean
        self.mean = self.mean + change / self.number
        self.square = self.square + change * (x - self.mean)

    @property
    def variance(self) -> Tensor:
        """(P,) unbiased."""
        return self.square / (self.number - 1)


def compare(
    learner: Learner,
    names: list[str],
    draws: int,
    fit: int,
    x: Tensor,
    chosen: str | None = None,
) -> Iterator[dict]:
    """A row for every estimator at the learner's present weights.

    Columns: `objective`, the ELBO or a bound on several samples, whose gradient is another; `bias` and
    `variance` relative to the reference's norm and squared norm, `bias_error` the standard error of the
    former, `snr` the norm of the mean over the standard deviation, by group too, `seconds` and `evaluations`
    (images run through the program, of each in `x`) per gradient; `beside` adds its time beside `nvil`'s.

    Args:
        draws: gradients an estimator.
        fit: steps for which what an estimator learns (baselines) is fitted before, at fixed weights.
        chosen: the estimator of the reference, where not the one that `exact` takes.
    """
    with learner.still():
        reference, kind = exact(learner, x, draws, chosen)
        scale = reference.mean.norm()
        for name in names:
            method = estimator(name).to(x.device)
            method.prepare(learner.program, learner.guide, x)
            if hasattr(learner.estimator, "temperature") and hasattr(method, "temperature"):
                method.temperature.copy_(learner.estimator.temperature)
            settle(method, learner, x, fit)
            learner.gradient(method, x)  # the first one costs more
            moments, before, started = Moments(), learner.evaluations, clock(x.device)
            for _ in range(draws):
                moments.add(learner.gradient(method, x))
            seconds = (clock(x.device) - started) / draws
            off = moments.mean - reference.mean
            noise = moments.variance.sum() / draws + reference.variance.sum() / reference.number
            row = {
                "step": learner.trainer.step,
                "estimator": name,
                "objective": "bound" if isinstance(method, Bound) else "ELBO",
                "reference": kind,
                "bias": math.sqrt(max(float(off.square().sum() - noise), 0.0)) / float(scale),
                "bias_error": math.sqrt(float(noise)) / float(scale),
                "variance": float(moments.variance.sum() / scale.square()),
                "cosine": float(torch.cosine_similarity(moments.mean, reference.mean, dim=0)),
                "snr": float(moments.mean.norm() / moments.variance.sum().sqrt()),
                "seconds": seconds,
                "evaluations": (learner.evaluations - before) / draws / len(x),
            }
            start = 0
            for group, parameters in learner.groups().items():
                part = slice(start, start := start + sum(p.numel() for p in parameters))
                spread = moments.variance[part].sum().sqrt().clamp(min=1e-12)
                row[f"snr {group}"] = float(moments.mean[part].norm() / spread)
            yield row


def exact(
    learner: Learner, x: Tensor, draws: int, chosen: str | None = None
) -> tuple[Moments, str]:
    """The reference gradient: by enumeration (continuous latents averaged over), else by `REFERENCE`."""
    name, method = "enumerate", None if chosen else enumeration(learner, x)
    if method is None:
        name, draws = chosen or REFERENCE, draws if chosen else 4 * draws
        method = estimator(name).to(x.device)
        method.prepare(learner.program, learner.guide, x)
    moments = Moments()
    for _ in range(draws):
        moments.add(learner.gradient(method, x))
    return moments, name


def enumeration(learner: Learner, x: Tensor) -> nn.Module | None:
    """The exact estimator, where it takes so few runs of an image that many draws can be had."""
    method = estimator("enumerate")
    try:
        method.prepare(learner.program, learner.guide, x)
    except ValueError:
        return None
    return method if method.states <= LIMIT // 16 else None


def settle(method: nn.Module, learner: Learner, x: Tensor, steps: int) -> None:
    """Fit what an estimator learns, and fill its running moments, while program and guide stand still."""
    parameters = list(method.parameters())
    moments = [n for n, _ in method.named_buffers() if n.rpartition(".")[2] != "temperature"]
    if not parameters and not moments:
        return
    optimiser = torch.optim.Adam(parameters, 1e-3) if parameters else None
    for _ in range(steps):
        loss, _ = method(learner.program, learner.guide, x, learner.trainer.objective)
        if optimiser:
            optimiser.zero_grad()
            (loss / len(x)).backward()
            optimiser.step()


def clock(device: torch.device) -> float:
    """Seconds: of this process on processors, which others may share; of the wall where a GPU computes."""
    if device.type == "cuda":
        torch.cuda.synchronize()
        return time.perf_counter()
    return time.process_time()


def times(p: Plan, names: list[str], data: Dataset, rounds: int) -> list[dict]:
    """A row for every estimator: the median time of a training step, the first two left out; by turns.

    `evaluations` are runs of an image by a step in which origins are not followed.
    """
    learners = {name: Learner(p, name, 0, data) for name in names}
    steps: dict[str, list[tuple[float, int]]] = {name: [] for name in names}
    for _ in range(rounds + 2):
        for name, learner in learners.items():
            before, started = learner.evaluations, clock(p.device)
            learner.update()
            spent = clock(p.device) - started
            steps[name].append((spent, learner.evaluations - before))
    rows = []
    for name, learner in learners.items():
        seconds, evaluations = zip(*steps[name][2:], strict=True)
        runs = min(evaluations) / learner.batch
        rows.append({"estimator": name, "seconds": _median(seconds), "evaluations": runs})
    return beside(rows)


def _median(values: Sequence[float]) -> float:
    return float(torch.tensor(values, dtype=torch.float64).quantile(0.5))


def race(
    p: Plan, name: str, seed: int, data: Dataset, validation: Dataset, minutes: float, points: int
) -> Iterator[dict]:
    """Train, and measure `points` times at equal distances of time; measuring does not count."""
    learner, spent = Learner(p, name, seed, data), 0.0
    for point in range(1, points + 1):
        while spent < 60 * minutes * point / points:
            started = clock(p.device)
            learner.update()
            spent += clock(p.device) - started
        seen = learner.evaluations
        yield {
            "estimator": name,
            "seed": seed,
            "step": learner.trainer.step,
            "seconds": spent,
            "evaluations": seen,
            **measure(learner, validation),
        }
        learner.evaluations = seen


def measure(learner: Learner, validation: Dataset) -> dict[str, float]:
    """Hard-draw ELBO and IWAE (10 draws) in nats an image, and of `MEASURED` what there is."""
    state = torch.get_rng_state()
    images = validation.floats(learner.plan.device)
    with learner.still():
        weights = log_weights(learner.program, learner.guide, images, 10).cpu()
        found = graph_metrics(learner.program, learner.guide, validation, learner.plan.device)
    torch.set_rng_state(state)
    chosen = {k: found[k] for k in MEASURED if k in found}
    return {"elbo": float(weights.mean()), "iwae": float(iwae(weights).mean()), **chosen}


def figures(gradients: list[dict], training: list[dict], out: Path) -> list[Path]:
    """Bias against variance (a panel a point of the trajectory), ELBO against time."""
    drawn = {}
    if gradients:
        drawn["bias_variance.png"] = plots.bias_variance_figure(gradients)
    if training:
        drawn["training.png"] = plots.race_figure(training)
    for name, figure in drawn.items():
        plots.save(figure, out / name)
    return [out / name for name in drawn]


def shown(rows: list[dict]) -> list[str]:
    """Columns of a table of gradients, without those by group of parameters."""
    return [name for name in rows[0] if not name.startswith("snr ")]


def parser() -> Parser:
    """The command line."""
    a = command_line("analysis.gradients", __doc__)
    a.add_argument("program", metavar="PROGRAM.py")
    a.add_argument(
        "--estimators",
        default="reinforce,nvil,rloo,gumbel,gumbel_st,reinmax",
        help="separated by commas, or by semicolons if there are mixtures",
    )
    a.add_argument("--variant", metavar="V")
    a.add_argument("--preset", default="quick")
    a.add_argument("--world", metavar="W")
    a.add_argument("--set", action="append", default=[], metavar="FIELD=VALUE")
    add_parts(a)
    a.add_argument("--device", default="auto")
    a.add_argument("--out", type=Path, default=Path("runs/gradients"), metavar="DIR")
    a.add_argument("--record", metavar="NAME", help="keep all as analysis/measured/NAME.json")
    return a


def add_parts(a: Parser) -> None:
    """The options of the three parts."""
    a.add_argument(
        "--points",
        default="0,200,1000",
        type=whole_numbers,
        metavar="N,N,…",
        help="training steps at which gradients are compared",
    )
    a.add_argument(
        "--images", type=int, default=16, metavar="N", help="images of a compared gradient"
    )
    a.add_argument(
        "--draws", type=int, default=100, metavar="N", help="gradients an estimator and point"
    )
    a.add_argument(
        "--reference",
        metavar="E",
        help="estimator that the others are held against, such as 'z_cat*=enumerate,z_mask*=mean' "
        "(default: enumerate where the space is small, else rloo:8)",
    )
    a.add_argument(
        "--minutes", type=float, default=1.0, metavar="M", help="of every training; 0 for none"
    )
    a.add_argument("--scenes", type=int, default=100, metavar="N", help="validation scenes of that")
    a.add_argument(
        "--measured", type=int, default=8, metavar="N", help="times that a training is measured"
    )
    a.add_argument(
        "--times", type=int, default=0, metavar="N", help="timed training steps of every estimator"
    )
    a.add_argument("--seeds", type=int, default=5, metavar="N", help="trainings an estimator")


@told
def main(arguments: list[str] | None = None) -> None:
    """Entry point."""
    words = sys.argv[1:] if arguments is None else arguments
    options = parser().parse_args(arguments)
    options.words = shlex.join(["python", "-m", "analysis.gradients", *words])
    study(options)


def study(o: argparse.Namespace) -> None:
    """Look up what is named, and write all parts as they come."""
    names = [n.strip() for n in o.estimators.split(";" if ";" in o.estimators else ",")]
    run = Run(o.program, o.out, o.variant, o.preset, o.world, device=o.device, set=tuple(o.set))
    p = plan(run)
    for name in names:
        estimator(name)
    with new_folder(o.out):
        compared(o, p, names)


def compared(o: argparse.Namespace, p: Plan, names: list[str]) -> None:
    """All parts of a plan."""
    pyro.enable_validation(False)
    pyro.settings.set(module_local_params=hasattr(p.source.program, "Program"))
    data, validation = p.training_images(), p.validation_images()
    if validation is None:
        raise ValueError("analysis.gradients needs a world with its truth: give --world")
    about = {"command": o.words, "batch": p.recipe.batch, "scenes": o.scenes}
    record = Record(o.record, about)
    of_steps(o, p, names, data, record)
    of_gradients(o, p, names, data, record)
    of_trainings(o, p, names, data, validation.first(o.scenes), record)
    for path in figures(record["gradients"], record["training"], o.out):
        print(f"  {path}")
    if record.path is not None and record["training"]:
        plots.save(plots.race_figure(record["training"]), record.path.with_suffix(".png"))


def of_steps(
    o: argparse.Namespace, p: Plan, names: list[str], data: Dataset, record: Record
) -> None:
    """The times of training steps."""
    if not o.times or record["times"]:
        return
    record.add("times", times(p, names, data, o.times))
    write_csv(o.out / "times.csv", record["times"])
    print(f"a training step of {p.recipe.batch} images, median of {o.times}")
    print(aligned(record["times"]), flush=True)


def of_gradients(
    o: argparse.Namespace, p: Plan, names: list[str], data: Dataset, record: Record
) -> None:
    """The comparison at every point of one training."""
    done = {row["step"] for row in record["gradients"]}
    points = sorted({*o.points} - done)
    if not points:
        return
    learner = Learner(p, p.recipe.estimator, 0, data)
    for point in points:
        while learner.trainer.step < point:
            learner.update()
        x = learner.images(10**6)[: o.images]
        here = beside(list(compare(learner, names, o.draws, o.draws, x, o.reference)))
        record.add("gradients", here)
        write_csv(o.out / "gradients.csv", record["gradients"])
        print(f"gradients at step {point}, {o.draws} draws of {len(x)} images")
        print(aligned(here, shown(here)), flush=True)


def of_trainings(
    o: argparse.Namespace,
    p: Plan,
    names: list[str],
    data: Dataset,
    validation: Dataset,
    record: Record,
) -> None:
    """The curves of all trainings, seed by seed."""
    done = {(row["estimator"], row["seed"]) for row in record["training"]}
    pairs = [(name, seed) for seed in range(o.seeds if o.minutes else 0) for name in names]
    for name, seed in pairs:
        if (name, seed) in done:
            continue
        rows = list(race(p, name, seed, data, validation, o.minutes, o.measured))
        record.add("training", rows)
        print(aligned([rows[-1]]).split("\n")[1], flush=True)
        write_csv(o.out / "training.csv", record["training"])
    if record["training"]:
        print(aligned(summary(record["training"])))


if __name__ == "__main__":
    sys.exit(main())
