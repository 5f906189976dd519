"""A parent's picture from its children's patches: what `canvas` compiles, as one operation with its gradient.

Shape legend: K children of each parent, C channels whose last is the mask, S x S pixels of the parent, h x w of
a patch.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.overrides import has_torch_function

from programs.blocks import canvas, render
from programs.blocks.nets import present_rows, where_present


def compose(patches: Tensor, pose: Tensor, pres: Tensor, depth: Tensor, size: int) -> Tensor:
    """`render.place` the children of every parent, and `render.composite` them.

    Absent ones take no part in a training step. On a CPU, with three colours, it is compiled, and takes a
    quarter of the time with its gradient.

    Args:
        patches: (..., K, C + 1, h, w) colours and, last, mask.
        pose: (..., K, 2, 3) in the parent's frame.
        pres: (..., K) presence, hard or relaxed.
        depth: (..., K), smaller in front.
        size: pixels a side of the parent.
    Returns:
        (..., C + 1, size, size).
    """
    alike = patches.shape[:-3] == pose.shape[:-2] == pres.shape == depth.shape
    if not alike or not compilable(patches, pose, pres, depth):
        placed = where_present(pres, partial(render.place, size=size), patches, pose)
        return render.composite(placed, pres, depth)
    rows = present_rows(pres)
    shown = torch.ones(pres.numel(), dtype=torch.bool)
    if rows is not None:
        shown = shown.zero_().index_fill(0, rows, True)
    inverse, opacity = render.inverse(pose), render.opacity(pres, depth)
    return Compose.apply(patches, inverse, pres, opacity, shown.view(pres.shape), size)


def compilable(*tensors: Tensor) -> bool:
    """Whether these may go to `Compose`: patches (..., C, h, w) first, all numbers of one type, on a CPU."""
    if has_torch_function(tensors) or torch._C._are_functorch_transforms_active():
        return False
    kinds = {(t.device.type, t.dtype) for t in tensors}
    known = kinds in ({("cpu", torch.float32)}, {("cpu", torch.float64)})
    return known and tensors[0].shape[-3] == canvas.CHANNELS


class Compose(torch.autograd.Function):
    """Canvases (..., C, S, S) from patches (..., K, C, h, w); the arguments are those of `canvas.composed`."""

    @staticmethod
    def forward(
        ctx: Any,
        patches: Tensor,
        inverse: Tensor,
        pres: Tensor,
        opacity: Tensor,
        shown: Tensor,
        size: int,
    ) -> Tensor:
        """(..., C, S, S)."""
        given = (patches, inverse, pres, opacity, shown)
        arrays = _arrays(pres.shape, *given)
        out, weights = (torch.from_numpy(a) for a in canvas.composed(*arrays, size))
        ctx.save_for_backward(*given, out, weights)
        return out.view(*pres.shape[:-1], *out.shape[1:])

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        """Gradients by the first four, given that by the canvases."""
        *given, out, weights = ctx.saved_tensors
        if torch.is_grad_enabled():  # the gradient is to be differentiated
            drawn = plain(*given, size=out.shape[-1])
            wanted = [t for t in given[:4] if t.requires_grad]
            found = iter(torch.autograd.grad(drawn, wanted, gradient, create_graph=True))
            return *(next(found) if t.requires_grad else None for t in given[:4]), None, None
        arrays = _arrays(given[2].shape, *given)
        flat = gradient.reshape(out.shape).contiguous().numpy()
        found = canvas.gradients(*arrays, out.numpy(), weights.numpy(), flat)
        pairs = zip(found, given[:4], strict=True)
        return *(torch.from_numpy(f).view(t.shape) for f, t in pairs), None, None


def _arrays(lead: torch.Size, *tensors: Tensor) -> list[np.ndarray]:
    """Tensors (..., K, *S) as arrays (M, K, *S), given their leading dimensions (..., K)."""
    shapes = [(-1, lead[-1], *t.shape[len(lead) :]) for t in tensors]
    pairs = zip(tensors, shapes, strict=True)
    return [t.detach().reshape(shape).contiguous().numpy() for t, shape in pairs]


def plain(
    patches: Tensor, inverse: Tensor, pres: Tensor, opacity: Tensor, shown: Tensor, size: int
) -> Tensor:
    """What `Compose` computes, by torch's own operations: to differentiate twice, and to test it against."""
    there = shown[..., None, None, None]
    placed = render.place(patches, render.inverse(inverse), size) * there
    weights = placed[..., -1, :, :] * opacity[..., None, None]
    alpha = weights / (weights.sum(-3, keepdim=True) + canvas.EMPTY)
    return ((alpha * pres[..., None, None]).unsqueeze(-3) * placed).sum(-4)
