"""Importance weights of the guide's draws: bounds on the evidence, and diagnostics of the weights.

Shape legend: S draws, B images.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from pyro.ops.stats import fit_generalized_pareto
from torch import Tensor

from analysis.posterior.draws import passes
from inference.objectives import log_prob_per_image
from programs.blocks.nets import leaving_out_absent

SHORTEST = 25
"""Least number of draws from which a tail is fitted."""
LEAST = math.log(torch.finfo(torch.float64).tiny)
"""Least log-weight of a tail, relative to the largest (nats), as in ArviZ; lower ones have a weight of 0."""
EXACT = 1e-4
"""Largest difference of log-weights (nats) that count as equal."""


@torch.no_grad()
def log_weights(
    program: Callable, guide: Callable, images: Tensor, draws: int, rows: int | None = None
) -> Tensor:
    """log p(x, z) - log q(z | x) of independent draws z ~ q for every image.

    Of latents that are of all images every image has an equal share. Then the mean is the ELBO per image, and
    the sum over images the weight of a draw, but an image's own weight bounds nothing.

    Args:
        images: (B, C, H, W) in [0, 1], on the program's device.
        draws: S.
        rows: draws of images a pass; as many as have `VALUES` if not given.
    Returns:
        (S, B) in nats.
    """
    with leaving_out_absent():
        traces = passes(program, guide, images, draws, rows)
        parts = [
            log_prob_per_image(p, images=len(index)) - log_prob_per_image(q, images=len(index))
            for index, p, q in traces
        ]
    return torch.cat(parts).view(draws, len(images))


def iwae(weights: Tensor) -> Tensor:
    """(B,) log-mean-exp over draws (Burda et al., 2016) of log-weights (S, B), in nats."""
    return torch.logsumexp(weights, 0) - math.log(len(weights))


def ess(weights: Tensor) -> Tensor:
    """(B,) effective number of draws (Kong, 1992), between 1 and S, of log-weights (S, B)."""
    return 1 / weights.softmax(0).square().sum(0)


def khat(weights: Tensor) -> Tensor:
    """Shape of the upper tail of each image's importance weights (PSIS; Yao et al., 2018).

    Below 0.5 guide and weights are good, above min(1 - 1 / log10 S, 0.7) do not rely on them. At the same
    error per latent it grows with the number of latents: look at its distribution over images, not only at
    the limit 0.7. It is -inf if the largest weights are all equal, as when the guide is the posterior; NaN
    if fewer than 5 differ from the others, which are equal, as with a few discrete latents: that is no
    tail, see `ess`; inf if fewer than 5 weights are above 0.

    >>> khat(torch.zeros(25, 2)).tolist()  # the guide is the posterior
    [-inf, -inf]

    Args:
        weights: (S, B) log-weights in nats; S of 1,000 or more for a steady value.
    Returns:
        (B,).
    Raises:
        ValueError: there are fewer than `SHORTEST` draws.
    """
    draws = len(weights)
    if draws < SHORTEST:
        raise ValueError(
            f"{draws} draws have no tail to fit: give {SHORTEST}, better 1,000, or more"
        )
    tail = math.ceil(min(0.2 * draws, 3 * draws**0.5))
    return weights.new_tensor([_khat(column, tail) for column in weights.double().cpu().T])


def _khat(column: Tensor, tail: int) -> float:
    ordered = (column - column.max()).sort().values
    cut = ordered[-tail - 1].clamp(min=LEAST)
    above = ordered[ordered > cut + EXACT]
    if cut > -EXACT:
        return -math.inf
    if len(above) < 5:
        return math.inf if cut == LEAST else math.nan
    return float(fit_generalized_pareto(above.exp() - cut.exp())[0])
