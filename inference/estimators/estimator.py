"""A method for every discrete site, the handlers that put it there, and estimators by name."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping
from typing import ClassVar

import torch
from pyro import poutine
from pyro.poutine import Trace
from torch import Tensor, nn
from torch.nn import functional as F

from inference.estimators.bounds import VIMCO, TraceGraph, Whole
from inference.estimators.checks import check, check_absent
from inference.estimators.controls import REBAR, RELAX, MuProp
from inference.estimators.handlers import repeated
from inference.estimators.origins import unseen, warn_of_unseen
from inference.estimators.pathwise import (
    Competition,
    GappedST,
    Gumbel,
    GumbelRao,
    GumbelST,
    Mean,
    ReinMax,
)
from inference.estimators.reruns import ARMS, DisARM, Expect, Unordered
from inference.estimators.runs import Runs, where
from inference.estimators.score import NVIL, RLOO, PublishedNVIL, Reinforce, Score
from inference.estimators.sites import (
    Method,
    Place,
    alternatives,
    is_discrete,
    key,
    plain,
    unmasked,
)
from inference.estimators.wake import RWS, DefensiveRWS, SleepingRWS
from inference.objectives import Objective, Term, lookup, per_image
from inference.settings import choose

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
            ValueError: a discrete site has no method, or one that cannot be used there; a pattern matches
                none; enumerate beside score methods, or over too many values; program and guide differ in
                their sites, or leave the plate ``batch``; something reads a site that does not exist.
        """
        seen = check(program, guide, images)
        trace = poutine.trace(guide).get_trace(images)
        found = {name: where(name, trace) for name, s in trace.nodes.items() if is_discrete(s)}
        used = {name: self._prepare(place, images) for name, place in found.items()}
        for pattern, method in self.by_pattern.items():
            if pattern != "*" and method not in used.values():
                names = ", ".join(found) or "none"
                raise ValueError(f"pattern {pattern!r} matches no discrete site; there are {names}")
        scored = [name for name, method in used.items() if isinstance(method, Score)]
        self._check_enumerated(scored)
        if scored:
            check_absent(program, guide, images, scored)
        warn_of_unseen(scored, seen.origins, "their scores take the whole cost as their signal")

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
            known = ", ".join(self.by_pattern)
            raise ValueError(
                f"no estimator for the discrete site {place.name!r}; patterns are {known}"
            )
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
        trace, terms = run(x, self.values(copies * len(images)), self.states)
        weight = self.weight(trace, len(x)) / copies
        losses = {n: self._loss(term, weight, len(images)) for n, term in terms.items()}
        surrogate = sum(losses.values())
        scored = [n for n, node in trace.nodes.items() if is_discrete(node) and self.scores(n)]
        if scored:
            self.follow(run, images, terms.keys())
        everything = unseen(scored, self.origins)
        for name in scored:
            below = [t for t in terms if name in everything or name in self.origins.get(t, (name,))]
            site = run.see(name, trace, terms, below, x)
            extra = lookup(self.by_pattern, name).surrogate(site) * site.exists
            surrogate = surrogate + extra.sum() / copies
        return surrogate, {name: loss.detach() for name, loss in losses.items()}

    @staticmethod
    def _loss(term: Term, weight: Tensor, images: int) -> Tensor:
        """A term of a batch; one that is of all images counts once, whatever runs of them there are."""
        if term.shared:
            return term.cost.sum() * (weight.sum() / images)
        return (weight * per_image(term)).sum()

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


ESTIMATORS: dict[str, type[Method | Whole]] = {
    "gumbel": Gumbel,
    "gumbel_st": GumbelST,
    "gumbel_rao": GumbelRao,
    "gapped_st": GappedST,
    "reinmax": ReinMax,
    "mean": Mean,
    "competition": Competition,
    "reinforce": Reinforce,
    "nvil": NVIL,
    "nvil_published": PublishedNVIL,
    "rloo": RLOO,
    "relax": RELAX,
    "muprop": MuProp,
    "rebar": REBAR,
    "disarm": DisARM,
    "arms": ARMS,
    "unordered": Unordered,
    "expect": Expect,
    "enumerate": Enumerate,
    "tracegraph": TraceGraph,
    "vimco": VIMCO,
    "rws": RWS,
    "rws_sleep": SleepingRWS,
    "rws_defensive": DefensiveRWS,
}


def estimator(text: str) -> nn.Module:
    """From ``nvil``, ``rloo:8`` or ``z_pres*=nvil,z_cat*=gumbel``.

    >>> {name: type(m).__name__ for name, m in estimator("z_pres*=rloo:8,z_cat*=gumbel").by_pattern.items()}
    {'z_pres*': 'RLOO', 'z_cat*': 'Gumbel'}

    Raises:
        ValueError: an unknown name, a bad number, a bound among other methods, two methods for one pattern.
    """
    pairs = [part.rpartition("=") for part in text.split(",")]
    patterns = [pattern.strip() or "*" for pattern, _, _ in pairs]
    if len({*patterns}) < len(patterns):
        raise ValueError(
            f"--estimator {text!r} has several methods for the same sites: give one, or one a pattern as in "
            "'z_pres*=nvil,z_cat*=gumbel'"
        )
    methods = {p: _method(name.strip()) for p, (_, _, name) in zip(patterns, pairs, strict=True)}
    numbers = {m.copies for m in methods.values() if isinstance(m, RLOO)}
    if len(numbers) > 1:
        raise ValueError(
            f"--estimator {text!r}: an image has the same number of copies at all sites, here {numbers}"
        )
    wholes = [m for m in methods.values() if isinstance(m, Whole)]
    if wholes and (len(methods) > 1 or "*" not in methods):
        alone = ", ".join(name for name, m in ESTIMATORS.items() if issubclass(m, Whole))
        raise ValueError(f"--estimator {text!r}: {alone} are for all sites, give one alone")
    return wholes[0] if wholes else Estimator(methods)


def _method(text: str) -> Method | Whole:
    name, colon, number = text.partition(":")
    make = choose(ESTIMATORS, name, "estimator")
    if not colon:
        return make()
    if not make.takes:
        names = [name for name, m in ESTIMATORS.items() if m.takes]
        raise ValueError(
            f"--estimator {text!r}: only {', '.join(names[:-1])} and {names[-1]} take a number, as in rloo:8"
        )
    if not number.isdigit():
        raise ValueError(f"--estimator {text!r}: expected a number of {make.takes}, as in {name}:4")
    return make(int(number))
