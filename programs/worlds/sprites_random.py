"""Randomly coloured objects (ECON, section C.1): a circle, a square and a triangle on each other.

`programs.worlds.dead_leaves` with the paper's numbers; 4 or 5 objects and repeated classes, which a model
has not been trained on, by ``max_objects`` and ``repeats``.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from programs.scene import Scene
from programs.worlds import dead_leaves
from programs.worlds.dead_leaves import VERSION, draw, with_masks

__all__ = ["VERSION", "Config", "draw", "with_masks", "world"]


@dataclass(frozen=True)
class Config(dead_leaves.Config):
    """What may be varied; the defaults are the paper's."""

    colour: str = "random"


def world(batch: int, generator: torch.Generator, config: Config = Config()) -> Scene:
    """Draw `batch` scenes with their truth, a Scene of one level; `category` is -1 where absent."""
    return dead_leaves.world(batch, generator, config)
