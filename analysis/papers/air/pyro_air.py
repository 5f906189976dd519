"""AIR from Pyro's own examples, for ``analysis.benchmark --against analysis.papers.air.pyro_air:step``.

    python -m analysis.papers.air.pyro_air [--rate R] [--steps N] [--seed S]

trains it on our digits, and prints how many of 200 validation scenes it counts right. Ours at the same rate of
1e-4: ``python -m inference.svi programs/air.py --estimator nvil --set train.rate=0.1``.

The examples are not installed with Pyro: ``PYRO_EXAMPLES`` names the folder ``examples`` of a checkout of
https://github.com/pyro-ppl/pyro. The arguments are those that the example's README recommends.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyro
import torch
from pyro.infer import SVI, TraceGraph_ELBO
from torch import Tensor

from inference.command import command_line, told
from inference.images.dataset import Dataset
from inference.plan import Run, plan
from inference.prior_draws import floats

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
EVERY = 500
"""Training steps between two counts."""
PRESENCE = 0.01
"""Factor of the probability of every further object (the example's ``--z-pres-prior``)."""


def build(device: str, rate: float = 1e-4) -> tuple[Any, SVI]:
    """The example's model, and its training with ``TraceGraph_ELBO`` and learned baselines.

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
    model = AIR(**ARGUMENTS, use_cuda=device == "cuda")
    rates = lambda name: {"lr": 0.1 if "bl_" in name else rate}  # noqa: E731
    return model, SVI(model.model, model.guide, pyro.optim.Adam(rates), loss=TraceGraph_ELBO())


def step(images: Tensor) -> Callable[[], float]:
    """A training step on images (B, 1, 50, 50), always the same.

    Raises:
        ValueError: as `build` has it.
    """
    _, svi = build(images.device.type)
    pixels = images[:, 0]
    return lambda: svi.step(pixels, batch_size=len(pixels), z_pres_prior_p=presence)


@told
def main(arguments: list[str] | None = None) -> None:
    """Entry point."""
    a = command_line("analysis.papers.air.pyro_air", __doc__)
    a.add_argument("--rate", type=float, default=1e-4, help="of Adam (default: the example's)")
    a.add_argument("--steps", type=int, default=1500)
    a.add_argument("--seed", type=int, default=0)
    o = a.parse_args(arguments)
    pyro.set_rng_seed(o.seed)
    pyro.enable_validation(False)
    model, svi = build("cpu", o.rate)
    ours = plan(Run("programs/air.py", Path(), seed=o.seed, device="cpu"))
    training, held = ours.training_images(), ours.validation_images().first(200)
    numbers = torch.randint(len(training.images), (o.steps, ours.recipe.batch))
    for count, rows in enumerate(numbers, 1):
        pixels = floats(training.images[rows])[:, 0]
        svi.step(pixels, batch_size=len(pixels), z_pres_prior_p=presence)
        if count % EVERY == 0:
            print(f"step {count}  count accuracy {counted(model, held):.3f}", flush=True)


@torch.no_grad()
def counted(model: Any, held: Dataset) -> float:
    """Share of scenes whose number of objects the example's guide draws right."""
    pixels = floats(held.images)[:, 0]
    _, present = model.guide(pixels, len(pixels))
    found = torch.stack(present).sum(0).view(-1)
    return float((found == held.truth().objects.present.sum(1)).double().mean())


def presence(t: int) -> float:
    """Probability of a further object after `t`, so that p(n) falls by the factor `PRESENCE`."""
    share = [PRESENCE**n for n in range(ARGUMENTS["num_steps"] + 1)]
    return sum(share[t + 1 :]) / sum(share[t:])


if __name__ == "__main__":
    sys.exit(main())
