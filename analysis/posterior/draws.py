"""The guide's mode as a Scene, hard draws of guide and program, and replicated images.

Shape legend: S draws, B images, P places within an image.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

import torch
from pyro import poutine
from pyro.distributions import Delta, Independent, MaskedDistribution, TorchDistribution
from pyro.poutine import Trace
from pyro.poutine.messenger import Messenger
from torch import Tensor
from torch.distributions import Bernoulli, constraints

from analysis.posterior import quantities
from inference.loading import takes_batch
from inference.objectives import in_common, is_aside, is_auxiliary, log_prob_per_image
from programs.scene import Scene, concatenate

Quantities = Mapping[str, Callable[..., Tensor]]
"""Test quantities by name (`analysis.posterior.quantities`)."""
VALUES = 2**20
"""Pixels times channels per pass, such as 85 rows of 3 by 64 by 64; memory grows with it."""
PRIOR_ROWS = 100
"""Scenes of the prior per pass."""
FAR = 100
"""Images with pixels beyond ±FAR are taken for images of 0 to 255 and refused."""
SHAPE = ("size", "colours")
"""Config fields that fix an image's shape."""


class Mode(Messenger):
    """Every latent takes the most likely value of its own distribution instead of a draw.

    Args:
        soft: whether Bernoullis take their probability.
        sites: pattern of the latents at their mode; others are drawn.
    """

    def __init__(self, soft: bool = False, sites: str = "*") -> None:
        super().__init__()
        self.soft, self.sites = soft, sites

    def _pyro_sample(self, msg: dict) -> None:
        if msg["is_observed"] or is_aside(msg):
            return
        if fnmatchcase(msg["name"], self.sites):
            if isinstance(msg["fn"], Bernoulli):
                mean = msg["fn"].mean
                hard = (mean > 0.5).to(mean.dtype)  # for a tie torch's own mode is NaN
                msg["value"] = mean if self.soft else hard
            else:
                msg["value"] = most_likely(msg["fn"])
            msg["done"] = True


def most_likely(fn: TorchDistribution) -> Tensor:
    """The mode of a distribution, or, if torch has none, another point in its place.

    For a transformed distribution it is the base's mode, transformed; for a mixture the mode of the most
    probable component; for a Delta its value; else the mean, or a draw if the mean is no possible value either
    (of counts it is a fraction).
    """
    if isinstance(fn, Delta):
        return fn.v
    if isinstance(fn, Independent | MaskedDistribution):
        return most_likely(fn.base_dist)
    if isinstance(fn, torch.distributions.TransformedDistribution):
        value = most_likely(fn.base_dist)
        for transform in fn.transforms:
            value = transform(value)
        return value
    if isinstance(fn, torch.distributions.MixtureSameFamily):
        points = most_likely(fn.component_distribution)
        best = fn.mixture_distribution.logits.argmax(-1)
        best = best.view(*best.shape, 1, *(1 for _ in fn.event_shape))
        dim = len(fn.batch_shape)
        return points.take_along_dim(best.expand(*fn.batch_shape, 1, *fn.event_shape), dim).squeeze(
            dim
        )
    for point in ("mode", "mean"):
        with suppress(NotImplementedError):
            value = getattr(fn, point)
            if _possible(fn, value):
                return value
    return fn.sample()


def _possible(fn: TorchDistribution, value: Tensor) -> bool:
    """Whether a value is finite, in the distribution's support, and of finite density."""
    if not value.isfinite().all() or not fn.support.check(value).all():
        return False
    return bool(fn.log_prob(value).isfinite().all())


@torch.no_grad()
def infer(
    program: Callable,
    guide: Callable,
    images: Tensor,
    soft: bool = False,
    rows: int | None = None,
    draws: int | None = None,
) -> Scene | None:
    """The scene at the guide's mode, site by site from the root down, presence by probability 1/2.

    With `draws` it is, for each image, the one of that many hard draws of the guide that has the highest
    log p(x, z): then the program judges what the guide proposes. None if the program returns no Scene.

    >>> from inference.runs import open_run
    >>> run = open_run("gsgn-shapes2d")
    >>> scene = infer(run.program, run.guide, run.unseen(2).floats())
    >>> tuple(scene.image.shape), tuple(scene.parts.pose.shape)
    ((2, 3, 64, 64), (2, 16, 2, 3))

    Args:
        images: (B, C, H, W) in [0, 1], on the program's device.
        soft: whether presence is its probability (the guide's confidence in an object), not 0 or 1.
        rows: images per pass; by default as many as have `VALUES`.
        draws: K draws per image instead of the mode.
    Raises:
        ValueError: `images` have a wrong shape, type or range; `draws` are less than one, are asked for with
            `soft`, or latents are of all images, so that no draw is better for an image.
    """
    if draws is None:
        scenes = [scene for scene, _ in modes(program, guide, images, soft, rows)]
        return concatenate(scenes) if isinstance(scenes[0], Scene) else None
    if draws < 1 or soft:
        raise ValueError(
            f"draws={draws}, soft={soft}: expected at least one draw, and soft=False, as draws are hard"
        )
    check_images(images, program)
    found = [best_of(program, guide, x, draws)[0] for x in images.split(rows or _rows(images))]
    return concatenate(found) if isinstance(found[0], Scene) else None


@torch.no_grad()
def best_of(
    program: Callable, guide: Callable, x: Tensor, draws: int
) -> tuple[Scene | None, Tensor, Tensor]:
    """Of each image's K draws the Scene of highest log p(x, z), None if the program returns none.

    Returns:
        The Scenes; (B,) their log p(x, z); and (K, B) log-weights log p(x, z) - log q(z | x) of all draws,
        nats.
    Raises:
        ValueError: a latent lies outside of the plate ``batch``.
    """
    best, highest, weights = None, torch.empty(0), []
    for _ in range(draws):
        trace, q = _pair(program, guide, x)
        scene, log_p = trace.nodes["_RETURN"]["value"], log_prob_per_image(trace)
        weights.append(log_p - log_prob_per_image(q))
        if len(weights) == 1:
            best, highest = scene, log_p
            continue
        if isinstance(scene, Scene):
            rows = torch.arange(len(x), device=x.device) + len(x) * (log_p > highest)
            best = concatenate([best, scene])[rows]
        highest = torch.maximum(log_p, highest)
    return best if isinstance(best, Scene) else None, highest, torch.stack(weights)


def modes(
    program: Callable, guide: Callable, images: Tensor, soft: bool = False, rows: int | None = None
) -> Iterator[tuple[Any, Trace]]:
    """What the program returns at the guide's mode, and the guide's trace, `rows` images at a time.

    Arguments and errors are those of `infer`.
    """
    check_images(images, program)
    for x in images.split(rows or _rows(images)):
        with torch.no_grad():  # not around the yield: what fails there would leave gradients off
            with Mode(soft):
                trace = poutine.trace(guide).get_trace(x)
            found = poutine.replay(program, trace=trace)(x)
        yield found, trace


def passes(
    program: Callable, guide: Callable, images: Tensor, draws: int, rows: int | None = None
) -> Iterator[tuple[Tensor, Trace, Trace]]:
    """S draws of every image, `rows` at a time, all images before the next draw.

    With latents that are of all images a pass is one draw of all images, so that draws are independent.

    Yields:
        Which images these rows are of, and the traces of program and guide.
    Raises:
        ValueError: `images` have a wrong shape, type or range.
    """
    check_images(images, program)
    index = torch.arange(draws * len(images), device=images.device) % len(images)
    parts = index.split(rows or _rows(images))
    first = _pair(program, guide, images[parts[0]])
    if shared_latents(first[1]):
        parts = index.split(len(images))
        first = _pair(program, guide, images)
    for k, part in enumerate(parts):
        yield (part, *(_pair(program, guide, images[part]) if k else first))


@torch.no_grad()
def _pair(program: Callable, guide: Callable, x: Tensor) -> tuple[Trace, Trace]:
    """Traces of the program and of a draw of the guide."""
    q = poutine.trace(guide).get_trace(x)
    return poutine.trace(poutine.replay(program, trace=q)).get_trace(x), q


def shared_latents(trace: Trace) -> list[str]:
    """Names of the latents that are of all images: outside of the plate ``batch``."""
    return [n for n, site in latent_sites(trace).items() if in_common(site["cond_indep_stack"])]


def check_images(images: Tensor, program: Callable) -> None:
    """See that `images` are some, finite floats in [0, 1], give or take noise, and as a program draws them.

    Raises:
        ValueError: they are not.
    """
    size, colours = (getattr(getattr(program, "config", None), n, None) for n in SHAPE)
    expected = (
        f"expected a torch.Tensor (B, {colours or 'C'}, {size or 'H'}, {size or 'W'}) in [0, 1]"
    )
    if not isinstance(images, Tensor):
        raise ValueError(f"images are a {type(images).__name__}: {expected}")
    fits = images.ndim == 4 and all(
        wanted in (None, there)
        for wanted, there in zip((colours, size, size), images.shape[1:], strict=True)
    )
    known = size is not None  # images of other programs may have any shape
    if (known and not fits) or not images.numel() or not images.is_floating_point():
        raise ValueError(f"images of shape {tuple(images.shape)} and {images.dtype}: {expected}")
    parameters = getattr(program, "parameters", tuple)()
    of = next((p.dtype for p in parameters if p.is_floating_point()), images.dtype)
    if images.dtype != of:
        raise ValueError(
            f"images are {images.dtype}, the program's parameters {of}: {expected}, as images.to({of}) makes it"
        )
    low, high = map(float, images.aminmax())
    if not -FAR < low <= high < FAR:
        raise ValueError(f"pixels go from {low:g} to {high:g}: {expected}")


def _rows(images: Tensor) -> int:
    return max(1, VALUES // images[0].numel())


@dataclass(frozen=True)
class Draws:
    """Hard draws of the guide for every image, their log-probabilities, and replicated images."""

    latents: dict[str, Tensor]
    """site -> (S, B, *plates, *event); discrete ones as integers"""
    plates: dict[str, tuple[str, ...]]
    """site -> names of its plates within an image, outermost first"""
    shared: tuple[str, ...]
    """sites that are of all images, each of which has the same value; log_p and log_q then are shares"""
    quantities: dict[str, Tensor]
    """test quantity of the scenes -> (S, B, ...)"""
    replicated: dict[str, Tensor]
    """test quantity of the replicated images -> (S, B, ...)"""
    pictures: Tensor
    """(S, P, C, H, W) replicates of the first P images, or (S, P, …) of what the program observes instead"""
    observed: Tensor
    """(B, C, H, W) the images as the program observes them, or (B, …) what it observes instead"""
    log_likelihood: Tensor
    """(S, B) log p(x | z), nats"""
    log_p: Tensor
    """(S, B) log p(x, z), nats"""
    log_q: Tensor
    """(S, B) log q(z | x), nats"""

    @property
    def log_weights(self) -> Tensor:
        """(S, B) log p(x, z) - log q(z | x), nats."""
        return self.log_p - self.log_q


@torch.no_grad()
def draw(
    program: Callable,
    guide: Callable,
    images: Tensor,
    draws: int,
    of: Quantities = quantities.OF_SCENES,
    of_images: Quantities = quantities.OF_IMAGES,
    pictures: int = 0,
    rows: int | None = None,
) -> Draws:
    """Independent draws of the guide for each of `images`, kept, and a replicated image for each.

    A replicate is drawn from the distribution of the site ``images`` given the latents: image and noise.
    Memory grows with draws times images times latents; for weights alone take `log_weights`.

    Args:
        images: (B, C, H, W) in [0, 1], on the program's device.
        draws: S.
        of: test quantities to measure on the program's scenes, if it returns any.
        of_images: test quantities to measure on the replicates.
        pictures: of how many images, from the first, to keep the replicates.
        rows: draws of images a pass; as many as have `VALUES` if not given.
    """
    parts, plates, shared, observed = [], {}, [], []
    for index, p, q in passes(program, guide, images, draws, rows):
        plates |= {name: plate_names(site) for name, site in latent_sites(q).items()}
        shared = shared_latents(q)
        log_p, log_q = (log_prob_per_image(trace, images=len(index)) for trace in (p, q))
        likelihood = log_prob_per_image(p, observed_sites(p))
        scores = {"log_likelihood": likelihood, "log_p": log_p, "log_q": log_q}
        replicates = _like_images(replicate(p), images)
        if len(observed) < len(images):
            observed += _like_images(within_batch(observed_sites(p)["images"]), images)
        parts.append(
            _table(q, p, replicates, of, of_images)
            | scores
            | {"pictures": replicates[index < pictures]}
        )
    seen = torch.stack(observed[: len(images)])
    return Draws(plates=plates, shared=tuple(shared), observed=seen, **_join(parts, draws))


def _like_images(value: Tensor, images: Tensor) -> Tensor:
    """What a program observes, (B, …), in the shape of images (B, C, H, W) if it is as many numbers."""
    same = value[0].numel() == images[0].numel()
    return value.reshape(-1, *images.shape[1:]) if same else value


def samples(program: Callable) -> bool:
    """Whether a program can be called without images, as ``program(batch=16)``: whether it takes ``batch``."""
    return takes_batch(getattr(program, "function", getattr(program, "forward", program)))


@torch.no_grad()
def draw_prior(
    program: Callable,
    number: int,
    of: Quantities = quantities.OF_SCENES,
    of_images: Quantities = quantities.OF_IMAGES,
    rows: int = PRIOR_ROWS,
) -> Draws:
    """Scenes and images from the program itself, as `Draws` of one image: S = `number`, B = P = 1.

    `pictures` are the images drawn, and `log_q` is log p(z).
    """
    parts, plates = [], {}
    pixels = torch.empty(0)
    for p, pixels in simulations(program, number, rows):
        log_p, likelihood = log_prob_per_image(p), log_prob_per_image(p, ["images"])
        scores = {"log_likelihood": likelihood, "log_p": log_p, "log_q": log_p - likelihood}
        p.remove_node("images")
        plates |= {name: plate_names(site) for name, site in latent_sites(p).items()}
        parts.append(_table(p, p, pixels, of, of_images) | scores | {"pictures": pixels})
    return Draws(plates=plates, shared=(), observed=pixels[:0], **_join(parts, number))


@torch.no_grad()
def prior_scenes(program: Callable, number: int, rows: int = PRIOR_ROWS) -> Iterator[Scene]:
    """Scenes of the prior, `rows` at a time, on the program's device; handlers that are active apply."""
    for part in torch.arange(number).split(rows):
        yield program(batch=len(part))


def simulations(
    program: Callable, number: int, rows: int = PRIOR_ROWS
) -> Iterator[tuple[Trace, Tensor]]:
    """Scenes and images from the program itself, `rows` at a time.

    Yields:
        The trace, and the image with its noise, (rows, C, H, W): pixels may lie outside [0, 1].
    Raises:
        ValueError: the program has no site ``images``.
    """
    for part in torch.arange(number).split(rows):
        with torch.no_grad():
            trace = poutine.trace(program).get_trace(batch=len(part))
        if "images" not in trace:
            raise ValueError(f"no site 'images'; this program samples {list(latent_sites(trace))}")
        pixels = within_batch(trace.nodes["images"])
        yield trace, pixels.view(len(pixels), *pixels.shape[-3:])


def _table(
    latent: Trace, program: Trace, pixels: Tensor, of: Quantities, of_images: Quantities
) -> dict[str, dict]:
    """Rows of `Draws`: latents of one trace, quantities of the program's Scene, and its pictures."""
    scene, sites = program.nodes["_RETURN"]["value"], latent_sites(latent).items()
    return {
        "latents": {name: _compact(site, within_batch(site, len(pixels))) for name, site in sites},
        "quantities": quantities.measure(scene, of) if isinstance(scene, Scene) else {},
        "replicated": {n: fn(pixels) for n, fn in of_images.items() if pixels.ndim == 4},
    }


def _join(parts: list[dict], draws: int) -> dict[str, Any]:
    """Rows one below the other, (S, rows / S, …), in tables of tables too."""
    joined = {}
    for name, first in parts[0].items():
        column = [part[name] for part in parts]
        if isinstance(first, dict):
            joined[name] = _join(column, draws)
        else:
            rows = torch.cat(column)
            joined[name] = rows.view(draws, len(rows) // draws, *rows.shape[1:])
    return joined


def _compact(site: dict, value: Tensor) -> Tensor:
    """Whole numbers as whole numbers."""
    support = site["fn"].support
    if not support.is_discrete:
        return value
    return value.to(torch.int32 if support is constraints.nonnegative_integer else torch.int8)


def replicate(program_trace: Trace) -> Tensor:
    """(B, …) images drawn anew given a trace's latents.

    Raises:
        ValueError: the program observes no site ``images``.
    """
    observed = observed_sites(program_trace)
    if "images" not in observed:
        raise ValueError(
            f"replicated images need an observed site 'images'; this program observes {list(observed)}"
        )
    site = observed["images"]
    return within_batch({**site, "value": site["fn"].sample()})


def latent_sites(trace: Trace) -> dict[str, dict]:
    """The sample sites of a trace that were drawn, by name, without those that are a guide's alone."""
    sites = _sites(trace).items()
    return {n: site for n, site in sites if not site["is_observed"] and not is_auxiliary(site)}


def observed_sites(trace: Trace) -> dict[str, dict]:
    """The sample sites of a trace whose values were given, by name."""
    return {name: site for name, site in _sites(trace).items() if site["is_observed"]}


def _sites(trace: Trace) -> dict[str, dict]:
    samples = ((n, s) for n, s in trace.nodes.items() if s["type"] == "sample")
    return {name: site for name, site in samples if not is_aside(site)}


def plate_names(site: dict) -> tuple[str, ...]:
    """Plates of a site within an image, outermost first."""
    return tuple(frame.name for frame in _plates(site) if frame.name != "batch")


def within_batch(site: dict, rows: int | None = None) -> Tensor:
    """A site's value as (B, *plates, *event), whichever dimensions its plates have.

    Args:
        rows: B, for a site that is of all images: it has the same value for each.
    """
    if rows is not None and in_common(site["cond_indep_stack"]):
        value = within_batch(site)
        return value.expand(rows, *value.shape)
    value, event = site["value"], site["fn"].event_dim
    order = [frame.dim - event for frame in _plates(site)] + list(range(-event, 0))
    rest = [d for d in range(-value.ndim, 0) if d not in order]  # of no plate, so of size 1
    return value.permute((*rest, *order)).reshape([value.shape[d] for d in order])


def _plates(site: dict) -> list:
    """The plate ``batch``, then the others from left to right."""
    frames = sorted(site["cond_indep_stack"], key=lambda frame: frame.dim)
    return sorted((f for f in frames if f.vectorized), key=lambda frame: frame.name != "batch")
