"""Programs in their authors' words: the plate of the images and the observed site may have any name.

The project calls them ``batch`` and ``images``. A program that calls them otherwise, as Pyro's own examples
do, is run as it is; an effect handler around program and guide gives the plate and the site the names known
here.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any, NamedTuple

import torch
from pyro import poutine
from pyro.poutine import Trace
from pyro.poutine.messenger import Messenger
from torch import Tensor, nn

from inference.objectives import is_plate

PLATE = "batch"
SITE = "images"
BATCHES = (2, 3)
"""Numbers of images by which the plate is told from plates of other things."""


class Names(NamedTuple):
    """What a program calls the plate of the images and the site at which they are observed."""

    plate: str = PLATE
    site: str = SITE


class Renamed(Messenger):
    """Within, the plate and the site have the names known here."""

    def __init__(self, names: Names) -> None:
        super().__init__()
        self.names = names

    def _process_message(self, msg: dict) -> None:
        plate, site = self.names
        msg["name"] = {plate: PLATE, site: SITE}.get(msg["name"], msg["name"])
        msg["cond_indep_stack"] = tuple(
            frame._replace(name=PLATE) if frame.name == plate else frame
            for frame in msg["cond_indep_stack"]
        )


@torch.no_grad()
def find_names(program: Callable, x: Tensor) -> Names:
    """What a program calls the plate of the images and the observed site.

    Args:
        x: (B, C, H, W) some images.
    Raises:
        ValueError: no site is observed, or that of the images is in no plate of as many as there are images.
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
    return poutine.trace(program).get_trace(images)


def _observed(trace: Trace, x: Tensor) -> str:
    """The site of the images: ``images``, else the first observed of as many numbers, else the first."""
    observed = [
        name
        for name, site in trace.nodes.items()
        if site["type"] == "sample" and site["is_observed"] and not is_plate(site)
    ]
    if not observed:
        raise ValueError(
            'the program observes nothing: write pyro.sample("images", …, obs=images) for the images'
        )
    numbers = BATCHES[0] * x[0].numel()
    alike = [name for name in observed if trace.nodes[name]["value"].numel() == numbers]
    return SITE if SITE in observed else [*alike, *observed][0]


def rename(names: Names, *modules: nn.Module) -> None:
    """Let modules run with the plate and the site renamed, unless they have the names known here."""
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
