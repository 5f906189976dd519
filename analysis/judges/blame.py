"""Find the site whose prior is to blame for bad samples, by exchanging sites between guide and prior.

    only one from the prior    all other latents are the guide's, of unseen images
    only one from the guide    all other latents are drawn from the prior, given it

Shape legend: B images.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from pyro import poutine
from pyro.poutine import Trace
from torch import Tensor

from inference.objectives import is_aside

PASS = 100
"""Images per pass."""
STEPWISE = (
    "z_pres",
    "z_where",
    "z_scale",
    "z_cat",
    "z_theta",
    "z_attr",
    "z_what",
    "z_mask",
    "z_layer",
    "z_bg_mask",
)
"""Symbols whose sites form one group if their number counts steps, not levels of a tree."""


def groups(program: Callable, guide: Callable, images: Tensor) -> dict[str, list[str]]:
    """Latent sites by pattern: one per site, or one per symbol that a program draws step by step."""
    with torch.no_grad():
        nodes = poutine.trace(guide).get_trace(images[:2]).nodes
    latent = [(n, s) for n, s in nodes.items() if s["type"] == "sample" and not is_aside(s)]
    found: dict[str, list[str]] = {}
    for name, site in latent:
        levels = any(frame.name.startswith("nodes_") for frame in site["cond_indep_stack"])
        stem = name.rstrip("0123456789").rstrip("_")
        pattern = f"{stem}_*" if stem in STEPWISE and name != stem and not levels else name
        found.setdefault(pattern, []).append(name)
    return found


@torch.no_grad()
def exchanged(program: Callable, traces: list[Trace], kept: list[str]) -> Tensor:
    """Images (B, C, S, S) of scenes whose sites `kept` are the guide's, the others drawn from the prior."""
    parts = []
    for trace in traces:
        given = {name: trace.nodes[name]["value"] for name in kept}
        number = next(f.size for f in _stack(trace) if f.name == "batch")
        parts.append(poutine.condition(program, data=given)(batch=number).image.cpu())
    return torch.cat(parts)


def _stack(trace: Trace) -> Iterator:
    for site in trace.nodes.values():
        if site["type"] == "sample":
            yield from site["cond_indep_stack"]


@torch.no_grad()
def draws(guide: Callable, images: Tensor) -> list[Trace]:
    """The guide's draws for images (B, C, S, S) in [0, 1], `PASS` images at a time."""
    return [poutine.trace(guide).get_trace(x) for x in images.split(PASS)]


def exchanges(
    program: Callable, guide: Callable, images: Tensor
) -> Iterator[tuple[str, str, Tensor]]:
    """Make every exchange of one group of sites.

    Yields:
        The pattern, ``prior`` or ``guide`` (the source of this group alone), and images (B, C, S, S). First
        comes ``none`` with all sites from the guide, then with all from the prior.
    """
    found, traces = groups(program, guide, images), draws(guide, images)
    every = [name for names in found.values() for name in names]
    yield "none", "prior", exchanged(program, traces, every)
    yield "none", "guide", exchanged(program, traces, [])
    for pattern, names in found.items():
        rest = [name for name in every if name not in names]
        yield pattern, "prior", exchanged(program, traces, rest)
        yield pattern, "guide", exchanged(program, traces, names)
