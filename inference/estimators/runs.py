"""Runs of guide and program under the methods of a training, and what they show of one site."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

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
    alternatives,
    batch_dim,
    is_discrete,
    reachable,
    unmasked,
)
from inference.objectives import Objective, Term, cost_terms, in_common, is_plate, per_image

Methods = Mapping[str, Method]


@dataclass(frozen=True)
class Runs:
    """How guide and program are run."""

    methods: Methods
    temperature: Tensor
    program: Callable
    guide: Callable
    objective: Objective

    def __call__(
        self, x: Tensor, values: Mapping[str, Tensor], copies: int = 1, means: Methods | None = None
    ) -> tuple[Trace, dict[str, Term]]:
        """The guide's trace and the terms of one run on images x.

        Args:
            values: what sites are fixed at.
            copies: how many copies of a batch, one after another, have the same noise.
            means: methods that take the place of the training's.
        """
        relax = Relax(means or self.methods, self.temperature)
        if copies == 1:
            with Choose(), Fix(values), relax:
                traces = self.objective.traces(self.program, self.guide, x)
        else:
            with Choose(), Share(copies), Fix(values), relax:
                traces = self.objective.traces(self.program, self.guide, x)
        return traces[1], cost_terms(*traces)

    def origins(self, images: Tensor) -> dict[str, frozenset[str]]:
        """What every term depends on, by a run that leaves no trace in random states and buffers."""
        with apart(self.program, self.guide):
            return provenance(lambda: self(images, {})[1])

    def see(
        self, name: str, trace: Trace, terms: Mapping[str, Term], below: list[str], x: Tensor
    ) -> Site:
        """A site of a run on images x; `below` are the terms that depend on it."""
        node, place = trace.nodes[name], where(name, trace)
        again = Again(self, name, trace, below, x)
        return Site(
            **vars(place),
            value=place.front(node["value"], node["fn"].event_dim),
            exists=place.front(reachable(node)),
            cost=place.front(downstream(node, [terms[term] for term in below])),
            images=x,
            earlier=history(name, trace, x),
            rerun=again.rerun,
            relaxed=again.relaxed,
        )


@dataclass(frozen=True)
class Again:
    """A run with other values at a site, everything before it as it was."""

    runs: Runs
    name: str
    trace: Trace
    below: list[str]
    x: Tensor

    @torch.no_grad()
    def rerun(self, values: Tensor, shared: bool = False) -> Tensor:
        """As `Site.rerun`."""
        return self.run(values, len(values) if shared else 1)[0]

    def relaxed(self, values: Tensor) -> tuple[Tensor, Tensor]:
        """As `Site.relaxed`."""
        with torch.enable_grad():
            cost, terms = self.run(values, len(values), means(self.trace))
            each = (per_image(term) for term in terms if not term.shared)
            total = sum(each, values.new_zeros(values.shape[:2].numel()))
        return cost.detach(), total.view(values.shape[:2])

    def run(
        self, values: Tensor, copies: int, instead: Methods | None = None
    ) -> tuple[Tensor, list[Term]]:
        """Costs (P, K·B, *S) of values (P, K·B, *S[, A]), and the terms below the site."""
        number, place = len(values), where(self.name, self.trace)
        fixed = {n: self.repeat(n, number) for n in latents_before(self.name, self.trace)}
        value = place.back(values.flatten(0, 1), place.fn.event_dim)
        with buffers_kept(self.runs.program, self.runs.guide):
            trace, costs = self.runs(
                repeated(self.x, number),
                {**plates(self.trace), **fixed, self.name: value},
                copies,
                instead,
            )
        terms = [costs[term] for term in self.below if term in costs]
        cost = place.front(downstream(trace.nodes[self.name], terms))
        return cost.unflatten(0, (number, -1)), terms

    def repeat(self, name: str, number: int) -> Tensor:
        """An earlier latent's value for `number` copies of the batch."""
        node = self.trace.nodes[name]
        if not own(node):
            return node["value"]
        place = where(name, self.trace)
        value = place.front(node["value"], node["fn"].event_dim)
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
    return [n for n in samples if not is_plate(trace.nodes[n])]


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
    found = {}
    for name, node in trace.nodes.items():
        if is_discrete(node):
            try:
                alternatives(name, unmasked(node["fn"]))
            except ValueError:
                continue
            found[name] = Mean()
    return found
