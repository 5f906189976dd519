"""What a program and its guide must keep to, seen before the first step."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping
from fnmatch import fnmatchcase
from typing import NamedTuple

import pyro.distributions as dist
import torch
from pyro.poutine import Trace
from torch import Tensor

from inference.estimators.handlers import Choose, Fix
from inference.estimators.origins import Origins, apart, provenance
from inference.estimators.passes import latents_of, plates
from inference.estimators.sites import batch_dim, is_discrete, reachable
from inference.objectives import (
    Objective,
    Term,
    check_match,
    cost_terms,
    in_common,
    is_aside,
)
from programs.blocks.distributions import elements

Terms = Mapping[str, Term]
NOTHING_DISCRETE = (
    "no latent is discrete, and the method is for discrete latents: leave it out (samples of continuous ones "
    "are reparametrised), or choose an estimator for all latents: tracegraph, vimco, vimco_dreg, iwae, dreg, "
    "rws, rws_dreg, rws_sleep or sleep"
)
"""What a method is refused with where it has no site to act on."""


class Seen(NamedTuple):
    """What a first run of program and guide shows."""

    discrete: list[str]
    """names of discrete sites"""
    shared: list[str]
    """names of latents that are of all images"""
    origins: Origins
    """the discrete sites that every term of the plain ELBO depends on"""


def check(program: Callable, guide: Callable, images: Tensor) -> Seen:
    """See that program and guide fit each other and the plate ``batch``.

    Raises:
        ValueError: they do not; one sentence says what does not.
    """
    discrete: list[str] = []
    shared: list[str] = []

    def run() -> dict[str, Term]:
        traces = Objective().traces(program, guide, images)
        check_match(*traces)
        for trace in traces:
            for name, site in trace.nodes.items():
                if site["type"] == "sample" and not is_aside(site):
                    _check_dimensions(name, site)
                    _check_place(name, site)
        latents = [(n, s) for n, s in traces[1].nodes.items() if s["type"] == "sample"]
        latents = [(name, site) for name, site in latents if not is_aside(site)]
        discrete.extend(name for name, site in latents if is_discrete(site))
        shared.extend(name for name, site in latents if in_common(site["cond_indep_stack"]))
        return cost_terms(*traces)

    with apart(program, guide):
        origins = provenance(run)
        return Seen(discrete, shared, origins)


def _check_dimensions(name: str, site: dict) -> None:
    """Every dimension of a site's batch shape is a plate's, or 1.

    Raises:
        ValueError: one is not.
    """
    plates = {frame.dim for frame in site["cond_indep_stack"]}
    shape = site["fn"].batch_shape
    if loose := [d for d in range(-len(shape), 0) if shape[d] != 1 and d not in plates]:
        raise ValueError(
            f"site {name!r} has batch shape {tuple(shape)}, whose dimension {loose[0]} is of no plate: "
            "write .to_event(n) so that n takes it in, or put the site in a plate of that dimension"
        )


def _check_place(name: str, site: dict) -> None:
    """A discrete or observed site has its place in the plate ``batch``; other latents may be of all images.

    Raises:
        ValueError: it has none, or the plate is subsampled.
    """
    if is_discrete(site) or site["is_observed"] or not in_common(site["cond_indep_stack"]):
        batch_dim(name, site)


def idle(pattern: str, discrete: Collection[str], latents: Collection[str]) -> str:
    """Why a pattern is left with no discrete site, of some latents of which these are discrete."""
    names = [name for name in latents if fnmatchcase(name, pattern)]
    if any(name in discrete for name in names):
        return f"pattern {pattern!r} comes after others that match all of its sites: put it first"
    if names:
        return (
            f"pattern {pattern!r} matches no discrete site: {', '.join(names)} are continuous, and "
            f"reparametrised; discrete are {', '.join(discrete)}"
        )
    return f"pattern {pattern!r} matches no discrete site; there are {', '.join(discrete)}"


def unmatched(name: str, patterns: Collection[str]) -> str:
    """Why a discrete site has no method, and what gives it one."""
    if not patterns:
        return f"no estimator for the discrete site {name!r}: give one as in iwae:4+nvil"
    return (
        f"no estimator for the discrete site {name!r}; patterns are {', '.join(patterns)}: add "
        f"{re.sub(r'(_[0-9]+)+$', '*', name)}=nvil to --estimator"
    )


def check_absent(
    program: Callable, guide: Callable, images: Tensor, sites: Collection[str]
) -> None:
    """See that no term reads a site where it does not exist: no score is taken there.

    All Bernoullis are set to 0, then the sites that do not exist are given other values. A program that makes
    noise of its own cannot be told from one that reads them, and passes.

    Raises:
        ValueError: a term does; the message names the site.
    """
    if images.is_meta:
        return  # there are no values to compare
    with torch.no_grad(), apart(program, guide):
        guilty = read_where_absent(program, guide, images, sites)
    if guilty:
        raise ValueError(
            f"something reads {', '.join(guilty)} where it does not exist, by the gate around it: multiply it "
            "by its presence where it is used, or put what depends on it in the gate too"
        )


def read_where_absent(
    program: Callable, guide: Callable, images: Tensor, sites: Collection[str]
) -> list[str]:
    """Those of some sites on which a term depends where they do not exist."""

    def run(values: Mapping[str, Tensor]) -> tuple[Trace, Terms]:
        with Choose(), Fix(values):
            traces = Objective().traces(program, guide, images)
        return traces[1], cost_terms(*traces)

    nodes = run({})[0].nodes
    gated = [name for name in sites if "exists" in nodes[name]["infer"]]
    if not gated:
        return []
    bits = [
        name for name, node in nodes.items() if is_discrete(node) and kind(node) is dist.Bernoulli
    ]
    trace = run({name: torch.zeros_like(nodes[name]["value"]) for name in bits})[0]
    still = plates(trace) | {name: trace.nodes[name]["value"] for name in latents_of(trace)}
    other = {name: changed(trace.nodes[name]) for name in gated}
    costs, again = run(still)[1], run(still)[1]
    if not alike(costs, again) or alike(costs, run(still | other)[1]):
        return []
    return [n for n in gated if not alike(costs, run(still | {n: other[n]})[1])] or gated


def kind(node: dict) -> type[dist.TorchDistribution]:
    """The family of a site's elements."""
    return type(elements(node["fn"]))


def changed(node: dict) -> Tensor:
    """A site's value, and another where it does not exist; the same if it is no Bernoulli or one-hot."""
    value, family = node["value"], kind(node)
    if family not in (dist.Bernoulli, dist.OneHotCategorical):
        return value
    absent = reachable(node) == 0
    other = 1 - value if family is dist.Bernoulli else value.roll(1, -1)
    return torch.where(absent.view(*absent.shape, *[1] * node["fn"].event_dim), other, value)


def alike(one: Terms, two: Terms) -> bool:
    """Whether all terms of two runs agree, up to rounding."""
    pairs = [(term.cost, two[name].cost) for name, term in one.items() if name in two]
    return all(
        torch.allclose(a, b, rtol=1e-4, atol=1e-4 * float(a.abs().max()) + 1e-6) for a, b in pairs
    )
