"""Run programs whose plate of images and observed site have other names than ours.

The project calls them ``batch`` and ``images``. A program with other names, such as Pyro's own
examples, needs no change: an effect handler around program and guide renames the plate and the
site.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any, NamedTuple

import pyro
import torch
from pyro import poutine
from pyro.infer.autoguide import AutoGuide
from pyro.poutine import Trace
from pyro.poutine.messenger import Messenger
from torch import Tensor, nn

from inference.objectives import in_common, is_aside

PLATE = "batch"
SITE = "images"
BATCHES = (2, 3)
"""Batch sizes of two trial runs: the plate of the images is the one whose size follows them."""


class Names(NamedTuple):
    """The program's names of the plate of the images and of the site at which they are observed."""

    plate: str = PLATE
    site: str = SITE


class Renamed(Messenger):
    """Inside this handler, the plate and the site have the project's names."""

    def __init__(self, names: Names) -> None:
        super().__init__()
        self.names = names

    def _process_message(self, msg: dict) -> None:
        if msg["type"] == "sample":
            msg["name"] = self.renamed(msg["name"])
        msg["cond_indep_stack"] = tuple(
            frame._replace(name=self.renamed(frame.name)) for frame in msg["cond_indep_stack"]
        )

    def renamed(self, name: str) -> str:
        """A name here; something else that has one of the names known here is called NAME_."""
        plate, site = self.names
        other = f"{name}_" if name in (PLATE, SITE) else name
        return {site: SITE, plate: PLATE}.get(name, other)


@torch.no_grad()
def find_names(program: Callable, x: Tensor) -> Names:
    """The program's names of the plate of the images and of the observed site.

    Args:
        x: (B, C, H, W) some images.
    Raises:
        ValueError: no site is observed, or the site of the images is in no plate whose size is
            their number.
    """
    few, more = (_trace(program, x, number) for number in BATCHES)
    site = _observed(few, x)
    sizes = [{f.name: f.size for f in t.nodes[site]["cond_indep_stack"]} for t in (few, more)]
    plates = [name for name, size in sizes[0].items() if (size, sizes[1].get(name)) == BATCHES]
    if not plates:
        raise ValueError(
            f"the observed site {site!r} is in no plate of as many as there are images: write "
            f'`with pyro.plate("{PLATE}", len(images), dim=-1):` around it, in program and guide'
        )
    frames = {f.name: f for f in few.nodes[site]["cond_indep_stack"]}
    outermost = min(plates, key=lambda name: frames[name].dim)
    return Names(PLATE if PLATE in plates else outermost, site)


def _trace(program: Callable, x: Tensor, number: int) -> Trace:
    images = x[torch.arange(number) % len(x)]
    with pyro.validation_enabled(
        False
    ):  # draws of an untrained prior may be as far off as they like
        return poutine.trace(program).get_trace(images)


def _observed(trace: Trace, x: Tensor) -> str:
    """The site of the images: ``images``, else the first observed site of the same size, else the first."""
    observed = [
        name
        for name, site in trace.nodes.items()
        if site["type"] == "sample" and site["is_observed"] and not is_aside(site)
    ]
    if not observed:
        raise ValueError(
            'the program observes nothing: write pyro.sample("images", …, obs=images) for the images'
        )
    numbers = BATCHES[0] * x[0].numel()
    alike = [name for name in observed if trace.nodes[name]["value"].numel() == numbers]
    return SITE if SITE in observed else [*alike, *observed][0]


def check_automatic(guide: nn.Module, x: Tensor) -> None:
    """One of Pyro's AutoGuides must have no latent of an image alone.

    It would keep a number per place in a batch, whatever image is there.

    Args:
        x: (B, C, H, W) some images.
    Raises:
        ValueError: it has.
    """
    made = getattr(guide, "function", guide)
    if not isinstance(made, AutoGuide):
        return
    sites = poutine.trace(guide).get_trace(x).nodes.items()
    latents = [(n, s) for n, s in sites if s["type"] == "sample" and not is_aside(s)]
    alone = [name for name, site in latents if not in_common(site["cond_indep_stack"])]
    if alone:
        raise ValueError(
            f"{type(made).__name__} keeps numbers of {', '.join(alone)} per place in a batch, and other images "
            "come to these places: write a guide that computes them from the images by a network, or sample "
            "them outside of the plate of the images"
        )


def rename(names: Names, *modules: nn.Module) -> None:
    """Let modules run with the plate and the site renamed, unless they have the project's names."""
    if names == Names():
        return
    for module in modules:
        module.forward = _renamed(module.forward, names)


def _renamed(forward: Callable, names: Names) -> Callable:
    @wraps(forward)
    def inner(*args: Any, **kwargs: Any) -> Any:
        with Renamed(names):
            return forward(*args, **kwargs)

    return inner
