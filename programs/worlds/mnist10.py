"""MNIST-10: all ten digits, two or three a quadrant (GNM, NeurIPS 2020, section 5 and supplement).

`programs.worlds.mnist4_10` with the one layout; slots are by class.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from programs.scene import Scene
from programs.worlds import mnist4_10
from programs.worlds.mnist4_10 import VERSION, draw, prepare, with_masks
from programs.worlds.mnist4_10 import obeys_ten as obeys

__all__ = ["VERSION", "Config", "draw", "obeys", "prepare", "with_masks", "world"]


@dataclass(frozen=True)
class Config(mnist4_10.Config):
    """What may be varied; the defaults are the paper's."""

    layouts: tuple[int, ...] = (10,)


def world(batch: int, generator: torch.Generator, config: Config | None = None) -> Scene:
    """Draw `batch` scenes with their truth, a Scene of one level."""
    return mnist4_10.world(batch, generator, config or Config())
