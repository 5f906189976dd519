"""Calls of programs and guides without Pyro's record of their parameters, which no objective reads."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import pyro
from pyro.nn import PyroModule
from torch import nn


def unrecorded(function: Callable) -> Callable:
    """A program or guide whose networks, when it is called, are no param statements.

    Every access to a network of a `PyroModule` names each of its parameters to all effect handlers, of
    GSGN 218 per step. Modules with sites or constraints among their attributes (`PyroSample`,
    `PyroParam`), parameters in Pyro's store, and plain functions are left as they are.
    """
    if not isinstance(function, PyroModule) or not pyro.settings.get("module_local_params"):
        return function
    own = [m.__dict__ for m in function.modules() if isinstance(m, PyroModule)]
    if any(m.get("_pyro_samples") or m.get("_pyro_params") for m in own):
        return function
    return partial(nn.Module.__call__, function)
