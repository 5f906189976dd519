"""Checks of programs' `Config` and of guides' inputs."""

from __future__ import annotations

import math
from dataclasses import fields
from typing import Any

from torch import Tensor


def check_positive(config: Any, *excepted: str) -> None:
    """See that all numbers in the fields of a Config, and in tuples there, are finite and above 0.

    Args:
        excepted: fields that may hold any number.
    Raises:
        ValueError: one is not; the message names the field.
    """
    for f in fields(config):
        value = getattr(config, f.name)
        entries = value if isinstance(value, tuple) else (value,)
        numbers = [n for n in entries if isinstance(n, int | float) and not isinstance(n, bool)]
        if f.name not in excepted and not all(0 < n < math.inf for n in numbers):
            raise ValueError(f"{f.name}={value}: expected above 0, and finite")


def check_learned(config: Any) -> None:
    """See that the field `learned` of a Config is a number of components: 0 for the paper's priors.

    Raises:
        ValueError: it is negative.
    """
    if config.learned < 0:
        raise ValueError(
            f"learned={config.learned}: expected 0 for the paper's priors, 1 for learned Gaussians, or the "
            "number of components of learned mixtures"
        )


def given(images: Tensor | None) -> Tensor:
    """The images that a guide infers from.

    Raises:
        ValueError: there are none.
    """
    if images is None:
        raise ValueError("a guide infers from images; call the program alone to sample the prior")
    return images
