"""A method for every discrete site, and the handlers that put it there."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping
from typing import ClassVar

import torch
from pyro import poutine
from pyro.poutine import Trace
from torch import Tensor, nn
from torch.nn import functional as F

from inference.estimators.checks import NOTHING_DISCRETE, check, check_absent, idle, unmatched
from inference.estimators.handlers import Leaves, repeated
from inference.estimators.origins import unseen, warn_of_unseen
from inference.estimators.passes import Below, Runs, latents_of, where
from inference.estimators.pathwise import Gumbel
from inference.estimators.score import Score
from inference.estimators.sites import (
    Method,
    Place,
    Site,
    alternatives,
    is_discrete,
    key,
    plain,
)
from inference.objectives import Objective, Term, cost_terms, lookup, per_image
from programs.blocks.distributions import unmasked

LIMIT = 4096
"""Largest number of joint values to enumerate."""
FOLLOW = 1024
"""Steps after which what depends on what is followed again; before, at steps 1, 2, 4, 8 and so on."""


class Enumerate(Method):
    """Every value of the site, weighted by its probability."""

    summary: ClassVar[str] = (
        "the sum over all joint values of the sites, beside it pathwise methods only"
    )
    bias: ClassVar[str] = "none"
    runs: ClassVar[str] = "all joint values"

    def prepare(self, place: Place, images: Tensor) -> None:
        """Refuse what is neither Bernoulli nor one-hot."""
        alternatives(place.name, plain(place.name, place.fn, "enumerate"))


class Estimator(nn.Module):
    """A method for every discrete site. `temperature` is a buffer that schedules write."""

    def __init__(self, methods: Mapping[str, Method]) -> None:
        super().__init__()
        self.by_pattern = dict(methods)
        self.methods = nn.ModuleDict({key(pattern): m for pattern, m in methods.items()})
        self.register_buffer("temperature", torch.tensor(1.0))
        self.enumerated: dict[str, tuple[Place, int]] = {}
        self.origins: dict[str, frozenset[str]] = {}
        self.calls = 0

    def prepare(self, program: Callable, guide: Callable, images: Tensor) -> None:
        """Run program and guide to see their discrete sites, and whether they fit each other.

        Raises:
            ValueError: a discrete site has no method, or one that cannot be used there; a pattern is left
                with none, or there is none at all; enumerate beside score methods, or over too many values;
                program and guide differ in their sites, or leave the plate ``batch``; something reads a site
                that does not exist.
        """
        seen = check(program, guide, images)
        trace = poutine.trace(guide).get_trace(images)
        found = {name: where(name, trace) for name, s in trace.nodes.items() if is_discrete(s)}
        used = {name: self._prepare(place, images) for name, place in found.items()}
        self._check_used(used, latents_of(trace))
        scored = [name for name, method in used.items() if isinstance(method, Score)]
        self._check_enumerated(scored)
        if scored:
            check_absent(program, guide, images, scored)
        warn_of_unseen(scored, seen.origins, "their scores take the whole cost as their signal")

    def _check_used(self, used: Mapping[str, Method], latents: Collection[str]) -> None:
        """Every pattern has a discrete site. Without any, `Gumbel` stands for a plain reparametrised ELBO."""
        plain = all(pattern == "*" and type(m) is Gumbel for pattern, m in self.by_pattern.items())
        if not used and not plain:
            raise ValueError(NOTHING_DISCRETE)
        for pattern, method in self.by_pattern.items():
            if pattern != "*" and method not in used.values():
                raise ValueError(idle(pattern, list(used), latents))

    def _check_enumerated(self, scored: list[str]) -> None:
        if self.enumerated and scored:
            raise ValueError(
                "enumerate can stand beside gumbel, gumbel_st, reinmax and other pathwise methods only; "
                "expect sums over one site exactly beside nvil, rloo and other scores"
            )
        if self.states > LIMIT:
            many = self.states if self.states < 10**9 else f"10^{len(str(self.states)) - 1}"
            raise ValueError(
                f"{', '.join(self.enumerated)} have {many} joint values an image, and enumerate "
                f"takes at most {LIMIT}: enumerate fewer sites, or choose rloo"
            )

    def _prepare(self, place: Place, images: Tensor) -> Method:
        method = lookup(self.by_pattern, place.name)
        if method is None:
            raise ValueError(unmatched(place.name, self.by_pattern))
        method.prepare(place, images)
        if isinstance(method, Enumerate):
            self.enumerated[place.name] = place, alternatives(place.name, place.fn)
        return method

    @property
    def states(self) -> int:
        """Joint values of all enumerated sites of an image."""
        return math.prod(
            number ** place.shape.numel() for place, number in self.enumerated.values()
        )

    def forward(
        self, program: Callable, guide: Callable, images: Tensor, objective: Objective
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """A surrogate whose gradient estimates the loss's, and the loss's terms (detached), in nats a batch."""
        copies = max(method.copies for method in self.by_pattern.values())
        x = repeated(images, copies * self.states)
        run = Runs(self.by_pattern, self.temperature, program, guide, objective)
        with Leaves(self.by_pattern) as leaves:
            traces = run.traces(x, self.values(copies * len(images)), self.states)
        trace, terms = traces[1], cost_terms(*traces)
        weight = self.weight(trace, len(x)) / copies
        losses = {n: self._loss(term, weight, len(images)) for n, term in terms.items()}
        surrogate = sum(losses.values())
        scored = [n for n, node in trace.nodes.items() if is_discrete(node) and self.scores(n)]
        if scored:
            self.follow(run, images, terms.keys())
            slopes = leaves.slopes(copies * surrogate)
            costs = Below(terms, self.below(scored, terms))
            extra = self.extra(scored, lambda n: run.see(n, trace, x, costs, slopes.get(n)))
            surrogate = surrogate + extra / copies
        return surrogate, {name: loss.detach() for name, loss in losses.items()}

    @staticmethod
    def _loss(term: Term, weight: Tensor, images: int) -> Tensor:
        """A term of a batch; one that is of all images counts once, whatever runs of them there are."""
        if term.shared:
            return term.cost.sum() * (weight.sum() / images)
        return (weight * per_image(term)).sum()

    def below(self, scored: list[str], terms: Collection[str]) -> dict[str, list[str]]:
        """Names of the terms that depend on every site of a score method."""
        everything = unseen(scored, self.origins)
        return {
            name: [t for t in terms if name in everything or name in self.origins.get(t, (name,))]
            for name in scored
        }

    def extra(self, scored: list[str], see: Callable[[str], Site]) -> Tensor:
        """What score methods add to a surrogate, in nats a batch."""
        total = torch.zeros((), device=self.temperature.device)
        for name in scored:
            site = see(name)
            found = lookup(self.by_pattern, name).surrogate(site) * site.exists
            total = total + found.sum()
        return total

    def scores(self, name: str) -> bool:
        """Whether a site's method is a score function."""
        return isinstance(lookup(self.by_pattern, name), Score)

    def follow(self, run: Runs, images: Tensor, terms: Collection[str]) -> None:
        """Learn which terms depend on which sites; what was once seen is kept, for a program may branch."""
        self.calls += 1
        due = self.calls % FOLLOW == 0 if self.calls > FOLLOW else self.calls.bit_count() == 1
        captured = images.is_cuda and torch.cuda.is_current_stream_capturing()
        if (due and not captured) or not set(terms) <= self.origins.keys():
            for name, found in run.origins(images).items():
                self.origins[name] = self.origins.get(name, frozenset()) | found

    def values(self, rows: int) -> dict[str, Tensor]:
        """All joint values of the enumerated sites, each for `rows` images: states · rows along ``batch``."""
        code, values = torch.arange(self.states, device=self.temperature.device), {}
        for name, (place, number) in self.enumerated.items():
            powers = number ** torch.arange(place.shape.numel(), device=code.device)
            digits = (code[:, None] // powers) % number
            code = code // number ** place.shape.numel()
            event = place.fn.event_dim
            value = F.one_hot(digits, number) if event else digits
            value = value.to(torch.get_default_dtype())
            value = value.view(self.states, *place.shape, *value.shape[2:])
            values[name] = place.back(value.repeat_interleave(rows, 0), event)
        return values

    def weight(self, trace: Trace, rows: int) -> Tensor:
        """(rows) probability of the enumerated values, 1 where nothing is enumerated."""
        log_prob = torch.zeros(rows, device=self.temperature.device)
        for name, (place, _) in self.enumerated.items():
            site = trace.nodes[name]
            of_values = place.front(unmasked(site["fn"]).log_prob(site["value"]))
            log_prob = log_prob + of_values.reshape(rows, -1).sum(1)
        return log_prob.exp()
