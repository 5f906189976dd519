"""AIR from Pyro's own examples, for ``analysis.benchmark --against analysis.papers.air.pyro_air:step``.

The examples are not installed with Pyro: ``PYRO_EXAMPLES`` names the folder ``examples`` of a checkout of
https://github.com/pyro-ppl/pyro. The arguments are those that the example's README recommends.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path

import pyro
from pyro.infer import SVI, TraceGraph_ELBO
from torch import Tensor

ARGUMENTS = {
    "num_steps": 3,
    "x_size": 50,
    "window_size": 28,
    "z_what_size": 50,
    "rnn_hidden_size": 256,
    "encoder_net": [200],
    "decoder_net": [200],
    "predict_net": [200],
    "bl_predict_net": [200],
    "decoder_output_bias": -2,
    "decoder_output_use_sigmoid": True,
    "scale_prior_sd": 0.2,
}
PRESENCE = 0.01
"""Factor of the probability of every further object (the example's ``--z-pres-prior``)."""


def step(images: Tensor) -> Callable[[], float]:
    """A training step with ``TraceGraph_ELBO`` and its learned baselines, on images (B, 1, 50, 50).

    Raises:
        ValueError: PYRO_EXAMPLES is not set, or has no ``air/air.py``.
    """
    folder = Path(os.environ.get("PYRO_EXAMPLES", "")) / "air"
    if not (folder / "air.py").is_file():
        raise ValueError(
            f"no {folder / 'air.py'}: set PYRO_EXAMPLES to the folder examples of a checkout of Pyro"
        )
    sys.path.insert(0, str(folder))
    from air import AIR

    pyro.clear_param_store()
    model = AIR(**ARGUMENTS, use_cuda=images.is_cuda)
    rates = lambda name: {"lr": 0.1 if "bl_" in name else 1e-4}  # noqa: E731
    svi = SVI(model.model, model.guide, pyro.optim.Adam(rates), loss=TraceGraph_ELBO())
    pixels = images[:, 0]
    return lambda: svi.step(pixels, batch_size=len(pixels), z_pres_prior_p=presence)


def presence(t: int) -> float:
    """Probability of a further object after `t`, so that p(n) falls by the factor `PRESENCE`."""
    share = [PRESENCE**n for n in range(ARGUMENTS["num_steps"] + 1)]
    return sum(share[t + 1 :]) / sum(share[t:])
