"""The log of a training: averages of the objective's terms in log.jsonl, and progress on the screen."""

from __future__ import annotations

import csv
import json
import math
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from torch import Tensor
from tqdm import tqdm

from inference import checkpoint
from inference.machine import distributed
from inference.trainer import HINT


class CSV:
    """Writes step, name and value of every number to log.csv.

    Args:
        step: the last step that was taken; rows of later steps, which will be run again, are dropped.
    """

    def __init__(self, folder: Path, step: int) -> None:
        self.path = folder / "log.csv"
        checkpoint.write(self.path, b"step,name,value\n", *rows_until(self.path, step))

    def write(self, step: int, numbers: Mapping[str, float]) -> None:
        """Append the numbers of a step."""
        with open(self.path, "a", encoding="utf-8", newline="") as file:
            csv.writer(file).writerows((step, name, value) for name, value in numbers.items())


class TensorBoard:
    """Writes scalars to the run folder's ``tensorboard``.

    Args:
        step: the last step that was taken; TensorBoard hides what it has of later ones.
    Raises:
        ValueError: tensorboard is not installed.
    """

    def __init__(self, folder: Path, step: int) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise ValueError("--log tensorboard: pip install tensorboard first") from error
        self.writer = SummaryWriter(str(folder / "tensorboard"), purge_step=step + 1)

    def write(self, step: int, numbers: Mapping[str, float]) -> None:
        """Append the numbers of a step."""
        for name, value in numbers.items():
            self.writer.add_scalar(name, value, step)
        self.writer.flush()


SINKS: dict[str, type[CSV] | type[TensorBoard]] = {"csv": CSV, "tensorboard": TensorBoard}
"""Writers of a second log beside log.jsonl, by the value of ``--log``."""
EXPECTED = 30
"""Steps after which the log announces the expected time of the training."""


class Log:
    """Averages the terms of the objective, writes log.jsonl, shows progress."""

    def __init__(
        self, path: Path, step: int, steps: int, batch: int, sink: str | None = None
    ) -> None:
        self.path = path
        self.batch = batch
        self.bar = None
        self.sums: dict[str, Tensor] = {}
        self.count = 0
        self.begun = step
        self.steps = steps
        self.started = time.monotonic()
        self.told = False
        self.since = self.noted = time.monotonic()
        self.shown = distributed.rank() == 0
        self.sink = SINKS[sink](path.parent, step) if sink and self.shown else None
        if self.shown:
            keep_until(path, step)
        if self.shown and sys.stderr.isatty():
            self.bar = tqdm(total=steps, initial=step, unit="step", dynamic_ncols=True)

    def add(self, loss: Tensor, terms: dict[str, Tensor]) -> None:
        """Add the loss and terms of one step to the averages."""
        for name, value in {"loss": loss, **{f"term/{k}": v for k, v in terms.items()}}.items():
            self.sums[name] = self.sums[name] + value if name in self.sums else value.clone()
        self.count += 1

    def write(self, step: int, rates: dict[str, float]) -> None:
        """Write the averages since the last call, over all processes.

        Raises:
            FloatingPointError: a term is not finite; the message names its site.
        """
        distributed.average_tensors(list(self.sums.values()))
        means = {name: float(total) / self.count for name, total in self.sums.items()}
        bad = [name for name, value in means.items() if not math.isfinite(value)]
        if bad:
            named = bad[-1].removeprefix("term/")
            raise FloatingPointError(
                f"the loss is not finite at step {step}: {named} is {means[bad[-1]]}; {HINT}"
            )
        if self.shown:
            self._show(step, means, rates)
        self.sums, self.count, self.since = {}, 0, time.monotonic()

    def _show(self, step: int, means: dict[str, float], rates: dict[str, float]) -> None:
        now = time.monotonic()
        rate = self.count * self.batch / (now - self.since)
        self._append({"step": step, **means, **rates, "images_per_second": rate})
        if self.bar:
            self.bar.update(step - self.bar.n)
            self.bar.set_postfix_str(_summary(means, rate))
        elif now - self.noted > 15 or step == self.steps:
            self.noted = now
            print(
                f"step {step}/{self.steps}  {_summary(means, rate)}{self._left(step)}", flush=True
            )
        if not self.told and step - self.begun >= EXPECTED:
            self.told = True
            minutes = self._seconds_left(step) / 60
            self._say(f"the other {self.steps - step} steps take about {minutes:.1f} minutes here")

    def _seconds_left(self, step: int) -> float:
        spent = time.monotonic() - self.started
        return spent / (step - self.begun) * (self.steps - step)

    def _left(self, step: int) -> str:
        if step == self.steps or step <= self.begun:
            return ""
        return f"  {self._seconds_left(step) / 60:.1f} min left"

    def _say(self, text: str) -> None:
        (self.bar.write if self.bar else print)(text)

    def note(self, step: int, metrics: dict[str, float]) -> None:
        """Write metrics on validation scenes."""
        self._append({"step": step, **metrics})
        text = "  ".join(f"{name} {value:.3f}" for name, value in metrics.items())
        self._say(f"step {step}/{self.steps}  {text}")
        self.since = time.monotonic()

    def close(self) -> None:
        """End the progress bar."""
        if self.bar:
            self.bar.close()

    def _append(self, record: dict[str, float]) -> None:
        if self.sink:
            self.sink.write(int(record["step"]), {k: v for k, v in record.items() if k != "step"})
        try:
            with open(self.path, "a", encoding="utf-8") as file:
                file.write(json.dumps(record) + "\n")
        except OSError as error:
            raise checkpoint.unwritable(self.path, error) from error


def _summary(means: dict[str, float], rate: float) -> str:
    groups = {"loss": means["loss"], "images": means.get("term/images")}
    for group in ("kl", "aux", "penalty"):
        parts = [v for k, v in means.items() if k.startswith(f"term/{group}/")]
        groups[group] = sum(parts) if parts else None
    text = "  ".join(f"{k} {v:.1f}" for k, v in groups.items() if v is not None)
    return f"{text}  {rate:.0f} images/s"


def read_log(path: Path) -> list[dict[str, float]]:
    """The records of a log.jsonl; damaged lines, such as the last one after a crash, are dropped."""
    records = []
    for line in (
        path.read_text(encoding="utf-8", errors="replace").splitlines() if path.exists() else []
    ):
        with suppress(json.JSONDecodeError):
            records.append(json.loads(line))
    return [record for record in records if isinstance(record, dict) and "step" in record]


def keep_until(path: Path, step: int) -> None:
    """Drop a log's records of steps after `step`, which will be run again."""
    kept = [r for r in read_log(path) if r["step"] <= step]
    checkpoint.write(path, "".join(json.dumps(r) + "\n" for r in kept).encode())


def rows_until(path: Path, step: int) -> list[bytes]:
    """The whole rows of a log.csv up to `step`, without its head; none if there is no such file."""
    rows = path.read_bytes().splitlines(keepends=True) if path.exists() else []
    steps = [row.partition(b",")[0] if row.endswith(b"\n") else b"" for row in rows]
    return [r for r, s in zip(rows, steps, strict=True) if s.isdigit() and int(s) <= step]
