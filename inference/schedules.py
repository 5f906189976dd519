"""Schedules: numbers as pure functions of the training step, kept in the tables of recipes.

A schedule does not depend on the number of steps of a run, so stopping and resuming cannot change
it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise


@dataclass(frozen=True)
class Constant:
    """`value` at every step."""

    value: float

    def __call__(self, step: int) -> float:
        """The value at `step`."""
        return self.value


@dataclass(frozen=True)
class Linear:
    """From `start` to `end` between steps `begin` and `begin + steps`, constant outside."""

    start: float
    end: float
    steps: int
    begin: int = 0

    def __call__(self, step: int) -> float:
        """The value at `step`."""
        share = min(max((step - self.begin) / self.steps, 0.0), 1.0)
        return self.start + (self.end - self.start) * share


@dataclass(frozen=True)
class Exponential:
    """From `start` to `end` geometrically between steps `begin` and `begin + steps`."""

    start: float
    end: float
    steps: int
    begin: int = 0

    def __call__(self, step: int) -> float:
        """The value at `step`."""
        return math.exp(
            Linear(math.log(self.start), math.log(self.end), self.steps, self.begin)(step)
        )


@dataclass(frozen=True)
class WarmupDecay:
    """Linear from 0 to `peak` in `warmup` steps, constant for `hold` steps, then halved every `half_life`.

    GSGN D.5 has no hold.
    """

    peak: float
    warmup: int
    half_life: int
    hold: int = 0

    def __call__(self, step: int) -> float:
        """The value at `step`; never exactly 0, so that the first step changes the weights."""
        ramp = min((step + 1) / self.warmup, 1.0)
        return self.peak * ramp * 0.5 ** (max(step - self.warmup - self.hold, 0) / self.half_life)


@dataclass(frozen=True)
class LinearVariance:
    """A standard deviation whose square goes from `start`² to `end`² as in `Linear` (σ_fg of GSGN D.5)."""

    start: float
    end: float
    steps: int
    begin: int = 0

    def __call__(self, step: int) -> float:
        """The value at `step`."""
        return math.sqrt(Linear(self.start**2, self.end**2, self.steps, self.begin)(step))


@dataclass(frozen=True)
class Ramp:
    """From `start` to `end` between steps `begin` and `begin + steps`, else `start` (GSGN appendix F)."""

    start: float
    end: float
    steps: int
    begin: int = 0

    def __call__(self, step: int) -> float:
        """The value at `step`."""
        if step >= self.begin + self.steps:
            return self.start
        return Linear(self.start, self.end, self.steps, self.begin)(step)


@dataclass(frozen=True)
class Until:
    """`value` before step `steps`, then `after` (NaN: the program's own value)."""

    value: float
    steps: int
    after: float = math.nan

    def __call__(self, step: int) -> float:
        """The value at `step`."""
        return self.value if step < self.steps else self.after


@dataclass(frozen=True)
class Points:
    """Through `points` (step, value), geometrically from one to the next, constant outside."""

    points: tuple[tuple[int, float], ...]

    def __call__(self, step: int) -> float:
        """The value at `step`."""
        value = self.points[0][1]
        for (begin, start), (stop, end) in pairwise(self.points):
            if step > begin:
                value = Exponential(start, end, stop - begin, begin)(step)
        return value


@dataclass(frozen=True)
class Plateau:
    """A rule for a learning rate that falls where the validation loss stays (ECON C.3).

    The rule needs the losses, so it is no schedule: `Falls` is its state, which a checkpoint holds.
    """

    every: int = 100
    """steps between validations"""
    patience: int = 5
    """validations without a new best loss after which the rate falls"""
    factor: float = 10**-0.5
    """of the rate, each time"""
    falls: int = 5
    """the training ends after so many"""


class Falls:
    """What a `Plateau` has come to."""

    def __init__(self, rule: Plateau) -> None:
        self.rule, self.best, self.waited, self.falls = rule, math.inf, 0, 0

    def add(self, loss: float) -> None:
        """Count a validation loss."""
        better = loss < self.best
        self.best, self.waited = (loss, 0) if better else (self.best, self.waited + 1)
        if self.waited == self.rule.patience:
            self.waited, self.falls = 0, self.falls + 1

    @property
    def rate(self) -> float:
        """The factor of the learning rate."""
        return self.rule.factor**self.falls

    @property
    def over(self) -> bool:
        """Whether the training ends."""
        return self.falls >= self.rule.falls

    def state(self) -> dict[str, float]:
        """Plain values for a checkpoint."""
        return {"best": self.best, "waited": self.waited, "falls": self.falls}

    def restore(self, state: dict[str, float]) -> None:
        """Continue from `state`."""
        self.best = float(state["best"])
        self.waited, self.falls = int(state["waited"]), int(state["falls"])


Schedule = Constant | Linear | Exponential | LinearVariance | Points | Ramp | WarmupDecay | Until
