"""What a method sees of a discrete site, and what it says of itself."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import pyro.distributions as dist
import torch
from torch import Tensor, nn

from inference.objectives import is_aside
from programs.blocks.distributions import elements


@dataclass(frozen=True)
class Place:
    """A discrete site of a guide, before anything is drawn for a gradient."""

    name: str
    fn: dist.TorchDistribution
    """the guide's distribution"""
    dim: int
    """where the plate ``batch`` lies among the batch dimensions, counted from the right: negative"""
    history: int
    """D, how many numbers an image has in all latents before the site"""

    def front(self, x: Tensor, event_dim: int = 0) -> Tensor:
        """The plate ``batch`` first, whatever its place: (…, B, …, *E) -> (B, *S, *E)."""
        return x.movedim(self.dim - event_dim, 0)

    def back(self, x: Tensor, event_dim: int = 0) -> Tensor:
        """The inverse of `front`."""
        return x.movedim(0, self.dim - event_dim)

    @property
    def shape(self) -> torch.Size:
        """S: the batch shape without the plate ``batch``."""
        shape = list(self.fn.batch_shape)
        del shape[self.dim]
        return torch.Size(shape)


@dataclass(frozen=True)
class Site(Place):
    """What a score method sees of a site. The plate ``batch`` comes first in every tensor."""

    value: Tensor
    """(K·B, *S), or (K·B, *S, A) one-hot"""
    exists: Tensor
    """(K·B, *S) 1 where something depends on the draw, 0 below an absent node"""
    cost: Tensor
    """(K·B, *S) nats of the negative ELBO that depend on the value, without gradient"""
    images: Tensor
    """(K·B, C, H, W)"""
    earlier: Tensor
    """(K·B, D) the values of all latents that were drawn before, for baselines"""
    slope: Tensor | None
    """(K·B, *S[, A]) the gradient of the whole cost by the value as it was drawn, for methods with `slopes`"""
    rerun: Callable[..., Tensor]
    """values (P, K·B, *S[, A]) -> costs (P, K·B, *S): everything before the site stays as it is; with
    ``shared=True`` all P have the same noise after it"""
    relaxed: Callable[[Tensor], tuple[Tensor, Tensor]]
    """relaxed values (P, K·B, *S[, A]) -> costs (P, K·B, *S) without gradient, and with one (P, K·B) the sum of
    all terms that depend on the site; discrete sites after it are at their means"""

    @property
    def log_prob(self) -> Tensor:
        """(K·B, *S) log q(value)."""
        return self.front(self.fn.log_prob(self.back(self.value, self.fn.event_dim)))

    @property
    def logits(self) -> Tensor:
        """(K·B, *S, A) unnormalised; those of a Bernoulli are (logit, 0)."""
        return self.front(choice(self.fn), 1)

    @property
    def chosen(self) -> Tensor:
        """(K·B, *S, A) one-hot; a Bernoulli's are (value, 1 - value)."""
        if self.fn.event_shape:
            return self.value
        return torch.stack([self.value, 1 - self.value], -1)

    def values(self, one_hot: Tensor) -> Tensor:
        """(…, A) one-hot as values of the site."""
        return one_hot if self.fn.event_shape else one_hot[..., 0]


class Method(nn.Module):
    """What is done at the sites that a pattern matches."""

    summary: ClassVar[str]
    """what it is, with its reference, in one line"""
    bias: ClassVar[str]
    """of its gradient of the negative ELBO"""
    runs: ClassVar[str]
    """how often an image is run a step"""
    takes: ClassVar[str] = ""
    """what a number after its name sets"""
    copies = 1
    """how often every image is run side by side"""
    slopes: ClassVar[bool] = False
    """whether it asks for the gradient by the values that were drawn"""

    def prepare(self, place: Place, images: Tensor) -> None:
        """Make what is learned for a site, or refuse it with a ValueError."""


def is_discrete(msg: dict) -> bool:
    """Whether a site is a latent that has no reparametrised sample."""
    latent = msg["type"] == "sample" and not msg["is_observed"]
    return latent and not is_aside(msg) and not msg["fn"].has_rsample


def is_choice(msg: dict) -> bool:
    """Whether a site is a Bernoulli or one-hot latent. A mixture of Gaussians, without `rsample`, is not."""
    return is_discrete(msg) and isinstance(
        elements(msg["fn"]), dist.Bernoulli | dist.OneHotCategorical
    )


def batch_dim(name: str, site: dict) -> int:
    """Where the plate ``batch`` lies, counted from the right: negative.

    Raises:
        ValueError: the site is outside of it, or it is subsampled.
    """
    frames = [frame for frame in site["cond_indep_stack"] if frame.name == "batch"]
    if not frames:
        raise ValueError(
            f"site {name!r} is outside the plate 'batch', so it has no value per image: open "
            "pyro.plate('batch', number, dim=...) around it"
        )
    if frames[0].full_size not in (None, frames[0].size):
        raise ValueError(
            f"the plate 'batch' around site {name!r} takes {frames[0].size} of {frames[0].full_size} images, "
            "but estimators run copies of a batch as they are given: open pyro.plate('batch', len(images))"
        )
    return frames[0].dim


def alternatives(name: str, fn: dist.TorchDistribution) -> int:
    """Number of values of one choice.

    Raises:
        ValueError: the site is neither Bernoulli nor one-hot categorical.
    """
    base = elements(fn)
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


def only_bernoulli(name: str, fn: dist.TorchDistribution, method: str) -> None:
    """Refuse what is no Bernoulli.

    Raises:
        ValueError: it is not.
    """
    if not isinstance(plain(name, fn, method), dist.Bernoulli):
        alternatives(name, fn)
        raise ValueError(
            f"site {name!r} is {type(fn).__name__}: {method} is for Bernoulli sites, choose rloo or relax"
        )


def choice(fn: dist.TorchDistribution) -> Tensor:
    """(…, A) logits; those of a Bernoulli are (logit, 0)."""
    if fn.event_shape:
        return fn.logits
    return torch.stack([fn.logits, torch.zeros_like(fn.logits)], -1)


def reachable(site: dict) -> Tensor:
    """1 where something depends on a draw, 0 below an absent node: no score there.

    Only `programs.blocks.distributions.gate` says what is absent. A scale of 0 may be a KL weight, and a mask
    may take a site out of the bound whose value the program goes on to use.
    """
    exists = site["infer"].get("exists")
    if exists is None:
        exists = torch.ones((), device=site["value"].device)
    return (exists != 0).to(torch.get_default_dtype()).expand(site["fn"].batch_shape)


def key(name: str) -> str:
    """A site's name or pattern as torch lets modules be named."""
    name = name.replace("%", "%25").replace(".", "%2E")
    return f"%{name}" if hasattr(nn.ModuleDict, name) or hasattr(nn.ModuleDict(), name) else name
