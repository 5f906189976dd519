"""The guide's draws at the sites of learned priors, and the arguments with which each prior is called.

The program runs on draws of the guide, up to the last of these sites. The sites that use a prior
are found by differentiating log-densities with respect to its parameters: only the densities of its
own sites have a gradient there. If one of them is the observed image of a flow (`flows.Quantised`), the
prior is the flow's base, and its draws are the latents that the flow makes of the images.

Shape legend: M draws of a site, plates included; each draw of an image counts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

import torch
from pyro import poutine
from pyro.distributions.util import scale_and_mask
from pyro.poutine import Trace
from pyro.poutine.messenger import Messenger
from torch import Tensor, nn
from tqdm import tqdm

from inference.estimators.sites import batch_dim
from inference.objectives import is_aside, log_prob_per_image
from programs.blocks.flows import Quantised
from programs.blocks.priors import Learned

PASS = 100
"""Images per pass of the guide."""


@dataclass
class Draws:
    """The guide's draws of the sites of one prior."""

    sites: tuple[str, ...]
    values: Tensor
    """(M, D), or (M,)"""
    weights: Tensor
    """(M,) weight of each draw in the bound"""
    given: Tensor | None
    """(M, ·) the argument of the prior's call, or None"""
    image: Tensor
    """(M,) index of each draw's image"""

    def rows(self, chosen: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
        """Values, weights and arguments of the chosen draws."""
        given = None if self.given is None else self.given[chosen]
        return self.values[chosen], self.weights[chosen], given


class Enough(Exception):
    """Raised when all wanted sites have been sampled."""


class Until(Messenger):
    """Stop the program after the last of the given sites, so that no image is drawn.

    Raises:
        Enough: when that site is sampled.
    """

    def __init__(self, sites: set[str]) -> None:
        super().__init__()
        self.left = set(sites)

    def _pyro_post_sample(self, msg: dict) -> None:
        self.left.discard(msg["name"])
        if not self.left:
            raise Enough


def priors(program: nn.Module) -> list[Learned]:
    """The learned priors of a program."""
    return [m for m in program.modules() if isinstance(m, Learned)]


@contextmanager
def only(program: nn.Module) -> Iterator[None]:
    """Inside, only the learned priors have gradients."""
    chosen = {id(p) for m in priors(program) for p in m.parameters()}
    before = [(p, p.requires_grad) for p in program.parameters()]
    for p, _ in before:
        p.requires_grad_(id(p) in chosen)
    try:
        yield
    finally:
        for p, needed in before:
            p.requires_grad_(needed)


def sites_of(program: nn.Module, guide: Callable, images: Tensor) -> dict[Learned, list[str]]:
    """The latent sites of each learned prior: those whose log-density has a gradient in its parameters.

    Raises:
        ValueError: a prior belongs to no latent site.
    """
    with torch.no_grad():
        drawn = poutine.trace(guide).get_trace(images)
    with torch.enable_grad(), only(program):
        nodes = poutine.trace(poutine.replay(program, trace=drawn)).get_trace(images).nodes
        found: dict[Learned, list[str]] = {prior: [] for prior in priors(program)}
        for name, site in nodes.items():
            if site["type"] != "sample" or is_aside(site) or not has_latents(site):
                continue
            density = site["fn"].log_prob(site["value"]).sum()
            for prior in found:
                if density.requires_grad and touches(density, prior):
                    found[prior].append(name)
    for prior, names in found.items():
        if not names:
            raise ValueError(f"a {type(prior).__name__} of the program is the prior of no latent")
        observed = [name for name in names if nodes[name]["is_observed"]]
        found[prior] = (
            observed or names
        )  # what depends on a flow's latents has no draws of its base
    return found


def has_latents(site: dict[str, Any]) -> bool:
    """Whether a site is latent, or observed and made of latents by a flow."""
    return not site["is_observed"] or isinstance(site["fn"], Quantised)


def touches(density: Tensor, prior: nn.Module) -> bool:
    """Whether a density depends on a module's parameters."""
    parameters = list(prior.parameters())
    grads = torch.autograd.grad(density, parameters, allow_unused=True, retain_graph=True)
    return any(g is not None for g in grads)


@torch.no_grad()
def cached(
    program: nn.Module,
    guide: Callable,
    images: Tensor,
    draws: int,
    progress: bool = False,
    drawn: Callable[[Tensor], Trace] | None = None,
) -> dict[Learned, Draws]:
    """Draws of the guide for each learned prior: one draw of all images, then the next.

    Args:
        images: (B, C, H, W) in [0, 1], or bytes.
        drawn: from images to a trace of the guide, such as `resampled`; the guide's own if not given.
    Raises:
        ValueError: a prior belongs to no latent site, or is not called once per site.
    """
    drawn = drawn or poutine.trace(guide).get_trace
    found = sites_of(program, guide, floats(images[:2]))
    wanted = {name for names in found.values() for name in names}
    parts: dict[Learned, list[Draws]] = {prior: [] for prior in found}
    numbers = torch.arange(len(images)).repeat(draws).split(PASS)
    for index in tqdm(
        numbers, "draws of the guide", disable=None if progress else True, leave=False
    ):
        x = floats(images[index])
        trace = drawn(x)
        with calls(found) as given, poutine.trace() as tracer, suppress(Enough), Until(wanted):
            poutine.replay(program, trace=trace)(x)
        for prior, names in found.items():
            if len(given[prior]) != len(names):
                raise ValueError(
                    f"{type(prior).__name__} of {', '.join(names)} is called {len(given[prior])} times: "
                    "expected one call per site"
                )
            parts[prior] += [
                draws_of(tracer.trace, name, call, index)
                for name, call in zip(names, given[prior], strict=True)
            ]
    return {prior: joined(tuple(found[prior]), of) for prior, of in parts.items()}


@torch.no_grad()
def resampled(program: Callable, guide: Callable, images: Tensor, number: int) -> Trace:
    """One of `number` draws of the guide per image, with probabilities in proportion to p(x, z) / q(z | x).

    Such draws are nearer to the posterior than the guide's own (sampling importance resampling; Rubin, 1988).

    Args:
        images: (B, C, H, W) in [0, 1].
    Returns:
        A trace of the guide with the chosen values. Its distributions are those of the first draws.
    """
    kept, total = weighed(program, guide, images)
    for _ in range(number - 1):
        other, weight = weighed(program, guide, images)
        total = torch.logaddexp(total, weight)
        taken = torch.rand_like(weight).log() < weight - total
        for name, site in kept.nodes.items():
            if site["type"] == "sample" and not is_aside(site):
                site["value"] = chosen(taken, name, other.nodes[name], site["value"])
    return kept


def weighed(program: Callable, guide: Callable, images: Tensor) -> tuple[Trace, Tensor]:
    """A trace of the guide, and log p(x, z) - log q(z | x), (B,) in nats."""
    q = poutine.trace(guide).get_trace(images)
    p = poutine.trace(poutine.replay(program, trace=q)).get_trace(images)
    return q, log_prob_per_image(p) - log_prob_per_image(q)


def chosen(taken: Tensor, name: str, site: dict[str, Any], other: Tensor) -> Tensor:
    """The value of a site for the images that `taken` (B,) names, and `other` for the rest."""
    right = site["fn"].event_dim - batch_dim(name, site) - 1  # dimensions after the images'
    return torch.where(taken.view(-1, *[1] * right), site["value"], other)


def floats(images: Tensor) -> Tensor:
    """Images (B, C, H, W) as floats in [0, 1]; bytes are divided by 255."""
    images = torch.as_tensor(images)
    return images.float() / 255 if images.dtype == torch.uint8 else images


@contextmanager
def calls(found: dict[Learned, list[str]]) -> Iterator[dict[Learned, list[Tensor | None]]]:
    """Inside, remember the argument of every call of the priors."""
    given: dict[Learned, list[Tensor | None]] = {prior: [] for prior in found}
    hook = lambda prior, args: given[prior].append(args[0] if args else None)  # noqa: E731
    handles = [prior.register_forward_pre_hook(hook) for prior in found]
    try:
        yield given
    finally:
        for handle in handles:
            handle.remove()


def draws_of(trace: Trace, name: str, given: Tensor | None, index: Tensor) -> Draws:
    """One site's draws of the images `index`, its plates flattened."""
    site = trace.nodes[name]
    shape, event = site["fn"].batch_shape, site["fn"].event_shape
    dims = [frame.dim for frame in site["cond_indep_stack"] if frame.name == "batch"]
    if not dims:
        raise ValueError(f"site {name!r} is outside the plate 'batch'")
    weights = scale_and_mask(site["value"].new_ones(shape), site["scale"], site["mask"])
    image = index.view(-1, *[1] * (-1 - dims[0])).expand(shape)
    if site["is_observed"]:
        values = site["fn"].latents(site["value"]).reshape(shape.numel(), -1)
    else:
        values = site["value"].expand(shape + event).reshape(-1, *event)
    if given is not None:
        given = given.expand(*shape, given.shape[-1]).reshape(-1, given.shape[-1])
    return Draws((name,), values, weights.reshape(-1), given, image.reshape(-1))


def joined(sites: tuple[str, ...], parts: list[Draws]) -> Draws:
    """The draws of all sites of a prior, without those of weight zero."""
    counted = [part.weights > 0 for part in parts]
    rows = [part.rows(own) for part, own in zip(parts, counted, strict=True)]
    values, weights, given = zip(*rows, strict=True)
    image = [part.image[own] for part, own in zip(parts, counted, strict=True)]
    return Draws(
        sites,
        torch.cat(values),
        torch.cat(weights),
        None if given[0] is None else torch.cat(given),
        torch.cat(image),
    )
