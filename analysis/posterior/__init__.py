"""Inference with a trained guide: its mode as a Scene, hard draws, and importance weights.

Everything here uses hard draws and probability-mass scoring, whatever estimator trained the guide. Draws of
an image are further rows of the batch, so any program with a plate ``batch`` is vectorised over draws and
images.

The primitive is a table of log-weights log p(x, z) - log q(z | x), (draws, images), in nats. Its mean over
draws is the ELBO, its log-mean-exp the IWAE bound; `ess` and `khat` measure whether the weights can be
trusted.

Shape legend: S draws, B images.
"""

from analysis.posterior.draws import (
    PRIOR_ROWS,
    Draws,
    Mode,
    Quantities,
    best_of,
    check_images,
    draw,
    draw_prior,
    infer,
    latent_sites,
    modes,
    observed_sites,
    passes,
    plate_names,
    prior_scenes,
    replicate,
    samples,
    shared_latents,
    simulations,
    within_batch,
)
from analysis.posterior.weights import SHORTEST, ess, iwae, khat, log_weights

__all__ = [
    "PRIOR_ROWS",
    "SHORTEST",
    "Draws",
    "Mode",
    "Quantities",
    "best_of",
    "check_images",
    "draw",
    "draw_prior",
    "ess",
    "infer",
    "iwae",
    "khat",
    "latent_sites",
    "log_weights",
    "modes",
    "observed_sites",
    "passes",
    "plate_names",
    "prior_scenes",
    "replicate",
    "samples",
    "shared_latents",
    "simulations",
    "within_batch",
]
