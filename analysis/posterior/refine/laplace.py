"""Chains that are annealed to the posterior from a Gaussian around the best state of every image.

    u      the continuous latents that exist in the best state, unconstrained; all else stays as it is there
    m      a maximum of log p(x, u), by Newton's method from there
    P      minus the Hessian of log p(x, u) at m: Laplace's approximation is N(u; m, P⁻¹)
    π_β    ∝ N(u; m, P⁻¹)^(1 - β) p(x, u)^β,    β = 0, 1 / L, …, 1

That is annealed importance sampling (Neal, 2001), from Laplace's approximation in the place of the guide. Moves
are Hamiltonian, in coordinates y = Rᵀ (u - m), P = R Rᵀ, in which the Gaussian is standard.

The mean weight estimates the evidence of one arrangement, which is at most p(x): the objects that are there,
in their order, with their categories, around one maximum. A square turned by 90° is another one.

Second derivatives are differences of gradients over a deviation or so: pictures that are placed by bilinear
sampling have kinks at every pixel.

Shape legend: S chains, B images, R = S · B rows, D numbers in u.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import pyro
import torch
from torch import Tensor
from tqdm import tqdm

from analysis.posterior.draws import check_images
from analysis.posterior.refine.drift import OF_MORE, Drift, fit
from analysis.posterior.refine.latents import Marks, Values
from analysis.posterior.refine.refined import VALUES, shown
from analysis.posterior.refine.target import Target
from analysis.posterior.weights import iwae

LEVELS = 40
"""L by default; 1 is importance sampling from the Gaussian."""
LEAPS = 3
"""Steps of the leapfrog per move."""
FIRST = 0.5
"""Step of the leapfrog at the start, in deviations of the Gaussian."""
HESSIANS = 3
"""Hessians by which the maximum is found."""
CLIMBS = 10
"""Newton's steps with each."""
SHORTER = (1.0, 0.5, 0.2, 0.05)
"""Parts of a step that are tried."""
WIDTH = 0.03
"""Distance of the first differences; later ones are over `KINK` deviations."""
KINK = 0.7
FLAT = 0.5
"""Smallest curvature of the Gaussian. Most latents have curvature 1 by their prior alone."""
MOST = 1500
"""Most numbers in u: their Hessian is one matrix per image."""


@dataclass(frozen=True)
class Local:
    """Weighted draws around the best state of B images."""

    draws: Values
    """site -> (S, B, *S, *E) all latents; those that are not moved are equal in all draws"""
    weights: Tensor
    """(S, B) log-weights, nats; draws by `weights.softmax(0)` are of the posterior around that state"""

    @property
    def evidence(self) -> Tensor:
        """(B,) estimate of the arrangement's part in log p(x), nats."""
        return iwae(self.weights)

    def resampled(self, number: int) -> Values:
        """site -> (number, B, *S, *E) draws of equal weight, chosen with replacement by their weights."""
        chosen = torch.multinomial(self.weights.softmax(0).T, number, replacement=True).T
        image = torch.arange(chosen.shape[1], device=chosen.device)
        return {n: value[chosen, image] for n, value in self.draws.items()}


def local(
    program: Callable,
    guide: Callable,
    images: Tensor,
    best: Values,
    chains: int = 100,
    levels: int = LEVELS,
    progress: bool | None = None,
) -> Local:
    """Draws of the posterior around a state of every image, with weights that can be checked by `khat`.

    >>> from analysis.posterior import khat
    >>> from analysis.posterior.refine import refine
    >>> from inference.runs import open_run
    >>> run = open_run("discrete_air-multi_sprites")
    >>> images = run.unseen(2).floats()
    >>> found = refine(run.program, run.guide, images, sweeps=4, chains=2, progress=False)
    >>> around = local(run.program, run.guide, images, found.best, 50, levels=1, progress=False)
    >>> around.weights.shape, khat(around.weights).shape
    (torch.Size([50, 2]), torch.Size([2]))

    Args:
        images: (B, C, H, W) in [0, 1], on the program's device.
        best: site -> (B, *S, *E) the states, as `Refined.best` has them.
        chains: S per image.
        levels: L; more give more equal weights.
        progress: whether to show a bar; by default on a terminal.
    Raises:
        ValueError: `images` have a wrong shape, type or range; `chains` or `levels` are less than one; the
            program has no continuous latents or more than `MOST`, or cannot be refined (`latents_of`).
    """
    check_images(images, program)
    if chains < 1 or levels < 1:
        raise ValueError(f"chains={chains}, levels={levels}: expected at least one of each")
    size = max(1, VALUES // (chains * images[0].numel()))
    rows = torch.arange(len(images), device=images.device).split(size)
    parts = []
    with (
        pyro.validation_enabled(False),
        tqdm(total=len(rows) * levels, desc="anneal", disable=not shown(progress)) as bar,
    ):
        for mine in rows:
            states = {name: value[mine] for name, value in best.items()}
            one = numbers_of(Target(program, guide, images[mine], 1), states)
            parts.append(anneal(one.repeated(chains), laplace(one), levels, bar.update))
    draws = {n: torch.cat([part.draws[n] for part in parts], 1) for n in parts[0].draws}
    return Local(draws, torch.cat([part.weights for part in parts], 1))


class Numbers:
    """log p(x, u) for every row, and its gradient; u (R, D) has a place for all continuous latents, but those
    that do not exist count for nothing.

    Args:
        states, exists: site -> (R, *S, *E), and which elements exist there, (R, *S).
    """

    def __init__(self, target: Target, states: Values, exists: Marks) -> None:
        self.target, self.states, self.exists = target, states, exists
        self.drift = Drift(target, {})
        free = self.drift.free(states)
        self.shapes = {n: x.shape for n, x in free.items()}
        self.marks = {n: fit(exists[n], x).expand_as(x) for n, x in free.items()}
        self.start, self.alive = pack(free), pack(self.marks).to(target.images.dtype)

    def repeated(self, chains: int) -> Numbers:
        """The same with `chains` rows for every one."""
        states, exists = (
            {n: v.repeat(chains, *[1] * (v.ndim - 1)) for n, v in table.items()}
            for table in (self.states, self.exists)
        )
        return Numbers(self.target.of(chains), states, exists)

    def values(self, u: Tensor) -> Values:
        """All latents, of which u (R, D) has the continuous ones."""
        return self.states | self.drift.bound(self.unpack(u))

    def unpack(self, u: Tensor) -> Values:
        """(R, D) -> unconstrained values by site."""
        parts = u.split([math.prod(shape[1:]) for shape in self.shapes.values()], 1)
        return {n: x.reshape(self.shapes[n]) for n, x in zip(self.shapes, parts, strict=True)}

    def log_p(self, u: Tensor) -> Tensor:
        """(R,) log p(x, u), nats; -inf where it is no number."""
        state = self.target.state(self.values(u), guided=False)
        found = state.log_p + self.drift.volume(self.unpack(u), state)
        return found.where(found.isfinite(), -torch.inf)

    def slope(self, u: Tensor) -> Tensor:
        """(R, D) its gradient."""
        ones = torch.ones_like(u[:, 0])
        return pack(self.drift.force(self.states, self.unpack(u), self.marks, ones))

    def curvature(self, u: Tensor, width: Tensor) -> Tensor:
        """(R, D, D) minus the Hessian by differences over ± `width` (R, D); 1 for what does not exist."""
        found = torch.diag_embed(1 - self.alive)
        for column in self.alive.any(0).nonzero().flatten():
            step = torch.zeros_like(u)
            step[:, column] = width[:, column]
            change = self.slope(u - step) - self.slope(u + step)
            change = self.alive * change / (2 * width[:, column, None])
            found[:, :, column] += change * self.alive[:, column, None]
        return (found + found.mT) / 2


def numbers_of(target: Target, states: Values) -> Numbers:
    """The numbers of states, site -> (B, *S, *E), one row per image.

    Raises:
        ValueError: there are none, or more than `MOST`.
    """
    target.start()
    number = sum(states[n][0].numel() for n in target.moving)
    if not 0 < number <= MOST:
        raise ValueError(
            f"the program has {number:,} continuous latents per image: expected 1 to {MOST:,}, as their "
            "Hessian is one matrix; refine has no such limit"
        )
    return Numbers(target, states, target.state(states, guided=False).exists)


@dataclass(frozen=True)
class Gaussian:
    """N(m, P⁻¹) for every image."""

    mean: Tensor
    """(B, D)"""
    root: Tensor
    """(B, D, D) R, lower, P = R Rᵀ"""

    def place(self, y: Tensor) -> Tensor:
        """u (S, B, D) at y (S, B, D)."""
        return self.mean + _solve(self.root.mT, y, upper=True)

    def pull(self, slope: Tensor) -> Tensor:
        """The gradient by y of what has the gradient (S, B, D) by u."""
        return _solve(self.root, slope, upper=False)

    def log_prob(self, y: Tensor, alive: Tensor) -> Tensor:
        """(S, B) of u at y, among the numbers that exist (B, D)."""
        log_root = self.root.diagonal(dim1=-2, dim2=-1).log()
        each = log_root - 0.5 * y.square() - 0.5 * math.log(2 * math.pi)
        return (alive * each).sum(-1)


def laplace(numbers: Numbers) -> Gaussian:
    """The Gaussian at a maximum of log p(x, u), with the curvature there; one row per image."""
    u, width = numbers.start, torch.full_like(numbers.start, WIDTH)
    for _ in range(HESSIANS):
        root = root_of(numbers.curvature(u, width))
        for _ in range(CLIMBS):
            u = climbed(numbers, u, torch.cholesky_solve(numbers.slope(u).unsqueeze(-1), root))
        deviation = torch.cholesky_inverse(root).diagonal(dim1=-2, dim2=-1).sqrt()
        width = KINK * deviation
    return Gaussian(u, root_of(numbers.curvature(u, width)))


def root_of(curvature: Tensor) -> Tensor:
    """(B, D, D) the lower root of a matrix made positive: a saddle's curvatures count by their magnitude."""
    values, vectors = torch.linalg.eigh(curvature)
    values = values.abs().clamp(min=FLAT)
    return torch.linalg.cholesky(vectors @ (values.unsqueeze(-1) * vectors.mT))


def climbed(numbers: Numbers, u: Tensor, step: Tensor) -> Tensor:
    """(R, D) u moved by the part of a step (R, D, 1) that is best, if any is better."""
    best, high = u, numbers.log_p(u)
    for part in SHORTER:
        moved = u + part * step.squeeze(-1)
        here = numbers.log_p(moved)
        best = torch.where((here > high).unsqueeze(-1), moved, best)
        high = torch.maximum(high, here)
    return best


def anneal(numbers: Numbers, gaussian: Gaussian, levels: int, told: Callable[[], object]) -> Local:
    """Annealed importance sampling from the Gaussian; `told` is called after every level."""
    chain = Chain(numbers, gaussian)
    weights = torch.zeros_like(chain.log_p)
    for level in range(1, levels + 1):
        weights = weights + (chain.log_p - chain.log_q(chain.y)) / levels
        if level < levels:
            chain.move(level / levels)
        told()
    values = numbers.values(chain.place(chain.y))
    draws = {n: v.unflatten(0, (numbers.target.chains, -1)) for n, v in values.items()}
    return Local(draws, weights)


class Chain:
    """Hamiltonian moves of y (S, B, D) that keep π_β; every image has its own step."""

    def __init__(self, numbers: Numbers, gaussian: Gaussian) -> None:
        self.numbers, self.gaussian = numbers, gaussian
        images = len(gaussian.mean)
        self.alive = numbers.alive[:images]
        shape = numbers.target.chains, *self.alive.shape
        self.y = self.alive * torch.randn(shape, device=self.alive.device)
        self.log_p = self.log_p_at(self.y)
        self.log_step = torch.full((images,), math.log(FIRST)).to(self.alive)

    def place(self, y: Tensor) -> Tensor:
        """u (R, D) at y (S, B, D); what does not exist stays."""
        u = self.gaussian.place(y).flatten(0, 1)
        return torch.where(self.numbers.alive > 0, u, self.numbers.start)

    def log_p_at(self, y: Tensor) -> Tensor:
        """(S, B) log p(x, u)."""
        return self.numbers.log_p(self.place(y)).view(y.shape[:2])

    def log_q(self, y: Tensor) -> Tensor:
        """(S, B) of the Gaussian."""
        return self.gaussian.log_prob(y, self.alive)

    def force(self, y: Tensor, beta: float) -> Tensor:
        """(S, B, D) gradient of log π_β by y."""
        slope = self.numbers.slope(self.place(y)).view(y.shape)
        return self.alive * (beta * self.gaussian.pull(slope) - (1 - beta) * y)

    def move(self, beta: float) -> None:
        """One move, and the step's adaptation to the share of accepted ones."""
        speed = self.alive * torch.randn_like(self.y)
        before = self.energy(self.y, self.log_p, speed, beta)
        y, step = self.y, self.log_step.exp().unsqueeze(-1)
        force = self.force(y, beta)
        for _ in range(LEAPS):
            speed = speed + 0.5 * step * force
            y = y + step * speed
            force = self.force(y, beta)
            speed = speed + 0.5 * step * force
        log_p = self.log_p_at(y)
        ratio = (before - self.energy(y, log_p, speed, beta)).nan_to_num(nan=-torch.inf)
        share = ratio.clamp(max=0).exp()
        yes = torch.rand_like(share) < share
        self.y = torch.where(yes.unsqueeze(-1), y, self.y)
        self.log_p = torch.where(yes, log_p, self.log_p)
        self.log_step = self.log_step + share.mean(0) - OF_MORE

    def energy(self, y: Tensor, log_p: Tensor, speed: Tensor, beta: float) -> Tensor:
        """(S, B) potential and kinetic energy."""
        path = beta * log_p + (1 - beta) * self.log_q(y)
        return 0.5 * speed.square().sum(-1) - path


def pack(table: Values) -> Tensor:
    """(R, D) all values of a table side by side."""
    return torch.cat([value.reshape(len(value), -1) for value in table.values()], 1)


def _solve(triangle: Tensor, right: Tensor, upper: bool) -> Tensor:
    """T⁻¹ x for triangles (B, D, D) and vectors (S, B, D)."""
    columns = right.permute(1, 2, 0)
    return torch.linalg.solve_triangular(triangle, columns, upper=upper).permute(2, 0, 1)
