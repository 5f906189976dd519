"""How the networks of a program and its guide compute: precision, memory layout, compilation.

A network is a submodule whose class is torch's own (`nn.Sequential`, `nn.Linear`, `nn.Conv2d`, …) or a kind of
`nn.Sequential`, has parameters, and lies in no other network. Computations of programs themselves (likelihoods,
KLs, rendering) do not change, and neither do checkpoints, so a run can continue under other settings.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from functools import wraps
from typing import Any

import torch
from torch import Tensor, nn

from programs.blocks.names import unknown

PRECISIONS = ("float32", "bf16")
LAYOUTS = ("contiguous", "channels_last")
AUTO = "auto"
"""Precision or layout of which the fastest is taken (`inference.machine.choice`)."""
LISTS = (nn.ModuleList, nn.ModuleDict, nn.ParameterList, nn.ParameterDict)
SEVERAL = (nn.RNNBase, nn.RNNCellBase, nn.MultiheadAttention, nn.Transformer)
"""Modules that take or return more than one tensor; they are left unchanged."""


def check(precision: str, layout: str) -> None:
    """Check that both names are known.

    Raises:
        ValueError: one is unknown; the message lists the known ones.
    """
    for name, value, known in (("precision", precision, PRECISIONS), ("layout", layout, LAYOUTS)):
        if value not in (*known, AUTO):
            raise ValueError(unknown(f"train.{name}", value, (*known, AUTO)))


def find(module: nn.Module) -> Iterator[nn.Module]:
    """The networks in a module."""
    own = type(module).__module__.startswith("torch.nn.") or isinstance(module, nn.Sequential)
    if own and isinstance(module, SEVERAL):
        return
    if own and not isinstance(module, LISTS):
        if any(True for _ in module.parameters()):
            yield module
        return
    for child in module.children():
        yield from find(child)


def prepare(modules: Iterable[nn.Module], precision: str, layout: str, compiled: bool) -> None:
    """Set how the networks in modules compute, in place.

    Args:
        precision: ``bf16`` runs them under autocast in training, with float32 inputs and outputs.
        layout: memory layout of convolutions' weights, such as ``channels_last``.
        compiled: whether each is compiled by `torch.compile`.

    Raises:
        ValueError: there is no network.
    """
    changed = {
        "precision=bf16": precision == "bf16",
        "layout=channels_last": layout != LAYOUTS[0],
        "compile=True": compiled,
    }
    asked = [f"train.{name}" for name, on in changed.items() if on]
    if not asked:
        return
    found = list(dict.fromkeys(network for module in modules for network in find(module)))
    if not found:
        raise ValueError(
            f"{', '.join(asked)} is for torch's modules (nn.Sequential, nn.Linear, nn.Conv2d) in the classes "
            "Program and Guide, and there are none: leave it out"
        )
    for network in found:
        if layout == "channels_last":
            network.to(memory_format=torch.channels_last)
        if precision == "bf16":
            network.forward = _half(network)
        if compiled:
            network.compile()


def _half(network: nn.Module) -> Callable[..., Tensor]:
    """A network's `forward` in bfloat16 while it trains; evaluation stays float32."""
    forward, device = network.forward, next(network.parameters()).device.type

    @wraps(forward)
    def half(*args: Any, **kwargs: Any) -> Tensor:
        if not network.training:
            return forward(*args, **kwargs)
        with torch.autocast(device, torch.bfloat16):
            return forward(*args, **kwargs).float()

    return half
