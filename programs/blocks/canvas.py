"""Place patches on their parent's canvas and composite them, in one pass each way, compiled by numba.

The function is that of `render.place` and `render.composite` one after the other. It reads and writes only the
pixels that a patch covers, keeps nothing but the canvas and its weights for the gradient, and takes a fifth of
their time on a CPU.

Shape legend: M parents, K children of each, C channels whose last is the mask, S x S pixels of the canvas,
h x w of a patch.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.overrides import has_torch_function

from programs.blocks.compiled import compiled

CHANNELS = 4
"""C, which the compiler must know."""
EMPTY = 1e-8
"""Weight of "nobody is here" at every pixel."""


@compiled
def span(slope: float, start: float, size: int, low: int, high: int) -> tuple[int, int]:
    """Of pixels `low` to `high` - 1 those at which -1 < slope · i + start < size, or one more on each side."""
    if abs(slope) < 1e-12:
        return (low, high) if -1 < start < size else (low, low)
    one, other = (-1 - start) / slope, (size - start) / slope
    first, last = math.floor(min(one, other)), math.ceil(max(one, other)) + 1
    return int(max(low, min(first, high))), int(min(high, max(last, low)))


@compiled
def lines(matrix: np.ndarray, size: int, height: int, width: int) -> np.ndarray:
    """Where canvas pixel (i, j) falls in a patch: column q₀ i + q₁ j + q₂, row q₃ i + q₄ j + q₅, in its pixels."""
    found = np.empty(6, matrix.dtype)
    for row, side in ((0, width), (1, height)):
        across, down = matrix[row, 0] / size * side, matrix[row, 1] / size * side
        corner = matrix[row, 2] - (matrix[row, 0] + matrix[row, 1]) * (1 - 1 / size)
        found[3 * row], found[3 * row + 1] = across, down
        found[3 * row + 2] = ((corner + 1) * side - 1) / 2
    return found


@compiled
def framed(patch: np.ndarray, frame: np.ndarray) -> None:
    """Copy a patch (C, h, w) into the middle of (h + 2, w + 2, C), whose rim is zero."""
    channels, height, width = patch.shape
    for y in range(height):
        for x in range(width):
            for c in range(channels):
                frame[y + 1, x + 1, c] = patch[c, y, x]


@compiled
def composed(
    patches: np.ndarray,
    inverse: np.ndarray,
    pres: np.ndarray,
    opacity: np.ndarray,
    shown: np.ndarray,
    size: int,
) -> tuple[np.ndarray, np.ndarray]:
    """Canvases (M, C, S, S), and the weights (M, S, S) that they were divided by.

    Args:
        patches: (M, K, C, h, w).
        inverse: (M, K, 2, 3) from the canvas to the patch; where a number is not finite, nothing is drawn.
        pres: (M, K) factors of what is drawn.
        opacity: (M, K) factors of the masks in the weights.
        shown: (M, K) which children are drawn at all.
        size: S.
    """
    parents, children, channels, height, width = patches.shape
    out = np.empty((parents, channels, size, size), patches.dtype)
    weights = np.empty((parents, size, size), patches.dtype)
    canvas = np.empty((size, size, channels), patches.dtype)
    frame = np.zeros((height + 2, width + 2, channels), patches.dtype)
    for m in range(parents):
        canvas[:] = 0
        weights[m] = EMPTY
        for k in range(children):
            q = lines(inverse[m, k], size, height, width)
            if not (shown[m, k] and np.isfinite(q.sum())):
                continue
            framed(patches[m, k], frame)
            draw(canvas, weights[m], frame, q, pres[m, k], opacity[m, k])
        for c in range(channels):
            for j in range(size):
                for i in range(size):
                    out[m, c, j, i] = canvas[j, i, c] / weights[m, j, i]
    return out, weights


@compiled
def draw(
    canvas: np.ndarray,
    weights: np.ndarray,
    frame: np.ndarray,
    q: np.ndarray,
    pres: float,
    opacity: float,
) -> None:
    """Add one child to a canvas (S, S, C) and its weights (S, S)."""
    size, channels = canvas.shape[0], canvas.shape[2]
    height, width = frame.shape[0] - 2, frame.shape[1] - 2
    number = frame.dtype.type
    one = number(1)
    for j in range(size):
        across, down = q[1] * number(j) + q[2], q[4] * number(j) + q[5]
        low, high = span(q[0], across, width, 0, size)
        low, high = span(q[3], down, height, low, high)
        for i in range(low, high):
            x, y = q[0] * number(i) + across, q[3] * number(i) + down
            if not (-1 < x < width and -1 < y < height):
                continue
            left, top = int(math.floor(x)), int(math.floor(y))
            right, low_part = x - number(left), y - number(top)
            nw, ne = (one - right) * (one - low_part), right * (one - low_part)
            sw, se = (one - right) * low_part, right * low_part
            above, below = frame[top + 1], frame[top + 2]
            mask = (
                nw * above[left + 1, 3]
                + ne * above[left + 2, 3]
                + sw * below[left + 1, 3]
                + se * below[left + 2, 3]
            )
            weight = opacity * mask
            weights[j, i] += weight
            share = pres * weight
            for c in range(CHANNELS):
                canvas[j, i, c] += share * (
                    nw * above[left + 1, c]
                    + ne * above[left + 2, c]
                    + sw * below[left + 1, c]
                    + se * below[left + 2, c]
                )


@compiled
def gradients(
    patches: np.ndarray,
    inverse: np.ndarray,
    pres: np.ndarray,
    opacity: np.ndarray,
    shown: np.ndarray,
    out: np.ndarray,
    weights: np.ndarray,
    gradient: np.ndarray,
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Gradients by patches, inverse, pres and opacity, given that by the canvases `composed`."""
    parents, children, channels, height, width = patches.shape
    size = out.shape[-1]
    d_patches, d_inverse = np.zeros_like(patches), np.zeros_like(inverse)
    d_pres, d_opacity = np.zeros_like(pres), np.zeros_like(opacity)
    d_canvas = np.empty((size, size, channels + 1), patches.dtype)
    frame = np.zeros((height + 2, width + 2, channels), patches.dtype)
    d_frame = np.empty_like(frame)
    for m in range(parents):
        through(d_canvas, out[m], weights[m], gradient[m])
        for k in range(children):
            q = lines(inverse[m, k], size, height, width)
            if not (shown[m, k] and np.isfinite(q.sum())):
                continue
            framed(patches[m, k], frame)
            d_frame[:] = 0
            d_q = np.zeros_like(q)
            d_pres[m, k], d_opacity[m, k] = undraw(
                d_canvas, frame, d_frame, q, d_q, pres[m, k], opacity[m, k]
            )
            unframed(d_patches[m, k], d_frame)
            unlines(d_inverse[m, k], d_q, size, height, width)
    return d_patches, d_inverse, d_pres, d_opacity


@compiled
def through(d_canvas: np.ndarray, out: np.ndarray, weights: np.ndarray, d_out: np.ndarray) -> None:
    """Write the gradient by a canvas (S, S, C + 1), and last by its weights, given that by their ratio."""
    size = weights.shape[0]
    for j in range(size):
        for i in range(size):
            share = 1 / weights[j, i]
            total = d_out[0, j, i] * out[0, j, i]
            for c in range(1, CHANNELS):
                total += d_out[c, j, i] * out[c, j, i]
            for c in range(CHANNELS):
                d_canvas[j, i, c] = d_out[c, j, i] * share
            d_canvas[j, i, CHANNELS] = -total * share


@compiled
def undraw(
    d_canvas: np.ndarray,
    frame: np.ndarray,
    d_frame: np.ndarray,
    q: np.ndarray,
    d_q: np.ndarray,
    pres: float,
    opacity: float,
) -> tuple[float, float]:
    """Add to the gradients by a child's frame and lines; returns those by its presence and opacity."""
    size = d_canvas.shape[0]
    height, width = frame.shape[0] - 2, frame.shape[1] - 2
    number = frame.dtype.type
    one, d_pres, d_opacity = number(1), number(0), number(0)
    for j in range(size):
        across, down = q[1] * number(j) + q[2], q[4] * number(j) + q[5]
        low, high = span(q[0], across, width, 0, size)
        low, high = span(q[3], down, height, low, high)
        for i in range(low, high):
            x, y = q[0] * number(i) + across, q[3] * number(i) + down
            if not (-1 < x < width and -1 < y < height):
                continue
            left, top = int(math.floor(x)), int(math.floor(y))
            r, b = x - number(left), y - number(top)
            nw, ne, sw, se = (one - r) * (one - b), r * (one - b), (one - r) * b, r * b
            above, below = frame[top + 1], frame[top + 2]
            mask = (
                nw * above[left + 1, 3]
                + ne * above[left + 2, 3]
                + sw * below[left + 1, 3]
                + se * below[left + 2, 3]
            )
            shown = number(0)
            for c in range(CHANNELS):
                shown += d_canvas[j, i, c] * (
                    nw * above[left + 1, c]
                    + ne * above[left + 2, c]
                    + sw * below[left + 1, c]
                    + se * below[left + 2, c]
                )
            weight = opacity * mask
            d_pres += weight * shown
            d_weight = pres * shown + d_canvas[j, i, CHANNELS]
            d_opacity += d_weight * mask
            share = pres * weight
            d_x, d_y = number(0), number(0)
            d_above, d_below = d_frame[top + 1], d_frame[top + 2]
            for c in range(CHANNELS):
                d = share * d_canvas[j, i, c]
                if c == CHANNELS - 1:
                    d += d_weight * opacity
                a0, a1 = above[left + 1, c], above[left + 2, c]
                b0, b1 = below[left + 1, c], below[left + 2, c]
                d_x += d * ((one - b) * (a1 - a0) + b * (b1 - b0))
                d_y += d * ((one - r) * (b0 - a0) + r * (b1 - a1))
                d_above[left + 1, c] += nw * d
                d_above[left + 2, c] += ne * d
                d_below[left + 1, c] += sw * d
                d_below[left + 2, c] += se * d
            d_q[0] += d_x * number(i)
            d_q[1] += d_x * number(j)
            d_q[2] += d_x
            d_q[3] += d_y * number(i)
            d_q[4] += d_y * number(j)
            d_q[5] += d_y
    return d_pres, d_opacity


@compiled
def unframed(d_patch: np.ndarray, d_frame: np.ndarray) -> None:
    """The gradient by a patch, given that by its frame."""
    channels, height, width = d_patch.shape
    for c in range(channels):
        for y in range(height):
            for x in range(width):
                d_patch[c, y, x] = d_frame[y + 1, x + 1, c]


@compiled
def unlines(d_matrix: np.ndarray, d_q: np.ndarray, size: int, height: int, width: int) -> None:
    """The gradient by a matrix (2, 3), given that by its `lines`."""
    for row, side in ((0, width), (1, height)):
        corner = d_q[3 * row + 2] * side / 2
        for axis in (0, 1):
            slope = d_q[3 * row + axis] / size * side
            d_matrix[row, axis] = slope - corner * (1 - 1 / size)
        d_matrix[row, 2] = corner


def compilable(*tensors: Tensor) -> bool:
    """Whether these may go to `Compose`: patches (..., C, h, w) first, all numbers of one type, on a CPU."""
    if has_torch_function(tensors) or torch._C._are_functorch_transforms_active():
        return False
    kinds = {(t.device.type, t.dtype) for t in tensors}
    known = kinds in ({("cpu", torch.float32)}, {("cpu", torch.float64)})
    return known and tensors[0].shape[-3] == CHANNELS


class Compose(torch.autograd.Function):
    """Canvases (..., C, S, S) from patches (..., K, C, h, w); the arguments are those of `composed`."""

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
        given = (patches, inverse, pres, opacity, shown)
        arrays = _arrays(pres.shape, *given)
        out, weights = (torch.from_numpy(a) for a in composed(*arrays, size))
        ctx.save_for_backward(*given, out, weights)
        return out.view(*pres.shape[:-1], *out.shape[1:])

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        *given, out, weights = ctx.saved_tensors
        if torch.is_grad_enabled():  # the gradient is to be differentiated
            with torch.enable_grad():
                drawn = plain(*given, size=out.shape[-1])
            return *torch.autograd.grad(drawn, given[:4], gradient, create_graph=True), None, None
        arrays = _arrays(given[2].shape, *given)
        flat = gradient.reshape(out.shape).contiguous().numpy()
        found = gradients(*arrays, out.numpy(), weights.numpy(), flat)
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
    from programs.blocks import render

    there = shown[..., None, None, None]
    placed = render.place(patches, render.inverse(inverse), size) * there
    weights = placed[..., -1, :, :] * opacity[..., None, None]
    alpha = weights / (weights.sum(-3, keepdim=True) + EMPTY)
    return ((alpha * pres[..., None, None]).unsqueeze(-3) * placed).sum(-4)
