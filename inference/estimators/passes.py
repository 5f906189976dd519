"""Runs of guide and program under the methods of a training, and what they show of one site."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Protocol

import torch
from pyro.poutine import Trace
from torch import Tensor

from inference.estimators.handlers import Choose, Fix, Relax, Share, repeated
from inference.estimators.origins import apart, buffers_kept, downstream, provenance
from inference.estimators.pathwise import Mean
from inference.estimators.sites import (
    Method,
    Place,
    Site,
    batch_dim,
    is_choice,
    reachable,
)
from inference.objectives import (
    Objective,
    Term,
    cost_terms,
    in_common,
    is_aside,
    is_plate,
    per_image,
)
from programs.blocks.distributions import unmasked

Methods = Mapping[str, Method]


@dataclass(frozen=True)
class Runs:
    """How guide and program are run."""

    methods: Methods
    temperature: Tensor
    program: Callable
    guide: Callable
    objective: Objective

    def __call__(self, x: Tensor) -> tuple[Trace, dict[str, Term]]:
        """The guide's trace and the terms of one run on images x."""
        traces = self.traces(x, {})
        return traces[1], cost_terms(*traces)

    def traces(
        self, x: Tensor, values: Mapping[str, Tensor], copies: int = 1, means: Methods | None = None
    ) -> tuple[Trace, Trace]:
        """The program's trace and the guide's of one run on images x.

        Args:
            values: what sites are fixed at.
            copies: how many copies of a batch, one after another, have the same noise.
            means: methods that take the place of the training's.
        """
        relax = Relax(means or self.methods, self.temperature)
        shared = Share(copies) if copies > 1 else nullcontext()
        with Choose(), shared, Fix(values), relax:
            return self.objective.traces(self.program, self.guide, x)

    def origins(self, images: Tensor) -> dict[str, frozenset[str]]:
        """What every term depends on, by a run that leaves no trace in random states and buffers."""
        with apart(self.program, self.guide):
            return provenance(lambda: self(images)[1])

    def see(self, name: str, trace: Trace, x: Tensor, costs: Costs, slope: Tensor | None) -> Site:
        """A site of a run on images x; `slope` is the gradient by its value, where a method asks for it."""
        node, place = trace.nodes[name], where(name, trace)
        again = Again(self, name, trace, costs, x)
        event = node["fn"].event_dim
        return Site(
            **vars(place),
            value=place.front(node["value"].detach(), event),
            exists=place.front(reachable(node)),
            cost=costs.cost(name, trace),
            images=x,
            earlier=history(name, trace, x),
            slope=None if slope is None else place.front(slope, event),
            rerun=again.rerun,
            relaxed=again.relaxed,
        )


class Costs(Protocol):
    """What the draw of a site costs, in nats."""

    def cost(self, name: str, trace: Trace) -> Tensor:
        """(K·B, *S) of the run itself, without gradient; `trace` is the guide's."""
        ...

    def again(self, name: str, traces: tuple[Trace, Trace], number: int) -> tuple[Tensor, Tensor]:
        """(P, K·B, *S) without gradient, and the sum (P, K·B) with one, where `number` P values were tried."""
        ...


@dataclass(frozen=True)
class Below:
    """The terms of the negative ELBO that depend on a site."""

    terms: Mapping[str, Term]
    names: Mapping[str, list[str]]
    """of terms, by site"""

    def cost(self, name: str, trace: Trace) -> Tensor:
        """As `Costs`."""
        found = downstream(trace.nodes[name], [self.terms[term] for term in self.names[name]])
        return where(name, trace).front(found)

    def again(self, name: str, traces: tuple[Trace, Trace], number: int) -> tuple[Tensor, Tensor]:
        """As `Costs`."""
        costs = cost_terms(*traces)
        terms = [costs[term] for term in self.names[name] if term in costs]
        cost = where(name, traces[1]).front(downstream(traces[1].nodes[name], terms))
        each = (per_image(term) for term in terms if not term.shared)
        total = sum(each, cost.new_zeros(len(cost)))
        return cost.unflatten(0, (number, -1)), total.view(number, -1)


@dataclass(frozen=True)
class Again:
    """A run with other values at a site, everything before it as it was."""

    runs: Runs
    name: str
    trace: Trace
    costs: Costs
    x: Tensor

    @torch.no_grad()
    def rerun(self, values: Tensor, shared: bool = False) -> Tensor:
        """As `Site.rerun`."""
        return self.run(values, len(values) if shared else 1)[0]

    def relaxed(self, values: Tensor) -> tuple[Tensor, Tensor]:
        """As `Site.relaxed`."""
        with torch.enable_grad():
            return self.run(values, len(values), means(self.trace))

    def run(
        self, values: Tensor, copies: int, instead: Methods | None = None
    ) -> tuple[Tensor, Tensor]:
        """What values (P, K·B, *S[, A]) cost, as `Costs.again` tells."""
        number, place = len(values), where(self.name, self.trace)
        fixed = {n: self.repeat(n, number) for n in latents_before(self.name, self.trace)}
        fixed[self.name] = place.back(values.flatten(0, 1), place.fn.event_dim)
        x = repeated(self.x, number)
        with buffers_kept(self.runs.program, self.runs.guide):
            traces = self.runs.traces(x, plates(self.trace) | fixed, copies, instead)
        return self.costs.again(self.name, traces, number)

    def repeat(self, name: str, number: int) -> Tensor:
        """An earlier latent's value for `number` copies of the batch."""
        node = self.trace.nodes[name]
        if not own(node):
            return node["value"].detach()
        place = where(name, self.trace)
        value = place.front(node["value"].detach(), node["fn"].event_dim)
        return place.back(repeated(value, number), node["fn"].event_dim)


def where(name: str, trace: Trace) -> Place:
    """A latent of a guide's trace as a method first sees it."""
    node = trace.nodes[name]
    earlier = [node for node in (trace.nodes[n] for n in latents_before(name, trace)) if own(node)]
    dim = batch_dim(name, node)
    rows = node["fn"].batch_shape[dim]
    numbers = sum(n["value"].numel() for n in earlier) // max(rows, 1)
    return Place(name, unmasked(node["fn"]), dim, numbers)


def own(node: dict) -> bool:
    """Whether every image has a value of a latent of its own; others are of all images."""
    return not in_common(node["cond_indep_stack"])


def latents_before(name: str, trace: Trace) -> list[str]:
    """Names of the latents of a guide's trace that are drawn before one."""
    latents = latents_of(trace)
    return latents[: latents.index(name)]


def latents_of(trace: Trace) -> list[str]:
    """Names of the latents of a guide's trace, as they are drawn."""
    samples = [n for n, node in trace.nodes.items() if node["type"] == "sample"]
    return [n for n in samples if not is_aside(trace.nodes[n])]


def plates(trace: Trace) -> dict[str, Tensor]:
    """The indices that subsampled plates took: a run again takes the same."""
    nodes = [(n, node) for n, node in trace.nodes.items() if node["type"] == "sample"]
    found = {n: node["value"] for n, node in nodes if is_plate(node)}
    return {n: v for n, v in found.items() if isinstance(v, Tensor) and n != "batch"}


def history(name: str, trace: Trace, x: Tensor) -> Tensor:
    """(K·B, 1 + D) a one, and the values of all latents before a site, without gradient."""
    parts = [x.new_ones(len(x), 1)]
    for earlier in latents_before(name, trace):
        node = trace.nodes[earlier]
        if not own(node):
            continue
        value = where(earlier, trace).front(node["value"].detach(), node["fn"].event_dim)
        parts.append(value.reshape(len(x), -1).to(x.dtype))
    return torch.cat(parts, 1)


def means(trace: Trace) -> dict[str, Method]:
    """The method `mean` for every discrete site that has one."""
    return {name: Mean() for name, node in trace.nodes.items() if is_choice(node)}
