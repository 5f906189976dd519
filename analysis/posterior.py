"""What a trained guide says of images: its mode as a Scene, and importance weights per image.

Everything here uses hard draws and probability-mass scoring, whatever estimator trained the guide.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from pyro import poutine
from pyro.poutine.messenger import Messenger
from pyro.poutine.subsample_messenger import _Subsample
from torch import Tensor

from inference.objectives import log_prob_per_image
from programs.scene import Scene, concatenate


class Mode(Messenger):
    """Every latent takes the most likely value of its own distribution instead of a draw."""

    def _pyro_sample(self, msg: dict) -> None:
        if not msg["is_observed"] and not isinstance(msg["fn"], _Subsample):
            msg["value"] = msg["fn"].mode
            msg["done"] = True


def infer(program: Callable, guide: Callable, images: Tensor, chunk: int = 100) -> Scene | None:
    """The scene at the guide's mode, site by site from the root down, presence by probability 1/2.

    None if the program returns no Scene.

    Args:
        images: (B, C, H, W) in [0, 1], on the program's device.
        chunk: images a pass.
    """
    scenes = []
    with torch.no_grad():
        for x in images.split(chunk):
            with Mode():
                trace = poutine.trace(guide).get_trace(x)
            scenes.append(poutine.replay(program, trace=trace)(x))
    return concatenate(scenes) if isinstance(scenes[0], Scene) else None


def log_weights(
    program: Callable, guide: Callable, images: Tensor, draws: int, chunk: int = 100
) -> Tensor:
    """log p(x, z) - log q(z | x) of `draws` independent draws z ~ q for every image.

    Returns:
        (draws, B) in nats. Its mean over draws is the ELBO, its log-mean-exp the IWAE bound.
    """
    with torch.no_grad():
        columns = [
            torch.stack([_log_weight(program, guide, x) for _ in range(draws)])
            for x in images.split(chunk)
        ]
    return torch.cat(columns, 1)


def iwae(weights: Tensor) -> Tensor:
    """(B,) log-mean-exp over draws (Burda et al., 2016) of log-weights (draws, B)."""
    return torch.logsumexp(weights, 0) - torch.tensor(float(len(weights))).log()


def _log_weight(program: Callable, guide: Callable, x: Tensor) -> Tensor:
    guide_trace = poutine.trace(guide).get_trace(x)
    program_trace = poutine.trace(poutine.replay(program, trace=guide_trace)).get_trace(x)
    return log_prob_per_image(program_trace) - log_prob_per_image(guide_trace)
