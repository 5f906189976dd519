"""Functions that numba compiles when they are first called; the result is kept on disk where one can write."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import numba

F = TypeVar("F", bound=Callable)

ROUNDING = {"contract", "reassoc", "arcp", "nsz"}
"""What a compiled function may change in the order of floating-point operations; NaN stays NaN."""


def compiled(function: F) -> F:
    """The function, compiled for the types of its arguments at its first call."""
    return _compiled(function)


def inlined(function: F) -> F:
    """The same, for what is called for every pixel: passing arrays on takes longer than the work."""
    return _compiled(function, forceinline=True)


def _compiled(function: F, **more: bool) -> F:
    options = {"error_model": "numpy", "fastmath": ROUNDING, "nogil": True, **more}
    try:
        return numba.njit(cache=True, **options)(function)
    except RuntimeError:  # no folder that numba knows of can be written
        return numba.njit(**options)(function)
