"""What a method sees of a discrete site, and which terms depend on it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import pyro.distributions as dist
import torch
from pyro.infer.tracegraph_elbo import TrackNonReparam
from pyro.infer.util import MultiFrameTensor
from pyro.ops.provenance import get_provenance
from pyro.poutine import Trace
from torch import Tensor, nn

from inference.objectives import Term, is_plate


@dataclass(frozen=True)
class Site:
    """What a score method sees of a site."""

    name: str
    fn: dist.TorchDistribution
    """the guide's distribution, batch shape (K·B, *S)"""
    value: Tensor
    """(K·B, *S), or (K·B, *S, A) one-hot"""
    cost: Tensor
    """(K·B, *S) nats of the negative ELBO that depend on the value, without gradient"""
    images: Tensor
    """(K·B, C, H, W)"""
    rerun: Callable[[Tensor], Tensor]
    """values (P, K·B, *S) -> costs of the same shape: everything before the site stays as it is"""

    @property
    def log_prob(self) -> Tensor:
        """(K·B, *S) log q(value)."""
        return self.fn.log_prob(self.value)


class Method(nn.Module):
    """What is done at the sites that a pattern matches."""

    copies = 1
    """how often every image is run"""

    def prepare(self, name: str, fn: dist.TorchDistribution, images: Tensor) -> None:
        """Make what is learned for a site, or refuse it with a ValueError."""


def is_discrete(msg: dict) -> bool:
    """Whether a site is a latent that has no reparametrised sample."""
    latent = msg["type"] == "sample" and not msg["is_observed"]
    return latent and not is_plate(msg) and not msg["fn"].has_rsample


def alternatives(name: str, fn: dist.TorchDistribution) -> int:
    """Number of values of one choice.

    Raises:
        ValueError: the site is neither Bernoulli nor one-hot categorical.
    """
    base = fn.base_dist if isinstance(fn, dist.Independent) else fn
    if isinstance(base, dist.Bernoulli):
        return 2
    if isinstance(base, dist.OneHotCategorical):
        return base.event_shape[-1]
    raise ValueError(
        f"site {name!r} is {type(fn).__name__}: give the logits of a Bernoulli or a OneHotCategorical, or "
        "choose --estimator nvil, rloo or reinforce"
    )


def plain(name: str, fn: dist.TorchDistribution, method: str) -> dist.TorchDistribution:
    """The distribution, whose choices must not be joined by `to_event`.

    Raises:
        ValueError: they are.
    """
    if isinstance(fn, dist.Independent):
        raise ValueError(
            f"site {name!r} joins its choices by to_event, {method} takes each by itself: put a plate in "
            "the place of to_event, or choose gumbel, nvil, rloo or reinforce"
        )
    return fn


def choice(fn: dist.TorchDistribution) -> Tensor:
    """(…, A) logits; those of a Bernoulli are (logit, 0)."""
    if fn.event_shape:
        return fn.logits
    return torch.stack([fn.logits, torch.zeros_like(fn.logits)], -1)


def conditional(logits: Tensor, chosen: Tensor) -> Tensor:
    """(…, A) logits plus Gumbel noise, given which is the largest (one-hot), up to a common shift."""
    log_p = logits.log_softmax(-1).clamp(min=-60)
    exponential = -torch.rand_like(logits).clamp(1e-6, 1 - 1e-6).log()
    least = (exponential * chosen).sum(-1, keepdim=True)
    return torch.where(chosen > 0.5, -least.log(), -(least + exponential * (-log_p).exp()).log())


def reachable(site: dict) -> Tensor:
    """1 where something depends on a draw, 0 below an absent node: no score there."""
    device, mask = site["value"].device, True if site["mask"] is None else site["mask"]
    scale, mask = (torch.as_tensor(t, device=device) for t in (site["scale"], mask))
    return ((scale != 0) & mask).to(torch.get_default_dtype())


def provenance(run: Callable[[], dict[str, Term]]) -> dict[str, frozenset[str]]:
    """Names of the discrete sites that every term of a run depends on (Wingate et al., 2011).

    Followed once and remembered: values that carry their origins make every operation slow.
    """
    devices = range(torch.cuda.device_count())
    with torch.no_grad(), torch.random.fork_rng(devices), TrackNonReparam():
        return {name: get_provenance(term.cost) for name, term in run().items()}


def downstream(site: dict, terms: Iterable[Term]) -> Tensor:
    """(K·B, *S) a site's share of terms that depend on it, elementwise where plates allow."""
    costs = MultiFrameTensor(*((term.frames, term.cost.detach()) for term in terms))
    total = torch.as_tensor(costs.sum_to(site["cond_indep_stack"]), device=site["value"].device)
    return total.expand(site["fn"].batch_shape)


def see(
    name: str, trace: Trace, terms: dict[str, Term], below: list[str], x: Tensor, run: Callable
) -> Site:
    """A site of a run, for its method; `below` are the terms that depend on it."""
    site, names = trace.nodes[name], list(trace.nodes)

    @torch.no_grad()
    def rerun(values: Tensor) -> Tensor:
        number, before = len(values), names[: names.index(name)]
        nodes = {n: trace.nodes[n] for n in before if trace.nodes[n]["type"] == "sample"}
        fixed = {
            n: node["value"].repeat(number, *[1] * (node["value"].ndim - 1))
            for n, node in nodes.items()
            if not is_plate(node)
        }
        again, costs = run(x.repeat(number, 1, 1, 1), {**fixed, name: values.flatten(0, 1)})
        cost = downstream(again.nodes[name], [costs[term] for term in below])
        return cost.unflatten(0, (number, -1))

    cost = downstream(site, [terms[term] for term in below])
    return Site(name, site["fn"], site["value"], cost, x, rerun)
