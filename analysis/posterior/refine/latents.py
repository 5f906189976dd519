"""The latents of a program as tables with one row per chain and image, and handlers that give them values.

Every table has the rows first, whichever dimension the plate ``batch`` has: (R, *S, *E).

Shape legend: R rows, which are chains times images; S shape of a site's other plates; E of its event.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from pyro.distributions import (
    Bernoulli,
    Categorical,
    Delta,
    MixtureSameFamily,
    Normal,
    OneHotCategorical,
    TorchDistribution,
)
from pyro.poutine import Trace
from pyro.poutine.messenger import Messenger
from torch import Tensor
from torch.distributions import Transform, biject_to, constraints

from analysis.posterior.draws import latent_sites, shared_latents
from inference.estimators.sites import batch_dim
from inference.objectives import check_match, is_auxiliary
from programs.blocks.distributions import elements, inside

Values = dict[str, Tensor]
"""site -> (R, *S, *E)"""
Marks = dict[str, Tensor]
"""site -> (R, *S) bool"""


@dataclass(frozen=True)
class Latent:
    """A latent site of program and guide."""

    name: str
    dim: int
    """where the plate ``batch`` lies among the batch dimensions, counted from the right: negative"""
    event_dim: int
    choice: int
    """number of values of a discrete site that can be listed: 2 of a Bernoulli; 0 of other sites"""
    one_hot: bool
    transform: Transform | None
    """from unconstrained numbers to the site's support; None for real numbers, and for discrete sites"""
    moves: bool
    """whether it is continuous"""
    device: torch.device

    def front(self, x: Tensor) -> Tensor:
        """Rows first: (…, R, …, *E) -> (R, *S, *E)."""
        return x.movedim(self.dim - self.event_dim, 0)

    def back(self, x: Tensor) -> Tensor:
        """The inverse of `front`."""
        return x.movedim(0, self.dim - self.event_dim)

    def marks(self, site: Mapping) -> Tensor:
        """(R, *S) bool: the elements of a site that exist, as gates and masks have it."""
        exists = site["infer"].get("exists")
        if exists is None:
            exists = site["mask"]
        shape = site["fn"].batch_shape
        if not isinstance(exists, Tensor):
            whole = torch.ones(shape, dtype=torch.bool, device=self.device)
            return whole.movedim(self.dim, 0)
        return (exists > 0.5).expand(shape).movedim(self.dim, 0)

    def rows(self, x: Tensor) -> Tensor:
        """A number per row, (R,), so that it broadcasts against a batch shape as Pyro has it."""
        return x.view(-1, *[1] * (-1 - self.dim))


def latents_of(program: Trace, guide: Trace) -> dict[str, Latent]:
    """The latents in the guide's order.

    Raises:
        ValueError: program and guide differ, the guide has no density, or a latent is of all images.
    """
    check_match(program, guide)
    auxiliary = [n for n, site in guide.nodes.items() if is_auxiliary(site)]
    sites = latent_sites(guide)
    fixed = [n for n, s in sites.items() if isinstance(elements(s["fn"]), Delta)]
    if auxiliary or fixed:
        raise ValueError(
            f"the guide's {', '.join(auxiliary or fixed)} leave its latents without a density: refine "
            "moves values that a guide draws by pyro.sample, such as Normal or Bernoulli"
        )
    if shared := shared_latents(guide):
        raise ValueError(
            f"{', '.join(shared)} are of all images: refine moves what an image has for itself, inside "
            "the plate 'batch'"
        )
    return {name: _latent(name, site) for name, site in sites.items()}


def _latent(name: str, site: dict) -> Latent:
    fn, support = elements(site["fn"]), support_of(site["fn"])
    one_hot = isinstance(fn, OneHotCategorical)
    choice = 0
    if isinstance(fn, OneHotCategorical | Categorical):
        choice = fn.logits.shape[-1]
    elif isinstance(fn, Bernoulli):
        choice = 2
    transform = None if support.is_discrete else biject_to(support)
    real = transform is None or not _bends(transform)
    return Latent(
        name=name,
        dim=batch_dim(name, site),
        event_dim=site["fn"].event_dim,
        choice=choice if site["fn"].event_dim == int(one_hot) else 0,
        one_hot=one_hot,
        transform=None if real else transform,
        moves=not support.is_discrete,
        device=site["value"].device,
    )


def support_of(fn: torch.distributions.Distribution) -> constraints.Constraint:
    """Where a distribution has mass; of a mixture, where its components have it."""
    base = elements(fn)
    return (
        base.component_distribution.support if isinstance(base, MixtureSameFamily) else fn.support
    )


def _bends(transform: Transform) -> bool:
    """Whether a transform changes numbers."""
    inner = getattr(transform, "base_transform", transform)
    return not (isinstance(inner, torch.distributions.ComposeTransform) and not inner.parts)


def sum_rows(x: Tensor) -> Tensor:
    """(R,) sums over all dimensions but the first."""
    return x.reshape(len(x), -1).sum(1)


def choose(mine: Tensor, new: Mapping[str, Tensor], old: Mapping[str, Tensor]) -> Values:
    """The rows of one table where `mine` (R,) is true, else those of the other."""
    return {
        name: torch.where(mine.view(-1, *[1] * (new[name].ndim - 1)), new[name], value)
        for name, value in old.items()
    }


class Given(Messenger):
    """Latents take given values, and stay latents."""

    def __init__(self, latents: Mapping[str, Latent], values: Values) -> None:
        super().__init__()
        self.latents, self.values = latents, values

    def _pyro_sample(self, msg: dict) -> None:
        latent = self.latents.get(msg["name"])
        if latent is not None and not msg["is_observed"]:
            msg["value"], msg["done"] = latent.back(self.values[latent.name]), True


WIDTHS = (1.0, 3.0, 10.0)
"""Factors of the guide's standard deviations, and divisors of its logits, among which proposals choose. Guides
are too sure: with 1 alone no proposal reaches what the guide excludes."""


class _Enough(Exception):
    """All sites that are asked for have been drawn."""


class Propose(Messenger):
    """Around the guide: elements that newly exist are drawn, by a mixture of wider and narrower guides.

    Args:
        values: of every latent; elements that are kept, or do not exist, keep theirs.
        keep: elements that are not proposed.
        fresh: (R,) whether a row is drawn; other rows keep their values and are only scored.
        last: the site after which nothing more is asked for.
    """

    def __init__(
        self,
        latents: Mapping[str, Latent],
        values: Values,
        keep: Marks,
        fresh: Tensor,
        last: str | None = None,
    ) -> None:
        super().__init__()
        self.latents, self.keep, self.fresh, self.last = latents, keep, fresh, last
        self.values = dict(values)
        self.width = fresh.new_tensor(WIDTHS, dtype=torch.get_default_dtype())
        self.chosen = torch.randint(len(WIDTHS), fresh.shape, device=fresh.device)
        self.scores: list[Tensor] = [0.0 * self.width[self.chosen] for _ in WIDTHS]

    def _pyro_sample(self, msg: dict) -> None:
        latent = self.latents.get(msg["name"])
        if latent is None or msg["is_observed"]:
            return
        name = latent.name
        new = latent.marks(msg) & ~self.keep[name]
        if new.any():
            width = latent.rows(self.width[self.chosen])
            drawn = latent.front(widened(msg["fn"], width).sample())
            mine = new & self.fresh.view(-1, *[1] * (new.ndim - 1))
            mine = mine.view(*mine.shape, *[1] * latent.event_dim)
            self.values[name] = torch.where(mine, drawn, self.values[name])
            self.score(latent, msg, new)
        msg["value"], msg["done"] = latent.back(self.values[name]), True

    def score(self, latent: Latent, msg: dict, new: Tensor) -> None:
        """Add the log-densities of the new elements under the guide at each width."""
        value = latent.back(self.values[latent.name])
        for k, width in enumerate(WIDTHS):
            each = widened(msg["fn"], torch.as_tensor(width)).log_prob(value)
            each = each.expand(msg["fn"].batch_shape).movedim(latent.dim, 0)
            self.scores[k] = self.scores[k] + sum_rows(torch.where(new, each, 0.0))

    def _pyro_post_sample(self, msg: dict) -> None:
        if msg["name"] == self.last:
            raise _Enough

    def run(self, guide: Callable, images: Tensor) -> tuple[Values, Tensor]:
        """Values of every latent, and (R,) log-density of the new elements, in nats."""
        try:
            with self, torch.no_grad():
                guide(images)
        except _Enough:
            pass
        score = torch.stack(self.scores).logsumexp(0)
        return self.values, score - torch.tensor(float(len(WIDTHS))).log()


def widened(fn: TorchDistribution, width: Tensor) -> TorchDistribution:
    """A distribution with a `width` times as large standard deviation, or logits divided by it.

    Args:
        width: broadcasts against the batch shape.
    Returns:
        `fn` itself if it is of another family than Gaussians, Bernoullis, and categories.
    """

    def wider(own: TorchDistribution) -> TorchDistribution:
        joined = len(own.batch_shape) - len(fn.batch_shape)  # dimensions that `to_event` has taken
        by = width.view((*width.shape, *[1] * joined))
        if isinstance(own, Normal):
            return Normal(own.loc, own.scale * by)
        if isinstance(own, Bernoulli):
            return Bernoulli(logits=own.logits / by)
        if isinstance(own, OneHotCategorical | Categorical):
            return type(own)(logits=own.logits / by.unsqueeze(-1))
        return own

    return inside(fn, wider)
