"""Refine what a guide infers, by the program itself: see `refine`.

Shape legend: S chains, D draws of each, B images.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import pyro
import torch
from torch import Tensor
from tqdm import tqdm

from analysis.posterior import quantities
from analysis.posterior.draws import Quantities, check_images
from analysis.posterior.refine.anneal import Budget, Moves, Path, least, moves_of
from analysis.posterior.refine.hops import Hops, gathered
from analysis.posterior.refine.latents import Values
from analysis.posterior.refine.target import State, Target
from programs.scene import Scene, concatenate

VALUES = 2**20
"""Pixels times channels of all chains and images that are moved at once; memory grows with it."""
TEMPERING = 0.6
"""Share of the budget in which β reaches 1."""
SEEKING = 0.5
"""Share of the budget that is spent on hops where there is no path."""
KEEP = 50
"""Draws of each chain that are kept."""


@dataclass(frozen=True)
class Refined:
    """What `refine` found for B images."""

    scene: Scene | None
    """of each image the state of highest log p(x, z) among the guide's mode and all that a chain visited; None
    if the program returns none"""
    best: dict[str, Tensor]
    """its latents: site -> (B, *S, *E)"""
    log_p: Tensor
    """(B,) its log p(x, z), nats"""
    evidence: Tensor
    """(B,) estimate of log p(x), nats"""
    weights: Tensor
    """(S, B) log-weights whose log-mean-exp is `evidence`: for `khat` where chains were not drawn anew"""
    draws: dict[str, Tensor]
    """site -> (S, D, B, *S, *E) states of the chains at β = 1; D may be 0 in a small budget"""
    draws_log_p: Tensor
    """(S, D, B) their log p(x, z), nats"""
    quantities: dict[str, Tensor]
    """quantity of the scenes -> (S, D, B, …)"""
    accepted: dict[str, float]
    """name of a move -> share of accepted proposals"""
    sweeps: float
    """sweeps over all moves, mean over the passes"""
    seconds: float
    """time of the whole call"""


def refine(
    program: Callable,
    guide: Callable,
    images: Tensor,
    seconds: float | None = None,
    *,
    sweeps: int | None = None,
    chains: int = 8,
    tempering: float = TEMPERING,
    resample: bool = True,
    leaps: int = 2,
    keep: int = KEEP,
    of: Quantities = quantities.NUMBERS,
    rows: int | None = None,
    progress: bool | None = None,
) -> Refined:
    """Infer images by the program itself, from where its guide begins (tempered sequential Monte Carlo).

    Chains begin as hard draws of the guide and end as draws of the posterior p(z | x): see `anneal` for the
    path, `drift`, `flips` and `objects` for the moves. Nothing is asked of a program but its own
    log-probabilities, and of a guide but draws and theirs; what a program adds by `z_pres` and `gate` gives
    births and deaths of objects.

    >>> from inference.runs import open_run
    >>> run = open_run("discrete_air-multi_sprites")
    >>> images = run.unseen(2).floats()
    >>> found = refine(run.program, run.guide, images, sweeps=4, chains=2, progress=False)
    >>> found.evidence.shape, found.weights.shape, len(found.scene)
    (torch.Size([2]), torch.Size([2, 2]), 2)

    Args:
        images: (B, C, H, W) in [0, 1], on the program's device.
        seconds: budget of the clock for all images.
        sweeps: budget in sweeps instead, so that a seed repeats the result; a hop counts as one.
        chains: S per image.
        tempering: share of the budget in which β reaches 1. In the rest chains of the posterior are drawn.
            With 0 there is no path: the cheapest way to a better scene. Half of the budget is then spent on
            hops (`analysis.posterior.refine.hops`), chains begin where these end, and `evidence` is the
            importance weighted bound.
        resample: whether chains are drawn anew by their weights on the way; without that, `weights` are those
            of annealed importance sampling.
        leaps: gradient steps per move of the continuous latents; 1 is Langevin's.
        keep: largest D.
        of: test quantities to measure on the chains' scenes.
        rows: images a pass; as many as have `VALUES` if not given. Each pass has its share of the seconds.
        progress: whether to show a bar; by default on a terminal.
    Raises:
        ValueError: `images` have a wrong shape, type or range; the budget is not one; a latent is of all
            images, or has no density under the guide.
    """
    check_images(images, program)
    started = time.monotonic()
    size = rows or max(1, VALUES // (chains * images[0].numel()))
    parts = images.split(size)
    found = []
    # a proposal out of a site's support is rejected, not an error
    with (
        pyro.validation_enabled(False),
        tqdm(total=100, desc="refine", unit="%", disable=not shown(progress)) as bar,
    ):
        for k, x in enumerate(parts):
            mine = None if seconds is None else seconds * len(x) / len(images)
            target = Target(program, guide, x, chains)
            budget = Budget(mine, sweeps)
            run = _Run(target, budget, tempering, resample, leaps, keep, of)
            for used in run.steps():
                bar.update(min(100, round(100 * (k + used) / len(parts))) - bar.n)
            found.append(run.result())
    return _join(found, time.monotonic() - started)


@dataclass(frozen=True)
class Watched:
    """How far a refinement of B images has come."""

    best: dict[str, Tensor]
    """latents of the state of highest log p(x, z) so far: site -> (B, *S, *E)"""
    log_p: Tensor
    """(B,) its log p(x, z), nats"""
    sweeps: int
    """sweeps over all moves so far"""


def shown(progress: bool | None) -> bool:
    """Whether to show a bar: as is asked for, else on a terminal."""
    return sys.stderr.isatty() if progress is None else progress


def watch(
    program: Callable,
    guide: Callable,
    images: Tensor,
    seconds: float,
    chains: int = 8,
    tempering: float = 0.0,
    leaps: int = 2,
) -> Iterator[Watched]:
    """`refine` in one pass, for those who look on: yields what it has found after each sweep.

    Arguments and errors are those of `refine`.
    """
    check_images(images, program)
    with pyro.validation_enabled(False):
        target = Target(program, guide, images, chains)
        run = _Run(target, Budget(seconds, None), tempering, True, leaps, 0, quantities.NUMBERS)
    steps, used = run.steps(), 0.0
    while used is not None:
        yield Watched(*run.best, sweeps=int(run.budget.done))
        with pyro.validation_enabled(False):  # not around the yield: others run between two sweeps
            used = next(steps, None)


class _Run:
    """One pass: its chains, the best states so far, and the draws that are kept."""

    def __init__(
        self,
        target: Target,
        budget: Budget,
        tempering: float,
        resample: bool,
        leaps: int,
        keep: int,
        of: Quantities,
    ) -> None:
        self.target, self.budget, self.keep, self.of = target, budget, keep, of
        self.tempering = tempering
        state, scales = target.start()
        self.path = Path(target, state, resample)
        self.moves: Moves = moves_of(target, state, scales, leaps)
        self.best: tuple[Values, Tensor] | None = None
        self.kept: list[tuple[Values, Tensor, dict[str, Tensor]]] = []
        self.remember(target.mode())
        self.remember(state)

    def steps(self) -> Iterator[float]:
        """Do the work; yields the share of the budget that is used."""
        path, budget = self.path, self.budget
        while not path.arrived:
            path.rise(least(budget, self.tempering))
            self.sweep()
            yield budget.used
        if path.resample:
            path.draw_anew(torch.ones_like(path.beta, dtype=torch.bool))
        if not self.tempering:
            yield from self.seek()
        begun = budget.used
        while budget.used < 1:
            self.sweep()
            if self.keep * (min(budget.used, 1) - begun) > len(self.kept) * (1 - begun):
                self.keep_draw()
            yield budget.used

    def seek(self) -> Iterator[float]:
        """Hops, one chain's from the best state so far; then chains go on from where they are, or from the best
        one if that is far above."""
        hops = Hops(self.target, self.moves.hops)
        best, rows = self.best[0], self.path.state.values
        begun = {n: torch.cat([v, rows[n][len(v) :]]) for n, v in best.items()}
        self.path.state = self.target.state(begun, guided=False)
        while self.budget.used < SEEKING:
            self.path.state = hops(self.path.state)
            self.budget.done += 1
            self.remember(self.path.state)
            yield self.budget.used
        self.path.state = gathered(self.path.state, self.target.chains)

    def sweep(self) -> None:
        """All moves once."""
        self.path.state = self.moves(self.path.state, self.path.rows)
        self.budget.done += 1
        self.remember(self.path.state)

    def remember(self, state: State) -> None:
        """Keep the best state of each image."""
        table = state.log_p.view(self.target.chains, -1).nan_to_num(nan=-torch.inf)
        high, chain = table.max(0)
        index = chain * table.shape[1] + torch.arange(table.shape[1], device=chain.device)
        values = {n: v[index] for n, v in state.values.items()}
        if self.best is None:
            self.best = values, high
            return
        better = high > self.best[1]
        mixed = {
            n: torch.where(better.view(-1, *[1] * (v.ndim - 1)), v, self.best[0][n])
            for n, v in values.items()
        }
        self.best = mixed, torch.maximum(high, self.best[1])

    def keep_draw(self) -> None:
        """Keep the chains' states, and the quantities of their scenes."""
        state = self.path.state
        scene = _scene(self.target, state.values)
        measured = quantities.measure(scene, self.of) if scene is not None else {}
        values = {n: v.clone() for n, v in state.values.items()}
        self.kept.append((values, state.log_p, measured))

    def result(self) -> dict[str, Any]:
        """The pieces of `Refined`."""
        target, path, (values, log_p) = self.target, self.path, self.best
        one = target.of(1)
        tables = [_stack([kept[i] for kept in self.kept], target.chains) for i in (0, 2)]
        lines = _stack([{"log_p": log_p} for _, log_p, _ in self.kept], target.chains)
        empty = log_p.new_zeros(target.chains, 0, len(log_p))
        return {
            "scene": _scene(one, values),
            "best": values,
            "log_p": log_p,
            "evidence": path.estimate(),
            "weights": path.evidence + path.weights,
            "draws": tables[0],
            "draws_log_p": lines.get("log_p", empty),
            "quantities": tables[1],
            "accepted": {n: sum(s) / len(s) for n, s in self.moves.shares.items()},
            "sweeps": float(self.budget.done),
        }


def measured(
    program: Callable, guide: Callable, images: Tensor, draws: Values, of: Quantities
) -> dict[str, Tensor]:
    """Quantity -> (S, B, …) of the scenes that a program draws of latents, site -> (S, B, *S, *E).

    Args:
        images: (B, C, H, W), on the program's device.
        draws: all latents, as `Local.draws` has them.
        of: test quantities of Scenes.
    Raises:
        ValueError: the program returns no Scene.
    """
    target = Target(program, guide, images, 1)
    target.start()
    found = []
    for s in range(len(next(iter(draws.values())))):
        scene = _scene(target, {n: value[s] for n, value in draws.items()})
        if scene is None:
            raise ValueError("quantities need a program that returns a Scene")
        found.append(quantities.measure(scene, of))
    return {name: torch.stack([each[name] for each in found]) for name in found[0]}


@torch.no_grad()
def _scene(target: Target, values: Values) -> Scene | None:
    found = target.trace(target.program, values).nodes["_RETURN"]["value"]
    return found if isinstance(found, Scene) else None


def _stack(tables: list[dict[str, Tensor]], chains: int) -> dict[str, Tensor]:
    """Tables of (S · B, …), one per draw, as (S, D, B, …)."""
    if not tables:
        return {}
    return {n: torch.stack([t[n].unflatten(0, (chains, -1)) for t in tables], 1) for n in tables[0]}


def _join(parts: list[dict[str, Any]], seconds: float) -> Refined:
    """Passes one after the other along the images; of draws as many as all passes have."""
    draws = min(part["draws_log_p"].shape[1] for part in parts)
    scenes = [part["scene"] for part in parts]

    def tables(name: str) -> dict[str, Tensor]:
        names = parts[0][name] if draws else {}
        return {n: torch.cat([p[name][n][:, :draws] for p in parts], 2) for n in names}

    def lines(name: str, dim: int = 0) -> Tensor:
        return torch.cat([part[name] for part in parts], dim)

    return Refined(
        scene=None if scenes[0] is None else concatenate(scenes),
        best={n: torch.cat([p["best"][n] for p in parts]) for n in parts[0]["best"]},
        log_p=lines("log_p"),
        evidence=lines("evidence"),
        weights=lines("weights", 1),
        draws=tables("draws"),
        draws_log_p=torch.cat([p["draws_log_p"][:, :draws] for p in parts], 2),
        quantities=tables("quantities"),
        accepted=_mean([p["accepted"] for p in parts]),
        sweeps=sum(p["sweeps"] for p in parts) / len(parts),
        seconds=seconds,
    )


def _mean(tables: list[Mapping[str, float]]) -> dict[str, float]:
    return {n: sum(t[n] for t in tables) / len(tables) for n in tables[0]}
