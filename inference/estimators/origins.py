"""Which terms of a loss depend on which discrete sites, and a site's share of them.

A run is followed with values that carry their origins (Wingate et al., 2011). Beyond Pyro's own tracking,
tensors that are written in place keep the origins of what was written, and a value that Python reads (an
``if``, ``.item()``, NumPy) is an origin of everything.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import pyro
import torch
from pyro.infer.tracegraph_elbo import TrackNonReparam
from pyro.infer.util import MultiFrameTensor
from pyro.ops.provenance import ProvenanceTensor, get_provenance, track_provenance
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves

from inference.objectives import Term

Origins = Mapping[str, frozenset[str]]
READ = {"item", "tolist", "numpy", "__bool__", "__int__", "__float__", "__index__", "__array__"}
"""Functions of tensors that hand a value to Python."""
INPLACE = {
    f"__i{name}__"
    for name in ("add", "sub", "mul", "truediv", "floordiv", "pow", "mod", "and", "or")
}
"""Operators that write into their first argument."""


class Written(TorchFunctionMode):
    """Tensors written in place keep the origins of what was written, by storage; `read` is what Python saw."""

    def __init__(self) -> None:
        super().__init__()
        self.read: frozenset[str] = frozenset()
        self.written: dict[int, tuple[Any, frozenset[str]]] = {}

    def __torch_function__(
        self, func: Callable, types: Iterable, args: tuple = (), kwargs: dict | None = None
    ) -> Any:
        """Call, with the origins that came by storage."""
        kwargs = kwargs or {}
        tensors = [t for t in tree_leaves((args, kwargs)) if isinstance(t, Tensor)]
        stored = frozenset().union(*map(self.of, tensors))
        origins = stored.union(*map(get_provenance, tensors))
        found = func(*args, **kwargs)
        name = getattr(func, "__name__", "")
        if name in READ:
            self.read |= origins
        elif origins and writes(name, kwargs):
            self.note(kwargs.get("out", args[0]), origins)
        return track_provenance(found, stored) if stored else found

    def of(self, tensor: Tensor) -> frozenset[str]:
        """What was written into the tensor's storage."""
        return self.written.get(_storage(tensor)._cdata, (None, frozenset()))[1]

    def marked(self, tensor: Tensor) -> Tensor:
        """A tensor with all origins that it may have: its own, its storage's, and all that Python read."""
        origins = self.of(tensor) | self.read
        return track_provenance(tensor, origins) if origins else tensor

    def note(self, target: Tensor, origins: frozenset[str]) -> None:
        """Remember what is written; the storage is kept, or another might take its address."""
        storage = _storage(target)
        _, before = self.written.get(storage._cdata, (None, frozenset()))
        self.written[storage._cdata] = storage, before | origins


def _storage(tensor: Tensor) -> torch.UntypedStorage:
    return (tensor._t if isinstance(tensor, ProvenanceTensor) else tensor).untyped_storage()


def writes(name: str, kwargs: Mapping[str, Any]) -> bool:
    """Whether a call of a function writes into a tensor that it is given."""
    in_place = name.endswith("_") and not name.endswith("__")
    in_place = in_place or name in INPLACE or name in ("__setitem__", "__set__")
    return in_place or isinstance(kwargs.get("out"), Tensor) or kwargs.get("inplace") is True


@contextmanager
def apart(*functions: Callable) -> Iterator[None]:
    """Within, random states and the functions' buffers move as they like; afterwards they are as before."""
    devices = range(torch.cuda.device_count())
    with torch.random.fork_rng(devices), buffers_kept(*functions):
        yield


@contextmanager
def buffers_kept(*functions: Callable) -> Iterator[None]:
    """What modules count in a run (ECON's prices) is afterwards as it was before."""
    modules = [m for f in functions if isinstance(f, torch.nn.Module) for m in f.modules()]
    kept = [(m, n, b, b.clone()) for m in modules for n, b in m._buffers.items() if b is not None]
    versions = [b._version for _, _, b, _ in kept]
    try:
        yield
    finally:
        with torch.no_grad():
            for (module, name, buffer, before), version in zip(kept, versions, strict=True):
                # autograd refuses a tensor that was written since, were it with what it held
                module._buffers[name] = (
                    buffer if buffer._version == version else buffer.copy_(before)
                )


def provenance(run: Callable[[], dict[str, Term]]) -> dict[str, frozenset[str]]:
    """Names of the discrete sites that every term of a run depends on.

    Followed now and then and remembered: values that carry their origins make every operation slow.
    """
    with torch.no_grad(), pyro.validation_enabled(False), Written() as written, TrackNonReparam():
        costs = {name: term.cost for name, term in run().items()}
    return {name: get_provenance(written.marked(cost)) for name, cost in costs.items()}


def unseen(sites: Iterable[str], origins: Origins) -> frozenset[str]:
    """The sites on which nothing but KLs depends, as far as tensors tell. Their signal is the whole cost."""
    observed = [found for name, found in origins.items() if not name.startswith(("kl/", "aux/"))]
    return frozenset(sites).difference(*observed)


def downstream(site: dict, terms: Iterable[Term]) -> Tensor:
    """(*batch shape) a site's share of terms that depend on it, elementwise where plates allow.

    A latent outside of a plate that depends on the site joins the plate's elements: what hangs on it, at all
    elements, hangs on each element of the site. So such a plate is summed over.
    """
    terms, frames = list(terms), site["cond_indep_stack"]
    latents = [{f.name for f in term.frames} for term in terms if term.name.startswith("kl/")]
    apart = [frame for frame in frames if all(frame.name in names for names in latents)]
    costs = MultiFrameTensor(*((term.frames, term.cost.detach()) for term in terms))
    total = torch.as_tensor(costs.sum_to(apart), device=site["value"].device)
    return total.expand(site["fn"].batch_shape)


def warn_of_unseen(sites: Iterable[str], origins: Origins, remedy: str) -> None:
    """Warn of sites on which, as far as tensors tell, nothing observed depends."""
    names = sorted(unseen(sites, origins))
    if names:
        warnings.warn(
            f"nothing observed depends on {', '.join(names)}, as far as tensors tell: {remedy}",
            stacklevel=3,
        )
