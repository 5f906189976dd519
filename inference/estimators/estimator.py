"""A method for every discrete site, the handlers that put it there, and estimators by name."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import pyro.distributions as dist
import torch
from pyro import poutine
from pyro.poutine import Trace
from torch import Tensor, nn
from torch.nn import functional as F

from inference.estimators.bounds import RWS, VIMCO, Bound
from inference.estimators.handlers import Choose, Fix, Relax
from inference.estimators.pathwise import Competition, Pathwise
from inference.estimators.relaxations import gumbel, gumbel_st, mean, reinmax
from inference.estimators.score import NVIL, RELAX, RLOO, DisARM, Score
from inference.estimators.sites import (
    Method,
    alternatives,
    is_discrete,
    plain,
    provenance,
    reachable,
    see,
)
from inference.objectives import Objective, Term, cost_terms, lookup, per_image
from inference.settings import choose

LIMIT = 4096
"""Largest number of joint values to enumerate."""


class Enumerate(Method):
    """Every value of the site, weighted by its probability."""

    def prepare(self, name: str, fn: dist.TorchDistribution, images: Tensor) -> None:
        """Refuse what is neither Bernoulli nor one-hot."""
        alternatives(name, plain(name, fn, "enumerate"))


class Estimator(nn.Module):
    """A method for every discrete site. `temperature` is a buffer that schedules write."""

    def __init__(self, methods: Mapping[str, Method]) -> None:
        super().__init__()
        self.methods = nn.ModuleDict(methods)
        self.register_buffer("temperature", torch.tensor(1.0))
        self.enumerated: dict[str, tuple[torch.Size, int, int]] = {}
        self.origins: dict[str, frozenset[str]] = {}

    def prepare(self, program: Callable, guide: Callable, images: Tensor) -> None:
        """Run the guide once to see its discrete sites.

        Raises:
            ValueError: a discrete site has no method, or one that cannot be used there; a pattern matches
                none; enumerate beside score methods, or over too many values.
        """
        sites = poutine.trace(guide).get_trace(images).nodes.items()
        found = {name: site["fn"] for name, site in sites if is_discrete(site)}
        used = [self._prepare(name, fn, images) for name, fn in found.items()]
        for pattern, method in self.methods.items():
            if pattern != "*" and method not in used:
                names = ", ".join(found) or "none"
                raise ValueError(f"pattern {pattern!r} matches no discrete site; there are {names}")
        if self.enumerated and any(isinstance(method, Score) for method in used):
            raise ValueError("enumerate can stand beside gumbel, gumbel_st and reinmax only")
        if self.states > LIMIT:
            many = self.states if self.states < 10**9 else f"10^{len(str(self.states)) - 1}"
            raise ValueError(
                f"{', '.join(self.enumerated)} have {many} joint values an image, and enumerate "
                f"takes at most {LIMIT}: enumerate fewer sites, or choose rloo"
            )

    def _prepare(self, name: str, fn: dist.TorchDistribution, images: Tensor) -> Method:
        method = lookup(self.methods, name)
        if method is None:
            known = ", ".join(self.methods)
            raise ValueError(f"no estimator for the discrete site {name!r}; patterns are {known}")
        method.prepare(name, fn, images)
        if isinstance(method, Enumerate):
            self.enumerated[name] = fn.batch_shape[1:], alternatives(name, fn), fn.event_dim
        return method

    @property
    def states(self) -> int:
        """Joint values of all enumerated sites of an image."""
        return math.prod(a ** shape.numel() for shape, a, _ in self.enumerated.values())

    def forward(
        self, program: Callable, guide: Callable, images: Tensor, objective: Objective
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """A surrogate whose gradient estimates the loss's, and the loss's terms (detached), in nats a batch."""
        copies = max(method.copies for method in self.methods.values())
        x = images.repeat(copies * self.states, 1, 1, 1)

        def run(x: Tensor, values: dict[str, Tensor]) -> tuple[Trace, dict[str, Term]]:
            with Choose(), Fix(values), Relax(self.methods, self.temperature):
                traces = objective.traces(program, guide, x)
            return traces[1], cost_terms(*traces)

        trace, terms = run(x, self.values(copies * len(images)))
        if terms.keys() != self.origins.keys():
            self.origins = provenance(lambda: run(images, {})[1])
        weight = self.weight(trace, len(x)) / copies
        losses = {name: (weight * per_image(term)).sum() for name, term in terms.items()}
        surrogate = sum(losses.values())
        for name, node in trace.nodes.items():
            method = lookup(self.methods, name) if is_discrete(node) else None
            if isinstance(method, Score):
                below = [term for term, sites in self.origins.items() if name in sites]
                extra = method.surrogate(see(name, trace, terms, below, x, run)) * reachable(node)
                surrogate = surrogate + extra.sum() / copies
        return surrogate, {name: loss.detach() for name, loss in losses.items()}

    def values(self, rows: int) -> dict[str, Tensor]:
        """All joint values of the enumerated sites, each for `rows` images: (states · rows, *S[, A])."""
        code, values = torch.arange(self.states, device=self.temperature.device), {}
        for name, (shape, number, event) in self.enumerated.items():
            powers = number ** torch.arange(shape.numel(), device=code.device)
            digits = (code[:, None] // powers) % number
            code = code // number ** shape.numel()
            value = F.one_hot(digits, number) if event else digits
            value = value.float().view(self.states, *shape, *value.shape[2:])
            values[name] = value.repeat_interleave(rows, 0)
        return values

    def weight(self, trace: Trace, rows: int) -> Tensor:
        """(rows) probability of the enumerated values, 1 where nothing is enumerated."""
        log_prob = torch.zeros(rows, device=self.temperature.device)
        for name in self.enumerated:
            site = trace.nodes[name]
            log_prob = log_prob + site["fn"].log_prob(site["value"]).view(rows, -1).sum(1)
        return log_prob.exp()


ESTIMATORS: dict[str, Callable[..., Method | Bound]] = {
    "gumbel": lambda: Pathwise(gumbel),
    "gumbel_st": lambda: Pathwise(gumbel_st),
    "reinmax": lambda: Pathwise(reinmax),
    "mean": lambda: Pathwise(mean),
    "competition": Competition,
    "reinforce": Score,
    "nvil": NVIL,
    "rloo": RLOO,
    "relax": RELAX,
    "disarm": DisARM,
    "enumerate": Enumerate,
    "vimco": VIMCO,
    "rws": RWS,
}


def estimator(text: str) -> nn.Module:
    """From ``nvil``, ``rloo:8`` or ``z_pres*=nvil,z_cat*=gumbel``.

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
    bounds = [m for m in methods.values() if isinstance(m, Bound)]
    if bounds and (len(methods) > 1 or "*" not in methods):
        raise ValueError(f"--estimator {text!r}: vimco and rws are for all sites, give one alone")
    return bounds[0] if bounds else Estimator(methods)


def _method(text: str) -> Method | Bound:
    name, colon, number = text.partition(":")
    make = choose(ESTIMATORS, name, "estimator")
    if not colon:
        return make()
    if name not in ("rloo", "vimco", "rws"):
        raise ValueError(
            f"--estimator {text!r}: only rloo, vimco and rws take a number of copies, as in rloo:8"
        )
    if not number.isdigit():
        raise ValueError(f"--estimator {text!r}: expected a number of copies, as in {name}:8")
    return make(int(number))
