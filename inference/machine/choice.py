"""``train.precision=auto`` and ``train.layout=auto``: what trains fastest on the machine at hand.

At the start of a run, some steps are timed in each way that the recipe leaves open. The fastest is written into
the run's config.json, and a run that is resumed keeps it. The training itself begins anew, from its seed.
"""

from __future__ import annotations

import time
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import pyro
import torch

from inference.images.dataset import Dataset
from inference.machine import distributed
from inference.machine.capture import Step
from inference.machine.networks import AUTO, LAYOUTS, PRECISIONS
from inference.plan import Plan
from inference.runs import read_config
from inference.trainer import Training

Way = dict[str, Any]
"""A precision and a layout, by the names of the recipe's fields."""
SECONDS, FEWEST, MOST = 0.5, 2, 20
"""Time for the steps of each way, and their numbers."""
GAIN = 0.95
"""Share of the plain way's time above which no other way is worth it."""


def settled(p: Plan, out: Path, resume: bool) -> Plan:
    """The plan without "auto": as the run in `out` was begun if it is resumed, else in the fastest way."""
    if AUTO not in (p.recipe.precision, p.recipe.layout):
        return p
    way = None
    if distributed.rank() == 0 and resume and (out / "config.json").is_file():
        begun = read_config(out)["recipe"]
        way = {name: begun[name] for name in ("precision", "layout")}
    way = distributed.share(way) or fastest(p)
    if distributed.rank() == 0:
        print("networks compute in {precision}, {layout}".format(**way))
    return replace(p, recipe=replace(p.recipe, **way))


def fastest(p: Plan) -> Way:
    """The way whose steps take the least time; the plain one unless another is clearly faster."""
    with distributed.one_first():
        data = p.training_images()
    ways = possible(p)
    times = [seconds(replace(p, recipe=replace(p.recipe, **way)), data) for way in ways]
    first = times.index(min(times))
    return distributed.share(ways[first if times[first] < GAIN * times[0] else 0])


def possible(p: Plan) -> list[Way]:
    """The ways that a recipe leaves open, the plain one first; bf16 only where its metrics hold."""
    precisions, layouts = [p.recipe.precision], [p.recipe.layout]
    if AUTO in precisions:
        precisions = [name for name in PRECISIONS if name != "bf16" or p.recipe.bf16_holds]
    if AUTO in layouts:
        layouts = [*LAYOUTS]
    return [{"precision": a, "layout": b} for a, b in product(precisions, layouts)]


def seconds(p: Plan, data: Dataset) -> float:
    """The least time of a step on these images, of a few, in a training of its own."""
    training = Training(p, data)
    update = Step(training.trainer, p.recipe.capture, eager=2)
    for _ in range(3):  # what is compiled, captured or allocated once is not counted
        update(training.images(training.trainer.step))
    pyro.enable_validation(False)
    times: list[float] = []
    while len(times) < FEWEST or (sum(times) < SECONDS and len(times) < MOST):
        started = time.perf_counter()
        update(training.images(training.trainer.step))
        if p.device.type == "cuda":
            torch.cuda.synchronize()
        times.append(time.perf_counter() - started)
    pyro.enable_validation(True)
    return min(times)
