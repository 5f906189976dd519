"""The weighted terms of the negative ELBO, with auxiliary KLs and penalties, as effect handlers."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from itertools import zip_longest
from typing import Any, NamedTuple

import pyro
import pyro.distributions as dist
from pyro import poutine
from pyro.distributions.util import scale_and_mask
from pyro.poutine import Trace
from pyro.poutine.indep_messenger import CondIndepStackFrame
from pyro.poutine.messenger import Messenger
from pyro.poutine.subsample_messenger import _Subsample
from torch import Tensor
from torch.distributions import kl_divergence

from inference.objectives.penalties import Penalty
from inference.objectives.priors import Prior
from inference.objectives.unrecorded import unrecorded
from programs.blocks.distributions import elements
from programs.scene import Scene


def is_plate(site: Mapping[str, Any]) -> bool:
    """Whether a site of a trace holds a plate's subsample indices, which Pyro records as a sample."""
    return isinstance(site["fn"], _Subsample)


def is_aside(site: Mapping[str, Any]) -> bool:
    """Whether a sample is no part of the density: a plate's indices, or what `pyro.deterministic` records."""
    return is_plate(site) or bool(site["infer"].get("_deterministic"))


def lookup(table: Mapping[str, Any], name: str) -> Any:
    """The entry of the first pattern that matches a site's name, or None."""
    return next((value for pattern, value in table.items() if fnmatchcase(name, pattern)), None)


class Weigh(Messenger):
    """Multiply the log-densities of matching sites by a weight."""

    def __init__(self, weights: Mapping[str, float | Tensor]) -> None:
        super().__init__()
        self.weights = weights

    def _pyro_sample(self, msg: dict) -> None:
        weight = lookup(self.weights, msg["name"])
        if weight is not None:
            msg["scale"] = msg["scale"] * weight


class AuxiliaryKL(Messenger):
    """Around the replayed program, add the factor -KL(q ‖ r) beside every site that has a prior r."""

    def __init__(self, priors: Mapping[str, Prior], guide_trace: Trace) -> None:
        super().__init__()
        self.priors, self.guide_trace = priors, guide_trace

    def _pyro_post_sample(self, msg: dict) -> None:
        prior = lookup(self.priors, msg["name"])
        if prior is not None and not msg["is_observed"]:
            q = self.guide_trace.nodes[msg["name"]]["fn"]
            pyro.factor(f"aux/{msg['name']}", -prior.kl(q))


class Batch(Messenger):
    """Find the plate ``batch``; or, given its frame, put all samples inside into it."""

    def __init__(self, frame: CondIndepStackFrame | None = None) -> None:
        super().__init__()
        self.frame, self.known = frame, frame is not None

    def _pyro_sample(self, msg: dict) -> None:
        if self.known:
            msg["cond_indep_stack"] = (self.frame, *msg["cond_indep_stack"])
        else:
            found = [frame for frame in msg["cond_indep_stack"] if frame.name == "batch"]
            self.frame = found[0] if found else self.frame


def penalised(program: Callable, penalties: Mapping[str, Penalty]) -> Callable:
    """The program, with a factor for every penalty on the Scene that it returns.

    Raises:
        ValueError: at run time, if it returns no Scene, has no plate ``batch``, or a penalty is not
            (B,).
    """

    def run(*args: Any) -> Scene:
        with Batch() as batch:
            scene = program(*args)
        if not isinstance(scene, Scene) or batch.frame is None:
            raise ValueError(
                f"penalties {', '.join(penalties)} need a program with a plate 'batch' that returns a Scene, "
                f"not a {type(scene).__name__}: --set train.penalties={{}} trains this one without"
            )
        for name, penalty in penalties.items():
            cost = penalty(scene, args[0])
            if cost.shape != (len(scene),):
                raise ValueError(
                    f"penalty {name!r} has shape {tuple(cost.shape)}: expected ({len(scene)},), "
                    "one number per image"
                )
            with Batch(batch.frame):
                pyro.factor(f"penalty/{name}", -cost.view(-1, *[1] * (-1 - batch.frame.dim)))
        return scene

    return run


@dataclass(frozen=True)
class Objective:
    """KL weights and auxiliary priors by site-name pattern, penalties by name; numbers may be 0-d tensors."""

    weights: Mapping[str, float | Tensor] = field(default_factory=dict)
    auxiliary: Mapping[str, Prior] = field(default_factory=dict)
    penalties: Mapping[str, Penalty] = field(default_factory=dict)

    def traces(self, program: Callable, guide: Callable, *args: Any) -> tuple[Trace, Trace]:
        """Run the guide, replay the program against it. Returns (program trace, guide trace)."""
        with ExitStack() as stack:
            if self.weights:
                stack.enter_context(Weigh(self.weights))
            guide_trace = poutine.trace(unrecorded(guide)).get_trace(*args)
            if self.auxiliary:
                stack.enter_context(AuxiliaryKL(self.auxiliary, guide_trace))
            replayed = poutine.replay(unrecorded(program), trace=guide_trace)
            if self.penalties:
                replayed = penalised(replayed, self.penalties)
            program_trace = poutine.trace(replayed).get_trace(*args)
        return program_trace, guide_trace


class Term(NamedTuple):
    """One term of the negative ELBO, elementwise."""

    name: str
    frames: tuple[CondIndepStackFrame, ...]
    """the plates around the term"""
    cost: Tensor
    """nats, one dimension per plate"""

    @property
    def shared(self) -> bool:
        """Whether it is of all images, not of each."""
        return in_common(self.frames)


def in_common(frames: tuple[CondIndepStackFrame, ...]) -> bool:
    """Whether a site in these plates is one for all images: outside of the plate ``batch``."""
    return all(frame.name != "batch" for frame in frames)


def cost_terms(program_trace: Trace, guide_trace: Trace) -> dict[str, Term]:
    """The terms of the negative ELBO by site.

    Latent sites give ``kl/SITE``: in closed form if torch has one, else from the one drawn sample.
    ``aux/SITE`` are auxiliary KLs, ``penalty/NAME`` penalties, and any other observed site gives
    its negative log-likelihood under its own name. A KL in closed form is right only if program and
    guide condition their sites on the same sites; `tests/test_contract.py` checks this.
    """
    terms = {}
    for name, site in program_trace.nodes.items():
        if site["type"] != "sample" or is_aside(site):
            continue
        if site["is_observed"]:
            cost = -site["fn"].log_prob(site["value"])
        else:
            name, site, prior = f"kl/{name}", guide_trace.nodes[name], site["fn"]
            cost = _kl(site, prior)
        cost = scale_and_mask(cost, site["scale"], site["mask"])
        terms[name] = Term(name, site["cond_indep_stack"], cost)
    for name, site in guide_trace.nodes.items():
        if is_auxiliary(site):
            cost = scale_and_mask(site["fn"].log_prob(site["value"]), site["scale"], site["mask"])
            terms[f"kl/{name}"] = Term(f"kl/{name}", site["cond_indep_stack"], cost)
    return terms


def is_auxiliary(site: Mapping[str, Any]) -> bool:
    """Whether a site is a guide's alone, of which its latents are functions, as Pyro's AutoGuides have them."""
    return site["type"] == "sample" and bool(site["infer"].get("is_auxiliary"))


def _kl(site: dict, prior: dist.TorchDistribution) -> Tensor:
    # the density of a Delta is read below; torch's closed form leaves it out
    if not isinstance(elements(site["fn"]), dist.Delta):
        with suppress(NotImplementedError):
            return kl_divergence(site["fn"], prior)
    return site["fn"].log_prob(site["value"]) - prior.log_prob(site["value"])


def per_image(term: Term, images: int | None = None) -> Tensor:
    """(B,) a term summed over all dimensions but the plate ``batch``.

    Args:
        images: B, of which each has an equal share of a term outside that plate; None to refuse such a term.
    Raises:
        ValueError: the term lies outside that plate.
    """
    dims = [frame.dim for frame in term.frames if frame.name == "batch"]
    if not dims and images is not None:
        return (term.cost.sum() / images).expand(images)
    if not dims:
        raise ValueError(
            f"site {term.name!r} is outside the plate 'batch', so it has no value per image: open "
            "pyro.plate('batch', number, dim=...) around it"
        )
    cost = term.cost.movedim(dims[0], 0)
    return cost.reshape(len(cost), -1).sum(1)


def check_match(program_trace: Trace, guide_trace: Trace) -> None:
    """Check that program and guide have the same latent sites, with the same shapes, in the same order.

    Raises:
        ValueError: they do not; the message names the first site that differs.
    """
    mine, other = (
        [
            (n, tuple(t.nodes[n]["value"].shape))
            for n in t.stochastic_nodes
            if not is_aside(t.nodes[n]) and not is_auxiliary(t.nodes[n])
        ]
        for t in (program_trace, guide_trace)
    )
    named = {name for name, _ in other}
    for name, _ in mine:
        if name not in named and not program_trace.nodes[name]["fn"].has_rsample:
            raise ValueError(
                f"the guide has no site {name!r}, which is discrete: what Pyro sums out of the program "
                "(enumeration) is sampled by the guide here, such as OneHotCategorical(logits=net(images)), "
                "and --estimator enumerate sums over it"
            )
    for a, b in zip_longest(mine, other):
        if a != b:
            raise ValueError(
                f"program and guide must sample the same sites in the same order: the program has "
                f"{a and f'{a[0]} of shape {a[1]}'}, the guide {b and f'{b[0]} of shape {b[1]}'}"
            )


def log_prob_per_image(
    trace: Trace, names: Collection[str] | None = None, images: int | None = None
) -> Tensor:
    """(B,) log-probability of a trace, or of its sites of these names, summed over all but the plate ``batch``.

    Args:
        images: as in `per_image`.
    Raises:
        ValueError: a site lies outside that plate.
    """
    trace.compute_log_prob(lambda _, site: not is_aside(site))
    sites = [(n, s) for n, s in trace.nodes.items() if s["type"] == "sample"]
    sites = [(n, s) for n, s in sites if not is_aside(s)]
    chosen = [(n, s) for n, s in sites if names is None or n in names]
    terms = (Term(n, s["cond_indep_stack"], s["log_prob"]) for n, s in chosen)
    return sum(per_image(term, images) for term in terms)
