"""Time training steps, beside another implementation's where one is named.

    python -m analysis.benchmark PROGRAM.py [--preset P] [--batch B] [--against MODULE:CALLABLE] …

A step is all that `inference.svi` does for one: objective, gradient, clipping, optimiser. The other
implementation is a callable that is given the same images (B, C, H, W) in [0, 1] and returns a function
of no arguments that trains one step on them. The two take turns, so a busy machine slows both down.

``--against analysis.pyro_air:step`` is AIR as Pyro's own examples have it.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pyro
import torch
from torch import Tensor

from analysis.evaluate import floats
from analysis.gradients import Learner
from inference.data import world_dataset
from inference.svi import Run, plan
from programs.loading import imported

ROUNDS, STEPS = 7, 5
"""Turns, the first of which is not counted, and steps in each."""


def learner(run: Run) -> Learner:
    """A program in training, on as many scenes as its batch holds."""
    p = plan(run)
    pyro.settings.set(module_local_params=hasattr(p.source.program, "Program"))
    world, batch = p.recipe.world, p.recipe.batch
    data = world_dataset(world, batch, "validation", seed=0, config=p.world_config)
    return Learner(p, p.recipe.estimator, run.seed, data)


def alternate(steps: dict[str, Callable[[], object]], device: torch.device) -> dict[str, Tensor]:
    """Milliseconds a step of each, (ROUNDS - 1,), taking turns."""
    times: dict[str, list[float]] = {name: [] for name in steps}
    for _ in range(ROUNDS):
        for name, step in steps.items():
            _wait(device)
            started = time.perf_counter()
            for _ in range(STEPS):
                step()
            _wait(device)
            times[name].append(1000 * (time.perf_counter() - started) / STEPS)
    return {name: torch.tensor(values[1:]) for name, values in times.items()}


def _numbers(ours: Learner) -> Iterator[int]:
    for group in ours.trainer.optimiser.param_groups:
        yield from (p.numel() for p in group["params"])


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()


def measure(run: Run, against: str | None = None) -> dict[str, float | str]:
    """Median milliseconds a step, images a second, parameters, and the other's share where there is one."""
    ours = learner(run)
    device, batch = ours.plan.device, ours.plan.recipe.batch
    steps: dict[str, Callable[[], object]] = {"ours": ours.update}
    if against:
        steps["theirs"] = imported(against, "--against")(floats(ours.data, device))
    pyro.enable_validation(False)
    times = alternate(steps, device)
    median = float(times["ours"].median())
    row: dict[str, float | str] = {
        "program": ours.plan.variant,
        "estimator": ours.plan.recipe.estimator,
        "batch": batch,
        "threads": torch.get_num_threads(),
        "parameters": sum(p.numel() for p in ours.trainer.learned),
        "parameters with baselines": sum(_numbers(ours)),
        "milliseconds": median,
        "images_per_second": 1000 * batch / median,
    }
    if against:
        row["against"] = against
        row["their milliseconds"] = float(times["theirs"].median())
        row["ratio"] = float((times["ours"] / times["theirs"]).median())
    return row


def parser() -> argparse.ArgumentParser:
    """The command line."""
    a = argparse.ArgumentParser(
        prog="python -m analysis.benchmark", description=__doc__.split("\n")[0]
    )
    a.add_argument("program", metavar="PROGRAM.py")
    a.add_argument("--variant", metavar="V")
    a.add_argument("--preset", default="quick")
    a.add_argument("--estimator", metavar="E")
    a.add_argument("--batch", type=int, metavar="B")
    a.add_argument("--set", action="append", default=[], metavar="FIELD=VALUE")
    a.add_argument("--device", default="auto")
    a.add_argument(
        "--threads", type=int, metavar="N", help="of the CPU; torch's choice if not given"
    )
    a.add_argument("--against", metavar="MODULE:CALLABLE", help="another implementation to time")
    a.add_argument("--json", type=Path, metavar="FILE")
    return a


def main(arguments: list[str] | None = None) -> int:
    """Entry point."""
    options = vars(parser().parse_args(arguments))
    threads, against, target = (options.pop(name) for name in ("threads", "against", "json"))
    if threads:
        torch.set_num_threads(threads)
    options["set"] = tuple(options["set"])
    try:
        row = measure(Run(out=Path(), **options), against)
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    for name, value in row.items():
        print(f"{name:26}", f"{value:.4g}" if isinstance(value, float) else value)
    if target:
        target.write_text(json.dumps(row, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
