"""Dead leaves whose pictures hold the true regions, in the two lowest bits of the blue channel.

This world is for ECON's figure 5, whose expert is trained with ground-truth masks. Slots count from the front,
so the bits hold the true regions and their order: 1 + the visible slot, 0 for the background. No channel
changes by more than 3 of 255.

Shape legend: B images, N slots, S pixels per side.
"""

from __future__ import annotations

import torch
from torch import Tensor

from programs.scene import Scene
from programs.worlds import dead_leaves
from programs.worlds.dead_leaves import Config, with_masks

__all__ = ["VERSION", "Config", "draw", "regions", "with_masks"]

VERSION = f"1 of {dead_leaves.VERSION}"
MOST = 3
"""Largest number of objects per scene, since two bits hold the slot."""
WHITE = 255


def draw(batch: int, generator: torch.Generator, config: Config) -> tuple[Scene, Tensor]:
    """Scenes without masks, and a label map (B, S, S) uint8, bit k of slot k's full mask.

    Raises:
        ValueError: scenes may have more than `MOST` objects.
    """
    if config.max_objects > MOST:
        raise ValueError(f"max_objects={config.max_objects}: expected at most {MOST}")
    scene, labels = dead_leaves.draw(batch, generator, config)
    masks = with_masks(scene, labels).objects.mask
    numbers = torch.arange(1, masks.shape[1] + 1)[:, None, None]
    seen = (masks * numbers).sum(1)
    pixels = (scene.image * WHITE).round().long()
    pixels[:, 2] = pixels[:, 2] // 4 * 4 + seen
    return Scene(pixels / WHITE, scene.levels, scene.background), labels


def regions(images: Tensor) -> Tensor:
    """(B, S, S) int64 of images (B, 3, S, S): 1 + the visible slot, 0 for the background."""
    return (images[:, 2] * WHITE).round().long() % 4
