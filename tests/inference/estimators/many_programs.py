"""All methods on many random programs, at some hundredths of a second per check.

What methods share is had once per program: the checks before the first step, what depends on what, and the
enumeration. Where a component of the mean gradient looks suspicious, a check goes on with more images and
other noise, and at last with a finer quadrature of Gaussians. (A first look of 500 images takes 70 % of the
time of one of 2,000, and sees half as much.) What is too small to be seen on one program is looked for in all
together: the offset along the exact gradient.
"""

import json
import math
import sys
import traceback
from collections import Counter, defaultdict
from contextlib import contextmanager
from functools import partial

import pytest
import random_programs
import torch
from judging import BOUNDS, LIMIT, PATHWISE, RARE, UNBIASED, expected, fits, gradients, pairs
from random_programs import Table, exact_loss, random_spec
from torch import nn
from torch.nn import functional as F

from inference.estimators import Runs

STAGES = (2000, 8000, 32000)
"""Images of the first look, of the second, and of the last."""
SUSPICIOUS = (3.5, LIMIT, LIMIT)
"""Standard errors beyond which a check goes on; after the last stage it has failed."""
FINER = 8
"""What multiplies the points of the quadrature when a check that has failed is judged again."""
HARD = ("gumbel_st", "gumbel_rao:2", "gapped_st", "reinmax", "nvil_published")
"""Of the pathwise methods and their like, these draw exact values: right for the program's parameters."""
FITTED = ("nvil", "nvil_published", "relax", "double_cv", "muprop", "rebar")
"""Methods whose second call differs from the first: they have learned from it."""


class Coarse(nn.Module):
    """In the place of a baseline's convolutions: means of regions."""

    def __init__(self, size, side, channels, inputs=3):
        super().__init__()
        self.side, self.outputs = side, channels[-1]

    def forward(self, x):
        return F.adaptive_avg_pool2d(x[:, :1], self.side).expand(-1, self.outputs, -1, -1)


def once(function, key):
    """The function, whose answers are remembered by the spec of its program and what else `key` tells."""
    known = {}

    def answer(*args):
        program, *rest = key(*args)
        asked = (program.__self__.spec, *rest)
        if asked not in known:
            if len(known) > 100:
                known.clear()  # programs come one after another
            known[asked] = function(*args)
        return known[asked]

    return answer


@contextmanager
def seen_once():
    """Within, what all methods ask of a program before a gradient is found once; baselines are small."""
    estimator, bounds, baselines = (
        sys.modules[f"inference.estimators.{name}"] for name in ("estimator", "bounds", "baselines")
    )
    with pytest.MonkeyPatch.context() as patch:
        check = once(estimator.check, lambda program, *_: (program,))
        for module in (estimator, bounds):
            patch.setattr(module, "check", check)
        absent = once(estimator.check_absent, lambda program, guide, x, sites: (program, *sites))
        patch.setattr(estimator, "check_absent", absent)
        patch.setattr(Runs, "origins", once(Runs.origins, lambda runs, x: (runs.program,)))
        patch.setattr(baselines, "ConvEncoder", Coarse)
        yield


class Enumerated:
    """Exact gradients of a program, by what is followed and the nodes taken."""

    def __init__(self, spec):
        self.spec, self.known = spec, {}

    def __call__(self, exact, x, subset):
        key = exact, tuple(subset.tolist())
        if key not in self.known:
            self.known[key] = expected(exact, self.spec, x, subset)
        return self.known[key]


def look(name, spec, rows, seed, right, part):
    """Standard errors of the worst component, and of the offset along the exact gradient."""
    method = name.rpartition("+")[2].partition(":")[0]
    calls = 2 if method in FITTED else 1
    found, subset, x = gradients(name, spec, rows, seed, calls=calls)
    exact = right(x, subset)
    both = found.unflatten(0, (-1, 2)).mean(1)[
        :, part
    ]  # of both images: their difference is no noise
    off = both.mean(0) - exact[part]
    error = both.std(0) / math.sqrt(len(both))
    worst = off.abs() / (error + RARE * exact.abs().max() + 1e-9)
    return float(worst.max()), standard_errors((both - exact[part]) @ exact[part])


def standard_errors(numbers):
    """Of the mean of numbers from 0. The error of either half is from the other: its expectation is 0."""
    halves = numbers.unflatten(0, (2, -1))
    error = halves.std(1).flip(0) / math.sqrt(halves.shape[1])
    return float((halves.mean(1) / (error + 1e-12)).sum() / math.sqrt(2))


def check(name, spec, exact, enumerated, part=slice(None)):
    """How many looks a check took, the first one's offset, and by how much it failed, if it did."""
    right, first = partial(enumerated, exact), None
    for stage, (rows, limit) in enumerate(zip(STAGES, SUSPICIOUS, strict=True)):
        worst, off = look(name, spec, rows, spec.seed + stage, right, part)
        first = off if stage == 0 else first
        if worst < limit:
            return {"stages": stage + 1, "off": first}
    # fourteen points per Gaussian are few for a bound whose importance weights vary much
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(random_programs, "QUADRATURE", FINER * random_programs.QUADRATURE)
        right = partial(Enumerated(spec), exact)
        worst, _ = look(name, spec, STAGES[2], spec.seed + len(STAGES), right, part)
    if worst < limit:
        return {"stages": len(STAGES) + 1, "off": first}
    return {"stages": len(STAGES) + 1, "off": first, "failed": worst}


def of_program(spec):
    """The parameters of the program alone."""
    table = Table(spec)
    chosen = torch.zeros(table.size, dtype=torch.bool)
    for (who, _, _), (place, _) in table.places.items():
        chosen[place] |= who == "p"
    return chosen


def checks_of(spec):
    """What is to be checked of a program: methods, what they follow, and which parameters."""
    everything = slice(None)
    for name in UNBIASED:
        if fits(name, spec):
            yield name, exact_loss, everything
    for name, exact in BOUNDS.items():
        if pairs(spec) and fits(name, spec):
            yield name, exact, everything
    for name in PATHWISE:
        if fits(name, spec) and name in HARD:
            yield name, exact_loss, of_program(spec)
        elif fits(name, spec):
            yield name, None, everything


def judged(number):
    """Every check of a program, by method; a traceback is a failure too."""
    spec = random_spec(number)
    enumerated, found = Enumerated(spec), {}
    for name, exact, part in checks_of(spec):
        try:
            if exact is None:
                finite = bool(gradients(name, spec, 8, 1)[0].isfinite().all())
                found[name] = {"stages": 1} | ({} if finite else {"failed": "not finite"})
            else:
                found[name] = check(name, spec, exact, enumerated, part)
        except Exception:
            found[name] = {"stages": 0, "failed": traceback.format_exc()}
    return found


def judge_programs(numbers, path):
    """Programs of these numbers, but those whose lines are in the file already; a line per program is added."""
    done = {row["program"] for row in lines_of(path)} if path.exists() else set()
    if path.exists():
        path.write_text("".join(json.dumps(row) + "\n" for row in lines_of(path)))
    with seen_once(), open(path, "a") as file:
        for number in numbers:
            if number not in done:
                print(
                    json.dumps({"program": number, "checks": judged(number)}), file=file, flush=True
                )


def lines_of(path):
    """The programs of a file; a last line that was cut off is none."""
    return [json.loads(line) for line in path.read_text().splitlines(True) if line.endswith("\n")]


def summary(path):
    """Counts of a file's checks, its failures, and by method the standard errors of all offsets together."""
    rows = lines_of(path)
    counts, offsets, failures = Counter(), defaultdict(list), []
    for row in rows:
        for name, found in row["checks"].items():
            counts[name] += 1
            if "off" in found:
                offsets[name].append(found["off"])
            if "failed" in found:
                failures.append((row["program"], name, found["failed"]))
    together = {name: sum(z) / math.hypot(*z, 1e-12) for name, z in offsets.items()}
    return {
        "programs": len(rows),
        "checks": dict(counts),
        "failures": failures,
        "together": together,
    }
