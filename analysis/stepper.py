"""Trains steps of one program when told, in a process of its own, for `analysis.revisions`.

It is run as a file, in the root of any revision of the project, whose modules it imports:

    python -P …/analysis/stepper.py '{"program": "programs/gsgn.py", "preset": "quick", …}'

It writes what it has built as one line of JSON. Then it answers every line of its input, a number of steps,
with a line: CPU milliseconds per step. Here is nothing that a revision from 74f03c7 on lacks.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from typing import IO, Any

import pyro
import torch

MATRIX = 1024
"""Rows and columns of the matrices whose product says what one thread can do."""


def built(asked: dict[str, Any]) -> Any:
    """The program in training, at its first step, or at its recipe's last with the weights of a run."""
    from analysis import benchmark

    options = {k: asked[k] for k in ("variant", "preset", "estimator", "batch") if k in asked}
    changes = tuple(asked.get("set", ()))
    run = benchmark.Run(asked["program"], Path(), set=changes, device="cpu", **options)
    ours = benchmark.learner(run)
    if asked.get("weights"):
        ours.trainer.step = ours.plan.recipe.steps
        adopt(ours, Path(asked["weights"]))
    return ours


def adopt(ours: Any, weights: Path) -> None:
    """Take the tensors of a weights.safetensors that fit by name and shape; others stay as they are."""
    from safetensors.torch import load_file

    modules = {"program": ours.program, "guide": ours.guide}
    for name, tensor in load_file(weights).items():
        owner, _, key = name.partition("/")
        own = modules[owner].state_dict().get(key)
        if own is not None and own.shape == tensor.shape:
            own.copy_(tensor)


def described(ours: Any) -> dict[str, Any]:
    """What is timed: batch, estimator, parameters, and gigaflop per step."""
    from torch.utils.flop_counter import FlopCounterMode

    for _ in range(3):  # what is compiled or looked up once is not counted
        ours.update()
    with FlopCounterMode(display=False) as flops:
        ours.update()
    return {
        "batch": ours.plan.recipe.batch,
        "estimator": ours.plan.recipe.estimator,
        "parameters": sum(p.numel() for p in ours.trainer.learned),
        "gigaflop": flops.get_total_flops() / 1e9,
    }


def timed(ours: Any, steps: int) -> float:
    """CPU milliseconds per step."""
    started = time.process_time()
    for _ in range(steps):
        ours.update()
    return 1000 * (time.process_time() - started) / steps


def product_rate() -> float:
    """Gigaflop per second of CPU time of a product of two float32 matrices, the best of five."""
    a, best = torch.randn(MATRIX, MATRIX), float("inf")
    for _ in range(5):
        started = time.process_time()
        a @ a
        best = min(best, time.process_time() - started)
    return 2 * MATRIX**3 / best / 1e9


def main() -> None:
    """Answer what is asked until the input ends."""
    answers: IO[str] = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what others print is no answer
    torch.set_num_threads(1)
    ours = built(json.loads(sys.argv[1]))
    pyro.enable_validation(False)
    print(json.dumps(described(ours)), file=answers, flush=True)
    for line in sys.stdin:
        found = {"milliseconds": timed(ours, int(line)), "product": product_rate()}
        print(json.dumps(found), file=answers, flush=True)


if __name__ == "__main__":
    main()
