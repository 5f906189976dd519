"""Tempered sequential Monte Carlo from the guide to the program (Neal, 2001; Del Moral, Doucet, Jasra, 2006).

Chains begin as draws of the guide, β = 0. Every time β rises by δ a chain's weight is multiplied by (p(x, z) /
q(z | x))^δ; then moves that keep π_β follow. The mean weight estimates p(x). Where the weights of an image's
chains become too unequal, chains are drawn anew by their weights, unless that is switched off: then it is
annealed importance sampling.

Each image has its own β, which rises as fast as its weights allow, or as the budget asks for. The estimate is
unbiased for a β that is fixed beforehand; here it follows the weights, with a bias that vanishes with the
number of chains (Beskos et al., 2016).

Shape legend: S chains, B images, R = S · B rows.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from analysis.posterior.refine.drift import Drift
from analysis.posterior.refine.flips import Flip, Resimulate
from analysis.posterior.refine.objects import Jump, Redraw, Split, Steps, Swap, objects_of
from analysis.posterior.refine.target import Move, State, Target, of_chains
from analysis.posterior.weights import ess, iwae

KEPT = 0.9
"""Share of the effective chains that a rise of β may leave."""
POWER = 3
"""Least β after a share s of the time is s^POWER: slow at first, where the weights differ most."""
HALVINGS = 30
"""Bisections that find a rise of β."""
EVERY = 3
"""Sweeps between two of the costly moves, where objects have moves of their own."""


class Budget:
    """How much of the time is used, in seconds of the clock or, so that it can be repeated, in sweeps."""

    def __init__(self, seconds: float | None = None, sweeps: int | None = None) -> None:
        if (seconds is None) == (sweeps is None) or min(seconds or 1, sweeps or 1) <= 0:
            raise ValueError(
                f"seconds={seconds}, sweeps={sweeps}: expected one of them, a number above 0"
            )
        self.seconds, self.sweeps = seconds, sweeps
        self.started, self.done = time.monotonic(), 0

    @property
    def used(self) -> float:
        """Share of the budget, from 0; above 1 where it is spent."""
        if self.sweeps is not None:
            return self.done / self.sweeps
        return (time.monotonic() - self.started) / self.seconds

    @property
    def next(self) -> float:
        """Share of the budget after one more sweep, if it takes as long as those before."""
        return self.used * (1 + 1 / self.done) if self.done else self.used


@dataclass
class Moves:
    """The moves of one sweep, and how often each is accepted."""

    moves: list[Move]
    now_and_then: list[Move] = field(default_factory=list)
    """moves of every `EVERY`-th sweep"""
    shares: dict[str, list[float]] = field(default_factory=dict)
    """name of a move -> shares of accepted rows"""
    sweeps: int = 0

    @property
    def hops(self) -> list[Move]:
        """Those that propose another arrangement: all but the drift, and two objects that change places."""
        return [m for m in (*self.moves, *self.now_and_then) if not isinstance(m, Drift | Swap)]

    def __call__(self, state: State, beta: Tensor) -> State:
        """A sweep."""
        self.sweeps += 1
        extra = self.now_and_then if self.sweeps % EVERY == 0 else []
        for move in (*self.moves, *extra):
            state, share = move(state, beta)
            self.shares.setdefault(move.name, []).append(float(share.mean()))
        return state


def moves_of(target: Target, state: State, scales: Mapping[str, Tensor], leaps: int) -> Moves:
    """The moves that a program allows."""
    objects = objects_of(target, state)
    presences = {n for o in objects for n in o.presences}
    listed = [n for n, x in target.latents.items() if x.choice > 1 and n not in presences]
    rare: list[Move] = []
    moves: list[Move] = [Drift(target, scales, leaps)] if target.moving else []
    for kind in objects:
        moves += [Jump(target, kind)]
        moves += [Redraw(target, kind)] if kind.parts else []
        moves += [Swap(target, kind)] if isinstance(kind, Steps) and kind.parts else []
        rare += [Split(target, kind)]
    moves += [Flip(target, listed)] if listed else []
    rare += [Resimulate(target)]
    return Moves(moves, rare) if objects else Moves([*moves, *rare])


class Path:
    """Chains on their way from the guide to the program.

    Args:
        resample: whether chains are drawn anew by their weights.
    """

    def __init__(self, target: Target, state: State, resample: bool = True) -> None:
        self.target, self.state, self.resample = target, state, resample
        chains, images = target.chains, len(target.images) // target.chains
        self.beta = state.log_p.new_zeros(images)
        self.weights = state.log_p.new_zeros(chains, images)
        """(S, B) logarithms, since chains were last drawn anew"""
        self.evidence = state.log_p.new_zeros(images)
        """(B,) log-evidence gathered until then, nats"""

    @property
    def arrived(self) -> bool:
        """Whether every β is 1."""
        return bool((self.beta >= 1).all())

    @property
    def rows(self) -> Tensor:
        """(R,) β of every row."""
        return self.beta.repeat(self.target.chains)

    def rise(self, least: float) -> None:
        """Raise every image's β as its weights allow, and at least to `least`; draw chains anew if need be."""
        gap = (self.state.log_p - self.state.log_q).view_as(self.weights)
        gap = gap.nan_to_num(nan=-math.inf).clamp(min=-1e30)
        beta = torch.maximum(self.beta + self.allowed(gap), gap.new_tensor(least)).clamp(max=1)
        self.weights = self.weights + (beta - self.beta) * gap
        self.beta = beta
        if self.resample:
            few = ess(self.weights) < 0.5 * len(self.weights)
            self.draw_anew(few)

    def allowed(self, gap: Tensor) -> Tensor:
        """(B,) rises of β that leave the share `KEPT` of the effective chains, by bisection."""
        low, high = torch.zeros_like(self.beta), 1 - self.beta
        before = self.weights.log_softmax(0)
        for _ in range(HALVINGS):
            middle = (low + high) / 2
            first = (before + middle * gap).logsumexp(0)
            second = (before + 2 * middle * gap).logsumexp(0)
            enough = (2 * first - second).exp() > KEPT
            low, high = middle.where(enough, low), high.where(enough, middle)
        return low.where(low < 0.999 * (1 - self.beta), 1 - self.beta)

    def draw_anew(self, mine: Tensor) -> None:
        """Draw the chains of images (B,) anew by their weights (systematic resampling)."""
        if not mine.any():
            return
        chains, images = self.weights.shape
        self.evidence = self.evidence + iwae(self.weights).where(mine, 0.0)
        ends = self.weights.softmax(0).cumsum(0).T.contiguous()
        points = (torch.arange(chains).to(ends) + torch.rand(images, 1).to(ends)) / chains
        source = torch.searchsorted(ends, points).clamp(max=chains - 1).T
        source = source.where(mine, torch.arange(chains, device=source.device)[:, None])
        self.state = of_chains(self.state, source)
        self.weights = self.weights.where(~mine, 0.0)

    def estimate(self) -> Tensor:
        """(B,) log-evidence, nats."""
        return self.evidence + iwae(self.weights)


def least(budget: Budget, share: float) -> float:
    """Least β after the next sweep, if all of the way takes this share of the budget."""
    return min(1.0, budget.next / share) ** POWER if budget.next < share else 1.0
