"""What is refined: log p(x, z) of the program and log q(z | x) of its guide, at any values of the latents.

Between them lies the geometric path π_β ∝ q(z | x)^(1 - β) p(x, z)^β (Neal, 2001), β from 0 to 1. Both count
an element that does not exist, below an absent node, as no part of z, so states of different numbers of
objects are compared as in reversible-jump MCMC (Green, 1995).

Shape legend: R rows, which are chains times images; C channels, H x W pixels.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from typing import ClassVar

import torch
from pyro import poutine
from pyro.poutine import Trace
from torch import Tensor

from analysis.posterior.draws import Mode, observed_sites, within_batch
from analysis.posterior.refine.latents import (
    Given,
    Latent,
    Marks,
    Values,
    choose,
    latents_of,
    sum_rows,
)
from inference.objectives import log_prob_per_image
from programs.scene import Scene


@dataclass(frozen=True)
class State:
    """A value of every latent in every row, and what program and guide make of it."""

    values: Values
    exists: Marks
    log_p: Tensor
    """(R,) log p(x, z), nats"""
    log_q: Tensor
    """(R,) log q(z | x), nats; 0 where it is not asked for"""
    drawn: Tensor
    """(R, C, H, W) what objects add to the background, or (R, 0) if the program does not say"""

    def where(self, mine: Tensor, other: State) -> State:
        """This state in the rows where `mine` (R,) is true, the other one elsewhere."""
        tables = {
            n: choose(mine, getattr(self, n), getattr(other, n)) for n in ("values", "exists")
        }
        lines = {n: getattr(self, n) for n in ("log_p", "log_q", "drawn")}
        rest = choose(mine, lines, {n: getattr(other, n) for n in lines})
        return State(**tables, **rest)

    def __getitem__(self, rows: Tensor) -> State:
        parts = {}
        for field in fields(self):
            part = getattr(self, field.name)
            table = isinstance(part, dict)
            parts[field.name] = {k: v[rows] for k, v in part.items()} if table else part[rows]
        return State(**parts)


def of_chains(state: State, source: Tensor) -> State:
    """The state with every row as that of its image in chain `source` (S, B)."""
    images = source.shape[1]
    return state[(source * images + torch.arange(images, device=source.device)).flatten()]


class Target:
    """The path from guide to program for `images`, each of which has `chains` rows.

    Row r is of chain r // B and image r % B.
    """

    def __init__(self, program: Callable, guide: Callable, images: Tensor, chains: int) -> None:
        self.program, self.guide, self.chains = program, guide, chains
        self.images = images.repeat(chains, 1, 1, 1)
        self.latents: dict[str, Latent] = {}
        self.order: list[str] = []

    def of(self, chains: int) -> Target:
        """The same images with another number of chains; `start` must have found the latents."""
        images = self.images[: len(self.images) // self.chains]
        other = Target(self.program, self.guide, images, chains)
        other.latents, other.order = self.latents, self.order
        return other

    def start(self) -> tuple[State, Mapping[str, Tensor]]:
        """Draws of the guide, and the standard deviation that the guide gives each element.

        Raises:
            ValueError: program or guide are not of the kind that can be refined (`latents_of`).
        """
        with torch.no_grad():
            q = poutine.trace(self.guide).get_trace(self.images)
            p = poutine.trace(poutine.replay(self.program, trace=q)).get_trace(self.images)
        self.latents = latents_of(p, q)
        self.order = list(self.latents)
        sites = q.nodes
        values = {n: latent.front(sites[n]["value"]).clone() for n, latent in self.latents.items()}
        scales = {
            n: latent.front(_deviation(sites[n]["fn"], sites[n]["value"]))
            for n, latent in self.latents.items()
            if latent.moves and latent.transform is None
        }
        return self.state(values), scales

    def mode(self) -> State:
        """The guide's mode in every row."""
        with torch.no_grad(), Mode():
            nodes = poutine.trace(self.guide).get_trace(self.images).nodes
        latents = self.latents.items()
        return self.state({n: latent.front(nodes[n]["value"]) for n, latent in latents})

    @torch.no_grad()
    def state(self, values: Values, guided: bool = True) -> State:
        """Run the program, and the guide if it is asked for, at these values."""
        trace = self.trace(self.program, values)
        log_p = log_prob_per_image(trace)
        log_q = torch.zeros_like(log_p)
        if guided:
            log_q = log_prob_per_image(self.trace(self.guide, values))
        exists = {n: latent.marks(trace.nodes[n]) for n, latent in self.latents.items()}
        return State(values, exists, log_p, log_q, self.drawn(trace))

    def trace(self, function: Callable, values: Values) -> Trace:
        """The trace of program or guide at these values."""
        with Given(self.latents, values):
            return poutine.trace(function).get_trace(self.images)

    def drawn(self, trace: Trace) -> Tensor:
        """(R, C, H, W) the mean image without its background, (R, 0) if nothing says what it is."""
        scene = trace.nodes["_RETURN"]["value"]
        if isinstance(scene, Scene):
            image = scene.image
            return image if scene.background is None else image - scene.background
        site = observed_sites(trace).get("images")
        try:
            mean = within_batch({**site, "value": site["fn"].mean})
            return mean.reshape(self.images.shape)
        except (NotImplementedError, RuntimeError, TypeError):
            return self.images.new_zeros(len(self.images), 0)

    def unexplained(self, state: State) -> Tensor:
        """(R, C, H, W) the images without what the objects of a state draw; else the images as they are."""
        if state.drawn.shape != self.images.shape:
            return self.images
        return (self.images - state.drawn).clamp(0, 1)

    def log_density(self, log_p: Tensor, log_q: Tensor, beta: Tensor) -> Tensor:
        """(R,) log π_β up to its constant, -inf where it is no number."""
        path = beta * log_p + torch.where(beta < 1, (1 - beta) * log_q, 0.0)
        return path.where(path.isfinite(), -torch.inf)

    def along(self, state: State, beta: Tensor) -> Tensor:
        """(R,) log π_β of a state."""
        return self.log_density(state.log_p, state.log_q, beta)

    def slopes(self, values: Values, beta: Tensor) -> dict[str, Tensor]:
        """Forces along the continuous latents, (R, *S, *E) each; 0 where one is no number.

        They are the gradient of log π_β, but for the way a latent changes what the guide says of the others:
        that would take the guide's gradient, which costs more than all the rest. Hamiltonian moves keep π_β
        under any force.
        """
        numbers = {n: values[n].detach().requires_grad_() for n in self.moving}
        with torch.enable_grad():
            given = values | numbers
            path = (beta * log_prob_per_image(self.trace(self.program, given))).sum()
            if (beta < 1).any():
                path = path + self.attraction(given, 1 - beta)
            found = torch.autograd.grad(path, list(numbers.values()), materialize_grads=True)
        pairs = zip(numbers, found, strict=True)
        return {n: g.nan_to_num(nan=0.0, posinf=0.0, neginf=0.0) for n, g in pairs}

    def attraction(self, values: Values, share: Tensor) -> Tensor:
        """Sum over rows of `share` (R,) times the guide's log-density of the continuous latents, each given
        the others."""
        with torch.no_grad():
            nodes = self.trace(self.guide, {n: v.detach() for n, v in values.items()}).nodes
        total = share.new_zeros(())
        for name in self.moving:
            latent, site = self.latents[name], nodes[name]
            each = site["fn"].log_prob(latent.back(values[name])).expand(site["fn"].batch_shape)
            mine = torch.where(latent.marks(site), each.movedim(latent.dim, 0), 0.0)
            total = total + (share * sum_rows(mine)).sum()
        return total

    @property
    def moving(self) -> list[str]:
        """Names of the continuous latents."""
        return [n for n, latent in self.latents.items() if latent.moves]


class Move:
    """A kernel that keeps π_β: Metropolis's rule for what it proposes."""

    name: ClassVar[str]

    def propose(self, state: State, beta: Tensor) -> tuple[State, Tensor]:
        """Another state, and (R,) log of the ratio whose minimum with 1 is the probability to accept it; -inf
        where nothing can be proposed."""
        raise NotImplementedError

    def __call__(self, state: State, beta: Tensor) -> tuple[State, Tensor]:
        """One move; returns the state and (R,) the probability with which it was accepted."""
        new, log_ratio = self.propose(state, beta)
        return accept(new, state, log_ratio)


def accept(new: State, old: State, log_ratio: Tensor) -> tuple[State, Tensor]:
    """The new state in the rows that Metropolis's rule accepts, and (R,) the probability of that."""
    log_ratio = log_ratio.nan_to_num(nan=-torch.inf)
    yes = torch.rand_like(log_ratio).log() < log_ratio
    return new.where(yes, old), log_ratio.clamp(max=0).exp()


def _deviation(fn: torch.distributions.Distribution, value: Tensor) -> Tensor:
    """Standard deviation per element in the shape of a value, 1 where it is unknown."""
    try:
        sd = fn.stddev
    except NotImplementedError:
        sd = torch.ones_like(value)
    sd = torch.where(sd.isfinite() & (sd > 0), sd, 1.0)
    return sd.expand_as(value)
