"""Simulators: programs without learned parameters that return a Scene with the truth in it.

Here is what they share: the folder that generated and downloaded things are kept in, and the label
maps of scenes whose objects may overlap.

Shape legend: B images, N slots, H x W pixels.
"""

from __future__ import annotations

import os
from pathlib import Path

import torch
from torch import Tensor


def cache() -> Path:
    """``$SCENE_PROGRAMS_CACHE``, or ~/.cache/scene-programs."""
    default = Path.home() / ".cache" / "scene-programs"
    return Path(os.environ.get("SCENE_PROGRAMS_CACHE", default))


def pack(masks: Tensor) -> Tensor:
    """Masks (B, N, H, W) bool of at most 8 slots as a map (B, H, W) uint8: bit k is of slot k."""
    return (masks * _bits(masks.shape[1])).sum(1, dtype=torch.uint8)


def unpack(labels: Tensor, number: int) -> Tensor:
    """The masks (B, N, H, W) bool of `number` slots that `pack` has made `labels` (B, H, W) of."""
    return labels[:, None] & _bits(number) != 0


def _bits(number: int) -> Tensor:
    """(N, 1, 1) uint8."""
    assert number <= 8, f"{number} slots do not fit the 8 bits of a label"
    return torch.tensor([1 << k for k in range(number)], dtype=torch.uint8)[:, None, None]
