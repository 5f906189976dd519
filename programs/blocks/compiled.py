"""Functions that numba compiles when they are first called; the result is kept on disk where that is possible."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import numba

F = TypeVar("F", bound=Callable)

ROUNDING = {"contract", "reassoc", "arcp", "nsz"}
"""What a compiled function may change in the order of floating-point operations; NaN stays NaN."""


def compiled(function: F) -> F:
    """The function, compiled for the types of its arguments at its first call."""
    options = {"error_model": "numpy", "fastmath": ROUNDING, "nogil": True}
    try:
        return numba.njit(cache=True, **options)(function)
    except RuntimeError:  # no folder that numba knows of can be written
        return numba.njit(**options)(function)
