"""Refined chains in ArviZ's form, with R-hat and the effective number of draws.

Unlike draws of a guide those of a chain depend on each other, so ArviZ's diagnostics of chains apply: R-hat
near 1 says that chains agree, a small number of effective draws that they move slowly. Read them on the
quantities of the scenes: these do not depend on slots, which chains number as they like.

Shape legend: S chains, D draws of each, B images.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from typing import Any

import torch

from analysis.posterior import quantities
from analysis.posterior.refine.refined import Refined
from analysis.posterior.to_arviz import (
    SAMPLE,
    arviz,
    attributes,
    container,
    dataset,
    truth_group,
)
from programs.scene import Scene

LEAST = 4
"""Fewest draws per chain of which ArviZ gives R-hat."""


def chains_to_inference_data(
    program: Callable,
    guide: Callable,
    refined: Refined,
    truth: Scene | None = None,
    attrs: Mapping[str, Any] = {},
) -> Any:
    """Chains of `refine` in ArviZ's form: InferenceData (ArviZ 0.x) or DataTree (1.x).

    ==============  ================================================================================
    posterior       latents by site and quantities of the scenes, (chain, draw, image, …)
    sample_stats    lp: log p(x, z) (chain, draw, image); evidence, best_lp (image), nats
    constant_data   quantities of the truth
    ==============  ================================================================================

    Args:
        truth: the true Scene of the same images.
        attrs: further attributes of the file.
    Raises:
        ValueError: the budget was spent before a chain had a draw.
    """
    if not refined.draws:
        raise ValueError(
            "no chain has a draw: give refine more seconds or sweeps, or less tempering"
        )
    tables = refined.draws | refined.quantities
    groups = {
        "posterior": dataset({name: (SAMPLE, value) for name, value in tables.items()}),
        "sample_stats": dataset(
            {
                "lp": (SAMPLE, refined.draws_log_p),
                "evidence": (SAMPLE[2:], refined.evidence),
                "best_lp": (SAMPLE[2:], refined.log_p),
            }
        ),
    }
    if truth is not None:
        groups["constant_data"] = truth_group(quantities.measure(truth), {})
    moved = {f"accepted {name}": share for name, share in refined.accepted.items()}
    own = {"draws": "chains of analysis.posterior.refine", "sweeps": refined.sweeps}
    return container(groups, attributes(program, guide, own | moved | dict(attrs)))


def diagnostics(data: Any) -> dict[str, dict[str, torch.Tensor]]:
    """R-hat and effective number of draws of each quantity of the scenes.

    Returns:
        quantity -> ``rhat`` and ``ess``, (B, …) each; R-hat is NaN where all draws of an image are equal.
    Raises:
        ValueError: there are fewer than `LEAST` draws per chain.
    """
    posterior = data["posterior"]
    if posterior.sizes["draw"] < LEAST:
        raise ValueError(
            f"{posterior.sizes['draw']} draws per chain: R-hat needs {LEAST}; give refine a larger budget"
        )
    names = [name for name in quantities.OF_SCENES if name in posterior]
    found: dict[str, dict[str, torch.Tensor]] = {name: {} for name in names}
    for measure in ("rhat", "ess"):
        for name in names:
            with warnings.catch_warnings():  # of 0 / 0, where all draws are equal
                warnings.simplefilter("ignore", RuntimeWarning)
                value = getattr(arviz(), measure)(posterior[name].astype(float))
            value = value[name] if hasattr(value, "data_vars") else value
            found[name][measure] = torch.as_tensor(value.values)
    return found
