"""Questions about an image: what the posterior's draws say, a better scene, what another run sees.

Shape legend: S draws, B images (1 here), N slots.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.nn import functional as F

from analysis.posterior import SHORTEST, iwae, khat, passes
from analysis.posterior.refine import watch
from analysis.studio import latents, views
from analysis.studio.latents import Values
from analysis.studio.state import Bench, first_present, read
from inference.objectives import log_prob_per_image
from programs.scene import Nodes, Scene

DRAWS = 40
"""Draws of the posterior of an image."""
PART = 10
"""Draws that are made for one message."""
SHOWN = 12
"""Draws whose boxes are shown."""
ROUND = 16
"""Draws per round of a search."""
CHAINS = 4
"""Chains of a refinement."""


@dataclass(frozen=True)
class Found:
    """A step of a refinement."""

    values: Values
    """latents of the best scene so far"""
    log_p: float
    """its log p(x, z), nats"""
    effort: str
    """how much was looked at, in words"""


class Refiner(Protocol):
    """What makes a better scene of an image, step by step."""

    def __call__(
        self, program: Callable, guide: Callable, image: Tensor, seconds: float
    ) -> Iterator[Found]:
        """Yield what was found so far, and stop after the time."""
        ...


@torch.no_grad()
def best_of_draws(
    program: Callable, guide: Callable, image: Tensor, seconds: float
) -> Iterator[Found]:
    """Keep the guide's draw of the highest log p(x, z); begin with the guide's mode."""
    values = read(program, guide, image)
    told = latents.tell(program, values, image)
    best, tried = Found(values, float(told.log_prior[0] + told.log_likelihood[0]), "the mode"), 1
    yield best
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        for _, p, _ in passes(program, guide, image, ROUND):
            joint = log_prob_per_image(p, images=ROUND)
            row, tried = int(joint.argmax()), tried + len(joint)
            if float(joint[row]) > best.log_p:
                best = Found(latents.values_of(p, row), float(joint[row]), "")
        best = replace(best, effort=f"{tried:,} scenes")
        yield best


def refined(program: Callable, guide: Callable, image: Tensor, seconds: float) -> Iterator[Found]:
    """Move chains from the guide's draws towards the posterior, as `analysis.posterior.refine` does."""
    mode = read(program, guide, image)
    told = latents.tell(program, mode, image)
    best = Found(mode, float(told.log_prior[0] + told.log_likelihood[0]), "")
    for now in watch(program, guide, image, seconds, CHAINS):
        if float(now.log_p[0]) > best.log_p:
            values = {name: now.best[name].reshape(value.shape) for name, value in mode.items()}
            best = Found(values, float(now.log_p[0]), "")
        yield replace(best, effort=f"{now.sweeps} sweeps of {CHAINS} chains")


def search(program: Callable, guide: Callable, image: Tensor, seconds: float) -> Iterator[Found]:
    """Refine the scene of an image; where the program's latents do not allow that, draw from the guide."""
    ways: tuple[Refiner, ...] = (refined, best_of_draws)
    for way in ways:
        steps = way(program, guide, image, seconds)
        try:
            first = next(steps)
        except (ValueError, NotImplementedError):
            continue
        yield first
        yield from steps
        return


@dataclass
class Doubts:
    """Draws of the guide for one image, made a few at a time so that a page can do other things between."""

    scenes: list[Scene] = field(default_factory=list)
    weights: list[Tensor] = field(default_factory=list)

    @torch.no_grad()
    def more(self, bench: Bench) -> None:
        """Make `PART` draws more, up to `DRAWS`.

        Raises:
            ValueError: the scene is a dream, which has no image.
        """
        if bench.image is None:
            raise ValueError("a dream has no image, so it has no posterior")
        number = min(PART, DRAWS - self.number)
        if number < 1:
            return
        for index, p, q in passes(bench.program, bench.guide, bench.image, number):
            self.scenes.append(p.nodes["_RETURN"]["value"])
            logs = [log_prob_per_image(trace, images=len(index)) for trace in (p, q)]
            self.weights.append(logs[0] - logs[1])

    @property
    def number(self) -> int:
        """Draws so far."""
        return sum(map(len, self.weights))

    def table(self) -> dict[str, Any]:
        """Boxes of some draws, every node's uncertainty, ELBO, IWAE and k-hat, which needs `SHORTEST` draws."""
        weights = torch.cat(self.weights).unsqueeze(1)
        tail = float(khat(weights)[0]) if len(weights) >= SHORTEST else math.nan
        levels = range(len(self.scenes[0].levels))
        scenes = (s[k : k + 1] for s in self.scenes for k in range(len(s)))
        return {
            "draws": [views.levels(scene) for scene in islice(scenes, SHOWN)],
            "nodes": [_spread([s.levels[n] for s in self.scenes]) for n in levels],
            "elbo": views.finite(weights.mean()),
            "iwae": views.finite(iwae(weights)[0]),
            "khat": tail if math.isfinite(tail) else None,
            "number": len(weights),
            "more": len(weights) < DRAWS,
        }


def _spread(levels: list[Nodes]) -> list[dict[str, Any]]:
    """For each slot of a level: presence, and deviations of centre, size and depth where it is present."""
    pres = torch.cat([n.present for n in levels])
    columns = {
        "centre": torch.cat([n.centre for n in levels]),
        "size": torch.cat([n.extent for n in levels]),
        "depth": torch.cat([n.depth for n in levels]).unsqueeze(-1),
    }
    found = []
    for k in range(pres.shape[1]):
        there = pres[:, k]
        row: dict[str, Any] = {"presence": float(there.float().mean())}
        if int(there.sum()) > 1:
            row |= {name: float(c[there, k].std(0).norm()) for name, c in columns.items()}
        if levels[0].category is not None and there.any():
            kinds = torch.cat([n.category for n in levels])[there, k]
            row["classes"] = {int(c): float((kinds == c).float().mean()) for c in kinds.unique()}
        found.append(row)
    return found


def fitted(image: Tensor, program: Callable) -> Tensor:
    """A picture (1, C, H, W) at the size, and in the colours, of a program's images."""
    config = getattr(program, "config", None)
    size, colours = getattr(config, "size", None), getattr(config, "colours", None)
    if colours is not None and colours != image.shape[1]:
        image = image.mean(1, keepdim=True).expand(-1, colours, -1, -1)
    if size is not None and size != image.shape[-1]:
        image = F.interpolate(
            image, (size, size), mode="bilinear", antialias=True, align_corners=False
        )
    return image.contiguous()


@torch.no_grad()
def seen_by(bench: Bench, program: Callable, guide: Callable) -> dict[str, Any]:
    """What another run sees in the picture: its reconstruction, boxes, and log p(x, z).

    Raises:
        ValueError: the scene is a dream.
    """
    if bench.image is None:
        raise ValueError("a dream has no image: choose one to compare two runs on it")
    image = fitted(bench.image, program)
    other = Bench(program, guide)
    other.begin(image)
    scene: Scene = other.seen.scene
    return {
        "picture": views.url(scene.image[0]),
        "levels": views.levels(scene),
        "log_p": views.log_p(other),
        "error": float((scene.image - image).square().mean()),
        "selection": {"level": 0, "slot": first_present(scene).slot},
    }


def nearest(picture: Tensor, images: Tensor) -> int:
    """The index of the image (M, C, H, W) nearest to a picture (1, C, H, W) by squared error."""
    return int((images - picture).square().flatten(1).mean(1).argmin())
