"""Read the classes of nodes from their latents, by a small net.

A node's class is that of the nearest true node of its level. The net is trained on latents at the guide's mode;
the last fourth of the scenes is held out.

Shape legend: B images, N slots, M nodes, D features.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from pyro import poutine
from pyro.poutine import Trace
from torch import Tensor
from torch.nn import functional as F

from analysis.judges.nets import fit, seeded
from analysis.posterior import latent_sites, modes, plate_names, within_batch
from inference.images.dataset import Dataset
from programs.blocks.nets import mlp

APPEARANCE = ("z_cat", "z_attr", "z_what")
"""Symbols of the latents that say what a node looks like."""
HIDDEN = 128
"""Hidden width of the net."""
STEPS = 800
"""Training steps of the net."""
BATCH = 128
"""Nodes per training step."""
RATE = 3e-3
"""Peak learning rate."""
APART = 4
"""One in so many scenes is held out."""


class Told(NamedTuple):
    """How well classes are told from latents, on held-out scenes."""

    accuracy: float
    """share of nodes whose class the net names"""
    chance: float
    """share of the most frequent class"""
    number: int
    """nodes that this is measured on"""


def told(
    program: Callable, guide: Callable, data: Dataset, level: int = 1, seed: int = 0
) -> Told | None:
    """How well the classes of a level's nodes are told from their latents; None if too few nodes are found.

    Args:
        data: scenes with truth.
        level: 1 for objects, 2 for parts.
        seed: of the net.
    Raises:
        ValueError: the guide has no such latents, or the truth no classes.
    """
    what, kind, image = described(program, guide, data, level)
    apart = image >= len(data.images) - len(data.images) // APART
    if not apart.any() or apart.all():
        return None
    chance = float(kind[apart].bincount().max() / apart.sum())
    return Told(accuracy(what, kind, apart, seed), chance, int(apart.sum()))


def describes(guide: Callable, images: Tensor) -> bool:
    """Whether a guide has latents of a node's appearance."""
    with torch.no_grad():
        latents = latent_sites(poutine.trace(guide).get_trace(images))
    return any(name.startswith(APPEARANCE) for name in latents)


@torch.no_grad()
def described(
    program: Callable, guide: Callable, data: Dataset, level: int = 1
) -> tuple[Tensor, Tensor, Tensor]:
    """Latents (M, D) of a level's nodes that the guide's mode finds, their classes (M,), and their images (M,).

    A node's class is that of the true one whose centre is nearest.

    Raises:
        ValueError: as `told`.
    """
    device = next((p.device for p in program.parameters()), torch.device("cpu"))
    images, truth = data.floats(device), data.truth()
    if len(truth.levels) < level or truth.levels[level - 1].category is None:
        raise ValueError(f"the truth of these images has no classes at level {level}")
    found, start = [], 0
    for scene, trace in modes(program, guide, images):
        nodes = scene.cpu().levels[level - 1]
        rows = slice(start, start := start + len(nodes.pres))
        true = truth[rows].levels[level - 1]
        distance = (nodes.centre[:, :, None] - true.centre[:, None]).norm(dim=-1)
        distance = distance.where(true.present[:, None], torch.inf)
        kind = true.category.gather(1, distance.argmin(-1))
        what = appearance(trace, level, nodes.pres.shape[1]).cpu()
        there = nodes.present & true.present.any(1, keepdim=True)
        image = torch.arange(rows.start, rows.stop)[:, None].expand_as(there)
        found.append((what[there], kind[there], image[there]))
    return tuple(torch.cat(column) for column in zip(*found, strict=True))


def appearance(trace: Trace, level: int, slots: int) -> Tensor:
    """(B, N, D) appearances of the nodes of a level: the sites `APPEARANCE`, side by side.

    Args:
        trace: trace of a guide.
        level: 1 for objects. Their sites are those in a plate ``nodes_<level>``; in a program without such
            plates, those of its steps.
        slots: N; steps after these (ECON's background) are no nodes.
    Raises:
        ValueError: there are no such sites.
    """
    sites = latent_sites(trace)
    leveled = any(p.startswith("nodes_") for site in sites.values() for p in plate_names(site))
    columns = []
    for symbol in APPEARANCE:
        own = [site for name, site in sites.items() if symbol in (name, name.rpartition("_")[0])]
        if leveled:
            own = [site for site in own if f"nodes_{level}" in plate_names(site)]
            columns += [within_batch(site).flatten(2) for site in own]
        elif own:
            columns.append(torch.stack([within_batch(site).flatten(1) for site in own[:slots]], 1))
    if not columns:
        raise ValueError(
            f"the guide has no {', '.join(APPEARANCE)} at level {level}; it samples {list(sites)}"
        )
    return torch.cat([column.float() for column in columns], -1)


def accuracy(what: Tensor, kind: Tensor, apart: Tensor, seed: int = 0) -> float:
    """Share of held-out nodes whose class a two-layer MLP names; it is trained on the others.

    Args:
        what: (M, D).
        kind: (M,) classes.
        apart: (M,) bool, the held-out nodes; some, but not all.
    """
    scale = what[~apart].std(0, correction=0).clamp(min=1e-6)
    x = (what - what[~apart].mean(0)) / scale
    own, classes = x[~apart], kind[~apart]
    net = seeded(lambda: mlp(x.shape[1], [HIDDEN], int(kind.max()) + 1), seed)

    def loss(rows: Tensor) -> Tensor:
        return F.cross_entropy(net(own[rows]), classes[rows])

    fit(net, loss, len(own), batch=BATCH, steps=STEPS, rate=RATE, seed=seed)
    with torch.no_grad():
        return float((net(x[apart]).argmax(-1) == kind[apart]).double().mean())
