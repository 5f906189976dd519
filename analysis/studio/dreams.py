"""Scenes of the prior under conditions: so many objects, so many of a class, some nodes held fixed.

Scenes are drawn in batches until one fits, so what is shown is an exact draw of the prior given the
condition, and the share of scenes that fit estimates the condition's probability.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from analysis import edit
from analysis.posterior import samples
from analysis.studio import latents
from analysis.studio.state import Bench, Selection
from programs.scene import Scene

BATCH = 32
"""Scenes per batch, after a first one alone."""
SECONDS = 5.0
"""Time after which a condition is given up."""


@dataclass(frozen=True)
class Condition:
    """What a dream has to have."""

    objects: int | None = None
    """number of present objects; None: any"""
    classes: Mapping[int, int] | None = None
    """class -> number of present objects of it"""
    held: Sequence[Selection] = ()
    """nodes that stay as they are, with all below them"""

    def fits(self, scene: Scene) -> Tensor:
        """(B,) bool: which scenes have it.

        Raises:
            ValueError: the scene has no objects, or no classes, to count.
        """
        good = torch.ones(len(scene), dtype=torch.bool)
        if self.objects is None and not self.classes:
            return good
        if not scene.levels:
            raise ValueError("this program's scenes have no objects to count")
        present = scene.objects.present
        if self.objects is not None:
            good &= present.sum(1) == self.objects
        for kind, number in (self.classes or {}).items():
            if scene.objects.category is None:
                raise ValueError("this program's objects have no classes")
            good &= ((scene.objects.category == kind) & present).sum(1) == number
        return good


@dataclass(frozen=True)
class Dreamt:
    """A scene of the prior that fits, and how many were drawn."""

    values: latents.Values
    drawn: int
    fitting: int


def dream(bench: Bench, condition: Condition, seconds: float = SECONDS) -> Dreamt:
    """Draw scenes until one fits.

    Raises:
        ValueError: none did in the time, or the program cannot be sampled.
    """
    if not samples(bench.program):
        raise ValueError("this program takes no argument batch, so it cannot be sampled")
    drawn, end = 0, time.monotonic() + seconds
    free = condition.objects is None and not condition.classes
    batch = 1 if free else BATCH
    while True:
        with torch.no_grad():
            trace = _draw(bench, condition, batch)
            told = latents.told_by(trace, False)
        drawn += batch
        fitting = condition.fits(told.scene).nonzero()[:, 0].tolist()
        if fitting:
            return Dreamt(latents.values_of(trace, fitting[0]), drawn, len(fitting))
        if time.monotonic() > end:
            raise ValueError(
                f"none of {drawn:,} scenes of the prior fits: ask for something likelier"
            )


def _draw(bench: Bench, condition: Condition, batch: int) -> latents.Trace:
    """A batch of scenes of the prior, with the nodes that are held."""
    if not condition.held:
        return latents.run(bench.program, {}, None, batch)
    told = bench.seen.told
    afresh = {
        name: torch.ones(site["fn"].batch_shape, dtype=torch.bool)
        for name, site in latents.own_latents(told.trace).items()
    }
    for at in condition.held:
        for name, mask in latents.own_sites(told, at.slot, at.level).items():
            afresh[name] = afresh[name] & ~mask
    with edit.Afresh(afresh):
        return latents.run(bench.program, _repeated(told, bench.hand.values, batch), None, batch)


def _repeated(told: latents.Told, values: latents.Values, batch: int) -> dict[str, Tensor]:
    """The latents of one scene for a batch of them."""
    found = {}
    for name, value in values.items():
        dim = latents.site_of(told.trace.nodes[name]).batch
        if dim is not None:
            shape = [*value.shape]
            shape[dim] = batch
            value = value.expand(shape)
        found[name] = value
    return found
