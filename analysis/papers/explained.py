"""What a run's guide says of images of the run's world, with the truth beside it."""

from __future__ import annotations

from typing import NamedTuple

import pyro
from torch import Tensor

from analysis.posterior import infer
from inference.images.dataset import Dataset
from inference.runs import Trained
from programs.scene import Scene


class Explained(NamedTuple):
    """Images and the scenes that explain them."""

    data: Dataset
    images: Tensor
    """(B, C, H, W) in [0, 1]"""
    scene: Scene
    """scenes at the guide's mode, on the CPU"""

    @property
    def truth(self) -> Scene:
        """The true scenes.

        Raises:
            ValueError: they are not known.
        """
        return self.data.truth()


def explained(run: Trained, data: Dataset, seed: int, images: Tensor | None = None) -> Explained:
    """The scenes that a run's guide infers from a data set.

    Args:
        seed: of what is drawn here and, until another seed is set, afterwards.
        images: (B, C, H, W) in [0, 1], such as changed ones; by default those of `data`.
    """
    images = data.floats() if images is None else images
    pyro.set_rng_seed(seed)
    return Explained(data, images, infer(run.program, run.guide, images).cpu())
