"""Seven-part Compositional CLEVR (GSGN, ICLR 2021, appendix F): four more kinds of parts, still ten types.

`programs.worlds.compositional_clevr` with cones, ellipsoids, triangular prisms and flat discs beside cubes,
cylinders and spheres; six of the ten types have one of them or more.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from programs.scene import Scene
from programs.worlds import compositional_clevr
from programs.worlds.compositional_clevr import VERSION, draw, with_masks

__all__ = ["VERSION", "Config", "draw", "with_masks", "world"]


@dataclass(frozen=True)
class Config(compositional_clevr.Config):
    """What may be varied; the defaults are the paper's."""

    parts: int = 7


def world(batch: int, generator: torch.Generator, config: Config = Config()) -> Scene:
    """Draw `batch` scenes with their truth, `category` the type (0 to 9) and the part's shape (0 to 6)."""
    return compositional_clevr.world(batch, generator, config)
