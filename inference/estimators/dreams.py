"""Scenes that a program dreams: latents and images from its prior, and the orders of their objects.

Shape legend: B images, T steps, P pairs of an image and an order.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import permutations
from typing import Any

import torch
from pyro import poutine
from pyro.poutine import Trace
from torch import Tensor

from inference.estimators.handlers import Choose, Fix
from inference.estimators.origins import apart
from inference.estimators.passes import latents_of, plates
from inference.estimators.sites import batch_dim

PRESENCE = re.compile(r"z_pres_(\d+)")
"""Names of the presences of objects that are drawn one after the other."""
STEP = re.compile(r"(.+)_(\d+)")
"""Names of sites with a step."""


@dataclass(frozen=True)
class Dream:
    """Scenes of the prior, and their images."""

    images: Tensor
    """(B, C, H, W)"""
    values: dict[str, Tensor]
    """the latents by site"""
    sizes: dict[str, Tensor]
    """what the plates draw"""
    trace: Trace


def seen_site(program: Callable, images: Tensor, who: str) -> str:
    """Name of the observed site that has as many numbers as the images.

    Raises:
        ValueError: the program does not dream; `who` is the estimator that asks.
    """
    try:
        with apart(program), torch.no_grad():
            trace = poutine.trace(program).get_trace(images)
            dream = poutine.trace(program).get_trace(batch=len(images))
    except TypeError as error:
        raise ValueError(
            f"{who} dreams, and this program does not: let program(batch=B) draw B images"
        ) from error
    observed = {n: trace.nodes[n]["value"] for n in trace.observation_nodes if n in dream.nodes}
    size = images.numel()
    seen = next((n for n, value in observed.items() if value.numel() == size), "")
    if not seen:
        raise ValueError(
            f"{who} dreams, and no observed site of program(batch=B) has the size of images "
            f"{tuple(images.shape)}"
        )
    return seen


@torch.no_grad()
def dream(program: Callable, seen: str, shape: torch.Size, clear: int = 0) -> Dream:
    """Scenes of the prior with images of a shape (B, C, H, W), of the observed site `seen`.

    Args:
        clear: every image with this number is its mean, without the noise of its pixels; 0 for none.
    """
    with Choose():
        trace = poutine.trace(program).get_trace(batch=shape[0])
    site = trace.nodes[seen]
    dim = batch_dim(seen, site) - site["fn"].event_dim
    images = site["value"].movedim(dim, 0).reshape(shape)
    if clear:
        mean = site["fn"].mean.expand_as(site["value"]).movedim(dim, 0).reshape(shape)
        images = images.clone()
        images[::clear] = mean[::clear].clamp(0, 1)
    values = {n: trace.nodes[n]["value"] for n in latents_of(trace) if n != seen}
    return Dream(images, values, plates(trace), trace)


def read(guide: Callable, found: Dream) -> tuple[Tensor, Trace]:
    """The guide's trace of dreamt images, at the latents of the dream in all orders of its objects.

    Returns:
        (P,) the image of every order, and the trace, with P in the place of B.
    """
    rows, values = reordered(found)
    sizes = found.sizes if len(rows) == len(found.images) else {}
    with Fix(sizes | values):
        return rows, poutine.trace(guide).get_trace(found.images[rows])


def steps_of(sites: Mapping[str, Any]) -> tuple[list[str], dict[str, list[str]]]:
    """Presences of objects that are drawn one after the other, and the other sites of each kind.

    Args:
        sites: latents of a trace; those of one object lie in the plate ``batch`` alone.
    Returns:
        The T names of presences, by step; and for every other kind of site of which there are T its names.
        Nothing, if there are no two presences of single objects.
    """
    named = [n for n in sites if PRESENCE.fullmatch(n) and _single(sites[n])]
    presences = sorted(named, key=lambda n: int(PRESENCE.fullmatch(n)[1]))
    if len(presences) < 2:
        return [], {}
    kinds: dict[str, list[tuple[int, str]]] = {}
    for name in sites:
        parts = STEP.fullmatch(name)
        if parts and name not in presences and _single(sites[name]):
            kinds.setdefault(parts[1], []).append((int(parts[2]), name))
    whole = {k: [n for _, n in sorted(v)] for k, v in kinds.items() if len(v) == len(presences)}
    return presences, whole


def _single(site: Mapping[str, Any]) -> bool:
    return [frame.name for frame in site["cond_indep_stack"] if frame.vectorized] == ["batch"]


def orders(number: Tensor, steps: int) -> tuple[Tensor, Tensor]:
    """All orders of the first n of T objects, for numbers n (B,).

    >>> rows, order = orders(torch.tensor([1, 2]), 3)
    >>> rows.tolist(), order.tolist()
    ([0, 1, 1], [[0, 1, 2], [0, 1, 2], [1, 0, 2]])

    Returns:
        (P,) the image of each order, and (P, T) the step from which each step takes its object.
    """
    rows, found = [], []
    for row, n in enumerate(number.tolist()):
        for first in permutations(range(n)):
            rows.append(row)
            found.append([*first, *range(n, steps)])
    device = number.device
    return torch.tensor(rows, device=device), torch.tensor(found, device=device)


def reordered(found: Dream) -> tuple[Tensor, dict[str, Tensor]]:
    """The dream's latents in all orders of their objects, where objects are drawn one after the other.

    A guide explains objects in an order of its own. Which of a dream's objects is the program's first is no
    part of its image; in a program of slots it is, and there a dream has one order.

    Returns:
        (P,) the image of every order, and the latents with P in the place of B.
    """
    sites = {n: found.trace.nodes[n] for n in found.values}
    presences, kinds = steps_of(sites)
    number = len(found.images)
    if not presences:
        return torch.arange(number, device=found.images.device), found.values
    there = torch.stack([found.values[n] for n in presences], 1).cumprod(1).sum(1).long()
    rows, order = orders(there, len(presences))
    values = {n: v.movedim(_batch(n, sites), 0)[rows] for n, v in found.values.items()}
    for names in kinds.values():
        stacked = torch.stack([values[n] for n in names], 1)
        moved = stacked[torch.arange(len(rows), device=rows.device)[:, None], order]
        values |= dict(zip(names, moved.unbind(1), strict=True))
    return rows, {n: v.movedim(0, _batch(n, sites)) for n, v in values.items()}


def _batch(name: str, sites: Mapping[str, Any]) -> int:
    """Dimension of a site's value along which images lie, counted from the end."""
    return batch_dim(name, sites[name]) - sites[name]["fn"].event_dim
