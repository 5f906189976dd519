"""Two revisions of the project by turns: CPU time per training step, for ``analysis.benchmark --revision``.

The working tree and another revision, out of `git archive`, each train in a process of their own that waits
while the other one runs. So a machine that slows down slows down both.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from inference.loading import ROOT
from inference.plan import Plan, Run, plan
from inference.runs import TRAINED, WEIGHTS, read_config, shipped

ROUNDS, STEPS = 7, 3
"""Turns, the first of which is not counted, and steps in each."""
STEPPER = Path(__file__).with_name("stepper.py")


@contextmanager
def checked_out(revision: str) -> Iterator[Path]:
    """A folder with the files of a revision, for as long as it is needed.

    Raises:
        ValueError: git does not know it.
    """
    with tempfile.TemporaryDirectory(prefix="revision-") as name:
        folder = Path(name)
        packed = folder / "files.tar"
        command = ["git", "archive", "--output", str(packed), revision]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
        if done.returncode:
            raise ValueError(f"--revision {revision}: {done.stderr.strip()}")
        with tarfile.open(packed) as files:
            files.extractall(folder, filter="data")
        packed.unlink()
        yield folder


class Stepper:
    """A process that trains in a tree, `root`, when told."""

    def __init__(self, root: Path, asked: Mapping[str, Any]) -> None:
        variables = {"PYTHONPATH": str(root), "OMP_NUM_THREADS": "1", "MPLBACKEND": "agg"}
        self.process = subprocess.Popen(
            [sys.executable, "-P", str(STEPPER), json.dumps(asked)],
            cwd=root,
            env={**os.environ, **variables},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.root, self.about = root, {}

    def __enter__(self) -> Stepper:
        self.about = self._answer()
        return self

    def __exit__(self, *_: object) -> None:
        self.process.stdin.close()
        self.process.wait()

    def turn(self, steps: int) -> dict[str, float]:
        """CPU milliseconds per step over so many steps, and the rate of a matrix product after them."""
        print(steps, file=self.process.stdin, flush=True)
        return self._answer()

    def _answer(self) -> dict[str, Any]:
        line = self.process.stdout.readline()
        if not line:
            last = (self.process.stderr.read().strip().splitlines() or ["no reason given"])[-1]
            raise ValueError(f"a step in {self.root} failed: {last}")
        return json.loads(line)


def compare(other: Path, asked: Mapping[str, Any]) -> dict[str, Any]:
    """A row: CPU milliseconds per step of the working tree and of another, by turns, and their ratio.

    Raises:
        ValueError: one of them cannot train what is asked.
    """
    with ExitStack() as stack:
        pair = [stack.enter_context(Stepper(root, asked)) for root in (other, ROOT)]
        turns = [[stepper.turn(STEPS) for stepper in pair] for _ in range(ROUNDS)][1:]
        before, after = (stepper.about for stepper in pair)
    old, new = ([turn[i]["milliseconds"] for turn in turns] for i in (0, 1))
    ratio, error = middle([b / a for a, b in zip(old, new, strict=True)])
    product = max(answer["product"] for turn in turns for answer in turn)
    row = {
        "ms before": statistics.median(old),
        "ms now": statistics.median(new),
        "ratio": ratio,
        "error": error,
        "share before": 1000 * before["gigaflop"] / statistics.median(old) / product,
        "share now": 1000 * after["gigaflop"] / statistics.median(new) / product,
    }
    changed = [k for k in ("batch", "estimator", "parameters") if before[k] != after[k]]
    return row | {"differs": ", ".join(f"{k} {before[k]} -> {after[k]}" for k in changed)}


def middle(values: Sequence[float]) -> tuple[float, float]:
    """The median, and its standard error from the median absolute deviation, as of a Gaussian."""
    found = statistics.median(values)
    spread = 1.4826 * statistics.median(abs(v - found) for v in values)
    return found, 1.2533 * spread / len(values) ** 0.5


def weights_of(p: Plan) -> Path | None:
    """Weights of the run that ships of a plan's variant and world; None if none does."""
    for name in shipped():
        known = read_config(TRAINED / name)
        if (known["variant"], known["recipe"]["world"]) == (p.variant, p.recipe.world):
            return TRAINED / name / WEIGHTS
    return None


def rows(
    revision: str, programs: Sequence[str], options: Mapping[str, Any]
) -> Iterator[dict[str, Any]]:
    """Rows of all programs against a revision: at the first step, then with the weights of a shipped run.

    Raises:
        ValueError: git does not know the revision, or a program cannot be trained in it.
    """
    asked = {k: v for k, v in options.items() if v is not None}
    with checked_out(revision) as folder:
        for program in programs:
            weights = weights_of(plan(Run(program, Path(), device="cpu", **options)))
            for path in [None, weights] if weights else [None]:
                told = {**asked, "program": program, "weights": path and str(path)}
                where = path.parent.name if path else "first step"
                yield {"program": Path(program).stem, "at": where, **compare(folder, told)}
