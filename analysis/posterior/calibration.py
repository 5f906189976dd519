"""Calibration of a guide: ranks, coverage and reliability of its draws against the truth.

All checks follow from one fact: if the guide is the posterior then, given the image, the truth is one more
draw. So its rank among S draws is uniform on 0, …, S (simulation-based calibration, SBC; Talts et al.,
2018), and any score of the truth is distributed as the same score of a draw taken out. This is exact for
any number of draws and for discrete quantities, with ties broken at random.

It holds where truth and image come from the program itself: `simulate`. A guide trained on a world may
never have seen such images. On the world's scenes program and guide are measured together: there even the
exact posterior is miscalibrated to the extent that the program differs from the world.

The numeric core takes tensors: `ranks`, `tarp`, `pit`, `coverage`, `reliability`, `ranked_probability_score`.
`sbc` and `calibration` take a program and its guide. Randomness is torch's: `pyro.set_rng_seed` before.

Shape legend: B images, S draws, D numbers that describe a scene, K events per image, N slots.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from analysis.posterior import Quantities, draw, quantities, simulations
from analysis.scores import match
from analysis.scores.counts import OBJECT_RADIUS
from programs.scene import Nodes, Scene, concatenate

DRAWS = 99
"""S, for which there are 100 ranks, so that levels in per cent are exact."""
LEVELS = (0.5, 0.8, 0.95)
"""Levels of the intervals."""
BINS = 10
"""Number of bins of probability, equally wide."""
REPLICATES = 10_000
"""Sets of uniform ranks with which a set is compared."""
EXCHANGES = 1_000
"""Number of random exchanges of truths with draws."""
ROWS = 100
"""Scenes measured per pass."""
BOX = ("centre_x", "centre_y", "extent_x", "extent_y")
"""Names of the numbers of an object's box, in the image frame; extents along its own axes."""
NODES = {"pres": lambda scene: scene.objects.pres, "pose": lambda scene: scene.objects.pose}
"""Functions of each object that are drawn beside the quantities."""


# Ranks


def ranks(truth: Tensor, draws: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """(B,) int64 rank of truth (B,) among draws (S, B): number of smaller draws, ties broken at random.

    Raises:
        ValueError: the shapes do not fit, or a value is NaN.
    """
    _check(truth, draws)
    if truth.isnan().any() or draws.isnan().any():
        raise ValueError("ranks of NaN: leave those images out, or give the quantity a value there")
    below, equal = (draws < truth).sum(0), (draws == truth).sum(0)
    return below + (_uniform(truth, generator) * (equal + 1)).long()


@dataclass(frozen=True)
class RankStatistics:
    """Ranks of B truths, each among its own S draws, and their distance from uniform."""

    ranks: Tensor
    """(B,) int64, 0 to S"""
    draws: int
    """S, the number of draws per truth"""

    @property
    def levels(self) -> Tensor:
        """(S + 2,) from 0 to 1: k / (S + 1)."""
        return torch.arange(self.draws + 2) / (self.draws + 1)

    @property
    def coverage(self) -> Tensor:
        """(S + 2,) share of the ranks below k; for uniform ranks its mean is the level."""
        return self._below / len(self.ranks)

    @property
    def deviation(self) -> float:
        """Largest distance of coverage and level (Kolmogorov and Smirnov's statistic)."""
        return float((self.coverage - self.levels).abs().max())

    @property
    def area(self) -> float:
        """Area between coverage and level, at most 1/2."""
        return float((self.coverage - self.levels).abs().mean())

    @property
    def p_value(self) -> float:
        """Probability that uniform ranks are at least as improbable, at some level, as these.

        The statistic is the smallest of the two-sided binomial p-values over all levels, compared with that
        of `REPLICATES` sets of uniform ranks (Säilynoja, Bürkner, Vehtari, 2022). It is sensitive in the
        tails, where ranks of an overconfident guide pile up. The result is at least 1 / (`REPLICATES` + 1).
        """
        table = _p_values(len(self.ranks), self.draws)
        return float(table[self._below[1:-1].numpy(), np.arange(self.draws)].min())

    def band(self, level: float = 0.95) -> tuple[Tensor, Tensor]:
        """Least and largest coverage, (S + 2,) each, between which uniform ranks stay at all levels together.

        `coverage` leaves it if and only if `p_value` is below 1 - `level`.
        """
        inside = torch.from_numpy(_p_values(len(self.ranks), self.draws) >= 1 - level)
        number = torch.arange(len(self.ranks) + 1)[:, None]
        low = torch.where(inside, number, len(self.ranks)).amin(0) / len(self.ranks)
        high = torch.where(inside, number, 0).amax(0) / len(self.ranks)
        zero, one = torch.zeros(1), torch.ones(1)
        return torch.cat([zero, low, one]), torch.cat([zero, high, one])

    @property
    def _below(self) -> Tensor:
        number = torch.bincount(self.ranks.cpu(), minlength=self.draws + 1)
        return torch.cat([number.new_zeros(1), number.cumsum(0)])


@lru_cache
def _p_values(number: int, draws: int) -> np.ndarray:
    """(number + 1, S) p-value, for all levels together, of 0 to `number` ranks below k = 1, …, S."""
    from scipy.stats import binom

    below, level = np.arange(number + 1)[:, None], np.arange(1, draws + 1) / (draws + 1)
    tails = binom.cdf(below, number, level), binom.sf(below - 1, number, level)
    alone = 2 * np.minimum(*tails)
    uniform = np.full(draws + 1, 1 / (draws + 1))
    sets = np.random.default_rng(0).multinomial(number, uniform, REPLICATES).cumsum(1)[:, :-1]
    least = np.sort(alone[sets, np.arange(draws)].min(1))
    return (1 + np.searchsorted(least, alone, side="right")) / (1 + REPLICATES)


def tarp(
    truth: Tensor,
    draws: Tensor,
    references: Tensor | None = None,
    generator: torch.Generator | None = None,
) -> RankStatistics:
    """Expected coverage of balls around random points (TARP; Lemos et al., 2023).

    The ball around a reference that holds k of S + 1 draws should hold the truth with probability k / (S + 1).
    The ranked number is the Euclidean distance to the reference, so standardise first. All numbers are
    judged jointly, which detects wrong correlations that no rank of one number shows.

    Args:
        truth: (B, D).
        draws: (S, B, D).
        references: (B, D), which may depend on the image but not on its truth; uniform in the box around all
            truths if not given, as in the paper.
    Returns:
        Ranks whose `levels` and `coverage` are the curve.
    """
    _check(truth, draws)
    if references is None:
        low, high = truth.amin(0), truth.amax(0)
        references = low + (high - low) * _uniform(truth, generator).to(low)
    distance = (torch.cat([truth[None], draws]) - references).norm(dim=-1)
    return RankStatistics(ranks(distance[0], distance[1:], generator), len(draws))


# Intervals


class Coverage(NamedTuple):
    """Shares of central intervals that hold the truth."""

    levels: Tensor
    """(L,) the nominal levels"""
    shares: Tensor
    """(L,) the measured shares"""
    errors: Tensor
    """(L,) standard errors of the shares at those levels: binomial, as if all truths were independent"""
    number: int
    """number of truths"""


def pit(truth: Tensor, draws: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """(E,) randomised probability integral transforms of truth (E,) among draws (S, E), in [0, 1].

    They are uniform under the posterior, also for discrete quantities: where draws tie with the truth, or
    leave a gap, the value is uniform over the possible ones. NaNs among the draws are left out, so truths
    may have different numbers of draws.
    """
    _check(truth, draws)
    below, equal = (draws < truth).sum(0), (draws == truth).sum(0)
    number = (draws == draws).sum(0)
    return (below + _uniform(truth, generator) * (equal + 1)) / (number + 1)


def coverage(transforms: Tensor, levels: tuple[float, ...] = LEVELS) -> Coverage:
    """Shares of central intervals that hold the truth, from its transforms (E,) by `pit`.

    An interval runs from quantile (1 - level) / 2 to (1 + level) / 2. Closed intervals of counts would hold
    more than their level, open ones less; a randomised transform includes a value at the border with the
    probability that makes the level exact.
    """
    level, number = torch.tensor(levels, dtype=torch.float64), len(transforms)
    shares = ((transforms[:, None] - 0.5).abs() <= level / 2).double().mean(0)
    return Coverage(level, shares, (level * (1 - level) / number).sqrt(), number)


# Events


@dataclass(frozen=True)
class Reliability:
    """Probabilities of events, in bins, against their frequencies."""

    probability: Tensor
    """(bins,) mean probability of a bin's events; empty bins are left out"""
    frequency: Tensor
    """(bins,) share of a bin's events that were true"""
    error: Tensor
    """(bins,) binomial standard error of that share if the probabilities are right"""
    number: Tensor
    """(bins,) int64 number of events"""
    brier: float
    """mean squared difference of probability and truth (Brier, 1950); 0 is best"""
    ece: float
    """expected calibration error: distance of frequency and probability, mean over events (Naeini, 2015)"""
    p_value: float
    """probability of at least this error if the guide is the posterior"""


def reliability(
    truth: Tensor,
    draws: Tensor,
    valid: Tensor | None = None,
    generator: torch.Generator | None = None,
) -> Reliability:
    """Compare the frequencies of events with the probabilities that draws give them.

    For the p-value, the truth is exchanged with a draw, image by image, all events of an image together,
    `EXCHANGES` times. So it takes into account that the error is positive even for the posterior, that S draws
    give a probability with an error, and that events of an image depend on each other.

    Args:
        truth: (B, K) bool.
        draws: (S, B, K) bool.
        valid: (B, K) bool, events to judge, at least one; all by default.
    """
    _check(truth, draws)
    valid = torch.ones_like(truth) if valid is None else valid
    image = valid.nonzero()[:, 0]  # of each event
    pool = torch.cat([truth[None], draws])[:, valid].long()
    chosen = torch.randint(len(pool), (1 + EXCHANGES, len(truth)), generator=generator)
    chosen[0] = 0  # the truth is first in the pool
    outcome = pool.gather(0, chosen[:, image])
    hits = pool.sum(0) - outcome
    place = (hits * BINS // len(draws)).clamp(max=BINS - 1)
    probability = hits / len(draws)

    def total(value: Tensor) -> Tensor:
        return torch.zeros(len(value), BINS).scatter_add(1, place[: len(value)], value.float())

    errors = total(outcome - probability).abs().sum(1) / len(image)
    p, o = probability[:1], outcome[:1]
    number, spread = total(torch.ones_like(p))[0], total(p * (1 - p))[0]
    some = number > 0
    return Reliability(
        probability=(total(p)[0] / number)[some],
        frequency=(total(o)[0] / number)[some],
        error=(spread.sqrt() / number)[some],
        number=number[some].long(),
        brier=float((p - o).square().mean()),
        ece=float(errors[0]),
        p_value=float((errors >= errors[0] - 1e-6).double().mean()),
    )


def ranked_probability_score(truth: Tensor, draws: Tensor) -> Tensor:
    """(B,) sum over k of (P(n <= k) - [true n <= k])² (Epstein, 1969), in objects; 0 is best.

    Args:
        truth: (B,) int64 true counts.
        draws: (S, B) int64.
    """
    _check(truth, draws)
    k = torch.arange(_most(truth, draws) + 1)
    probability = (draws[..., None] <= k).double().mean(0)
    return (probability - (truth[:, None] <= k).double()).square().sum(1)


def count_reliability(
    truth: Tensor, draws: Tensor, generator: torch.Generator | None = None
) -> Reliability:
    """`reliability` of P(n = k) for all k up to the largest count, of truth (B,) and draws (S, B) int64."""
    _check(truth, draws)
    k = torch.arange(_most(truth, draws) + 1)
    return reliability(truth[:, None] == k, draws[..., None] == k, generator=generator)


def _most(truth: Tensor, draws: Tensor) -> int:
    return int(max(truth.max(), draws.max()))


def _uniform(like: Tensor, generator: torch.Generator | None) -> Tensor:
    return torch.rand(like.shape, dtype=torch.float64, generator=generator).to(like.device)


def _check(truth: Tensor, draws: Tensor) -> None:
    if draws.shape[1:] != truth.shape or 0 in draws.shape:
        raise ValueError(
            f"truth is {tuple(truth.shape)} and draws {tuple(draws.shape)}: expected draws of the same "
            "images, (S, *shape of truth), and at least one of each"
        )


# Programs and guides


@dataclass(frozen=True)
class Calibration:
    """Results of all checks of a guide's draws against the truth of B images."""

    ranks: dict[str, RankStatistics]
    """ranks of each number that describes a scene: ``centroid[0]``, ``occupancy[3,4]``"""
    tarp: RankStatistics
    """ranks of all numbers together"""
    presence: Reliability | None
    """reliability of presence of the found objects; None if the guide found none"""
    count: Reliability
    """reliability of P(n = k), n the number of objects"""
    rps: float
    """mean ranked probability score of the number of objects, in objects"""
    coverage: dict[str, Coverage]
    """coverage of intervals of ``n_objects`` and, if objects were found, of boxes: ``centre_x``,
    ``extent_y``, …"""

    def summary(self) -> dict[str, float]:
        """The numbers to report: p-values ``*_p``, errors, scores, and shares like ``coverage80_centre_x``.

        `sbc_p` is the least of the p-values of `ranks` times their number (Bonferroni), at most 1.
        """
        least = min(statistics.p_value for statistics in self.ranks.values())
        found = {"sbc_p": min(1.0, least * len(self.ranks)), "tarp_p": self.tarp.p_value}
        events = {"presence": self.presence, "count": self.count}
        for name, judged in events.items():
            if judged is not None:
                found |= {f"{name}_{key}": getattr(judged, key) for key in ("brier", "ece")}
                found[f"{name}_p"] = judged.p_value
        found["count_rps"] = self.rps
        for name, covered in self.coverage.items():
            for level, share in zip(covered.levels, covered.shares, strict=True):
                found[f"coverage{100 * level:.0f}_{name}"] = float(share)
        return found


def simulate(program: Callable, number: int) -> tuple[Tensor, Scene]:
    """Images (number, C, H, W) and the Scenes behind them, from the program itself.

    Images are the values of the site ``images``, noise included, so pixels may lie outside [0, 1]. Give
    them to the guide unchanged: clipped images would not be the program's.

    Raises:
        ValueError: the program has no site ``images``, or returns no Scene.
    """
    images, scenes = [], []
    for trace, pixels in simulations(program, number):
        scene = trace.nodes["_RETURN"]["value"]
        if not isinstance(scene, Scene):
            raise ValueError(
                f"simulations need a program that returns a Scene; this one returns {type(scene).__name__}"
            )
        images.append(pixels)
        scenes.append(scene)
    return torch.cat(images), concatenate(scenes)


def sbc(
    program: Callable,
    guide: Callable,
    number: int = 200,
    draws: int = DRAWS,
    of: Quantities = quantities.OF_SCENES,
    rows: int | None = None,
) -> dict[str, RankStatistics]:
    """Simulation-based calibration: ranks of a program's own scenes among the guide's draws.

    Every number of every quantity is ranked separately: the least of m p-values is about 1 / m by chance.

    Args:
        number: number of scenes to simulate.
        draws: S, draws per scene.
        of: test quantities of Scenes.
        rows: draws of images per pass, as in `posterior.draw`.
    """
    images, truth = simulate(program, number)
    return _ranks(_measured(truth, of), _drawn(program, guide, images, draws, of, rows))


def calibration(
    program: Callable,
    guide: Callable,
    images: Tensor,
    truth: Scene,
    draws: int = DRAWS,
    of: Quantities = quantities.OF_SCENES,
    radius: float = OBJECT_RADIUS,
    rows: int | None = None,
) -> Calibration:
    """All checks of the guide's draws against the truth; images and truth come from `simulate`, or from a
    world.

    Args:
        images: (B, C, H, W).
        truth: B scenes; quantities that they do not have are left out.
        draws: S.
        of: test quantities of Scenes.
        radius: largest distance of a match, in the image frame.
        rows: draws of images per pass, as in `posterior.draw`.
    """
    drawn = _drawn(program, guide, images, draws + 1, {**of, **NODES}, rows)
    return checked(truth, drawn, of, radius)


def checked(
    truth: Scene, drawn: dict[str, Tensor], of: Quantities, radius: float = OBJECT_RADIUS
) -> Calibration:
    """`calibration` of draws that were measured before, of a guide or of any other posterior.

    Slots switch labels between draws, so objects are identified by place. One more draw of each image is the
    reference. An object present in it is *found* by another draw, or by the truth, if `metrics.match` pairs
    it with a node there, one to one, at most `radius` away. Then

    * its probability of presence is the share of the S draws that find it, and the event is that the truth
      does. Objects that are never drawn are not scored here; `count` and the ranks of `occupancy` include
      them;
    * its box has a posterior, the boxes in the draws that find it, for the true box if the truth finds it.
      All lie within `radius` of the reference; presence covers objects farther off.

    The reference does not depend on the truth, so both are exact for the posterior. Compare extents with a
    world's only if program and world define boxes in the same way (a glimpse is larger than its digit).

    Args:
        truth: B scenes.
        drawn: quantity, and those of `NODES` -> (S + 1, B, ...) of the draws, on the CPU.
        of: test quantities of Scenes.
        radius: largest distance of a match, in the image frame.
    """
    drawn = dict(drawn)
    reference, *others = map(_objects, drawn.pop("pres"), drawn.pop("pose"))
    true, drawn = _measured(truth, of), {name: value[1:] for name, value in drawn.items()}
    # exchangeable if the guide is the posterior:
    same = [_objects(truth.objects.pres, truth.objects.pose), *others]
    n = torch.stack([objects.present.sum(1) for objects in same])
    covered = {"n_objects": coverage(pit(n[0], n[1:]))}
    partners = torch.stack([_partners(reference, objects, radius) for objects in same])
    found, asked = partners >= 0, reference.present
    if found[0].any():
        boxes = torch.stack([_boxes(*each) for each in zip(same, partners, strict=True)])
        for name, box in zip(BOX, boxes[:, found[0]].unbind(-1), strict=True):
            covered[name] = coverage(pit(box[0], box[1:]))
    return Calibration(
        ranks=_ranks(true, drawn),
        tarp=tarp(*_standardised(true, drawn)),
        presence=reliability(found[0], found[1:], asked) if asked.any() else None,
        count=count_reliability(n[0], n[1:]),
        rps=float(ranked_probability_score(n[0], n[1:]).mean()),
        coverage=covered,
    )


def _drawn(
    program: Callable,
    guide: Callable,
    images: Tensor,
    draws: int,
    of: Quantities,
    rows: int | None,
) -> dict[str, Tensor]:
    """Quantity -> (S, B, ...) of the guide's draws, on the CPU."""
    found = draw(program, guide, images, draws, of, rows=rows).quantities
    if not found:
        raise ValueError("calibration needs a program that returns a Scene with objects")
    return {name: value.cpu() for name, value in found.items()}


def _measured(truth: Scene, of: Quantities) -> dict[str, Tensor]:
    """Quantity -> (B, ...) of the truth, on the CPU."""
    parts = [quantities.measure(truth[i : i + ROWS], of) for i in range(0, len(truth), ROWS)]
    return {name: torch.cat([part[name] for part in parts]).cpu() for name in parts[0]}


def _ranks(true: dict[str, Tensor], drawn: dict[str, Tensor]) -> dict[str, RankStatistics]:
    """Ranks of each number of the quantities, (B, ...) and (S, B, ...), that both have."""
    both = _common(true, drawn)
    values = quantities.scalars({name: true[name] for name in both}, lead=1)
    draws = quantities.scalars({name: drawn[name] for name in both}, lead=2)
    return {
        name: RankStatistics(ranks(value, draws[name]), len(draws[name]))
        for name, value in values.items()
    }


def _standardised(true: dict[str, Tensor], drawn: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
    """(B, D) and (S, B, D): in standard deviations of the truth, every quantity of the same weight."""
    values, others = [], []
    for name in _common(true, drawn):
        value = true[name].double().view(len(true[name]), -1)
        other = drawn[name].double().view(-1, *value.shape)
        scale = value.std(0, correction=0)
        scale = torch.where(scale > 0, scale, 1.0) * value.shape[1] ** 0.5
        values.append(value / scale)
        others.append(other / scale)
    return torch.cat(values, -1), torch.cat(others, -1)


def _common(true: dict[str, Tensor], drawn: dict[str, Tensor]) -> list[str]:
    both = [name for name in true if name in drawn]
    if not both:
        raise ValueError(
            f"nothing to rank: the truth has {sorted(true)}, the program's scenes {sorted(drawn)}"
        )
    return both


def _objects(pres: Tensor, pose: Tensor) -> Nodes:
    """Nodes of which only presence and place are known."""
    nothing = torch.zeros_like(pres).cpu()
    return Nodes(pres.cpu(), pose.cpu(), nothing, nothing.long())


def _partners(reference: Nodes, nodes: Nodes, radius: float) -> Tensor:
    """(B, N) int64 slot of `nodes` that each slot of the reference is paired with, -1 for none."""
    partner = torch.full(reference.pres.shape, -1)
    for image, (slot, other) in enumerate(match(reference, nodes, radius)):
        partner[image, slot] = other
    return partner


def _boxes(nodes: Nodes, partner: Tensor) -> Tensor:
    """(B, N, 4) centre and extent of the partners, NaN where there is none."""
    box = torch.cat([nodes.centre, nodes.extent], -1)
    box = box.gather(1, partner.clamp(min=0)[..., None].expand(-1, -1, 4))
    return box.where((partner >= 0)[..., None], torch.nan)
