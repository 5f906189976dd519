"""What is optimised: the evidence lower bound, its KL weights, auxiliary KLs, and penalties on the Scene.

An objective is three tables, two of them keyed by patterns of site names (``"z_pres*"``, ``"z_scale_1"``):

* `weights` multiply a site's log-densities in program and guide, and so its KL;
* `auxiliary` holds fixed priors r; every matching site pays KL(q ‖ r) besides its own KL (GSGN D.3);
* `penalties` holds functions, by name, from the Scene that the program returns, and the images, to nats an
  image (SPACE's boundary loss).

All are effect handlers. An auxiliary KL is a factor -KL(q ‖ r) that stands beside its site, under the
same plates and gates, a penalty is a factor ``penalty/NAME`` in the plate ``batch``; so every estimator treats
them as more costs downstream of what they depend on, and `weights` may name them (``"penalty/boundary"``).
Without tables the objective is the plain ELBO (GSGN eq. 11); the paper's No-Aux ablation is just that.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from functools import partial
from typing import Any, NamedTuple

import pyro
import pyro.distributions as dist
import torch
from pyro import poutine
from pyro.distributions.util import scale_and_mask
from pyro.poutine import Trace
from pyro.poutine.indep_messenger import CondIndepStackFrame
from pyro.poutine.messenger import Messenger
from pyro.poutine.subsample_messenger import _Subsample
from torch import Tensor
from torch.distributions import kl_divergence
from torch.nn import functional as F

from programs import render
from programs.nets import where_present
from programs.scene import Scene

MIXTURE_SAMPLES = 100
"""Draws from the posterior for a KL to a mixture (GSGN D.3)."""


@dataclass(frozen=True)
class Gaussian:
    """N(mean, sd²), independent over the features of a site."""

    mean: float
    sd: float

    def kl(self, q: dist.TorchDistribution) -> Tensor:
        """KL(q ‖ self), of q's batch shape, in nats."""
        base = q.base_dist if isinstance(q, dist.Independent) else q
        loc = torch.full_like(base.loc, self.mean)
        p = dist.Normal(loc, torch.full_like(loc, self.sd)).to_event(q.event_dim)
        return kl_divergence(q, p)


@dataclass(frozen=True)
class Sparse:
    """Bernoulli with a logit: -23.03 is the paper's success probability of 1e-10 (GSGN Table 6)."""

    logit: float

    def kl(self, q: dist.TorchDistribution) -> Tensor:
        """KL(q ‖ self), of q's batch shape, in nats."""
        p = dist.Bernoulli(logits=torch.full_like(q.logits, self.logit))
        return kl_divergence(dist.Bernoulli(logits=q.logits), p)


@dataclass(frozen=True)
class Mixture:
    """Σ_k w_k N(mean_k, sd_k² 1): one component for all features of a site (GSGN Tables 8, 9)."""

    weights: tuple[float, ...]
    means: tuple[float, ...]
    sds: tuple[float, ...]

    def kl(self, q: dist.TorchDistribution) -> Tensor:
        """KL(q ‖ self): the entropy in closed form, the cross-entropy by `MIXTURE_SAMPLES` draws."""
        z = q.rsample((MIXTURE_SAMPLES,))
        features = q.event_shape.numel()
        # squared distances to all components from two sums over features: no (draws, …, D, K) array
        first, second = (z, z.square()) if q.event_dim == 0 else (z.sum(-1), z.square().sum(-1))
        components = []
        for weight, mean, sd in zip(self.weights, self.means, self.sds, strict=True):
            squares = second - 2 * mean * first + features * mean**2
            normaliser = math.log(weight) - 0.5 * features * math.log(2 * math.pi * sd**2)
            components.append(normaliser - 0.5 * squares / sd**2)
        return -q.entropy() - torch.stack(components).logsumexp(0).mean(0)


Prior = Gaussian | Sparse | Mixture


@dataclass(frozen=True)
class Boundary:
    """What is opaque near the borders of objects' boxes: an object is to end inside its own (SPACE).

    Σ_ij ½ (α_ij Σ_n pres_n ST⁻¹(border, pose_n)_ij / sd)²,  border 1 at the edges of a square, 0 within

    Boxes are upright.

    # differs: without the constant of the official code's log-density.
    """

    border: int = 6  # pixels, of a square's 32
    sd: float = 0.7168  # the code's 0.7, times 1024 / 1000, by which its border is not 1

    def __call__(self, scene: Scene, images: Tensor | None = None) -> Tensor:
        """(B,) nats.

        Raises:
            ValueError: the program does not say what is opaque.
        """
        if scene.opacity is None or not scene.levels:
            raise ValueError(
                "the penalty Boundary needs a Scene with objects and opacity; this program returns none: "
                "give opacity=..., or --set train.penalties={}"
            )
        nodes, size = scene.objects, scene.image.shape[-1]
        inside = nodes.pres.new_zeros(1, 32 - 2 * self.border, 32 - 2 * self.border)
        border = F.pad(inside, 4 * [self.border], value=1.0).expand(*nodes.pres.shape, -1, -1, -1)
        drawn = where_present(
            nodes.pres, partial(render.place_upright, size=size), border, nodes.pose
        )
        borders = (nodes.pres[..., None, None, None] * drawn).sum(1)
        return 0.5 * (scene.opacity * borders / self.sd).square().sum((1, 2, 3))


@dataclass(frozen=True)
class Background:
    """The background is what some image of the batch shows, pixel by pixel (DeNF eq. 5).

    1/M Σ_j min_b |x_b^j - x̂_bg^j|²,  j over the M pixels

    # differs: without `own`, b is not the image itself, whose objects are what the paper's minimum allows.
    """

    own: bool = True

    def __call__(self, scene: Scene, images: Tensor) -> Tensor:
        """(B,), a mean over pixels.

        Raises:
            ValueError: the program says nothing of a background, or there is no other image.
        """
        if scene.background is None:
            raise ValueError(
                "the penalty Background needs a Scene with a background; this program returns none: "
                "give background=..., or --set train.penalties={}"
            )
        far = (scene.background.unsqueeze(1) - images).square().sum(-3)  # (B, B, H, W)
        if not self.own:
            if len(images) < 2:
                raise ValueError(
                    "the penalty Background compares with other images: give --batch 2 or more"
                )
            same = (images[:, None] == images).flatten(2).all(-1)  # estimators repeat images
            far = far.masked_fill(same[..., None, None], math.inf)
        return far.amin(1).mean((-2, -1))


@dataclass(frozen=True)
class Reconstruction:
    """The Scene's image is what was seen (DeNF eq. 10).

    # differs: a mean over pixels, as in eq. 5, where the paper has a sum.
    """

    def __call__(self, scene: Scene, images: Tensor) -> Tensor:
        """(B,), a mean over pixels."""
        return (scene.image - images).square().sum(-3).mean((-2, -1))


@dataclass(frozen=True)
class Compatibility:
    """What objects' boxes cover is what objects cover (DeNF eq. 12).

    Σ (ê - e)² / (Σ ê + Σ e),  e the opacity, ê = min(1, what is boxed)
    """

    def __call__(self, scene: Scene, images: Tensor | None = None) -> Tensor:
        """(B,) in [0, 1].

        Raises:
            ValueError: the program does not say what is opaque, or boxed.
        """
        opacity, boxed = boxes_of("Compatibility", scene)
        boxed = boxed.clamp(max=1)
        apart, total = (boxed - opacity).square(), boxed + opacity
        return apart.sum((1, 2, 3)) / (total.sum((1, 2, 3)) + 1e-6)


@dataclass(frozen=True)
class Inscribed:
    """Every box is as large as what is opaque around it lets it be.

    Σ c (λ (1 - e) - e) / Σ e,  e the opacity, taken as given, c by how many boxes a pixel is covered

    # differs: not in DeNF. Eq. 12 has no gradient where boxes overlap, and boxes as small as a cell solve it.
    """

    outside: float = 2.0
    """λ, the price of an area that is not opaque in areas that are"""

    def __call__(self, scene: Scene, images: Tensor | None = None) -> Tensor:
        """(B,) mean over boxes, in units of the area that one is there for.

        Raises:
            ValueError: the program does not say what is opaque, or boxed.
        """
        opacity, boxed = boxes_of("Inscribed", scene)
        opacity = opacity.detach()
        area = boxed * (self.outside * (1 - opacity) - opacity)
        return area.sum((1, 2, 3)) / (opacity.sum((1, 2, 3)) + 1)


def boxes_of(penalty: str, scene: Scene) -> tuple[Tensor, Tensor]:
    """What is opaque in a Scene, and by how many boxes it is covered.

    Raises:
        ValueError: the program does not say.
    """
    if scene.opacity is None or scene.boxed is None:
        raise ValueError(
            f"the penalty {penalty} needs a Scene with opacity and boxed; this program returns one "
            "without: give them, or --set train.penalties={}"
        )
    return scene.opacity, scene.boxed


Penalty = Callable[[Scene, Tensor], Tensor]
"""Scene, and the images (B, C, H, W) that it is of -> (B,), in a unit of its own that a weight makes nats."""


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
    """Around the replayed program: add the factor -KL(q ‖ r) beside every site that has a prior r."""

    def __init__(self, priors: Mapping[str, Prior], guide_trace: Trace) -> None:
        super().__init__()
        self.priors, self.guide_trace = priors, guide_trace

    def _pyro_post_sample(self, msg: dict) -> None:
        prior = lookup(self.priors, msg["name"])
        if prior is not None and not msg["is_observed"]:
            q = self.guide_trace.nodes[msg["name"]]["fn"]
            pyro.factor(f"aux/{msg['name']}", -prior.kl(q))


class Batch(Messenger):
    """Remember the plate ``batch``; once it is known, put what is sampled within into it."""

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
        ValueError: when it runs, if it returns no Scene or has no plate ``batch``; or a penalty is not (B,).
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
                    "a number an image"
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
            guide_trace = poutine.trace(guide).get_trace(*args)
            if self.auxiliary:
                stack.enter_context(AuxiliaryKL(self.auxiliary, guide_trace))
            replayed = poutine.replay(program, trace=guide_trace)
            if self.penalties:
                replayed = penalised(replayed, self.penalties)
            program_trace = poutine.trace(replayed).get_trace(*args)
        return program_trace, guide_trace


class Term(NamedTuple):
    """One term of the negative ELBO, elementwise."""

    name: str
    frames: tuple[CondIndepStackFrame, ...]
    """the plates it lies in"""
    cost: Tensor
    """nats, one dimension a plate"""


def cost_terms(program_trace: Trace, guide_trace: Trace) -> dict[str, Term]:
    """The terms of the negative ELBO by site.

    Latent sites give ``kl/SITE``: in closed form where torch knows one, else by the one sample that was
    drawn. ``aux/SITE`` are auxiliary KLs, ``penalty/NAME`` penalties, and any other observed site gives its
    negative log-likelihood under its own name. A KL in closed form is right when program and guide condition
    their sites alike, which `tests/test_contract.py` holds them to.
    """
    terms = {}
    for name, site in program_trace.nodes.items():
        if site["type"] != "sample" or isinstance(site["fn"], _Subsample):
            continue
        if site["is_observed"]:
            cost = -site["fn"].log_prob(site["value"])
        else:
            name, site, prior = f"kl/{name}", guide_trace.nodes[name], site["fn"]
            cost = _kl(site, prior)
        cost = scale_and_mask(cost, site["scale"], site["mask"])
        terms[name] = Term(name, site["cond_indep_stack"], cost)
    return terms


def _kl(site: dict, prior: dist.TorchDistribution) -> Tensor:
    try:
        return kl_divergence(site["fn"], prior)
    except NotImplementedError:
        return site["fn"].log_prob(site["value"]) - prior.log_prob(site["value"])


def per_image(term: Term) -> Tensor:
    """(B,) a term summed over everything but the plate ``batch``.

    Raises:
        ValueError: it lies outside that plate.
    """
    dims = [frame.dim for frame in term.frames if frame.name == "batch"]
    if not dims:
        raise ValueError(
            f"site {term.name!r} is outside the plate 'batch', so it has no value per image: open "
            "pyro.plate('batch', number, dim=...) around it"
        )
    cost = term.cost.movedim(dims[0], 0)
    return cost.reshape(len(cost), -1).sum(1)


def log_prob_per_image(trace: Trace, names: Collection[str] | None = None) -> Tensor:
    """(B,) log-probability of a trace, or of its sites of these names, summed over all but the plate ``batch``.

    Raises:
        ValueError: a site lies outside that plate.
    """
    trace.compute_log_prob(lambda _, site: not isinstance(site["fn"], _Subsample))
    sites = [(n, s) for n, s in trace.nodes.items() if s["type"] == "sample"]
    sites = [(n, s) for n, s in sites if not isinstance(s["fn"], _Subsample)]
    chosen = [(n, s) for n, s in sites if names is None or n in names]
    return sum(per_image(Term(n, s["cond_indep_stack"], s["log_prob"])) for n, s in chosen)
