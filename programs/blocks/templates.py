"""Templates that pictures share, found by EM with splits and merges (Ueda, Nakano, Ghahramani, Hinton, 2000).

    log p(picture) = log Σ_k max_ω N(picture; M_ω (mean_k + Σ_a z_a ways_ka), 1 / precision)

up to a constant, with z ~ N(0, I) summed out. Gradients and EM alone find a mode near the templates with which
they begin: two templates of one digit, and one of two digits, stay so. A move takes one template away and
splits another one, and is kept if the likelihood is higher after as much EM.

# differs: the paper merges two components into one. Here one goes, and its pictures take the template that is
next best for each, which the following EM turns into the same.

Shape legend: N pictures, K templates, A ways in which one varies, Ω maps, C channels, h x w pixels.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from programs.blocks import matching, render

SETTLING = 40
"""EM steps before the first move, and after each: likelihoods are compared after as many. (They may fall a
little, as a map is not undone exactly.)"""
TRIED = 5
"""Random splits of a template, of which the best is taken."""
HEAT = 0.03, 0.1, 0.2, 0.4, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0
"""Factor of log-likelihoods in each EM step of a split; the halves vary from the first 1 on."""
PROPOSED = 12
"""Moves, the most promising first, of which the two new templates are fitted."""
CHOSEN = 3
"""Moves among these that are tried, before the templates count as the best."""
FIRST = 5, 15
"""EM steps of the two new templates alone, and of all before it is clear that a move is no gain."""
NEAR = 0.15
"""Nats per picture below the likelihood, within which it is not clear."""
FEW = 20
"""A template of fewer pictures keeps its form."""
SMALL = 0.02
"""Least share in a picture that counts for its form."""
GAIN = 0.005
"""Nats per picture by which a move must raise the likelihood."""


class Template(NamedTuple):
    """A form and how it varies."""

    mean: Tensor
    """(C, h, w)"""
    ways: Tensor
    """(A, C, h, w), of numbers from N(0, 1)"""


class Pictures(NamedTuple):
    """What templates are to explain."""

    seen: Tensor
    """(N, C, h, w)"""
    precision: Tensor
    """(N) of every pixel"""
    maps: Tensor
    """(Ω, 2, 3) under which a template may appear"""

    def some(self, rows: Tensor) -> Pictures:
        """The pictures of these indices."""
        return Pictures(self.seen[rows], self.precision[rows], self.maps)


class Fits(NamedTuple):
    """How well every template explains every picture."""

    best: Tensor
    """(N, K) log-likelihood under the best map, in nats, up to a term of the picture alone"""
    which: Tensor
    """(N, K) that map"""

    def likelihood(self) -> float:
        """Mean log-likelihood of a picture under the mixture, up to the same term."""
        return float(self.best.logsumexp(1).mean())


class Mixture(NamedTuple):
    """Templates and their fits."""

    templates: list[Template]
    fits: Fits


@torch.no_grad()
def better(
    pictures: Pictures,
    templates: Sequence[Template],
    seed: int = 0,
    told: Callable[[str], None] = lambda line: None,
) -> list[Template]:
    """Templates of higher likelihood: EM, then moves until none of those tried is a gain, 2 K at most.

    Args:
        told: is called with a line about every move.
    """
    generator = torch.Generator().manual_seed(seed)
    now = em(pictures, as_mixture(pictures, templates), [1.0] * SETTLING)
    for _ in range(2 * len(templates)):
        found = move(pictures, now, generator)
        if found is None:
            return now.templates
        told(f"{now.fits.likelihood():.2f} -> {found.fits.likelihood():.2f} nats a picture")
        now = found
    return now.templates


def as_mixture(pictures: Pictures, templates: Sequence[Template]) -> Mixture:
    """The templates with their fits."""
    found = [fit(pictures, template) for template in templates]
    best, which = (torch.stack(values, 1) for values in zip(*found, strict=True))
    return Mixture(list(templates), Fits(best, which))


def fit(pictures: Pictures, template: Template) -> tuple[Tensor, Tensor]:
    """(N) the log-likelihood under one template at its best map, and (N) that map."""
    seen, precision, maps = pictures
    every = torch.cat([template.mean.unsqueeze(0), template.ways])[:, None]
    every = every.expand(-1, len(maps), -1, -1, -1)
    placed = render.place(every, maps.expand(len(every), -1, -1, -1), seen.shape[-1])
    fits = precision[:, None] * matching.log_likelihoods(seen, placed[0])
    if len(template.ways):
        ways = matching.variations(placed[1:].transpose(0, 1))
        fits = fits + matching.log_likelihoods_beyond(seen, placed[0], ways, precision)
    best, which = fits.max(1)
    return best, which


def em(
    pictures: Pictures,
    mixture: Mixture,
    heat: Sequence[float],
    only: Sequence[int] | None = None,
    still: int = 0,
) -> Mixture:
    """EM with log-likelihoods times `heat`, a step for each; the first `still` steps without ways.

    Args:
        only: templates that change; None for all.
    """
    templates, (best, which) = list(mixture.templates), mixture.fits
    best, which = best.clone(), which.clone()
    for step, factor in enumerate(heat):
        share = (factor * best).softmax(1)
        for k in range(len(templates)) if only is None else only:
            variable = step >= still
            templates[k] = form(pictures, share[:, k], which[:, k], templates[k], variable)
            best[:, k], which[:, k] = fit(pictures, templates[k])
    return Mixture(templates, Fits(best, which))


def form(
    pictures: Pictures, share: Tensor, which: Tensor, before: Template, variable: bool
) -> Template:
    """The mean and the main ways of pictures under their inverse maps, weighed by `share` (N)."""
    keep = share > SMALL
    if int(keep.sum()) < FEW:
        return before
    seen = canonical(pictures.some(keep), which[keep])
    share = (share[keep] / share[keep].sum())[:, None]
    mean = (share * seen.flatten(1)).sum(0)
    ways = torch.zeros_like(before.ways)
    if variable and len(ways):
        rest = share.sqrt() * (seen.flatten(1) - mean)
        values, vectors = torch.linalg.eigh(rest.T @ rest)
        noise = 1 / pictures.precision.mean()
        size = (values - noise).clamp(min=0).sqrt()
        ways = (vectors * size).T.flip(0)[: len(ways)].view_as(ways)
    return Template(mean.view_as(before.mean), ways)


def canonical(pictures: Pictures, which: Tensor) -> Tensor:
    """(N, C, h, w) pictures under the inverses of their maps (N)."""
    pose = pictures.maps[which][:, None]
    return render.crop(pictures.seen, pose, pictures.seen.shape[-1])[:, 0]


def move(pictures: Pictures, now: Mixture, generator: torch.Generator) -> Mixture | None:
    """A mixture of higher likelihood in which one template is gone and another one is two; None if none is."""
    two = now.fits.best.topk(2, 1)
    winner, cost = two.indices[:, 0], two.values[:, 0] - two.values[:, 1]
    numbers = range(len(now.templates))
    costs = [float(cost[winner == k].sum()) / len(cost) for k in numbers]
    splits = [split(pictures, now, k, winner == k, generator) for k in numbers]
    gains = [(splits[k][0] - costs[j], j, k) for j in numbers for k in numbers if j != k]
    begun = []
    for _, gone, k in sorted(gains, reverse=True)[:PROPOSED]:
        pair = dict(zip((gone, k), splits[k][1], strict=True))
        begun.append(em(pictures, changed(pictures, now, pair), [1.0] * FIRST[0], only=(gone, k)))
    begun.sort(key=lambda mixture: mixture.fits.likelihood(), reverse=True)
    for mixture in begun[:CHOSEN]:
        found = em(pictures, mixture, [1.0] * FIRST[1])
        if found.fits.likelihood() > now.fits.likelihood() - NEAR:
            found = em(pictures, found, [1.0] * (SETTLING - FIRST[1]))
        if found.fits.likelihood() > now.fits.likelihood() + GAIN:
            return found
    return None


def changed(pictures: Pictures, now: Mixture, new: Mapping[int, Template]) -> Mixture:
    """The mixture with `new` templates by index."""
    templates, best, which = list(now.templates), now.fits.best.clone(), now.fits.which.clone()
    for k, template in new.items():
        templates[k] = template
        best[:, k], which[:, k] = fit(pictures, template)
    return Mixture(templates, Fits(best, which))


def split(
    pictures: Pictures, now: Mixture, k: int, own: Tensor, generator: torch.Generator
) -> tuple[float, list[Template]]:
    """Nats per picture of all that two templates in place of one gain on its `own` pictures, and the two."""
    whole, number = now.templates[k], int(own.sum())
    if number < 2 * FEW:
        return -torch.inf, [whole, whole]
    members, which = pictures.some(own), now.fits.which[own, k]
    forms, found = canonical(members, which), []
    for _ in range(TRIED):
        pair = forms[torch.randperm(number, generator=generator)[:2].to(forms.device)]
        still = torch.zeros_like(whole.ways)
        begin = [Template(whole.mean.lerp(one, 0.5), still) for one in pair]
        halves = em(members, as_mixture(members, begin), HEAT, still=HEAT.index(1.0))
        found.append((halves.fits.likelihood(), halves.templates))
    likelihood, halves = max(found, key=lambda pair: pair[0])
    gain = likelihood - float(now.fits.best[own, k].mean())
    return gain * number / len(own), halves


def imitate(
    draw: Callable[[Tensor, Tensor], Tensor],
    parameters: Sequence[nn.Parameter],
    templates: Sequence[Template],
    steps: int = 1500,
    rate: float = 2e-3,
) -> float:
    """Let a decoder draw the templates; returns the squared error of a picture.

    Args:
        draw: (K, S, K) one-hot categories and (K, S, A) numbers -> (K, S, C, h, w) in [0, 1].
        parameters: those of the decoder.
    """
    mean = torch.stack([t.mean for t in templates])[:, None]
    ways = torch.stack([t.ways for t in templates])
    one = torch.eye(len(templates), device=mean.device)[:, None].expand(-1, 4, -1)
    generator = torch.Generator().manual_seed(0)
    optimiser = torch.optim.Adam(parameters, rate)
    for step in range(steps):
        optimiser.param_groups[0]["lr"] = rate * min(1, 3 * (1 - step / steps))
        numbers = torch.randn(len(templates), 4, ways.shape[1], generator=generator).to(mean.device)
        numbers[:, 0] = 0
        wanted = (mean + torch.einsum("ksa,kachw->kschw", numbers, ways)).clamp(0, 1)
        error = (draw(one, numbers) - wanted).square().flatten(2).sum(-1).mean()
        optimiser.zero_grad()
        error.backward()
        optimiser.step()
    return float(error.detach())
