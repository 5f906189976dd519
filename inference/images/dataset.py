"""Images to learn from, with the truth about them where it is known; and which of them a step trains on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from programs.scene import Nodes, Scene
from programs.worlds import with_visible_masks

SPLITS = ("train", "validation", "test")


@dataclass(frozen=True)
class Dataset:
    """Images and, for worlds, the truth about them."""

    images: Tensor
    """(B, C, H, W) uint8; may be mapped from disk"""
    description: dict[str, Any]
    """what made them"""
    tables: tuple[dict[str, Tensor], ...] = ()
    """truth by level, without masks; empty for a folder of images"""
    labels: Tensor | None = None
    """(B, H, W) uint8, which `with_masks` reads the masks from; 0 is background, None where not known"""
    with_masks: Callable[[Scene, Tensor], Scene] = with_visible_masks
    """adds the masks that labels hold to scenes: the world's own"""

    @property
    def known(self) -> bool:
        """Whether there is truth."""
        return bool(self.tables)

    def first(self, number: int) -> Dataset:
        """The first images, and the truth about them."""
        tables = tuple({k: t[:number] for k, t in table.items()} for table in self.tables)
        labels = None if self.labels is None else self.labels[:number]
        return replace(self, images=self.images[:number], tables=tables, labels=labels)

    def floats(self, device: torch.device | str = "cpu", number: int | None = None) -> Tensor:
        """All or the first images, (B, C, H, W) in [0, 1] on a device."""
        return torch.as_tensor(self.images[:number]).to(device).float() / 255

    def truth(self, index: slice = slice(None)) -> Scene:
        """The true scenes of all or some images, masks included where they are known.

        Raises:
            ValueError: there is no truth.
        """
        if not self.known:
            raise ValueError("these images come from a folder: nothing is known about them")
        image = self.images[index].float() / 255
        levels = tuple(Nodes(**{k: t[index] for k, t in table.items()}) for table in self.tables)
        if self.labels is None:
            return Scene(image, levels)
        return self.with_masks(Scene(image, levels, torch.zeros_like(image)), self.labels[index])


def generator_of(*words: int) -> torch.Generator:
    """A generator for every tuple of numbers (on a CPU, torch uses the lower 32 bits of a seed)."""
    state = np.random.SeedSequence(words).generate_state(2, np.uint32)
    return torch.Generator().manual_seed(int(state[0]) << 31 ^ int(state[1]))


class Sampler:
    """Which images step `n` trains on: a new permutation every epoch, a pure function of the step.

    The last images of an epoch that do not fill a batch are left out.
    """

    def __init__(self, number: int, batch: int, seed: int) -> None:
        if not 1 <= batch <= number:
            raise ValueError(f"batch={batch}: expected 1 to {number}, the number of images")
        self.number, self.batch, self.seed = number, batch, seed
        self._epoch, self._order = -1, torch.empty(0)

    def indices(self, step: int) -> Tensor:
        """(batch,) int64."""
        epoch, place = divmod(step, self.number // self.batch)
        if epoch != self._epoch:
            order = torch.randperm(self.number, generator=generator_of(self.seed, epoch))
            self._epoch, self._order = epoch, order
        return self._order[place * self.batch : (place + 1) * self.batch]
